// flow_support.h - exact flows and small helpers for the tests of the probability flow and what is built on it.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/process.h"

namespace tweedie::test {

inline MatrixD normals(Index rows, Index cols, double scale, std::uint32_t step = 0) {
  MatrixD z(rows, cols);
  Rng{11}.normals<double>(Purpose::user, step, 0, z);
  for (Index i = 0; i < z.size(); ++i) z.data()[i] *= scale;
  return z;
}

template <class S>
bool same(const MatrixX<S>& a, const MatrixX<S>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

/// max_j |a - b| of every row.
inline std::vector<double> row_errors(const MatrixD& a, const MatrixD& b) {
  std::vector<double> e(static_cast<std::size_t>(a.rows()));
  for (Index r = 0; r < a.rows(); ++r) {
    for (Index j = 0; j < a.cols(); ++j) {
      e[static_cast<std::size_t>(r)] = std::max(e[static_cast<std::size_t>(r)], std::abs(a(r, j) - b(r, j)));
    }
  }
  return e;
}

inline double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// The flow of N(0, diag(deviations^2)) from s to s': every axis is stretched by sqrt((d^2 + s'^2) / (d^2 + s^2)).
inline MatrixD diagonal_flow(const MatrixD& y, const std::vector<double>& deviations, double from, double to) {
  MatrixD out = y;
  for (Index r = 0; r < y.rows(); ++r) {
    for (Index j = 0; j < y.cols(); ++j) {
      const double d = deviations[static_cast<std::size_t>(j)];
      out(r, j) *= std::hypot(d, to) / std::hypot(d, from);
    }
  }
  return out;
}

inline GaussianMixture diagonal_gaussian(const std::vector<double>& deviations) {
  const Index d = static_cast<Index>(deviations.size());
  MatrixD c(d, d);
  for (Index j = 0; j < d; ++j) c(j, j) = deviations[static_cast<std::size_t>(j)] * deviations[static_cast<std::size_t>(j)];
  return GaussianMixture({1}, MatrixD(1, d), {c});
}

/// N(m, C) in `dim` dimensions, C a random matrix with eigenvalues between about .05 and 3, correlated.
inline GaussianMixture correlated_gaussian(Index dim) {
  const MatrixD a = normals(dim, dim, 1 / std::sqrt(static_cast<double>(dim)), 77);
  MatrixD c(dim, dim), mean = normals(1, dim, 1, 78);
  for (Index i = 0; i < dim; ++i) {
    for (Index j = 0; j < dim; ++j) {
      for (Index k = 0; k < dim; ++k) c(i, j) += a(i, k) * a(j, k);
    }
    c(i, i) += .05;
  }
  return GaussianMixture({1}, std::move(mean), {c});
}

/// Draws of p_sigma in double.
inline MatrixD draws(const GaussianMixture& model, Index n, double sigma, std::uint64_t seed) {
  return MatrixD(model.noised(1, sigma).sample(n, Rng{seed}).view());
}

/// What `f` says when it throws E; "nothing thrown" otherwise.
template <class E, class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing thrown";
}

}  // namespace tweedie::test
