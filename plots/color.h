// color.h - colours, two perceptual colour maps and a palette that colour-blind readers can tell apart.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/buffer.h"

namespace tweedie::plots {

/// sRGB and opacity, each in [0, 1].
struct Color {
  double r = 0, g = 0, b = 0, a = 1;
  Color with_alpha(double alpha) const { return {r, g, b, alpha}; }
  friend bool operator==(const Color&, const Color&) = default;
};

/// viridis: the sequential map of Nathaniel Smith, Stefan van der Walt and Eric Firing (values published under CC0),
/// interpolated from every 17th: within half an 8-bit step of theirs, .017 in blue near the yellow end.
/// mist: ours, for densities behind other marks: white to a muted slate blue, straight in Oklab, lightness 1 to .67.
enum class ColorMap { viridis, mist };

/// The colour at t in [0, 1]; t is clamped. A t that is no number is transparent.
TWEEDIE_API Color color_at(ColorMap map, double t);

/// Series colours in the order of use [Okabe & Ito, Color Universal Design, 2008]; i is taken modulo their number.
TWEEDIE_API Color series_color(Index i);

inline constexpr Color kInk{0.13, 0.14, 0.16};        // text
inline constexpr Color kFrame{0.35, 0.37, 0.40};      // frames and ticks
inline constexpr Color kGridLine{0.90, 0.91, 0.92};   // grid lines
inline constexpr Color kReference{0.45, 0.47, 0.50};  // reference lines and contours

}  // namespace tweedie::plots
