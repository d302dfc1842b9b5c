// SPDX-License-Identifier: MIT
#include "tweedie/core/files/csv.h"

#include <cmath>
#include <limits>
#include <random>

#include "files_support.h"

using namespace files_test;

namespace {

Table parse(std::string_view text, const CsvOptions& options = {}) {
  const ExactBytes bytes(text);
  return parse_csv(bytes.span(), "hostile.csv", options);
}

using Strings = std::vector<std::string>;

Strings texts(const Table::Column& column) {
  Strings result;
  for (Index i = 0; i < column.text.size(); ++i) result.emplace_back(column.text[i]);
  return result;
}

#ifdef TWEEDIE_HAVE_ZLIB
// printf 'a,b\n1,2\n3,4\n' | gzip -n
const std::string kGzip(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\xd4\x49\xe2\x32\xd4\x31\xe2\x32\xd6\x31\xe1\x02\x00\xe5\xe9\xd6\xce\x0c\x00\x00"
    "\x00",
    32);
#endif

}  // namespace

TEST_CASE("csv: a header iff a cell of the first row is no number") {
  const Table with = parse("a,b\n1,2\n3,4.5\n");
  CHECK(with.has_header);
  CHECK(with.names() == Strings{"a", "b"});
  CHECK(with.header() == Strings{"a", "b"});
  CHECK(with.rows == 2);
  CHECK(with.columns[1].numbers == std::vector<double>{2, 4.5});

  const Table without = parse("1,2\n3,4\n5,6");
  CHECK_FALSE(without.has_header);
  CHECK(without.rows == 3);
  CHECK(without.names() == Strings{"x1", "x2"});
  CHECK(without.header().empty());

  CHECK(parse("1,b\n3,4\n").has_header);        // one text cell is enough
  CHECK_FALSE(parse(",NA\n3,4\n").has_header);  // a missing cell is no text
  CHECK_FALSE(parse("1e5,-2\n3,4\n").has_header);
  CHECK(parse(",b\n3,4\n").names() == Strings{"x1", "b"});
}

TEST_CASE("csv: line ends, byte order mark, blanks and the last line") {
  for (const char* text : {"a,b\n1,2\n3,4\n", "a,b\r\n1,2\r\n3,4\r\n",
                           "\xEF\xBB\xBF"
                           "a,b\n1,2\n3,4",
                           " a ,\tb\n 1, 2 \n3\t,4\n\n\r\n\n", "\"a\",\"b\"\r\n\"1\",2\r\n3 , \"4\" \r\n", "a,b\r\n1,2\n3,4\r"}) {
    CAPTURE(text);
    const Table table = parse(text);
    CHECK(table.names() == Strings{"a", "b"});
    CHECK(table.columns[0].numbers == std::vector<double>{1, 3});
    CHECK(table.columns[1].numbers == std::vector<double>{2, 4});
  }
  CHECK(parse("a;b\n1;2\n", {.delimiter = ';'}).names() == Strings{"a", "b"});
  CHECK(parse("a\tb\n1\t\n", {.delimiter = '\t'}).columns[1].numbers.size() == 1);
  CHECK(parse("1 2\n3 4\n", {.delimiter = ' '}).cols() == 2);
  CHECK(parse("a;b\n1;2\n").cols() == 1);  // never guessed
}

TEST_CASE("csv: missing cells are NaN among numbers and empty among text") {
  const Table table = parse("x,y,z\n1,,p\nNA,NaN,\n\"\",nan,NA\n");
  CHECK(table.columns[0].numbers[0] == 1);
  CHECK(std::isnan(table.columns[0].numbers[1]));
  CHECK(std::isnan(table.columns[0].numbers[2]));
  CHECK(table.columns[1].numeric);  // nothing but missing cells
  CHECK(std::isnan(table.columns[1].numbers[2]));
  CHECK_FALSE(table.columns[2].numeric);
  CHECK(texts(table.columns[2]) == Strings{"p", "", ""});
  // In a table of one column an empty line is a missing cell; at the end of the file it is nothing.
  const Table one = parse("v\n1\n\n2\n\n");
  CHECK(one.rows == 3);
  CHECK(std::isnan(one.columns[0].numbers[1]));
}

TEST_CASE("csv: quotes hold delimiters, line ends and quotes, and lines are still counted") {
  const Table table = parse("name,v\n\"a,\"\"b\"\"\nc\",1\n\" d \",2\n");
  CHECK(texts(table.columns[0]) == Strings{"a,\"b\"\nc", " d "});
  CHECK(holds(message_of<DataError>([] { parse("n,v\n\"a\nb\",1\nx\n"); }), "line 4 has 1 cell, expected 2"));
}

TEST_CASE("csv: a column is text as soon as one cell is, from its first row on") {
  const Table table = parse("k,v\n007,1\n1e1,2\nx,3\n");
  CHECK_FALSE(table.columns[0].numeric);
  CHECK(table.columns[0].numbers.empty());
  CHECK(texts(table.columns[0]) == Strings{"007", "1e1", "x"});
  CHECK(table.index("v") == 1);
  CHECK(holds(message_of<UsageError>([&] { (void)table.index("w"); }), "k, v"));
  const std::string message = message_of<DataError>([&] { (void)to_matrix(table); });
  CHECK(holds(message, "column 'k' holds text (row 3: 'x')"));
}

TEST_CASE("csv: numbers, in any locale") {
  const Table table =
      parse("-0\n+1.5\n.5\n5.\n1e-400\n-1e-99999999999999999999\n1E+2\n0.1\n4.9e-324\n1.7976931348623157e308\n0e999999999999\n");
  const std::vector<double>& v = table.columns[0].numbers;
  REQUIRE(table.columns[0].numeric);
  CHECK(std::signbit(v[0]));
  CHECK(v[1] == 1.5);
  CHECK(v[2] == 0.5);
  CHECK(v[3] == 5);
  CHECK(v[4] == 0);
  CHECK((v[5] == 0 && std::signbit(v[5])));
  CHECK(v[6] == 100);
  CHECK(v[7] == 0.1);
  CHECK(v[8] == std::numeric_limits<double>::denorm_min());
  CHECK(v[9] == std::numeric_limits<double>::max());
  CHECK(v[10] == 0);
  for (const char* text : {"0x10", "1,5", "1e", "--1", "+-1", "1_000", "1.2.3", "e5", "+", "-", "nan(1)", "NAN", "1f"}) {
    CAPTURE(text);
    CHECK_FALSE(parse(join("h\n\"", text, "\"\n")).columns[0].numeric);
  }
}

TEST_CASE("csv: infinities are refused among numbers and harmless in text") {
  for (const char* cell : {"inf", "-inf", "Infinity", "INF", "1e999", "-1e309", "1e99999999999999999999", "+inf"}) {
    CAPTURE(cell);
    const std::string message = message_of<DataError>([&] { parse(join("a,b\n1,2\n3,", cell, "\n4,5\n")); });
    CHECK(holds(message, "line 3: column 'b' holds an infinite number"));
  }
  CHECK(parse("a,b\n1,inf\n2,x\n").columns[1].text[0] == "inf");
}

TEST_CASE("csv: a constant column and a single row are data like others") {
  const Table table = parse("a,b\n1,5\n2,5\n");
  CHECK(table.columns[1].numbers == std::vector<double>{5, 5});
  CHECK(parse("7,8\n").rows == 1);
  CHECK(parse("7").columns[0].numbers[0] == 7);
  const MatrixD x = to_matrix(parse("1,2\n3,\n"));
  CHECK(shape(x) == "(2, 2)");
  CHECK(x(1, 0) == 3);
  CHECK(std::isnan(x(1, 1)));
}

namespace {
std::vector<Fixture> hostile_tables() {
  std::vector<Fixture> f = {
      {"empty file", "", "empty"},
      {"line ends only", "\n\r\n\n", "empty"},
      {"byte order mark only", "\xEF\xBB\xBF", "empty"},
      {"header without rows", "a,b\n", "no rows"},
      {"header without a line end", "a", "no rows"},
      {"row too short", "a,b\n1\n", "line 2 has 1 cell, expected 2"},
      {"row too long", "a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, expected 2"},
      {"trailing comma in one row", "1,2\n3,4,\n", "line 2 has 3 cells, expected 2"},
      {"blank line inside", "1,2\n\n3,4\n", "line 2 has 1 cell, expected 2"},
      {"short row behind CRLF", "a,b\r\n1,2\r\n3\r\n", "line 3 has 1 cell"},
      {"short row behind a quoted line end", "a,b\n\"1\n\",2\n3\n", "line 4 has 1 cell"},
      {"quote never closed", "a,b\n\"1,2\n3,4\n", "line 2: a quote is opened and never closed"},
      {"quote never closed at the end", "a\n\"", "never closed"},
      {"escaped quote at the end", "a\n\"\"\"", "never closed"},
      {"quote inside an unquoted cell", "a\n5\" pipe\n", "line 2: a quote inside an unquoted cell"},
      {"text after a closing quote", "a\n\"x\"y\n", "text follows a closing quote"},
      {"number after a closing quote", "a,b\n\"1\"2,3\n", "text follows a closing quote"},
      {"lone carriage return", "a,b\r1,2\r", "carriage return without a line feed"},
      {"carriage return in a cell", "a,b\n1\r2,3\n", "line 2: a carriage return"},
      {"repeated names", "a,b,a\n1,2,3\n", "two columns are named 'a'"},
      {"repeated names through quotes", "a,\"a\"\n1,2\n", "two columns are named 'a'"},
      {"a name that is another's default", "x2,\n1,2\n", "two columns are named 'x2'"},
      {"infinity", "a\ninf\n", "infinite"},
      {"minus infinity", "1,2\n-inf,3\n", "line 2: column 'x1'"},
      {"a number beyond double", "1\n2\n1e309\n", "line 3: column 'x1'"},
      {"a number far beyond double", "1\n-123456789e99999999999999\n", "infinite"},
      {"an exponent at the edge of 64 bits", "1\n123456e9223372036854775807\n", "infinite"},
      {"a long number beyond double", "1\n1" + std::string(400, '0') + "\n", "line 2"},
      {"NUL byte", std::string("a\n1\0\n", 5), "line 2 holds a NUL byte"},
      {"NUL byte in quotes", std::string("a\n\"\0\"\n", 6), "NUL byte"},
      {"a .npy file", std::string("\x93NUMPY\x01\0", 8), "not UTF-8"},
      {"UTF-16 little-endian",
       std::string("\xFF\xFE"
                   "1\0\n\0",
                   6),
       "UTF-16"},
      {"UTF-16 big-endian",
       std::string("\xFE\xFF\0"
                   "1",
                   4),
       "UTF-16"},
      {"Latin-1 text", "n,v\nM\xFCller,1\n", "line 2 holds text that is not UTF-8"},
      {"overlong UTF-8", "a\n\xC0\xAF\n", "not UTF-8"},
      {"surrogate in UTF-8", "a\n\xED\xA0\x80\n", "not UTF-8"},
      {"beyond U+10FFFF", "a\n\xF4\x90\x80\x80\n", "not UTF-8"},
      {"UTF-8 cut off at the end", "a\n\xE2\x82", "not UTF-8"},
      {"lone continuation byte", "a\n1\n\x80", "line 3 holds"},
      {"65,537 columns", std::string(65'536, ','), "more than 65536 columns"},
      {"65,537 columns in a later row", "1\n" + std::string(65'536, ','), "line 2: more than 65536 columns"},
      {"bzip2", "BZh91AY&SY", "compressed"},
      {"xz",
       std::string("\xFD"
                   "7zXZ\0",
                   6),
       "compressed"},
      {"zip or spreadsheet", "PK\x03\x04xl", "compressed"},
      {"zstd", "\x28\xB5\x2F\xFD", "compressed"},
  };
#ifdef TWEEDIE_HAVE_ZLIB
  std::string bad_crc = kGzip;
  bad_crc[24] ^= 1;
  std::string bad_length = kGzip;
  bad_length[28] ^= 1;
  std::string bad_method = kGzip;
  bad_method[2] = 9;
  f.insert(f.end(), {{"gzip: magic alone", kGzip.substr(0, 2), "truncated"},
                     {"gzip: header alone", kGzip.substr(0, 10), "truncated"},
                     {"gzip: cut in its data", kGzip.substr(0, 18), "truncated"},
                     {"gzip: cut in its checksum", kGzip.substr(0, 26), "truncated"},
                     {"gzip: wrong checksum", bad_crc, "damaged"},
                     {"gzip: wrong length", bad_length, "damaged"},
                     {"gzip: unknown method", bad_method, "damaged"},
                     {"gzip: trailing bytes", kGzip + "xyz", "bytes follow"},
                     {"gzip: a second member cut off", kGzip + kGzip.substr(0, 12), "truncated"}});
#else
  f.push_back({"gzip without zlib", "\x1f\x8b\x08", "no zlib"});
#endif
  return f;
}
}  // namespace

TEST_CASE("csv: hostile tables are refused, each for its reason") {
  check_refused<DataError>("csv", hostile_tables(), [](const std::string& bytes) { parse(bytes); });
}

TEST_CASE("csv: every truncation and every flip of a small table loads or is refused") {
  const std::string valid = "\xEF\xBB\xBFid,\"na\"\"me\",v\r\n1,\"x,\ny\",-2.5e3\r\n2,\xC3\xA9,NA\r\n";
  const auto load = [](const std::string& bytes) {
    const Table table = parse(bytes);
    REQUIRE(table.rows > 0);
    for (const Table::Column& c : table.columns) {
      REQUIRE((c.numeric ? static_cast<Index>(c.numbers.size()) : c.text.size()) == table.rows);
    }
  };
  load(valid);
  const Outcome cuts = try_truncations(valid, load);
  const Outcome flips = try_flips(valid, load);
  CHECK(cuts.refused > 10);
  CHECK(flips.refused > 10);
  CHECK(flips.loaded > 10);  // another digit is another table
}

#ifdef TWEEDIE_HAVE_ZLIB
TEST_CASE("csv: gzip is read by its magic bytes, members one after another") {
  CHECK(parse(kGzip).columns[1].numbers == std::vector<double>{2, 4});
  const Outcome cuts = try_truncations(kGzip, [](const std::string& bytes) { parse(bytes); });
  CHECK(cuts.loaded == 0);
  try_flips(kGzip, [](const std::string& bytes) { parse(bytes); });
  // The second member's header row is then a row of text: what matters is that its content is appended.
  CHECK(parse(kGzip + kGzip).rows == 5);
}
#endif

TEST_CASE("csv: what is written reads back bit for bit") {
  const TempDir dir;
  std::mt19937_64 bits(7);
  MatrixD doubles(200, 3);
  Matrix floats(200, 3);
  for (Index i = 0; i < doubles.size(); ++i) {
    do {
      const std::uint64_t pattern = bits();
      std::memcpy(&doubles.data()[i], &pattern, 8);
    } while (!std::isfinite(doubles.data()[i]));
    do {
      const auto pattern = static_cast<std::uint32_t>(bits());
      std::memcpy(&floats.data()[i], &pattern, 4);
    } while (!std::isfinite(floats.data()[i]));
  }
  const Strings names{"a", "b, \"c\"", " d\n"};
  write_csv(dir / "d.csv", names, doubles.view());
  write_csv(dir / "f.csv", {}, floats.view(), {.delimiter = ';'});
  const Table d = read_csv(dir / "d.csv");
  CHECK(d.names() == names);
  const MatrixD back = to_matrix(d);
  CHECK(std::memcmp(back.data(), doubles.data(), sizeof(double) * 600) == 0);
  const Matrix back_f(to_matrix(read_csv(dir / "f.csv", {.delimiter = ';'})).view());
  CHECK(std::memcmp(back_f.data(), floats.data(), sizeof(float) * 600) == 0);
}

TEST_CASE("csv: tables keep names, types, order and missing cells") {
  const TempDir dir;
  const Table table = parse("k,v\n\"a,b\",1\n,NA\n\"q\"\"\",0.1\n\" x\",3\n");
  write_csv(dir / "t.csv", table);
  CHECK(slurp(dir / "t.csv") == "k,v\n\"a,b\",1\n,NaN\n\"q\"\"\",0.1\n\" x\",3\n");
  const Table back = read_csv(dir / "t.csv");
  CHECK(texts(back.columns[0]) == texts(table.columns[0]));
  CHECK(back.columns[1].numbers[2] == 0.1);
  // One column: a missing text cell would be an empty line.
  const Table one = parse("k\na\n\"\"\nb\n\"\"\n");
  write_csv(dir / "one.csv", one);
  CHECK(texts(read_csv(dir / "one.csv").columns[0]) == Strings{"a", "", "b", ""});
  CHECK(to_table({}, MatrixD{{1, 2}}.view()).names() == Strings{"x1", "x2"});
}

TEST_CASE("csv: rows are written as they come and the file appears at close") {
  const TempDir dir;
  const Strings names{"a", "b"};
  CsvWriter writer(dir / "w.csv", names);
  writer.append(Matrix{{1, 2}}.view());
  writer.append(MatrixD{{0.1, 4}, {5, 6}}.view());
  CHECK_FALSE(std::filesystem::exists(dir / "w.csv"));
  CHECK_THROWS_AS(writer.append(Matrix{{1, 2, 3}}.view()), UsageError);
  writer.close();
  CHECK(slurp(dir / "w.csv") == "a,b\n1,2\n0.1,4\n5,6\n");
  CHECK_THROWS_AS(writer.append(Matrix{{1, 2}}.view()), UsageError);
  CHECK_THROWS_AS(writer.close(), UsageError);
  { CsvWriter dropped(dir / "dropped.csv", names); }
  CHECK(dir.entries() == 1);
  // Many rows, so that the pending text is flushed in between.
  CsvWriter large(dir / "large.csv");
  const Matrix rows(1000, 5);
  for (int i = 0; i < 100; ++i) large.append(rows.view());
  large.close();
  CHECK(read_csv(dir / "large.csv").rows == 100'000);
}

TEST_CASE("csv: the writer refuses what would not read back") {
  const TempDir dir;
  const std::string path = dir / "x.csv";
  const auto write_names = [&](const Strings& names) {
    write_csv(path, names, Matrix(1, static_cast<Index>(names.size())).view());
  };
  CHECK(holds(message_of<UsageError>([&] { write_names({"1", "2"}); }), "read back as a row"));
  CHECK(holds(message_of<UsageError>([&] { write_names({"a", "a"}); }), "two columns are named 'a'"));
  CHECK_THROWS_AS(write_names({"a\xFF"}), UsageError);
  CHECK_THROWS_AS(write_csv(path, Strings{"a"}, Matrix(1, 2).view()), UsageError);
  CHECK_THROWS_AS(parse("1\n", {.delimiter = '"'}), UsageError);
  CHECK_THROWS_AS(parse("1\n", {.delimiter = '.'}), UsageError);
  CHECK_THROWS_AS(parse("1\n", {.delimiter = '\n'}), UsageError);
  CHECK_THROWS_AS(parse("1\n", {.delimiter = '7'}), UsageError);
  Table headless = parse("1,2\n3,x\n");
  CHECK_FALSE(headless.has_header);
  write_csv(path, headless);
  CHECK(slurp(path) == "1,2\n3,x\n");
  Table text_first = parse("a,b\nx,1\n");
  text_first.has_header = false;
  CHECK(holds(message_of<UsageError>([&] { write_csv(path, text_first); }), "give names"));
  CHECK(slurp(path) == "1,2\n3,x\n");
}

TEST_CASE("csv: a missing file and a directory are I/O errors with a remedy") {
  const TempDir dir;
  CHECK(holds(message_of<IoError>([&] { (void)read_csv(dir / "no.csv"); }), "No such file or directory; check the path"));
  CHECK(holds(message_of<IoError>([&] { (void)read_csv(dir.path()); }), "is a directory"));
}

TEST_CASE("csv: real files") {
  const std::string shared = TWEEDIE_SHARED_DATA;
  if (!std::filesystem::exists(shared)) {
    MESSAGE("skipped: there is no ", shared);
    return;
  }
  const Table faithful = read_csv(shared + "/points2d/faithful.csv");
  CHECK(faithful.rows == 272);
#ifdef TWEEDIE_HAVE_ZLIB
  const MatrixD wine = to_matrix(read_csv(shared + "/uci_density/winequality-white.csv.gz"));
  CHECK(shape(wine) == "(4898, 12)");
  CHECK(wine(0, 3) == 20.7);
  const MatrixD digits = to_matrix(read_csv(shared + "/sklearn/digits.csv.gz"));
  CHECK(shape(digits) == "(1797, 65)");
#endif
}
