// exact_flow.h - what the step samplers are held against: the probability flow to rounding, and a linear chain's exact law.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "tweedie/core/eigen.h"
#include "tweedie/core/eigen_solvers.h"
#include "tweedie/core/random.h"
#include "tweedie/models/gaussian_mixture.h"

namespace tweedie::test {

/// sigma z, the same points in every test; (n, D).
inline MatrixD start_at(double sigma, Index n, Index dim = 2) {
  MatrixD x(n, dim);
  Rng{77}.normals<double>(Purpose::user, 0, 0, x);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] *= sigma;
  return x;
}

/// dx/d ln sigma = -sigma^2 s(x, sigma) from sigma_max to sigma_min by the classical Runge-Kutta method in ln sigma: with 2000
/// steps over 80..0.002 its error is some 1e-9, which the tests' smallest errors exceed 1000-fold.
inline MatrixD exact_flow(const GaussianMixture& model, MatrixD x, double sigma_max, double sigma_min, int steps = 2000) {
  const double h = std::log(sigma_min / sigma_max) / steps;
  const auto slope = [&](const MatrixD& at, double u) {
    MatrixD k = model.score(at, std::exp(u));
    for (Index i = 0; i < k.size(); ++i) k.data()[i] *= -std::exp(2 * u);
    return k;
  };
  const auto moved = [&](const MatrixD& k, double by) {
    MatrixD y = x;
    for (Index i = 0; i < y.size(); ++i) y.data()[i] += by * k.data()[i];
    return y;
  };
  for (int n = 0; n < steps; ++n) {
    const double u = std::log(sigma_max) + n * h;
    const MatrixD k1 = slope(x, u), k2 = slope(moved(k1, h / 2), u + h / 2), k3 = slope(moved(k2, h / 2), u + h / 2),
                  k4 = slope(moved(k3, h), u + h);
    for (Index i = 0; i < x.size(); ++i) {
      x.data()[i] += h / 6 * (k1.data()[i] + 2 * k2.data()[i] + 2 * k3.data()[i] + k4.data()[i]);
    }
  }
  return x;
}

/// Median over the rows of |a - b|: the mean is ruled by the few rows that part near a separatrix.
inline double median_error(const MatrixD& a, const MatrixD& b) {
  std::vector<double> errors;
  for (Index r = 0; r < a.rows(); ++r) {
    double sum = 0;
    for (Index c = 0; c < a.cols(); ++c) sum += (a(r, c) - b(r, c)) * (a(r, c) - b(r, c));
    errors.push_back(std::sqrt(sum));
  }
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2);
  std::nth_element(errors.begin(), middle, errors.end());
  return *middle;
}

inline double largest_difference(const MatrixD& a, const MatrixD& b) {
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

/// log2 of the ratios of neighbours: the orders when each entry has twice the steps of the one before.
inline std::vector<double> orders(const std::vector<double>& errors) {
  std::vector<double> result;
  for (std::size_t i = 0; i + 1 < errors.size(); ++i) result.push_back(std::log2(std::abs(errors[i] / errors[i + 1])));
  return result;
}

using Draw = std::pair<std::uint32_t, std::uint32_t>;  // step and sub-draw of Purpose::sde

/// A chain of one dimension under a linear score: x_end = gain x_start + sum_k c_k z_k.
struct LinearLaw {
  double gain;
  double noise_variance;  // sum_k c_k^2
  double residual;        // largest |x_end - sum_k c_k z_k| of the fit: rounding, if the draws are the chain's
  double variance(double start) const { return gain * gain * start + noise_variance; }
};

/// The law of run(x_init, rng) to rounding. From x = 0 the ends of more rows than draws give the c_k by least squares; what the
/// end moves when the start does is the gain.
inline LinearLaw linear_law(const std::function<MatrixD(ConstRows<double>, const Rng&)>& run, const std::vector<Draw>& draws) {
  const Rng rng{31};
  const Index count = static_cast<Index>(draws.size()), n = 2 * count + 1;
  MatrixD zero(n, 1), one(n, 1), z(n, std::max<Index>(count, 1)), column(n, 1);
  for (Index r = 0; r < n; ++r) one(r, 0) = 1;
  for (Index k = 0; k < count; ++k) {
    const auto& draw = draws[static_cast<std::size_t>(k)];
    rng.normals<double>(Purpose::sde, draw.first, 0, column, draw.second);
    for (Index r = 0; r < n; ++r) z(r, k) = column(r, 0);
  }
  const MatrixD from_zero = run(zero, rng), from_one = run(one, rng);
  if (count == 0) return {from_one(0, 0) - from_zero(0, 0), 0, std::abs(from_zero(0, 0))};
  const Eigen::MatrixXd noise = z.eigen();
  const Eigen::VectorXd end = from_zero.eigen().col(0);
  const Eigen::VectorXd c = (noise.transpose() * noise).ldlt().solve(noise.transpose() * end);  // condition number 40 or so
  const double residual = (noise * c - end).cwiseAbs().maxCoeff();
  return {from_one(0, 0) - from_zero(0, 0), c.squaredNorm(), residual};
}

inline std::vector<Draw> draws_of_steps(std::int64_t steps) {
  std::vector<Draw> draws;
  for (std::int64_t i = 0; i < steps; ++i) draws.emplace_back(static_cast<std::uint32_t>(i), 0u);
  return draws;
}

}  // namespace tweedie::test
