// noise_levels.h - the discrete noise levels sigma_1 > sigma_2 > ... > sigma_L of annealed Langevin dynamics.
//
// NCSNv2's choice of them [Song & Ermon 2020, Techniques 1, 2 and 4]: sigma_1 is the largest distance between two points, the
// ratio gamma of neighbours solves Phi(sqrt(2D) (gamma - 1) + 3 gamma) - Phi(sqrt(2D) (gamma - 1) - 3 gamma) = 1/2, and the step
// epsilon brings T steps of each level nearest to its variance: with r = epsilon / sigma_L^2 and b = 2 / (2 - r) the variance
// over sigma_i^2 is (1 - r)^(2T) (gamma^2 - b) + b.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/core/matrix.h"

namespace tweedie {

/// Strictly decreasing positive noise levels. Level 0 is the largest.
class TWEEDIE_API NoiseLevels {
 public:
  /// exp(linspace(ln sigma_max, ln sigma_min, count)), the chapter's schedule (10, .01, 10) [Song & Ermon 2019].
  /// Throws UsageError unless sigma_max > sigma_min > 0 and count >= 2, or sigma_max = sigma_min and count = 1.
  static NoiseLevels geometric(double sigma_max, double sigma_min, Index count);
  /// Any strictly decreasing positive finite values; throws UsageError otherwise.
  explicit NoiseLevels(std::vector<double> sigmas);

  Index size() const { return static_cast<Index>(sigmas_.size()); }
  double operator[](Index level) const { return sigmas_[static_cast<std::size_t>(level)]; }
  double max() const { return sigmas_.front(); }
  double min() const { return sigmas_.back(); }
  std::span<const double> values() const { return sigmas_; }

 private:
  std::vector<double> sigmas_;
};

/// gamma for data of `dim` >= 1 columns: the solution of NCSNv2's equation, at most 10^(1/3). It has no solution below D = 5 and
/// one of 19.6 there, both of no use; 10^(1/3) is the chapter's three levels a decade.
TWEEDIE_API double ncsnv2_ratio(Index dim);
/// Geometric from sigma_max to sigma_min, as few as keep the ratio of neighbours at or below ncsnv2_ratio(dim). Throws UsageError
/// unless sigma_max > sigma_min > 0.
TWEEDIE_API NoiseLevels ncsnv2_levels(Index dim, double sigma_max, double sigma_min);
/// The same with the largest distance between two rows of the data (N, D) as sigma_max, exact, in N^2 D / 2 operations. Throws
/// DataError for fewer than two rows, a cell that is not finite, or rows nowhere more than sigma_min apart.
TWEEDIE_API NoiseLevels ncsnv2_levels(ConstRows<float> data, double sigma_min);
/// The epsilon of annealed Langevin dynamics, a_i = epsilon sigma_i^2 / sigma_L^2, x += a_i s + sqrt(2 a_i) z, for geometric
/// levels and T = steps_per_level. Throws UsageError for fewer than two levels, levels that are not geometric (relative 1e-6), or
/// T < 1.
TWEEDIE_API double ncsnv2_epsilon(const NoiseLevels& levels, Index steps_per_level);

}  // namespace tweedie
