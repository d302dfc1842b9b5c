// SPDX-License-Identifier: MIT
#include "tweedie/plots/ticks.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace tweedie;
using namespace tweedie::plots;

namespace {

std::vector<double> values(const std::vector<Tick>& all) {
  std::vector<double> result;
  for (const Tick& tick : all) {
    if (!tick.minor) result.push_back(tick.value);
  }
  return result;
}

std::vector<std::string> labels(const std::vector<Tick>& all) {
  std::vector<std::string> result;
  for (const Tick& tick : all) {
    if (!tick.minor) result.push_back(tick.label);
  }
  return result;
}

using Values = std::vector<double>;
using Labels = std::vector<std::string>;

}  // namespace

TEST_CASE("linear ticks are the finest multiples of 1, 2, 2.5 or 5 that fit, each the nearest double") {
  CHECK(values(ticks({0, 1}, Scale::linear, 6)) == Values{0, 0.2, 0.4, 0.6, 0.8, 1});
  CHECK(values(ticks({0, 1}, Scale::linear, 11)) == Values{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1});
  CHECK(values(ticks({0, 1}, Scale::linear, 5)) == Values{0, 0.25, 0.5, 0.75, 1});
  CHECK(values(ticks({0, 1}, Scale::linear, 3)) == Values{0, 0.5, 1});
  CHECK(values(ticks({-3.2, 3.2}, Scale::linear, 7)) == Values{-3, -2, -1, 0, 1, 2, 3});
  CHECK(values(ticks({-3.2, 3.2}, Scale::linear, 6)) == Values{-2, 0, 2});
  CHECK(values(ticks({17, 104}, Scale::linear, 5)) == Values{20, 40, 60, 80, 100});
  CHECK(values(ticks({-1e6, 2e6}, Scale::linear, 4)) == Values{-1e6, 0, 1e6, 2e6});
  CHECK(values(ticks({1e-9, 3e-9}, Scale::linear, 3)) == Values{1e-9, 2e-9, 3e-9});
}

TEST_CASE("linear labels show as many decimals as the step has, and a true minus sign") {
  CHECK(labels(ticks({0, 1}, Scale::linear, 3)) == Labels{"0", "0.5", "1.0"});
  CHECK(labels(ticks({0, 1}, Scale::linear, 5)) == Labels{"0", "0.25", "0.50", "0.75", "1.00"});
  CHECK(labels(ticks({-1, 1}, Scale::linear, 3)) == Labels{"\u22121", "0", "1"});
  CHECK(labels(ticks({0, 100}, Scale::linear, 5)) == Labels{"0", "25", "50", "75", "100"});
  CHECK(labels(ticks({0, 20000}, Scale::linear, 5)) == Labels{"0", "5000", "10000", "15000", "20000"});
}

TEST_CASE("large and tiny numbers are labelled with a power of ten") {
  CHECK(labels(ticks({0, 1e6}, Scale::linear, 3)) == Labels{"0", "0.5\u00D710^{6}", "1.0\u00D710^{6}"});
  CHECK(labels(ticks({0, 1e7}, Scale::linear, 5)) ==
        Labels{"0", "0.25\u00D710^{7}", "0.50\u00D710^{7}", "0.75\u00D710^{7}", "1.00\u00D710^{7}"});
  CHECK(labels(ticks({1e-9, 3e-9}, Scale::linear, 3)) ==
        Labels{"1\u00D710^{\u22129}", "2\u00D710^{\u22129}", "3\u00D710^{\u22129}"});
}

TEST_CASE("logarithmic ticks are decades, thinned when many, and 2 and 5 between when few") {
  CHECK(values(ticks({0.01, 10}, Scale::log, 5)) == Values{0.01, 0.1, 1, 10});
  CHECK(labels(ticks({0.01, 10}, Scale::log, 5)) == Labels{"10^{\u22122}", "10^{\u22121}", "10^{0}", "10^{1}"});
  CHECK(values(ticks({1, 20}, Scale::log, 5)) == Values{1, 2, 5, 10, 20});
  CHECK(values(ticks({1e-12, 1e12}, Scale::log, 5)) == Values{1e-10, 1e-5, 1, 1e5, 1e10});
  CHECK(values(ticks({1.1, 1.9}, Scale::log, 5)) == Values{1.2, 1.4, 1.6, 1.8});  // nearly linear there
  Index minor = 0;
  for (const Tick& tick : ticks({0.01, 10}, Scale::log, 5)) minor += tick.minor;
  CHECK(minor == 3 * 8);
}

TEST_CASE("property: over many intervals ticks rise, lie within, are at most as many as asked and at least one") {
  for (int i = 0; i < 4000; ++i) {
    const double centre = std::sin(12.9898 * i) * std::pow(10, i % 13 - 6),
                 half = (0.01 + std::abs(std::cos(78.233 * i))) * std::pow(10, i % 17 - 8);
    const Limits limits{centre - half, centre + half};
    const Index most = 2 + i % 9;
    if (half < 1e-10 * std::abs(centre)) continue;
    const std::vector<Tick> all = ticks(limits, Scale::linear, most);
    CAPTURE(limits.lo);
    CAPTURE(limits.hi);
    CHECK(!all.empty());
    CHECK(static_cast<Index>(all.size()) <= most);
    for (std::size_t t = 0; t < all.size(); ++t) {
      CHECK(all[t].value >= limits.lo - 1e-6 * half);
      CHECK(all[t].value <= limits.hi + 1e-6 * half);
      if (t > 0) CHECK(all[t].value > all[t - 1].value);
      if (t > 0) CHECK(all[t].label != all[t - 1].label);
    }
  }
}

TEST_CASE("intervals that cannot be drawn are refused") {
  const double inf = HUGE_VAL;
  CHECK_THROWS_AS(ticks({1, 1}, Scale::linear, 5), UsageError);
  CHECK_THROWS_AS(ticks({2, 1}, Scale::linear, 5), UsageError);
  CHECK_THROWS_AS(ticks({0, inf}, Scale::linear, 5), UsageError);
  CHECK_THROWS_AS(ticks({std::nan(""), 1}, Scale::linear, 5), UsageError);
  CHECK_THROWS_AS(ticks({0, 1}, Scale::log, 5), UsageError);
  CHECK_THROWS_AS(ticks({0, 1}, Scale::linear, 1), UsageError);
  CHECK_THROWS_AS(ticks({1, std::nextafter(1.0, 2.0)}, Scale::linear, 5), UsageError);
  CHECK_THROWS_AS(ticks({0, 1e-310}, Scale::linear, 5), UsageError);
}

TEST_CASE("padding widens data, opens a single value, and stands in for none") {
  CHECK(padded({0, 100}, Scale::linear).lo == doctest::Approx(-4));
  CHECK(padded({0, 100}, Scale::linear).hi == doctest::Approx(104));
  CHECK(padded({5, 5}, Scale::linear) == Limits{4.5, 5.5});
  CHECK(padded({-100, -100}, Scale::linear) == Limits{-110, -90});
  CHECK(padded({0, 0}, Scale::linear) == Limits{-0.5, 0.5});
  CHECK(padded({3, 3}, Scale::log) == Limits{1.5, 6});
  CHECK(padded({1, 1e10}, Scale::log).hi == doctest::Approx(std::pow(10, 10.4)));
  CHECK(padded({HUGE_VAL, -HUGE_VAL}, Scale::linear) == Limits{0, 1});
  CHECK(padded({HUGE_VAL, -HUGE_VAL}, Scale::log) == Limits{0.1, 10});
}
