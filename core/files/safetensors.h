// safetensors.h - named tensors in one file, as Hugging Face's safetensors library reads and writes them.
//
//   SafetensorsFile file("model.safetensors");
//   file.read("network.0.weight", {256, 2}, span);      // dtype, shape and finiteness are checked
//   file.metadata().at("tweedie.format");
//
// Layout: u64 N (little endian) | N bytes of JSON {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}, ...} |
// the tensors' bytes, without gaps. Reference: https://github.com/huggingface/safetensors#format
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/files/file.h"

namespace tweedie {

/// The element types we know; `dtype_name(Dtype::f32)` is "F32", as the file says it.
enum class Dtype { boolean, u8, i8, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };
TWEEDIE_API std::string_view dtype_name(Dtype dtype);
TWEEDIE_API std::size_t dtype_size(Dtype dtype);

template <class T>
inline constexpr Dtype dtype_of = [] {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int64_t> ||
                std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::uint64_t> || std::is_same_v<T, std::uint8_t>);
  if constexpr (std::is_same_v<T, float>) return Dtype::f32;
  if constexpr (std::is_same_v<T, double>) return Dtype::f64;
  if constexpr (std::is_same_v<T, std::int64_t>) return Dtype::i64;
  if constexpr (std::is_same_v<T, std::int32_t>) return Dtype::i32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return Dtype::u64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return Dtype::u8;
}();

/// One tensor of a file; `bytes` point into it.
struct TensorView {
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;  // empty for a scalar
  std::span<const std::byte> bytes;

  /// The number of elements.
  Index size() const { return static_cast<Index>(bytes.size() / dtype_size(dtype)); }
};

struct SafetensorsOptions {
  bool allow_non_finite = false;  // NaN and infinities in F32 and F64 tensors
};

/// A file held in memory, every rule of the format checked: a header that fits, no repeated names, no holes, overlaps or trailing
/// bytes, aligned tensors, shape x type = bytes, no empty tensors, rank at most 8. What breaks one throws ModelFileError saying
/// what is wrong; a file that cannot be read throws IoError.
class TWEEDIE_API SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path, const SafetensorsOptions& options = {});
  SafetensorsFile(FileBytes bytes, std::string name, const SafetensorsOptions& options = {});
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  const std::string& name() const { return name_; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

  bool contains(std::string_view tensor) const { return tensors_.find(tensor) != tensors_.end(); }
  /// Throws ModelFileError when there is no such tensor.
  const TensorView& at(std::string_view tensor) const;
  /// The metadata's value; throws ModelFileError when there is no such key.
  const std::string& meta(std::string_view key) const;
  /// Copies a tensor; throws ModelFileError unless its type is T's and its shape is `shape`, UsageError unless `out` fits.
  template <class T>
  void read(std::string_view tensor, std::span<const Index> shape, std::span<T> out) const {
    read_bytes(tensor, dtype_of<T>, shape, std::as_writable_bytes(out));
  }
  /// All tensors' bytes in the file's order: what a checksum covers.
  std::span<const std::byte> data() const { return data_; }

 private:
  void parse(const SafetensorsOptions& options);
  void parse_header(std::string_view header);
  void check_layout() const;
  void check_finite() const;
  void read_bytes(std::string_view tensor, Dtype dtype, std::span<const Index> shape, std::span<std::byte> out) const;

  FileBytes bytes_;
  std::string name_;
  std::span<const std::byte> data_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

/// A tensor to write. The bytes must live until the call returns.
struct NamedTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  std::span<const std::byte> bytes;
};

template <class T>
NamedTensor named_tensor(std::string name, std::vector<Index> shape, std::span<const T> values) {
  return {std::move(name), dtype_of<T>, std::move(shape), std::as_bytes(values)};
}

using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

/// The file's header and the order in which the tensors' bytes follow it: wide types first, then by name, as the Python library
/// writes them. `order[i]` is the position in `tensors` of the i-th tensor in the file.
struct SafetensorsLayout {
  std::string header;  // with the length before it and padding behind it
  std::vector<std::size_t> order;
};
TWEEDIE_API SafetensorsLayout safetensors_layout(std::span<const NamedTensor> tensors, const SafetensorsMetadata& metadata = {});

/// Writes the file atomically. Throws UsageError for repeated names, empty tensors and bytes that do not fit the shape; IoError
/// when writing fails (an older file of that name is then untouched).
TWEEDIE_API void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                                   const SafetensorsMetadata& metadata = {});

}  // namespace tweedie
