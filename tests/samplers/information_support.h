// information_support.h - entropies by quadrature and in closed form.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <numbers>

#include "tweedie/models/gaussian_mixture.h"

namespace tweedie::test {

/// 1/2 ln det 2 pi e C by Cholesky's factor.
inline double gaussian_entropy(const MatrixD& c) {
  const Index d = c.rows();
  MatrixD l(d, d);
  double h = .5 * static_cast<double>(d) * std::log(2 * std::numbers::pi * std::numbers::e);
  for (Index i = 0; i < d; ++i) {
    for (Index j = 0; j <= i; ++j) {
      double sum = c(i, j);
      for (Index k = 0; k < j; ++k) sum -= l(i, k) * l(j, k);
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
    h += std::log(l(i, i));
  }
  return h;
}

/// -int p ln p over [-reach, reach]^D by the midpoint rule, D = 1 or 2.
inline double quadrature_entropy(const GaussianMixture& m, double reach, Index side) {
  const double step = 2 * reach / static_cast<double>(side);
  const Index points = m.dim() == 1 ? side : side * side;
  MatrixD y(points, m.dim());
  for (Index p = 0; p < points; ++p) {
    y(p, 0) = -reach + (static_cast<double>(p % side) + .5) * step;
    if (m.dim() == 2) y(p, 1) = -reach + (static_cast<double>(p / side) + .5) * step;
  }
  double h = 0;
  for (const double log_p : m.log_density(y, 0)) h -= std::exp(log_p) * log_p * std::pow(step, static_cast<double>(m.dim()));
  return h;
}

}  // namespace tweedie::test
