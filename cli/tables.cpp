// SPDX-License-Identifier: MIT
#include "tweedie/cli/tables.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/npz.h"

namespace tweedie::cli {

RowWriter::~RowWriter() = default;

void RowWriter::append(const Table& rows) { append(to_matrix(rows)); }

namespace {

char delimiter_of(const std::string& path, const std::string& given) {
  if (given.empty()) return ends_with(path, ".tsv") || ends_with(path, ".tsv.gz") ? '\t' : ',';
  if (given == "tab" || given == "\\t") return '\t';
  check(given.size() == 1, "--delimiter '", given, "' must be one character, or 'tab'");
  return given[0];
}

Table read_archive(const std::string& path, const std::string& array) {
  const NpzFile file(path);
  const std::vector<std::string> names = file.names();
  check(!array.empty() || names.size() == 1, path, " holds ", names.size(), " arrays; choose one with --array: ", listed(names));
  return to_table({}, file.read<double>(array.empty() ? names.front() : array));
}

// A name of the header, or else a number from 1.
Index find_column(const Table& table, const std::string& wanted) {
  const std::vector<std::string> names = table.names();
  const auto found = std::find(names.begin(), names.end(), wanted);
  if (found != names.end()) return found - names.begin();
  Index position = 0;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), position);
  const bool whole = error == std::errc() && end == wanted.data() + wanted.size();
  check(whole && position >= 1 && position <= table.cols(), unknown("column", wanted, names));
  return position - 1;
}

void select_columns(Table& table, const std::string& list) {
  std::vector<Table::Column> chosen;
  std::vector<Index> taken;
  for (const std::string& wanted : split_list(list)) {
    const Index position = find_column(table, wanted);
    check(std::find(taken.begin(), taken.end(), position) == taken.end(), "--columns names '", wanted, "' twice");
    taken.push_back(position);
  }
  for (const Index position : taken) chosen.push_back(std::move(table.columns[static_cast<std::size_t>(position)]));
  table.columns = std::move(chosen);
}

void check_numeric(const Table& table, const std::string& path, const std::vector<std::string>& allowed) {
  std::vector<std::string> numeric;
  const Table::Column* text = nullptr;
  for (const Table::Column& column : table.columns) {
    if (column.numeric) {
      numeric.push_back(column.name);
    } else if (text == nullptr && std::find(allowed.begin(), allowed.end(), column.name) == allowed.end()) {
      text = &column;
    }
  }
  if (text == nullptr) return;
  Index row = 0;
  while (row + 1 < text->text.size() && text->text[row].empty()) ++row;
  fail<DataError>(path, ": column '", text->name, "' holds text ('", text->text[row], "' in row ", row + 1,
                  "), and a score model takes numbers; ",
                  numeric.empty() ? std::string("is the --delimiter right?")
                                  : join("leave it out: --columns ", listed(numeric),
                                         "; or learn each of its values' rows: --class ", text->name));
}

std::vector<std::size_t> whole_rows(const Table& table) {
  std::vector<std::size_t> rows;
  for (std::size_t r = 0; r < static_cast<std::size_t>(table.rows); ++r) {
    const bool whole = std::none_of(table.columns.begin(), table.columns.end(), [&](const Table::Column& column) {
      return column.numeric ? std::isnan(column.numbers[r]) : column.text[static_cast<Index>(r)].empty();
    });
    if (whole) rows.push_back(r);
  }
  return rows;
}

void handle_missing(Table& table, const std::string& path, const std::string& policy, const Console& console) {
  const std::vector<std::size_t> rows = whole_rows(table);
  const Index dropped = table.rows - static_cast<Index>(rows.size());
  if (dropped == 0 || policy == "keep") return;
  std::size_t first = 0;
  while (first < rows.size() && rows[first] == first) ++first;
  check<DataError>(policy == "drop", path, ": ", dropped, " of ", table.rows, " rows miss a value (the first is row ", first + 1,
                   "); leave them out with --missing drop, or fill them in");
  check<DataError>(!rows.empty(), path, ": every row misses a value; choose other columns with --columns");
  for (Table::Column& column : table.columns) {
    if (column.numeric) {
      for (std::size_t i = 0; i < rows.size(); ++i) column.numbers[i] = column.numbers[rows[i]];
      column.numbers.resize(rows.size());
      continue;
    }
    TextCells text;
    for (const std::size_t r : rows) text.push_back(column.text[static_cast<Index>(r)]);
    column.text = std::move(text);
  }
  table.rows = static_cast<Index>(rows.size());
  console.note(join("dropped ", dropped, dropped == 1 ? " row" : " rows", " with missing values"));
}

class CsvRows final : public RowWriter {
 public:
  CsvRows(const std::string& path, const std::vector<std::string>& header) : writer_(path, header) {}
  void append(ConstRows<double> rows) override { writer_.append(rows); }
  void append(const Table& rows) override { writer_.append(rows); }
  void close() override { writer_.close(); }

 private:
  CsvWriter writer_;
};

// The shape is known from the start, so rows can follow the header as they come.
class NpyRows final : public RowWriter {
 public:
  using RowWriter::append;
  NpyRows(const std::string& path, Index rows, Index cols) : file_(path) {
    const Index shape[] = {rows, cols};
    file_.write(detail::npy_header("<f8", shape));
  }
  void append(ConstRows<double> rows) override {
    check(rows.contiguous(), "NpyRows::append: the rows have gaps");
    file_.write(std::as_bytes(std::span(rows.data(), static_cast<std::size_t>(rows.size()))));
  }
  void close() override { file_.commit(); }

 private:
  AtomicFile file_;
};

class NpzRows final : public RowWriter {
 public:
  using RowWriter::append;
  NpzRows(std::string path, Index rows, Index cols) : path_(std::move(path)), values_(rows, cols) {}
  void append(ConstRows<double> rows) override {
    for (Index r = 0; r < rows.rows(); ++r) std::copy_n(rows.row(r).data(), rows.cols(), values_.row(filled_++).data());
  }
  void close() override {
    const NpzEntry entries[] = {{"x", values_}};
    write_npz(path_, entries);
  }

 private:
  std::string path_;
  MatrixD values_;
  Index filled_ = 0;
};

}  // namespace

void add_table_options(CLI::App& app, TableArguments& arguments) {
  const char* group = "Reading data";
  app.add_option("--columns", arguments.columns, "Columns to take, by name or number from 1: a,b,c  (default: all)")
      ->group(group);
  choose_from(app.add_option("--missing", arguments.missing, "Rows with missing cells: error | drop")->group(group),
              "way with missing cells", {"error", "drop"});
  app.add_option("--delimiter", arguments.delimiter,
                 "Between the cells of a csv: one character, or tab  (default: a comma; a tab in .tsv)")
      ->group(group);
  app.add_option("--array", arguments.array, "The array of an .npz that holds several")->group(group);
}

std::string builtin_name(const std::string& data) {
  const std::string_view prefix = kBuiltinPrefix;
  return data.compare(0, prefix.size(), prefix) == 0 ? data.substr(prefix.size()) : std::string();
}

Table read_table(const std::string& path, const TableArguments& arguments) {
  if (ends_with(path, ".npy")) return to_table({}, read_npy<double>(path));
  if (ends_with(path, ".npz")) return read_archive(path, arguments.array);
  check(arguments.array.empty(), "--array is for .npz files; ", path, " is none");
  try {
    return read_csv(path == "-" ? "/dev/stdin" : path, {.delimiter = delimiter_of(path, arguments.delimiter)});
  } catch (const UsageError& error) {
    fail(path, ": ", error.what());
  }
}

Table prepare_table(Table table, const std::string& path, const TableArguments& arguments, const Console& console,
                    const std::vector<std::string>& text) {
  if (!arguments.columns.empty()) select_columns(table, arguments.columns);
  check_numeric(table, path, text);
  handle_missing(table, path, arguments.missing, console);
  return table;
}

Table load_table(const std::string& path, const TableArguments& arguments, const Console& console) {
  return prepare_table(read_table(path, arguments), path, arguments, console);
}

std::string column_name(const Table& table, const std::string& wanted) {
  return table.columns[static_cast<std::size_t>(find_column(table, wanted))].name;
}

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string size_text(Index rows, Index cols) {
  return join(rows, rows == 1 ? " row x " : " rows x ", cols, cols == 1 ? " column" : " columns");
}

void check_output_name(const std::string& path) {
  const bool known = is_stdout(path) || path.compare(0, 5, "/dev/") == 0 || ends_with(path, ".csv") || ends_with(path, ".npy") ||
                     ends_with(path, ".npz");
  check(known, "'", path, "' is no format that can be written; name it .csv, .npy or .npz, or - for csv on standard output");
}

std::unique_ptr<RowWriter> open_writer(const std::string& path, const std::vector<std::string>& header, Index rows, Index cols) {
  check_output_name(path);
  if (ends_with(path, ".npy")) return std::make_unique<NpyRows>(path, rows, cols);
  if (ends_with(path, ".npz")) return std::make_unique<NpzRows>(path, rows, cols);
  return std::make_unique<CsvRows>(output_path(path), header);
}

}  // namespace tweedie::cli
