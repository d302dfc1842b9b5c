// atomic_file.h - a file that appears whole or not at all.
//
//   AtomicFile file("model.safetensors");   // opens .model.safetensors.tweedie-tmp in the same directory
//   file.write(header);
//   file.write(weights);
//   file.commit();                          // fsync, rename over the old file, fsync the directory
//
// Until commit() returns, the old file is as it was; a crash, kill -9 or power loss leaves the old version or the new one, never
// a mixture. The temporary has a fixed name under a lock: what a killed process left behind is reused by the next save, and two
// writers at once are told so.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "tweedie/core/export.h"

namespace tweedie {

/// Writes one file atomically. Every failure (no such directory, full disk, I/O error) throws IoError, removes the temporary and
/// keeps the old file. A new file gets 0666 less the umask, a replaced one keeps its permissions; links are followed. What is
/// not a regular file (/dev/stdout, a pipe, a terminal) cannot be replaced and is written straight through.
class TWEEDIE_API AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  /// Without commit() before it, removes the temporary: nothing has happened.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Makes what was written the file's content, durably. Nothing may be written afterwards.
  void commit();

  /// The path as it was given.
  const std::string& path() const { return path_; }

 private:
  void open_temporary();
  void open_through();
  void discard() noexcept;
  [[noreturn]] void fail_write(const char* what, int error);

  std::string path_;       // as given, for messages
  std::string target_;     // with links resolved; empty when written straight through
  std::string temporary_;  // in target_'s directory; empty when written straight through
  int descriptor_ = -1;
};

/// `bytes` as the whole content of `path`, atomically.
TWEEDIE_API void write_file(const std::string& path, std::span<const std::byte> bytes);
TWEEDIE_API void write_file(const std::string& path, std::string_view text);

}  // namespace tweedie
