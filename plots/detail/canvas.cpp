// SPDX-License-Identifier: MIT
#include "tweedie/plots/detail/canvas.h"

#include <cairo-pdf.h>
#include <cairo-svg.h>
#include <cairo.h>

#include <cmath>
#include <cstring>
#include <map>
#include <new>
#include <numbers>
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/plots/detail/text.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TWEEDIE_PLOTS_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(TWEEDIE_PLOTS_ASAN)
// Fontconfig keeps a few hundred bytes per process, and its links between them are offsets that LeakSanitizer cannot follow.
// Weak: a program's own suppressions win.
extern "C" [[gnu::weak]] const char* __lsan_default_suppressions() { return "leak:libfontconfig\n"; }
#endif

namespace tweedie::plots::detail {
namespace {

constexpr double kShiftedSize = 0.7;  // of the text's size, for raised and lowered parts

// A cairo stream: appends to the std::string behind `closure`. Nothing may be thrown through C.
cairo_status_t append_bytes(void* closure, const unsigned char* data, unsigned int length) noexcept {
  try {
    static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
    return CAIRO_STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return CAIRO_STATUS_NO_MEMORY;
  }
}

void check_status(cairo_status_t status, const char* what) {
  if (status == CAIRO_STATUS_SUCCESS) return;
  check<ResourceError>(status != CAIRO_STATUS_NO_MEMORY, "figure: no memory left to ", what,
                       "; make the figure smaller or lower its dpi");
  fail("figure: cannot ", what, ": ", cairo_status_to_string(status));
}

// Cairo numbers an SVG's parts by counters of the process. Numbered anew in the order of their first use, so that the same figure
// has the same bytes whatever was drawn before. Only `id="...` and `#...` are touched: no base64 text holds a quote or a hash.
std::string renumbered(const std::string& svg) {
  std::map<std::string, std::string, std::less<>> names;
  std::map<std::string, int, std::less<>> counts;
  std::string result;
  result.reserve(svg.size());
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t at = 0; at < svg.size();) {
    std::size_t name = 0;
    if (svg.compare(at, 4, "id=\"") == 0) name = at + 4;
    if (svg[at] == '#') name = at + 1;
    std::size_t number = name;
    while (name != 0 && number < svg.size() && letter(svg[number])) ++number;
    std::size_t end = number;
    while (end < svg.size() && (digit(svg[end]) || (end > number && svg[end] == '-'))) ++end;
    if (name == 0 || number == name || end == number) {
      result += svg[at++];
      continue;
    }
    const std::string kind = svg.substr(name, number - name), key = svg.substr(name, end - name);
    const auto [entry, is_new] = names.try_emplace(key, kind);
    if (is_new) entry->second += std::to_string(counts[kind]++);
    result.append(svg, at, name - at).append(entry->second);
    at = end;
  }
  return result;
}

// The surface of a page, drawing into `bytes` (vector formats) or into memory (PNG).
cairo_surface_t* make_surface(Format format, double width, double height, double dpi, std::string* bytes) {
  if (format == Format::svg) return cairo_svg_surface_create_for_stream(append_bytes, bytes, width, height);
  if (format == Format::pdf) return cairo_pdf_surface_create_for_stream(append_bytes, bytes, width, height);
  const auto pixels = [dpi](double points) { return static_cast<int>(std::lround(points * dpi / 72)); };
  return cairo_image_surface_create(CAIRO_FORMAT_RGB24, pixels(width), pixels(height));
}

void set_color(cairo_t* cairo, Color color) { cairo_set_source_rgba(cairo, color.r, color.g, color.b, color.a); }

void add_path(cairo_t* cairo, std::span<const Point> points) {
  cairo_new_path(cairo);
  for (const Point& point : points) cairo_line_to(cairo, point.x, point.y);
}

// Where no font is installed Cairo draws with one of its own that knows ASCII alone: the signs that axes need, in ASCII.
std::string for_builtin_font(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kSigns[] = {
      {"\xE2\x88\x92", "-"}, {"\xC3\x97", "x"}, {"\xE2\x80\xA6", "..."}};  // minus, times, ellipsis
  for (const auto& [sign, ascii] : kSigns) {
    for (std::size_t at = text.find(sign); at != std::string::npos; at = text.find(sign, at))
      text.replace(at, sign.size(), ascii);
  }
  return text;
}

}  // namespace

Canvas::Canvas(Format format, double width, double height, double dpi) : format_(format) {
  constexpr double kLargest = 32767;  // Cairo's limit on an image's side
  check(width > 0 && height > 0 && dpi > 0 && std::isfinite(width * height * dpi), "figure: the page is ", width / 72, " x ",
        height / 72, " inches at ", dpi, " dpi; all three must be positive and finite");
  const double scale = format == Format::png ? dpi / 72 : 1;
  check(width * scale <= kLargest && height * scale <= kLargest, "figure: ", width * scale, " x ", height * scale,
        " pixels are more than the ", kLargest, " a side may have; lower dpi or make the figure smaller");
  surface_ = make_surface(format, width, height, dpi, &bytes_);
  cairo_ = cairo_create(surface_);
  const cairo_status_t status = cairo_status(cairo_);
  if (status != CAIRO_STATUS_SUCCESS) {
    cairo_destroy(cairo_);
    cairo_surface_destroy(surface_);
    check_status(status, "make the page");
  }
  cairo_scale(cairo_, scale, scale);
  // Unhinted text has the same widths at every resolution and in every format.
  cairo_font_options_t* options = cairo_font_options_create();
  cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_set_font_options(cairo_, options);
  cairo_font_options_destroy(options);
  fill_rect({0, 0, width, height}, {1, 1, 1});
}

Canvas::~Canvas() {
  cairo_destroy(cairo_);
  cairo_surface_destroy(surface_);
}

void Canvas::fill_rect(Rect rect, Color color) {
  set_color(cairo_, color);
  cairo_rectangle(cairo_, rect.x, rect.y, rect.width, rect.height);
  cairo_fill(cairo_);
}

void Canvas::stroke_rect(Rect rect, Color color, double width) {
  set_color(cairo_, color);
  cairo_set_dash(cairo_, nullptr, 0, 0);
  cairo_set_line_width(cairo_, width);
  cairo_set_line_join(cairo_, CAIRO_LINE_JOIN_MITER);
  cairo_rectangle(cairo_, rect.x, rect.y, rect.width, rect.height);
  cairo_stroke(cairo_);
}

void Canvas::polyline(std::span<const Point> points, Color color, double width, bool closed, std::span<const double> dashes,
                      bool round_ends) {
  set_color(cairo_, color);
  cairo_set_line_width(cairo_, width);
  cairo_set_line_join(cairo_, CAIRO_LINE_JOIN_ROUND);
  cairo_set_line_cap(cairo_, round_ends && dashes.empty() ? CAIRO_LINE_CAP_ROUND : CAIRO_LINE_CAP_BUTT);
  cairo_set_dash(cairo_, dashes.data(), static_cast<int>(dashes.size()), 0);
  add_path(cairo_, points);
  if (closed) cairo_close_path(cairo_);
  cairo_stroke(cairo_);
}

void Canvas::polygon(std::span<const Point> points, Color color) {
  set_color(cairo_, color);
  add_path(cairo_, points);
  cairo_close_path(cairo_);
  cairo_fill(cairo_);
}

void Canvas::disc(Point centre, double radius, Color color) {
  set_color(cairo_, color);
  cairo_new_path(cairo_);
  cairo_arc(cairo_, centre.x, centre.y, radius, 0, 2 * std::numbers::pi);
  cairo_fill(cairo_);
}

void Canvas::ring(Point centre, double radius, Color color, double width) {
  set_color(cairo_, color);
  cairo_set_dash(cairo_, nullptr, 0, 0);
  cairo_set_line_width(cairo_, width);
  cairo_new_path(cairo_);
  cairo_arc(cairo_, centre.x, centre.y, radius, 0, 2 * std::numbers::pi);
  cairo_stroke(cairo_);
}

void Canvas::image(Rect rect, std::span<const std::uint32_t> pixels, Index columns, Index rows) {
  cairo_surface_t* source = cairo_image_surface_create(CAIRO_FORMAT_ARGB32, static_cast<int>(columns), static_cast<int>(rows));
  if (cairo_surface_status(source) != CAIRO_STATUS_SUCCESS) {
    const cairo_status_t status = cairo_surface_status(source);
    cairo_surface_destroy(source);
    check_status(status, "make an image");
  }
  cairo_surface_flush(source);
  unsigned char* data = cairo_image_surface_get_data(source);
  const auto stride = static_cast<Index>(cairo_image_surface_get_stride(source));
  for (Index r = 0; r < rows; ++r) {
    std::memcpy(data + r * stride, pixels.data() + r * columns, static_cast<std::size_t>(columns) * sizeof(std::uint32_t));
  }
  cairo_surface_mark_dirty(source);
  cairo_save(cairo_);
  cairo_translate(cairo_, rect.x, rect.y);
  cairo_scale(cairo_, rect.width / static_cast<double>(columns), rect.height / static_cast<double>(rows));
  cairo_set_source_surface(cairo_, source, 0, 0);
  cairo_pattern_set_filter(cairo_get_source(cairo_), CAIRO_FILTER_BILINEAR);
  cairo_paint(cairo_);
  cairo_restore(cairo_);
  cairo_surface_destroy(source);
}

void Canvas::push_clip(Rect rect) {
  cairo_save(cairo_);
  cairo_rectangle(cairo_, rect.x, rect.y, rect.width, rect.height);
  cairo_clip(cairo_);
}

void Canvas::pop_clip() { cairo_restore(cairo_); }

// Draws the text's runs from the current point on, or only adds up how far they reach.
double Canvas::show_runs(std::string_view text, double size, bool bold, bool draw) {
  // Where DejaVu is missing, the font system answers with its nearest font, or Cairo with the one built into it.
  cairo_select_font_face(cairo_, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                         bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  const bool builtin = cairo_scaled_font_get_type(cairo_get_scaled_font(cairo_)) == CAIRO_FONT_TYPE_USER;
  double advance = 0;
  for (const Run& run : runs(builtin ? for_builtin_font(printable(text)) : printable(text))) {
    cairo_set_font_size(cairo_, run.shift == 0 ? size : size * kShiftedSize);
    cairo_text_extents_t extents;
    cairo_text_extents(cairo_, run.text.c_str(), &extents);
    if (draw) {
      cairo_move_to(cairo_, advance, run.shift > 0 ? -0.38 * size : run.shift < 0 ? 0.18 * size : 0);
      cairo_show_text(cairo_, run.text.c_str());
    }
    advance += extents.x_advance;
  }
  return advance;
}

void Canvas::text(std::string_view text, Point anchor, const TextStyle& style) {
  if (text.empty()) return;
  const double width = text_width(text, style.size, style.bold);
  const double capital = 0.73 * style.size;  // DejaVu's cap height; a constant, so that labels share one baseline
  const double dx = style.across == Align::start ? 0 : style.across == Align::middle ? -width / 2 : -width;
  const double dy = style.upright == Align::start ? 0 : style.upright == Align::middle ? capital / 2 : capital;
  cairo_save(cairo_);
  cairo_translate(cairo_, anchor.x, anchor.y);
  if (style.vertical) cairo_rotate(cairo_, -std::numbers::pi / 2);
  cairo_translate(cairo_, dx, dy);
  set_color(cairo_, style.color);
  show_runs(text, style.size, style.bold, true);
  cairo_restore(cairo_);
}

double Canvas::text_width(std::string_view text, double size, bool bold) { return show_runs(text, size, bold, false); }

std::string Canvas::fitted(std::string_view text, double size, double width, bool bold) {
  if (text_width(text, size, bold) <= width) return std::string(text);
  std::string plain;
  for (const Run& run : runs(printable(text))) plain += run.text;
  std::string best = "\xE2\x80\xA6", head;  // an ellipsis
  for (std::size_t at = 0; at < plain.size();) {
    const std::size_t length = code_point_length(static_cast<unsigned char>(plain[at]));
    head.append(plain, at, length);
    at += length;
    const std::string candidate = head + "\xE2\x80\xA6";
    if (text_width(candidate, size, bold) > width) break;
    best = candidate;
  }
  return best;
}

std::string Canvas::finish() {
  check_status(cairo_status(cairo_), "draw the figure");
  if (format_ == Format::png) {
    check_status(cairo_surface_write_to_png_stream(surface_, append_bytes, &bytes_), "encode the PNG");
    return std::move(bytes_);
  }
  // An empty date leaves the creation time out of a PDF: the same figure has the same bytes.
  if (format_ == Format::pdf) cairo_pdf_surface_set_metadata(surface_, CAIRO_PDF_METADATA_CREATE_DATE, "");
  cairo_show_page(cairo_);
  cairo_surface_finish(surface_);
  check_status(cairo_surface_status(surface_), "write the figure");
  return format_ == Format::svg ? renumbered(bytes_) : std::move(bytes_);
}

}  // namespace tweedie::plots::detail
