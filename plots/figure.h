// figure.h - a page with panels of axes, kept as a list of marks and drawn when it is saved or asked for its layout.
//
//   Figure figure({.width = 5, .height = 4});
//   Axes& axes = figure.axes(0, 0, {.title = "Training", .x_label = "step", .y_scale = Scale::log});
//   axes.line(steps, loss, {.label = "loss"});
//   figure.save("loss.pdf");                     // .png, .svg or .pdf
//
// Sizes of marks are in points (1/72 inch); positions in data units. Points that are not finite or beyond 1e300 (on a
// logarithmic axis also those that are not positive) are left out and counted: see skipped(). Titles, labels and names may hold
// ^{raised} and _{lowered} parts. The same figure has the same bytes each time it is saved, with the same Cairo and fonts.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tweedie/plots/color.h"
#include "tweedie/plots/contour.h"
#include "tweedie/plots/ticks.h"

namespace tweedie::plots {

namespace detail {
class Canvas;
struct AxesData;
struct Projection;
struct Rect;
}  // namespace detail

struct LineStyle {
  std::string label = {};           // in the legend when not empty
  std::optional<Color> color = {};  // absent: the next series colour
  double width = 1.5;
  bool dashed = false;
  double fade_from = 1;  // opacity at the line's start relative to its end
};

struct MarkerStyle {
  std::string label = {};
  std::optional<Color> color = {};
  double radius = 1.6;
  double opacity = 1;
  bool hollow = false;
};

struct BarStyle {
  std::string label = {};
  std::optional<Color> color = {};
  double opacity = 0.35;  // of the filling; the outline is opaque
};

struct ImageStyle {
  ColorMap map = ColorMap::viridis;
  std::optional<Limits> range = {};  // values at the colour map's ends; absent: the grid's finite values
};

/// What colour carries, as a strip beside the axes.
struct ColorBar {
  ColorMap map = ColorMap::viridis;
  Limits range = {};
  std::string label = {};
};

/// Vectors at the nodes of a grid: u, v (rows, columns), the components along x and y.
struct VectorGrid {
  Limits x = {}, y = {};
  Index columns = 0, rows = 0;
  std::vector<double> u = {}, v = {};
};

enum class ArrowLength { compressed, proportional, equal };  // compressed: as the square root of the magnitude

struct ArrowStyle {
  ColorMap map = ColorMap::viridis;
  std::optional<Limits> range = {};  // magnitudes at the colour map's ends; absent: [0, the largest]
  ArrowLength length = ArrowLength::compressed;
};

struct AxesOptions {
  std::string title = {}, x_label = {}, y_label = {};
  Scale x_scale = Scale::linear, y_scale = Scale::linear;
  std::optional<Limits> x_limits = {}, y_limits = {};  // absent: from the marks, with a margin
  bool equal_aspect = false;                           // one data unit is as long along y as along x
  bool x_tick_labels = true, y_tick_labels = true;
  bool y_ticks = true;
  bool grid_lines = false;
};

/// One panel. Marks are drawn in the order in which they were added. Every function throws UsageError for spans of unequal
/// length.
class TWEEDIE_API Axes {
 public:
  /// A line; a point that is left out breaks it.
  void line(std::span<const double> x, std::span<const double> y, const LineStyle& style = {});
  void scatter(std::span<const double> x, std::span<const double> y, const MarkerStyle& style = {});
  /// A histogram's outline: heights.size() bars between edges.size() = heights.size() + 1 rising edges.
  void bars(std::span<const double> edges, std::span<const double> heights, const BarStyle& style = {});
  /// Values by colour, bilinear between the nodes; a node that is not finite stays clear, -inf takes the lowest colour. Linear
  /// axes only.
  void image(const Grid& grid, const ImageStyle& style = {});
  /// Iso-lines at `levels`. Linear axes only.
  void contours(const Grid& grid, std::span<const double> levels, const LineStyle& style = {});
  /// Arrows centred on the nodes, coloured by magnitude. Linear axes only.
  void arrows(const VectorGrid& field, const ArrowStyle& style = {});
  /// A line across the whole panel at height y. Takes no part in the automatic limits.
  void horizontal_line(double y, const LineStyle& style = {});
  /// A note in a corner of the panel: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
  void note(const std::string& text, int corner = 1);
  void color_bar(const ColorBar& bar);

  /// Marks drawn and left out so far: points, nodes of grids and bars.
  Index drawn() const;
  Index skipped() const;

  explicit Axes(AxesOptions options);
  ~Axes();
  Axes(const Axes&) = delete;
  Axes& operator=(const Axes&) = delete;

 private:
  friend class Figure;
  std::unique_ptr<detail::AxesData> data_;
};

struct FigureOptions {
  double width = 5.2, height = 4.4;  // inches
  double dpi = 200;                  // of a PNG
  Index rows = 1, columns = 1;       // panels
  std::string title = {};            // above all panels
};

/// A panel's frame in points from the page's top left corner.
struct PanelArea {
  double left = 0, top = 0, width = 0, height = 0;
};

class TWEEDIE_API Figure {
 public:
  /// Throws UsageError for a size that is not positive and finite, or without panels.
  explicit Figure(FigureOptions options = {});
  ~Figure();
  Figure(Figure&&) noexcept;
  Figure& operator=(Figure&&) noexcept;

  /// The panel at (row, column); made anew with these options. Throws UsageError when there is no such place.
  Axes& axes(Index row, Index column, AxesOptions options = {});
  /// The panel made before at (row, column). Throws UsageError when there is none.
  Axes& axes_at(Index row, Index column) const;
  /// A legend of names and colours in the place of a panel (a pair plot's empty corner).
  void legend_at(Index row, Index column, std::vector<std::pair<std::string, Color>> entries);

  /// Writes the figure, whole or not at all. The extension chooses the format: .png, .svg or .pdf; any other throws UsageError.
  /// Throws UsageError when the page is too small for its labels, IoError when the file cannot be written.
  void save(const std::string& path) const;
  /// The file's bytes; `format` is "png", "svg" or "pdf".
  std::string encode(const std::string& format) const;

  /// Where save() puts the panel's frame, and a data point, in points from the page's top left corner (times dpi / 72: pixels).
  PanelArea area(Index row, Index column) const;
  std::pair<double, double> position(Index row, Index column, double x, double y) const;

  /// Over all panels.
  Index drawn() const;
  Index skipped() const;
  const FigureOptions& options() const { return options_; }

 private:
  struct Legend;
  std::vector<detail::Projection> layout(detail::Canvas& canvas) const;
  detail::Rect cell(std::size_t column) const;
  std::size_t slot(Index row, Index column, const char* caller) const;

  FigureOptions options_;
  std::vector<std::unique_ptr<Axes>> panels_;  // (rows, columns); empty places are null
  std::vector<std::unique_ptr<Legend>> legends_;
};

}  // namespace tweedie::plots
