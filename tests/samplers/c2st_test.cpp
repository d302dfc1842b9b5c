// The classifier two-sample test against the best possible accuracies in closed form. Held-out accuracies never beat the best
// classifier's but by chance (5 standard errors, which c2st.h derives and diagnostics_slow_test.cpp measures); how far below they
// may stay is stated at each case.
// SPDX-License-Identifier: MIT
#include "tweedie/samplers/c2st.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "tweedie/core/parallel.h"

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

bool same(const C2st& a, const C2st& b) { return a.accuracies == b.accuracies && a.epochs == b.epochs; }
}  // namespace

TEST_CASE("c2st: one half for equal laws, one for separated sets") {
  for (const Index dim : {1, 2}) {
    const C2st equal = c2st(normals(1, 1000, dim), normals(2, 1000, dim), {}, Rng{3});
    CHECK(equal.standard_error == doctest::Approx(.5 / std::sqrt(1000.)).epsilon(.01));
    CHECK(std::abs(equal.accuracy - .5) < 5 * equal.standard_error);
    const C2st apart = c2st(normals(1, 300, dim), normals(2, 300, dim, 20), {}, Rng{3});
    CHECK(apart.accuracy == 1);
    CHECK(apart.standard_error == 0);
  }
}

TEST_CASE("c2st: the best accuracy of a shift, and of a width that no line through the data shows") {
  // Phi(1/2), by a line.
  const C2st shifted = c2st(normals(4, 1500, 1), normals(5, 1500, 1, 1), {}, Rng{6});
  const double best_shift = .5 * std::erfc(-.5 / std::numbers::sqrt2);
  CHECK(shifted.accuracy < best_shift + 5 * shifted.standard_error);
  CHECK(shifted.accuracy > best_shift - .01 - 5 * shifted.standard_error);
  // N(0, I) and N(0, 9 I) in the plane: densities meet at r^2 = t with t (1 - 1/9) / 2 = ln 9.
  const double t = 2 * std::log(9.0) / (1 - 1 / 9.0);
  const double best_width = .5 * (1 - std::exp(-t / 2)) + .5 * std::exp(-t / 18);
  const C2st wide = c2st(normals(7, 1500, 2), normals(8, 1500, 2, 0, 3), {}, Rng{9});
  CHECK(wide.accuracy < best_width + 5 * wide.standard_error);
  CHECK(wide.accuracy > best_width - .01 - 5 * wide.standard_error);
}

TEST_CASE("c2st: the same bits for any number of threads; blind to the unit; another stream differs") {
  const Matrix x = normals(10, 203, 3), y = normals(11, 190, 3, .5F);
  const C2stOptions options{.max_epochs = 15};
  const C2st once = c2st(x, y, options, Rng{12});
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    CHECK(same(once, c2st(x, y, options, Rng{12})));
  }
  set_threads(0);
  CHECK(!same(once, c2st(x, y, options, Rng{13})));
  Matrix x4 = x, y4 = y;  // powers of two scale without rounding
  for (Index i = 0; i < x4.size(); ++i) x4.data()[i] *= 4;
  for (Index i = 0; i < y4.size(); ++i) y4.data()[i] *= 4;
  CHECK(same(once, c2st(x4, y4, options, Rng{12})));
}

TEST_CASE("c2st: folds, their mean, small sets and the limit of epochs") {
  const Matrix x = normals(14, 40, 2), y = normals(15, 23, 2, 1);
  const C2st seven = c2st(x, y, {.folds = 7, .hidden = 3, .max_epochs = 4}, Rng{16});
  CHECK(seven.accuracies.size() == 7);
  CHECK(seven.epochs == std::vector<int>(7, 4));
  CHECK(seven.accuracy ==
        doctest::Approx(std::accumulate(seven.accuracies.begin(), seven.accuracies.end(), 0.0) / 7).epsilon(1e-14));
  for (const double a : seven.accuracies) CHECK(std::abs(a * 9 - std::round(a * 9)) < 1e-12);  // 63 rows in 7 folds of 9
  const C2st few = c2st(normals(17, 2, 1), normals(18, 1, 1), {.folds = 3}, Rng{19});          // one row in each fold
  for (const double a : few.accuracies) CHECK((a == 0 || a == 1));
  const C2st stopped = c2st(x, y, {}, Rng{16});
  for (const int epochs : stopped.epochs) CHECK((epochs > 11 && epochs < 10000));
}

TEST_CASE("c2st: shapes, options and values that do not fit are refused") {
  const Matrix x = normals(20, 10, 2), y = normals(21, 10, 2);
  const Rng rng{22};
  CHECK_THROWS_AS(c2st(x, normals(1, 10, 3), {}, rng), UsageError);
  CHECK_THROWS_AS(c2st(Matrix(10, 0), Matrix(10, 0), {}, rng), UsageError);
  CHECK_THROWS_AS(c2st(normals(1, 1, 2), y, {}, rng), UsageError);
  CHECK_THROWS_AS(c2st(x, Matrix(0, 2), {}, rng), UsageError);
  CHECK_THROWS_AS(c2st(x, y, {.folds = 1}, rng), UsageError);
  CHECK_THROWS_AS(c2st(x, y, {.folds = 21}, rng), UsageError);
  CHECK_THROWS_AS(c2st(x, y, {.hidden = -1}, rng), UsageError);
  CHECK_THROWS_AS(c2st(x, y, {.max_epochs = 0}, rng), UsageError);
  Matrix bad = y;
  bad(3, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(c2st(x, bad, {}, rng), doctest::Contains("row 3, column 1"), DataError);
  CHECK_THROWS_AS(c2st(bad, x, {}, rng), DataError);
  Matrix constant = x;
  for (Index r = 0; r < 10; ++r) constant(r, 1) = 5;
  CHECK_THROWS_WITH_AS(c2st(constant, y, {}, rng), doctest::Contains("column 1"), DataError);
}
