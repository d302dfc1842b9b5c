// SPDX-License-Identifier: MIT
#include "tweedie/models/noise_levels.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tweedie/core/matrix.h"

using namespace tweedie;

TEST_CASE("geometric levels have exact ends and one ratio") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  REQUIRE(levels.size() == 10);
  CHECK(levels.max() == 10);
  CHECK(levels.min() == .01);
  CHECK(levels[0] == 10);
  CHECK(levels[9] == .01);
  const double ratio = std::pow(1e-3, 1. / 9);
  for (Index i = 1; i < levels.size(); ++i) {
    // exp and log each err by one unit in the last place of an argument of size <= 5.
    CHECK(std::abs(levels[i] / levels[i - 1] / ratio - 1) <= 16 * std::numeric_limits<double>::epsilon());
  }
}

TEST_CASE("a single level and two levels") {
  CHECK(NoiseLevels::geometric(.5, .5, 1).size() == 1);
  CHECK(NoiseLevels::geometric(.5, .5, 1)[0] == .5);
  const NoiseLevels two = NoiseLevels::geometric(2, 1, 2);
  CHECK(two[0] == 2);
  CHECK(two[1] == 1);
}

TEST_CASE("wrong levels are refused") {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(NoiseLevels::geometric(10, .01, 1), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(1, 1, 2), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(.01, 10, 10), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(10, 0, 10), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(10, -1, 10), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(inf, 1, 10), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(nan, 1, 10), UsageError);
  CHECK_THROWS_AS(NoiseLevels::geometric(10, .01, 0), UsageError);
  // So many levels that neighbours round to the same number.
  CHECK_THROWS_AS(NoiseLevels::geometric(std::nextafter(1., 2.), 1, 3), UsageError);
  CHECK_THROWS_AS(NoiseLevels(std::vector<double>{}), UsageError);
  CHECK_THROWS_AS(NoiseLevels({1, 2}), UsageError);
  CHECK_THROWS_AS(NoiseLevels({2, 2}), UsageError);
  CHECK_THROWS_AS(NoiseLevels({2, 1, 0}), UsageError);
  CHECK_THROWS_AS(NoiseLevels({nan}), UsageError);
  CHECK_THROWS_AS(NoiseLevels({inf, 1}), UsageError);
  CHECK_NOTHROW(NoiseLevels({3, 2.5, .1}));
}

namespace {

// NCSNv2's equation, as published.
double overlap(double gamma, double dim) {
  const auto phi = [](double z) { return .5 * std::erfc(-z / std::sqrt(2.)); };
  return phi(std::sqrt(2 * dim) * (gamma - 1) + 3 * gamma) - phi(std::sqrt(2 * dim) * (gamma - 1) - 3 * gamma);
}

}  // namespace

TEST_CASE("NCSNv2's ratio solves its equation, and is ten levels in three decades where that has no use") {
  for (const Index dim : {30, 784, 3072, 12288})
    CHECK(overlap(ncsnv2_ratio(dim), double(dim)) == doctest::Approx(.5).epsilon(1e-12));
  for (const Index dim : {1, 2, 4, 5}) CHECK(ncsnv2_ratio(dim) == std::cbrt(10.));
  CHECK_THROWS_AS(ncsnv2_ratio(0), UsageError);
}

TEST_CASE("NCSNv2 on CIFAR-10: the published step, and the count of levels") {
  // Published: D = 3072, sigma from 50 to .01, L = 232, T = 5, epsilon = 6.2e-6 [Song & Ermon 2020, Tab. 3]. Their ratio leaves
  // an overlap of .567; the equation's own solution, 1.0398, needs 220 levels.
  const NoiseLevels published = NoiseLevels::geometric(50, .01, 232);
  CHECK(std::abs(ncsnv2_epsilon(published, 5) - 6.2e-6) < .05e-6);
  CHECK(overlap(published[0] / published[1], 3072) == doctest::Approx(.567).epsilon(.002));
  const NoiseLevels own = ncsnv2_levels(3072, 50, .01);
  CHECK(own.size() == 220);
  CHECK(own.max() == 50);
  CHECK(own.min() == .01);
  CHECK(overlap(own[0] / own[1], 3072) >= .5);
  const NoiseLevels fewer = NoiseLevels::geometric(50, .01, 219);
  CHECK(overlap(fewer[0] / fewer[1], 3072) < .5);
}

TEST_CASE("NCSNv2's step is where T steps come nearest to the level's variance") {
  // At T = 1 the expression is (1 - r)^2 gamma^2 + 2 r, least at r = 1 - 1/gamma^2.
  const NoiseLevels levels = NoiseLevels::geometric(8, .5, 5);
  CHECK(ncsnv2_epsilon(levels, 1) == doctest::Approx(.25 * .75).epsilon(1e-7));
  CHECK_THROWS_AS(ncsnv2_epsilon(levels, 0), UsageError);
  CHECK_THROWS_AS(ncsnv2_epsilon(NoiseLevels({1}), 5), UsageError);
  CHECK_THROWS_AS(ncsnv2_epsilon(NoiseLevels({4, 2, .5}), 5), UsageError);
}

TEST_CASE("NCSNv2's largest level is the largest distance between rows") {
  Matrix data(40, 2);
  for (Index r = 0; r < 40; ++r) data(r, 0) = static_cast<float>(r % 7), data(r, 1) = static_cast<float>(r % 5);
  data(11, 0) = -30, data(33, 1) = 40;
  data(11, 1) = 0, data(33, 0) = 0;
  const NoiseLevels levels = ncsnv2_levels(data, .05);
  CHECK(levels.max() == 50);
  CHECK(levels.min() == .05);
  CHECK(levels.size() == 10);  // a factor of 1000 at three levels a decade
  CHECK_THROWS_AS(ncsnv2_levels(Matrix(1, 2), .05), DataError);
  CHECK_THROWS_AS(ncsnv2_levels(Matrix(5, 2), .05), DataError);  // all rows alike
  CHECK_THROWS_AS(ncsnv2_levels(data, 60), DataError);
  CHECK_THROWS_AS(ncsnv2_levels(data, 0), UsageError);
  data(3, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(ncsnv2_levels(data, .05), DataError);
}
