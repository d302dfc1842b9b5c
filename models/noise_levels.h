// noise_levels.h - the discrete noise levels sigma_1 > sigma_2 > ... > sigma_L of annealed Langevin dynamics.
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

}  // namespace tweedie
