// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "tweedie/core/parallel.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/empirical_mixture.h"
#include "tweedie/models/gaussian_mixture.h"

using namespace tweedie;

namespace {
constexpr double kEps = std::numeric_limits<double>::epsilon();

struct Derivative {
  MatrixD score, product;  // (B, D)
  std::vector<double> trace;
};

Derivative derivative(const ScoreModel& m, const MatrixD& y, double sigma, const MatrixD& v) {
  Derivative d{MatrixD(y.rows(), y.cols()), MatrixD(y.rows(), y.cols()), std::vector<double>(static_cast<std::size_t>(y.rows()))};
  m.divergence(y, std::span<const double>(&sigma, 1), nullptr, d.score, d.trace);
  m.jvp(y, std::span<const double>(&sigma, 1), nullptr, v, d.score, d.product);
  return d;
}

MatrixD score_at(const ScoreModel& m, const MatrixD& y, double sigma) {
  MatrixD s(y.rows(), y.cols());
  m.score(y, std::span<const double>(&sigma, 1), nullptr, s);
  return s;
}

MatrixD shifted(const MatrixD& y, const MatrixD& v, double by) {
  MatrixD out = y;
  for (Index i = 0; i < y.size(); ++i) out.data()[i] += by * v.data()[i];
  return out;
}

MatrixD normals(Index rows, Index cols, std::uint32_t step) {
  MatrixD z(rows, cols);
  Rng{3}.normals<double>(Purpose::user, step, 0, z);
  return z;
}

// A mixture whose components lie on a line and a plane in 3-D: singular covariances.
GaussianMixture singular() {
  return GaussianMixture({1, 2}, {{0, 0, 0}, {1, -1, 2}},
                         {{{1, 1, 0}, {1, 1, 0}, {0, 0, 0}}, {{2, 0, 1}, {0, 0, 0}, {1, 0, .5}}});
}

// J v by sixth-order central differences of the score, h = .03 w for a narrowest scale w: truncation (h/w)^6 / 140 ~ 5e-12 times
// the seventh derivative in units of w, rounding eps |s| / h ~ 1e-14 |s| / w.
MatrixD differences(const ScoreModel& m, const MatrixD& y, double sigma, const MatrixD& v, double h) {
  MatrixD out(y.rows(), y.cols());
  const double c[3] = {45. / 60, -9. / 60, 1. / 60};
  for (int p = 1; p <= 3; ++p) {
    const MatrixD up = score_at(m, shifted(y, v, p * h), sigma), down = score_at(m, shifted(y, v, -p * h), sigma);
    for (Index i = 0; i < out.size(); ++i) out.data()[i] += c[p - 1] * (up.data()[i] - down.data()[i]) / h;
  }
  return out;
}

// Every row: jvp against differences, vjp = jvp, symmetry, trace = sum of D products; w is the narrowest scale of p_sigma.
void check_model(const ScoreModel& m, const MatrixD& y, double sigma, double w) {
  const Index n = y.rows(), d = y.cols();
  const MatrixD u = normals(n, d, 1), v = normals(n, d, 2);
  const Derivative a = derivative(m, y, sigma, v), b = derivative(m, y, sigma, u);
  const MatrixD numeric = differences(m, y, sigma, v, .01 * w), s = score_at(m, y, sigma);
  MatrixD left(n, d), left_score(n, d);
  m.vjp(y, std::span<const double>(&sigma, 1), nullptr, v, left_score, left);
  std::vector<double> trace(static_cast<std::size_t>(n));
  m.ScoreModel::divergence(y, std::span<const double>(&sigma, 1), nullptr, left_score, trace);
  for (Index r = 0; r < n; ++r) {
    double uav = 0, vbu = 0, size = 0;
    for (Index j = 0; j < d; ++j) {
      size = std::max(size, std::abs(s(r, j)));
      CHECK(a.score(r, j) == s(r, j));
      CHECK(left(r, j) == a.product(r, j));
      uav += u(r, j) * a.product(r, j);
      vbu += v(r, j) * b.product(r, j);
    }
    // |J| is of the size of 1 / w^2 + |s|^2 between components; |u|, |v| < 5.
    const double scale = 1 / (w * w) + size * size;
    for (Index j = 0; j < d; ++j) CHECK(std::abs(a.product(r, j) - numeric(r, j)) <= 1e-8 * scale);
    CHECK(std::abs(uav - vbu) <= 1e4 * kEps * scale);
    CHECK(std::abs(a.trace[static_cast<std::size_t>(r)] - trace[static_cast<std::size_t>(r)]) <= 1e3 * kEps * scale);
  }
}
}  // namespace

TEST_CASE("derivatives of a mixture's score: central differences, symmetry and trace at every sigma") {
  for (const GaussianMixture& m : {GaussianMixture::gaussian(2, 1.5), GaussianMixture::isotropic({1, 3}, MatrixD{{-1}, {2}}, .5),
                                   GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal(), singular()}) {
    for (const double sigma : {0., .01, .3, 3., 50.}) {
      if (sigma == 0 && m.dim() == 3) continue;
      const MatrixD y(m.noised(1, sigma).sample(9, Rng{7}).view());
      check_model(m, y, sigma, m.dim() == 3 ? sigma : std::hypot(.1, sigma));
    }
  }
}

TEST_CASE("derivatives of an empirical mixture's score") {
  const Matrix data = datasets::three_gaussians(131, Rng{42});
  const EmpiricalMixture m(data);
  for (const double sigma : {.01, .2, 1., 30.}) {
    MatrixD y(data.middle_rows(0, 9));
    y = shifted(y, normals(9, 2, 4), sigma);
    check_model(m, y, sigma, sigma);
  }
}

TEST_CASE("on one Gaussian the derivative is minus the inverse covariance, everywhere") {
  const double a = 1.3, b = -.7, c = .9;
  const GaussianMixture m({1}, {{.5, -2}}, {{{a, b}, {b, c}}});
  const MatrixD y{{0, 0}, {1e6, -1e6}, {-1e12, 3}};
  const MatrixD v{{1, 0}, {.3, 2}, {-1, 1}};
  for (const double sigma : {0., 1e-3, 1., 1e3}) {
    const double aa = a + sigma * sigma, cc = c + sigma * sigma, det = aa * cc - b * b;
    const Derivative d = derivative(m, y, sigma, v);
    for (Index r = 0; r < y.rows(); ++r) {
      // The eigenvectors are orthonormal to a few roundings; the condition number is below 8.
      CHECK(std::abs(d.product(r, 0) + (cc * v(r, 0) - b * v(r, 1)) / det) <= 64 * kEps * aa / det * 3);
      CHECK(std::abs(d.product(r, 1) + (aa * v(r, 1) - b * v(r, 0)) / det) <= 64 * kEps * aa / det * 3);
      CHECK(std::abs(d.trace[static_cast<std::size_t>(r)] + (aa + cc) / det) <= 64 * kEps * (aa + cc) / det);
    }
  }
}

TEST_CASE(
    "far from all components the derivative is the nearest one's, and point-like components agree with the data's mixture") {
  const GaussianMixture m = GaussianMixture::isotropic({.5, .5}, {{-1, 0}, {1, 0}}, .5);
  const Derivative d = derivative(m, {{1e5, 3e4}, {-40, 1}}, .1, {{1, 2}, {1, 2}});
  for (Index r = 0; r < 2; ++r) {
    // Responsibilities of the other component: exp(-2 * 40 / .26) and less.
    CHECK(d.product(r, 0) == doctest::Approx(-1 / .26).epsilon(1e-12));
    CHECK(d.product(r, 1) == doctest::Approx(-2 / .26).epsilon(1e-12));
    CHECK(d.trace[static_cast<std::size_t>(r)] == doctest::Approx(-2 / .26).epsilon(1e-12));
  }
  const Matrix data = datasets::three_gaussians(40, Rng{1});
  const GaussianMixture points(std::vector<double>(40, 1.), MatrixD(data.view()), std::vector<MatrixD>(40, MatrixD(2, 2)));
  const EmpiricalMixture empirical(data);
  const MatrixD y = normals(11, 2, 5), v = normals(11, 2, 6);
  for (const double sigma : {.05, .5, 5.}) {
    const Derivative e = derivative(empirical, y, sigma, v), g = derivative(points, y, sigma, v);
    for (Index r = 0; r < 11; ++r) {
      // Exponents up to (6 / sigma)^2 carry their roundings into the weights; the spread of g_k is at most 6 / sigma^2.
      const double bound = 64 * kEps * (16 + 50 / (sigma * sigma)) * (1 / (sigma * sigma) + 36 / std::pow(sigma, 4));
      for (Index j = 0; j < 2; ++j) CHECK(std::abs(e.product(r, j) - g.product(r, j)) <= bound);
      CHECK(std::abs(e.trace[static_cast<std::size_t>(r)] - g.trace[static_cast<std::size_t>(r)]) <= bound);
    }
  }
}

TEST_CASE("a row's derivative does not depend on the batch, the threads or how sigma is given") {
  const Matrix data = datasets::three_gaussians(70, Rng{42});
  const EmpiricalMixture empirical(data);
  const GaussianMixture mixture = GaussianMixture::three_gaussians();
  for (const ScoreModel* m : {static_cast<const ScoreModel*>(&empirical), static_cast<const ScoreModel*>(&mixture)}) {
    const MatrixD y = normals(67, 2, 8), v = normals(67, 2, 9);
    const Derivative all = derivative(*m, y, .3, v);
    const std::vector<double> levels(67, .3);
    for (const int count : {1, 4}) {
      set_threads(count);
      for (Index first = 0; first < 67;) {
        const Index rows = std::min<Index>(1 + first % 5, 67 - first);
        MatrixD score(rows, 2), product(rows, 2);
        std::vector<double> trace(static_cast<std::size_t>(rows));
        const std::span<const double> sigma = std::span(levels).subspan(0, static_cast<std::size_t>(rows));
        m->jvp(y.view().middle_rows(first, rows), sigma, nullptr, v.view().middle_rows(first, rows), score, product);
        m->divergence(y.view().middle_rows(first, rows), sigma, nullptr, score, trace);
        for (Index r = 0; r < rows; ++r) {
          CHECK(trace[static_cast<std::size_t>(r)] == all.trace[static_cast<std::size_t>(first + r)]);
          for (Index j = 0; j < 2; ++j) CHECK(product(r, j) == all.product(first + r, j));
        }
        first += rows;
      }
    }
    set_threads(0);
  }
}

TEST_CASE("derivatives refuse wrong shapes; the marginal is exact and refuses what is no column") {
  const GaussianMixture m = singular();
  const double sigma = .5;
  const std::span<const double> level(&sigma, 1);
  MatrixD y(4, 3), narrow(4, 2), s(4, 3), out(4, 3);
  double few[3];
  CHECK_THROWS_AS(m.jvp(y, level, nullptr, narrow, s, out), UsageError);
  CHECK_THROWS_AS(m.vjp(y, level, nullptr, y, narrow, out), UsageError);
  CHECK_THROWS_AS(m.divergence(y, level, nullptr, s, few), UsageError);
  const EmpiricalMixture e(y);
  CHECK_THROWS_AS(e.jvp(y, level, nullptr, y, s, narrow), UsageError);
  CHECK_THROWS_AS(e.divergence(y, level, nullptr, s, few), UsageError);

  const Index columns[] = {2, 0};
  const GaussianMixture part = m.marginal(columns);
  CHECK(part.dim() == 2);
  CHECK(part.means()(1, 0) == 2);
  CHECK(part.covariance(1)(0, 1) == 1);
  CHECK(part.covariance(1)(0, 0) == .5);
  CHECK(part.weights()[1] == doctest::Approx(2. / 3));
  const Index twice[] = {1, 1}, beyond[] = {3};
  CHECK_THROWS_AS(m.marginal(twice), UsageError);
  CHECK_THROWS_AS(m.marginal(beyond), UsageError);
  CHECK_THROWS_AS(m.marginal({}), UsageError);
}
