// picture.h - a PNG decoded by Cairo, so that tests can look at what was drawn. SPDX-License-Identifier: MIT
#pragma once

#include <cairo.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/plots/figure.h"

namespace tweedie::plots::test {

struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint32_t> pixels = {};  // 0x00RRGGBB, (height, width)

  std::uint32_t at(int x, int y) const { return pixels[static_cast<std::size_t>(y * width + x)]; }
  std::size_t colors() const { return std::set<std::uint32_t>(pixels.begin(), pixels.end()).size(); }
  /// Pixels that are not white within [x0, x1) x [y0, y1).
  int ink(int x0, int y0, int x1, int y1) const {
    int count = 0;
    for (int y = std::max(0, y0); y < std::min(height, y1); ++y) {
      for (int x = std::max(0, x0); x < std::min(width, x1); ++x) count += at(x, y) != 0xFFFFFF;
    }
    return count;
  }
};

inline Picture decode(const std::string& png) {
  struct Source {
    const std::string& bytes;
    std::size_t at;
  } source{png, 0};
  const auto read = [](void* closure, unsigned char* data, unsigned int length) {
    auto& from = *static_cast<Source*>(closure);
    if (from.at + length > from.bytes.size()) return CAIRO_STATUS_READ_ERROR;
    std::memcpy(data, from.bytes.data() + from.at, length);
    from.at += length;
    return CAIRO_STATUS_SUCCESS;
  };
  cairo_surface_t* surface = cairo_image_surface_create_from_png_stream(read, &source);
  const bool decoded = cairo_surface_status(surface) == CAIRO_STATUS_SUCCESS;
  Picture picture;
  if (decoded) {
    picture.width = cairo_image_surface_get_width(surface);
    picture.height = cairo_image_surface_get_height(surface);
    const unsigned char* data = cairo_image_surface_get_data(surface);
    for (int y = 0; y < picture.height; ++y) {
      for (int x = 0; x < picture.width; ++x) {
        std::uint32_t pixel;
        std::memcpy(&pixel, data + y * cairo_image_surface_get_stride(surface) + 4 * x, sizeof pixel);
        picture.pixels.push_back(pixel & 0xFFFFFF);
      }
    }
  }
  cairo_surface_destroy(surface);
  check(decoded, "decode: not a PNG");
  return picture;
}

inline Picture draw(const Figure& figure) { return decode(figure.encode("png")); }

inline std::uint32_t rgb(Color c) {
  const auto byte = [](double v) { return static_cast<std::uint32_t>(std::lround(255 * v)); };
  return byte(c.r) << 16 | byte(c.g) << 8 | byte(c.b);
}

/// The pixel that holds a data point.
inline std::pair<int, int> pixel(const Figure& figure, double x, double y, Index row = 0, Index column = 0) {
  const auto [px, py] = figure.position(row, column, x, y);
  const double scale = figure.options().dpi / 72;
  return {static_cast<int>(px * scale), static_cast<int>(py * scale)};
}

/// Ink strictly inside a panel's frame.
inline int ink_in_panel(const Figure& figure, const Picture& picture, Index row = 0, Index column = 0) {
  const PanelArea area = figure.area(row, column);
  const double scale = figure.options().dpi / 72;
  const auto at = [scale](double v) { return static_cast<int>(v * scale); };
  return picture.ink(at(area.left + 2), at(area.top + 2), at(area.left + area.width - 2), at(area.top + area.height - 2));
}

/// A directory of its own that goes with its owner.
struct TemporaryDirectory {
  std::filesystem::path path;
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "tweedie_plots_XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "no temporary directory");
    path = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string operator/(const char* name) const { return (path / name).string(); }
};

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace tweedie::plots::test
