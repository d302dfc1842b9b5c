// normals.cpp - the baseline build's normals: SSE2 on x86-64, the compiler's choice elsewhere.
// SPDX-License-Identifier: MIT
#include "tweedie/core/detail/normal_kernels.h"
#include "tweedie/core/detail/normal_lanes.h"

namespace tweedie::detail {

void normals_portable(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count, int pairs,
                      float* z) {
  normals_of_counters(c0, c1, c2, c3, key, count, pairs, z);
}

void words_portable(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count, uint32_t* word) {
  words_of_counters(c0, c1, c2, c3, key, count, word);
}

}  // namespace tweedie::detail
