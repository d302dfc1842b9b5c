// SPDX-License-Identifier: MIT
#include "tweedie/models/gaussian_mixture.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();

// Three dimensions, one narrow axis, correlated.
GaussianMixture three_dimensional() {
  return GaussianMixture({1, 2, .5}, {{0, 0, 0}, {2, -1, .5}, {-1, 3, 1}},
                         {{{1, .3, .1}, {.3, .5, 0}, {.1, 0, .2}},
                          {{.4, 0, 0}, {0, .4, 0}, {0, 0, .01}},
                          {{2, -.7, .2}, {-.7, 1, .1}, {.2, .1, .6}}});
}

std::vector<GaussianMixture> examples() {
  return {GaussianMixture::gaussian(2, 1.5),
          GaussianMixture::isotropic({1, 3}, MatrixD{{-1}, {2}}, .5),
          GaussianMixture::two_mode(),
          GaussianMixture::three_gaussians(),
          GaussianMixture::three_gaussians_unequal(),
          GaussianMixture::eight_gaussians(),
          three_dimensional()};
}

// Log-density by Cholesky's factor of each C_k + sigma^2 I, written from the definition.
double naive_log_density(const GaussianMixture& m, const double* y, double sigma) {
  const Index d = m.dim();
  double largest = -std::numeric_limits<double>::infinity();
  std::vector<double> terms;
  for (Index k = 0; k < m.components(); ++k) {
    MatrixD l(d, d);
    double log_term = std::log(m.weights()[static_cast<std::size_t>(k)]);
    std::vector<double> z(static_cast<std::size_t>(d));
    for (Index i = 0; i < d; ++i) {
      for (Index j = 0; j <= i; ++j) {
        double sum = m.covariance(k)(i, j) + (i == j ? sigma * sigma : 0);
        for (Index p = 0; p < j; ++p) sum -= l(i, p) * l(j, p);
        l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
      }
      double rest = y[i] - m.means()(k, i);
      for (Index p = 0; p < i; ++p) rest -= l(i, p) * z[static_cast<std::size_t>(p)];
      z[static_cast<std::size_t>(i)] = rest / l(i, i);
      log_term -= .5 * z[static_cast<std::size_t>(i)] * z[static_cast<std::size_t>(i)] + std::log(l(i, i)) +
                  .5 * std::log(2 * std::numbers::pi);
    }
    terms.push_back(log_term);
    largest = std::max(largest, log_term);
  }
  double sum = 0;
  for (const double t : terms) sum += std::exp(t - largest);
  return largest + std::log(sum);
}

MatrixD noisy_draws(const GaussianMixture& m, Index n, double sigma) {
  return MatrixD(m.noised(1, sigma).sample(n, Rng{7}).view());
}

}  // namespace

TEST_CASE("log density equals the definition by Cholesky factors") {
  for (const GaussianMixture& m : examples()) {
    for (const double sigma : {0., .01, .5, 3., 50.}) {
      const MatrixD y = noisy_draws(m, 33, sigma);
      const std::vector<double> log_p = m.log_density(y, sigma);
      for (Index r = 0; r < y.rows(); ++r) {
        // Covariances are conditioned up to 100: a quadratic form of size q <= 50 errs by a few hundred roundings of it.
        CHECK(std::abs(log_p[static_cast<std::size_t>(r)] - naive_log_density(m, &y(r, 0), sigma)) <= 1e4 * kEps);
      }
    }
  }
}

TEST_CASE("the score is the gradient of the log density") {
  for (const GaussianMixture& m : examples()) {
    for (const double sigma : {0., .3, 10.}) {
      const MatrixD y = noisy_draws(m, 33, sigma);
      const MatrixD s = m.score(y, sigma);
      for (Index j = 0; j < m.dim(); ++j) {
        // Fourth-order central differences, step h in units of the narrowest scale w = .1 or sigma:
        // truncation ~ (h/w)^4 / 30 / w, rounding ~ |log p| eps / h, both below 1e-9 / w at h = 3e-3 w.
        const double w = std::max(.1, sigma), h = 3e-3 * w;
        const auto shifted = [&](double by) {
          MatrixD at = y;
          for (Index r = 0; r < at.rows(); ++r) at(r, j) += by;
          return m.log_density(at, sigma);
        };
        const auto p1 = shifted(h), m1 = shifted(-h), p2 = shifted(2 * h), m2 = shifted(-2 * h);
        for (Index r = 0; r < y.rows(); ++r) {
          const auto i = static_cast<std::size_t>(r);
          const double gradient = (8 * (p1[i] - m1[i]) - (p2[i] - m2[i])) / (12 * h);
          CHECK(std::abs(s(r, j) - gradient) <= 1e-7 * std::max(1 / w, std::abs(gradient)));
        }
      }
    }
  }
}

TEST_CASE("float scores agree with double, in place, strided, for one sigma and one per row") {
  for (const GaussianMixture& m : examples()) {
    for (const double sigma : {0., .01, 1., 20.}) {
      for (const Index n : {0, 1, 3, 4, 5, 16, 17, 64, 65, 2049}) {
        const Matrix y(noisy_draws(m, n, sigma).view());
        const MatrixD exact = m.score(MatrixD(y.view()), sigma);
        const Matrix s = m.score(y, sigma);
        // y - m_k rounds to 2^-24 (|y| + |m|); times the precision (<= 1/w^2) that is the error of a component's score and, times
        // the distance (<= 6 w), of the responsibilities' exponents: bounded by 64 roundings of |y| / w^2 with w >= .1, sigma.
        const double w = std::max(.1, sigma);
        double worst = 0;
        for (Index r = 0; r < n; ++r) {
          for (Index j = 0; j < m.dim(); ++j) worst = std::max(worst, std::abs(s(r, j) - exact(r, j)) * w * w / (5 + 5 * sigma));
        }
        CHECK(worst <= 64 * std::ldexp(1, -24));

        // Strided and in place: the same bits.
        Matrix wide(n, m.dim() + 3);
        const Rows<float> inner = wide.view().middle_cols(2, m.dim());
        for (Index r = 0; r < n; ++r) std::copy_n(y.row(r).data(), m.dim(), inner.row(r).data());
        const float level = static_cast<float>(sigma);
        m.score(ConstRows<float>(inner), std::span(&level, 1), nullptr, inner);
        bool equal = true;
        for (Index r = 0; r < n; ++r) equal &= std::equal(s.row(r).begin(), s.row(r).end(), inner.row(r).begin());
        CHECK(equal);
      }
    }
  }
}

TEST_CASE("a row's score depends on the row alone: batch cuts, sigma per row and threads give the same bits") {
  for (const GaussianMixture& m : examples()) {
    const Index n = 2311;
    const Matrix y(noisy_draws(m, n, .4).view());
    std::vector<float> sigma(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < sigma.size(); ++i) sigma[i] = .1f + .25f * static_cast<float>((i / 5) % 4);
    Matrix whole(n, m.dim()), cut(n, m.dim());
    m.score(y, sigma, nullptr, whole);
    for (Index r = 0; r < n;) {
      const Index count = std::min<Index>(1 + r % 7, n - r);
      m.score(y.middle_rows(r, count),
              std::span<const float>(sigma).subspan(static_cast<std::size_t>(r), static_cast<std::size_t>(count)), nullptr,
              cut.middle_rows(r, count));
      r += count;
    }
    CHECK(std::equal(whole.data(), whole.data() + whole.size(), cut.data()));
    const Matrix one_level = m.score(y, .35f);
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      const Matrix again = m.score(y, .35f);
      CHECK(std::equal(one_level.data(), one_level.data() + again.size(), again.data()));
    }
    set_threads(0);
  }
}

TEST_CASE("far from the data and between distant modes nothing overflows") {
  const GaussianMixture m = GaussianMixture::isotropic({1, 1}, {{-500, 0}, {500, 0}}, .01);
  const MatrixD y{{0, 0}, {1e4, 1e4}, {-1e6, 3}, {499.99, .01}};
  const MatrixD s = m.score(y, 0.);
  CHECK(s(0, 0) == 0);  // by symmetry
  CHECK(std::abs(s(1, 0) + 9500 / 1e-4) <= 1e-8 * 1e8);
  CHECK(std::abs(s(3, 1) + 100) <= 1e-10 * 100);
  const Matrix single = m.score(Matrix(y.view()), 0.);
  for (Index r = 0; r < 4; ++r) {
    for (Index j = 0; j < 2; ++j) {
      // 499.99 rounds to a float by up to 1.6e-5, which a precision of 1e4 makes .16; elsewhere |y| / .01^2 rounds by 2^-24.
      CHECK(std::abs(single(r, j) - s(r, j)) <= .16 + 4 * std::ldexp(1, -24) * std::abs(s(r, j)));
    }
  }
  Matrix nan{{std::nanf(""), 0}};
  const Matrix nothing = m.score(nan, 0.);
  CHECK(std::isnan(nothing(0, 0)));
}

TEST_CASE("Tweedie's formula gives the posterior mean") {
  // For one Gaussian N(m, C): E[x0 | y] = m + C (C + sigma^2 I)^-1 (y - m).
  const GaussianMixture g({1}, {{1, 2}}, {{{2, .5}, {.5, 1}}});
  const double sigma = .7, a = 2 + sigma * sigma, b = .5, c = 1 + sigma * sigma, det = a * c - b * b;
  const MatrixD y{{3, -1}, {0, 0}};
  const MatrixD mean = g.tweedie_mean(y, sigma);
  for (Index r = 0; r < 2; ++r) {
    const double d0 = y(r, 0) - 1, d1 = y(r, 1) - 2, u = (c * d0 - b * d1) / det, v = (-b * d0 + a * d1) / det;
    CHECK(std::abs(mean(r, 0) - (1 + 2 * u + .5 * v)) <= 32 * kEps * 5);
    CHECK(std::abs(mean(r, 1) - (2 + .5 * u + 1 * v)) <= 32 * kEps * 5);
  }
  // For a mixture of point-like components: the responsibilities' mean of the centres.
  const GaussianMixture points({.25, .75}, MatrixD{{-1}, {1}}, {MatrixD{{0}}, MatrixD{{0}}});
  const MatrixD at{{.2}, {-.8}};
  const MatrixD r = points.responsibilities(at, .6), m = points.tweedie_mean(at, .6);
  for (Index i = 0; i < 2; ++i) {
    CHECK(std::abs(m(i, 0) - (r(i, 1) - r(i, 0))) <= 16 * kEps);
    CHECK(std::abs(r(i, 0) + r(i, 1) - 1) <= 2 * kEps);
    const double odds = 3 * std::exp(2 * at(i, 0) / .36);
    CHECK(std::abs(r(i, 1) / r(i, 0) / odds - 1) <= 32 * kEps);
  }
  CHECK_THROWS_AS(points.score(at, 0.), UsageError);
}

TEST_CASE("noised(alpha, sigma) is the law that the score at sigma belongs to") {
  for (const GaussianMixture& m : examples()) {
    const double alpha = .6, sigma = .8;
    const GaussianMixture noised = m.noised(alpha, sigma);
    const MatrixD x = noisy_draws(noised, 50, 0);
    MatrixD y = x;
    for (Index i = 0; i < y.size(); ++i) y.data()[i] /= alpha;
    // x = alpha y:  score_x = score_y / alpha,  log p_x = log p_y - D log alpha
    const MatrixD direct = noised.score(x, 0.), unit = m.score(y, sigma / alpha);
    const auto log_direct = noised.log_density(x, 0.), log_unit = m.log_density(y, sigma / alpha);
    for (Index r = 0; r < x.rows(); ++r) {
      for (Index j = 0; j < m.dim(); ++j) CHECK(std::abs(direct(r, j) - unit(r, j) / alpha) <= 1e-12);
      const auto i = static_cast<std::size_t>(r);
      CHECK(std::abs(log_direct[i] - (log_unit[i] - static_cast<double>(m.dim()) * std::log(alpha))) <= 1e-12);
    }
  }
}

TEST_CASE("the chapter's functions in closed form") {
  const Matrix x{{1, -2}, {.5f, 0}, {3, 4}};
  const Matrix g = gaussian_score(x, 2.);
  for (Index i = 0; i < x.size(); ++i) CHECK(g.data()[i] == -x.data()[i] / 4);
  CHECK(gaussian_score(MatrixD{{3}})(0, 0) == -3);

  // Element by element, weights that do not sum to 1.
  const double means[] = {-1., 2.}, weights[] = {1., 3.}, sigma = .5;
  const MatrixD points{{-1, 0, .4}, {2, 5, -7}};
  const MatrixD s = mixture_score(points, means, weights, sigma);
  for (Index i = 0; i < points.size(); ++i) {
    const double v = points.data()[i], a = -(v + 1), b = -(v - 2);
    const double log_odds = std::log(3.) + (a * a - b * b) / (2 * sigma * sigma), second = 1 / (1 + std::exp(-log_odds));
    const double expected = ((1 - second) * a + second * b) / (sigma * sigma);
    CHECK(std::abs(s.data()[i] - expected) <= 64 * kEps * std::max(1., std::abs(expected)));
  }
  CHECK(mixture_score(Matrix(points.view()), means, weights, sigma)(0, 1) == doctest::Approx(s(0, 1)).epsilon(1e-5));
  CHECK_THROWS_AS(mixture_score(points, means, std::span(weights, 1), sigma), UsageError);
  CHECK_THROWS_AS(mixture_score(points, means, weights, 0.), UsageError);
  CHECK_THROWS_AS(gaussian_score(points, 0.), UsageError);

  const MatrixD at{{.3, -.2}, {-1, 0}, {0, 1}};
  const MatrixD t = two_mode_score(at);
  for (Index r = 0; r < 3; ++r) {
    const double w1 = 1 / (1 + std::exp(4 * at(r, 0) / (2 * .25)));  // d2 - d1 = -4 x
    CHECK(std::abs(t(r, 0) - (w1 * (-1 - at(r, 0)) + (1 - w1) * (1 - at(r, 0))) / .25) <= 64 * kEps);
    CHECK(std::abs(t(r, 1) + at(r, 1) / .25) <= 16 * kEps);
  }
  CHECK(two_mode_score(Matrix(at.view()))(0, 0) == doctest::Approx(t(0, 0)).epsilon(1e-5));
}

TEST_CASE("the built-in mixtures are the pinned ones") {
  const GaussianMixture m = GaussianMixture::tutorial();
  CHECK(m.components() == 3);
  CHECK(m.means()(2, 1) == 2);
  const auto eigen = [](const MatrixD& c) {  // larger eigenvalue, angle of its axis
    const double mean = (c(0, 0) + c(1, 1)) / 2, delta = std::hypot((c(0, 0) - c(1, 1)) / 2, c(0, 1));
    return std::pair{mean + delta, .5 * std::atan2(2 * c(0, 1), c(0, 0) - c(1, 1))};
  };
  CHECK(std::abs(eigen(m.covariance(0)).first - .49) <= 8 * kEps);
  CHECK(std::abs(eigen(m.covariance(0)).second - .5) <= 32 * kEps);
  CHECK(std::abs(m.covariance(1)(0, 0) + m.covariance(1)(1, 1) - (.36 + .0625)) <= 8 * kEps);
  CHECK(std::abs(eigen(m.covariance(1)).second + .6) <= 32 * kEps);
  CHECK(std::abs(m.covariance(2)(1, 1) - .09) <= 8 * kEps);
  const GaussianMixture u = GaussianMixture::three_gaussians_unequal();
  CHECK(u.weights()[0] == .5);
  CHECK(u.means()(1, 1) == 1);
  CHECK(std::abs(eigen(u.covariance(2)).second - 1.3) <= 64 * kEps);
  CHECK(std::abs(u.covariance(0)(0, 0) * u.covariance(0)(1, 1) - u.covariance(0)(0, 1) * u.covariance(0)(1, 0) - .0036) <=
        8 * kEps);
}

TEST_CASE("densities integrate to 1") {
  // The trapezoidal rule converges exponentially; the box holds all but 1e-15 of the mass (8 standard deviations of the widest).
  for (const auto& m : {GaussianMixture::two_mode(), GaussianMixture::three_gaussians(),
                        GaussianMixture::three_gaussians_unequal(), GaussianMixture::eight_gaussians()}) {
    for (const double sigma : {0., .5}) {
      const double half = 13, step = .04;
      const Index side = static_cast<Index>(std::lround(2 * half / step)) + 1;
      MatrixD row(side, 2);
      double total = 0;
      for (Index i = 0; i < side; ++i) {
        for (Index j = 0; j < side; ++j) {
          row(j, 0) = -half + step * static_cast<double>(i);
          row(j, 1) = -half + step * static_cast<double>(j);
        }
        for (const double log_p : m.log_density(row, sigma)) total += step * step * std::exp(log_p);
      }
      CHECK(std::abs(total - 1) <= 1e-10);
    }
  }
}

TEST_CASE("samples: counter-based, and their moments and component counts are right") {
  for (const GaussianMixture& m : examples()) {
    const Index n = 100000, d = m.dim();
    const Matrix x = m.sample(n, Rng{3});
    const Matrix head = m.sample(1777, Rng{3});
    CHECK(std::equal(head.data(), head.data() + head.size(), x.data()));
    const Matrix other = m.sample(10, Rng{4});
    CHECK_FALSE(std::equal(other.data(), other.data() + other.size(), x.data()));

    // Mixture moments: mean = sum w m, cov = sum w (C + m m^T) - mean mean^T. z-scores of the sample means of x_j and
    // x_j^2, their deviations estimated from the same sample; 4.9 has a two-sided tail of 1e-6.
    for (Index j = 0; j < d; ++j) {
      double mean = 0, second = 0;
      for (Index k = 0; k < m.components(); ++k) {
        const double w = m.weights()[static_cast<std::size_t>(k)];
        mean += w * m.means()(k, j);
        second += w * (m.covariance(k)(j, j) + m.means()(k, j) * m.means()(k, j));
      }
      double s1 = 0, s2 = 0, s4 = 0;
      for (Index r = 0; r < n; ++r) {
        const double v = x(r, j);
        s1 += v / static_cast<double>(n), s2 += v * v / static_cast<double>(n), s4 += v * v * v * v / static_cast<double>(n);
      }
      CHECK(std::abs(s1 - mean) <= 4.9 * std::sqrt((second - mean * mean) / static_cast<double>(n)));
      CHECK(std::abs(s2 - second) <= 4.9 * std::sqrt((s4 - s2 * s2) / static_cast<double>(n)));
    }
    // The mean responsibility of a component has expectation w_k and variance <= w_k (1 - w_k) / n.
    const MatrixD r = m.responsibilities(MatrixD(x.view()), 0);
    for (Index k = 0; k < m.components(); ++k) {
      const double w = m.weights()[static_cast<std::size_t>(k)];
      double mean = 0;
      for (Index i = 0; i < n; ++i) mean += r(i, k) / static_cast<double>(n);
      CHECK(std::abs(mean - w) <= 4.9 * std::sqrt(w * (1 - w) / static_cast<double>(n)) + static_cast<double>(n) * kEps);
    }
  }
}

TEST_CASE("the score has mean zero and E[x s^T] = -I under its own density (Stein)") {
  for (const GaussianMixture& m : examples()) {
    const Index n = 50000;
    const double sigma = .3;
    const MatrixD x = noisy_draws(m, n, sigma), s = m.score(x, sigma);
    for (Index i = 0; i < m.dim(); ++i) {
      for (Index j = 0; j < m.dim(); ++j) {
        double sum = 0, square = 0;
        for (Index r = 0; r < n; ++r) {
          const double v = x(r, i) * s(r, j) + (i == j ? 1 : 0);
          sum += v, square += v * v;
        }
        CHECK(std::abs(sum) <= 4.9 * std::sqrt(square));
      }
    }
  }
}

TEST_CASE("Fisher information: closed forms, Monte Carlo and de Bruijn's identity") {
  // One Gaussian: J = sum_d 1 / (l_d + sigma^2), exact to rounding.
  const GaussianMixture g({1}, {{1, 2}}, {{{2, .5}, {.5, 1}}});
  for (const double sigma : {0., .5, 10.}) {
    const double v = sigma * sigma, exact = (3 + 2 * v) / ((2 + v) * (1 + v) - .25);
    const FisherInformation j = g.fisher_information(sigma);
    CHECK(std::abs(j.value / exact - 1) <= 1e-12);
    CHECK(j.error <= 1e-9 * exact);
  }
  CHECK(std::abs(GaussianMixture::gaussian(1, 2).fisher_information(1).value - .2) <= 1e-13);
  for (const GaussianMixture& m : examples()) {
    for (const double sigma : {.01, .5, 5.}) {
      const FisherInformation j = m.fisher_information(sigma);
      const Index n = 40000;
      const MatrixD s = m.score(noisy_draws(m, n, sigma), sigma);
      double sum = 0, square = 0;
      for (Index r = 0; r < n; ++r) {
        double norm = 0;
        for (const double v : s.row(r)) norm += v * v;
        sum += norm / n, square += norm * norm / n;
      }
      const double error = std::sqrt((square - sum * sum) / n);
      const double allowed = 4.9 * std::hypot(error, m.dim() <= 2 ? 0 : j.error) + (m.dim() <= 2 ? j.error : 0) + 1e-12;
      CHECK(std::abs(sum - j.value) <= allowed);
      if (m.dim() <= 2) CHECK(j.error <= 1e-8 * j.value);
    }
  }
  // De Bruijn: dh/d(sigma^2) = J / 2, h by quadrature in one dimension, the difference of h by Simpson's rule over J.
  const GaussianMixture m = GaussianMixture::isotropic({1, 3}, MatrixD{{-1}, {2}}, .5);
  const auto entropy = [&](double variance) {
    const double step = .01;
    MatrixD x(4001, 1);
    for (Index i = 0; i < x.rows(); ++i) x(i, 0) = -20 + step * static_cast<double>(i);
    double h = 0;
    for (const double log_p : m.log_density(x, std::sqrt(variance))) h -= step * std::exp(log_p) * log_p;
    return h;
  };
  const double a = .5, width = .02;
  const auto j = [&](double variance) { return m.fisher_information(std::sqrt(variance)).value; };
  const double simpson = width / 6 * (j(a) + 4 * j(a + width / 2) + j(a + width)) / 2;
  CHECK(std::abs(entropy(a + width) - entropy(a) - simpson) <= 1e-9);  // Simpson's remainder ~ width^5 J'''' / 2880 < 1e-11
}

TEST_CASE("wrong mixtures are refused with the reason") {
  const MatrixD one{{1, 0}, {0, 1}};
  CHECK_THROWS_AS(GaussianMixture({}, MatrixD(0, 2), {}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, MatrixD(1, 0), {MatrixD(0, 0)}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1, 1}, {{0, 0}}, {one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, 0}}, {one, one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({0}, {{0, 0}}, {one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({-1}, {{0, 0}}, {one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({std::nan("")}, {{0, 0}}, {one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, std::nan("")}}, {one}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, 0}}, {MatrixD{{1}}}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, 0}}, {MatrixD{{1, .5}, {.4, 1}}}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, 0}}, {MatrixD{{1, 2}, {2, 1}}}), UsageError);
  CHECK_THROWS_AS(GaussianMixture({1}, {{0, 0}}, {MatrixD{{1, 0}, {0, std::nan("")}}}), UsageError);
  CHECK_THROWS_AS(GaussianMixture::gaussian(0, 1), UsageError);
  CHECK_THROWS_AS(GaussianMixture::gaussian(2, 0), UsageError);
  const GaussianMixture m = GaussianMixture::two_mode();
  CHECK_THROWS_AS(m.sample(-1, Rng{1}), UsageError);
  CHECK_THROWS_AS(m.score(MatrixD(3, 3), 1.), UsageError);
  CHECK_THROWS_AS(m.score(MatrixD(3, 2), -1.), UsageError);
  CHECK_THROWS_AS(m.covariance(2), UsageError);
  CHECK_THROWS_AS(m.noised(1, -1), UsageError);
  CHECK_THROWS_AS(m.fisher_information(-1), UsageError);
  CHECK_THROWS_AS(m.responsibilities(MatrixD(1, 1), 1), UsageError);
  double out[2];
  const double sigma = 1;
  CHECK_THROWS_AS(m.log_density(MatrixD(3, 2), std::span(&sigma, 1), nullptr, out), UsageError);
}

TEST_CASE("dense covariances are diagonalised, whatever their rounding") {
  for (const Index dim : {2, 3, 5, 10}) {
    for (std::uint32_t draw = 0; draw < 200; ++draw) {
      MatrixD a(dim, dim), c(dim, dim);
      Rng{17}.normals<double>(Purpose::user, draw, 0, a);
      for (Index i = 0; i < dim; ++i) {
        for (Index j = 0; j < dim; ++j) {
          for (Index k = 0; k < dim; ++k) c(i, j) += a(i, k) * a(j, k);
        }
        c(i, i) += .05;
      }
      CHECK_NOTHROW(GaussianMixture({1}, MatrixD(1, dim), {c}));
    }
  }
  for (const Index dim : {4, 10, 33}) {
    MatrixD a(dim, dim), c(dim, dim);
    Rng{13}.normals<double>(Purpose::user, 0, 0, a);
    for (Index i = 0; i < dim; ++i) {
      for (Index j = 0; j < dim; ++j) {
        for (Index k = 0; k < dim; ++k) c(i, j) += a(i, k) * a(j, k);
      }
      c(i, i) += .5;
    }
    const GaussianMixture m({1}, MatrixD(1, dim), {c});
    const MatrixD y = noisy_draws(m, 5, 0);
    const std::vector<double> log_p = m.log_density(y, .3);
    // Eigenvalues lie between .5 and about 4 dim, a quadratic form near dim.
    for (Index r = 0; r < 5; ++r) {
      CHECK(std::abs(log_p[static_cast<std::size_t>(r)] - naive_log_density(m, &y(r, 0), .3)) <=
            1e4 * kEps * static_cast<double>(dim));
    }
  }
}
