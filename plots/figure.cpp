// Layout: each column of panels gets the widest margins that its panels need, each row the highest; what is left is shared
// equally, so that frames line up and have one size. SPDX-License-Identifier: MIT
#include "tweedie/plots/figure.h"

#include <cmath>
#include <utility>

#include "tweedie/core/files/atomic_file.h"
#include "tweedie/plots/detail/axes_data.h"

namespace tweedie::plots {

using detail::Align;
using detail::AxesData;
using detail::Canvas;
using detail::LegendEntry;
using detail::Point;
using detail::Projection;
using detail::Rect;
using detail::Swatch;

namespace {

// Points.
constexpr double kTickText = 8, kLabelText = 9.5, kTitleText = 10.5, kPageTitleText = 12, kLegendText = 8.5;
constexpr double kTickLength = 3.2, kMinorTickLength = 1.8, kGap = 4, kPageMargin = 8, kPanelGap = 6;
constexpr double kLegendRow = 13, kSwatch = 16, kBarGap = 9, kBarWidth = 9, kLine = 0.8;
constexpr double kLeastPanel = 24;

struct Margins {
  double left = 0, right = 0, top = 0, bottom = 0;
};

Index tick_count(double length, double per_tick) { return std::clamp<Index>(static_cast<Index>(length / per_tick), 3, 9); }

double widest(Canvas& canvas, const std::vector<Tick>& all) {
  double width = 0;
  for (const Tick& tick : all) width = std::max(width, canvas.text_width(tick.label, kTickText));
  return width;
}

double swatch_width(const LegendEntry& entry) {
  return entry.swatch == Swatch::marker || entry.swatch == Swatch::ring ? kSwatch / 2 : kSwatch;
}

double entry_width(Canvas& canvas, const LegendEntry& entry) {
  return swatch_width(entry) + kGap + canvas.text_width(entry.label, kLegendText) + 12;
}

// The entries in rows that fit `width`.
std::vector<std::vector<LegendEntry>> legend_rows(Canvas& canvas, const std::vector<LegendEntry>& entries, double width) {
  std::vector<std::vector<LegendEntry>> rows;
  double used = 0;
  for (LegendEntry entry : entries) {
    entry.label = canvas.fitted(entry.label, kLegendText, width - kSwatch - kGap);
    const double needed = entry_width(canvas, entry);
    if (rows.empty() || used + needed - 12 > width) {
      rows.emplace_back();
      used = 0;
    }
    rows.back().push_back(std::move(entry));
    used += needed;
  }
  return rows;
}

void draw_entry(Canvas& canvas, const LegendEntry& entry, Point at) {
  const Point ends[] = {{at.x, at.y}, {at.x + kSwatch, at.y}};
  const Point middle{at.x + swatch_width(entry) / 2, at.y};
  const double dashed[] = {4, 2.5};
  switch (entry.swatch) {
    case Swatch::line:
      canvas.polyline(ends, entry.color, 1.6);
      break;
    case Swatch::dashed:
      canvas.polyline(ends, entry.color, 1.6, false, dashed);
      break;
    case Swatch::marker:
      canvas.disc(middle, 2.6, entry.color);
      break;
    case Swatch::ring:
      canvas.ring(middle, 2.4, entry.color, 1);
      break;
    case Swatch::patch:
      canvas.fill_rect({at.x + 2, at.y - 3.5, kSwatch - 4, 7}, entry.color.with_alpha(0.35));
      canvas.stroke_rect({at.x + 2, at.y - 3.5, kSwatch - 4, 7}, entry.color, 1);
      break;
  }
  canvas.text(entry.label, {at.x + swatch_width(entry) + kGap, at.y}, {.size = kLegendText, .upright = Align::middle});
}

struct PanelTicks {
  std::vector<Tick> x, y, bar;
};

PanelTicks panel_ticks(const AxesData& data, double width, double height) {
  // Wide labels ("1.234×10^5") need room; three characters are assumed here and the labels thinned below when they touch.
  Index x_count = tick_count(width, 30), y_count = tick_count(height, 24);
  if (data.options.equal_aspect) x_count = y_count = std::min(x_count, y_count);  // the same step both ways where spans are alike
  PanelTicks result{
      ticks(data.x_limits(), data.options.x_scale, x_count), ticks(data.y_limits(), data.options.y_scale, y_count), {}};
  if (data.bar) result.bar = ticks(data.bar->range, Scale::linear, tick_count(height, 24));
  return result;
}

Margins margins(Canvas& canvas, const AxesData& data, double width, double height, double cell_width) {
  const PanelTicks t = panel_ticks(data, width, height);
  Margins m;
  const bool y_labels = data.options.y_ticks && data.options.y_tick_labels;
  if (data.options.y_ticks) m.left += kTickLength;
  if (y_labels) m.left += kGap - 1 + widest(canvas, t.y);
  if (!data.options.y_label.empty()) m.left += kGap + 1 + kLabelText;
  m.bottom += kTickLength;
  if (data.options.x_tick_labels) m.bottom += kGap + kTickText;
  if (!data.options.x_label.empty()) m.bottom += kGap + 1 + kLabelText;
  if (data.bar) {
    m.right += kBarGap + kBarWidth + kTickLength + kGap - 1 + widest(canvas, t.bar);
    if (!data.bar->label.empty()) m.right += kGap + 1 + kLabelText;
  }
  // Half of the outermost labels may stand past the frame.
  if (data.options.x_tick_labels) m.right = std::max(m.right, 8.0);
  if (y_labels) m.top = std::max(m.top, kTickText / 2);
  if (!data.options.title.empty()) m.top += kTitleText + 5;
  m.top += kLegendRow * static_cast<double>(legend_rows(canvas, data.legend, cell_width).size());
  return m;
}

void draw_line(Canvas& canvas, Point from, Point to, Color color) {
  const Point ends[] = {from, to};
  canvas.polyline(ends, color, kLine, false, {}, false);
}

void draw_x_ticks(Canvas& canvas, const AxesData& data, const Projection& project, const std::vector<Tick>& all) {
  const double bottom = project.frame.bottom();
  double free_from = -1e9;  // labels that would touch the one before are left out
  for (const Tick& tick : all) {
    const double x = project(tick.value, project.y.lo).x;
    draw_line(canvas, {x, bottom}, {x, bottom + (tick.minor ? kMinorTickLength : kTickLength)}, kFrame);
    if (tick.minor || !data.options.x_tick_labels) continue;
    const double half = canvas.text_width(tick.label, kTickText) / 2;
    if (x - half < free_from) continue;
    canvas.text(tick.label, {x, bottom + kTickLength + kGap},
                {.size = kTickText, .across = Align::middle, .upright = Align::end});
    free_from = x + half + 4;
  }
}

void draw_y_ticks(Canvas& canvas, const AxesData& data, const Projection& project, const std::vector<Tick>& all) {
  if (!data.options.y_ticks) return;
  const double left = project.frame.x;
  for (const Tick& tick : all) {
    const double y = project(project.x.lo, tick.value).y;
    draw_line(canvas, {left - (tick.minor ? kMinorTickLength : kTickLength), y}, {left, y}, kFrame);
    if (tick.minor || !data.options.y_tick_labels) continue;
    canvas.text(tick.label, {left - kTickLength - kGap + 1, y},
                {.size = kTickText, .across = Align::end, .upright = Align::middle});
  }
}

void draw_grid_lines(Canvas& canvas, const AxesData& data, const Projection& project, const PanelTicks& t) {
  if (!data.options.grid_lines) return;
  const Rect& frame = project.frame;
  for (const Tick& tick : t.x) {
    if (tick.minor) continue;
    const double x = project(tick.value, project.y.lo).x;
    draw_line(canvas, {x, frame.y}, {x, frame.bottom()}, kGridLine);
  }
  for (const Tick& tick : t.y) {
    if (tick.minor) continue;
    const double y = project(project.x.lo, tick.value).y;
    draw_line(canvas, {frame.x, y}, {frame.right(), y}, kGridLine);
  }
}

void draw_color_bar(Canvas& canvas, const ColorBar& bar, const Rect& frame, const std::vector<Tick>& all) {
  constexpr Index kShades = 256;
  const Rect strip{frame.right() + kBarGap, frame.y, kBarWidth, frame.height};
  std::vector<std::uint32_t> shades;
  for (Index i = 0; i < kShades; ++i) {
    const Color c = color_at(bar.map, 1 - (static_cast<double>(i) + 0.5) / kShades);
    const auto byte = [](double v) { return static_cast<std::uint32_t>(std::lround(255 * v)); };
    const std::uint32_t pixel = 0xFF000000u | byte(c.r) << 16 | byte(c.g) << 8 | byte(c.b);
    shades.insert(shades.end(), 3, pixel);  // three wide: the interpolation fades at the rim, outside the clip
  }
  canvas.push_clip(strip);
  canvas.image({strip.x - kBarWidth, strip.y, 3 * kBarWidth, strip.height}, shades, 3, kShades);
  canvas.pop_clip();
  canvas.stroke_rect(strip, kFrame, kLine);
  double label_width = 0;
  for (const Tick& tick : all) {
    const double y = strip.bottom() - strip.height * Projection::fraction(tick.value, bar.range, Scale::linear);
    draw_line(canvas, {strip.right(), y}, {strip.right() + kTickLength, y}, kFrame);
    canvas.text(tick.label, {strip.right() + kTickLength + kGap - 1, y}, {.size = kTickText, .upright = Align::middle});
    label_width = std::max(label_width, canvas.text_width(tick.label, kTickText));
  }
  canvas.text(canvas.fitted(bar.label, kLabelText, strip.height + 20),
              {strip.right() + kTickLength + 2 * kGap + label_width, strip.y + strip.height / 2},
              {.size = kLabelText, .across = Align::middle, .upright = Align::end, .vertical = true});
}

// Title and legend may be as wide as the panel's share of the page, `cell`; the frame may be much narrower.
void draw_texts(Canvas& canvas, const AxesData& data, const Rect& frame, const Rect& cell, const PanelTicks& t) {
  const double middle = frame.x + frame.width / 2;
  double above = frame.y - (data.options.y_ticks && data.options.y_tick_labels ? kTickText / 2 : 0);
  const auto rows = legend_rows(canvas, data.legend, cell.width);
  above -= kLegendRow * static_cast<double>(rows.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    double width = -12;
    for (const LegendEntry& entry : rows[r]) width += entry_width(canvas, entry);
    Point at{std::clamp(middle - width / 2, cell.x, std::max(cell.x, cell.right() - width)),
             above + kLegendRow * (static_cast<double>(r) + 0.45)};
    for (const LegendEntry& entry : rows[r]) {
      draw_entry(canvas, entry, at);
      at.x += entry_width(canvas, entry);
    }
  }
  canvas.text(canvas.fitted(data.options.title, kTitleText, std::min(cell.width, frame.width + 40)), {middle, above - 4},
              {.size = kTitleText, .across = Align::middle});
  double below = frame.bottom() + kTickLength + kGap + 1;
  if (data.options.x_tick_labels) below += kTickText + 1;
  canvas.text(canvas.fitted(data.options.x_label, kLabelText, frame.width + 12), {middle, below + 0.73 * kLabelText},
              {.size = kLabelText, .across = Align::middle});
  double left = frame.x - kTickLength - kGap - 2;
  if (data.options.y_ticks && data.options.y_tick_labels) left -= widest(canvas, t.y) + 1;
  canvas.text(canvas.fitted(data.options.y_label, kLabelText, frame.height + 12), {left, frame.y + frame.height / 2},
              {.size = kLabelText, .across = Align::middle, .vertical = true});
}

void draw_panel(Canvas& canvas, const AxesData& data, const Projection& project, const Rect& cell) {
  const PanelTicks t = panel_ticks(data, project.frame.width, project.frame.height);
  draw_grid_lines(canvas, data, project, t);
  canvas.push_clip(project.frame);
  for (const auto& mark : data.marks) mark(canvas, project);
  canvas.pop_clip();
  canvas.stroke_rect(project.frame, kFrame, kLine);
  draw_x_ticks(canvas, data, project, t.x);
  draw_y_ticks(canvas, data, project, t.y);
  if (data.bar) draw_color_bar(canvas, *data.bar, project.frame, t.bar);
  draw_texts(canvas, data, project.frame, cell, t);
}

// The largest frame within `frame` whose sides have the ratio of the data's, centred.
Rect equal_aspect(const Rect& frame, Limits x, Limits y) {
  const double unit = std::min(frame.width / (x.hi - x.lo), frame.height / (y.hi - y.lo));
  const double width = unit * (x.hi - x.lo), height = unit * (y.hi - y.lo);
  return {frame.x + (frame.width - width) / 2, frame.y + (frame.height - height) / 2, width, height};
}

detail::Format format_of(const std::string& name, const std::string& shown) {
  if (name == "png") return detail::Format::png;
  if (name == "svg") return detail::Format::svg;
  if (name == "pdf") return detail::Format::pdf;
  fail("figure: ", shown, " has no known format; use one of .png, .svg, .pdf");
}

std::string extension_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/'), dot = path.find_last_of('.');
  if (dot == std::string::npos || (slash != std::string::npos && dot < slash)) return "";
  std::string extension = path.substr(dot + 1);
  for (char& c : extension) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return extension;
}

}  // namespace

struct Figure::Legend {
  std::vector<LegendEntry> entries;
};

Figure::Figure(FigureOptions options) : options_(std::move(options)) {
  check(options_.width > 0 && options_.height > 0 && options_.dpi > 0 &&
            std::isfinite(options_.width * options_.height * options_.dpi),
        "figure: ", options_.width, " x ", options_.height, " inches at ", options_.dpi,
        " dpi; all three must be positive and finite");
  check(options_.rows >= 1 && options_.columns >= 1 && options_.rows <= 64 && options_.columns <= 64, "figure: ", options_.rows,
        " x ", options_.columns, " panels; 1 to 64 rows and columns can be drawn");
  panels_.resize(static_cast<std::size_t>(options_.rows * options_.columns));
  legends_.resize(panels_.size());
}

Figure::~Figure() = default;
Figure::Figure(Figure&&) noexcept = default;
Figure& Figure::operator=(Figure&&) noexcept = default;

std::size_t Figure::slot(Index row, Index column, const char* caller) const {
  check(row >= 0 && row < options_.rows && column >= 0 && column < options_.columns, caller, ": no panel at row ", row,
        ", column ", column, " of a figure with ", options_.rows, " x ", options_.columns, " panels");
  return static_cast<std::size_t>(row * options_.columns + column);
}

Axes& Figure::axes(Index row, Index column, AxesOptions options) {
  std::unique_ptr<Axes>& panel = panels_[slot(row, column, "Figure::axes")];
  panel = std::make_unique<Axes>(std::move(options));
  return *panel;
}

Axes& Figure::axes_at(Index row, Index column) const {
  const std::unique_ptr<Axes>& panel = panels_[slot(row, column, "Figure::axes_at")];
  check(panel != nullptr, "Figure::axes_at: the panel at row ", row, ", column ", column, " is empty; make it with axes() first");
  return *panel;
}

void Figure::legend_at(Index row, Index column, std::vector<std::pair<std::string, Color>> entries) {
  auto legend = std::make_unique<Legend>();
  for (auto& [label, color] : entries) legend->entries.push_back({std::move(label), color, Swatch::marker});
  legends_[slot(row, column, "Figure::legend_at")] = std::move(legend);
}

// The share of the page's width that column `column` may use for titles and legends.
detail::Rect Figure::cell(std::size_t column) const {
  const double width = 72 * options_.width / static_cast<double>(options_.columns);
  return {width * static_cast<double>(column) + kPageMargin, 0, std::max(1.0, width - 2 * kPageMargin), 0};
}

std::vector<Projection> Figure::layout(Canvas& canvas) const {
  const auto rows = static_cast<std::size_t>(options_.rows), columns = static_cast<std::size_t>(options_.columns);
  const double width = 72 * options_.width, height = 72 * options_.height;
  const double top = kPageMargin + (options_.title.empty() ? 0 : kPageTitleText + 8);
  // Which ticks there are depends on the frame's size, and that on the ticks' labels: a first guess settles it.
  const double guess_width = std::max(kLeastPanel, width / static_cast<double>(columns) - 50);
  const double guess_height = std::max(kLeastPanel, (height - top) / static_cast<double>(rows) - 40);
  std::vector<Margins> across(columns), down(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      if (!panels_[r * columns + c]) continue;
      const Margins m = margins(canvas, *panels_[r * columns + c]->data_, guess_width, guess_height, cell(c).width);
      across[c].left = std::max(across[c].left, m.left);
      across[c].right = std::max(across[c].right, m.right);
      down[r].top = std::max(down[r].top, m.top);
      down[r].bottom = std::max(down[r].bottom, m.bottom);
    }
  }
  double free_width = width - 2 * kPageMargin - kPanelGap * static_cast<double>(columns - 1);
  double free_height = height - top - kPageMargin - kPanelGap * static_cast<double>(rows - 1);
  for (const Margins& m : across) free_width -= m.left + m.right;
  for (const Margins& m : down) free_height -= m.top + m.bottom;
  const double panel_width = free_width / static_cast<double>(columns), panel_height = free_height / static_cast<double>(rows);
  check(panel_width >= kLeastPanel && panel_height >= kLeastPanel, "figure: ", options_.width, " x ", options_.height,
        " inches leave no room for ", options_.rows, " x ", options_.columns, " panels and their labels; make it larger");
  std::vector<Projection> result(panels_.size());
  double y = top;
  for (std::size_t r = 0; r < rows; ++r) {
    double x = kPageMargin;
    for (std::size_t c = 0; c < columns; ++c) {
      Projection& project = result[r * columns + c];
      project.frame = {x + across[c].left, y + down[r].top, panel_width, panel_height};
      if (const auto& panel = panels_[r * columns + c]) {
        const AxesData& data = *panel->data_;
        project.x = data.x_limits(), project.y = data.y_limits();
        project.x_scale = data.options.x_scale, project.y_scale = data.options.y_scale;
        if (data.options.equal_aspect) project.frame = equal_aspect(project.frame, project.x, project.y);
      }
      x += across[c].left + panel_width + across[c].right + kPanelGap;
    }
    y += down[r].top + panel_height + down[r].bottom + kPanelGap;
  }
  return result;
}

std::string Figure::encode(const std::string& format) const {
  Canvas canvas(format_of(format, "'" + format + "'"), 72 * options_.width, 72 * options_.height, options_.dpi);
  const std::vector<Projection> places = layout(canvas);
  canvas.text(canvas.fitted(options_.title, kPageTitleText, 72 * options_.width - 2 * kPageMargin),
              {36 * options_.width, kPageMargin + kPageTitleText - 1}, {.size = kPageTitleText, .across = Align::middle});
  for (std::size_t i = 0; i < panels_.size(); ++i) {
    const Rect& frame = places[i].frame;
    if (panels_[i]) draw_panel(canvas, *panels_[i]->data_, places[i], cell(i % static_cast<std::size_t>(options_.columns)));
    if (legends_[i]) {
      Point at{frame.x + 4, frame.y + 10};
      for (LegendEntry entry : legends_[i]->entries) {
        entry.label = canvas.fitted(entry.label, kLegendText, frame.width - kSwatch - kGap - 4);
        draw_entry(canvas, entry, at);
        at.y += kLegendRow;
      }
    }
  }
  return canvas.finish();
}

void Figure::save(const std::string& path) const {
  const std::string extension = extension_of(path);
  format_of(extension, "the file name '" + path + "'");  // before any drawing
  write_file(path, std::string_view(encode(extension)));
}

PanelArea Figure::area(Index row, Index column) const {
  Canvas canvas(detail::Format::png, 72 * options_.width, 72 * options_.height, 1);
  const Rect frame = layout(canvas)[slot(row, column, "Figure::area")].frame;
  return {frame.x, frame.y, frame.width, frame.height};
}

std::pair<double, double> Figure::position(Index row, Index column, double x, double y) const {
  axes_at(row, column);
  Canvas canvas(detail::Format::png, 72 * options_.width, 72 * options_.height, 1);
  const Point at = layout(canvas)[slot(row, column, "Figure::position")](x, y);
  return {at.x, at.y};
}

Index Figure::drawn() const {
  Index count = 0;
  for (const auto& panel : panels_) count += panel ? panel->drawn() : 0;
  return count;
}

Index Figure::skipped() const {
  Index count = 0;
  for (const auto& panel : panels_) count += panel ? panel->skipped() : 0;
  return count;
}

}  // namespace tweedie::plots
