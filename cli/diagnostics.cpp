// SPDX-License-Identifier: MIT
#include "tweedie/cli/diagnostics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tweedie/cli/evaluation.h"
#include "tweedie/core/statistics.h"
#include "tweedie/samplers/c2st.h"
#include "tweedie/samplers/stein.h"

namespace tweedie::cli {

namespace {

constexpr double kFlowTolerance = 1e-4;

// The columns whose values differ.
std::vector<Index> varying(ConstRows<float> rows) {
  std::vector<Index> columns;
  for (Index c = 0; c < rows.cols(); ++c) {
    Index r = 1;
    while (r < rows.rows() && rows(r, c) == rows(0, c)) ++r;
    if (r < rows.rows()) columns.push_back(c);
  }
  return columns;
}

Matrix select(ConstRows<float> rows, const std::vector<Index>& columns) {
  Matrix out(rows.rows(), static_cast<Index>(columns.size()));
  for (Index r = 0; r < rows.rows(); ++r) {
    for (Index c = 0; c < out.cols(); ++c) out(r, c) = rows(r, columns[static_cast<std::size_t>(c)]);
  }
  return out;
}

}  // namespace

Transport exact_transport(ConstRows<float> rows, ConstRows<float> held_out) {
  const Index n = std::min({rows.rows(), held_out.rows(), kTransportRows});
  return {wasserstein(spread(rows, n), spread(held_out, n), 2), n};
}

std::optional<ClassifierTest> classifier_test(ConstRows<float> samples, ConstRows<float> held_out, const Rng& rng) {
  const Index n = std::min({samples.rows(), held_out.rows(), kClassifierRows});
  const Matrix reference = spread(held_out, n);
  const std::vector<Index> columns = varying(reference);
  if (columns.empty()) return std::nullopt;
  const C2st test = c2st(select(reference, columns), select(spread(samples, n), columns), {}, rng);
  return ClassifierTest{test.accuracy, test.standard_error, n, static_cast<Index>(columns.size())};
}

SteinFit stein_fit(const ScoreModel& model, ConstRows<float> rows, Index count, const Rng& rng) {
  Matrix y = spread(rows, count), noise(count, rows.cols());
  const float sigma = static_cast<float>(model.sigma_min());
  rng.normals<float>(Purpose::perturb, 0, 0, noise);
  for (Index i = 0; i < y.size(); ++i) y.data()[i] += sigma * noise.data()[i];
  return {stein_discrepancy(model, model.sigma_min(), y).u_statistic, stein_test(model, model.sigma_min(), y, {}, rng).p_value,
          count};
}

MeanLogDensity mean_log_density(const std::vector<double>& nats, Index dim) {
  const double n = static_cast<double>(nats.size());
  MeanLogDensity s;
  s.mean = std::accumulate(nats.begin(), nats.end(), 0.) / n;
  double square = 0;
  for (const double v : nats) square += (v - s.mean) * (v - s.mean);
  s.standard_error = nats.size() > 1 ? std::sqrt(square / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN();
  s.bits_per_dim = -s.mean / (static_cast<double>(dim) * std::log(2.));
  return s;
}

void warn_of_whole_numbers(const Console& console, const TableCode& code, double sigma_min) {
  std::string names;
  Index count = 0;
  for (const ColumnCode& column : code.columns()) {
    if (column.kind != ColumnKind::integer) continue;
    if (++count <= 3) names += join(count > 1 ? ", '" : "'", column.name, "'");
  }
  if (count == 0) return;
  console.warn(join(count > 1 ? "columns " : "column ", names, count > 3 ? join(" and ", count - 3, " more") : std::string(),
                    " held whole numbers only: ", count > 1 ? "their" : "its",
                    " density is that of the number line, at sigma = ", number(sigma_min), " deviations"));
}

Likelihood likelihood(const ScoreModel& model, const TableCode& code, ConstRows<float> held_out, const SamplingCallback& progress,
                      const Rng& rng) {
  const bool exact = held_out.cols() <= kExactTraceDim;
  Likelihood l;
  l.rows = std::min(held_out.rows(), kLikelihoodRows);
  l.divergence = exact ? Divergence::exact : Divergence::hutchinson;
  const Matrix rows = spread(held_out, l.rows);
  LogDensity p = log_density(
      model, rows,
      {.divergence = l.divergence, .probes = 4, .rtol = kFlowTolerance, .atol = kFlowTolerance, .progress = progress}, rng);
  const std::vector<double> jacobian = code.log_jacobian(rows);
  for (std::size_t i = 0; i < p.nats.size(); ++i) p.nats[i] += jacobian[i];
  l.density = mean_log_density(p.nats, held_out.cols());
  const auto middle = p.nats.begin() + static_cast<std::ptrdiff_t>(p.nats.size() / 2);
  std::nth_element(p.nats.begin(), middle, p.nats.end());
  l.median = *middle;
  l.evaluations = p.evaluations;
  return l;
}

}  // namespace tweedie::cli
