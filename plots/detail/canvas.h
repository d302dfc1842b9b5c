// canvas.h - a page to draw on, in points (1/72 inch) from the top left corner; the one place that speaks to Cairo.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/plots/color.h"

struct _cairo;
struct _cairo_surface;

namespace tweedie::plots::detail {

struct Point {
  double x = 0, y = 0;
};

struct Rect {
  double x = 0, y = 0, width = 0, height = 0;
  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

enum class Format { png, svg, pdf };
enum class Align { start, middle, end };

struct TextStyle {
  double size = 9;
  bool bold = false;
  Color color = kInk;
  Align across = Align::start;   // along the line: start, middle or end of the text at the anchor
  Align upright = Align::start;  // start: baseline, middle: half the height of a digit, end: top of a capital
  bool vertical = false;         // turned a quarter to the left, about the anchor
};

class Canvas {
 public:
  /// A page of width x height points; `dpi` sets a PNG's pixels. Throws UsageError for a page that cannot be made.
  Canvas(Format format, double width, double height, double dpi);
  ~Canvas();
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  void fill_rect(Rect rect, Color color);
  void stroke_rect(Rect rect, Color color, double width);
  void polyline(std::span<const Point> points, Color color, double width, bool closed = false,
                std::span<const double> dashes = {}, bool round_ends = true);
  void polygon(std::span<const Point> points, Color color);
  void disc(Point centre, double radius, Color color);
  void ring(Point centre, double radius, Color color, double width);
  /// Premultiplied 0xAARRGGBB pixels (rows, columns), first row on top, stretched over `rect` with bilinear interpolation.
  void image(Rect rect, std::span<const std::uint32_t> pixels, Index columns, Index rows);
  void push_clip(Rect rect);
  void pop_clip();

  /// Text with ^{...} raised and _{...} lowered. Bytes that are no UTF-8 are shown as U+FFFD.
  void text(std::string_view text, Point anchor, const TextStyle& style);
  double text_width(std::string_view text, double size, bool bold = false);
  /// `text` itself, or its beginning with an ellipsis, so that it is at most `width` wide.
  std::string fitted(std::string_view text, double size, double width, bool bold = false);

  /// Closes the page and returns the file's bytes.
  std::string finish();

 private:
  double show_runs(std::string_view text, double size, bool bold, bool draw);

  Format format_;
  std::string bytes_;
  _cairo_surface* surface_ = nullptr;
  _cairo* cairo_ = nullptr;
};

}  // namespace tweedie::plots::detail
