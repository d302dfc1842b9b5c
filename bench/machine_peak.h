// machine_peak.h - the ceiling that the benchmarks are held against: chains of multiply-adds that never leave the registers.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>

#include "tweedie/kernels/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tweedie::bench {

using kernels::Index;
using kernels::Precision;
using kernels::Target;

inline constexpr int kChains = 12;          // > latency (4) x units (2)
inline constexpr int kDotChains = 16;       // of vdpbf16ps: > latency (6) x units (2)
inline constexpr Index kPeakLoops = 20000;  // 70 us: short enough to run undisturbed once in a while

#if defined(__x86_64__)
#if defined(__clang__)
#define TWEEDIE_UNROLL _Pragma("unroll")
#else
#define TWEEDIE_UNROLL _Pragma("GCC unroll 16")
#endif
// An empty instruction that claims to change the accumulators: the compiler can neither drop nor merge the chains.
#define TWEEDIE_PEAK_LOOP(Vector, chains, broadcast, multiply_add)                   \
  Vector sum[chains], factor = broadcast(.999f);                                     \
  TWEEDIE_UNROLL for (int j = 0; j < chains; ++j) sum[j] = factor;                   \
  for (Index i = 0; i < kPeakLoops; ++i) {                                           \
    TWEEDIE_UNROLL for (int j = 0; j < chains; ++j) sum[j] = multiply_add(sum[j]);   \
    TWEEDIE_UNROLL for (int j = 0; j < chains; ++j) asm volatile("" : "+v"(sum[j])); \
  }

[[gnu::target("avx512f")]] inline void peak_avx512() {
#define TWEEDIE_FMA(x) _mm512_fmadd_ps(x, factor, factor)
  TWEEDIE_PEAK_LOOP(__m512, kChains, _mm512_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
[[gnu::target("avx512f,avx512bf16")]] inline void peak_vdpbf16ps() {
  const __m512bh pairs = __builtin_bit_cast(__m512bh, _mm512_set1_epi32(0x3f7f3f7f));
#define TWEEDIE_DOT(x) _mm512_dpbf16_ps(x, pairs, pairs)
  TWEEDIE_PEAK_LOOP(__m512, kDotChains, _mm512_set1_ps, TWEEDIE_DOT)
#undef TWEEDIE_DOT
}
/// kChains products of 16 x 16 x 32 in each loop, on four tiles of sums.
[[gnu::target("amx-tile,amx-bf16")]] inline void peak_tdpbf16ps() {
  alignas(64) unsigned char config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  asm volatile("" : : "r"(config) : "memory");
  _tile_loadconfig(config);
  for (Index i = 0; i < kPeakLoops; ++i) {
    TWEEDIE_UNROLL for (int j = 0; j < kChains / 4; ++j) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
}
[[gnu::target("avx2,fma")]] inline void peak_avx2() {
#define TWEEDIE_FMA(x) _mm256_fmadd_ps(x, factor, factor)
  TWEEDIE_PEAK_LOOP(__m256, kChains, _mm256_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
inline void peak_portable() {
#define TWEEDIE_FMA(x) _mm_add_ps(_mm_mul_ps(x, factor), factor)
  TWEEDIE_PEAK_LOOP(__m128, kChains, _mm_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
#undef TWEEDIE_PEAK_LOOP
#undef TWEEDIE_UNROLL
#endif

/// GFLOP/s of one core in the multiply-adds that the target has for a precision: those of bf16 where it has a unit for them,
/// fp32's otherwise (of bf16x3, which takes three, count one). 0 where this file knows none.
inline double peak(Target target, Precision precision = Precision::fp32) {
#if defined(__x86_64__)
  struct Unit {
    void (*run)();
    double flops;  // of one pass through the loop
  };
  const bool fp32 = precision == Precision::fp32;
  const Unit unit = target == Target::portable         ? Unit{peak_portable, 8 * kChains}
                    : target == Target::avx2           ? Unit{peak_avx2, 16 * kChains}
                    : fp32 || target == Target::avx512 ? Unit{peak_avx512, 32 * kChains}
                    : target == Target::avx512_bf16    ? Unit{peak_vdpbf16ps, 64 * kDotChains}
                                                       : Unit{peak_tdpbf16ps, 2. * 16 * 16 * 32 * kChains};
  static double known[5][2] = {};
  double& result = known[static_cast<int>(target)][fp32 ? 0 : 1];
  if (result > 0) return result;
  double best = HUGE_VAL;
  for (int repeat = 0; repeat < 300; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    unit.run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return result = unit.flops * static_cast<double>(kPeakLoops) / best * 1e-9;
#else
  return static_cast<int>(target) * static_cast<int>(precision) * 0.0;
#endif
}

}  // namespace tweedie::bench
