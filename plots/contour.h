// contour.h - a function sampled on a grid, its iso-lines (marching squares) and the levels that enclose given masses.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "tweedie/core/matrix.h"
#include "tweedie/plots/ticks.h"

namespace tweedie::plots {

/// f(x, out): out[b] = the function's value at row b of x (B, 2).
using ScalarFunction = std::function<void(ConstRows<double> x, std::span<double> out)>;

/// Values at the nodes of linspace(x.lo, x.hi, columns) times linspace(y.lo, y.hi, rows); row 0 is at y.lo.
struct Grid {
  Limits x = {}, y = {};
  Index columns = 0, rows = 0;
  std::vector<double> values = {};  // (rows, columns)

  double x_at(Index column) const { return node(x, column, columns); }
  double y_at(Index row) const { return node(y, row, rows); }
  double at(Index row, Index column) const { return values[static_cast<std::size_t>(row * columns + column)]; }

 private:
  static double node(Limits limits, Index i, Index count) {
    return limits.lo + (limits.hi - limits.lo) * static_cast<double>(i) / static_cast<double>(count - 1);
  }
};

/// The grid's nodes as points (rows * columns, 2), row by row.
TWEEDIE_API MatrixD grid_points(Limits x, Limits y, Index columns, Index rows);

/// `f` at every node. Throws UsageError unless the limits are finite with lo < hi and there are at least 2 rows and columns.
TWEEDIE_API Grid evaluate(const ScalarFunction& f, Limits x, Limits y, Index columns, Index rows);

struct Polyline {
  std::vector<double> x = {}, y = {};
  bool closed = false;
};

/// The lines where the grid's bilinear saddle-resolved interpolant equals `level`; cells with a value that is not finite are left
/// out.
TWEEDIE_API std::vector<Polyline> contour_lines(const Grid& grid, double level);

/// For each fraction the log-density level whose super-level set holds that share of the grid's total mass. `grid` holds
/// log-densities up to a constant; values that are not finite are left out. Empty when none is left.
TWEEDIE_API std::vector<double> mass_levels(const Grid& grid, std::span<const double> fractions);

}  // namespace tweedie::plots
