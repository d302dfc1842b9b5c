// axes_data.h - what a panel keeps until it is drawn, and how data become places on the page.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "tweedie/plots/detail/canvas.h"
#include "tweedie/plots/figure.h"

namespace tweedie::plots::detail {

/// Data units to points on the page.
struct Projection {
  Rect frame = {};
  Limits x = {}, y = {};
  Scale x_scale = Scale::linear, y_scale = Scale::linear;

  Point operator()(double px, double py) const {
    return {frame.x + frame.width * fraction(px, x, x_scale), frame.bottom() - frame.height * fraction(py, y, y_scale)};
  }
  static double fraction(double v, Limits limits, Scale scale) {
    if (scale == Scale::log) return std::log(v / limits.lo) / std::log(limits.hi / limits.lo);
    return (v - limits.lo) / (limits.hi - limits.lo);
  }
};

enum class Swatch { line, dashed, marker, ring, patch };

struct LegendEntry {
  std::string label;
  Color color;
  Swatch swatch;
};

/// The hull of the values seen so far.
struct Hull {
  Limits limits{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  bool tight = false;      // the limits are wanted as they are, without a margin
  bool from_zero = false;  // bars stand on the lower limit when none is negative
  void add(double v) {
    limits.lo = std::min(limits.lo, v);
    limits.hi = std::max(limits.hi, v);
  }
};

struct AxesData {
  AxesOptions options;
  std::vector<std::function<void(Canvas&, const Projection&)>> marks = {};
  std::vector<LegendEntry> legend = {};
  std::optional<ColorBar> bar = {};
  Hull x = {}, y = {};
  Index series = 0, drawn = 0, skipped = 0;

  bool usable(double px, double py) const {
    // Margins and ratios must stay within double's range.
    const auto fits = [](double v, Scale scale) { return std::abs(v) <= 1e300 && (scale == Scale::linear || v >= 1e-300); };
    return fits(px, options.x_scale) && fits(py, options.y_scale);
  }
  Limits x_limits() const { return limits(options.x_limits, x, options.x_scale); }
  Limits y_limits() const { return limits(options.y_limits, y, options.y_scale); }
  Color color_of(const std::optional<Color>& wanted) { return wanted ? *wanted : series_color(series++); }

 private:
  static Limits limits(const std::optional<Limits>& wanted, const Hull& hull, Scale scale) {
    if (wanted) return *wanted;
    if (hull.tight && hull.limits.lo < hull.limits.hi) return hull.limits;
    const Limits wide = padded(hull.limits, scale);
    return hull.from_zero && hull.limits.lo == 0 ? Limits{0, wide.hi} : wide;
  }
};

}  // namespace tweedie::plots::detail
