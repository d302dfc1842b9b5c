// fuzz.h - what the fuzz targets share. A target hands bytes to a reader; the only outcomes allowed are a value whose parts agree
// and an error of ours. Anything else (another exception, a sanitizer's report, FUZZ_CHECK) is a finding.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

#include "tweedie/core/check.h"
#include "tweedie/core/files/file.h"

#define FUZZ_CHECK(condition)                                                      \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

namespace fuzz {

inline std::span<const std::byte> as_bytes(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const std::byte*>(data), size};
}

inline tweedie::FileBytes copy(const std::uint8_t* data, std::size_t size) {
  tweedie::FileBytes bytes(static_cast<tweedie::Index>(size));
  if (size > 0) std::memcpy(bytes.data(), data, size);
  return bytes;
}

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
