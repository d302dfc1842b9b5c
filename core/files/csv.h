// csv.h - tables of numbers and text as comma-separated files.
//
//   Table table = read_csv("wine.csv", {.delimiter = ';'});
//   MatrixD x = to_matrix(table);                        // (N, D); missing cells are NaN
//   write_csv("samples.csv", table.names(), samples);    // shortest numbers that read back as the same bits
//
// The format: RFC 4180 quoting, LF or CRLF, an optional UTF-8 byte order mark, and gzip (when built with zlib). A header iff any
// cell of the first row is not a number; `""`, NA and NaN are missing; blanks around an unquoted cell do not count. Numbers are
// read and written the same in every locale. A column is numeric iff each of its cells is a number or missing.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie {

struct CsvOptions {
  char delimiter = ',';  // never guessed: ';' and '\t' are common
};

/// The cells of one text column in one piece of memory. A missing cell is the empty text.
class TWEEDIE_API TextCells {
 public:
  Index size() const { return static_cast<Index>(ends_.size()); }
  std::string_view operator[](Index i) const {
    const std::size_t begin = i == 0 ? 0 : ends_[static_cast<std::size_t>(i) - 1];
    return std::string_view(bytes_).substr(begin, ends_[static_cast<std::size_t>(i)] - begin);
  }
  void push_back(std::string_view cell) {
    bytes_.append(cell);
    ends_.push_back(bytes_.size());
  }
  void reserve(Index cells) { ends_.reserve(static_cast<std::size_t>(cells)); }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;  // of each cell in bytes_
};

/// A table of named columns, each either numbers or text.
struct TWEEDIE_API Table {
  struct Column {
    std::string name;
    bool numeric = true;
    std::vector<double> numbers;  // (N) when numeric; missing cells are NaN
    TextCells text;               // (N) otherwise; missing cells are empty
  };

  std::vector<Column> columns;
  bool has_header = true;  // without one the columns are named x1, x2, ...
  Index rows = 0;

  Index cols() const { return static_cast<Index>(columns.size()); }
  std::vector<std::string> names() const;
  /// The names when the file had a header, else nothing: what write_csv repeats.
  std::vector<std::string> header() const;
  /// The column's position by its name; throws UsageError listing the names there are.
  Index index(std::string_view name) const;
};

/// Reads a table of at least one row. Throws DataError naming file, line and column for ragged rows (cells found and expected),
/// infinite numbers, unbalanced quotes, text that is not UTF-8, repeated column names and files without rows; IoError when the
/// file cannot be read. More than 65,536 columns, or gzip that expands past both 64 MiB and 200 times its size, are refused.
TWEEDIE_API Table read_csv(const std::string& path, const CsvOptions& options = {});
/// The same for bytes in memory; `name` stands in the messages.
TWEEDIE_API Table parse_csv(std::span<const std::byte> bytes, std::string_view name, const CsvOptions& options = {});

/// The numbers of a table whose columns are all numeric, (N, D); missing cells stay NaN. Throws DataError naming a text column.
TWEEDIE_API MatrixD to_matrix(const Table& table);
/// A table of numbers. `names` has one name per column, or none: then there is no header.
TWEEDIE_API Table to_table(std::span<const std::string> names, ConstRows<double> values);

/// Writes rows as they come; the file appears, whole, at close(). Numbers are the shortest that read back as the same bits (in
/// float for float rows), NaN is written as NaN; text is quoted where needed.
class TWEEDIE_API CsvWriter {
 public:
  /// `names` has one name per column, or is empty: then there is no header. Throws UsageError for repeated names and for names
  /// that are all numbers (they would read back as a row), IoError when the file cannot be created.
  explicit CsvWriter(const std::string& path, std::span<const std::string> names = {}, const CsvOptions& options = {});
  /// Without close() before it, nothing is left of the file.
  ~CsvWriter();
  CsvWriter(CsvWriter&&) noexcept;
  CsvWriter& operator=(CsvWriter&&) noexcept;

  void append(ConstRows<float> rows);   // (n, D)
  void append(ConstRows<double> rows);  // (n, D)
  void append(const Table& rows);       // D columns; their names are not looked at
  /// Writes what is pending and makes the file appear. Nothing may be appended afterwards.
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A whole table at once, atomically. `names` as for CsvWriter.
TWEEDIE_API void write_csv(const std::string& path, std::span<const std::string> names, ConstRows<float> values,
                           const CsvOptions& options = {});
TWEEDIE_API void write_csv(const std::string& path, std::span<const std::string> names, ConstRows<double> values,
                           const CsvOptions& options = {});
TWEEDIE_API void write_csv(const std::string& path, const Table& table, const CsvOptions& options = {});

}  // namespace tweedie
