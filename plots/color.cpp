// SPDX-License-Identifier: MIT
#include "tweedie/plots/color.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace tweedie::plots {
namespace {

// Every 17th of viridis' 256 published values.
constexpr int kKnots = 16;
constexpr std::array<std::array<double, 3>, kKnots> kViridis{{{.267004, .004874, .329415},
                                                              {.282656, .100196, .422160},
                                                              {.277134, .185228, .489898},
                                                              {.253935, .265254, .529983},
                                                              {.221989, .339161, .548752},
                                                              {.190631, .407061, .556089},
                                                              {.163625, .471133, .558148},
                                                              {.139147, .533812, .555298},
                                                              {.120565, .596422, .543611},
                                                              {.134692, .658636, .517649},
                                                              {.208030, .718701, .472873},
                                                              {.327796, .773980, .406640},
                                                              {.477504, .821444, .318195},
                                                              {.647257, .858400, .209861},
                                                              {.824940, .884720, .106217},
                                                              {.993248, .906157, .143936}}};

// The cubic through knots i and i + 1 whose slopes are those of the parabolas through neighbouring knots (Catmull-Rom).
double viridis_channel(std::size_t channel, double t) {
  const double position = t * (kKnots - 1);
  const int i = std::min(static_cast<int>(position), kKnots - 2);
  const double u = position - i;
  const auto knot = [&](int k) {
    if (k < 0) return 2 * kViridis[0][channel] - kViridis[1][channel];
    if (k >= kKnots) return 2 * kViridis[kKnots - 1][channel] - kViridis[kKnots - 2][channel];
    return kViridis[static_cast<std::size_t>(k)][channel];
  };
  const double p0 = knot(i - 1), p1 = knot(i), p2 = knot(i + 1), p3 = knot(i + 2);
  const double value = p1 + 0.5 * u * ((p2 - p0) + u * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + u * (3 * (p1 - p2) + p3 - p0)));
  return std::clamp(value, 0.0, 1.0);
}

double gamma_encoded(double linear) {
  const double v = std::clamp(linear, 0.0, 1.0);
  return v <= 0.0031308 ? 12.92 * v : 1.055 * std::pow(v, 1 / 2.4) - 0.055;
}

// Oklab to sRGB [B. Ottosson, "A perceptual color space for image processing", 2020].
Color from_oklab(double lightness, double a, double b) {
  const auto cube = [](double v) { return v * v * v; };
  const double l = cube(lightness + 0.3963377774 * a + 0.2158037573 * b);
  const double m = cube(lightness - 0.1055613458 * a - 0.0638541728 * b);
  const double s = cube(lightness - 0.0894841775 * a - 1.2914855480 * b);
  return {gamma_encoded(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          gamma_encoded(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          gamma_encoded(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

constexpr std::array<Color, 7> kSeries{{{0, .447, .698},     // blue
                                        {.835, .369, 0},     // vermilion
                                        {0, .620, .451},     // bluish green
                                        {.800, .475, .655},  // reddish purple
                                        {.902, .624, 0},     // orange
                                        {.337, .706, .914},  // sky blue
                                        {.25, .25, .25}}};   // dark grey

}  // namespace

Color color_at(ColorMap map, double t) {
  if (std::isnan(t)) return {0, 0, 0, 0};
  t = std::clamp(t, 0.0, 1.0);
  if (map == ColorMap::viridis) return {viridis_channel(0, t), viridis_channel(1, t), viridis_channel(2, t)};
  return from_oklab(1 - 0.33 * t, -0.016 * t, -0.050 * t);
}

Color series_color(Index i) {
  const auto count = static_cast<Index>(kSeries.size());
  return kSeries[static_cast<std::size_t>(((i % count) + count) % count)];
}

}  // namespace tweedie::plots
