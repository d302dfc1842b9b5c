// table.h - a table's columns as a network sees them, and the way back with names, order and types kept.
//
//   TableCode code = TableCode::fit(read_csv("wine.csv"));
//   Matrix x = code.encode(table);            // (N, D): z = (value - mean) / std of each column
//   MatrixD values = code.decode(samples);    // value = mean + std z; whole numbers where the column had only such
//
// A model file carries the code as the tensors data.mean, data.std, data.low, data.high (D) and the metadata columns.names,
// columns.kinds (JSON arrays) and columns.header, so that what is sampled looks like what was trained on.
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

struct ColumnCode {
  std::string name;
  ColumnKind kind = ColumnKind::continuous;
  double mean = 0, std = 1;  // of the scaling; 0 and 1: none
  double low = 0, high = 0;  // smallest and largest value that were seen
  bool constant() const { return low == high; }
};

class TWEEDIE_API TableCode {
 public:
  /// Means and standard deviations (divided by n; at least a tenth of the column's range, which only far outliers bring about) of
  /// a table's columns; with standardise = false 0 and 1. A constant column gets std 1. Throws DataError naming the column for
  /// text, for a missing or infinite cell (with its row), UsageError for no rows or no columns.
  static TableCode fit(const Table& table, bool standardise = true);
  /// Columns x1, ..., xD as they are, without a header: for models that know nothing of tables.
  static TableCode identity(Index dim);

  Index dim() const { return static_cast<Index>(columns_.size()); }
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

  /// `prefix` goes before the names above: a file may hold the code of more than one table.
  void store(Checkpoint& checkpoint, const std::string& prefix = {}) const;
  /// identity(dim) when the file holds no code. Throws ModelFileError for one that is damaged or of another width.
  static TableCode load(const Checkpoint& checkpoint, Index dim, const std::string& prefix = {});

 private:
  std::vector<ColumnCode> columns_;
  bool has_header_ = false;
};

}  // namespace tweedie
