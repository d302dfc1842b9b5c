// SPDX-License-Identifier: MIT
#include "tweedie/core/files/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tweedie/core/check.h"
#include "tweedie/core/files/detail/descriptor.h"

namespace tweedie {

namespace detail {

FileOperations::~FileOperations() = default;
std::ptrdiff_t FileOperations::read(int descriptor, void* data, std::size_t size) { return ::read(descriptor, data, size); }
std::ptrdiff_t FileOperations::write(int descriptor, const void* data, std::size_t size) {
  return ::write(descriptor, data, size);
}
int FileOperations::sync(int descriptor) { return ::fsync(descriptor); }
int FileOperations::rename(const char* from, const char* to) { return ::rename(from, to); }

namespace {
FileOperations& system_operations() {
  static FileOperations operations;
  return operations;
}
thread_local FileOperations* current_operations = nullptr;
}  // namespace

FileOperations& file_operations() { return current_operations != nullptr ? *current_operations : system_operations(); }

ScopedFileOperations::ScopedFileOperations(FileOperations& operations)
    : previous_(std::exchange(current_operations, &operations)) {}
ScopedFileOperations::~ScopedFileOperations() { current_operations = previous_; }

}  // namespace detail

namespace {

constexpr std::size_t kPipeLimit = std::size_t{1} << 30;

/// Reads until `size` bytes or the end; the number read.
std::size_t read_up_to(int descriptor, std::byte* out, std::size_t size, const std::string& path) {
  std::size_t have = 0;
  while (have < size) {
    const std::ptrdiff_t got = detail::file_operations().read(descriptor, out + have, size - have);
    if (got < 0 && errno == EINTR) continue;
    check<IoError>(got >= 0, "cannot read '", path, "': ", std::strerror(errno), "; check the disk and try again");
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return have;
}

FileBytes first_bytes(const FileBytes& bytes, std::size_t size) {
  FileBytes shorter(static_cast<Index>(size));
  if (size > 0) std::memcpy(shorter.data(), bytes.data(), size);
  return shorter;
}

// A pipe says nothing of its length: the buffer grows by half, so that what is held stays within two and a half times the
// content.
FileBytes read_pipe(int descriptor, const std::string& path) {
  FileBytes bytes(Index{1} << 16);
  std::size_t have = 0;
  for (;;) {
    const auto capacity = static_cast<std::size_t>(bytes.size());
    have += read_up_to(descriptor, bytes.data() + have, capacity - have, path);
    if (have < capacity) return first_bytes(bytes, have);
    check<IoError>(have < kPipeLimit, "'", path, "' is a pipe or device that gave more than ", kPipeLimit,
                   " bytes: save the data to a regular file and read that");
    FileBytes larger(static_cast<Index>(std::min(capacity + capacity / 2, kPipeLimit)));
    std::memcpy(larger.data(), bytes.data(), have);
    bytes = std::move(larger);
  }
}

}  // namespace

FileBytes read_file(const std::string& path) {
  check<IoError>(path.find('\0') == std::string::npos, "cannot open a file: its name holds a NUL byte");
  const detail::Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check<IoError>(file.get() >= 0, "cannot open '", path, "': ", std::strerror(errno), "; check the path and its permissions");
  struct stat status {};
  const bool known = ::fstat(file.get(), &status) == 0;
  check<IoError>(known, "cannot read '", path, "': ", std::strerror(errno));
  check<IoError>(!S_ISDIR(status.st_mode), "cannot read '", path, "': it is a directory; name a file in it");
  // Files in /proc are regular and claim to be empty.
  if (!S_ISREG(status.st_mode) || status.st_size == 0) return read_pipe(file.get(), path);

  FileBytes bytes(static_cast<Index>(status.st_size));
  const std::size_t size = read_up_to(file.get(), bytes.data(), static_cast<std::size_t>(status.st_size), path);
  return size == static_cast<std::size_t>(status.st_size) ? std::move(bytes) : first_bytes(bytes, size);
}

}  // namespace tweedie
