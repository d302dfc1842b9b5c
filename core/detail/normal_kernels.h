// normal_kernels.h - the compiled kernels behind Rng::normals and Permutation, one per instruction set; all give the same bits
// (exported for the tests).
// SPDX-License-Identifier: MIT
#pragma once

#include <stdint.h>

#include "tweedie/core/export.h"

namespace tweedie::detail {

/// z[2 pairs i + k] = the k-th normal (k < 2 pairs) of counter (c0[i], c1, c2[i], c3) under `key`, i < count <= 256. `count` is a
/// multiple of 16, pairs 1 or 2.
using NormalKernel = void (*)(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                              int pairs, float* z);

/// word[i] = the first word of counter (c0[i], c1, c2, c3) under `key`, i < count. `count` is a multiple of 16; word may be c0.
using WordKernel = void (*)(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count, uint32_t* word);

TWEEDIE_API void normals_portable(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                                  int pairs, float* z);
TWEEDIE_API void words_portable(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count,
                                uint32_t* word);
#ifdef __x86_64__
TWEEDIE_API void normals_avx2(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                              int pairs, float* z);
TWEEDIE_API void normals_avx512(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                                int pairs, float* z);
TWEEDIE_API void words_avx2(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count, uint32_t* word);
TWEEDIE_API void words_avx512(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count, uint32_t* word);
#endif

}  // namespace tweedie::detail
