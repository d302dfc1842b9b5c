// tables.h - tables in and out: csv, npy, npz, and the built-in distributions.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tweedie/cli/program.h"
#include "tweedie/core/files/csv.h"

namespace tweedie::cli {

/// How a data file is read.
struct TableArguments {
  std::string delimiter;          // empty: a tab for .tsv, else a comma
  std::string columns;            // names or numbers from 1, separated by commas; empty: all
  std::string missing = "error";  // error | drop; keep: stay NaN (imputation)
  std::string array;              // of an .npz with several
};

void add_table_options(CLI::App& app, TableArguments& arguments);

/// "builtin:NAME" gives NAME, anything else nothing.
std::string builtin_name(const std::string& data);
inline constexpr const char* kBuiltinPrefix = "builtin:";

/// Reads .csv (.gz), .tsv, .npy or .npz, selects columns and deals with missing cells. A text column is a DataError naming it.
/// The number of rows that were dropped is said on the console.
Table load_table(const std::string& path, const TableArguments& arguments, const Console& console);
/// Its two steps: the file as it is, and the selection with its checks. The columns `text` may hold text.
Table read_table(const std::string& path, const TableArguments& arguments);
Table prepare_table(Table table, const std::string& path, const TableArguments& arguments, const Console& console,
                    const std::vector<std::string>& text = {});
/// The name of a column that is given by name or by number from 1; throws UsageError listing the names.
std::string column_name(const Table& table, const std::string& wanted);
/// "a,b" as its parts.
std::vector<std::string> split_list(const std::string& list);
/// "300 rows x 2 columns".
std::string size_text(Index rows, Index cols);

/// Rows written as they come; nothing appears before close(). .npz keeps all rows in memory, .csv and .npy do not.
class RowWriter {
 public:
  virtual ~RowWriter();
  virtual void append(ConstRows<double> rows) = 0;
  /// A table's rows, text columns included where the format has them (else a DataError).
  virtual void append(const Table& rows);
  virtual void close() = 0;
};
/// By the extension: .csv (and standard output), .npy or .npz. Throws UsageError for any other.
std::unique_ptr<RowWriter> open_writer(const std::string& path, const std::vector<std::string>& header, Index rows, Index cols);
/// Throws the UsageError that open_writer would.
void check_output_name(const std::string& path);

}  // namespace tweedie::cli
