// SPDX-License-Identifier: MIT
#include "tweedie/cli/evaluation.h"

#include <algorithm>

#include "tweedie/cli/conditions.h"
#include "tweedie/core/statistics.h"

namespace tweedie::cli {

namespace {

std::vector<float> column(ConstRows<float> rows, Index c) {
  std::vector<float> values;
  for (Index r = 0; r < rows.rows(); ++r) values.push_back(rows(r, c));
  return values;
}

double median(const Matrix& values) {
  std::vector<float> sorted(values.data(), values.data() + values.size());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return static_cast<double>(*middle);
}

double zeros(const Matrix& values) {
  return static_cast<double>(std::count(values.data(), values.data() + values.size(), 0.f)) / static_cast<double>(values.size());
}

}  // namespace

Distances distances(ConstRows<float> rows, ConstRows<float> held_out, Rng rng) {
  Distances d;
  d.energy = energy_distance(rows, held_out);
  d.sliced_wasserstein = sliced_wasserstein(rows, held_out, {}, rng);
  const double bandwidth = median_distance(held_out, held_out);
  d.mmd_squared = bandwidth > 0 ? mmd_squared(rows, held_out, {.bandwidth = bandwidth}) : 0;
  for (Index c = 0; c < rows.cols(); ++c) {
    d.ks.push_back(kolmogorov_smirnov(column(rows, c), column(held_out, c)).statistic);
  }
  return d;
}

CopyCheck copy_check(ConstRows<float> samples, ConstRows<float> train, ConstRows<float> held_out) {
  CopyCheck c;
  const Matrix ours = nearest_distances(samples, train), theirs = nearest_distances(held_out, train);
  const double typical = median(theirs);
  c.closest = typical > 0 ? median(ours) / typical : 1;
  const Index equal = std::min(train.rows(), held_out.rows());
  c.ratio = nearest_neighbour_ratio(samples, spread(train, equal), spread(held_out, equal));
  c.identical = zeros(ours);
  c.identical_held_out = zeros(theirs);
  return c;
}

std::vector<Index> spread_places(Index rows, Index count) {
  std::vector<Index> places;
  for (Index i = 0; i < count; ++i) places.push_back(i * rows / count);
  return places;
}

Matrix spread(ConstRows<float> rows, Index count) { return take_rows(rows, spread_places(rows.rows(), count)); }

}  // namespace tweedie::cli
