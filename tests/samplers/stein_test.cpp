// The kernel Stein discrepancy against its definition with the kernel differentiated numerically, closed forms, level and power.
// SPDX-License-Identifier: MIT
#include "tweedie/samplers/stein.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"

using namespace tweedie;

namespace {
Matrix normals(std::uint64_t seed, Index rows, Index cols, float shift = 0, float scale = 1) {
  Matrix x(rows, cols);
  Rng{seed}.normals<float>(Purpose::user, 0, 0, x);
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) x(r, c) = scale * x(r, c) + (c == 0 ? shift : 0.0F);
  }
  return x;
}

using Point = std::vector<double>;

double kernel_value(const Point& x, const Point& y, const SteinKernel& k) {
  double square = 0;
  for (std::size_t d = 0; d < x.size(); ++d) square += (x[d] - y[d]) * (x[d] - y[d]);
  return std::pow(k.c * k.c + square, k.beta);
}

// u by its definition, derivatives by central differences (error of order 1e-6).
double naive_u(Point x, const Point& sx, Point y, const Point& sy, const SteinKernel& k) {
  constexpr double kStep = 1e-3;
  double u = 0;
  const auto moved = [&](std::size_t d, double dx, double dy) {
    Point a = x, b = y;
    a[d] += dx;
    b[d] += dy;
    return kernel_value(a, b, k);
  };
  for (std::size_t d = 0; d < x.size(); ++d) {
    const double h = kStep;
    u += sx[d] * sy[d] * kernel_value(x, y, k) + sx[d] * (moved(d, 0, h) - moved(d, 0, -h)) / (2 * h) +
         sy[d] * (moved(d, h, 0) - moved(d, -h, 0)) / (2 * h) +
         (moved(d, h, h) - moved(d, h, -h) - moved(d, -h, h) + moved(d, -h, -h)) / (4 * h * h);
  }
  return u;
}

SteinDiscrepancy naive(const ScoreModel& model, double sigma, const Matrix& samples, const SteinKernel& k) {
  const MatrixD x(samples.view());
  MatrixD s(x.rows(), x.cols());
  model.score(x, std::span(&sigma, 1), nullptr, s);
  const auto point = [](const MatrixD& m, Index r) { return Point(m.row(r).begin(), m.row(r).end()); };
  double all = 0, distinct = 0;
  for (Index i = 0; i < x.rows(); ++i) {
    for (Index j = 0; j < x.rows(); ++j) {
      const double u = naive_u(point(x, i), point(s, i), point(x, j), point(s, j), k);
      all += u;
      distinct += i == j ? 0 : u;
    }
  }
  const double n = static_cast<double>(x.rows());
  return {distinct / (n * (n - 1)), all / (n * n)};
}
}  // namespace

TEST_CASE("Stein discrepancy: the definition, for sizes about the tile, dimensions, kernels and noise levels") {
  struct Case {
    Index n, dim;
    SteinKernel kernel;
    double sigma;
  };
  for (const Case& c : {Case{2, 1, {}, .1}, Case{5, 3, {.c = 2}, .5}, Case{64, 2, {.c = .7, .beta = -.3}, 1},
                        Case{65, 2, {.beta = -.9}, .2}, Case{130, 1, {}, 0}}) {
    const GaussianMixture model = GaussianMixture::gaussian(c.dim, .8);
    const Matrix x = normals(static_cast<std::uint64_t>(c.n), c.n, c.dim, .5F);
    const SteinDiscrepancy ours = stein_discrepancy(model, c.sigma, x, c.kernel), expected = naive(model, c.sigma, x, c.kernel);
    CHECK(ours.u_statistic == doctest::Approx(expected.u_statistic).epsilon(1e-4));
    CHECK(ours.v_statistic == doctest::Approx(expected.v_statistic).epsilon(1e-4));
    CHECK(ours.v_statistic >= 0);
  }
  // Both samples at the mode: s = 0, u = -2 beta D c^(2 beta - 2).
  const SteinDiscrepancy mode = stein_discrepancy(GaussianMixture::gaussian(3, 1), 0, Matrix(2, 3), {.c = 2, .beta = -.25});
  CHECK(mode.v_statistic == doctest::Approx(1.5 * std::pow(2, -2.5)).epsilon(1e-14));
  CHECK(mode.u_statistic == doctest::Approx(1.5 * std::pow(2, -2.5)).epsilon(1e-14));
}

TEST_CASE("Stein discrepancy: the U-statistic is unbiased for a shifted Gaussian, m^2 E k(X, X')") {
  // s_model - s_samples = -m everywhere, so E u = m^2 E (1 + r^2)^(-1/2), r ~ N(0, 2): by the trapezoidal rule.
  double expected_kernel = 0;
  for (int i = -4000; i <= 4000; ++i) {
    const double r = i * .005;
    expected_kernel += .005 * std::exp(-r * r / 4) / std::sqrt(4 * std::numbers::pi) / std::sqrt(1 + r * r);
  }
  const GaussianMixture model = GaussianMixture::gaussian(1, 1);
  for (const float m : {0.0F, .7F}) {
    double sum = 0, squares = 0;
    constexpr int kSets = 100;
    for (int set = 0; set < kSets; ++set) {
      const double u = stein_discrepancy(model, 0, normals(100 + static_cast<std::uint64_t>(set), 100, 1, m)).u_statistic;
      sum += u / kSets;
      squares += u * u / kSets;
    }
    const double standard_error = std::sqrt((squares - sum * sum) / (kSets - 1));
    CHECK(std::abs(sum - static_cast<double>(m) * static_cast<double>(m) * expected_kernel) <
          6 * standard_error);    // Student, 99 degrees: 3e-8
    CHECK(standard_error < .02);  // m = .7: against .28; a missing or doubled term would be seen
  }
}

TEST_CASE("Stein statistics: the same bits on 1, 2, 4 and 16 threads") {
  const GaussianMixture model = GaussianMixture::gaussian(3, 1);
  const Matrix x = normals(30, 321, 3);
  const SteinDiscrepancy once = stein_discrepancy(model, .5, x);
  const SteinTest tested = stein_test(model, .5, x, {.bootstraps = 99}, Rng{31});
  CHECK(tested.statistic == once.v_statistic);
  for (const int count : {1, 2, 4, 16}) {
    set_threads(count);
    const SteinDiscrepancy again = stein_discrepancy(model, .5, x);
    CHECK(again.u_statistic == once.u_statistic);
    CHECK(again.v_statistic == once.v_statistic);
    CHECK(stein_test(model, .5, x, {.bootstraps = 99}, Rng{31}).p_value == tested.p_value);
  }
  set_threads(0);
}

TEST_CASE("Stein test: p-values are uniform under the null") {
  // Kolmogorov-Smirnov over 200 sets at 1e-6 (the discreteness of 1 / 200 is far below its threshold).
  const GaussianMixture model = GaussianMixture::gaussian(2, 1);
  std::vector<float> p;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    p.push_back(
        static_cast<float>(stein_test(model, 0, normals(1000 + seed, 80, 2), {.bootstraps = 199}, Rng{2000 + seed}).p_value));
  }
  CHECK(kolmogorov_smirnov(p, [](double x) { return std::clamp(x, 0.0, 1.0); }).p_value > 1e-6);
  // Level 5%: 10 expected, P(Binomial(200, .05) > 28) = 3e-7.
  CHECK(std::count_if(p.begin(), p.end(), [](float v) { return v <= .05F; }) <= 28);
}

TEST_CASE("Stein test: power against a shift, a width and a noise level left in") {
  const GaussianMixture model = GaussianMixture::gaussian(2, 1);
  int shifts = 0, widths = 0, noises = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const SteinTestOptions options{.bootstraps = 199};
    shifts += stein_test(model, 0, normals(3000 + seed, 150, 2, .8F), options, Rng{seed}).p_value <= .01 ? 1 : 0;
    widths += stein_test(model, 0, normals(4000 + seed, 150, 2, 0, 1.6F), options, Rng{seed}).p_value <= .01 ? 1 : 0;
    noises += stein_test(model, 1.2, normals(5000 + seed, 150, 2), options, Rng{seed}).p_value <= .01 ? 1 : 0;
  }
  CHECK(shifts == 20);
  CHECK(widths == 20);
  CHECK(noises == 20);
}

namespace {

// N(2 label + covariate, 1) in one dimension.
class ConditionalNormal : public ScoreModel {
 public:
  Index dim() const override { return 1; }
  Index num_classes() const override { return 2; }
  Index covariate_dim() const override { return 1; }
  void score(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const override {
    FAIL("double is asked for");
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* c, Rows<double> out) const override {
    REQUIRE(c != nullptr);
    for (Index r = 0; r < y.rows(); ++r) {
      const double mean = 2. * c->labels[static_cast<std::size_t>(r)] + static_cast<double>(c->covariates(r, 0));
      out(r, 0) = -(y(r, 0) - mean) / (1 + sigma[0] * sigma[0]);
    }
  }
  const char* name() const override { return "ConditionalNormal"; }
};

// Rows of that law with their conditions; `swapped`: the labels are the other ones.
struct Conditional {
  Matrix x, covariates;
  std::vector<std::int32_t> labels;
  Conditional(std::uint64_t seed, Index n, bool swapped) : x(normals(seed, n, 1)), covariates(normals(seed + 1, n, 1)) {
    for (Index r = 0; r < n; ++r) {
      x(r, 0) += static_cast<float>(r % 2) * 2 + covariates(r, 0);
      labels.push_back(static_cast<std::int32_t>(swapped ? 1 - r % 2 : r % 2));
    }
  }
  Condition view() const { return {labels, covariates.view()}; }
};

}  // namespace

TEST_CASE("Stein discrepancy of a conditional model: the definition, conditions in the kernel alone") {
  const ConditionalNormal model;
  for (const Index n : {2, 17, 70}) {
    const Conditional rows(21, n, false);
    double all = 0;
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) {
        const auto point = [&](Index r) { return static_cast<double>(rows.x(r, 0)); };
        const auto score = [&](Index r) {
          return -(point(r) - 2. * static_cast<double>(r % 2) - static_cast<double>(rows.covariates(r, 0))) / 1.25;
        };
        const double apart = static_cast<double>(rows.covariates(i, 0)) - static_cast<double>(rows.covariates(j, 0));
        const SteinKernel kernel{.c = std::sqrt(.49 + apart * apart + (i % 2 != j % 2 ? 2 : 0)), .beta = -.3};
        all += naive_u({point(i)}, {score(i)}, {point(j)}, {score(j)}, kernel);
      }
    }
    const Condition conditions = rows.view();
    const SteinDiscrepancy d = stein_discrepancy(model, .5, rows.x, {.c = .7, .beta = -.3}, &conditions);
    CHECK(std::abs(d.v_statistic - all / static_cast<double>(n * n)) < 1e-4);
  }
}

// Over 60 seeds rows in place have U = 0 +- .0016, rows 2 away from their place, half of them to each side, .346 +- .021.
TEST_CASE("Stein test of a conditional model finds swapped labels, though all rows together have the right law") {
  const ConditionalNormal model;
  const Conditional right(31, 600, false), swapped(31, 600, true);
  const Condition in_place = right.view(), moved = swapped.view();
  CHECK(std::abs(stein_discrepancy(model, 0, right.x, {}, &in_place).u_statistic) < .02);
  CHECK(stein_discrepancy(model, 0, swapped.x, {}, &moved).u_statistic > .2);
  CHECK(stein_test(model, 0, swapped.x, {}, Rng{1}, &moved).p_value == .001);
}

TEST_CASE("Stein discrepancy: every sample needs its condition") {
  const Conditional rows(41, 5, false);
  Condition few = rows.view();
  few.labels = few.labels.first(4);
  CHECK_THROWS_WITH_AS(
      stein_discrepancy(ConditionalNormal(), 0, rows.x, {}, &few),
      "stein_discrepancy: 5 samples have 4 labels and 5 rows of covariates; ConditionalNormal needs one for each sample",
      UsageError);
}

TEST_CASE("Stein test: options, shapes and values that do not fit are refused") {
  const GaussianMixture model = GaussianMixture::gaussian(2, 1);
  const Matrix x = normals(50, 10, 2);
  CHECK_THROWS_AS(stein_discrepancy(model, 0, normals(1, 10, 3)), UsageError);
  CHECK_THROWS_AS(stein_discrepancy(model, 0, normals(1, 1, 2)), UsageError);
  CHECK_THROWS_AS(stein_discrepancy(model, -1, x), UsageError);
  CHECK_THROWS_AS(stein_discrepancy(model, 0, x, {.c = 0}), UsageError);
  CHECK_THROWS_AS(stein_discrepancy(model, 0, x, {.beta = 0}), UsageError);
  CHECK_THROWS_AS(stein_discrepancy(model, 0, x, {.beta = -1}), UsageError);
  CHECK_THROWS_AS(stein_test(model, 0, x, {.bootstraps = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(stein_test(model, 0, x, {.sign_change = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(stein_test(model, 0, x, {.sign_change = .6}, Rng{1}), UsageError);
  Matrix bad = x;
  bad(4, 0) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(stein_discrepancy(model, 0, bad), doctest::Contains("row 4"), DataError);
  const FunctionScore broken(2, [](ConstRows<double>, std::span<const double>, Rows<double> out) { out(0, 1) = NAN; });
  CHECK_THROWS_AS(stein_discrepancy(broken, 0, x), DivergedError);
}
