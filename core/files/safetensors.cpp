// SPDX-License-Identifier: MIT
#include "tweedie/core/files/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

#include "tweedie/core/check.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/json.h"

namespace tweedie {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian and read in place");

struct DtypeFacts {
  std::string_view name;
  std::size_t size;
};
// In the order of enum Dtype, which is also that of the Python library's own list: the order of the tensors follows from it.
constexpr std::array<DtypeFacts, 13> kDtypes{{{"BOOL", 1},
                                              {"U8", 1},
                                              {"I8", 1},
                                              {"I16", 2},
                                              {"U16", 2},
                                              {"F16", 2},
                                              {"BF16", 2},
                                              {"I32", 4},
                                              {"U32", 4},
                                              {"F32", 4},
                                              {"F64", 8},
                                              {"I64", 8},
                                              {"U64", 8}}};

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the Python library's limit
constexpr std::size_t kMaxRank = 8;
// A map's node outweighs the shortest entry of the header tenfold: these bounds keep a hostile header's maps small.
constexpr std::size_t kMaxTensors = 65'536;
constexpr std::size_t kMaxMetadata = 65'536;
constexpr std::string_view kMetadataKey = "__metadata__";

std::optional<Dtype> find_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

/// shape x type in bytes; nothing when a dimension is zero or the product does not fit.
std::optional<std::size_t> shape_bytes(std::span<const Index> shape, Dtype dtype) {
  std::size_t bytes = dtype_size(dtype);
  for (const Index dimension : shape) {
    std::size_t product = 0;
    if (dimension <= 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(dimension), &product)) return std::nullopt;
    bytes = product;
  }
  return bytes;
}

std::string shape_text(std::span<const Index> shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += join(i == 0 ? "" : ", ", shape[i]);
  return text + ")";
}

/// A name as messages show it: a hostile one may be megabytes long.
std::string quoted(std::string_view name) {
  return name.size() <= 80 ? join("\"", name, "\"") : join("\"", name.substr(0, 80), "...\"");
}

template <class T>
bool all_finite(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    if (!std::isfinite(value)) return false;
  }
  return true;
}

/// One entry of the header as it stands there, not yet believed.
struct Entry {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> offsets;
};

std::vector<std::uint64_t> read_integers(JsonReader& json, std::size_t most) {
  std::vector<std::uint64_t> numbers;
  json.begin_array();
  while (json.next_element()) {
    if (numbers.size() == most) json.fail_here(join("a list of more than ", most, " numbers"));
    numbers.push_back(json.integer());
  }
  return numbers;
}

Entry read_entry(JsonReader& json, const std::string& tensor) {
  Entry entry;
  std::string key;
  int found = 0;
  json.begin_object();
  while (json.next_key(key)) {
    ++found;
    if (key == "dtype") {
      entry.dtype = json.string();
    } else if (key == "shape") {
      entry.shape = read_integers(json, kMaxRank);
    } else if (key == "data_offsets") {
      entry.offsets = read_integers(json, 2);
    } else {
      json.fail_here(join("tensor ", quoted(tensor), " has an unknown field ", quoted(key)));
    }
  }
  if (found != 3) json.fail_here(join("tensor ", quoted(tensor), " lacks one of dtype, shape and data_offsets"));
  return entry;
}

}  // namespace

std::string_view dtype_name(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].name; }
std::size_t dtype_size(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].size; }

SafetensorsFile::SafetensorsFile(const std::string& path, const SafetensorsOptions& options)
    : SafetensorsFile(read_file(path), path, options) {}

SafetensorsFile::SafetensorsFile(FileBytes bytes, std::string name, const SafetensorsOptions& options)
    : bytes_(std::move(bytes)), name_(std::move(name)) {
  parse(options);
}

void SafetensorsFile::parse(const SafetensorsOptions& options) {
  const auto size = static_cast<std::size_t>(bytes_.size());
  check<ModelFileError>(size >= kLengthBytes, name_, ": ", size,
                        " bytes are too few for a safetensors file; it is truncated or of ", "another kind");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes_.data(), kLengthBytes);
  check<ModelFileError>(length <= kMaxHeader, name_, ": the header's length reads ", length,
                        " bytes, more than the format allows; it is no safetensors file or damaged");
  check<ModelFileError>(length <= size - kLengthBytes, name_, ": the header says it has ", length, " bytes, the file ends after ",
                        size - kLengthBytes, ": it is truncated");
  check<ModelFileError>(length % 8 == 0, name_, ": the header has ", length,
                        " bytes, not a multiple of 8: the tensors would be badly aligned; save it again with safetensors >= 0.4");
  data_ = std::as_bytes(bytes_.span()).subspan(kLengthBytes + length);
  parse_header({reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes, static_cast<std::size_t>(length)});
  check_layout();
  if (!options.allow_non_finite) check_finite();
}

void SafetensorsFile::parse_header(std::string_view header) {
  JsonReader json(header, name_);
  // White space may only follow: the reference demands that the header begins with a brace.
  if (header.empty() || header.front() != '{') json.fail_here("expected '{'");
  std::string name;
  json.begin_object();
  while (json.next_key(name)) {
    if (name == kMetadataKey) {
      std::string key;
      json.begin_object();
      while (json.next_key(key)) {
        if (metadata_.size() == kMaxMetadata) json.fail_here("more than 65,536 metadata entries");
        metadata_.emplace(key, json.string());
      }
      continue;
    }
    if (tensors_.size() == kMaxTensors) json.fail_here("more than 65,536 tensors");
    const Entry entry = read_entry(json, name);
    const auto bad = [&](const auto&... parts) { fail<ModelFileError>(name_, ": tensor ", quoted(name), parts...); };

    const std::optional<Dtype> dtype = find_dtype(entry.dtype);
    if (!dtype) bad(" has the type ", quoted(entry.dtype), ", which we do not know");
    TensorView tensor{.dtype = *dtype, .shape = {}, .bytes = {}};
    for (const std::uint64_t dimension : entry.shape) {
      if (dimension == 0) bad(" has a dimension of zero");
      if (dimension > static_cast<std::uint64_t>(PTRDIFF_MAX)) bad(" has the dimension ", dimension, ": no memory holds it");
      tensor.shape.push_back(static_cast<Index>(dimension));
    }
    if (entry.offsets.size() != 2) bad(" has ", entry.offsets.size(), " data_offsets instead of 2");
    const std::uint64_t begin = entry.offsets[0];
    const std::uint64_t end = entry.offsets[1];
    if (begin > end) bad(" begins at byte ", begin, " and ends at ", end, ", before it");
    const std::optional<std::size_t> bytes = shape_bytes(tensor.shape, *dtype);
    if (!bytes) bad(" has the shape ", shape_text(tensor.shape), ": no memory holds it");
    if (*bytes != end - begin) {
      bad(" has the shape ", shape_text(tensor.shape), " of ", entry.dtype, ", ", *bytes, " bytes, but data_offsets give it ",
          end - begin);
    }
    if (begin % dtype_size(*dtype) != 0) bad(" begins at byte ", begin, ", badly aligned for ", entry.dtype);
    if (end > data_.size()) {
      bad(" ends at byte ", end, " of the tensor data, the file ends after ", data_.size(), ": it is truncated");
    }
    tensor.bytes = data_.subspan(begin, end - begin);
    tensors_.emplace(name, std::move(tensor));
  }
  json.finish();
}

// In the order of their offsets the tensors must follow one another from the first byte to the last.
void SafetensorsFile::check_layout() const {
  std::vector<const std::pair<const std::string, TensorView>*> order;
  order.reserve(tensors_.size());
  for (const auto& entry : tensors_) order.push_back(&entry);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->second.bytes.data() < b->second.bytes.data(); });
  const std::byte* at = data_.data();
  for (const auto* entry : order) {
    const std::byte* begin = entry->second.bytes.data();
    check<ModelFileError>(begin >= at, name_, ": tensor ", quoted(entry->first), " begins at byte ", begin - data_.data(),
                          ", inside the one before it, which ends at ", at - data_.data(), ": it is damaged");
    check<ModelFileError>(begin <= at, name_, ": there is a hole of ", begin - at, " bytes before tensor ", quoted(entry->first),
                          ": it is damaged");
    at = begin + entry->second.bytes.size();
  }
  const std::byte* end = data_.data() + data_.size();
  check<ModelFileError>(at == end, name_, ": ", end - at, " bytes follow the last tensor: it is damaged");
}

void SafetensorsFile::check_finite() const {
  for (const auto& [tensor_name, tensor] : tensors_) {
    const bool finite = tensor.dtype == Dtype::f32   ? all_finite<float>(tensor.bytes)
                        : tensor.dtype == Dtype::f64 ? all_finite<double>(tensor.bytes)
                                                     : true;
    check<ModelFileError>(finite, name_, ": tensor ", quoted(tensor_name),
                          " holds NaN or infinite values; its training diverged or the file is damaged");
  }
}

const TensorView& SafetensorsFile::at(std::string_view tensor) const {
  const auto found = tensors_.find(tensor);
  check<ModelFileError>(found != tensors_.end(), name_, ": there is no tensor ", quoted(tensor), " among its ", tensors_.size(),
                        "; it is of another kind of model");
  return found->second;
}

const std::string& SafetensorsFile::meta(std::string_view key) const {
  const auto found = metadata_.find(key);
  check<ModelFileError>(found != metadata_.end(), name_, ": its metadata lack ", quoted(key),
                        "; it is of another kind of model or written by another program");
  return found->second;
}

void SafetensorsFile::read_bytes(std::string_view tensor, Dtype dtype, std::span<const Index> shape,
                                 std::span<std::byte> out) const {
  const TensorView& view = at(tensor);
  check<ModelFileError>(view.dtype == dtype, name_, ": tensor ", quoted(tensor), " is of type ", dtype_name(view.dtype),
                        ", the model needs ", dtype_name(dtype));
  check<ModelFileError>(std::equal(shape.begin(), shape.end(), view.shape.begin(), view.shape.end()), name_, ": tensor ",
                        quoted(tensor), " has the shape ", shape_text(view.shape), ", the model needs ", shape_text(shape));
  check(out.size() == view.bytes.size(), "SafetensorsFile::read: tensor ", quoted(tensor), " has ", view.bytes.size(),
        " bytes, the destination ", out.size());
  std::memcpy(out.data(), view.bytes.data(), out.size());
}

SafetensorsLayout safetensors_layout(std::span<const NamedTensor> tensors, const SafetensorsMetadata& metadata) {
  SafetensorsLayout layout;
  layout.order.resize(tensors.size());
  std::iota(layout.order.begin(), layout.order.end(), std::size_t{0});
  std::sort(layout.order.begin(), layout.order.end(), [&](std::size_t a, std::size_t b) {
    return tensors[a].dtype != tensors[b].dtype ? tensors[a].dtype > tensors[b].dtype : tensors[a].name < tensors[b].name;
  });

  JsonWriter json;
  json.begin_object();
  if (!metadata.empty()) {
    json.key(kMetadataKey).begin_object();
    for (const auto& [key, value] : metadata) json.key(key).value(value);
    json.end_object();
  }
  std::set<std::string_view> names;
  std::size_t offset = 0;
  for (const std::size_t i : layout.order) {
    const NamedTensor& tensor = tensors[i];
    const std::optional<std::size_t> bytes = shape_bytes(tensor.shape, tensor.dtype);
    check(tensor.name != kMetadataKey && names.insert(tensor.name).second, "write_safetensors: the name \"", tensor.name,
          "\" is reserved or stands twice");
    check(tensor.name.size() <= 512, "write_safetensors: a name of ", tensor.name.size(), " bytes, the most is 512");
    check(tensor.shape.size() <= kMaxRank, "write_safetensors: tensor \"", tensor.name, "\" has rank ", tensor.shape.size(),
          ", the most is ", kMaxRank);
    check(bytes == tensor.bytes.size(), "write_safetensors: tensor \"", tensor.name, "\" has the shape ",
          shape_text(tensor.shape), " of ", dtype_name(tensor.dtype), " and ", tensor.bytes.size(),
          " bytes; they must agree, with no dimension of zero");
    json.key(tensor.name).begin_object().key("dtype").value(dtype_name(tensor.dtype)).key("shape").begin_array();
    for (const Index dimension : tensor.shape) json.value(dimension);
    json.end_array().key("data_offsets").begin_array().value(offset).value(offset + *bytes).end_array().end_object();
    offset += *bytes;
  }
  json.end_object();

  std::string text = json.text();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  check(text.size() <= kMaxHeader, "write_safetensors: the header has ", text.size(), " bytes, the format allows ", kMaxHeader);
  const std::uint64_t length = text.size();
  layout.header.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  layout.header += text;
  return layout;
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const SafetensorsMetadata& metadata) {
  const SafetensorsLayout layout = safetensors_layout(tensors, metadata);
  AtomicFile file(path);
  file.write(layout.header);
  for (const std::size_t i : layout.order) file.write(tensors[i].bytes);
  file.commit();
}

}  // namespace tweedie
