// What the readers hold: at most twice the file and 64 MiB, whatever a file claims. A child process loads each file and compares
// its peak resident size with what it was before.
// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <sys/wait.h>

#include <functional>

#include "files_support.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/files/npy.h"
#include "tweedie/core/files/npz.h"
#include "tweedie/core/files/safetensors.h"

using namespace files_test;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

/// A figure of /proc/self/status in bytes.
std::size_t status(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    std::size_t kib = 0;
    if (word == key && in >> kib) return kib * 1024;
  }
  return 0;
}

enum Result { kWithin = 0, kTooMuch = 1, kNotRefused = 2, kWrongError = 3, kNoMeasure = 4 };

/// Loads `path` in a child and says whether its peak stayed within `limit` bytes above the start.
int load_within(std::size_t limit, bool refused, const std::function<void()>& load) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    {
      std::ofstream reset("/proc/self/clear_refs");  // 5: the peak begins anew
      reset << "5";
    }
    const std::size_t before = status("VmRSS:");
    try {
      load();
      if (refused) ::_exit(kNotRefused);
    } catch (const Error&) {
      if (!refused) ::_exit(kWrongError);
    } catch (...) {
      ::_exit(kWrongError);
    }
    const std::size_t peak = status("VmHWM:");
    ::_exit(before == 0 || peak == 0 ? kNoMeasure : peak <= before + limit ? kWithin : kTooMuch);
  }
  int result = 0;
  REQUIRE(::waitpid(child, &result, 0) == child);
  return WIFEXITED(result) ? WEXITSTATUS(result) : 1000 + WTERMSIG(result);
}

constexpr std::size_t kMiB = std::size_t{1} << 20;
std::size_t rule(const std::string& path) { return 2 * std::filesystem::file_size(path) + 64 * kMiB; }

std::string tensor_entry(const std::string& name, std::size_t begin, std::size_t bytes) {
  return join("\"", name, "\":{\"dtype\":\"U8\",\"shape\":[", bytes, "],\"data_offsets\":[", begin, ",", begin + bytes, "]}");
}
void write_model(const std::string& path, std::string header, std::size_t data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  spill(path, le(header.size(), 8) + header + std::string(data, '\1'));
}

}  // namespace

TEST_CASE("memory: what a safetensors file holds at most twice, and its claims never") {
  if (kSanitized) {
    MESSAGE("skipped: the address sanitizer keeps freed memory");
    return;
  }
  const TempDir dir;
  const std::string path = dir / "m";
  const auto load = [&] { const SafetensorsFile file(path); };

  write_model(path, "{" + tensor_entry("w", 0, 64 * kMiB) + "}", 64 * kMiB);
  CHECK(load_within(rule(path), false, load) == kWithin);

  std::string many = "{\"__metadata__\":{";  // as many and as long keys as pass
  for (int i = 0; i < 65'536; ++i) many += join(i == 0 ? "" : ",", "\"", std::string(400, 'k'), i, "\":\"\"");
  many += "}";
  for (std::size_t i = 0; i < 65'536; ++i) many += "," + tensor_entry(std::string(400, 'n') + join(i), i, 1);
  write_model(path, many + "}", 65'536);
  CHECK(load_within(rule(path), false, load) == kWithin);

  write_model(path, "{\"__metadata__\":{\"k\":\"" + std::string(90 * kMiB, 'v') + "\"}}", 0);
  CHECK(load_within(rule(path), false, load) == kWithin);
  write_model(path, "{\"" + std::string(90 * kMiB, 'v') + "\":1}", 0);
  CHECK(load_within(rule(path), true, load) == kWithin);

  std::string list = "{\"w\":{\"shape\":[1";  // 40 MB of ones
  for (std::size_t i = 0; i < 20 * kMiB; ++i) list += ",1";
  write_model(path, list + "]}}", 0);
  CHECK(load_within(rule(path), true, load) == kWithin);
}

TEST_CASE("memory: npy and npz files hold their bytes and the matrix") {
  if (kSanitized) return;
  const TempDir dir;
  const std::string path = dir / "x";
  const MatrixD zeros(kMiB, 8);  // 64 MiB
  write_npy(path, zeros.view());
  CHECK(load_within(rule(path), false, [&] { (void)read_npy<double>(path); }) == kWithin);
  const Index shape[] = {Index{1} << 40};
  spill(path, detail::npy_header("<f8", shape) + std::string(kMiB, '\0'));
  CHECK(load_within(rule(path), true, [&] { (void)read_npy<double>(path); }) == kWithin);
  const NpzEntry entries[] = {{"x", zeros}};
  write_npz(path, entries);
  CHECK(load_within(rule(path), false, [&] { (void)NpzFile(path).read<double>("x"); }) == kWithin);
}

// A number takes eight bytes and may take one in the file, so a table can outweigh its file. For numbers written in full, as
// data are, it does not; for the worst it is the file and eight bytes a cell, never more.
TEST_CASE("memory: a table holds its file and eight bytes a cell") {
  if (kSanitized) return;
  const TempDir dir;
  const std::string path = dir / "t.csv";
  const auto load = [&] { (void)read_csv(path); };
  std::string rows;
  for (int i = 0; i < 400'000; ++i) rows += "0.123456,-1.234567,12.34567,0.333333,1.000001,-0.99999\n";
  spill(path, rows);
  CHECK(load_within(rule(path), false, load) == kWithin);

  std::string short_cells;
  for (int i = 0; i < 500'000; ++i) short_cells += ",,,,,,,,,,,,,,,\n";  // 16 cells
  spill(path, short_cells);
  CHECK(load_within(short_cells.size() * 9 + 64 * kMiB, false, load) == kWithin);
  std::string texts = "h\n";
  for (int i = 0; i < 5'000'000; ++i) texts += static_cast<char>('a' + i % 26), texts += '\n';
  spill(path, texts);
  CHECK(load_within(texts.size() * 9 + 64 * kMiB, false, load) == kWithin);
  // A wide first row and many lines: room is not set aside for their product.
  spill(path, std::string(65'535, ',') + std::string(30 * kMiB, '\n') + "1");
  CHECK(load_within(rule(path), true, load) == kWithin);
}
