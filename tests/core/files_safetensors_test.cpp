// SPDX-License-Identifier: MIT
#include "tweedie/core/files/safetensors.h"

#include <cmath>
#include <limits>

#include "files_support.h"
#include "tweedie/core/files/checksum.h"

using namespace files_test;

namespace {

/// A file with this JSON (padded to a multiple of 8) and this much tensor data, zeros.
std::string file(std::string json, std::size_t data_bytes) {
  json.resize((json.size() + 7) / 8 * 8, ' ');
  return le(json.size(), 8) + json + std::string(data_bytes, '\0');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, std::size_t begin,
                  std::size_t end) {
  return join("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape, "],\"data_offsets\":[", begin, ",", end, "]}");
}

SafetensorsFile parse(const std::string& bytes, const SafetensorsOptions& options = {}) {
  return SafetensorsFile(file_bytes(bytes), "hostile.safetensors", options);
}

template <class T>
std::vector<T> read(const SafetensorsFile& f, std::string_view name, std::vector<Index> shape, std::size_t size) {
  std::vector<T> out(size);
  f.read<T>(name, shape, out);
  return out;
}

template <class T>
std::string raw(std::initializer_list<T> values) {
  return std::string(reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T));
}

// safetensors 0.8.0, numpy 2.4.6: save({"b": float32 [1, 2, 3], "a": float64 [[.5], [-1]], "n": int64 scalar 7, "c": uint8 [9]},
// {"k": "\"v\"\n\u00e9"}). The library keeps metadata in no particular order, hence a single entry.
const std::string kPythonHeader =
    "{\"__metadata__\":{\"k\":\"\\\"v\\\"\\n\xC3\xA9\"},\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
    "\"a\":{\"dtype\":\"F64\",\"shape\":[2,1],\"data_offsets\":[8,24]},\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":["
    "24,36]},"
    "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[36,37]}}";

std::string python_file() {
  std::string f = file(kPythonHeader, 0);
  f += raw<std::int64_t>({7}) + raw<double>({0.5, -1}) + raw<float>({1, 2, 3}) + "\x09";
  return f;
}

}  // namespace

TEST_CASE("safetensors: a file of the Python library, and the same bytes from us") {
  const SafetensorsFile f = parse(python_file());
  CHECK(f.meta("k") == "\"v\"\n\xC3\xA9");
  CHECK(f.tensors().size() == 4);
  CHECK(read<float>(f, "b", {3}, 3) == std::vector<float>{1, 2, 3});
  CHECK(read<double>(f, "a", {2, 1}, 2) == std::vector<double>{0.5, -1});
  CHECK(read<std::int64_t>(f, "n", {}, 1) == std::vector<std::int64_t>{7});
  CHECK(f.at("c").dtype == Dtype::u8);
  CHECK(f.at("a").size() == 2);
  CHECK(f.data().size() == 37);

  const TempDir dir;
  const float b[] = {1, 2, 3};
  const double a[] = {0.5, -1};
  const std::int64_t n[] = {7};
  const std::uint8_t c[] = {9};
  const NamedTensor tensors[] = {named_tensor<float>("b", {3}, b), named_tensor<double>("a", {2, 1}, a),
                                 named_tensor<std::int64_t>("n", {}, n), named_tensor<std::uint8_t>("c", {1}, c)};
  write_safetensors(dir / "m.safetensors", tensors, {{"k", "\"v\"\n\xC3\xA9"}});
  CHECK(slurp(dir / "m.safetensors") == python_file());
  CHECK(dir.entries() == 1);
  CHECK(SafetensorsFile(dir / "m.safetensors").tensors().size() == 4);
}

TEST_CASE("safetensors: what a model asks for is checked against what is there") {
  const SafetensorsFile f = parse(python_file());
  std::vector<float> out(3);
  const Index three[] = {3};
  const Index two[] = {2};
  CHECK(holds(message_of<ModelFileError>([&] { f.read<float>("w", three, out); }), "there is no tensor \"w\""));
  CHECK(holds(message_of<ModelFileError>([&] { f.read<float>("b", two, out); }), "has the shape (3), the model needs (2)"));
  CHECK(holds(message_of<ModelFileError>([&] { f.read<float>("a", three, out); }), "is of type F64, the model needs F32"));
  CHECK_THROWS_AS(f.read<float>("b", three, std::span(out).first(2)), UsageError);
  CHECK(holds(message_of<ModelFileError>([&] { (void)f.meta("tweedie.format"); }), "metadata lack \"tweedie.format\""));
}

TEST_CASE("safetensors: an empty file of the format, and the order of tensors free") {
  CHECK(parse(file("{}", 0)).tensors().empty());
  CHECK(parse(file("{\"__metadata__\":{}}", 0)).metadata().empty());
  CHECK(parse(file("{" + entry("b", "F32", "1", 4, 8) + " , " + entry("a", "F32", "1", 0, 4) + "}", 8)).tensors().size() == 2);
  CHECK(parse(file("{" + entry("\\u00e9\\ud83d\\ude00", "BOOL", "1,1", 0, 1) + "}", 1)).contains("\xC3\xA9\xF0\x9F\x98\x80"));
}

namespace {
std::vector<Fixture> hostile_models() {
  const auto one = [](const std::string& json, std::size_t bytes, const std::string& reason, const std::string& says) {
    return Fixture{reason, file(json, bytes), says};
  };
  const std::string good = entry("w", "F32", "2", 0, 8);
  std::string deep = "{\"w\":";
  for (int i = 0; i < 40; ++i) deep += "{\"a\":";
  std::string deep_lists = "{\"w\":{\"shape\":";
  for (int i = 0; i < 40; ++i) deep_lists += "[";
  return {
      {"empty file", "", "truncated"},
      {"seven bytes", std::string(7, '\0'), "truncated"},
      {"no header", le(0, 8), "expected '{'"},
      {"a header larger than the file", le(16, 8) + "{}      ", "it is truncated"},
      {"a header of 2^63 bytes", le(std::uint64_t{1} << 63, 8) + "{}", "more than the format allows"},
      {"a header of 2^64 - 1 bytes", le(~std::uint64_t{0}, 8) + "{}", "more than the format allows"},
      {"a header whose length plus eight wraps", le(~std::uint64_t{0} - 7, 8) + "{}", "more than the format allows"},
      {"a header of 100,000,001 bytes", le(100'000'001, 8) + "{}", "more than the format allows"},
      {"a header of odd length", le(3, 8) + "{} ", "badly aligned"},
      {"a pickle", "\x80\x04\x95" + std::string(60, 'x'), "more than the format allows"},
      {"a zip (a PyTorch file)", "PK\x03\x04" + std::string(60, '\x01'), "more than the format allows"},
      one("[]", 0, "a list at the top", "expected '{'"),
      one("  {}", 0, "space before the brace", "expected '{'"),
      one("{", 0, "no end", "unexpected end"),
      one("{}{}", 0, "two objects", "unexpected text after the end"),
      one("{} x", 0, "text after the end", "unexpected text after the end"),
      one("{" + good + ",}", 8, "a comma too many", "expected a string"),
      one("{" + good + "," + good + "}", 8, "a repeated name", "the key \"w\" stands twice"),
      one("{" + good + "," + entry("\\u0077", "F32", "2", 8, 16) + "}", 16, "a repeated name, escaped", "stands twice"),
      one("{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "a repeated field",
          "stands twice"),
      one("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "a repeated metadata key", "stands twice"),
      one("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "two metadata objects", "stands twice"),
      one("{\"__metadata__\":{\"a\":1}}", 0, "metadata that are no text", "expected a string"),
      one("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "nested metadata", "expected a string"),
      one("{\"__metadata__\":null}", 0, "null metadata", "expected an object"),
      one("{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "no offsets", "lacks one of"),
      one("{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no type", "lacks one of"),
      one("{\"w\":{}}", 0, "an empty entry", "lacks one of"),
      one("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":\"y\"}}", 8, "an unknown field",
          "unknown field \"x\""),
      one("{\"w\":[]}", 0, "a list for an entry", "expected an object"),
      one("{" + entry("w", "F33", "2", 0, 8) + "}", 8, "an unknown type", "type \"F33\""),
      one("{" + entry("w", "f32", "2", 0, 8) + "}", 8, "a type in small letters", "type \"f32\""),
      one("{" + entry("w", "", "2", 0, 8) + "}", 8, "an empty type", "type \"\""),
      one("{" + entry("w", "F32", "0", 0, 0) + "}", 0, "a zero dimension", "dimension of zero"),
      one("{" + entry("w", "F32", "2,0", 0, 0) + "}", 0, "a zero dimension after another", "dimension of zero"),
      one("{" + entry("w", "F32", "-2", 0, 8) + "}", 8, "a negative dimension", "non-negative integer"),
      one("{" + entry("w", "F32", "2.0", 0, 8) + "}", 8, "a fractional dimension", "whole number"),
      one("{" + entry("w", "F32", "2e0", 0, 8) + "}", 8, "a dimension with an exponent", "whole number"),
      one("{" + entry("w", "F32", "02", 0, 8) + "}", 8, "a leading zero", "leading zero"),
      one("{" + entry("w", "F32", "\"2\"", 0, 8) + "}", 8, "a dimension in quotes", "non-negative integer"),
      one("{" + entry("w", "F32", "18446744073709551616", 0, 8) + "}", 8, "a dimension of 2^64", "2^64 or more"),
      one("{" + entry("w", "F32", std::string(400, '9'), 0, 8) + "}", 8, "a dimension of 400 digits", "2^64 or more"),
      one("{" + entry("w", "F32", "18446744073709551615", 0, 8) + "}", 8, "a dimension of 2^64 - 1", "no memory holds it"),
      one("{" + entry("w", "F32", "4611686018427387904", 0, 0) + "}", 0, "bytes that wrap to zero", "no memory holds it"),
      one("{" + entry("w", "F32", "4294967296,4294967296", 0, 0) + "}", 0, "a product that wraps to zero", "no memory holds it"),
      one("{" + entry("w", "F32", "3037000500,3037000500,2", 0, 8) + "}", 8, "a product that overflows", "no memory holds it"),
      one("{" + entry("w", "F32", "1,1,1,1,1,1,1,1,2", 0, 8) + "}", 8, "rank 9", "more than 8 numbers"),
      one("{" + entry("w", "F32", "3", 0, 8) + "}", 8, "shape and bytes disagree", "12 bytes, but data_offsets give it 8"),
      one("{" + entry("w", "F64", "2", 0, 8) + "}", 8, "type and bytes disagree", "16 bytes, but data_offsets give it 8"),
      one("{" + entry("w", "F32", "2", 8, 0) + "}", 8, "offsets backwards", "begins at byte 8 and ends at 0"),
      one("{" + entry("w", "F32", "2", 8, 16) + "}", 8, "offsets beyond the file", "the file ends after 8: it is truncated"),
      one("{" + entry("w", "F32", "250000000", 0, 1'000'000'000) + "}", 8, "a gigabyte claimed", "the file ends after 8"),
      one("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "a negative offset", "non-negative integer"),
      one("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, "one offset", "1 data_offsets instead of 2"),
      one("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "three offsets", "more than 2 numbers"),
      one("{" + entry("w", "F32", "2", 4, 12) + "}", 12, "a hole at the start", "hole of 4 bytes"),
      one("{" + good + "," + entry("v", "F32", "2", 12, 20) + "}", 20, "a hole in the middle",
          "hole of 4 bytes before tensor \"v\""),
      one("{" + good + "," + entry("v", "F32", "2", 4, 12) + "}", 12, "an overlap", "inside the one before it"),
      one("{" + good + "," + entry("v", "F32", "2", 0, 8) + "}", 8, "two tensors on the same bytes", "inside the one before it"),
      one("{" + good + "}", 9, "a trailing byte", "1 bytes follow the last tensor"),
      one("{}", 8, "data without tensors", "8 bytes follow"),
      one("{" + entry("a", "U8", "1", 0, 1) + "," + entry("w", "F32", "1", 1, 5) + "}", 5, "bad alignment",
          "badly aligned for F32"),
      one(deep, 0, "deep objects", "unknown field \"a\""),
      one(deep_lists, 0, "deep lists", "non-negative integer"),
      one("{\"\x80\":{}}", 0, "a name that is not UTF-8", "not UTF-8"),
      one("{\"\xC0\x80\":{}}", 0, "an overlong NUL", "not UTF-8"),
      one("{\"\\ud800\":{}}", 0, "half a surrogate pair", "half a surrogate pair"),
      one("{\"\\udc00\":{}}", 0, "the other half", "half a surrogate pair"),
      one("{\"\\ud800\\u0041\":{}}", 0, "half a pair and a letter", "half a surrogate pair"),
      one("{\"\\u12g4\":{}}", 0, "a bad escape", "four hexadecimal digits"),
      one("{\"\\x41\":{}}", 0, "an unknown escape", "unknown escape"),
      one("{\"a\nb\":{}}", 0, "a raw line end in a name", "control character"),
      one(std::string("{\"a\0b\":{}}", 10), 0, "a raw NUL in a name", "control character"),
      one("{\"" + std::string(513, 'n') + "\":{}}", 0, "a name of 513 bytes", "more than 512 bytes"),
      one("{'w':{}}", 0, "single quotes", "expected a string"),
      one("{\"w\":{\"dtype\":NaN}}", 0, "a bare word", "expected a string"),
      one("{\"w\" {}}", 0, "no colon", "expected a colon"),
      one("{/**/}", 0, "a comment", "expected a string"),
      {"a NaN weight", file("{" + good + "}", 0) + raw<float>({1, std::numeric_limits<float>::quiet_NaN()}), "NaN or infinite"},
      {"an infinite weight", file("{" + entry("w", "F64", "1", 0, 8) + "}", 0) + raw<double>({-HUGE_VAL}), "NaN or infinite"},
  };
}
}  // namespace

TEST_CASE("safetensors: hostile files are refused, each for its reason") {
  check_refused<ModelFileError>("safetensors", hostile_models(), [](const std::string& bytes) { parse(bytes); });
}

TEST_CASE("safetensors: too many tensors or metadata are refused before they weigh") {
  std::string tensors = "{";
  for (int i = 0; i <= 65'536; ++i)
    tensors += (i == 0 ? "" : ",") + entry(join(i), "U8", "1", static_cast<std::size_t>(i), i + 1u);
  CHECK(holds(message_of<ModelFileError>([&] { parse(file(tensors + "}", 65'537)); }), "more than 65,536 tensors"));
  std::string metadata = "{\"__metadata__\":{";
  for (int i = 0; i <= 65'536; ++i) metadata += join(i == 0 ? "" : ",", "\"", i, "\":\"\"");
  CHECK(holds(message_of<ModelFileError>([&] { parse(file(metadata + "}}", 0)); }), "more than 65,536 metadata"));
}

TEST_CASE("safetensors: NaN and infinities pass where the caller says so") {
  const std::string bytes = file("{" + entry("w", "F32", "2", 0, 8) + "}", 0) + raw<float>({NAN, INFINITY});
  const SafetensorsFile f = parse(bytes, {.allow_non_finite = true});
  const std::vector<float> w = read<float>(f, "w", {2}, 2);
  CHECK(std::isnan(w[0]));
  CHECK(std::isinf(w[1]));
}

TEST_CASE("safetensors: every truncation is refused, every flip loads or is refused") {
  const std::string valid = python_file();
  const Outcome cuts = try_truncations(valid, [](const std::string& bytes) { parse(bytes); });
  CHECK(cuts.loaded == 0);
  const Outcome flips = try_flips(valid, [](const std::string& bytes) {
    const SafetensorsFile f = parse(bytes);
    std::size_t sum = 0;
    for (const auto& [name, tensor] : f.tensors()) sum += tensor.bytes.size();
    REQUIRE(sum == f.data().size());
  });
  CHECK(flips.refused > flips.loaded);
  CHECK(flips.loaded > 37 * 5);  // flipped values, names: what the checkpoint's checksum is for
}

TEST_CASE("safetensors: the truncated file's message says how much is missing") {
  std::string bytes = file("{" + entry("w", "F32", "100", 0, 400) + "}", 400);
  bytes.resize(bytes.size() - 44);
  const std::string message = message_of<ModelFileError>([&] { parse(bytes); });
  CHECK(message ==
        "hostile.safetensors: tensor \"w\" ends at byte 400 of the tensor data, the file ends after 356: it is truncated");
}

TEST_CASE("safetensors: the writer refuses what could not be read, and leaves nothing behind") {
  const TempDir dir;
  const float w[] = {1, 2};
  const auto write = [&](std::vector<NamedTensor> tensors, const SafetensorsMetadata& metadata = {}) {
    write_safetensors(dir / "m.safetensors", tensors, metadata);
  };
  const auto tensor = [&](std::string name, std::vector<Index> shape) {
    return named_tensor<float>(std::move(name), std::move(shape), w);
  };
  CHECK_THROWS_AS(write({tensor("a", {2}), tensor("a", {2})}), UsageError);
  CHECK_THROWS_AS(write({tensor("__metadata__", {2})}), UsageError);
  CHECK_THROWS_AS(write({tensor("a", {3})}), UsageError);
  CHECK_THROWS_AS(write({tensor("a", {-1, -2})}), UsageError);
  CHECK_THROWS_AS(write({tensor("a", {1, 1, 1, 1, 1, 1, 1, 1, 2})}), UsageError);
  CHECK_THROWS_AS(write({{"a", Dtype::f32, {0}, {}}}), UsageError);
  CHECK_THROWS_AS(write({tensor("a\xFF", {2})}), UsageError);
  CHECK_THROWS_AS(write({tensor(std::string(513, 'n'), {2})}), UsageError);
  CHECK_THROWS_AS(write({tensor("a", {2})}, {{"k", "\xFF"}}), UsageError);
  CHECK(dir.entries() == 0);
  CHECK_THROWS_AS(SafetensorsFile(dir / "no.safetensors"), IoError);
}

TEST_CASE("checksums: known answers, and going on where the last bytes ended") {
  CHECK(crc32c(bytes_of("123456789")) == 0xE3069283u);
  CHECK(crc32(bytes_of("123456789")) == 0xCBF43926u);
  CHECK(crc32c({}) == 0);
  // RFC 3720, B.4: 32 bytes of zeros, of ones, ascending, descending.
  std::string up;
  std::string down;
  for (int i = 0; i < 32; ++i) {
    up.push_back(static_cast<char>(i));
    down.push_back(static_cast<char>(31 - i));
  }
  CHECK(crc32c(bytes_of(std::string(32, '\0'))) == 0x8A9136AAu);
  CHECK(crc32c(bytes_of(std::string(32, '\xFF'))) == 0x62A8AB43u);
  CHECK(crc32c(bytes_of(up)) == 0x46DD794Eu);
  CHECK(crc32c(bytes_of(down)) == 0x113FDB5Cu);
  for (std::size_t cut = 0; cut <= up.size(); ++cut) {
    CHECK(crc32c(bytes_of(std::string_view(up).substr(cut)), crc32c(bytes_of(std::string_view(up).substr(0, cut)))) ==
          crc32c(bytes_of(up)));
  }
}
