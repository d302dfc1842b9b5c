// SPDX-License-Identifier: MIT
#include "tweedie/models/noise_levels.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tweedie/core/buffer.h"
#include "tweedie/core/parallel.h"

namespace tweedie {

NoiseLevels NoiseLevels::geometric(double sigma_max, double sigma_min, Index count) {
  check(std::isfinite(sigma_max) && sigma_min > 0 && sigma_max >= sigma_min, "NoiseLevels::geometric: sigma_max = ", sigma_max,
        ", sigma_min = ", sigma_min, "; both must be positive and finite, the largest first");
  check(sigma_max > sigma_min ? count >= 2 : count == 1, "NoiseLevels::geometric: ", count, " levels from ", sigma_max, " to ",
        sigma_min, "; two or more levels need sigma_max > sigma_min, a single one sigma_max = sigma_min");
  std::vector<double> sigmas(static_cast<std::size_t>(count));
  const double log_max = std::log(sigma_max);
  const double step = count > 1 ? (std::log(sigma_min) - log_max) / static_cast<double>(count - 1) : 0;
  for (std::size_t i = 0; i < sigmas.size(); ++i) sigmas[i] = std::exp(log_max + step * static_cast<double>(i));
  // exp(log(x)) may miss x by a rounding; a model trained on these levels must answer for both ends exactly.
  sigmas.front() = sigma_max;
  sigmas.back() = sigma_min;
  return NoiseLevels(std::move(sigmas));
}

NoiseLevels::NoiseLevels(std::vector<double> sigmas) : sigmas_(std::move(sigmas)) {
  check(!sigmas_.empty(), "NoiseLevels: no levels given, at least one is needed");
  for (std::size_t i = 0; i < sigmas_.size(); ++i) {
    check(std::isfinite(sigmas_[i]) && sigmas_[i] > 0, "NoiseLevels: level ", i, " is ", sigmas_[i],
          "; levels must be positive and finite");
    check(i == 0 || sigmas_[i] < sigmas_[i - 1], "NoiseLevels: level ", i, " is ", sigmas_[i], ", not below level ", i - 1, " (",
          i == 0 ? 0. : sigmas_[i - 1], "); give them in strictly decreasing order");
  }
}

namespace {

double normal_distribution(double z) { return .5 * std::erfc(-z / std::numbers::sqrt2); }

// The variance over sigma_i^2 after T steps at level i that began at that of level i - 1; a mean of gamma^2 and b, so above 1.
double variance_after(double r, double gamma, Index steps) {
  const double b = 2 / (2 - r);
  return std::pow(1 - r, 2 * static_cast<double>(steps)) * (gamma * gamma - b) + b;
}

double largest_distance(ConstRows<float> data) {
  Buffer<double> largest(data.rows());  // squared, from each row to the later ones
  parallel_for(data.rows(), 16, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      largest[i] = 0;
      for (Index j = i + 1; j < data.rows(); ++j) {
        double square = 0;
        for (Index d = 0; d < data.cols(); ++d) {
          const double difference = static_cast<double>(data(i, d)) - static_cast<double>(data(j, d));
          square += difference * difference;
        }
        largest[i] = std::max(largest[i], square);
      }
    }
  });
  return std::sqrt(*std::max_element(largest.begin(), largest.end()));
}

}  // namespace

double ncsnv2_ratio(Index dim) {
  check(dim >= 1, "ncsnv2_ratio: dim is ", dim, "; give at least 1");
  const double a = std::sqrt(2 * static_cast<double>(dim)), largest = std::cbrt(10.);
  const auto overlap = [&](double gamma) {
    return normal_distribution(a * (gamma - 1) + 3 * gamma) - normal_distribution(a * (gamma - 1) - 3 * gamma);
  };
  if (overlap(largest) >= .5) return largest;
  double low = 1, high = largest;  // overlap(1) = .997, above a half
  while (true) {
    const double middle = .5 * (low + high);
    if (middle <= low || middle >= high) return low;
    (overlap(middle) >= .5 ? low : high) = middle;
  }
}

NoiseLevels ncsnv2_levels(Index dim, double sigma_max, double sigma_min) {
  check(std::isfinite(sigma_max) && sigma_min > 0 && sigma_max > sigma_min, "ncsnv2_levels: sigma_max = ", sigma_max,
        ", sigma_min = ", sigma_min, "; both must be positive and finite, the largest first");
  const double ratios = std::log(sigma_max / sigma_min) / std::log(ncsnv2_ratio(dim));
  return NoiseLevels::geometric(sigma_max, sigma_min, 1 + std::max<Index>(1, static_cast<Index>(std::ceil(ratios - 1e-9))));
}

NoiseLevels ncsnv2_levels(ConstRows<float> data, double sigma_min) {
  check<DataError>(data.rows() >= 2, "ncsnv2_levels: the data is ", shape(data), "; a distance needs two rows");
  for (Index r = 0; r < data.rows(); ++r) {
    for (Index c = 0; c < data.cols(); ++c) {
      check<DataError>(std::isfinite(data(r, c)), "ncsnv2_levels: row ", r, ", column ", c, " is not finite (", data(r, c),
                       "); drop the row or fill the cell");
    }
  }
  const double largest = largest_distance(data);
  check<DataError>(largest > sigma_min, "ncsnv2_levels: no two rows are more than ", largest, " apart and sigma_min is ",
                   sigma_min, "; give a smaller one");
  return ncsnv2_levels(data.cols(), largest, sigma_min);
}

double ncsnv2_epsilon(const NoiseLevels& levels, Index steps_per_level) {
  const Index count = levels.size();
  check(count >= 2, "ncsnv2_epsilon: ", count, " level; give at least two");
  check(steps_per_level >= 1, "ncsnv2_epsilon: steps_per_level is ", steps_per_level, "; give at least 1");
  const double gamma = std::pow(levels.max() / levels.min(), 1 / static_cast<double>(count - 1));
  for (Index i = 1; i < count; ++i) {
    check(std::abs(levels[i - 1] / levels[i] / gamma - 1) <= 1e-6, "ncsnv2_epsilon: the ratio of levels ", i - 1, " and ", i,
          " is ", levels[i - 1] / levels[i], ", of the whole ", gamma, "; give geometric levels");
  }
  // The best place of a grid in ln r, then a golden section between its neighbours.
  constexpr Index kGrid = 600;
  const double first = std::log(1e-9), step = -first / kGrid;
  const auto value = [&](double log_r) { return variance_after(std::exp(log_r), gamma, steps_per_level); };
  Index best = 0;
  for (Index k = 1; k <= kGrid; ++k) {
    if (value(first + step * static_cast<double>(k)) < value(first + step * static_cast<double>(best))) best = k;
  }
  double low = first + step * static_cast<double>(std::max<Index>(0, best - 1));
  double high = first + step * static_cast<double>(std::min(kGrid, best + 1));
  constexpr double kGolden = 1 / std::numbers::phi;
  while (high - low > 1e-9) {
    const double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
    (value(left) < value(right) ? high : low) = value(left) < value(right) ? right : left;
  }
  return std::exp(.5 * (low + high)) * levels.min() * levels.min();
}

}  // namespace tweedie
