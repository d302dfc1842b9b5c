// Any bytes as an archive: every member that it names is read or refused.
// SPDX-License-Identifier: MIT
#include "fuzz.h"
#include "tweedie/core/files/npz.h"

using namespace tweedie;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const NpzFile file(fuzz::copy(data, size), "fuzz");
    for (const std::string& name : file.names()) {
      FUZZ_CHECK(file.contains(name));
      try {
        FUZZ_CHECK(file.read_array<double>(name).values.size() > 0);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
