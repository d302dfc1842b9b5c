// SPDX-License-Identifier: MIT
#include "tweedie/core/files/csv.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/detail/inflate.h"
#include "tweedie/core/files/file.h"
#include "tweedie/core/files/json.h"

namespace tweedie {

namespace {

constexpr std::size_t kMaxColumns = 65'536;  // a column weighs some hundred bytes, a comma one
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

void check_delimiter(char d) {
  const auto byte = static_cast<unsigned char>(d);
  const bool printable = d == '\t' || (byte >= ' ' && byte < 0x7F);
  const bool in_numbers =
      (d >= '0' && d <= '9') || (d >= 'A' && d <= 'Z') || (d >= 'a' && d <= 'z') || d == '.' || d == '+' || d == '-';
  check(printable && !in_numbers && d != '"', "CsvOptions: a delimiter of character code ", static_cast<int>(byte),
        " cannot stand between numbers; use one of , ; | space or tab");
}

// ---- cells ----

enum class Kind { number, missing, infinite, text };

bool is_missing(std::string_view cell) { return cell.empty() || cell == "NA" || cell == "NaN" || cell == "nan"; }

/// Whether a number that does not fit a double is too large rather than too small, by the decimal exponent of its first digit.
bool is_huge(std::string_view number) {
  const std::size_t e = std::min(number.find_first_of("eE"), number.size());
  const std::string_view digits = number.substr(0, e);
  const auto point = static_cast<long long>(std::min(digits.find('.'), digits.size()));
  const auto first = static_cast<long long>(std::min(digits.find_first_of("123456789"), digits.size()));
  std::string_view power = number.substr(std::min(e + 1, number.size()));
  const bool negative = !power.empty() && power.front() == '-';
  if (!power.empty() && (power.front() == '+' || power.front() == '-')) power.remove_prefix(1);
  constexpr long long kBeyondAnyFile = 1LL << 60;
  long long exponent = 0;
  if (std::from_chars(power.data(), power.data() + power.size(), exponent).ec == std::errc::result_out_of_range) {
    exponent = kBeyondAnyFile;
  }
  exponent = std::min(exponent, kBeyondAnyFile);
  return point - first + (negative ? -exponent : exponent) > 0;
}

/// What a cell is; a number's value goes to `value`. Independent of the locale.
Kind classify(std::string_view cell, double& value) {
  value = kMissing;
  if (is_missing(cell)) return Kind::missing;
  if (cell.front() == '+' && cell.size() > 1 && cell[1] != '-') cell.remove_prefix(1);
  const char* end = cell.data() + cell.size();
  const auto [stop, error] = std::from_chars(cell.data(), end, value);
  if (stop != end || error == std::errc::invalid_argument) return Kind::text;
  if (error == std::errc::result_out_of_range) {
    if (is_huge(cell)) return Kind::infinite;
    value = cell.front() == '-' ? -0.0 : 0.0;  // nearer to zero than the smallest double
    return Kind::number;
  }
  if (std::isnan(value)) return Kind::text;  // nan(...) and its like
  return std::isinf(value) ? Kind::infinite : Kind::number;
}

struct Cell {
  std::string_view raw;  // between the quotes, if any
  bool escaped = false;  // holds doubled quotes
};

void append_unescaped(std::string& out, const Cell& cell) {
  for (std::size_t i = 0; i < cell.raw.size(); ++i) {
    out.push_back(cell.raw[i]);
    if (cell.escaped && cell.raw[i] == '"') ++i;
  }
}

std::string cell_text(const Cell& cell) {
  std::string text;
  append_unescaped(text, cell);
  return text;
}

// ---- rows ----

/// Walks the text row by row; rows are views into it.
class Scanner {
 public:
  Scanner(std::string_view text, std::string_view name, char delimiter) : text_(text), name_(name), delimiter_(delimiter) {
    ends_cell_[static_cast<unsigned char>(delimiter)] = true;
    for (const char c : {'\n', '\r', '"'}) ends_cell_[static_cast<unsigned char>(c)] = true;
  }

  bool next_row(std::vector<Cell>& cells) {
    cells.clear();
    if (at_ == text_.size()) return false;
    row_line_ = line_;
    for (;;) {
      if (cells.size() == kMaxColumns) fail_here(join("more than ", kMaxColumns, " columns"));
      cells.push_back(next_cell());
      if (at_ < text_.size() && text_[at_] == delimiter_) {
        ++at_;
        continue;
      }
      end_line();
      return true;
    }
  }
  /// The line on which the row began, counted from 1.
  Index line() const { return row_line_; }

 private:
  bool is_blank(char c) const { return (c == ' ' || c == '\t') && c != delimiter_; }
  [[noreturn]] void fail_here(std::string_view what) const { fail<DataError>(name_, ": line ", row_line_, ": ", what); }

  Cell next_cell() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    if (at_ < text_.size() && text_[at_] == '"') return quoted_cell();
    const std::size_t begin = at_;
    while (at_ < text_.size() && !ends_cell_[static_cast<unsigned char>(text_[at_])]) ++at_;
    if (at_ < text_.size() && text_[at_] == '"')
      fail_here("a quote inside an unquoted cell; quote the cell and double the quote");
    std::size_t end = at_;
    while (end > begin && is_blank(text_[end - 1])) --end;
    return {text_.substr(begin, end - begin)};
  }

  Cell quoted_cell() {
    const std::size_t begin = ++at_;
    Cell cell;
    for (;;) {
      const std::size_t quote = text_.find('"', at_);
      if (quote == std::string_view::npos) fail_here("a quote is opened and never closed");
      line_ += std::count(text_.begin() + static_cast<Index>(at_), text_.begin() + static_cast<Index>(quote), '\n');
      at_ = quote + 1;
      if (at_ == text_.size() || text_[at_] != '"') break;
      cell.escaped = true;
      ++at_;
    }
    cell.raw = text_.substr(begin, at_ - 1 - begin);
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    if (at_ < text_.size() && text_[at_] != delimiter_ && text_[at_] != '\n' && text_[at_] != '\r') {
      fail_here("text follows a closing quote; double the quotes inside a quoted cell");
    }
    return cell;
  }

  void end_line() {
    if (at_ < text_.size() && text_[at_] == '\r') {
      ++at_;
      if (at_ < text_.size() && text_[at_] != '\n') fail_here("a carriage return without a line feed; convert the line endings");
    }
    if (at_ < text_.size()) ++at_;
    ++line_;
  }

  std::string_view text_;
  std::string_view name_;
  char delimiter_;
  std::array<bool, 256> ends_cell_{};
  std::size_t at_ = 0;
  Index line_ = 1;
  Index row_line_ = 1;
};

// ---- the reader ----

std::string_view as_text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// The text without its byte order mark and the line ends behind its last row; throws when it is no UTF-8 text.
std::string_view checked_text(std::string_view text, std::string_view name) {
  using namespace std::string_view_literals;
  const auto begins = [&text](std::string_view magic) { return text.substr(0, magic.size()) == magic; };
  check<DataError>(!begins("BZh"sv) &&
                       !begins("\xFD"
                               "7zXZ"sv) &&
                       !begins("PK\x03\x04"sv) && !begins("\x28\xB5\x2F\xFD"sv),
                   name,
                   ": it is compressed (bzip2, xz, zip or zstd) or a spreadsheet, not a CSV file; unpack or export it as CSV");
  check<DataError>(!begins("\xFF\xFE"sv) && !begins("\xFE\xFF"sv), name, ": it is UTF-16 text; convert it to UTF-8 (iconv)");
  if (begins("\xEF\xBB\xBF"sv)) text.remove_prefix(3);
  const std::size_t bad = std::min(utf8_prefix(text), text.find('\0'));
  if (bad < text.size()) {
    fail<DataError>(name, ": line ", 1 + std::count(text.begin(), text.begin() + static_cast<Index>(bad), '\n'), " holds ",
                    text[bad] == '\0' ? "a NUL byte: it is no text file" : "text that is not UTF-8; convert it (iconv -t UTF-8)");
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  check<DataError>(!text.empty(), name, ": it is empty; a table needs at least one row");
  return text;
}

/// Names the columns by the first row when that is a header. Whether it was one.
bool read_header(const std::vector<Cell>& first, std::string_view name, Table& table) {
  double value = 0;
  table.has_header =
      std::any_of(first.begin(), first.end(), [&](const Cell& cell) { return classify(cell.raw, value) == Kind::text; });
  table.columns.resize(first.size());
  std::set<std::string_view> seen;
  for (std::size_t c = 0; c < first.size(); ++c) {
    std::string& column = table.columns[c].name;
    if (table.has_header) column = cell_text(first[c]);
    if (column.empty()) column = join("x", c + 1);
    check<DataError>(seen.insert(column).second, name, ": line 1: two columns are named '", column, "'; rename one");
  }
  return table.has_header;
}

void check_width(const Scanner& scanner, std::size_t found, std::size_t expected, std::string_view name) {
  check<DataError>(found == expected, name, ": line ", scanner.line(), " has ", found, found == 1 ? " cell" : " cells",
                   ", expected ", expected, " as in the first line");
}

/// The first pass: numbers, and which columns are not made of them.
void read_numbers(Scanner scanner, bool skip_first, std::string_view name, Table& table) {
  std::vector<Cell> cells;
  std::vector<Index> infinite(table.columns.size(), 0);  // the line of each column's first infinite cell
  if (skip_first) scanner.next_row(cells);
  while (scanner.next_row(cells)) {
    check_width(scanner, cells.size(), table.columns.size(), name);
    for (std::size_t c = 0; c < cells.size(); ++c) {
      Table::Column& column = table.columns[c];
      if (!column.numeric) continue;
      double value = 0;
      const Kind kind = classify(cells[c].raw, value);
      if (kind == Kind::infinite && infinite[c] == 0) infinite[c] = scanner.line();
      column.numbers.push_back(value);
      if (kind == Kind::text) {
        column.numeric = false;
        column.numbers = {};
      }
    }
    ++table.rows;
  }
  for (std::size_t c = 0; c < infinite.size(); ++c) {
    check<DataError>(infinite[c] == 0 || !table.columns[c].numeric, name, ": line ", infinite[c], ": column '",
                     table.columns[c].name, "' holds an infinite number or one too large for a double; remove the row or leave ",
                     "the cell empty (missing)");
  }
}

/// The second pass, where there is text: the cells of those columns.
void read_text(Scanner scanner, bool skip_first, Table& table) {
  const auto is_text = [](const Table::Column& column) { return !column.numeric; };
  if (std::none_of(table.columns.begin(), table.columns.end(), is_text)) return;
  std::vector<Cell> cells;
  std::string unescaped;
  if (skip_first) scanner.next_row(cells);
  for (Table::Column& column : table.columns) {
    if (!column.numeric) column.text.reserve(table.rows);
  }
  while (scanner.next_row(cells)) {
    for (std::size_t c = 0; c < cells.size(); ++c) {
      if (table.columns[c].numeric) continue;
      unescaped.clear();
      if (!is_missing(cells[c].raw)) append_unescaped(unescaped, cells[c]);
      table.columns[c].text.push_back(unescaped);
    }
  }
}

Table parse_text(std::string_view text, std::string_view name, const CsvOptions& options) {
  text = checked_text(text, name);
  Table table;
  Scanner scanner(text, name, options.delimiter);
  std::vector<Cell> first;
  scanner.next_row(first);
  const bool header = read_header(first, name, table);
  const Scanner start(text, name, options.delimiter);
  read_numbers(start, header, name, table);
  check<DataError>(table.rows > 0, name, ": it has a header and no rows; a table needs at least one");
  read_text(start, header, table);
  return table;
}

}  // namespace

Table parse_csv(std::span<const std::byte> bytes, std::string_view name, const CsvOptions& options) {
  check_delimiter(options.delimiter);
  if (!detail::is_gzip(bytes)) return parse_text(as_text(bytes), name, options);
  const FileBytes content = detail::gunzip(bytes, name);
  return parse_text(as_text(content.span()), name, options);
}

Table read_csv(const std::string& path, const CsvOptions& options) {
  check_delimiter(options.delimiter);
  const FileBytes bytes = read_file(path);
  return parse_csv(bytes.span(), path, options);
}

// ---- tables ----

std::vector<std::string> Table::names() const {
  std::vector<std::string> result;
  for (const Column& column : columns) result.push_back(column.name);
  return result;
}

std::vector<std::string> Table::header() const { return has_header ? names() : std::vector<std::string>(); }

Index Table::index(std::string_view name) const {
  const auto found = std::find_if(columns.begin(), columns.end(), [name](const Column& c) { return c.name == name; });
  if (found != columns.end()) return found - columns.begin();
  std::string known;
  for (const Column& column : columns) known += (known.empty() ? "" : ", ") + column.name;
  fail("there is no column '", name, "'; the columns are: ", known);
}

MatrixD to_matrix(const Table& table) {
  for (const Table::Column& column : table.columns) {
    if (column.numeric) continue;
    Index row = 0;
    double value = 0;
    while (row + 1 < column.text.size() && classify(column.text[row], value) != Kind::text) ++row;
    fail<DataError>("column '", column.name, "' holds text (row ", row + 1, ": '", column.text[row],
                    "'), numbers are needed; drop or encode the column, or check the delimiter");
  }
  MatrixD matrix(table.rows, table.cols());
  for (Index c = 0; c < table.cols(); ++c) {
    const std::vector<double>& numbers = table.columns[static_cast<std::size_t>(c)].numbers;
    check(static_cast<Index>(numbers.size()) == table.rows, "to_matrix: column ", c + 1, " has ", numbers.size(),
          " cells, the table ", table.rows, " rows");
    for (Index r = 0; r < table.rows; ++r) matrix(r, c) = numbers[static_cast<std::size_t>(r)];
  }
  return matrix;
}

Table to_table(std::span<const std::string> names, ConstRows<double> values) {
  check(names.empty() || static_cast<Index>(names.size()) == values.cols(), "to_table: ", names.size(), " names for ",
        values.cols(), " columns");
  Table table;
  table.has_header = !names.empty();
  table.rows = values.rows();
  for (Index c = 0; c < values.cols(); ++c) {
    Table::Column& column = table.columns.emplace_back();
    column.name = names.empty() ? join("x", c + 1) : names[static_cast<std::size_t>(c)];
    for (Index r = 0; r < values.rows(); ++r) column.numbers.push_back(values(r, c));
  }
  return table;
}

// ---- the writer ----

struct CsvWriter::State {
  static constexpr std::size_t kFlushAt = std::size_t{1} << 18;

  State(const std::string& path, const CsvOptions& options) : file(path), delimiter(options.delimiter) {}

  void separator(Index column) {
    if (column > 0) pending.push_back(delimiter);
  }
  template <class T>
  void number(T value) {
    if (std::isnan(value)) {
      pending.append("NaN");
      return;
    }
    char text[32];
    const auto result = std::to_chars(text, text + sizeof text, value);
    pending.append(text, result.ptr);
  }
  void text(std::string_view cell, bool alone) {
    const char special[] = {delimiter, '"', '\n', '\r'};
    const auto blank = [](char c) { return c == ' ' || c == '\t'; };
    const bool bare = cell.find_first_of(std::string_view(special, sizeof special)) == std::string_view::npos &&
                      (cell.empty() ? !alone : !blank(cell.front()) && !blank(cell.back()));
    if (bare) {
      pending.append(cell);
      return;
    }
    pending.push_back('"');
    for (const char c : cell) {
      if (c == '"') pending.push_back('"');
      pending.push_back(c);
    }
    pending.push_back('"');
  }
  void end_row() {
    pending.push_back('\n');
    ++rows;
    if (pending.size() >= kFlushAt) flush();
  }
  void flush() {
    file.write(pending);
    pending.clear();
  }
  void begin_rows(Index found) {
    check(!closed, "CsvWriter: '", file.path(), "' is closed");
    if (cols < 0) cols = found;
    check(found == cols, "CsvWriter: rows of ", found, " columns for a file of ", cols);
  }

  AtomicFile file;
  char delimiter;
  std::string pending;
  Index cols = -1;  // not known before the names or the first rows
  Index rows = 0;   // lines so far, the header's too
  bool closed = false;
};

namespace {

void check_names(std::span<const std::string> names) {
  std::set<std::string_view> seen;
  bool any_text = false;
  for (const std::string& name : names) {
    double value = 0;
    check(seen.insert(name).second, "CsvWriter: two columns are named '", name, "'");
    check(is_utf8(name) && name.find('\0') == std::string::npos, "CsvWriter: a column name is not UTF-8 text: '", name, "'");
    any_text = any_text || classify(name, value) == Kind::text;
  }
  check(any_text, "CsvWriter: the column names are all numbers or empty and would read back as a row; name one in words");
}

}  // namespace

CsvWriter::CsvWriter(const std::string& path, std::span<const std::string> names, const CsvOptions& options) {
  check_delimiter(options.delimiter);
  if (!names.empty()) check_names(names);
  state_ = std::make_unique<State>(path, options);
  if (names.empty()) return;
  state_->cols = static_cast<Index>(names.size());
  for (Index c = 0; c < state_->cols; ++c) {
    state_->separator(c);
    state_->text(names[static_cast<std::size_t>(c)], state_->cols == 1);
  }
  state_->end_row();
}

CsvWriter::~CsvWriter() = default;
CsvWriter::CsvWriter(CsvWriter&&) noexcept = default;
CsvWriter& CsvWriter::operator=(CsvWriter&&) noexcept = default;

namespace {
template <class State, class T>
void append_rows(State& state, ConstRows<T> rows) {
  state.begin_rows(rows.cols());
  for (Index r = 0; r < rows.rows(); ++r) {
    for (Index c = 0; c < rows.cols(); ++c) {
      state.separator(c);
      state.number(rows(r, c));
    }
    state.end_row();
  }
}
}  // namespace

void CsvWriter::append(ConstRows<float> rows) { append_rows(*state_, rows); }
void CsvWriter::append(ConstRows<double> rows) { append_rows(*state_, rows); }

void CsvWriter::append(const Table& table) {
  state_->begin_rows(table.cols());
  for (const Table::Column& column : table.columns) {
    const Index cells = column.numeric ? static_cast<Index>(column.numbers.size()) : column.text.size();
    check(cells == table.rows, "CsvWriter: column '", column.name, "' has ", cells, " cells, the table ", table.rows, " rows");
  }
  for (Index r = 0; r < table.rows; ++r) {
    double value = 0;
    for (Index c = 0; c < table.cols(); ++c) {
      const Table::Column& column = table.columns[static_cast<std::size_t>(c)];
      state_->separator(c);
      if (column.numeric) {
        state_->number(column.numbers[static_cast<std::size_t>(r)]);
        continue;
      }
      const std::string_view cell = column.text[r];
      check(state_->rows > 0 || classify(cell, value) != Kind::text, "CsvWriter: the first row holds text ('", cell,
            "') and would read back as a header; give names");
      state_->text(cell, table.cols() == 1);
    }
    state_->end_row();
  }
}

void CsvWriter::close() {
  check(!state_->closed, "CsvWriter: '", state_->file.path(), "' is closed already");
  state_->closed = true;
  state_->flush();
  state_->file.commit();
}

namespace {
template <class Rows>
void write_all(const std::string& path, std::span<const std::string> names, const Rows& rows, const CsvOptions& options) {
  CsvWriter writer(path, names, options);
  writer.append(rows);
  writer.close();
}
}  // namespace

void write_csv(const std::string& path, std::span<const std::string> names, ConstRows<float> values, const CsvOptions& options) {
  write_all(path, names, values, options);
}
void write_csv(const std::string& path, std::span<const std::string> names, ConstRows<double> values, const CsvOptions& options) {
  write_all(path, names, values, options);
}
void write_csv(const std::string& path, const Table& table, const CsvOptions& options) {
  write_all(path, table.header(), table, options);
}

}  // namespace tweedie
