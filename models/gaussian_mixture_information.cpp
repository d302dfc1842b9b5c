// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "tweedie/core/parallel.h"
#include "tweedie/models/gaussian_mixture.h"

namespace tweedie {

// ---- Fisher information ----

// sum_k w_k int N(z; 0, I) |s(m_k + U_k sqrt(l_k + sigma^2) z)|^2 dz by the trapezoidal rule on [-9, 9]^D, D <= 2. The rule
// converges exponentially for an analytic integrand that has vanished at the ends [Trefethen & Weideman 2014]; what is cut off is
// < 1e-17.
double GaussianMixture::quadrature(double sigma, double step) const {
  const Index d = dim(), half = static_cast<Index>(9 / step), side = 2 * half + 1, points = d == 1 ? side : side * side;
  double total = 0;
  for (Index k = 0; k < components(); ++k) {
    total += weights_[static_cast<std::size_t>(k)] * parallel_sum(points, [&](Index begin, Index end) {
               MatrixD y(end - begin, d);
               std::vector<double> mass(static_cast<std::size_t>(end - begin), 1.);
               for (Index p = begin; p < end; ++p) {
                 Index rest = p;
                 for (Index j = 0; j < d; ++j) y(p - begin, j) = means_(k, j);
                 for (Index axis = 0; axis < d; ++axis, rest /= side) {
                   const double z = step * static_cast<double>(rest % side - half);
                   mass[static_cast<std::size_t>(p - begin)] *= step * std::exp(-.5 * z * z) / std::sqrt(2 * std::numbers::pi);
                   const double deviation = std::sqrt(variances_[static_cast<std::size_t>(k * d + axis)] + sigma * sigma);
                   for (Index j = 0; j < d; ++j) {
                     y(p - begin, j) += z * deviation * double_shape_.axes[static_cast<std::size_t>((k * d + axis) * d + j)];
                   }
                 }
               }
               const MatrixD s = score(y, sigma);
               double sum = 0;
               for (Index r = 0; r < s.rows(); ++r) {
                 for (Index j = 0; j < d; ++j) sum += mass[static_cast<std::size_t>(r)] * s(r, j) * s(r, j);
               }
               return sum;
             });
  }
  return total;
}

FisherInformation GaussianMixture::fisher_information(double sigma) const {
  check(std::isfinite(sigma) && sigma >= 0, "GaussianMixture::fisher_information: sigma = ", sigma,
        " must be finite and not negative");
  if (dim() <= 2) {
    double step = .5, coarse = quadrature(sigma, step);
    while (true) {
      step /= 2;
      const double fine = quadrature(sigma, step), error = std::abs(fine - coarse);
      if (error <= 1e-10 * fine || std::pow(36 / step, static_cast<double>(dim())) > 4e6) return {fine, error};
      coarse = fine;
    }
  }
  constexpr Index kDraws = 131072;
  const MatrixD s = score(MatrixD(noised(1, sigma).sample(kDraws, Rng{0}).view()).view(), sigma);
  double mean = 0, square = 0;
  for (Index r = 0; r < kDraws; ++r) {
    double norm = 0;
    for (const double v : s.row(r)) norm += v * v;
    mean += norm / kDraws;
    square += norm * norm / kDraws;
  }
  return {mean, std::sqrt(std::max(0., square - mean * mean) / kDraws)};
}

// ---- the chapter's functions ----

namespace {

template <class S>
MatrixX<S> gaussian_score_of(ConstRows<S> x, double sigma) {
  check(std::isfinite(sigma) && sigma > 0, "gaussian_score: sigma = ", sigma, " must be positive and finite");
  MatrixX<S> out(x);
  for (Index r = 0; r < out.rows(); ++r) {
    for (S& v : out.row(r)) v = static_cast<S>(-v / (sigma * sigma));
  }
  return out;
}

template <class S>
MatrixX<S> mixture_score_of(ConstRows<S> x, std::span<const double> means, std::span<const double> weights, double sigma) {
  MatrixD centres(static_cast<Index>(means.size()), 1);
  std::copy(means.begin(), means.end(), centres.data());
  const GaussianMixture mixture =
      GaussianMixture::isotropic(std::vector<double>(weights.begin(), weights.end()), std::move(centres), sigma);
  MatrixX<S> out(x);
  const Rows<S> column(out.data(), out.size(), 1);
  const S zero = 0;
  mixture.score(ConstRows<S>(column), std::span(&zero, 1), nullptr, column);
  return out;
}

}  // namespace

Matrix gaussian_score(ConstRows<float> x, double sigma) { return gaussian_score_of(x, sigma); }
MatrixD gaussian_score(ConstRows<double> x, double sigma) { return gaussian_score_of(x, sigma); }
Matrix mixture_score(ConstRows<float> x, std::span<const double> means, std::span<const double> weights, double sigma) {
  return mixture_score_of(x, means, weights, sigma);
}
MatrixD mixture_score(ConstRows<double> x, std::span<const double> means, std::span<const double> weights, double sigma) {
  return mixture_score_of(x, means, weights, sigma);
}
Matrix two_mode_score(ConstRows<float> x) { return GaussianMixture::two_mode().score(x, 0.); }
MatrixD two_mode_score(ConstRows<double> x) { return GaussianMixture::two_mode().score(x, 0.); }

}  // namespace tweedie
