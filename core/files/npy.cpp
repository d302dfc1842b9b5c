// SPDX-License-Identifier: MIT
#include "tweedie/core/files/npy.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "tweedie/core/check.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/detail/npy_rows.h"
#include "tweedie/core/files/file.h"

namespace tweedie {

namespace {

static_assert(std::endian::native == std::endian::little, "npy files are little-endian and read in place");

using namespace std::string_view_literals;
constexpr std::string_view kMagic = "\x93NUMPY"sv;
constexpr std::size_t kMaxHeader = 65'535;  // numpy's own writer stays under 200 for plain arrays
constexpr std::size_t kMaxRank = 8;

struct Header {
  std::string descr;
  bool fortran = false;
  std::vector<Index> shape;
};

/// Reads the one Python literal that a header may be: a dict of a string, a bool and a tuple of integers.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Header parse() {
    Header header;
    bool seen[3] = {};
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      const int which = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : 3;
      if (which == 3) fail_here("an unknown key");
      if (std::exchange(seen[which], true)) fail_here("a repeated key");
      if (which == 0) header.descr = descr();
      if (which == 1) header.fortran = boolean();
      if (which == 2) header.shape = tuple();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) fail_here("text after the end");
    if (!seen[0] || !seen[1] || !seen[2]) fail_here("a missing key (descr, fortran_order and shape are needed)");
    return header;
  }

 private:
  [[noreturn]] void fail_here(std::string_view what) const {
    fail<DataError>(name_, ": the header has ", what, " at its byte ", at_, ": it is damaged or no .npy file");
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail_here(join("something else than '", c, "'"));
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  std::string string() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') fail_here("something else than a string");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail_here("a string without an end");
    const std::string_view content = text_.substr(at_ + 1, end - at_ - 1);
    if (content.find('\\') != std::string_view::npos) fail_here("an escape in a string");
    at_ = end + 1;
    return std::string(content);
  }

  std::string descr() {
    skip_space();
    check<DataError>(at_ == text_.size() || text_[at_] != '[', name_,
                     ": it holds a structured array (named fields); save its columns ", "as one plain array of numbers");
    return string();
  }

  bool boolean() {
    if (accept_word("True")) return true;
    if (!accept_word("False")) fail_here("something else than True or False");
    return false;
  }

  std::vector<Index> tuple() {
    std::vector<Index> shape;
    bool comma = true;
    expect('(');
    while (!accept(')')) {
      if (!comma) fail_here("a tuple without commas");
      if (shape.size() == kMaxRank) fail_here("more than 8 dimensions");
      shape.push_back(integer());
      comma = accept(',');
    }
    if (shape.size() == 1 && !comma) fail_here("a number in brackets where a tuple must be");
    return shape;
  }

  Index integer() {
    skip_space();
    Index value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error == std::errc::result_out_of_range) fail_here("a dimension that no memory holds");
    if (error != std::errc()) fail_here("something else than an integer");
    if (value <= 0) fail_here("a dimension that is zero or negative: the array has no elements");
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  std::string_view text_;
  std::string_view name_;
  std::size_t at_ = 0;
};

/// The header, and what follows it in `rest`.
Header read_header(std::span<const std::byte> bytes, std::string_view name, std::span<const std::byte>& rest) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  check<DataError>(all.substr(0, kMagic.size()) == kMagic, name, ": it does not begin as a .npy file does");
  check<DataError>(all.size() >= 12, name, ": ", all.size(), " bytes are too few for a .npy file: it is truncated");
  const unsigned version = static_cast<unsigned char>(all[6]);
  check<DataError>(version >= 1 && version <= 3 && all[7] == '\0', name, ": .npy version ", version, ".",
                   static_cast<unsigned>(static_cast<unsigned char>(all[7])), " is unknown; versions 1.0 to 3.0 can be read");
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  std::uint32_t length = 0;
  std::memcpy(&length, all.data() + 8, length_bytes);
  check<DataError>(length <= kMaxHeader, name, ": a header of ", length, " bytes is too long for an array of numbers");
  check<DataError>(length <= all.size() - 8 - length_bytes, name, ": the header says it has ", length,
                   " bytes, the file ends after ", all.size() - 8 - length_bytes, ": it is truncated");
  rest = bytes.subspan(8 + length_bytes + length);
  return HeaderParser(all.substr(8 + length_bytes, length), name).parse();
}

/// Places C-order element i of an array stored in Fortran order.
class FortranOrder {
 public:
  explicit FortranOrder(const std::vector<Index>& shape) : shape_(shape), index_(shape.size(), 0) {}

  /// The stored position of the next element in C order.
  std::size_t next() {
    const Index position = position_;
    // An odometer: the last dimension turns fastest. Its stride in storage is the product of the dimensions before it.
    for (std::size_t d = shape_.size(); d-- > 0;) {
      Index stride = 1;
      for (std::size_t k = 0; k < d; ++k) stride *= shape_[k];
      position_ += stride;
      if (++index_[d] < shape_[d]) break;
      position_ -= stride * shape_[d];
      index_[d] = 0;
    }
    return static_cast<std::size_t>(position);
  }

 private:
  const std::vector<Index>& shape_;
  std::vector<Index> index_;
  Index position_ = 0;
};

struct Source {
  std::span<const std::byte> bytes;
  std::string_view name;
  const Header& header;
  const NpyOptions& options;
};

/// One element as S, or an error naming its position.
template <class S, class E>
S convert_element(E element, std::size_t i, const Source& from) {
  if constexpr (std::is_floating_point_v<E>) {
    check<DataError>(!std::isinf(element) || from.options.allow_infinite, from.name, ": element ", i,
                     " is infinite; remove it, or ", "make it NaN if it is missing");
    if constexpr (sizeof(E) > sizeof(S)) {
      check<DataError>(!std::isfinite(element) || std::abs(element) <= std::numeric_limits<S>::max(), from.name, ": element ", i,
                       " is ", element, ", too large for a float; read it as double or scale the data");
    }
  } else if constexpr (std::numeric_limits<E>::digits > std::numeric_limits<S>::digits) {
    constexpr E limit = E{1} << std::numeric_limits<S>::digits;
    bool exact = element <= limit;
    if constexpr (std::is_signed_v<E>) exact = exact && element >= -limit;
    check<DataError>(exact, from.name, ": element ", i, " is ", element, ", more than ", sizeof(S) * 8,
                     "-bit floating point holds exactly; read it as double or scale the data");
  }
  return static_cast<S>(element);
}

template <class S, class E>
void convert(const Source& from, std::span<S> out) {
  check<DataError>(from.bytes.size() == out.size() * sizeof(E), from.name, ": ", out.size(), " elements of '", from.header.descr,
                   "' need ", out.size() * sizeof(E), " bytes, the file has ", from.bytes.size(), " after its header: it is ",
                   from.bytes.size() < out.size() * sizeof(E) ? "truncated" : "damaged");
  FortranOrder fortran(from.header.shape);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t at = from.header.fortran ? fortran.next() : i;
    E element;
    std::memcpy(&element, from.bytes.data() + at * sizeof(E), sizeof(E));
    out[i] = convert_element<S>(element, at, from);
  }
}

template <class S>
void convert_bool(const Source& from, std::span<S> out) {
  convert<S, std::uint8_t>(from, out);
  for (const S value : out) check<DataError>(value <= 1, from.name, ": a bool is neither 0 nor 1: it is damaged");
}

/// The element's size, with `descr` one that we read.
std::size_t element_size(std::string_view descr, std::string_view name) {
  check<DataError>(descr.find('O') == std::string_view::npos, name,
                   ": it holds pickled Python objects, which are never loaded; save ",
                   "an array of numbers (numpy.asarray(x, dtype=float))");
  check<DataError>(descr.empty() || descr.front() != '>', name, ": its type '", descr,
                   "' is big-endian; save x.astype(x.dtype.newbyteorder('<'))");
  constexpr std::string_view kKnown[] = {"|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"};
  for (const std::string_view known : kKnown) {
    if (descr == known) return static_cast<std::size_t>(known[2] - '0');
  }
  fail<DataError>(name, ": its type '", descr, "' is not one we read; save it as float32 or float64 (x.astype('f4'))");
}

template <class S>
void convert_any(const Source& from, std::span<S> out) {
  const std::string_view descr = from.header.descr;
  if (descr == "<f4") return convert<S, float>(from, out);
  if (descr == "<f8") return convert<S, double>(from, out);
  if (descr == "|b1") return convert_bool<S>(from, out);
  if (descr == "|u1") return convert<S, std::uint8_t>(from, out);
  if (descr == "|i1") return convert<S, std::int8_t>(from, out);
  if (descr == "<u2") return convert<S, std::uint16_t>(from, out);
  if (descr == "<i2") return convert<S, std::int16_t>(from, out);
  if (descr == "<u4") return convert<S, std::uint32_t>(from, out);
  if (descr == "<i4") return convert<S, std::int32_t>(from, out);
  if (descr == "<u8") return convert<S, std::uint64_t>(from, out);
  return convert<S, std::int64_t>(from, out);
}

}  // namespace

template <class S>
NpyArray<S> parse_npy_array(std::span<const std::byte> bytes, std::string_view name, const NpyOptions& options) {
  std::span<const std::byte> data;
  const Header header = read_header(bytes, name, data);
  check<DataError>(!header.shape.empty(), name, ": it holds a single number, not an array");
  const std::size_t size = element_size(header.descr, name);
  // Before anything is allocated: the elements that the shape claims are there.
  std::size_t need = size;
  bool fits = true;
  for (const Index dimension : header.shape) {
    fits = fits && !__builtin_mul_overflow(need, static_cast<std::size_t>(dimension), &need);
  }
  check<DataError>(fits && need <= data.size(), name, ": its shape needs more bytes than the ", data.size(),
                   " that follow the header: it is truncated or damaged");

  const Index rows = header.shape.front();
  NpyArray<S> array;
  array.values = MatrixX<S>(rows, static_cast<Index>(need / size) / rows);
  convert_any<S>({data, name, header, options}, {array.values.data(), static_cast<std::size_t>(array.values.size())});
  array.shape = header.shape;
  return array;
}

template <class S>
MatrixX<S> parse_npy(std::span<const std::byte> bytes, std::string_view name, const NpyOptions& options) {
  NpyArray<S> array = parse_npy_array<S>(bytes, name, options);
  check<DataError>(array.shape.size() <= 2, name, ": it has ", array.shape.size(),
                   " dimensions, a table has 2: one row per sample; reshape it (x.reshape(len(x), -1))");
  return std::move(array.values);
}

template <class S>
NpyArray<S> read_npy_array(const std::string& path, const NpyOptions& options) {
  const FileBytes bytes = read_file(path);
  return parse_npy_array<S>(bytes.span(), path, options);
}

template <class S>
MatrixX<S> read_npy(const std::string& path, const NpyOptions& options) {
  const FileBytes bytes = read_file(path);
  return parse_npy<S>(bytes.span(), path, options);
}

template NpyArray<float> parse_npy_array(std::span<const std::byte>, std::string_view, const NpyOptions&);
template NpyArray<double> parse_npy_array(std::span<const std::byte>, std::string_view, const NpyOptions&);
template MatrixX<float> parse_npy(std::span<const std::byte>, std::string_view, const NpyOptions&);
template MatrixX<double> parse_npy(std::span<const std::byte>, std::string_view, const NpyOptions&);
template NpyArray<float> read_npy_array(const std::string&, const NpyOptions&);
template NpyArray<double> read_npy_array(const std::string&, const NpyOptions&);
template MatrixX<float> read_npy(const std::string&, const NpyOptions&);
template MatrixX<double> read_npy(const std::string&, const NpyOptions&);

namespace detail {

std::string npy_header(std::string_view descr, std::span<const Index> shape) {
  std::string dict = join("{'descr': '", descr, "', 'fortran_order': False, 'shape': (");
  for (std::size_t i = 0; i < shape.size(); ++i)
    dict += join(i == 0 ? "" : " ", shape[i], i + 1 < shape.size() || i == 0 ? "," : "");
  dict += "), }";
  constexpr std::size_t kBefore = 10;
  constexpr std::size_t kAlignment = 64;
  const std::size_t total = (kBefore + dict.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  dict.resize(total - kBefore - 1, ' ');
  dict.push_back('\n');
  std::string header(kMagic);
  header += {'\x01', '\x00', static_cast<char>(dict.size() & 0xFF), static_cast<char>(dict.size() >> 8)};
  return header + dict;
}

std::string npy_header(std::string_view descr, Index rows, Index cols, std::span<const Index> shape) {
  const Index both[] = {rows, cols};
  if (shape.empty()) shape = both;
  check(shape.size() <= kMaxRank, "write_npy: a shape of ", shape.size(), " dimensions, the most is ", kMaxRank);
  Index product = 1;
  bool fits = true;
  for (const Index dimension : shape) fits = fits && dimension > 0 && !__builtin_mul_overflow(product, dimension, &product);
  check(fits && product == rows * cols, "write_npy: the shape's product must be ", rows, " x ", cols,
        " elements, and no dimension zero: an array without elements cannot be read again");
  return npy_header(descr, shape);
}

}  // namespace detail

namespace {
template <class S>
void write_array(const std::string& path, std::string_view descr, ConstRows<S> values, std::span<const Index> shape) {
  const std::string header = detail::npy_header(descr, values.rows(), values.cols(), shape);
  AtomicFile file(path);
  file.write(header);
  detail::for_pieces(values, [&file](std::span<const std::byte> piece) { file.write(piece); });
  file.commit();
}
}  // namespace

void write_npy(const std::string& path, ConstRows<float> values, std::span<const Index> shape) {
  write_array(path, "<f4", values, shape);
}
void write_npy(const std::string& path, ConstRows<double> values, std::span<const Index> shape) {
  write_array(path, "<f8", values, shape);
}

}  // namespace tweedie
