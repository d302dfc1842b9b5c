// SPDX-License-Identifier: MIT
#include "tweedie/models/datasets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {
constexpr Index kN = 100000;

// Largest deviation of counts from equal expectations in standard deviations.
template <std::size_t K>
double largest_z(const std::array<Index, K>& counts, Index n) {
  const double p = 1. / K;
  double worst = 0;
  for (const Index c : counts) {
    worst = std::max(
        worst, std::abs(static_cast<double>(c) - p * static_cast<double>(n)) / std::sqrt(p * (1 - p) * static_cast<double>(n)));
  }
  return worst;
}
constexpr double kZ = 5.5;  // two-sided tail 4e-8, for up to 16 counts together below 1e-6
}  // namespace

TEST_CASE("every name makes (n, 2) finite rows; the first rows agree for any n and any number of threads") {
  CHECK(datasets::names().size() == 8);
  for (const std::string& name : datasets::names()) {
    const Matrix all = datasets::make(name, 3000, Rng{42});
    CHECK(all.rows() == 3000);
    CHECK(all.cols() == 2);
    CHECK(std::all_of(all.data(), all.data() + all.size(), [](float x) { return std::abs(x) < 20; }));
    for (const Index n : {0, 1, 7, 300, 1025}) {
      const Matrix head = datasets::make(name, n, Rng{42});
      CHECK(head.rows() == n);
      CHECK(std::equal(head.data(), head.data() + head.size(), all.data()));
    }
    set_threads(3);
    const Matrix again = datasets::make(name, 3000, Rng{42});
    set_threads(0);
    CHECK(std::equal(all.data(), all.data() + all.size(), again.data()));
    const Matrix other = datasets::make(name, 10, Rng{43});
    CHECK_FALSE(std::equal(other.data(), other.data() + other.size(), all.data()));
  }
}

TEST_CASE("aliases, oracles and unknown names") {
  const auto same = [](const Matrix& a, const Matrix& b) { return std::equal(a.data(), a.data() + a.size(), b.data()); };
  CHECK(same(datasets::make("tutorial", 300, Rng{42}), datasets::three_gaussians(300, Rng{42})));
  CHECK(same(datasets::make("two_moons", 300, Rng{42}), datasets::make("moons", 300, Rng{42})));
  for (const char* name : {"three_gaussians", "tutorial", "three_gaussians_unequal", "two_mode", "eight_gaussians"}) {
    const auto oracle = datasets::oracle(name);
    REQUIRE(oracle.has_value());
    CHECK(same(oracle->sample(50, Rng{1}), datasets::make(name, 50, Rng{1})));
  }
  for (const char* name : {"moons", "two_moons", "checkerboard", "swiss_roll", "rings"})
    CHECK_FALSE(datasets::oracle(name).has_value());
  CHECK_THROWS_WITH_AS(
      datasets::make("moon", 3, Rng{1}),
      "datasets: no distribution is called 'moon'; choose one of three_gaussians, three_gaussians_unequal, two_mode, "
      "eight_gaussians, moons, checkerboard, swiss_roll, rings",
      UsageError);
  CHECK_THROWS_AS(datasets::oracle(""), UsageError);
  CHECK_THROWS_AS(datasets::make("moons", -1, Rng{1}), UsageError);
  CHECK_THROWS_AS(datasets::rings(-1, Rng{1}), UsageError);
}

TEST_CASE("checkerboard fills its eight dark fields evenly and nothing else") {
  const Matrix x = datasets::checkerboard(kN, Rng{9});
  Index outside = 0, light = 0;
  std::array<Index, 8> fields{};
  std::array<Index, 16> within{};  // a 4 x 4 grid inside the fields
  for (Index r = 0; r < kN; ++r) {
    outside += x(r, 0) < -4 || x(r, 0) > 4 || x(r, 1) < -4 || x(r, 1) > 4;
    // A point on the right edge may round up to it: it still belongs to its field.
    const Index column = std::min<Index>(3, static_cast<Index>((x(r, 0) + 4) / 2)),
                row = std::min<Index>(3, static_cast<Index>((x(r, 1) + 4) / 2));
    const bool on_edge = std::abs(std::remainder(x(r, 0), 2.f)) < 1e-6f || std::abs(std::remainder(x(r, 1), 2.f)) < 1e-6f;
    if (on_edge) continue;
    light += (column + row) % 2;
    ++fields[static_cast<std::size_t>(2 * column + row / 2)];
    const double u = (x(r, 0) + 4) / 2 - static_cast<double>(column), v = (x(r, 1) + 4) / 2 - static_cast<double>(row);
    ++within[static_cast<std::size_t>(4 * std::min(3., std::floor(4 * u)) + std::min(3., std::floor(4 * v)))];
  }
  CHECK(outside == 0);
  CHECK(light == 0);
  CHECK(largest_z(fields, kN) <= kZ);
  CHECK(largest_z(within, kN) <= kZ);
}

TEST_CASE("rings: four equal circles with normal noise of .08") {
  const Matrix x = datasets::rings(kN, Rng{9});
  std::array<Index, 4> rings{};
  std::array<Index, 16> angles{};
  double noise = 0;
  for (Index r = 0; r < kN; ++r) {
    const double radius = std::hypot(x(r, 0), x(r, 1)), ring = std::clamp(std::round(radius / .75), 1., 4.);
    ++rings[static_cast<std::size_t>(ring) - 1];  // half a gap is 4.7 standard deviations: 3e-6 of the points move, z < .01
    ++angles[static_cast<std::size_t>(
        std::clamp(std::floor(8 * (std::atan2(x(r, 1), x(r, 0)) / std::numbers::pi + 1)), 0., 15.))];
    if (ring == 4) noise += (radius - 3) * (radius - 3);
  }
  CHECK(largest_z(rings, kN) <= kZ);
  CHECK(largest_z(angles, kN) <= kZ);
  // Radial variance .08^2 up to the curvature's (.08 / 3)^2 / 4 = 2e-4 of it; standard error sqrt(2 / 25000) = .9%.
  CHECK(std::abs(noise / static_cast<double>(rings[3]) / .0064 - 1) <= 4.9 * std::sqrt(2. / 25000) + 1e-3);
}

TEST_CASE("moons and swiss roll lie along their curves") {
  const Matrix moons = datasets::two_moons(kN, Rng{9});
  // E x = (0 + 1) / 2, E y = (2/pi + 1/2 - 2/pi) / 2; Var x <= 1.2, Var y <= .5.
  double mx = 0, my = 0, distance = 0;
  for (Index r = 0; r < kN; ++r) {
    mx += moons(r, 0) / double(kN), my += moons(r, 1) / double(kN);
    const double upper = std::abs(std::hypot(moons(r, 0), moons(r, 1)) - 1),
                 lower = std::abs(std::hypot(moons(r, 0) - 1, moons(r, 1) - .5) - 1);
    distance = std::max(distance, std::min(upper, lower));
  }
  CHECK(std::abs(mx - .5) <= 4.9 * std::sqrt(1.2 / double(kN)));
  CHECK(std::abs(my - .25) <= 4.9 * std::sqrt(.5 / double(kN)));
  CHECK(distance <= .1 * 6.8);  // |(z, z')| > 6.8 has probability e^-23 a row: 1e-5 in all... times the chance of lying radially
  CHECK(distance >= .1 * 3);    // the noise is there: P(no row beyond 3 deviations) < e^-200

  const Matrix roll = datasets::swiss_roll(kN, Rng{9});
  std::array<Index, 8> thirds{};
  double mean = 0, square = 0;
  for (Index r = 0; r < kN; ++r) {
    // radius of the curve = a / 5 with a uniform on (1.5 pi, 4.5 pi); E|x|^2 = (E a^2 + 2) / 25.
    const double norm = (roll(r, 0) * roll(r, 0) + roll(r, 1) * roll(r, 1));
    mean += norm / double(kN), square += norm * norm / double(kN);
    const double a = 5 * std::sqrt(norm);
    ++thirds[static_cast<std::size_t>(std::clamp(std::floor((a / std::numbers::pi - 1.5) / 3 * 8), 0., 7.))];
  }
  const double pi = std::numbers::pi, ea2 = (std::pow(4.5 * pi, 3) - std::pow(1.5 * pi, 3)) / (9 * pi);
  CHECK(std::abs(mean - (ea2 + 2) / 25) <= 4.9 * std::sqrt((square - mean * mean) / double(kN)));
  CHECK(*std::min_element(thirds.begin(), thirds.end()) > kN / 10);
  CHECK(*std::max_element(thirds.begin(), thirds.end()) < kN / 6);
}
