// SPDX-License-Identifier: MIT
#include "tweedie/plots/visualize.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "plots/picture.h"

using namespace tweedie;
using namespace tweedie::plots;
using namespace tweedie::plots::test;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A standard normal at noise sigma: s = -y / (1 + sigma^2).
class Normal final : public ScoreModel {
 public:
  Index dim() const override { return 2; }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition*, Rows<float> out) const override {
    fill<float>(y, sigma, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition*, Rows<double> out) const override {
    fill<double>(y, sigma, out);
  }
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition*, std::span<double> out) const override {
    const double variance = 1 + sigma[0] * sigma[0];
    for (Index b = 0; b < y.rows(); ++b) {
      out[static_cast<std::size_t>(b)] =
          -(y(b, 0) * y(b, 0) + y(b, 1) * y(b, 1)) / (2 * variance) - std::log(2 * M_PI * variance);
    }
  }
  const char* name() const override { return "normal"; }

 private:
  template <class S>
  static void fill(ConstRows<S> y, std::span<const S> sigma, Rows<S> out) {
    for (Index b = 0; b < y.rows(); ++b) {
      for (Index d = 0; d < 2; ++d) out(b, d) = -y(b, d) / (1 + sigma[0] * sigma[0]);
    }
  }
};

// Points of a Weyl sequence, evenly spread over [-1, 1]^D.
Matrix spread(Index rows, Index cols) {
  Matrix m(rows, cols);
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) {
      const double u = static_cast<double>(r + 1) * std::sqrt(2.0 + 3.0 * static_cast<double>(c));
      m(r, c) = static_cast<float>(2 * (u - std::floor(u)) - 1);
    }
  }
  return m;
}

FigureOptions quick(double width = 4, double height = 3.5) { return {.width = width, .height = height, .dpi = 80}; }

void check_drawn(const Figure& figure) {
  const Picture picture = draw(figure);
  CHECK(picture.colors() > 30);
  CHECK(ink_in_panel(figure, picture) > 100);
}

}  // namespace

TEST_CASE("a model's score field: resolution^2 arrows over its own density, limits half an arrow past the grid") {
  const Normal model;
  ScoreFieldOptions options{.resolution = 13, .background_resolution = 61, .figure = quick()};
  const Figure figure = visualize_score_field(model, 0.5, options);
  CHECK(figure.drawn() == 13 * 13 + 61 * 61);
  CHECK(figure.skipped() == 0);
  check_drawn(figure);
  const PanelArea area = figure.area(0, 0);
  CHECK(figure.position(0, 0, -3.25, -3.25).first == doctest::Approx(area.left));
  CHECK(figure.position(0, 0, 3.25, 3.25).second == doctest::Approx(area.top));

  // In the middle, between arrows, the background has the peak's colour; without a background it is white.
  options.resolution = 12;
  const Figure with = visualize_score_field(model, 0.5, options);
  options.background = Background::none;
  const Figure without = visualize_score_field(model, 0.5, options);
  const auto [x, y] = pixel(with, 0, 0);
  const std::uint32_t peak = draw(with).at(x, y), want = rgb(color_at(ColorMap::mist, 1));
  for (int shift = 0; shift < 24; shift += 8) {
    CHECK(std::abs(static_cast<int>(peak >> shift & 255u) - static_cast<int>(want >> shift & 255u)) <= 2);
  }
  CHECK(draw(without).at(x, y) == 0xFFFFFF);
}

TEST_CASE("a score that is no number at some places is drawn at the others, and counted") {
  const VectorFunction score = [](ConstRows<double> x, Rows<double> out) {
    for (Index b = 0; b < x.rows(); ++b) {
      out(b, 0) = x(b, 0) > 0 ? std::nan("") : 1;
      out(b, 1) = 0;
    }
  };
  const Figure figure = visualize_score_field(score, {.resolution = 10, .figure = quick()});
  CHECK(figure.drawn() == 50);
  CHECK(figure.skipped() == 50);
  check_drawn(figure);
  const VectorFunction zero = [](ConstRows<double>, Rows<double>) {};
  CHECK(draw(visualize_score_field(zero, {.figure = quick()})).colors() > 30);  // the colour bar; no arrows
}

TEST_CASE("score fields refuse what they cannot draw") {
  const FunctionScore three(3, [](ConstRows<double>, std::span<const double>, Rows<double>) {});
  CHECK_THROWS_AS(visualize_score_field(three, 1), UsageError);
  const Normal model;
  CHECK_THROWS_AS(visualize_score_field(model, 1, {.resolution = 1}), UsageError);
  CHECK_THROWS_AS(visualize_score_field(model, 1, {.xlim = {3, -3}}), UsageError);
  CHECK_THROWS_AS(visualize_score_field(VectorFunction{}, {}), UsageError);
}

TEST_CASE("densities: brightest at the mode, darkest far away, on either scale; degenerate ones too") {
  const Normal model;
  for (const bool log : {false, true}) {
    const Figure figure = visualize_density(
        density_at(model, 0),
        {.xlim = {-6, 6}, .ylim = {-6, 6}, .resolution = 81, .log = log, .contour_masses = {}, .figure = quick()});
    const Picture picture = draw(figure);
    const auto [mx, my] = pixel(figure, 0, 0);
    const auto [fx, fy] = pixel(figure, 5.8, 5.8);
    CHECK((picture.at(mx, my) >> 16) > 230);  // yellow
    CHECK(picture.at(fx, fy) == rgb(color_at(ColorMap::viridis, 0)));
  }
  const auto constant = [](double value) {
    return ScalarFunction([value](ConstRows<double>, std::span<double> out) { std::fill(out.begin(), out.end(), value); });
  };
  for (const double value : {0.0, -5000.0, 5000.0, -HUGE_VAL, std::nan("")}) {
    CAPTURE(value);
    CHECK(draw(visualize_density(constant(value), {.resolution = 11, .figure = quick()})).colors() > 5);
  }
}

TEST_CASE("samples lie over the density; a second set has its own colour and a name in the legend") {
  const Normal model;
  Matrix points = spread(200, 2);
  points(3, 1) = kNaN;
  const Figure one = visualize_samples(points, {.log_density = density_at(model, 0), .figure = quick()});
  CHECK(one.skipped() == 1);
  check_drawn(one);
  Matrix lone(1, 2), other(1, 2);
  lone(0, 0) = 1, other(0, 0) = -1;
  const Figure two = visualize_samples(lone, {.reference = other, .radius = 4, .figure = quick()});
  const Picture picture = draw(two);
  const auto [x, y] = pixel(two, 1, 0);
  const auto [rx, ry] = pixel(two, -1, 0);
  const auto blend = [](Color c, double a) { return rgb({1 - a * (1 - c.r), 1 - a * (1 - c.g), 1 - a * (1 - c.b)}); };
  const auto close = [](std::uint32_t a, std::uint32_t b) {
    bool same = true;
    for (int s = 0; s < 24; s += 8)
      same = same && std::abs(static_cast<int>(a >> s & 255u) - static_cast<int>(b >> s & 255u)) <= 1;
    return same;
  };
  CHECK(close(picture.at(x, y), blend(series_color(1), .65)));
  CHECK(close(picture.at(rx, ry), blend(series_color(0), .75)));
  CHECK(draw(visualize_samples(Matrix(0, 2), {.figure = quick()})).colors() > 3);  // no points: empty axes
  CHECK_THROWS_AS(visualize_samples(spread(5, 3)), UsageError);
}

TEST_CASE("columns of unlike units are not forced to one scale") {
  Matrix table = spread(100, 2);
  for (Index r = 0; r < 100; ++r) table(r, 1) *= 40;
  const Figure figure = visualize_samples(table, {.figure = quick()});
  const PanelArea area = figure.area(0, 0);
  CHECK(area.width > 150);
  CHECK(area.height > 150);
}

TEST_CASE("trajectories run from ring to dot; shapes are checked") {
  std::vector<Matrix> frames;
  for (int t = 0; t <= 10; ++t) {
    Matrix frame(3, 2);
    for (Index p = 0; p < 3; ++p) frame(p, 0) = static_cast<float>(t), frame(p, 1) = static_cast<float>(p);
    frames.push_back(frame);
  }
  const Figure figure = visualize_trajectories(frames, {.figure = quick()});
  CHECK(figure.drawn() == 3 * 11 + 3 + 3);
  const Picture picture = draw(figure);
  const auto at = [&](double x, double y) {
    const auto [px, py] = pixel(figure, x, y);
    return picture.at(px, py);
  };
  CHECK(at(10, 1) == rgb(series_color(1)));
  CHECK((at(2.5, 1) & 0xFF0000u) > (at(8.5, 1) & 0xFF0000u));  // fades in: less red (more blue ink) towards the end
  CHECK(visualize_trajectories(frames, {.max_paths = 2, .figure = quick()}).drawn() == 2 * 13);
  CHECK(draw(visualize_trajectories(std::vector<Matrix>{}, {.figure = quick()})).colors() > 3);
  frames.push_back(Matrix(4, 2));
  CHECK_THROWS_AS(visualize_trajectories(frames), UsageError);
}

TEST_CASE("loss curves: raw and mean, validation, a logarithmic axis, losses that are no numbers, and the empty run") {
  std::vector<double> loss;
  for (int i = 0; i < 1000; ++i) loss.push_back(1 + std::exp(-i / 100.0) + 0.2 * std::sin(1.7 * i));
  LossOptions options{.validation_steps = {500, 1000}, .validation_loss = {1.1, 1.05}, .figure = quick()};
  const Figure figure = visualize_loss(loss, options);
  CHECK(figure.drawn() == 1000 + 1000 + 2);
  check_drawn(figure);
  loss[10] = std::nan("");
  loss[20] = -1;
  options.log_y = true;
  CHECK(visualize_loss(loss, options).skipped() == 2);
  CHECK(draw(visualize_loss({}, {.figure = quick()})).colors() > 3);
  const std::vector<double> one{2};
  check_drawn(visualize_loss(one, {.figure = quick()}));
  options.steps = {1, 2};
  CHECK_THROWS_AS(visualize_loss(loss, options), UsageError);
  CHECK_THROWS_AS(visualize_loss(one, {.window = -1}), UsageError);
}

TEST_CASE("a long loss curve keeps its extremes and stays small") {
  std::vector<double> loss(200000, 1.0);
  loss[123456] = 50;
  const Figure figure = visualize_loss(loss, {.figure = quick()});
  CHECK(figure.encode("svg").size() < 400000);
  const auto [x, y] = pixel(figure, 123457, 49);
  CHECK(draw(figure).ink(x - 2, y - 2, x + 3, y + 3) > 0);
}

TEST_CASE("the moving mean passes through a straight line and holds a constant's value") {
  const std::vector<double> constant(500, 3.0);
  const Figure figure = visualize_loss(constant, {.window = 51, .figure = quick()});
  const Picture picture = draw(figure);
  for (const double step : {2.0, 250.0, 499.0}) {
    const auto [x, y] = pixel(figure, step, 3);
    CHECK(picture.at(x, y) == rgb(series_color(0)));
  }
}

TEST_CASE("errors per sigma: network, zero network and empirical optimum on logarithmic axes") {
  std::vector<double> sigma, error, zero, oracle;
  for (int i = 0; i < 10; ++i) {
    sigma.push_back(10 * std::pow(1e-3, i / 9.0));
    error.push_back(1e-3), zero.push_back(1), oracle.push_back(0.1 / sigma.back());
  }
  const Figure figure = visualize_sigma_error(sigma, error, {.zero_network = zero, .oracle = oracle, .figure = quick()});
  CHECK(figure.drawn() == 50);
  check_drawn(figure);
  const auto [x, y] = pixel(figure, sigma[4], 1e-3);
  CHECK(draw(figure).at(x, y) == rgb(series_color(0)));
  error[2] = 0;  // cannot stand on a logarithmic axis
  CHECK(visualize_sigma_error(sigma, error).skipped() == 2);
  error.pop_back();
  CHECK_THROWS_AS(visualize_sigma_error(sigma, error), UsageError);
}

TEST_CASE("histograms are densities: over all bars they have mass one, whole numbers get a bar each") {
  Matrix column(1000, 1);
  for (Index r = 0; r < 1000; ++r) column(r, 0) = static_cast<float>(r % 4);  // 0, 1, 2, 3, a quarter each
  const Figure figure = visualize_histograms(column, {.figure = quick()});
  CHECK(figure.drawn() == 4);
  const Picture picture = draw(figure);
  const auto inked = [&](double x, double y) {
    const auto [px, py] = pixel(figure, x, y);
    return picture.at(px, py) != 0xFFFFFF;
  };
  for (const double x : {0.0, 1.0, 2.0, 3.0}) {
    CHECK(inked(x, 0.24));
    CHECK(!inked(x, 0.2575));
  }
  CHECK(visualize_histograms(spread(5000, 1), {.bins = 17, .figure = quick()}).drawn() == 17);
}

TEST_CASE("tables: six columns at most in a scatter matrix, names kept, both sets drawn; one panel per column in histograms") {
  const Matrix data = spread(300, 8), samples = spread(100, 8);
  TableOptions options{.samples = samples, .title = "table"};
  for (int c = 0; c < 8; ++c) options.columns.push_back("column " + std::to_string(c));
  const Figure pairs = visualize_pairs(data, options);
  CHECK(pairs.options().rows == 6);
  CHECK(draw(pairs).colors() > 100);
  for (Index c = 0; c < 5; ++c) CHECK_THROWS_AS(pairs.axes_at(c, c + 1), UsageError);  // nothing above the diagonal
  CHECK(pairs.axes_at(5, 0).drawn() == 400);
  const Figure histograms = visualize_histograms(data, options);
  CHECK(histograms.options().columns == 3);
  for (Index c = 0; c < 8; ++c) CHECK(histograms.axes_at(c / 3, c % 3).drawn() > 10);
  CHECK(visualize_pairs(data, {.max_columns = 2, .max_points = 50}).axes_at(1, 0).drawn() == 50);
}

TEST_CASE("tables with constant columns, missing cells, one row or no rows are drawn") {
  Matrix data = spread(50, 3);
  for (Index r = 0; r < 50; ++r) data(r, 0) = 5, data(r, 1) = r % 2 ? kNaN : data(r, 1);
  const Figure figure = visualize_pairs(data);
  CHECK(figure.axes_at(1, 0).skipped() == 25);
  CHECK(draw(figure).colors() > 20);
  for (Index r = 0; r < 50; ++r) data(r, 2) = kNaN;
  CHECK(draw(visualize_pairs(data)).colors() > 20);
  CHECK(draw(visualize_pairs(spread(1, 2))).colors() > 5);
  CHECK(draw(visualize_pairs(Matrix(0, 2))).colors() > 3);
  CHECK(draw(visualize_histograms(Matrix(0, 2))).colors() > 3);
  CHECK(draw(visualize_pairs(spread(40, 1))).colors() > 5);
  Matrix huge(3, 1);  // whole numbers whose neighbours are no floats
  for (Index r = 0; r < 3; ++r) huge(r, 0) = 3e38F;
  CHECK(visualize_histograms(huge).drawn() > 1);
  // A wild outlier among samples must not make bars without number.
  Matrix wild = spread(50, 1);
  wild(0, 0) = 3e38F;
  CHECK(draw(visualize_histograms(spread(50, 1), {.samples = wild})).colors() > 5);
}

TEST_CASE("tables of wrong shape are refused") {
  const Matrix data = spread(10, 3), other = spread(10, 2);
  CHECK_THROWS_AS(visualize_pairs(data, {.columns = {"a"}}), UsageError);
  CHECK_THROWS_AS(visualize_pairs(data, {.samples = other}), UsageError);
  CHECK_THROWS_AS(visualize_pairs(Matrix(5, 0)), UsageError);
  CHECK_THROWS_AS(visualize_pairs(spread(10, 14), {.max_columns = 13}), UsageError);
  CHECK_THROWS_AS(visualize_histograms(spread(2, 65)), UsageError);
  CHECK_THROWS_AS(visualize_histograms(data, {.bins = -1}), UsageError);
  CHECK_THROWS_AS(visualize_histograms(data, {.max_points = 0}), UsageError);
}
