// table.h - a table's columns as a network sees them, and the way back with names, order and types kept.
//
//   TableCode code = TableCode::fit(read_csv("wine.csv"));
//   Matrix x = code.encode(table);            // (N, D): z = (value - mean) / std of each column
//   MatrixD values = code.decode(samples);    // value = mean + std z; whole numbers where the column had only such
//
// Scaling::quantile instead takes each column to normal scores: z = Phi^-1(p), p the mid-rank of the value among the column's,
// piecewise linear between at most 1,000 of its values, so that a skewed, bounded or heavy-tailed column reaches the network as
// a bell and comes back with its own distribution (a Gaussian copula's marginals [Nelsen 2006, sec. 2.3]).
//
// A model file carries the code as the tensors data.mean, data.std, data.low, data.high (D), for normal scores
// data.quantile_counts (D), data.quantile_values and data.quantile_scores (one column after the other), and the metadata
// columns.names, columns.kinds (JSON arrays) and columns.header, so that what is sampled looks like what was trained on.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tweedie/core/files/csv.h"
#include "tweedie/models/checkpoint.h"

namespace tweedie {

/// integer: every value of the column was a whole number.
enum class ColumnKind { continuous, integer };

/// What is done to a column's values: nothing; mean 0 and deviation 1; normal scores of their ranks.
enum class Scaling { none, standardise, quantile };

/// A monotonous, piecewise linear map of a column's values: affine without knots.
struct TWEEDIE_API ColumnCode {
  std::string name;
  ColumnKind kind = ColumnKind::continuous;
  double mean = 0, std = 1;  // z = (value - mean) / std; 0 and 1: none
  double low = 0, high = 0;  // smallest and largest value that were seen
  // Scaling::quantile: z goes through (values[i], scores[i]), both increasing, and beyond them with the slope 1 / std.
  std::vector<double> values = {}, scores = {};

  bool constant() const { return low == high; }
  double scaled(double value) const;
  /// The inverse of scaled(), not rounded.
  double unscaled(double z) const;
  /// d scaled / d value where scaled(value) = z, > 0; at a knot the slope above it.
  double slope(double z) const;
};

class TWEEDIE_API TableCode {
 public:
  /// Means and standard deviations (divided by n; at least a tenth of the column's range, which only far outliers bring about) of
  /// a table's columns; with Scaling::none 0 and 1. A constant column gets std 1. Scaling::quantile adds the knots; the scores
  /// too have mean 0 and deviation 1 (or a tenth of their range) over the table. Throws DataError naming the column for text, for
  /// a missing or infinite cell (with its row), UsageError for no rows or no columns.
  static TableCode fit(const Table& table, Scaling scaling = Scaling::standardise);
  /// Columns x1, ..., xD as they are, without a header: for models that know nothing of tables.
  static TableCode identity(Index dim);

  Index dim() const { return static_cast<Index>(columns_.size()); }
  /// Whether every column is only moved and stretched: no knots.
  bool affine() const;
  /// The same columns without their knots: what distances between rows are measured in, whatever a model is trained on.
  TableCode standardised() const;
  const std::vector<ColumnCode>& columns() const { return columns_; }
  bool has_header() const { return has_header_; }
  /// The names when the training table had a header, else nothing: what write_csv repeats.
  std::vector<std::string> header() const;

  /// Scaled rows (N, D). Where both tables have headers the columns are found by name, in any order and among others; else by
  /// position, and the counts must agree. Throws DataError for a column that is missing, no number, or has a missing cell.
  /// keep_missing: missing cells stay NaN (what imputation takes) instead.
  Matrix encode(const Table& table, bool keep_missing = false) const;
  /// Rows (N, D) in the data's own units. Whole-number columns are rounded and kept within [low, high]; a constant column comes
  /// back exactly; other values keep six digits below their standard deviation, which is what a float network resolves.
  MatrixD decode(ConstRows<float> scaled) const;
  /// ln |d encode / d row| at each scaled row, (N): what a log-density of scaled rows gains in the data's own units.
  std::vector<double> log_jacobian(ConstRows<float> scaled) const;

  /// `prefix` goes before the names above: a file may hold the code of more than one table.
  void store(Checkpoint& checkpoint, const std::string& prefix = {}) const;
  /// identity(dim) when the file holds no code. Throws ModelFileError for one that is damaged or of another width.
  static TableCode load(const Checkpoint& checkpoint, Index dim, const std::string& prefix = {});

 private:
  void load_quantiles(const Checkpoint& checkpoint, const std::string& prefix);

  std::vector<ColumnCode> columns_;
  bool has_header_ = false;
};

}  // namespace tweedie
