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
  static Float from_unsigned(Unsigned x) {
#if defined(__AVX512F__)
    return (Float)_mm512_maskz_cvtepu32_ps(0xFFFF, (__m512i)x);
#else  // both halves are exact and the sum rounds once: as one conversion would
    return from_int(as_signed(x >> 16)) * 65536.0F + from_int(as_signed(x & 0xFFFFU));
#endif
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
inline void philox_lanes(VectorLanes::Unsigned c0, uint32_t c1, VectorLanes::Unsigned c2, uint32_t c3, const RoundKeys& keys,
                         VectorLanes::Unsigned word[4]) {
  using Wide = VectorLanes::Wide;
  const Wide low = (Wide)c0, block = (Wide)c2, zero = {};
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
    philox_lanes(load_lanes<Unsigned>(c0 + i), c1, block, c3, keys, words);
    store_lanes(word + i, words[0]);
  }
}

/// Where lane l of a vector of counters takes its counter from, so that interleaving the vectors of its normals by their
/// quarters (128 bits) leaves them in the counters' order: quarter j of vector m holds counter J m + j of J quarters (pairs = 2),
/// counters 2 (J m + j) and the next (pairs = 1).
template <int pairs>
inline VectorLanes::Signed counter_order() {
  constexpr int quarters = VectorLanes::kLanes / 4;
  VectorLanes::Signed order{};
  for (int j = 0; j < quarters; ++j) {
    for (int m = 0; m < 4; ++m) order[4 * j + m] = pairs == 2 ? quarters * m + j : 2 * (quarters * (m / 2) + j) + m % 2;
  }
  return order;
}
inline VectorLanes::Unsigned permute(VectorLanes::Unsigned x, VectorLanes::Signed order) {
#if defined(__AVX512F__)
  return (VectorLanes::Unsigned)_mm512_maskz_permutexvar_epi32(0xFFFF, (__m512i)order, (__m512i)x);
#elif defined(__AVX2__)
  return (VectorLanes::Unsigned)_mm256_permutevar8x32_epi32((__m256i)x, (__m256i)order);
#else
  VectorLanes::Unsigned y{};
  for (int i = 0; i < VectorLanes::kLanes; ++i) y[i] = x[order[i]];
  return y;
#endif
}

/// In each quarter: a0 b0 a1 b1, and a2 b2 a3 b3.
inline VectorLanes::Float interleave_low(VectorLanes::Float a, VectorLanes::Float b) {
#if defined(__AVX512F__)
  return (VectorLanes::Float)_mm512_maskz_unpacklo_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (VectorLanes::Float)_mm256_unpacklo_ps((__m256)a, (__m256)b);
#else
  return VectorLanes::Float{a[0], b[0], a[1], b[1]};
#endif
}
inline VectorLanes::Float interleave_high(VectorLanes::Float a, VectorLanes::Float b) {
#if defined(__AVX512F__)
  return (VectorLanes::Float)_mm512_maskz_unpackhi_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (VectorLanes::Float)_mm256_unpackhi_ps((__m256)a, (__m256)b);
#else
  return VectorLanes::Float{a[2], b[2], a[3], b[3]};
#endif
}
/// In each quarter the halves a_low b_low, and a_high b_high.
inline VectorLanes::Float halves_low(VectorLanes::Float a, VectorLanes::Float b) {
#if defined(__AVX512F__)
  return (VectorLanes::Float)_mm512_maskz_unpacklo_pd(0xFF, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  return (VectorLanes::Float)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
#else
  return VectorLanes::Float{a[0], a[1], b[0], b[1]};
#endif
}
inline VectorLanes::Float halves_high(VectorLanes::Float a, VectorLanes::Float b) {
#if defined(__AVX512F__)
  return (VectorLanes::Float)_mm512_maskz_unpackhi_pd(0xFF, (__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  return (VectorLanes::Float)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
#else
  return VectorLanes::Float{a[2], a[3], b[2], b[3]};
#endif
}

constexpr int kMostCounters = 256;

/// z[2 pairs i + k] = the k-th normal of counter (c0[i], c1, c2[i], c3), i < count <= 256, count a multiple of the lanes.
/// Two passes, so that in each the processor has several independent iterations in flight (one pass: 1.3 times the time).
template <int pairs>
inline void normals_of_counters(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                                float* z) {
  using Float = VectorLanes::Float;
  using Unsigned = VectorLanes::Unsigned;
  constexpr int lanes = VectorLanes::kLanes;
  const RoundKeys keys(key);
  const VectorLanes::Signed order = counter_order<pairs>();
  Unsigned words[kMostCounters / lanes][2 * pairs];
  for (int i = 0; i < count / lanes; ++i) {
    const Unsigned row = permute(load_lanes<Unsigned>(c0 + i * lanes), order);
    const Unsigned block = permute(load_lanes<Unsigned>(c2 + i * lanes), order);
    Unsigned word[4];
    philox_lanes(row, c1, block, c3, keys, word);
    for (int k = 0; k < 2 * pairs; ++k) words[i][k] = word[k];
  }
  for (int i = 0; i < count / lanes; ++i, z += 2 * pairs * lanes) {
    Float a, b;
    normal_pair<VectorLanes>(words[i][0], words[i][1], a, b);
    const Float low = interleave_low(a, b), high = interleave_high(a, b);
    if constexpr (pairs == 1) {
      store_lanes(z, low);
      store_lanes(z + lanes, high);
    } else {
      normal_pair<VectorLanes>(words[i][2], words[i][3], a, b);
      const Float low2 = interleave_low(a, b), high2 = interleave_high(a, b);
      store_lanes(z, halves_low(low, low2));
      store_lanes(z + lanes, halves_high(low, low2));
      store_lanes(z + 2 * lanes, halves_low(high, high2));
      store_lanes(z + 3 * lanes, halves_high(high, high2));
    }
  }
}
inline void normals_of_counters(const uint32_t* c0, uint32_t c1, const uint32_t* c2, uint32_t c3, uint64_t key, int count,
                                int pairs, float* z) {
  if (pairs == 1) return normals_of_counters<1>(c0, c1, c2, c3, key, count, z);
  normals_of_counters<2>(c0, c1, c2, c3, key, count, z);
}

}  // namespace
}  // namespace tweedie::detail
