// SPDX-License-Identifier: MIT
#include "tweedie/samplers/schedule.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numbers>

using namespace tweedie;

TEST_CASE("karras: the paper's formula, its ends to the bit, a final 0") {
  const std::vector<double> s = karras(18, .002, 80);
  REQUIRE(s.size() == 19);
  CHECK(s.front() == 80);
  CHECK(s[17] == .002);
  CHECK(s[18] == 0);
  for (int i = 0; i < 18; ++i) {
    const double root = std::pow(80., 1. / 7) + i / 17. * (std::pow(.002, 1. / 7) - std::pow(80., 1. / 7));
    CHECK(s[static_cast<std::size_t>(i)] == doctest::Approx(std::pow(root, 7)).epsilon(1e-13));
  }
  CHECK(karras(18, .002, 80, 7, false).size() == 18);
  // rho = 1 is linear.
  const std::vector<double> linear = linear_schedule(9, .5, 30), one = karras(9, .5, 30, 1);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(one[i] == doctest::Approx(linear[i]).epsilon(1e-14));
  CHECK(linear[4] == doctest::Approx(15.25));
}

TEST_CASE("geometric has one ratio, linear one difference") {
  const std::vector<double> s = geometric_schedule(11, .01, 10), l = linear_schedule(11, .01, 10);
  for (std::size_t i = 0; i < 10; ++i) {
    CHECK(s[i + 1] / s[i] == doctest::Approx(std::pow(10, -.3)).epsilon(1e-13));
    CHECK(l[i] - l[i + 1] == doctest::Approx(.999).epsilon(1e-13));
  }
}

TEST_CASE("cosine: equidistant in the t of Nichol and Dhariwal's alpha-bar") {
  const auto alpha_bar = [](double t) {
    const auto f = [](double u) { return std::pow(std::cos((u + .008) / 1.008 * std::numbers::pi / 2), 2); };
    return f(t) / f(0);
  };
  // The levels of t = .99, .98, ..., .01, from the definition; a geometric mean would not do.
  const auto sigma = [&](double t) { return std::sqrt(1 / alpha_bar(t) - 1); };
  const std::vector<double> s = cosine_schedule(99, sigma(.01), sigma(.99));
  for (int i = 0; i < 99; ++i) CHECK(s[static_cast<std::size_t>(i)] == doctest::Approx(sigma(.99 - .01 * i)).epsilon(1e-10));
  CHECK(s.back() == 0);
}

TEST_CASE("time: a process's own levels at equidistant times") {
  for (const Process& p : {ve(), vp(), sub_vp(), edm()}) {
    const std::vector<double> s = time_schedule(p, 21, false);
    REQUIRE(s.size() == 21);
    for (int i = 0; i <= 20; ++i) {
      const double t = p.t_max() + i / 20. * (p.t_min_sampling() - p.t_max());
      CHECK(s[static_cast<std::size_t>(i)] == doctest::Approx(p.ratio(t)).epsilon(1e-9));
    }
    CHECK(s.front() == p.ratio(p.t_max()));
    CHECK(s.back() == p.ratio(p.t_min_sampling()));
  }
}

TEST_CASE("by name, and what is refused") {
  CHECK(schedule("karras", 5, .1, 10) == karras(5, .1, 10));
  CHECK(schedule("geometric", 5, .1, 10) == geometric_schedule(5, .1, 10));
  CHECK(schedule("linear", 5, .1, 10, false) == linear_schedule(5, .1, 10, false));
  CHECK(schedule("cosine", 5, .1, 10) == cosine_schedule(5, .1, 10));
  CHECK_THROWS_WITH_AS(schedule("edm", 5, .1, 10), "schedule 'edm' is unknown; choose one of: geometric, karras, linear, cosine",
                       UsageError);
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (const char* name : {"karras", "geometric", "linear", "cosine"}) {
    CHECK_THROWS_AS(schedule(name, 1, .1, 10), UsageError);
    CHECK_THROWS_AS(schedule(name, 5, 0, 10), UsageError);
    CHECK_THROWS_AS(schedule(name, 5, 10, 10), UsageError);
    CHECK_THROWS_AS(schedule(name, 5, nan, 10), UsageError);
    CHECK_THROWS_AS(schedule(name, 5, .1, infinity), UsageError);
    CHECK_THROWS_AS(schedule(name, 50, 1, std::nextafter(1, 2)), UsageError);  // no fifty numbers in between
    CHECK(schedule(name, 2, .1, 10) == std::vector<double>{10, .1, 0});
  }
  CHECK_THROWS_AS(karras(5, .1, 10, 0), UsageError);
  CHECK_THROWS_AS(karras(5, .1, 10, nan), UsageError);
}
