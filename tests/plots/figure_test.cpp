// SPDX-License-Identifier: MIT
#include "tweedie/plots/figure.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <limits>
#include <string>

#include "plots/picture.h"

using namespace tweedie;
using namespace tweedie::plots;
using namespace tweedie::plots::test;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Figure small_figure() { return Figure({.width = 3, .height = 2.5, .dpi = 144}); }

Figure busy_figure() {
  Figure figure({.width = 6, .height = 3, .dpi = 100, .columns = 2, .title = "Both"});
  Axes& left = figure.axes(0, 0, {.title = "σ_{1}", .x_label = "x", .y_label = "y", .y_scale = Scale::log, .grid_lines = true});
  const std::vector<double> x{1, 2, 3, 4}, y{1, 10, 30, 1000};
  left.line(x, y, {.label = "line", .dashed = true});
  left.scatter(x, y, {.label = "dots"});
  Axes& right = figure.axes(0, 1, {.title = "image", .equal_aspect = true});
  right.image(Grid{{0, 1}, {0, 1}, 2, 2, {0, 1, 2, 3}});
  right.color_bar({.range = {0, 3}, .label = "value"});
  right.note("n = 4");
  return figure;
}

}  // namespace

TEST_CASE("a data point lies where the limits say, on linear and logarithmic axes") {
  Figure figure = small_figure();
  figure.axes(0, 0, {.x_label = "x", .x_scale = Scale::log, .x_limits = Limits{0.01, 100}, .y_limits = Limits{-1, 3}});
  const PanelArea area = figure.area(0, 0);
  CHECK(area.left > 0);
  CHECK(area.left + area.width < 3 * 72);
  CHECK(area.top + area.height < 2.5 * 72);
  const auto at = [&](double x, double y) { return figure.position(0, 0, x, y); };
  CHECK(at(0.01, -1).first == doctest::Approx(area.left));
  CHECK(at(0.01, -1).second == doctest::Approx(area.top + area.height));
  CHECK(at(100, 3).first == doctest::Approx(area.left + area.width));
  CHECK(at(100, 3).second == doctest::Approx(area.top));
  CHECK(at(0.1, 0).first == doctest::Approx(area.left + area.width / 4));
  CHECK(at(0.1, 0).second == doctest::Approx(area.top + area.height * 0.75));
}

TEST_CASE("markers, lines, bars and images are drawn at the pixels of their data") {
  Figure figure = small_figure();
  Axes& axes = figure.axes(0, 0, {.x_limits = Limits{0, 10}, .y_limits = Limits{0, 10}});
  const double x[] = {2}, y[] = {7};
  axes.scatter(x, y, {.color = Color{1, 0, 0}, .radius = 3});
  const double lx[] = {1, 9}, ly[] = {3, 3};
  axes.line(lx, ly, {.color = Color{0, 0, 1}, .width = 3});
  const double edges[] = {6, 8}, height[] = {2};
  axes.bars(edges, height, {.color = Color{0, 1, 0}, .opacity = 1});
  axes.horizontal_line(9, {.color = Color{1, 0, 1}, .width = 3});
  const Picture picture = draw(figure);
  CHECK(picture.width == 432);
  CHECK(picture.height == 360);
  const auto color = [&](double dx, double dy) {
    const auto [px, py] = pixel(figure, dx, dy);
    return picture.at(px, py);
  };
  CHECK(color(2, 7) == 0xFF0000);
  CHECK(color(5, 3) == 0x0000FF);
  CHECK(color(7, 1) == 0x00FF00);
  CHECK(color(4, 9) == 0xFF00FF);
  CHECK(color(5, 5) == 0xFFFFFF);
  CHECK(color(2, 6) == 0xFFFFFF);  // a tenth of the panel below the marker
}

TEST_CASE("an image's rows run upwards, its colours are the map's, clear where a value is no number") {
  Figure figure = small_figure();
  const Grid grid{{0, 2}, {0, 2}, 3, 3, {0, 0, 0, kNaN, kNaN, kNaN, -kInf, 5, 10}};
  Axes& axes = figure.axes(0, 0);
  axes.image(grid, {.map = ColorMap::viridis, .range = Limits{0, 10}});
  CHECK(axes.drawn() == 6);
  CHECK(axes.skipped() == 3);
  const Picture picture = draw(figure);
  const auto near = [&](double x, double y, Color wanted) {
    const auto [px, py] = pixel(figure, x, y);
    const std::uint32_t got = picture.at(px, py), want = rgb(wanted);
    for (int shift = 0; shift < 24; shift += 8) {
      // Bilinear: one node's colour a quarter of a cell away is at most a quarter of the way to the next.
      CHECK(std::abs(static_cast<int>(got >> shift & 255u) - static_cast<int>(want >> shift & 255u)) <= 16);
    }
  };
  near(1, 0.02, color_at(ColorMap::viridis, 0));
  near(1, 1, {1, 1, 1});
  near(1.97, 1.97, color_at(ColorMap::viridis, 1));
  near(1, 1.97, color_at(ColorMap::viridis, .5));
  near(0.03, 1.97, color_at(ColorMap::viridis, 0));
}

TEST_CASE("arrows point along the field, upwards for positive v, and take the colour of their magnitude") {
  Figure figure({.width = 3, .height = 3, .dpi = 200});
  VectorGrid field{{0, 1}, {0, 1}, 2, 2, {0, 0, 0, 0}, {0, 0, 0, 2}};  // only the node (1, 1) has a vector, (0, 2)
  figure.axes(0, 0, {.x_limits = Limits{-1, 2}, .y_limits = Limits{-1, 2}}).arrows(field);
  const Picture picture = draw(figure);
  const auto [x, tip] = pixel(figure, 1, 1.5);  // as long as a cell
  const auto [x2, tail] = pixel(figure, 1, 0.5);
  const auto [far, y2] = pixel(figure, 1.4, 1);
  const int half = (tail - tip) / 2, middle = (tip + tail) / 2;
  const std::uint32_t got = picture.at(x, middle), want = rgb(color_at(ColorMap::viridis, 1));
  for (int shift = 0; shift < 24; shift += 8) {  // the outline's rim may reach into the pixel
    CHECK(std::abs(static_cast<int>(got >> shift & 255u) - static_cast<int>(want >> shift & 255u)) <= 4);
  }
  // The head is on top: beyond the shaft, 1.5 pixels to either side of its axis, there is ink above the middle alone.
  CHECK(picture.ink(x + 4, middle - half, x + 20, middle) > 10);
  CHECK(picture.ink(x + 4, middle, x + 20, middle + half) == 0);
  CHECK(picture.ink(far - 1, y2 - 1, far + 2, y2 + 2) == 0);
  const auto [zx, zy] = pixel(figure, 0, 0);
  CHECK(picture.ink(zx - 5, zy - 5, zx + 5, zy + 5) == 0);  // a zero vector is no arrow
}

TEST_CASE("with equal aspect one unit is as long both ways") {
  Figure figure = small_figure();
  figure.axes(0, 0, {.x_limits = Limits{0, 4}, .y_limits = Limits{0, 1}, .equal_aspect = true});
  const auto a = figure.position(0, 0, 0, 0), b = figure.position(0, 0, 1, 1);
  CHECK(b.first - a.first == doctest::Approx(a.second - b.second));
}

TEST_CASE("panels of a grid have one size, line up and do not overlap") {
  Figure figure({.width = 6, .height = 5, .rows = 2, .columns = 3});
  for (Index r = 0; r < 2; ++r) {
    for (Index c = 0; c < 3; ++c) {
      Axes& axes = figure.axes(r, c, {.title = "t", .x_label = "x", .y_label = "y"});
      const double x[] = {0, 1}, y[] = {0, std::pow(10, c * 2)};
      axes.line(x, y, {.label = r == 0 ? "a long name for a line" : ""});
      if (c == 1) axes.color_bar({.range = {0, 1}});
    }
  }
  const PanelArea first = figure.area(0, 0);
  for (Index r = 0; r < 2; ++r) {
    for (Index c = 0; c < 3; ++c) {
      const PanelArea area = figure.area(r, c);
      CHECK(area.width == doctest::Approx(first.width));
      CHECK(area.height == doctest::Approx(first.height));
      CHECK(area.top == doctest::Approx(figure.area(r, 0).top));
      CHECK(area.left == doctest::Approx(figure.area(0, c).left));
      if (c > 0) CHECK(area.left > figure.area(r, c - 1).left + first.width + 10);
      if (r > 0) CHECK(area.top > figure.area(r - 1, c).top + first.height + 10);
    }
  }
}

TEST_CASE("points that cannot be drawn are left out and counted, and break a line") {
  Figure figure = small_figure();
  Axes& axes = figure.axes(0, 0, {.y_scale = Scale::log});
  const std::vector<double> x{1, 2, 3, kNaN, 5, 6, kInf, 1e301}, y{1, 0, 3, 4, -5, 6, 7, 8};
  axes.line(x, y, {.color = Color{1, 0, 0}, .width = 3});
  axes.scatter(x, y);
  CHECK(axes.drawn() == 6);
  CHECK(axes.skipped() == 10);
  CHECK(figure.skipped() == 10);
  CHECK(figure.drawn() == 6);
  Figure broken = small_figure();
  const std::vector<double> lx{0, 4, kNaN, 6, 10}, ly{1, 1, 1, 1, 1};
  broken.axes(0, 0).line(lx, ly, {.color = Color{1, 0, 0}, .width = 3});
  const Picture picture = draw(broken);
  const auto at = [&](double dx) {
    const auto [px, py] = pixel(broken, dx, 1);
    return picture.at(px, py);
  };
  CHECK(at(2) == 0xFF0000);
  CHECK(at(5) == 0xFFFFFF);
  CHECK(at(8) == 0xFF0000);
}

TEST_CASE("figures without points, with one point, and with constant data are drawn") {
  const std::vector<double> none, one{3}, same{2, 2, 2};
  for (const Scale scale : {Scale::linear, Scale::log}) {
    for (const auto* data : {&none, &one, &same}) {
      Figure figure = small_figure();
      Axes& axes = figure.axes(0, 0, {.x_scale = scale, .y_scale = scale});
      axes.line(*data, *data);
      axes.scatter(*data, *data, {.radius = 4});
      const Picture picture = draw(figure);
      CHECK((ink_in_panel(figure, picture) > 0) == !data->empty());
      if (!data->empty()) {
        const auto [x, y] = pixel(figure, data->front(), data->front());
        CHECK(picture.at(x, y) == rgb(series_color(1)));
      }
    }
  }
  Figure bars = small_figure();
  bars.axes(0, 0).bars(none, none);
  CHECK(ink_in_panel(bars, draw(bars)) == 0);
  Figure flat = small_figure();
  flat.axes(0, 0).image(Grid{{0, 1}, {0, 1}, 2, 2, {7, 7, 7, 7}});
  CHECK(ink_in_panel(flat, draw(flat)) > 1000);
  CHECK(draw(Figure({.width = 1, .height = 1, .dpi = 50})).ink(0, 0, 50, 50) == 0);  // no panels: a blank page
}

TEST_CASE("files have the format their name says, whole, and the same bytes every time") {
  TemporaryDirectory directory;
  const Figure figure = busy_figure();
  struct Kind {
    const char* name;
    const char* magic;
    std::size_t least, most;
  };
  for (const Kind& kind : {Kind{"a.png", "\x89PNG\r\n", 8000, 200000}, Kind{"a.svg", "<?xml", 8000, 200000},
                           Kind{"a.pdf", "%PDF-", 8000, 200000}, Kind{"B.PNG", "\x89PNG\r\n", 8000, 200000}}) {
    const std::string path = directory / kind.name;
    figure.save(path);
    const std::string bytes = slurp(path);
    CAPTURE(kind.name);
    CHECK(bytes.rfind(kind.magic, 0) == 0);
    CHECK(bytes.size() > kind.least);
    CHECK(bytes.size() < kind.most);
    figure.save(path);
    CHECK(slurp(path) == bytes);
    busy_figure().save(path);  // another object with the same content, after other figures
    CHECK(slurp(path) == bytes);
  }
  CHECK(slurp(directory / "a.pdf").find("CreationDate") == std::string::npos);
  CHECK(decode(slurp(directory / "a.png")).colors() > 100);
  Index entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory.path)) ++entries;
  CHECK(entries == 4);  // nothing temporary is left
}

TEST_CASE("errors say what is wrong") {
  TemporaryDirectory directory;
  const Figure figure = busy_figure();
  for (const char* name : {"a.jpg", "a", "a.", "png", "d.png/a"}) {
    const std::string path = directory / name;
    CAPTURE(path);
    try {
      figure.save(path);
      FAIL("saved");
    } catch (const UsageError& error) {
      const std::string message = error.what();
      CHECK(message.find(".png, .svg, .pdf") != std::string::npos);
      CHECK(message.find(path) != std::string::npos);
    }
  }
  CHECK_THROWS_AS(figure.save(directory / "missing/a.png"), IoError);
  CHECK_THROWS_AS(figure.encode("gif"), UsageError);
  CHECK_THROWS_AS(Figure({.width = 0}), UsageError);
  CHECK_THROWS_AS(Figure({.height = kNaN}), UsageError);
  CHECK_THROWS_AS(Figure({.dpi = kInf}), UsageError);
  CHECK_THROWS_AS(Figure({.rows = 0}), UsageError);
  CHECK_THROWS_AS(Figure({.width = 200, .dpi = 300}).encode("png"), UsageError);
  Figure tiny({.width = 0.6, .height = 0.5});
  tiny.axes(0, 0, {.title = "t", .x_label = "x"});
  CHECK_THROWS_AS(tiny.encode("png"), UsageError);

  Figure f = small_figure();
  CHECK_THROWS_AS(f.axes(1, 0), UsageError);
  CHECK_THROWS_AS(f.axes(0, -1), UsageError);
  CHECK_THROWS_AS(f.axes_at(0, 0), UsageError);
  CHECK_THROWS_AS(f.position(0, 0, 1, 1), UsageError);
  CHECK_THROWS_AS(f.axes(0, 0, {.x_limits = Limits{1, 1}}), UsageError);
  CHECK_THROWS_AS(f.axes(0, 0, {.x_scale = Scale::log, .x_limits = Limits{0, 1}}), UsageError);
  CHECK_THROWS_AS(f.axes(0, 0, {.y_scale = Scale::log, .equal_aspect = true}), UsageError);
  Axes& axes = f.axes(0, 0);
  const double two[] = {1, 2}, three[] = {1, 2, 3}, falling[] = {2, 1}, one[] = {1};
  CHECK_THROWS_AS(axes.line(two, three), UsageError);
  CHECK_THROWS_AS(axes.scatter(three, two), UsageError);
  CHECK_THROWS_AS(axes.bars(two, two), UsageError);
  CHECK_THROWS_AS(axes.bars(falling, one), UsageError);
  CHECK_THROWS_AS(axes.image(Grid{{0, 1}, {0, 1}, 2, 2, {1}}), UsageError);
  CHECK_THROWS_AS(axes.arrows(VectorGrid{{0, 1}, {0, 1}, 2, 2, {1, 2, 3, 4}, {1}}), UsageError);
  CHECK_THROWS_AS(axes.note("x", 4), UsageError);
  CHECK_THROWS_AS(axes.horizontal_line(kNaN), UsageError);
  CHECK_THROWS_AS(axes.color_bar({.range = {1, 1}}), UsageError);
  Axes& log = f.axes(0, 0, {.x_scale = Scale::log, .y_scale = Scale::log});
  CHECK_THROWS_AS(log.image(Grid{{0, 1}, {0, 1}, 2, 2, {1, 2, 3, 4}}), UsageError);
  CHECK_THROWS_AS(log.bars(two, one), UsageError);
  CHECK_THROWS_AS(log.horizontal_line(0), UsageError);
}

TEST_CASE("a figure that cannot be drawn leaves the file that was there") {
  TemporaryDirectory directory;
  const std::string path = directory / "a.png";
  busy_figure().save(path);
  const std::string before = slurp(path);
  Figure tiny({.width = 0.6, .height = 0.5});
  tiny.axes(0, 0, {.title = "t", .x_label = "x"});
  CHECK_THROWS_AS(tiny.save(path), UsageError);
  CHECK(slurp(path) == before);
}

TEST_CASE("names from hostile files are drawn, not trusted") {
  Figure figure = small_figure();
  std::string longest(5000, 'W');
  Axes& axes = figure.axes(0, 0, {.title = longest, .x_label = "bad \xFF\xFE utf-8 \x01", .y_label = "<script>&\"^{"});
  const double x[] = {1, 2};
  axes.line(x, x, {.label = longest});
  axes.note(longest);
  for (const char* format : {"png", "svg", "pdf"}) CHECK(!figure.encode(format).empty());
  CHECK(figure.encode("svg").find("<script>") == std::string::npos);
}

TEST_CASE("a legend in an empty place shows its colours") {
  Figure figure({.width = 4, .height = 2, .dpi = 144, .columns = 2});
  figure.axes(0, 0);
  figure.legend_at(0, 1, {{"one", Color{1, 0, 0}}, {"two", Color{0, 0, 1}}});
  const Picture picture = draw(figure);
  int red = 0, blue = 0;
  for (const std::uint32_t p : picture.pixels) {
    red += p == 0xFF0000;
    blue += p == 0x0000FF;
  }
  CHECK(red > 20);
  CHECK(blue > 20);
}

// Run by the test below in a process that sees no fonts, since fonts are looked up once per process.
TEST_CASE("child: a figure without fonts" * doctest::skip(std::getenv("TWEEDIE_NO_FONTS") == nullptr)) {
  const Picture picture = draw(busy_figure());
  CHECK(picture.colors() > 100);
  const PanelArea area = busy_figure().area(0, 0);
  const double scale = 100 / 72.0;
  CHECK(picture.ink(0, static_cast<int>(area.top * scale), static_cast<int>((area.left - 5) * scale), picture.height) >
        50);  // labels
  CHECK(busy_figure().encode("pdf").size() > 3000);
}

TEST_CASE("without any font installed figures still carry their labels") {
  TemporaryDirectory directory;
  const std::string conf = directory / "fonts.conf", root = directory.path.string();
  std::ofstream(conf) << "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>" << root
                      << "</dir><cachedir>" << root << "</cachedir></fontconfig>";
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "FONTCONFIG_FILE='" + conf + "' TWEEDIE_NO_FONTS=1 '" + self +
                              "' --test-case='child: a figure without fonts' > '" + (directory / "log") + "' 2>&1";
  const int status = std::system(command.c_str());
  CHECK_MESSAGE(status == 0, slurp(directory / "log"));
}
