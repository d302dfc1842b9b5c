// simd.h - a vector of W numbers over the compilers' vector types, and the few instructions they have no spelling for.
//
//   using V = Native<float>;            // as wide as this translation unit's -m flags allow
//   V y = fma(load<V>(x), V(2), V(1));  // y = 2 x + 1, one rounding where the machine has fma
//
// Included by every dispatch target with its own flags, so everything has internal linkage (the unnamed namespace): a
// function compiled for AVX-512 is never merged with the same function compiled for another target. Nothing of the STL.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

#include "tweedie/kernels/math.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define TWEEDIE_SIMD [[maybe_unused, gnu::always_inline]] inline
// Loops over registers: unrolled completely, or the registers become memory.
#if defined(__clang__)
#define TWEEDIE_UNROLL _Pragma("unroll")
#else
#define TWEEDIE_UNROLL _Pragma("GCC unroll 32")
#endif

namespace tweedie::kernels {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

/// The compilers' own vector type: arithmetic, comparison, ?: and element access by operators.
template <class T, int W>
struct CompilerVector {
  typedef T Type __attribute__((vector_size(W * sizeof(T))));
};

template <class T, int W>
struct Vec {
  using Raw = typename CompilerVector<T, W>::Type;
  using Signed = typename CompilerVector<typename math::Format<T>::Signed, W>::Type;
  using Unsigned = typename CompilerVector<typename math::Format<T>::Unsigned, W>::Type;
  static constexpr int kWidth = W;

  Raw v;

  Vec() = default;
  [[gnu::always_inline]] Vec(Raw raw) : v(raw) {}
  [[gnu::always_inline]] explicit Vec(T x) : v(x - Raw{}) {}  // all lanes; x - 0 keeps -0
};

template <class T>
using Native = Vec<T, kVectorBytes / static_cast<int>(sizeof(T))>;

template <class T, int W>
TWEEDIE_SIMD Vec<T, W> operator+(Vec<T, W> a, Vec<T, W> b) {
  return a.v + b.v;
}
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> operator-(Vec<T, W> a, Vec<T, W> b) {
  return a.v - b.v;
}
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> operator*(Vec<T, W> a, Vec<T, W> b) {
  return a.v * b.v;
}
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> operator/(Vec<T, W> a, Vec<T, W> b) {
  return a.v / b.v;
}
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> operator-(Vec<T, W> a) {
  return -a.v;
}

/// W numbers from any address (no alignment asked), and back.
template <class V>
TWEEDIE_SIMD V load(const math::Scalar<V>* from) {
  V x;
  __builtin_memcpy(&x, from, sizeof(V));
  return x;
}
template <class T, int W>
TWEEDIE_SIMD void store(T* to, Vec<T, W> x) {
  __builtin_memcpy(to, &x, sizeof(x));
}
// The same for one number, so that a loop's tail is the loop's body over T.
template <>
[[maybe_unused, gnu::always_inline]] inline float load<float>(const float* from) {
  return *from;
}
template <>
[[maybe_unused, gnu::always_inline]] inline double load<double>(const double* from) {
  return *from;
}
/// A vector of doubles from numbers of either kind.
template <class T>
TWEEDIE_SIMD Vec<double, kVectorBytes / 8> widened(const T* from) {
  typename CompilerVector<T, kVectorBytes / 8>::Type x;
  __builtin_memcpy(&x, from, sizeof(x));
  return __builtin_convertvector(x, typename CompilerVector<double, kVectorBytes / 8>::Type);
}
TWEEDIE_SIMD void store(float* to, float x) { *to = x; }
TWEEDIE_SIMD void store(double* to, double x) { *to = x; }

/// Has x in a register from here on: the compiler would rather load a vector again for each multiply-add that takes it.
template <class T, int W>
TWEEDIE_SIMD void in_register([[maybe_unused]] Vec<T, W>& x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x.v));
#elif defined(__SSE2__)
  asm("" : "+x"(x.v));
#endif
}

/// a < b ? x : y in each lane (y where a or b is NaN).
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> select_less(Vec<T, W> a, Vec<T, W> b, Vec<T, W> x, Vec<T, W> y) {
  return a.v < b.v ? x.v : y.v;
}

template <class T, int W>
TWEEDIE_SIMD Vec<T, W> minus_abs(Vec<T, W> x) {
  using U = typename Vec<T, W>::Unsigned;
  constexpr T kMinusZero = T(-0.0);
  return __builtin_bit_cast(typename Vec<T, W>::Raw,
                            __builtin_bit_cast(U, x.v) | __builtin_bit_cast(typename math::Format<T>::Unsigned, kMinusZero));
}

/// a b + c: fused where the target has the instruction, two roundings on the portable one (never a library call).
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> fma(Vec<T, W> a, Vec<T, W> b, Vec<T, W> c) {
  return a.v * b.v + c.v;
}
#if defined(__FMA__)
TWEEDIE_SIMD Vec<float, 8> fma(Vec<float, 8> a, Vec<float, 8> b, Vec<float, 8> c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
TWEEDIE_SIMD Vec<double, 4> fma(Vec<double, 4> a, Vec<double, 4> b, Vec<double, 4> c) { return _mm256_fmadd_pd(a.v, b.v, c.v); }
#endif
#if defined(__AVX512F__)
TWEEDIE_SIMD Vec<float, 16> fma(Vec<float, 16> a, Vec<float, 16> b, Vec<float, 16> c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
TWEEDIE_SIMD Vec<double, 8> fma(Vec<double, 8> a, Vec<double, 8> b, Vec<double, 8> c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
#endif

template <class T, int W>
TWEEDIE_SIMD Vec<T, W> sqrt(Vec<T, W> x) {
  for (int i = 0; i < W; ++i) x.v[i] = math::sqrt(x.v[i]);
  return x;
}
#if defined(__SSE2__)
TWEEDIE_SIMD Vec<float, 4> sqrt(Vec<float, 4> x) { return _mm_sqrt_ps(x.v); }
TWEEDIE_SIMD Vec<double, 2> sqrt(Vec<double, 2> x) { return _mm_sqrt_pd(x.v); }
#endif
#if defined(__AVX2__)
TWEEDIE_SIMD Vec<float, 8> sqrt(Vec<float, 8> x) { return _mm256_sqrt_ps(x.v); }
TWEEDIE_SIMD Vec<double, 4> sqrt(Vec<double, 4> x) { return _mm256_sqrt_pd(x.v); }
#endif
#if defined(__AVX512F__)
// With a full mask: gcc 12 warns of the undefined pass-through in its own unmasked intrinsic.
TWEEDIE_SIMD Vec<float, 16> sqrt(Vec<float, 16> x) { return _mm512_maskz_sqrt_ps(__mmask16(-1), x.v); }
TWEEDIE_SIMD Vec<double, 8> sqrt(Vec<double, 8> x) { return _mm512_maskz_sqrt_pd(__mmask8(-1), x.v); }
#endif

/// a > b ? a : b and a < b ? a : b: b where a or b is NaN.
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> larger(Vec<T, W> a, Vec<T, W> b) {
  return a.v > b.v ? a.v : b.v;
}
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> smaller(Vec<T, W> a, Vec<T, W> b) {
  return a.v < b.v ? a.v : b.v;
}
#if defined(__AVX512F__)
// One instruction each with that very meaning. With a full mask, as for sqrt.
TWEEDIE_SIMD Vec<float, 16> larger(Vec<float, 16> a, Vec<float, 16> b) { return _mm512_maskz_max_ps(__mmask16(-1), a.v, b.v); }
TWEEDIE_SIMD Vec<float, 16> smaller(Vec<float, 16> a, Vec<float, 16> b) { return _mm512_maskz_min_ps(__mmask16(-1), a.v, b.v); }
#endif

/// 1 / x for 1 <= x < 2^126: error <= 2 u of the result.
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> reciprocal(Vec<T, W> x) {
  return Vec<T, W>(T(1)) / x;
}
#if defined(__AVX512F__)
// 14 bits and one step of Newton's: a division of 16 numbers takes as long as ten instructions.
TWEEDIE_SIMD Vec<float, 16> reciprocal(Vec<float, 16> x) {
  const Vec<float, 16> r = _mm512_maskz_rcp14_ps(__mmask16(-1), x.v);
  return fma(r, fma(-x, r, Vec<float, 16>(1.0f)), r);
}
#endif

/// The sum of the lanes: halves are added until one number is left.
template <class T>
TWEEDIE_SIMD T sum_lanes(Vec<T, 4> x) {
  return (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]);
}
template <class T, int W>
TWEEDIE_SIMD T sum_lanes(Vec<T, W> x) {
  struct Halves {
    Vec<T, W / 2> low, high;
  };
  const auto halves = __builtin_bit_cast(Halves, x);
  return sum_lanes(halves.low + halves.high);
}

/// See math::scale_by_factors.
template <class T, int W>
TWEEDIE_SIMD Vec<T, W> scale(Vec<T, W> x, Vec<T, W> rounded) {
  using V = Vec<T, W>;
  return math::scale_by_factors<typename V::Raw, typename V::Signed, typename V::Unsigned, T>(x.v, rounded.v);
}
#if defined(__AVX512F__)
// One instruction with the same result. With a full mask, as for sqrt.
TWEEDIE_SIMD Vec<float, 16> scale(Vec<float, 16> x, Vec<float, 16> rounded) {
  return _mm512_maskz_scalef_ps(__mmask16(-1), x.v, rounded.v - math::Format<float>::kRounder);
}
TWEEDIE_SIMD Vec<double, 8> scale(Vec<double, 8> x, Vec<double, 8> rounded) {
  return _mm512_maskz_scalef_pd(__mmask8(-1), x.v, rounded.v - math::Format<double>::kRounder);
}
#endif
/// See math::split_number.
template <class T, int W>
TWEEDIE_SIMD void split_exponent(Vec<T, W> x, Vec<T, W>& exponent, Vec<T, W>& fraction) {
  using V = Vec<T, W>;
  math::split_number<typename V::Raw, typename V::Signed, typename V::Unsigned, T>(x.v, exponent.v, fraction.v);
}

}  // namespace

namespace math {
template <class T, int W>
struct ScalarOf<Vec<T, W>> {
  using Type = T;
};
}  // namespace math

}  // namespace tweedie::kernels
