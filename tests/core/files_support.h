// files_support.h - what the tests of core/files share: a scratch directory, error texts, and the two ways to be hostile:
// fixtures that must be refused for a named reason, and every cut and flip of a valid file.
// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/core/files/file.h"

namespace files_test {

using namespace tweedie;

class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/tweedie-files-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator()));
  }

 private:
  std::string path_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spill(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  REQUIRE(out.good());
}

inline std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

inline FileBytes file_bytes(std::string_view text) {
  FileBytes bytes(static_cast<Index>(text.size()));
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// A copy in memory of exactly the text's size, so that the address sanitizer sees a read past its end.
class ExactBytes {
 public:
  explicit ExactBytes(std::string_view text) : memory_(new std::byte[text.size()]), size_(text.size()) {
    if (size_ > 0) std::memcpy(memory_.get(), text.data(), size_);
  }
  std::span<const std::byte> span() const { return {memory_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::size_t size_;
};

/// What the error of type E says that `action` throws; "" and a failed check when it throws none.
template <class E = Error, class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    FAIL_CHECK("another kind of error: ", error.what());
    return "";
  }
  FAIL_CHECK("no error");
  return "";
}

inline bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

struct Fixture {
  std::string reason;
  std::string bytes;
  std::string says;  // a part of the message
};

/// Each fixture is refused with an E whose message holds what it should.
template <class E, class Parse>
void check_refused(const char* format, const std::vector<Fixture>& fixtures, Parse&& parse) {
  std::size_t refused = 0;
  for (const Fixture& fixture : fixtures) {
    CAPTURE(fixture.reason);
    const std::string message = message_of<E>([&] { parse(fixture.bytes); });
    CAPTURE(message);
    CHECK(holds(message, fixture.says));
    CHECK(holds(message, "hostile"));  // every message begins with the file's name
    refused += !message.empty();
  }
  MESSAGE(std::string(format), ": ", refused, " of ", fixtures.size(), " hostile fixtures refused");
  CHECK(fixtures.size() >= 40);
}

/// How many inputs loaded and how many were refused with a tweedie::Error; any other outcome fails the test.
struct Outcome {
  std::size_t loaded = 0;
  std::size_t refused = 0;
};

template <class Parse>
void try_one(const std::string& bytes, Parse&& parse, Outcome& outcome) {
  try {
    parse(bytes);
    ++outcome.loaded;
  } catch (const Error&) {
    ++outcome.refused;
  } catch (const std::exception& error) {
    FAIL_CHECK("neither a value nor an error of ours: ", error.what());
  }
}

/// Every proper prefix of `valid`.
template <class Parse>
Outcome try_truncations(const std::string& valid, Parse&& parse) {
  Outcome outcome;
  for (std::size_t size = 0; size < valid.size(); ++size) try_one(valid.substr(0, size), parse, outcome);
  return outcome;
}

/// Every byte of `valid` with each of its bits turned, and with all of them.
template <class Parse>
Outcome try_flips(const std::string& valid, Parse&& parse) {
  Outcome outcome;
  for (std::size_t at = 0; at < valid.size(); ++at) {
    for (const int mask : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      std::string bytes = valid;
      bytes[at] = static_cast<char>(bytes[at] ^ mask);
      try_one(bytes, parse, outcome);
    }
  }
  return outcome;
}

/// Little-endian integers, for building files by hand.
inline std::string le(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
  return out;
}

}  // namespace files_test
