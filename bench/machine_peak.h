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
using kernels::Target;

inline constexpr int kChains = 12;          // > latency (4) x units (2)
inline constexpr Index kPeakLoops = 20000;  // 70 us: short enough to run undisturbed once in a while

#if defined(__x86_64__)
#if defined(__clang__)
#define TWEEDIE_UNROLL _Pragma("unroll")
#else
#define TWEEDIE_UNROLL _Pragma("GCC unroll 16")
#endif
// An empty instruction that claims to change the accumulators: the compiler can neither drop nor merge the chains.
#define TWEEDIE_PEAK_LOOP(Vector, broadcast, multiply_add)                            \
  Vector sum[kChains], factor = broadcast(.999f);                                     \
  TWEEDIE_UNROLL for (int j = 0; j < kChains; ++j) sum[j] = factor;                   \
  for (Index i = 0; i < kPeakLoops; ++i) {                                            \
    TWEEDIE_UNROLL for (int j = 0; j < kChains; ++j) sum[j] = multiply_add(sum[j]);   \
    TWEEDIE_UNROLL for (int j = 0; j < kChains; ++j) asm volatile("" : "+v"(sum[j])); \
  }

[[gnu::target("avx512f")]] inline void peak_avx512() {
#define TWEEDIE_FMA(x) _mm512_fmadd_ps(x, factor, factor)
  TWEEDIE_PEAK_LOOP(__m512, _mm512_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
[[gnu::target("avx2,fma")]] inline void peak_avx2() {
#define TWEEDIE_FMA(x) _mm256_fmadd_ps(x, factor, factor)
  TWEEDIE_PEAK_LOOP(__m256, _mm256_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
inline void peak_portable() {
#define TWEEDIE_FMA(x) _mm_add_ps(_mm_mul_ps(x, factor), factor)
  TWEEDIE_PEAK_LOOP(__m128, _mm_set1_ps, TWEEDIE_FMA)
#undef TWEEDIE_FMA
}
#undef TWEEDIE_PEAK_LOOP
#undef TWEEDIE_UNROLL
#endif

/// GFLOP/s of one core in the target's multiply-adds; 0 where this file knows none.
inline double peak(Target target) {
#if defined(__x86_64__)
  static double known[3] = {};
  double& result = known[static_cast<int>(target)];
  if (result > 0) return result;
  void (*const run)() = target == Target::avx512 ? peak_avx512 : target == Target::avx2 ? peak_avx2 : peak_portable;
  const int width = target == Target::avx512 ? 16 : target == Target::avx2 ? 8 : 4;
  double best = HUGE_VAL;
  for (int repeat = 0; repeat < 300; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return result = 2.0 * width * kChains * static_cast<double>(kPeakLoops) / best * 1e-9;
#else
  return static_cast<int>(target) * 0.0;
#endif
}

}  // namespace tweedie::bench
