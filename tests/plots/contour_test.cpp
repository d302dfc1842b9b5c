// SPDX-License-Identifier: MIT
#include "tweedie/plots/contour.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

using namespace tweedie;
using namespace tweedie::plots;

namespace {

ScalarFunction pointwise(double (*f)(double, double)) {
  return [f](ConstRows<double> x, std::span<double> out) {
    for (Index i = 0; i < x.rows(); ++i) out[static_cast<std::size_t>(i)] = f(x(i, 0), x(i, 1));
  };
}

double length(const Polyline& line) {
  double sum = 0;
  const std::size_t n = line.x.size();
  for (std::size_t i = line.closed ? 0 : 1; i < n; ++i) {
    const std::size_t before = (i + n - 1) % n;
    sum += std::hypot(line.x[i] - line.x[before], line.y[i] - line.y[before]);
  }
  return sum;
}

}  // namespace

TEST_CASE("a grid's nodes are those of linspace, row by row from below") {
  const MatrixD points = grid_points({-1, 1}, {0, 3}, 3, 2);
  CHECK(points.rows() == 6);
  CHECK(points(0, 0) == -1);
  CHECK(points(1, 0) == 0);
  CHECK(points(2, 0) == 1);
  CHECK(points(2, 1) == 0);
  CHECK(points(3, 1) == 3);
  const Grid grid = evaluate(pointwise([](double x, double y) { return 10 * x + y; }), {-1, 1}, {0, 3}, 3, 2);
  CHECK(grid.at(1, 2) == 13);
}

TEST_CASE("the contour of r^2 is one closed circle; its error falls with the square of the spacing") {
  double before = 0;
  for (const Index n : {21, 41, 81}) {
    const Grid grid = evaluate(pointwise([](double x, double y) { return x * x + y * y; }), {-2, 2}, {-2, 2}, n, n);
    const auto lines = contour_lines(grid, 1.69);
    REQUIRE(lines.size() == 1);
    CHECK(lines[0].closed);
    double error = 0;
    for (std::size_t i = 0; i < lines[0].x.size(); ++i)
      error = std::max(error, std::abs(std::hypot(lines[0].x[i], lines[0].y[i]) - 1.3));
    // Linear interpolation of f'' = 2 over h is off by at most h^2/4 in f, by h^2/4 / |grad f| = h^2 / (8 * 1.3) in r.
    const double h = 4.0 / static_cast<double>(n - 1);
    CHECK(error <= 1.1 * h * h / (8 * 1.3));
    CHECK(length(lines[0]) == doctest::Approx(2 * std::numbers::pi * 1.3).epsilon(h * h));
    if (before > 0) CHECK(error < 0.5 * before);
    before = error;
  }
}

TEST_CASE("a straight level set is one open line from edge to edge, exactly") {
  const Grid grid = evaluate(pointwise([](double x, double y) { return x + 2 * y; }), {0, 1}, {0, 1}, 11, 11);
  const auto lines = contour_lines(grid, 1.03);
  REQUIRE(lines.size() == 1);
  CHECK(!lines[0].closed);
  for (std::size_t i = 0; i < lines[0].x.size(); ++i)
    CHECK(lines[0].x[i] + 2 * lines[0].y[i] == doctest::Approx(1.03).epsilon(1e-12));
  CHECK(length(lines[0]) == doctest::Approx(std::hypot(1, .5)).epsilon(1e-12));
}

TEST_CASE("a saddle is cut by the value in its middle, and separate islands give separate lines") {
  const Grid high{{0, 1}, {0, 1}, 2, 2, {1, 0, 0, 1.2}};  // middle .55: the high corners are joined
  REQUIRE(contour_lines(high, 0.5).size() == 2);
  for (const Polyline& line : contour_lines(high, 0.5)) {
    const double mx = (line.x[0] + line.x[1]) / 2, my = (line.y[0] + line.y[1]) / 2;
    CHECK(std::abs(mx - my) > 0.3);  // each line cuts off a low corner, (1, 0) or (0, 1)
  }
  const Grid low{{0, 1}, {0, 1}, 2, 2, {1, 0, 0, 0.8}};  // middle .45
  for (const Polyline& line : contour_lines(low, 0.5)) {
    const double mx = (line.x[0] + line.x[1]) / 2, my = (line.y[0] + line.y[1]) / 2;
    CHECK(std::abs(mx + my - 1) > 0.3);
  }
  const Grid islands =
      evaluate(pointwise([](double x, double y) { return std::cos(3 * x) * std::cos(3 * y); }), {-2, 2}, {-2, 2}, 60, 60);
  int closed = 0;
  for (const Polyline& line : contour_lines(islands, 0.5)) closed += line.closed;
  CHECK(closed == 5);
}

TEST_CASE("cells without a number are left out; nothing to draw is no line") {
  Grid grid = evaluate(pointwise([](double x, double) { return x; }), {0, 1}, {0, 1}, 5, 5);
  grid.values[2 * 5 + 2] = std::nan("");
  for (const Polyline& line : contour_lines(grid, 0.4)) {
    for (const double y : line.y) CHECK((y <= 0.2501 || y >= 0.7499));
  }
  CHECK(contour_lines(grid, 7).empty());
  CHECK(contour_lines(Grid{{0, 1}, {0, 1}, 2, 2, {3, 3, 3, 3}}, 3).empty());
}

TEST_CASE("mass levels of a standard normal are those of the chi-square law: log p = -r^2/2, P(r < R) = 1 - exp(-R^2/2)") {
  const Grid grid = evaluate(pointwise([](double x, double y) { return -(x * x + y * y) / 2; }), {-6, 6}, {-6, 6}, 401, 401);
  const double fractions[] = {.2, .5, .95};
  const auto levels = mass_levels(grid, fractions);
  // The level log(1 - fraction); a ring of nodes of mass ~ h^2 separates neighbouring levels.
  for (std::size_t i = 0; i < 3; ++i) CHECK(levels[i] == doctest::Approx(std::log(1 - fractions[i])).epsilon(0.005));
  const Grid none{{0, 1}, {0, 1}, 2, 2, {-HUGE_VAL, std::nan(""), -HUGE_VAL, HUGE_VAL}};
  CHECK(mass_levels(none, fractions).empty());
  const double bad[] = {1.0};
  CHECK_THROWS_AS(mass_levels(grid, bad), UsageError);
}

TEST_CASE("grids that are none are refused") {
  CHECK_THROWS_AS(grid_points({1, 0}, {0, 1}, 3, 3), UsageError);
  CHECK_THROWS_AS(grid_points({0, HUGE_VAL}, {0, 1}, 3, 3), UsageError);
  CHECK_THROWS_AS(grid_points({0, 1}, {0, 1}, 1, 3), UsageError);
  CHECK_THROWS_AS(grid_points({0, 1}, {0, 1}, 3, 20000), UsageError);
  CHECK_THROWS_AS(evaluate({}, {0, 1}, {0, 1}, 3, 3), UsageError);
  CHECK_THROWS_AS(contour_lines(Grid{{0, 1}, {0, 1}, 3, 3, {1, 2}}, 1), UsageError);
  CHECK_THROWS_AS(contour_lines(Grid{{0, 1}, {0, 1}, 2, 2, {1, 2, 3, 4}}, std::nan("")), UsageError);
}
