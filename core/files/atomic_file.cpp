// SPDX-License-Identifier: MIT
#include "tweedie/core/files/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/core/files/detail/descriptor.h"
#include "tweedie/core/files/file.h"

namespace tweedie {

namespace {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// The file that a chain of links ends in, so that the file is replaced and not the link.
std::string resolve_links(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISLNK(status.st_mode)) return path;
  char resolved[PATH_MAX];
  const bool found = ::realpath(path.c_str(), resolved) != nullptr;
  check<IoError>(found, "cannot write '", path, "': it is a link to nowhere (", std::strerror(errno),
                 "); remove the link or name another file");
  return resolved;
}

/// The number of an open descriptor that `path` names (/dev/stdout, /dev/fd/3), or -1. Opening such a path anew would begin
/// again at the start of a file that standard output was redirected to.
int named_descriptor(std::string_view path) {
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view prefix : {std::string_view("/dev/fd/"), std::string_view("/proc/self/fd/")}) {
    if (path.substr(0, prefix.size()) != prefix) continue;
    int number = -1;
    const auto [end, error] = std::from_chars(path.data() + prefix.size(), path.data() + path.size(), number);
    if (error == std::errc() && end == path.data() + path.size()) return number;
  }
  return -1;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  check<IoError>(!path_.empty(), "cannot write a file: its name is empty");
  check<IoError>(path_.find('\0') == std::string::npos, "cannot write a file: its name holds a NUL byte");
  struct stat status {};
  const bool exists = ::stat(path_.c_str(), &status) == 0;
  check<IoError>(!exists || !S_ISDIR(status.st_mode), "cannot write '", path_, "': it is a directory; name a file in it");
  if (named_descriptor(path_) >= 0 || (exists && !S_ISREG(status.st_mode))) {
    open_through();
    return;
  }

  target_ = resolve_links(path_);
  const std::size_t slash = target_.rfind('/');
  const std::size_t base = slash == std::string::npos ? 0 : slash + 1;
  check<IoError>(base < target_.size(), "cannot write '", path_, "': it ends in '/'; name a file in the directory");
  // rename() would replace a file that its owner has made read-only.
  const bool writable = !exists || ::access(target_.c_str(), W_OK) == 0;
  check<IoError>(writable, "cannot write '", path_, "': ", std::strerror(errno), "; make it writable or name another file");
  temporary_ = target_.substr(0, base) + "." + target_.substr(base) + ".tweedie-tmp";
  open_temporary();
  // A failure here is not one of writing: the content is what matters, and the default permissions are sensible.
  if (exists) (void)!::fchmod(descriptor_, status.st_mode & 0777u);
}

void AtomicFile::open_through() {
  const int number = named_descriptor(path_);
  descriptor_ = number >= 0 ? ::fcntl(number, F_DUPFD_CLOEXEC, 0) : ::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  check<IoError>(descriptor_ >= 0, "cannot write '", path_, "': ", std::strerror(errno));
}

// The lock tells a temporary in use from one that a killed process left. Between our open and our lock its last owner may
// have renamed it to the target: then what we hold is no longer the temporary, and we begin again.
void AtomicFile::open_temporary() {
  for (;;) {
    detail::Descriptor file(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
    check<IoError>(file.get() >= 0, "cannot write '", path_, "': ", std::strerror(errno), " (creating ", temporary_,
                   "); check that the directory exists and is writable");
    struct stat ours {};
    struct stat there {};
    check<IoError>(::fstat(file.get(), &ours) == 0 && S_ISREG(ours.st_mode), "cannot write '", path_, "': ", temporary_,
                   " is in the way and no regular file; remove it");
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      check<IoError>(errno != EWOULDBLOCK, "cannot write '", path_, "': another program is writing it at this moment (",
                     temporary_, " is locked); wait for it or name another file");
      check<IoError>(errno == ENOLCK || errno == ENOTSUP || errno == ENOSYS, "cannot write '", path_, "': ", std::strerror(errno),
                     " (locking ", temporary_, ")");  // a file system without locks: one writer at a time is the user's business
    }
    if (::stat(temporary_.c_str(), &there) != 0 || there.st_ino != ours.st_ino || there.st_dev != ours.st_dev) continue;
    descriptor_ = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 0);  // shares the lock
    if (descriptor_ < 0 || ::ftruncate(descriptor_, 0) != 0) fail_write("creating it", errno);
    return;
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ < 0) return;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());  // before the lock goes with the descriptor
  ::close(descriptor_);
  descriptor_ = -1;
}

void AtomicFile::fail_write(const char* what, int error) {
  const bool kept = !temporary_.empty() && ::access(target_.c_str(), F_OK) == 0;
  discard();
  const char* remedy = error == ENOSPC || error == EDQUOT ? "; free some space or write elsewhere" : "";
  fail<IoError>("cannot write '", path_, "': ", std::strerror(error), " (", what, ")", remedy,
                kept ? "; the file that was there is untouched" : "");
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(descriptor_ >= 0, "AtomicFile: write to '", path_, "' after commit or after an error");
  while (!bytes.empty()) {
    const std::ptrdiff_t written = detail::file_operations().write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_write("writing", errno);
    if (written == 0) fail_write("writing", ENOSPC);  // nothing taken and no reason given: treated as full, never tried for ever
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  check(descriptor_ >= 0, "AtomicFile: commit of '", path_, "' after commit or after an error");
  if (temporary_.empty()) {
    const int result = ::close(std::exchange(descriptor_, -1));
    check<IoError>(result == 0 || errno == EINTR, "cannot write '", path_, "': ", std::strerror(errno), " (closing)");
    return;
  }
  detail::FileOperations& system = detail::file_operations();
  if (system.sync(descriptor_) != 0) fail_write("bringing it to the disk", errno);
  if (system.rename(temporary_.c_str(), target_.c_str()) != 0) fail_write("putting it in place", errno);
  ::close(std::exchange(descriptor_, -1));

  // The new file is in place; only whether a power loss would remember that is open.
  const detail::Descriptor directory(::open(directory_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const bool synced = directory.get() >= 0 && system.sync(directory.get()) == 0;
  // Some file systems cannot sync directories (EINVAL), and a directory may be writable but not readable (EACCES).
  check<IoError>(synced || errno == EINVAL || errno == EACCES || errno == ENOTSUP, "'", path_, "' is written, but its directory ",
                 "could not be brought to the disk: ", std::strerror(errno), "; check the disk");
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file(const std::string& path, std::string_view text) { write_file(path, std::as_bytes(std::span(text))); }

}  // namespace tweedie
