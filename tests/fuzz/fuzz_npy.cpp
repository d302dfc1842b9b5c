// Any bytes as an array, in both precisions: the shape's product is the number of elements.
// SPDX-License-Identifier: MIT
#include "fuzz.h"
#include "tweedie/core/files/npy.h"

using namespace tweedie;

namespace {

template <class S>
void read(std::span<const std::byte> bytes) {
  try {
    const NpyArray<S> array = parse_npy_array<S>(bytes, "fuzz", {.allow_infinite = true});
    Index product = 1;
    for (const Index dimension : array.shape) product *= dimension;
    FUZZ_CHECK(product > 0 && product == array.values.size());
    FUZZ_CHECK(static_cast<std::size_t>(product) <= bytes.size());
  } catch (const Error&) {
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read<float>(fuzz::as_bytes(data, size));
  read<double>(fuzz::as_bytes(data, size));
  return 0;
}
