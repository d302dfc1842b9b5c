// SPDX-License-Identifier: MIT
#include "tweedie/core/files/atomic_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <random>

#include "files_support.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/files/safetensors.h"

using namespace files_test;

namespace {

/// Operations of which the n-th call of one kind fails; writes may also be cut short.
class Faults : public detail::FileOperations {
 public:
  enum Kind { kRead, kWrite, kSync, kRename, kNone };
  Faults(Kind kind, int nth, int error, std::size_t most = SIZE_MAX) : kind_(kind), nth_(nth), error_(error), most_(most) {}

  std::ptrdiff_t read(int descriptor, void* data, std::size_t size) override {
    return fails(kRead) ? -1 : FileOperations::read(descriptor, data, std::min(size, most_));
  }
  std::ptrdiff_t write(int descriptor, const void* data, std::size_t size) override {
    return fails(kWrite) ? -1 : FileOperations::write(descriptor, data, std::min(size, most_));
  }
  int sync(int descriptor) override { return fails(kSync) ? -1 : FileOperations::sync(descriptor); }
  int rename(const char* from, const char* to) override { return fails(kRename) ? -1 : FileOperations::rename(from, to); }

  int calls(Kind kind) const { return calls_[kind]; }

 private:
  bool fails(Kind kind) {
    if (++calls_[kind] != nth_ || kind != kind_) return false;
    errno = error_;
    return true;
  }
  Kind kind_;
  int nth_;
  int error_;
  std::size_t most_;
  int calls_[4] = {};
};

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 0777u;
}

/// A model whose every value is `version`, and whose size depends on it.
void save_version(const std::string& path, int version) {
  const std::vector<float> values(static_cast<std::size_t>(1000 + version % 7 * 4000), static_cast<float>(version));
  const NamedTensor tensor[] = {named_tensor<float>("w", {static_cast<Index>(values.size())}, values)};
  write_safetensors(path, tensor, {{"step", join(version)}});
}

/// The file's version; fails the test unless it is whole.
int load_version(const std::string& path) {
  const SafetensorsFile file(path);
  const int version = std::stoi(file.meta("step"));
  std::vector<float> values(static_cast<std::size_t>(1000 + version % 7 * 4000));
  const Index shape[] = {static_cast<Index>(values.size())};
  file.read<float>("w", shape, values);
  CHECK(std::all_of(values.begin(), values.end(), [&](float v) { return v == static_cast<float>(version); }));
  return version;
}

/// Runs `body` in a child process and returns its exit code.
template <class Body>
int in_child(Body&& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("atomic: a new file appears at commit, an old one is replaced whole") {
  const TempDir dir;
  const std::string path = dir / "f.txt";
  {
    AtomicFile file(path);
    file.write("one ");
    CHECK_FALSE(std::filesystem::exists(path));
    file.write("two");
    file.commit();
    CHECK(slurp(path) == "one two");
    CHECK_THROWS_AS(file.write("x"), UsageError);
    CHECK_THROWS_AS(file.commit(), UsageError);
  }
  {
    AtomicFile dropped(path);
    dropped.write("never");
  }
  CHECK(slurp(path) == "one two");
  write_file(path, "");
  CHECK(slurp(path).empty());
  CHECK(dir.entries() == 1);
}

TEST_CASE("atomic: permissions of a new file, of a replaced one, of a read-only one") {
  const TempDir dir;
  const std::string path = dir / "f";
  const mode_t before = ::umask(027);
  write_file(path, "x");
  CHECK(mode_of(path) == 0640);
  ::umask(before);
  REQUIRE(::chmod(path.c_str(), 0604) == 0);
  write_file(path, "y");
  CHECK(mode_of(path) == 0604);
  if (::geteuid() == 0) {
    MESSAGE("read-only files not tried: root may write them");
    return;
  }
  REQUIRE(::chmod(path.c_str(), 0444) == 0);
  CHECK(holds(message_of<IoError>([&] { write_file(path, "z"); }), "make it writable"));
  CHECK(slurp(path) == "y");
}

TEST_CASE("atomic: links are followed, and stay links") {
  const TempDir dir;
  REQUIRE(::mkdir((dir / "sub").c_str(), 0755) == 0);
  write_file(dir / "sub/real", "old");
  REQUIRE(::symlink("sub/real", (dir / "link").c_str()) == 0);
  write_file(dir / "link", "new");
  CHECK(slurp(dir / "sub/real") == "new");
  CHECK(std::filesystem::is_symlink(dir / "link"));
  REQUIRE(::symlink("nowhere", (dir / "dangling").c_str()) == 0);
  CHECK(holds(message_of<IoError>([&] { write_file(dir / "dangling", "x"); }), "link to nowhere"));
}

TEST_CASE("atomic: what cannot be written says why and what to do") {
  const TempDir dir;
  CHECK(holds(message_of<IoError>([&] { write_file(dir / "no/f", "x"); }), "check that the directory exists"));
  CHECK(holds(message_of<IoError>([&] { write_file(dir.path(), "x"); }), "is a directory"));
  CHECK(holds(message_of<IoError>([&] { write_file(dir / "no/", "x"); }), "ends in '/'"));
  CHECK(holds(message_of<IoError>([&] { write_file("", "x"); }), "name is empty"));
  CHECK_THROWS_AS(write_file(std::string("a\0b", 3), "x"), IoError);
  CHECK_THROWS_AS(write_file(dir / std::string(300, 'n'), "x"), IoError);
  write_file(dir / "file", "x");
  CHECK_THROWS_AS(write_file(dir / "file/f", "x"), IoError);
  CHECK(dir.entries() == 1);
}

TEST_CASE("atomic: two writers of one file at once; a temporary that was left behind is no obstacle") {
  const TempDir dir;
  AtomicFile first(dir / "f");
  CHECK(holds(message_of<IoError>([&] { AtomicFile second(dir / "f"); }), "another program is writing it"));
  first.write("first");
  first.commit();
  CHECK(slurp(dir / "f") == "first");
  spill(dir / ".f.tweedie-tmp", "what a killed process left, longer than what comes");
  write_file(dir / "f", "second");
  CHECK(slurp(dir / "f") == "second");
  CHECK(dir.entries() == 1);
  REQUIRE(::symlink((dir / "f").c_str(), (dir / ".f.tweedie-tmp").c_str()) == 0);  // a trap: not followed
  CHECK_THROWS_AS(write_file(dir / "f", "third"), IoError);
  CHECK(slurp(dir / "f") == "second");
}

TEST_CASE("atomic: every write, sync and rename failing in turn keeps the old file and leaves nothing else") {
  const TempDir dir;
  const std::string path = dir / "m.safetensors";
  save_version(path, 1);
  int failures = 0;
  for (const Faults::Kind kind : {Faults::kWrite, Faults::kSync, Faults::kRename}) {
    for (const int error : {ENOSPC, EIO, EDQUOT}) {
      for (int nth = 1;; ++nth) {
        CAPTURE(kind);
        CAPTURE(nth);
        std::string message;
        {
          Faults faults(kind, nth, error, 10'000);
          const detail::ScopedFileOperations scope(faults);
          try {
            save_version(path, 2);
            CHECK(faults.calls(kind) == nth - 1);
          } catch (const IoError& failure) {
            CHECK(failure.exit_code() == 7);
            message = failure.what();
          }
        }
        CHECK(dir.entries() == 1);
        const bool saved = message.empty();
        // The second sync is the directory's: the new file is in place by then.
        const bool replaced = saved || (kind == Faults::kSync && nth == 2);
        CHECK(load_version(path) == (replaced ? 2 : 1));
        save_version(path, 1);
        if (saved) break;
        ++failures;
        CHECK(holds(message, path));
        CHECK(holds(message, "untouched") == !replaced);
        CHECK(holds(message, "free some space") == (error != EIO && !replaced));
      }
    }
  }
  CHECK(failures == 3 * (5 + 2 + 1));  // 3 errors; writes: the header, 36,000 bytes in four; syncs: file, directory; a rename
}

TEST_CASE("atomic: short writes and interrupted calls are carried on") {
  const TempDir dir;
  const std::string path = dir / "m.safetensors";
  Faults short_writes(Faults::kWrite, 2, EINTR, 7);
  {
    const detail::ScopedFileOperations scope(short_writes);
    save_version(path, 3);
  }
  CHECK(short_writes.calls(Faults::kWrite) > 500);
  CHECK(load_version(path) == 3);
  Faults short_reads(Faults::kRead, 2, EINTR, 11);
  const detail::ScopedFileOperations scope(short_reads);
  CHECK(load_version(path) == 3);
}

TEST_CASE("atomic: a reader's I/O error is an I/O error") {
  const TempDir dir;
  save_version(dir / "m", 1);
  Faults faults(Faults::kRead, 1, EIO);
  const detail::ScopedFileOperations scope(faults);
  CHECK(holds(message_of<IoError>([&] { (void)load_version(dir / "m"); }), "Input/output error"));
}

TEST_CASE("atomic: a directory that cannot be synced by its file system is no error") {
  const TempDir dir;
  Faults faults(Faults::kSync, 2, EINVAL);
  const detail::ScopedFileOperations scope(faults);
  save_version(dir / "m", 5);
  CHECK(load_version(dir / "m") == 5);
}

TEST_CASE("atomic: the kernel's own refusal to write on keeps the old file") {
  const TempDir dir;
  const std::string path = dir / "m";
  save_version(path, 1);
  const int code = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save_version(path, 2);
    } catch (const IoError& error) {
      return holds(error.what(), "File too large") ? 7 : 1;
    }
    return 0;
  });
  CHECK(code == 7);
  CHECK(load_version(path) == 1);
  CHECK(dir.entries() == 1);
}

TEST_CASE("atomic: devices and pipes are written straight through") {
  write_file("/dev/null", "gone");
  const std::string message = message_of<IoError>([&] { write_file("/dev/full", "x"); });
  CHECK(holds(message, "No space left on device"));
  CHECK_FALSE(holds(message, "untouched"));
  CHECK(std::filesystem::is_character_file("/dev/full"));
  CHECK_THROWS_AS(write_csv("/dev/full", {}, Matrix(3, 3).view()), IoError);

  const TempDir dir;
  // Standard output redirected to a file: what is written stands where the output is, and the file is not replaced.
  const std::string out = dir / "out";
  const int code = in_child([&] {
    const int fd = ::open(out.c_str(), O_WRONLY | O_CREAT, 0644);
    if (::dup2(fd, 1) != 1 || ::write(1, "a\n", 2) != 2) return 1;
    write_file("/dev/stdout", "1,2\n");
    write_file("/dev/fd/1", "3,4\n");
    return ::write(1, "b\n", 2) == 2 ? 0 : 1;
  });
  CHECK(code == 0);
  CHECK(slurp(out) == "a\n1,2\n3,4\nb\n");
  CHECK(dir.entries() == 1);

  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  write_csv(join("/dev/fd/", ends[1]), {}, Matrix{{1, 2}}.view());
  ::close(ends[1]);
  CHECK(to_matrix(read_csv(join("/dev/fd/", ends[0])))(0, 1) == 2);
  ::close(ends[0]);
  CHECK_THROWS_AS(write_file("/dev/fd/987654", "x"), IoError);
}

TEST_CASE("files: pipes of any length and files of /proc are read to their end") {
  CHECK(read_file("/proc/self/status").size() > 100);
  CHECK(read_file("/dev/null").size() == 0);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const std::string text(300'000, 'x');
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    write_file(join("/dev/fd/", ends[1]), text);
    ::_exit(0);
  }
  ::close(ends[1]);
  CHECK(text_of(read_file(join("/dev/fd/", ends[0])).span()) == text);
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
}

TEST_CASE("atomic: kill -9 at random times leaves one whole version") {
  const TempDir dir;
  const std::string path = dir / "m.safetensors";
  save_version(path, 0);
  std::mt19937 random(20);
  int newest = 0;
  int advanced = 0;
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int version = newest + 1;; ++version) save_version(path, version);
    }
    ::usleep(std::uniform_int_distribution<useconds_t>(0, 20'000)(random));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const int version = load_version(path);
    CHECK(version >= newest);
    advanced += version > newest;
    newest = version;
    CHECK(dir.entries() <= 2);  // at most one temporary, which the next save takes over
  }
  CHECK(advanced > 5);
  save_version(path, newest + 1);
  CHECK(load_version(path) == newest + 1);
  CHECK(dir.entries() == 1);
}
