// gaussian_law.h - the law of a chain whose every step is affine plus Gaussian noise, and how unlikely samples are under it.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include "tweedie/core/eigen_solvers.h"

namespace tweedie::test {

using Square = Eigen::MatrixXd;
using Column = Eigen::VectorXd;

/// Of a symmetric positive definite matrix.
inline Square inverse(const Square& m) { return m.llt().solve(Square::Identity(m.rows(), m.cols())); }

struct GaussianLaw {
  Column mean;
  Square covariance;
  /// x <- a x + b + noise of covariance q
  void push(const Square& a, const Column& b, const Square& q) {
    mean = a * mean + b;
    covariance = a * covariance * a.transpose() + q;
  }
};

/// Largest standard score, over the coordinates and over the sums of neighbouring ones, of the sample mean and the sample
/// variance about the law's mean (chi-squared, by Wilson & Hilferty's cube root). A coordinate of variance 0 is left out.
inline double largest_z(const GaussianLaw& law, ConstRows<double> x) {
  double worst = 0;
  const double n = static_cast<double>(x.rows()), c = 2 / (9 * n);
  for (Index j = 0; j < x.cols(); ++j) {
    for (const bool pair : {false, true}) {
      Column direction = Column::Zero(x.cols());
      direction(j) = 1;
      if (pair) direction((j + 1) % x.cols()) += 1;
      const double mean = direction.dot(law.mean), variance = direction.dot(law.covariance * direction);
      if (variance < 1e-12) continue;
      double sum = 0, square = 0;
      for (Index r = 0; r < x.rows(); ++r) {
        double v = -mean;
        for (Index i = 0; i < x.cols(); ++i) v += direction(i) * x(r, i);
        sum += v;
        square += v * v;
      }
      worst = std::max(
          {worst, std::abs(sum) / std::sqrt(n * variance), std::abs(std::cbrt(square / n / variance) - (1 - c)) / std::sqrt(c)});
    }
  }
  return worst;
}

}  // namespace tweedie::test
