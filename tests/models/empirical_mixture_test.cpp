// SPDX-License-Identifier: MIT
#include "tweedie/models/empirical_mixture.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tweedie/core/parallel.h"
#include "tweedie/models/datasets.h"

using namespace tweedie;

namespace {
constexpr double kEps = std::numeric_limits<double>::epsilon();

// The same law as a GaussianMixture with singular components.
GaussianMixture as_mixture(const Matrix& data) {
  const Index n = data.rows(), d = data.cols();
  return GaussianMixture(std::vector<double>(static_cast<std::size_t>(n), 1.), MatrixD(data.view()),
                         std::vector<MatrixD>(static_cast<std::size_t>(n), MatrixD(d, d)));
}

Matrix noisy(const Matrix& data, Index n, double sigma) {
  Matrix y(n, data.cols());
  Rng{5}.normals<float>(Purpose::user, 0, 0, y);
  for (Index r = 0; r < n; ++r) {
    for (Index j = 0; j < y.cols(); ++j) y(r, j) = data(r % data.rows(), j) + static_cast<float>(sigma) * y(r, j);
  }
  return y;
}
}  // namespace

TEST_CASE("score and log density equal those of the mixture with one point-like component per row") {
  for (const Index points : {1, 2, 127, 128, 129, 300}) {
    const Matrix data = datasets::three_gaussians(points, Rng{42});
    const EmpiricalMixture empirical(data);
    const GaussianMixture mixture = as_mixture(data);
    CHECK(empirical.points() == points);
    for (const double sigma : {.01, .1, 1., 10.}) {
      const MatrixD y(noisy(data, 37, sigma).view());
      MatrixD s(37, 2);
      const std::span<const double> level(&sigma, 1);
      empirical.score(y, level, nullptr, s);
      const MatrixD expected = mixture.score(y, sigma);
      std::vector<double> log_p(37);
      empirical.log_density(y, level, nullptr, log_p);
      const std::vector<double> expected_log_p = mixture.log_density(y, sigma);
      for (Index r = 0; r < 37; ++r) {
        // Exponents reach (10 / sigma)^2 / 2, and their roundings are the weights' relative errors.
        const double conditioning = 16 + 50 / (sigma * sigma);
        for (Index j = 0; j < 2; ++j) CHECK(std::abs(s(r, j) - expected(r, j)) * sigma <= 16 * conditioning * kEps);
        CHECK(std::abs(log_p[static_cast<std::size_t>(r)] - expected_log_p[static_cast<std::size_t>(r)]) <=
              16 * conditioning * kEps);
      }
    }
  }
}

TEST_CASE("float agrees with double at sigma = .01 and above, for any cut of the batch, threads and sigma per row") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  const EmpiricalMixture model(data);
  for (const double sigma : {.01, .05, .3, 3., 30.}) {
    const Index n = 211;
    const Matrix y = noisy(data, n, sigma);
    const float level = static_cast<float>(sigma);
    const double wide_level = level;
    Matrix s(n, 2), cut(n, 2);
    MatrixD exact(n, 2);
    model.score(y, std::span(&level, 1), nullptr, s);
    model.score(MatrixD(y.view()), std::span(&wide_level, 1), nullptr, exact);
    // Near a tie of two points at distance l the weights' error is l |y| 2^-24 / sigma^2 and the score's l / sigma^2 times that.
    // Ties that matter have l of a few sigma and |y| < 6 + 4 sigma: sigma |error| <= 64 (6 / sigma + 4) 2^-24.
    double worst = 0;
    for (Index i = 0; i < s.size(); ++i) worst = std::max(worst, std::abs(s.data()[i] - exact.data()[i]) * sigma);
    CHECK(worst <= 64 * (6 / sigma + 4) * std::ldexp(1, -24));

    std::vector<float> levels(static_cast<std::size_t>(n), level);
    for (Index r = 0; r < n;) {
      const Index count = std::min<Index>(1 + r % 6, n - r);
      model.score(y.middle_rows(r, count), std::span<const float>(levels).subspan(0, static_cast<std::size_t>(count)), nullptr,
                  cut.middle_rows(r, count));
      r += count;
    }
    CHECK(std::equal(s.data(), s.data() + s.size(), cut.data()));
    for (const int count : {1, 4}) {
      set_threads(count);
      Matrix in_place = y;
      model.score(in_place, std::span(&level, 1), nullptr, in_place);
      CHECK(std::equal(s.data(), s.data() + s.size(), in_place.data()));
    }
    set_threads(0);
  }
}

TEST_CASE("far from all points the score points to the nearest one and stays finite") {
  const EmpiricalMixture model(Matrix{{0, 0}, {1, 0}});
  const double sigma = .01;
  const MatrixD y{{100, 0}, {-1e4, 1e4}};
  MatrixD s(2, 2);
  model.score(y, std::span(&sigma, 1), nullptr, s);
  CHECK(s(0, 0) == doctest::Approx(-99 / 1e-4).epsilon(1e-12));
  CHECK(s(1, 1) == doctest::Approx(-1e8).epsilon(1e-12));
}

TEST_CASE("empty and non-finite data, sigma = 0 and wrong shapes are refused") {
  CHECK_THROWS_AS(EmpiricalMixture(Matrix(0, 2)), UsageError);
  CHECK_THROWS_AS(EmpiricalMixture(Matrix(2, 0)), UsageError);
  CHECK_THROWS_AS(EmpiricalMixture(Matrix{{1, std::nanf("")}}), DataError);
  const EmpiricalMixture model(MatrixD{{1, 2}});
  MatrixD y(3, 2);
  const double zero = 0, one = 1;
  double out[2];
  CHECK_THROWS_AS(model.score(y, std::span(&zero, 1), nullptr, y), UsageError);
  CHECK_THROWS_AS(model.log_density(y, std::span(&one, 1), nullptr, out), UsageError);
  MatrixD wide(3, 3);
  CHECK_THROWS_AS(model.score(wide, std::span(&one, 1), nullptr, wide), UsageError);
}
