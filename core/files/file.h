// file.h - reading a whole file, and the few system calls that reading and writing go through.
//
// Readers take a path, or bytes with a name for the messages (the fuzz targets and anything already in memory use that one).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "tweedie/core/buffer.h"

namespace tweedie {

/// The bytes of a file, 64-byte aligned.
using FileBytes = Buffer<std::byte>;

/// The whole of `path`. A regular file is allocated once, by its true size; a pipe is read to its end, at most 1 GiB.
/// Throws IoError when it is missing, a directory or unreadable.
TWEEDIE_API FileBytes read_file(const std::string& path);

namespace detail {

/// The system calls behind reading and writing files, with the meaning, results and errno of their POSIX namesakes. Tests put
/// failing ones in place (see ScopedFileOperations); there is no other use.
class TWEEDIE_API FileOperations {
 public:
  virtual ~FileOperations();
  virtual std::ptrdiff_t read(int descriptor, void* data, std::size_t size);
  virtual std::ptrdiff_t write(int descriptor, const void* data, std::size_t size);
  virtual int sync(int descriptor);
  virtual int rename(const char* from, const char* to);
};

/// The calling thread's operations: the system's, unless a ScopedFileOperations is alive in this thread.
TWEEDIE_API FileOperations& file_operations();

/// Puts `operations` in place of the system's in this thread for its own lifetime.
class TWEEDIE_API ScopedFileOperations {
 public:
  explicit ScopedFileOperations(FileOperations& operations);
  ~ScopedFileOperations();
  ScopedFileOperations(const ScopedFileOperations&) = delete;
  ScopedFileOperations& operator=(const ScopedFileOperations&) = delete;

 private:
  FileOperations* previous_;
};

}  // namespace detail
}  // namespace tweedie
