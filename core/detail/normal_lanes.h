// normal_lanes.h - Philox and Box-Muller for many counters at once, over the widest vectors of the translation unit's flags.
//
// The maskz_ forms are the plain instructions: gcc 12 warns of an uninitialised operand in the unmasked ones.
// Included by one translation unit per instruction set, each compiled with -ffp-contract=off; includes nothing of the STL.
// SPDX-License-Identifier: MIT
#pragma once

#include <stdint.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"

namespace tweedie::detail {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

/// The lanes of normals.h in the compilers' vector types.
struct VectorLanes {
  static constexpr int kLanes = kBytes / 4;
  typedef float Float __attribute__((vector_size(kBytes)));
  typedef uint32_t Unsigned __attribute__((vector_size(kBytes)));
  typedef int32_t Signed __attribute__((vector_size(kBytes)));
  typedef uint64_t Wide __attribute__((vector_size(kBytes)));

  static Float from_int(Signed x) { return __builtin_convertvector(x, Float); }
  static Float from_unsigned(Unsigned x) {  // both halves are exact and the sum rounds once: as one conversion would
    return from_int(as_signed(x >> 16)) * 65536.0F + from_int(as_signed(x & 0xFFFFU));
  }
  static Float sqrt(Float x) {
#if defined(__AVX512F__)
    return (Float)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX2__)
    return (Float)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
    return (Float)_mm_sqrt_ps((__m128)x);
#else
    for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
  }
  static Unsigned bits(Float x) { return (Unsigned)x; }
  static Float from_bits(Unsigned x) { return (Float)x; }
  static Unsigned greater(Signed a, int32_t b) { return (Unsigned)(a > b); }
  static Signed as_signed(Unsigned x) { return (Signed)x; }
  static Unsigned as_unsigned(Signed x) { return (Unsigned)x; }

  /// The product of the low halves of each 64-bit lane with `m`.
  static Wide multiply(Wide x, uint32_t m) {
#if defined(__AVX512F__)
    return (Wide)_mm512_maskz_mul_epu32(0xFF, (__m512i)x, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
    return (Wide)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(m));
#elif defined(__SSE2__)
    return (Wide)_mm_mul_epu32((__m128i)x, _mm_set1_epi64x(m));
#else
    return (x & 0xFFFFFFFFU) * m;
#endif
  }
};

template <class T>
inline T load_lanes(const void* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store_lanes(void* p, T v) {
  __builtin_memcpy(p, &v, sizeof v);
}

/// The keys of all rounds, in every 64-bit lane.
struct RoundKeys {
  VectorLanes::Wide k0[kPhiloxRounds], k1[kPhiloxRounds];

  explicit RoundKeys(uint64_t key) {
    const VectorLanes::Wide zero = {};
    auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      k0[round] = zero + low;
      k1[round] = zero + high;
      low += kPhiloxWeyl0;
      high += kPhiloxWeyl1;
    }
  }
};

/// Ten rounds on counters that stand in the low halves of 64-bit lanes; the high halves hold anything, and are not read.
inline void philox_rounds(VectorLanes::Wide c[4], const RoundKeys& keys) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const VectorLanes::Wide p0 = VectorLanes::multiply(c[0], kPhiloxMultiplier0);
    const VectorLanes::Wide p1 = VectorLanes::multiply(c[2], kPhiloxMultiplier1);
    c[0] = (p1 >> 32) ^ c[1] ^ keys.k0[round];
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ keys.k1[round];
    c[3] = p0;
  }
}

/// The four words of each lane's counter.
inline void philox_lanes(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, const RoundKeys& keys,
                         VectorLanes::Unsigned word[4]) {
  using Wide = VectorLanes::Wide;
  const Wide low = load_lanes<Wide>(c0), block = load_lanes<Wide>(c2), zero = {};
  Wide even[4] = {low, zero + c1, block, zero + c3};
  Wide odd[4] = {low >> 32, zero + c1, block >> 32, zero + c3};
  philox_rounds(even, keys);
  philox_rounds(odd, keys);
  for (int i = 0; i < 4; ++i) word[i] = (VectorLanes::Unsigned)((even[i] & 0xFFFFFFFFU) | (odd[i] << 32));
}

/// word[i] = the first word of counter (c0[i], c1, c2, c3), i < count, a multiple of the lanes.
inline void words_of_counters(const uint32_t* c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, int count,
                              uint32_t* word) {
  using Unsigned = VectorLanes::Unsigned;
  constexpr int lanes = VectorLanes::kLanes;
  const RoundKeys keys(key);
  const Unsigned block = Unsigned{} + c2;
  for (int i = 0; i < count; i += lanes) {
    Unsigned words[4];
    philox_lanes(c0 + i, c1, (const uint32_t*)&block, c3, keys, words);
    store_lanes(word + i, words[0]);
  }
}

constexpr int kMostCounters = 256;

/// z[k][i] = the k-th normal of counter (c0[i], c1, c2[i], c3), i < count <= 256, count a multiple of the lanes; k < 2 * pairs.
/// Two passes, so that in each the processor has several independent iterations in flight (one pass: 1.3 times the time).
inline void normals_of_counters(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                                int pairs, float* const z[4]) {
  using Unsigned = VectorLanes::Unsigned;
  constexpr int lanes = VectorLanes::kLanes;
  const RoundKeys keys(key);
  Unsigned words[4][kMostCounters / lanes];
  for (int i = 0; i < count / lanes; ++i) {
    Unsigned word[4];
    philox_lanes(c0 + i * lanes, c1, c2 + i * lanes, c3, keys, word);
    for (int k = 0; k < 2 * pairs; ++k) words[k][i] = word[k];
  }
  for (int pair = 0; pair < pairs; ++pair) {
    const Unsigned *const word0 = words[2 * pair], *const word1 = words[2 * pair + 1];
    float *const z0 = z[2 * pair], *const z1 = z[2 * pair + 1];
    for (int i = 0; i < count / lanes; ++i) {
      VectorLanes::Float a, b;
      normal_pair<VectorLanes>(word0[i], word1[i], a, b);
      store_lanes(z0 + i * lanes, a);
      store_lanes(z1 + i * lanes, b);
    }
  }
}

}  // namespace
}  // namespace tweedie::detail
