// SPDX-License-Identifier: MIT
#include "tweedie/models/noise_levels.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

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
