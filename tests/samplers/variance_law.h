// variance_law.h - what Langevin's discrete chain does to a Gaussian's variance, and how unlikely a sample variance is under it.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/core/matrix.h"

namespace tweedie::test {

/// The score of N(0, v) is -x / v, so x' = (1 - h/v) x + noise z takes the variance V to (1 - h/v)^2 V + noise^2.
inline double variance_after(double variance, double v, double h, double noise, Index steps) {
  for (Index t = 0; t < steps; ++t) variance = (1 - h / v) * (1 - h / v) * variance + noise * noise;
  return variance;
}

/// n V^ / V is chi-squared with n degrees (mean known to be 0): its standard score by the Wilson-Hilferty cube root, whose tail
/// probabilities are right to a few percent of themselves at these n.
inline double variance_z(ConstRows<float> x, double variance) {
  double sum = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    for (const float v : x.row(r)) sum += static_cast<double>(v) * v;
  }
  const double n = static_cast<double>(x.size()), c = 2 / (9 * n);
  return (std::cbrt(sum / n / variance) - (1 - c)) / std::sqrt(c);
}

/// Two-sided tail 7e-8: ten of them together stay below 1e-6.
inline constexpr double kZ = 5.4;

}  // namespace tweedie::test
