// tables.cpp - histograms and scatter matrices of tables. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/plots/visualize.h"

namespace tweedie::plots {
namespace {

std::vector<double> column(ConstRows<float> rows, Index c) {
  std::vector<double> result(static_cast<std::size_t>(rows.rows()));
  for (Index r = 0; r < rows.rows(); ++r) result[static_cast<std::size_t>(r)] = static_cast<double>(rows(r, c));
  return result;
}

std::vector<double> finite_sorted(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  std::sort(values.begin(), values.end());
  return values;
}

// Both sets share their edges. Whole numbers over a short range get a bar each; otherwise bars are 2 IQR N^(-1/3) wide [Freedman
// & Diaconis 1981], 8 to 60 of them.
std::vector<double> bin_edges(const std::vector<double>& data, const std::vector<double>& samples, Index bins) {
  if (data.empty() && samples.empty()) return {};
  const std::vector<double>& first = data.empty() ? samples : data;
  const double lo = samples.empty() ? first.front() : std::min(first.front(), samples.front());
  const double hi = samples.empty() ? first.back() : std::max(first.back(), samples.back());
  const bool whole = std::all_of(first.begin(), first.end(), [](double v) { return v == std::floor(v); });
  std::vector<double> edges;
  if (bins == 0 && whole && hi - lo <= 60 && std::abs(lo) < 1e6) {
    for (double e = std::floor(lo) - 0.5; e < hi + 1; ++e) edges.push_back(e);
    return edges;
  }
  const Limits limits =
      lo < hi && hi - lo > 1e-9 * std::max(std::abs(lo), std::abs(hi)) ? Limits{lo, hi} : padded({lo, hi}, Scale::linear);
  if (bins == 0) {
    const double spread = first[3 * first.size() / 4] - first[first.size() / 4];
    const double width = 2 * spread / std::cbrt(static_cast<double>(first.size()));
    bins = width > 0 ? static_cast<Index>(std::clamp(std::ceil((limits.hi - limits.lo) / width), 8.0, 60.0)) : 20;
  }
  for (Index i = 0; i <= bins; ++i) {
    edges.push_back(limits.lo + (limits.hi - limits.lo) * static_cast<double>(i) / static_cast<double>(bins));
  }
  return edges;
}

std::vector<double> density_heights(const std::vector<double>& sorted, const std::vector<double>& edges) {
  std::vector<double> heights;
  for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
    const auto from = std::lower_bound(sorted.begin(), sorted.end(), edges[i]);
    const bool last = i + 2 == edges.size();
    const auto to = last ? std::upper_bound(sorted.begin(), sorted.end(), edges[i + 1])
                         : std::lower_bound(sorted.begin(), sorted.end(), edges[i + 1]);
    heights.push_back(static_cast<double>(to - from) / (static_cast<double>(sorted.size()) * (edges[i + 1] - edges[i])));
  }
  return heights;
}

struct Table {
  ConstRows<float> data, samples;
  const TableOptions& options;
  std::vector<std::vector<double>> edges = {};  // of the bars, per column

  bool two() const { return samples.rows() > 0; }
  const std::vector<double>& edges_of(Index c) const { return edges[static_cast<std::size_t>(c)]; }
  std::string name(Index c) const {
    return options.columns.empty() ? join("x_{", c + 1, "}") : options.columns[static_cast<std::size_t>(c)];
  }
  Limits limits(Index c) const {
    return edges_of(c).empty() ? Limits{0, 1} : padded({edges_of(c).front(), edges_of(c).back()}, Scale::linear);
  }
};

// The table with the edges of its first `count` columns.
Table checked(ConstRows<float> data, const TableOptions& options, Index count, const char* caller) {
  const bool two = options.samples.rows() > 0;
  check(data.cols() >= 1, caller, ": the table has no columns");
  check(options.columns.empty() || static_cast<Index>(options.columns.size()) == data.cols(), caller, ": ",
        options.columns.size(), " column names for a table of shape ", shape(data), "; give one name per column or none");
  check(!two || options.samples.cols() == data.cols(), caller, ": samples have shape ", shape(options.samples), ", the data ",
        shape(data), "; both need the same columns");
  check(options.bins >= 0 && options.bins <= 10000, caller, ": bins is ", options.bins, ", expected 0 (automatic) to 10000");
  check(options.max_points >= 1 && options.max_columns >= 1, caller, ": max_points is ", options.max_points, ", max_columns ",
        options.max_columns, "; both must be positive");
  Table table{data, options.samples, options};
  for (Index c = 0; c < std::min(count, data.cols()); ++c) {
    table.edges.push_back(bin_edges(finite_sorted(column(data, c)),
                                    two ? finite_sorted(column(options.samples, c)) : std::vector<double>{}, options.bins));
  }
  return table;
}

void draw_histogram(Axes& axes, const Table& table, Index c, bool labels) {
  const std::vector<double>& edges = table.edges_of(c);
  const auto draw = [&](ConstRows<float> rows, const std::string& label, Index series) {
    const std::vector<double> sorted = finite_sorted(column(rows, c));
    if (sorted.empty()) return;
    axes.bars(edges, density_heights(sorted, edges),
              {.label = labels ? label : "", .color = series_color(series), .opacity = table.two() ? .22 : .4});
  };
  draw(table.data, table.options.name, 0);
  if (table.two()) draw(table.samples, table.options.samples_name, 1);
}

void draw_pair(Axes& axes, const Table& table, Index cx, Index cy) {
  const auto draw = [&](ConstRows<float> rows, Index series) {
    const Index count = std::min(rows.rows(), table.options.max_points);
    std::vector<double> x, y;
    for (Index i = 0; i < count; ++i) {
      const Index r = i * rows.rows() / count;
      x.push_back(static_cast<double>(rows(r, cx)));
      y.push_back(static_cast<double>(rows(r, cy)));
    }
    axes.scatter(x, y, {.color = series_color(series), .radius = count > 500 ? 0.8 : 1.1, .opacity = .45});
  };
  draw(table.data, 0);
  if (table.two()) draw(table.samples, 1);
}

Figure sized(const TableOptions& options, Index rows, Index columns, double panel_width, double panel_height) {
  FigureOptions size = options.figure.value_or(FigureOptions{.width = 0.7 + panel_width * static_cast<double>(columns),
                                                             .height = 0.7 + panel_height * static_cast<double>(rows)});
  size.rows = rows, size.columns = columns;
  if (size.title.empty()) size.title = options.title;
  return Figure(size);
}

}  // namespace

Figure visualize_histograms(ConstRows<float> data, const TableOptions& options) {
  const Index count = data.cols();
  const Table table = checked(data, options, count, "visualize_histograms");
  check(count <= 64, "visualize_histograms: ", count, " columns; at most 64 are drawn, choose some with middle_cols()");
  const auto columns = static_cast<Index>(std::ceil(std::sqrt(static_cast<double>(count)))),
             rows = (count + columns - 1) / columns;
  Figure figure = sized(options, rows, columns, count == 1 ? 4.2 : 2.3, count == 1 ? 3 : 1.9);
  for (Index c = 0; c < count; ++c) {
    Axes& axes =
        figure.axes(c / columns, c % columns,
                    {.x_label = table.name(c), .y_label = c % columns == 0 ? "density" : "", .x_limits = table.limits(c)});
    draw_histogram(axes, table, c, table.two() && c == 0);
  }
  return figure;
}

Figure visualize_pairs(ConstRows<float> data, const TableOptions& options) {
  const Table table = checked(data, options, options.max_columns, "visualize_pairs");
  const Index count = std::min(data.cols(), options.max_columns);
  check(count <= 12, "visualize_pairs: max_columns is ", options.max_columns, "; at most 12 columns are drawn");
  Figure figure = sized(options, count, count, count <= 2 ? 2.4 : 1.45, count <= 2 ? 2.3 : 1.4);
  for (Index r = 0; r < count; ++r) {
    for (Index c = 0; c <= r; ++c) {
      const bool bottom = r == count - 1, left = c == 0 && r > 0;
      AxesOptions axes{.x_label = bottom ? table.name(c) : "",
                       .y_label = left ? table.name(r) : "",
                       .x_limits = table.limits(c),
                       .x_tick_labels = bottom,
                       .y_tick_labels = left,
                       .y_ticks = r != c};
      if (r == c) {
        draw_histogram(figure.axes(r, c, axes), table, c, false);
      } else {
        axes.y_limits = table.limits(r);
        draw_pair(figure.axes(r, c, axes), table, c, r);
      }
    }
  }
  if (table.two() && count >= 2) {
    figure.legend_at(0, count - 1, {{options.name, series_color(0)}, {options.samples_name, series_color(1)}});
  }
  return figure;
}

}  // namespace tweedie::plots
