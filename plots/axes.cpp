// SPDX-License-Identifier: MIT
#include <cmath>
#include <utility>

#include "tweedie/plots/detail/axes_data.h"

namespace tweedie::plots {

using detail::AxesData;
using detail::Canvas;
using detail::Point;
using detail::Projection;
using detail::Rect;
using detail::Swatch;

namespace {

constexpr int kFadeSteps = 24;

struct Points {
  std::vector<double> x, y;
};

void check_lengths(const char* what, std::size_t x, std::size_t y) {
  check(x == y, what, ": x has ", x, " values, y has ", y, "; they must be as many");
}

void check_linear(const char* what, const AxesOptions& options) {
  check(options.x_scale == Scale::linear && options.y_scale == Scale::linear, what,
        ": a grid is drawn on linear axes only; set x_scale and y_scale to Scale::linear");
}

void check_values(const char* what, Index columns, Index rows, std::size_t values) {
  check(columns >= 2 && rows >= 2 && static_cast<Index>(values) == columns * rows, what, ": ", values, " values for ", rows,
        " x ", columns, " nodes; at least 2 x 2 nodes and one value for each are needed");
}

// Keeps what can be drawn; a line keeps a NaN in the place of what cannot, as a gap.
Points keep(AxesData& data, std::span<const double> x, std::span<const double> y, bool gaps) {
  Points kept;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (data.usable(x[i], y[i])) {
      kept.x.push_back(x[i]);
      kept.y.push_back(y[i]);
      data.x.add(x[i]);
      data.y.add(y[i]);
      ++data.drawn;
    } else {
      if (gaps && !kept.x.empty() && !std::isnan(kept.x.back())) {
        kept.x.push_back(std::nan(""));
        kept.y.push_back(std::nan(""));
      }
      ++data.skipped;
    }
  }
  return kept;
}

void add_legend(AxesData& data, const std::string& label, Color color, Swatch swatch) {
  if (!label.empty()) data.legend.push_back({label, color, swatch});
}

std::vector<double> dashes(bool dashed) { return dashed ? std::vector<double>{4, 2.5} : std::vector<double>{}; }

void draw_faded(Canvas& canvas, std::span<const Point> points, Color color, double width, double from) {
  const auto count = static_cast<Index>(points.size());
  const Index steps = std::min<Index>(kFadeSteps, count - 1);
  for (Index s = 0; s < steps; ++s) {
    const Index begin = s * (count - 1) / steps, end = (s + 1) * (count - 1) / steps;
    const double along = steps > 1 ? static_cast<double>(s) / static_cast<double>(steps - 1) : 1;
    canvas.polyline(points.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin + 1)),
                    color.with_alpha(color.a * (from + (1 - from) * along)), width, false, {}, false);
  }
}

void draw_stretch(Canvas& canvas, const std::vector<Point>& points, Color color, const LineStyle& style) {
  if (points.size() == 1) return canvas.disc(points[0], style.width / 2, color);
  if (points.size() < 2) return;
  if (style.fade_from < 1) {
    draw_faded(canvas, points, color, style.width, style.fade_from);
  } else {
    canvas.polyline(points, color, style.width, false, dashes(style.dashed));
  }
}

std::uint32_t premultiplied(Color color) {
  const auto byte = [](double v) { return static_cast<std::uint32_t>(std::lround(255 * v)); };
  return byte(color.a) << 24 | byte(color.r * color.a) << 16 | byte(color.g * color.a) << 8 | byte(color.b * color.a);
}

Limits finite_range(std::span<const double> values) {
  detail::Hull hull;
  for (const double v : values) {
    if (std::isfinite(v)) hull.add(v);
  }
  if (!(hull.limits.lo <= hull.limits.hi)) return {0, 1};
  return hull.limits.lo < hull.limits.hi ? hull.limits : padded(hull.limits, Scale::linear);
}

// A shaft and a head in one outline, centred on `middle` and pointing along the unit vector `along`.
void draw_arrow(Canvas& canvas, Point middle, Point along, double length, Color color) {
  const double head = std::min(0.55 * length, 4.6), half_head = 0.42 * head, half_shaft = std::min(0.55, 0.13 * head);
  const auto at = [&](double forward, double aside) {
    return Point{middle.x + forward * along.x - aside * along.y, middle.y + forward * along.y + aside * along.x};
  };
  const double tip = length / 2, neck = tip - 0.82 * head, barb = tip - head;
  const Point outline[] = {at(-tip, half_shaft), at(neck, half_shaft),  at(barb, half_head),  at(tip, 0),
                           at(barb, -half_head), at(neck, -half_shaft), at(-tip, -half_shaft)};
  canvas.polygon(outline, color);
  canvas.polyline(outline, kInk.with_alpha(0.45), 0.25, true);  // keeps light arrows visible on white
}

double arrow_length(ArrowLength kind, double relative) {
  switch (kind) {
    case ArrowLength::proportional:
      return relative;
    case ArrowLength::equal:
      return relative > 0 ? 0.85 : 0;
    case ArrowLength::compressed:
      break;
  }
  return std::sqrt(relative);
}

}  // namespace

Axes::Axes(AxesOptions options) : data_(new AxesData{std::move(options)}) {
  const auto check_limits = [](const char* axis, const std::optional<Limits>& limits, Scale scale) {
    if (!limits) return;
    check(limits->lo < limits->hi && std::isfinite(limits->hi - limits->lo), "axes: ", axis, " limits [", limits->lo, ", ",
          limits->hi, "] are empty or not finite; give lo < hi");
    check(scale == Scale::linear || limits->lo > 0, "axes: ", axis, " is logarithmic and starts at ", limits->lo,
          "; give positive limits");
  };
  check_limits("x", data_->options.x_limits, data_->options.x_scale);
  check_limits("y", data_->options.y_limits, data_->options.y_scale);
  check(!data_->options.equal_aspect || (data_->options.x_scale == Scale::linear && data_->options.y_scale == Scale::linear),
        "axes: equal_aspect needs linear axes");
}

Axes::~Axes() = default;
Index Axes::drawn() const { return data_->drawn; }
Index Axes::skipped() const { return data_->skipped; }

void Axes::line(std::span<const double> x, std::span<const double> y, const LineStyle& style) {
  check_lengths("line", x.size(), y.size());
  const Color color = data_->color_of(style.color);
  add_legend(*data_, style.label, color, style.dashed ? Swatch::dashed : Swatch::line);
  data_->marks.push_back([points = keep(*data_, x, y, true), color, style](Canvas& canvas, const Projection& project) {
    std::vector<Point> stretch;
    for (std::size_t i = 0; i < points.x.size(); ++i) {
      if (!std::isnan(points.x[i])) {
        stretch.push_back(project(points.x[i], points.y[i]));
        continue;
      }
      draw_stretch(canvas, stretch, color, style);
      stretch.clear();
    }
    draw_stretch(canvas, stretch, color, style);
  });
}

void Axes::scatter(std::span<const double> x, std::span<const double> y, const MarkerStyle& style) {
  check_lengths("scatter", x.size(), y.size());
  const Color color = data_->color_of(style.color);
  add_legend(*data_, style.label, color, style.hollow ? Swatch::ring : Swatch::marker);
  data_->marks.push_back([points = keep(*data_, x, y, false), color, style](Canvas& canvas, const Projection& project) {
    const Color ink = color.with_alpha(color.a * style.opacity);
    for (std::size_t i = 0; i < points.x.size(); ++i) {
      const Point at = project(points.x[i], points.y[i]);
      if (style.hollow) {
        canvas.ring(at, style.radius, ink, 0.9);
      } else {
        canvas.disc(at, style.radius, ink);
      }
    }
  });
}

void Axes::bars(std::span<const double> edges, std::span<const double> heights, const BarStyle& style) {
  check(heights.empty() ? edges.size() <= 1 : edges.size() == heights.size() + 1, "bars: ", edges.size(), " edges for ",
        heights.size(), " bars; one edge more than bars is needed");
  check(data_->options.y_scale == Scale::linear, "bars: bars stand on zero, which a logarithmic y axis has not");
  const Color color = data_->color_of(style.color);
  add_legend(*data_, style.label, color, Swatch::patch);
  for (std::size_t i = 0; i < edges.size(); ++i) {
    check(std::isfinite(edges[i]) && (i == 0 || edges[i] > edges[i - 1]), "bars: edge ", i, " is ", edges[i],
          "; edges must be finite and rise");
    data_->x.add(edges[i]);
  }
  std::vector<double> kept(heights.begin(), heights.end());
  for (double& height : kept) {
    const bool usable = std::isfinite(height);
    (usable ? data_->drawn : data_->skipped)++;
    if (!usable) height = 0;
    data_->y.add(height);
  }
  if (!kept.empty()) data_->y.add(0);
  data_->y.from_zero = true;
  data_->marks.push_back(
      [x = std::vector<double>(edges.begin(), edges.end()), kept, color, style](Canvas& canvas, const Projection& project) {
        if (kept.empty()) return;
        std::vector<Point> outline{project(x.front(), 0)};
        for (std::size_t i = 0; i < kept.size(); ++i) {
          outline.push_back(project(x[i], kept[i]));
          outline.push_back(project(x[i + 1], kept[i]));
        }
        outline.push_back(project(x.back(), 0));
        canvas.polygon(outline, color.with_alpha(style.opacity));
        canvas.polyline(outline, color, 1);
      });
}

void Axes::image(const Grid& grid, const ImageStyle& style) {
  check_linear("image", data_->options);
  check_values("image", grid.columns, grid.rows, grid.values.size());
  const Limits range = style.range ? *style.range : finite_range(grid.values);
  check(range.lo < range.hi, "image: the range [", range.lo, ", ", range.hi, "] is empty");
  std::vector<std::uint32_t> pixels;
  pixels.reserve(grid.values.size());
  for (Index r = grid.rows - 1; r >= 0; --r) {
    for (Index c = 0; c < grid.columns; ++c) {
      const double v = grid.at(r, c);
      const bool usable = std::isfinite(v) || v == -std::numeric_limits<double>::infinity();
      (usable ? data_->drawn : data_->skipped)++;
      pixels.push_back(premultiplied(color_at(style.map, usable ? (v - range.lo) / (range.hi - range.lo) : std::nan(""))));
    }
  }
  for (const double v : {grid.x.lo, grid.x.hi}) data_->x.add(v);
  for (const double v : {grid.y.lo, grid.y.hi}) data_->y.add(v);
  data_->x.tight = data_->y.tight = true;
  data_->marks.push_back([pixels = std::move(pixels), x = grid.x, y = grid.y, columns = grid.columns, rows = grid.rows](
                             Canvas& canvas, const Projection& project) {
    // A pixel's centre lies on its node: the picture reaches half a pixel past the outermost nodes.
    const Point low = project(x.lo, y.lo), high = project(x.hi, y.hi);
    const double width = (high.x - low.x) / static_cast<double>(columns - 1),
                 height = (low.y - high.y) / static_cast<double>(rows - 1);
    canvas.push_clip({low.x, high.y, high.x - low.x, low.y - high.y});
    canvas.image(
        {low.x - width / 2, high.y - height / 2, width * static_cast<double>(columns), height * static_cast<double>(rows)},
        pixels, columns, rows);
    canvas.pop_clip();
  });
}

void Axes::contours(const Grid& grid, std::span<const double> levels, const LineStyle& style) {
  check_linear("contours", data_->options);
  check_values("contours", grid.columns, grid.rows, grid.values.size());
  const Color color = style.color ? *style.color : kReference;
  add_legend(*data_, style.label, color, style.dashed ? Swatch::dashed : Swatch::line);
  std::vector<Polyline> lines;
  for (const double level : levels) {
    for (Polyline& line : contour_lines(grid, level)) lines.push_back(std::move(line));
  }
  for (const double v : {grid.x.lo, grid.x.hi}) data_->x.add(v);
  for (const double v : {grid.y.lo, grid.y.hi}) data_->y.add(v);
  data_->x.tight = data_->y.tight = true;
  data_->marks.push_back([lines = std::move(lines), color, style](Canvas& canvas, const Projection& project) {
    std::vector<Point> points;
    for (const Polyline& line : lines) {
      points.clear();
      for (std::size_t i = 0; i < line.x.size(); ++i) points.push_back(project(line.x[i], line.y[i]));
      canvas.polyline(points, color, style.width, line.closed, dashes(style.dashed));
    }
  });
}

void Axes::arrows(const VectorGrid& field, const ArrowStyle& style) {
  check_linear("arrows", data_->options);
  check_values("arrows", field.columns, field.rows, field.u.size());
  check_lengths("arrows", field.u.size(), field.v.size());
  double largest = 0;
  for (std::size_t i = 0; i < field.u.size(); ++i) {
    const double magnitude = std::hypot(field.u[i], field.v[i]);
    (std::isfinite(magnitude) ? data_->drawn : data_->skipped)++;
    if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
  }
  for (const double v : {field.x.lo, field.x.hi}) data_->x.add(v);
  for (const double v : {field.y.lo, field.y.hi}) data_->y.add(v);
  const Limits range = style.range ? *style.range : Limits{0, largest > 0 ? largest : 1};
  check(range.lo < range.hi, "arrows: the range [", range.lo, ", ", range.hi, "] is empty");
  data_->marks.push_back([field, style, range](Canvas& canvas, const Projection& project) {
    const Grid nodes{field.x, field.y, field.columns, field.rows, {}};
    const Point first = project(nodes.x_at(0), nodes.y_at(0)), next = project(nodes.x_at(1), nodes.y_at(1));
    const double cell = std::min(next.x - first.x, first.y - next.y);
    const double x_unit = (next.x - first.x) / (nodes.x_at(1) - nodes.x_at(0));
    const double y_unit = (next.y - first.y) / (nodes.y_at(1) - nodes.y_at(0));
    for (Index r = 0; r < field.rows; ++r) {
      for (Index c = 0; c < field.columns; ++c) {
        const auto i = static_cast<std::size_t>(r * field.columns + c);
        const double magnitude = std::hypot(field.u[i], field.v[i]), dx = field.u[i] * x_unit, dy = field.v[i] * y_unit;
        const double on_page = std::hypot(dx, dy);
        if (!std::isfinite(magnitude) || on_page == 0) continue;
        const double relative = std::min(1.0, magnitude / range.hi);
        draw_arrow(canvas, project(nodes.x_at(c), nodes.y_at(r)), {dx / on_page, dy / on_page},
                   cell * arrow_length(style.length, relative),
                   color_at(style.map, (magnitude - range.lo) / (range.hi - range.lo)));
      }
    }
  });
}

void Axes::horizontal_line(double y, const LineStyle& style) {
  check(data_->usable(1, y), "horizontal_line: y is ", y, ", which the axis cannot show");
  const Color color = style.color ? *style.color : kReference;
  add_legend(*data_, style.label, color, style.dashed ? Swatch::dashed : Swatch::line);
  data_->marks.push_back([y, color, style](Canvas& canvas, const Projection& project) {
    const double at = project(project.x.lo, y).y;
    const Point ends[] = {{project.frame.x, at}, {project.frame.right(), at}};
    canvas.polyline(ends, color, style.width, false, dashes(style.dashed));
  });
}

void Axes::note(const std::string& text, int corner) {
  check(corner >= 0 && corner <= 3, "note: corner ", corner, " is none of 0 (top left), 1, 2, 3 (bottom right)");
  data_->marks.push_back([text, corner](Canvas& canvas, const Projection& project) {
    const bool right = corner % 2 == 1, bottom = corner >= 2;
    const Rect& frame = project.frame;
    canvas.text(canvas.fitted(text, 7.5, frame.width - 8),
                {right ? frame.right() - 4 : frame.x + 4, bottom ? frame.bottom() - 4 : frame.y + 4},
                {.size = 7.5,
                 .color = kFrame,
                 .across = right ? detail::Align::end : detail::Align::start,
                 .upright = bottom ? detail::Align::start : detail::Align::end});
  });
}

void Axes::color_bar(const ColorBar& bar) {
  check(bar.range.lo < bar.range.hi && std::isfinite(bar.range.hi - bar.range.lo), "color_bar: the range [", bar.range.lo, ", ",
        bar.range.hi, "] is empty or not finite");
  data_->bar = bar;
}

}  // namespace tweedie::plots
