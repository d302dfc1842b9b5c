// SPDX-License-Identifier: MIT
#include "tweedie/plots/contour.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace tweedie::plots {
namespace {

void check_grid(Limits x, Limits y, Index columns, Index rows) {
  const auto usable = [](Limits limits) { return limits.lo < limits.hi && std::isfinite(limits.hi - limits.lo); };
  check(usable(x) && usable(y), "grid: limits x [", x.lo, ", ", x.hi, "], y [", y.lo, ", ", y.hi,
        "] are empty or not finite; give lo < hi");
  check(columns >= 2 && rows >= 2, "grid: ", columns, " x ", rows, " nodes; a grid needs at least 2 x 2");
  check(columns <= 16384 && rows <= 16384, "grid: ", columns, " x ", rows, " nodes; at most 16384 x 16384 are drawn");
}

// A crossing lives on an edge of the grid; its key names that edge, so that neighbouring cells agree on it.
using Key = Index;

struct Segment {
  Key from, to;
};

class Tracer {
 public:
  Tracer(const Grid& grid, double level) : grid_(grid), level_(level) {}

  std::vector<Polyline> lines() {
    for (Index r = 0; r + 1 < grid_.rows; ++r) {
      for (Index c = 0; c + 1 < grid_.columns; ++c) march(r, c);
    }
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      ends_[segments_[s].from].push_back(s);
      ends_[segments_[s].to].push_back(s);
    }
    used_.assign(segments_.size(), false);
    std::vector<Polyline> result;
    for (const bool open : {true, false}) {  // open lines from their ends first; what is left is closed
      for (std::size_t s = 0; s < segments_.size(); ++s) {
        if (used_[s]) continue;
        if (!open) {
          result.push_back(follow(s, segments_[s].from));
        } else if (ends_[segments_[s].from].size() == 1) {
          result.push_back(follow(s, segments_[s].from));
        } else if (ends_[segments_[s].to].size() == 1) {
          result.push_back(follow(s, segments_[s].to));
        }
      }
    }
    return result;
  }

 private:
  Key bottom(Index r, Index c) const { return 2 * (r * grid_.columns + c); }    // from (r, c) to (r, c + 1)
  Key left(Index r, Index c) const { return 2 * (r * grid_.columns + c) + 1; }  // from (r, c) to (r + 1, c)

  void march(Index r, Index c) {
    const std::array<double, 4> v{grid_.at(r, c), grid_.at(r, c + 1), grid_.at(r + 1, c + 1), grid_.at(r + 1, c)};
    if (!std::all_of(v.begin(), v.end(), [](double x) { return std::isfinite(x); })) return;
    // The cell's edges, counter-clockwise from the bottom; edge i joins corners i and i + 1.
    const std::array<Key, 4> edge{bottom(r, c), left(r, c + 1), bottom(r + 1, c), left(r, c)};
    std::array<int, 4> crossed{};
    int count = 0;
    for (int i = 0; i < 4; ++i) {
      if ((v[static_cast<std::size_t>(i)] >= level_) != (v[static_cast<std::size_t>((i + 1) % 4)] >= level_)) {
        crossed[static_cast<std::size_t>(count++)] = i;
      }
    }
    const auto add = [&](int a, int b) {
      segments_.push_back({edge[static_cast<std::size_t>(a)], edge[static_cast<std::size_t>(b)]});
    };
    if (count == 2) add(crossed[0], crossed[1]);
    if (count == 4) {  // a saddle: the value in the middle says which corners belong together
      const bool middle = (v[0] + v[1] + v[2] + v[3]) / 4 >= level_;
      if ((v[0] >= level_) == middle) {
        add(0, 1), add(2, 3);  // corners 0 and 2 are joined: cut off corners 1 and 3
      } else {
        add(3, 0), add(1, 2);  // cut off corners 0 and 2
      }
    }
  }

  void append(Polyline& line, Key key) const {
    const Index node = key / 2, r = node / grid_.columns, c = node % grid_.columns;
    const bool vertical = key % 2 == 1;
    const double a = grid_.at(r, c), b = vertical ? grid_.at(r + 1, c) : grid_.at(r, c + 1);
    const double u = (level_ - a) / (b - a);
    const auto between = [u](double from, double to) { return from + u * (to - from); };
    line.x.push_back(vertical ? grid_.x_at(c) : between(grid_.x_at(c), grid_.x_at(c + 1)));
    line.y.push_back(vertical ? between(grid_.y_at(r), grid_.y_at(r + 1)) : grid_.y_at(r));
  }

  Polyline follow(std::size_t segment, Key start) {
    Polyline line;
    append(line, start);
    for (Key at = start;;) {
      used_[segment] = true;
      at = segments_[segment].from == at ? segments_[segment].to : segments_[segment].from;
      if (at == start) {
        line.closed = true;
        return line;
      }
      append(line, at);
      const std::vector<std::size_t>& here = ends_[at];
      const auto next = std::find_if(here.begin(), here.end(), [&](std::size_t s) { return !used_[s]; });
      if (next == here.end()) return line;
      segment = *next;
    }
  }

  const Grid& grid_;
  double level_;
  std::vector<Segment> segments_;
  std::unordered_map<Key, std::vector<std::size_t>> ends_;  // at most two segments meet at an edge
  std::vector<bool> used_;
};

}  // namespace

MatrixD grid_points(Limits x, Limits y, Index columns, Index rows) {
  check_grid(x, y, columns, rows);
  const Grid nodes{x, y, columns, rows, {}};
  MatrixD points(rows * columns, 2);
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < columns; ++c) {
      points(r * columns + c, 0) = nodes.x_at(c);
      points(r * columns + c, 1) = nodes.y_at(r);
    }
  }
  return points;
}

Grid evaluate(const ScalarFunction& f, Limits x, Limits y, Index columns, Index rows) {
  check(static_cast<bool>(f), "evaluate: the function is empty");
  const MatrixD points = grid_points(x, y, columns, rows);
  Grid grid{x, y, columns, rows, std::vector<double>(static_cast<std::size_t>(rows * columns))};
  f(points, grid.values);
  return grid;
}

std::vector<Polyline> contour_lines(const Grid& grid, double level) {
  check_grid(grid.x, grid.y, grid.columns, grid.rows);
  check(static_cast<Index>(grid.values.size()) == grid.rows * grid.columns, "contour_lines: the grid has ", grid.values.size(),
        " values for ", grid.rows, " x ", grid.columns, " nodes");
  check(std::isfinite(level), "contour_lines: the level is not finite");
  return Tracer(grid, level).lines();
}

std::vector<double> mass_levels(const Grid& grid, std::span<const double> fractions) {
  std::vector<double> sorted;
  for (const double v : grid.values) {
    if (std::isfinite(v)) sorted.push_back(v);
  }
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<double> mass(sorted.size());
  double total = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) mass[i] = total += std::exp(sorted[i] - sorted[0]);
  std::vector<double> levels;
  for (const double fraction : fractions) {
    check(fraction > 0 && fraction < 1, "mass_levels: a fraction is ", fraction, ", expected one between 0 and 1");
    const auto at = std::lower_bound(mass.begin(), mass.end(), fraction * total) - mass.begin();
    levels.push_back(sorted[std::min(static_cast<std::size_t>(at), sorted.size() - 1)]);
  }
  return levels;
}

}  // namespace tweedie::plots
