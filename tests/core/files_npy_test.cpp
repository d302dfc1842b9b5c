// SPDX-License-Identifier: MIT
#include "tweedie/core/files/npy.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "files_support.h"

using namespace files_test;

namespace {

/// A .npy file: version, header as given with padding and line end, data.
std::string file(const std::string& dict, const std::string& data, int version = 1) {
  const std::string header = dict + std::string(16, ' ') + "\n";
  return "\x93NUMPY" + le(static_cast<std::uint64_t>(version), 2) + le(header.size(), version == 1 ? 2 : 4) + header + data;
}
std::string dict(const std::string& descr, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <class S = double>
MatrixX<S> parse(const std::string& bytes, const NpyOptions& options = {}) {
  const ExactBytes exact(bytes);
  return parse_npy<S>(exact.span(), "hostile.npy", options);
}

template <class S>
std::vector<S> values(const MatrixX<S>& m) {
  return {m.data(), m.data() + m.size()};
}

const std::string kTwoFloats = raw<float>({1.5f, -2});

}  // namespace

TEST_CASE("npy: each type is read as it is, or refused where S cannot hold it") {
  const std::vector<double> expected{1, 0};
  const auto check_type = [&](const std::string& descr, const std::string& data) {
    CAPTURE(descr);
    CHECK(values(parse<double>(file(dict(descr, "(2,)"), data))) == expected);
    CHECK(values(parse<float>(file(dict(descr, "(2, 1)"), data))) == std::vector<float>{1, 0});
  };
  check_type("<f4", raw<float>({1, 0}));
  check_type("<f8", raw<double>({1, 0}));
  check_type("|b1", std::string("\1\0", 2));
  check_type("|u1", std::string("\1\0", 2));
  check_type("|i1", std::string("\1\0", 2));
  check_type("<u2", raw<std::uint16_t>({1, 0}));
  check_type("<i2", raw<std::int16_t>({1, 0}));
  check_type("<u4", raw<std::uint32_t>({1, 0}));
  check_type("<i4", raw<std::int32_t>({1, 0}));
  check_type("<u8", raw<std::uint64_t>({1, 0}));
  check_type("<i8", raw<std::int64_t>({1, 0}));
  CHECK(values(parse(file(dict("|i1", "(1,)"), "\xFF"))) == std::vector<double>{-1});
  CHECK(values(parse(file(dict("|u1", "(1,)"), "\xFF"))) == std::vector<double>{255});

  const std::int64_t most = std::int64_t{1} << 53;
  CHECK(values(parse(file(dict("<i8", "(2,)"), raw<std::int64_t>({most, -most})))) == std::vector<double>{0x1p53, -0x1p53});
  for (const std::int64_t beyond :
       {most + 1, -most - 1, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()}) {
    CHECK(holds(message_of<DataError>([&] { parse(file(dict("<i8", "(1,)"), raw<std::int64_t>({beyond}))); }), "holds exactly"));
  }
  CHECK_THROWS_AS(parse(file(dict("<u8", "(1,)"), raw<std::uint64_t>({~std::uint64_t{0}}))), DataError);
  CHECK_THROWS_AS(parse<float>(file(dict("<i4", "(1,)"), raw<std::int32_t>({(1 << 24) + 1}))), DataError);
  CHECK_THROWS_AS(parse<float>(file(dict("<f8", "(1,)"), raw<double>({1e300}))), DataError);
  CHECK(values(parse<float>(file(dict("<f8", "(1,)"), raw<double>({0.1})))) == std::vector<float>{0.1f});
}

TEST_CASE("npy: versions 1, 2 and 3, and numpy's other ways of writing the header") {
  for (const int version : {1, 2, 3}) {
    CHECK(shape(parse(file(dict("<f4", "(1, 2)"), kTwoFloats, version))) == "(1, 2)");
  }
  for (const char* header : {"{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 1)}",
                             "{'shape':(2,1),'fortran_order':False,'descr':'<f4'}",
                             "{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 1 , ) , }"}) {
    CAPTURE(header);
    CHECK(shape(parse(file(header, kTwoFloats))) == "(2, 1)");
  }
}

TEST_CASE("npy: Fortran order and any rank up to 8") {
  // x = [[0, 1, 2], [3, 4, 5]] by columns.
  CHECK(values(parse(file(dict("|u1", "(2, 3)", "True"), std::string("\0\3\1\4\2\5", 6)))) ==
        std::vector<double>{0, 1, 2, 3, 4, 5});
  // x[i, j, k] = 12 i + 4 j + k, shape (2, 3, 4): element (i, j, k) is stored at i + 2 j + 6 k.
  std::string stored(24, '\0');
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k) stored[static_cast<std::size_t>(i + 2 * j + 6 * k)] = static_cast<char>(12 * i + 4 * j + k);
    }
  }
  const std::string bytes = file(dict("|u1", "(2, 3, 4)", "True"), stored);
  const NpyArray<float> array = parse_npy_array<float>(bytes_of(bytes), "x");
  CHECK(array.shape == std::vector<Index>{2, 3, 4});
  CHECK(shape(array.values) == "(2, 12)");
  for (Index i = 0; i < 24; ++i) CHECK(array.values.data()[i] == static_cast<float>(i));
  CHECK(holds(message_of<DataError>([&] { parse(bytes); }), "3 dimensions, a table has 2"));
  const std::string eight = file(dict("|u1", "(1, 1, 1, 1, 1, 1, 1, 2)"), "ab");
  CHECK(shape(parse_npy_array<float>(bytes_of(eight), "x").values) == "(1, 2)");
}

TEST_CASE("npy: NaN passes, an infinity where the caller says so") {
  const std::string bytes = file(dict("<f8", "(2,)"), raw<double>({NAN, -HUGE_VAL}));
  CHECK(holds(message_of<DataError>([&] { parse(bytes); }), "element 1 is infinite"));
  const Matrix m = parse<float>(bytes, {.allow_infinite = true});
  CHECK(std::isnan(m(0, 0)));
  CHECK(m(1, 0) == -HUGE_VALF);
}

namespace {
std::vector<Fixture> hostile_arrays() {
  const auto header = [](const std::string& reason, const std::string& text, const std::string& says) {
    return Fixture{reason, file(text, kTwoFloats), says};
  };
  const std::string valid = file(dict("<f4", "(2,)"), kTwoFloats);
  std::string magic = valid;
  magic[1] = 'n';
  std::string minor = valid;
  minor[7] = 1;
  std::string long_header = valid;
  long_header[8] = '\xFF';
  long_header[9] = '\xFF';
  return {
      {"empty file", "", "does not begin"},
      {"magic alone", valid.substr(0, 6), "too few"},
      {"magic and version", valid.substr(0, 8), "too few"},
      {"wrong magic", magic, "does not begin"},
      {"a zip", "PK\x03\x04", "does not begin"},
      {"text", "1,2\n3,4\n5,6\n", "does not begin"},
      {"version 0", file(dict("<f4", "(2,)"), kTwoFloats, 0), "version 0.0 is unknown"},
      {"version 4", file(dict("<f4", "(2,)"), kTwoFloats, 4), "version 4.0 is unknown"},
      {"version 1.1", minor, "version 1.1 is unknown"},
      {"a header longer than the file", long_header, "it is truncated"},
      {"a header of 4 GiB", "\x93NUMPY" + le(2, 2) + le(0xFFFFFFFF, 4) + std::string(64, ' '), "too long"},
      {"an empty header", "\x93NUMPY" + le(1, 2) + le(0, 2) + kTwoFloats, "something else than '{'"},
      header("no dict", "[1]", "something else than '{'"),
      header("an empty dict", "{}", "missing key"),
      header("no shape", "{'descr': '<f4', 'fortran_order': False}", "missing key"),
      header("no type", "{'fortran_order': False, 'shape': (2,)}", "missing key"),
      header("no order", "{'descr': '<f4', 'shape': (2,)}", "missing key"),
      header("an unknown key", "{'descr': '<f4', 'x': 1}", "unknown key"),
      header("a repeated key", "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", "repeated key"),
      header("no end of the dict", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", "something else than '}'"),
      header("no end of a string", "{'descr", "string without an end"),
      header("an escape in a string", "{'de\\x73cr': '<f4'}", "an escape"),
      header("no colon", "{'descr' '<f4'}", "something else than ':'"),
      header("no comma", "{'descr': '<f4' 'shape': (2,)}", "something else than '}'"),
      header("text after the dict", dict("<f4", "(2,)") + " import os", "text after the end"),
      header("code for a type", "{'descr': __import__('os'), 'fortran_order': False, 'shape': (2,)}",
             "something else than a string"),
      header("an order that is no bool", dict("<f4", "(2,)", "Maybe"), "True or False"),
      header("an order that is a number", dict("<f4", "(2,)", "0"), "True or False"),
      header("a shape without brackets", dict("<f4", "2"), "something else than '('"),
      header("a shape in square brackets", dict("<f4", "[2]"), "something else than '('"),
      header("a number in brackets", dict("<f4", "(2)"), "where a tuple must be"),
      header("a shape without commas", dict("<f4", "(1 2)"), "without commas"),
      header("a shape of commas", dict("<f4", "(,)"), "than an integer"),
      header("a negative dimension", dict("<f4", "(-2,)"), "zero or negative"),
      header("a zero dimension", dict("<f4", "(0,)"), "zero or negative"),
      header("a zero dimension after another", dict("<f4", "(2, 0)"), "zero or negative"),
      header("a fractional dimension", dict("<f4", "(2.0,)"), "without commas"),
      header("a text dimension", dict("<f4", "('2',)"), "than an integer"),
      header("a dimension of 2^63", dict("<f4", "(9223372036854775808,)"), "no memory holds"),
      header("a dimension of 300 digits", dict("<f4", "(" + std::string(300, '9') + ",)"), "no memory holds"),
      header("bytes that wrap to zero", dict("<f4", "(4611686018427387904,)"), "needs more bytes"),
      header("a product that wraps to zero", dict("<f4", "(4294967296, 4294967296)"), "needs more bytes"),
      header("a product that wraps to the size", dict("<f4", "(2147483649, 8589934592, 2)"), "needs more bytes"),
      header("rank 9", dict("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 2)"), "more than 8 dimensions"),
      header("rank 0", dict("<f8", "()"), "a single number"),
      header("rank 3 for a table", dict("<f4", "(1, 2, 1)"), "3 dimensions"),
      header("one element too many", dict("<f4", "(3,)"), "needs more bytes than the 8"),
      header("a gigabyte claimed", dict("<f8", "(134217728,)"), "needs more bytes than the 8"),
      header("trailing bytes", dict("<f4", "(1,)"), "it is damaged"),
      header("big-endian", dict(">f4", "(2,)"), "big-endian"),
      header("big-endian integers", dict(">i8", "(1,)"), "big-endian"),
      header("pickled objects", dict("|O", "(1,)"), "pickled Python objects"),
      header("pickled objects, sized", dict("|O8", "(1,)"), "pickled Python objects"),
      header("a structured type", "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (1,)}",
             "structured array"),
      header("half precision", dict("<f2", "(4,)"), "not one we read"),
      header("long double", dict("<f16", "(1,)"), "not one we read"),
      header("complex", dict("<c8", "(1,)"), "not one we read"),
      header("text elements", dict("<U1", "(2,)"), "not one we read"),
      header("dates", dict("<M8[s]", "(1,)"), "not one we read"),
      header("a type of size 0", dict("<f0", "(2,)"), "not one we read"),
      header("an empty type", dict("", "(2,)"), "not one we read"),
      {"a bool of 2", file(dict("|b1", "(2,)"), "\1\2"), "neither 0 nor 1"},
      {"an infinity", file(dict("<f4", "(1,)"), raw<float>({HUGE_VALF})), "infinite"},
      {"an integer beyond a double", file(dict("<u8", "(1,)"), raw<std::uint64_t>({~std::uint64_t{0}})), "holds exactly"},
  };
}
}  // namespace

TEST_CASE("npy: hostile files are refused, each for its reason") {
  check_refused<DataError>("npy", hostile_arrays(), [](const std::string& bytes) { parse(bytes); });
}

TEST_CASE("npy: every truncation is refused, every flip loads or is refused") {
  const std::string valid = file(dict("<f8", "(2, 3)", "True"), raw<double>({1, 2, 3, 4, 5, 6}));
  const Outcome cuts = try_truncations(valid, [](const std::string& bytes) { parse(bytes); });
  CHECK(cuts.loaded == 0);
  const Outcome flips = try_flips(valid, [](const std::string& bytes) {
    const MatrixD x = parse(bytes);
    REQUIRE(x.size() > 0);
  });
  CHECK(flips.refused > 300);
  CHECK(flips.loaded > 300);  // other values
}

TEST_CASE("npy: round trips, strided rows and shapes") {
  const TempDir dir;
  MatrixD d(70'000, 3);
  std::iota(d.data(), d.data() + d.size(), -1000.25);
  write_npy(dir / "d.npy", d.view());
  CHECK(values(read_npy<double>(dir / "d.npy")) == values(d));
  write_npy(dir / "s.npy", ConstRows<double>(d.view()).middle_cols(1, 2));
  const MatrixD s = read_npy<double>(dir / "s.npy");
  CHECK(shape(s) == "(70000, 2)");
  CHECK(s(69'999, 1) == d(69'999, 2));
  const Matrix f{{1, NAN}, {3, 4}};
  write_npy(dir / "f.npy", f.view());
  CHECK(std::memcmp(read_npy<float>(dir / "f.npy").data(), f.data(), 16) == 0);
  const Index cube[] = {2, 1, 2};
  write_npy(dir / "c.npy", f.view(), cube);
  CHECK(read_npy_array<float>(dir / "c.npy").shape == std::vector<Index>{2, 1, 2});
  const Index flat[] = {4};
  write_npy(dir / "v.npy", f.view(), flat);
  CHECK(shape(read_npy<float>(dir / "v.npy")) == "(4, 1)");
  const Index wrong[] = {3};
  CHECK_THROWS_AS(write_npy(dir / "w.npy", f.view(), wrong), UsageError);
  CHECK_THROWS_AS(write_npy(dir / "w.npy", Matrix(0, 3).view()), UsageError);
  CHECK_THROWS_AS(read_npy<float>(dir / "w.npy"), IoError);
  // As numpy lays it out: the data at a multiple of 64, the tuple of one element with its comma.
  const std::string bytes = slurp(dir / "v.npy");
  CHECK(bytes.size() == 128 + 16);
  CHECK(holds(bytes, "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"));
  CHECK(holds(slurp(dir / "c.npy"), "'shape': (2, 1, 2), }"));
  CHECK(bytes[127] == '\n');
}
