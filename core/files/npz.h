// npz.h - numpy's archives: a zip of .npy files, stored or (with zlib) deflated.
//
//   NpzFile file("data.npz");
//   Matrix x = file.read<float>("x");
//   write_npz("out.npz", {{"x", x}, {"logp", logp}});
//
// The central directory is believed only where it agrees with the local headers; sizes are checked against the file before
// anything is allocated, contents against their CRC-32 afterwards. Encrypted, multi-disk and zip64 (over 4 GiB) archives are
// refused. Reference: PKWARE APPNOTE 6.3.10.
// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/files/file.h"
#include "tweedie/core/files/npy.h"

namespace tweedie {

namespace detail {
/// One file in a zip archive.
struct ZipMember {
  std::size_t offset = 0;      // of the local header; once that is read, of the bytes themselves
  std::size_t compressed = 0;  // bytes in the archive
  std::size_t size = 0;        // bytes once unpacked
  unsigned crc = 0;
  unsigned method = 0;
  unsigned flags = 0;
};
}  // namespace detail

/// An archive held in memory. Throws DataError when it is damaged or unsupported, IoError when it cannot be read.
class TWEEDIE_API NpzFile {
 public:
  explicit NpzFile(const std::string& path);
  NpzFile(FileBytes bytes, std::string name);

  /// The arrays' names, without ".npy", in alphabetical order.
  std::vector<std::string> names() const;
  bool contains(std::string_view name) const;
  /// As read_npy. Throws UsageError listing the names when there is no such array.
  template <class S>
  MatrixX<S> read(std::string_view name, const NpyOptions& options = {}) const;
  template <class S>
  NpyArray<S> read_array(std::string_view name, const NpyOptions& options = {}) const;

 private:
  void read_directory();

  FileBytes bytes_;
  std::string name_;
  std::map<std::string, detail::ZipMember, std::less<>> members_;
};

/// An array to write. The values must live until the call returns.
struct NpzEntry {
  NpzEntry(std::string entry_name, ConstRows<float> v) : name(std::move(entry_name)), floats(v) {}
  NpzEntry(std::string entry_name, ConstRows<double> v) : name(std::move(entry_name)), doubles(v), is_double(true) {}
  NpzEntry(std::string entry_name, const Matrix& m) : NpzEntry(std::move(entry_name), m.view()) {}
  NpzEntry(std::string entry_name, const MatrixD& m) : NpzEntry(std::move(entry_name), m.view()) {}

  std::string name;
  ConstRows<float> floats;
  ConstRows<double> doubles;
  bool is_double = false;
};

struct NpzWriteOptions {
  bool compress = false;  // deflate; needs a build with zlib, otherwise UsageError
};

/// Writes an archive atomically. Throws UsageError for repeated or unusable names and for archives of 4 GiB and more.
TWEEDIE_API void write_npz(const std::string& path, std::span<const NpzEntry> entries, const NpzWriteOptions& options = {});

}  // namespace tweedie
