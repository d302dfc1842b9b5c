// math.h - exp, log, sigmoid and silu as templates over the number: float, double, or a SIMD vector of either.
//
//   exp(x) = 2^n p(r),  n = round(x log2 e),  r = x - n ln 2,  p a minimax polynomial of degree 6 (float) or 11 (double)
//   log(x) = e ln 2 + 2 atanh(f / (2 + f)),  x = 2^e (1 + f),  sqrt(1/2) <= 1 + f < sqrt(2)
//
// The polynomials are ours (Remez exchange on the relative error; 3.1e-9 and 3.7e-18 before rounding). Every function is
// static and always inlined: translation units with different -m flags share no symbol. A vector type brings its own fma,
// select_less, minus_abs, scale and split_exponent (cpu/simd.h), found by argument-dependent lookup; the scalar ones
// stand here. Lanes never mix, so a vector's lane has the same bits as the scalar function under the same flags.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

// Functions that the host, its SIMD targets and (under nvcc) the device share.
#if defined(__CUDACC__)
#define TWEEDIE_MATH static __host__ __device__ __forceinline__
#else
#define TWEEDIE_MATH [[maybe_unused, gnu::always_inline]] static inline
#endif

namespace tweedie::kernels::math {

/// The element type of a number: itself for a scalar; a vector type specialises it.
template <class V>
struct ScalarOf {
  using Type = V;
};
template <class V>
using Scalar = typename ScalarOf<V>::Type;

// Binary layout of the two formats, and 1.5 * 2^mantissa: adding it rounds a small number to an integer.
template <class S>
struct Format;
template <>
struct Format<float> {
  using Signed = std::int32_t;
  using Unsigned = std::uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr Unsigned kBias = 127;
  static constexpr float kRounder = 12582912.0f;
  static constexpr float kSmallestNormal = 0x1p-126f;
  static constexpr float kExpFloor = -128.0f;  // exp(x) is below half the smallest number, and silu too
};
template <>
struct Format<double> {
  using Signed = std::int64_t;
  using Unsigned = std::uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr Unsigned kBias = 1023;
  static constexpr double kRounder = 6755399441055744.0;
  static constexpr double kSmallestNormal = 0x1p-1022;
  static constexpr double kExpFloor = -800.0;
};

// ---- primitives, scalar ----

TWEEDIE_MATH float fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__CUDACC__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;  // a library call per element would be slower than the rest of the kernel
#endif
}
TWEEDIE_MATH double fma(double a, double b, double c) {
#if defined(__FMA__) || defined(__CUDACC__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}
/// a < b ? x : y (y where a or b is NaN).
TWEEDIE_MATH float select_less(float a, float b, float x, float y) { return a < b ? x : y; }
TWEEDIE_MATH double select_less(double a, double b, double x, double y) { return a < b ? x : y; }
TWEEDIE_MATH float sqrt(float x) { return __builtin_sqrtf(x); }
TWEEDIE_MATH double sqrt(double x) { return __builtin_sqrt(x); }

/// -|x|.
TWEEDIE_MATH float minus_abs(float x) { return -__builtin_fabsf(x); }
TWEEDIE_MATH double minus_abs(double x) { return -__builtin_fabs(x); }

/// x 2^n for n = rounded - kRounder, |n| < 2 kBias, rounded once, also where the result underflows (if 2^-127 < |x| < 2^127,
/// say): two factors, each a normal number, since 2^n itself may be none.
/// R, I, U: the number, the signed and the unsigned integer of its width; scalars or compiler vectors.
template <class R, class I, class U, class S>
TWEEDIE_MATH R scale_by_factors(R x, R rounded) {
  using F = Format<S>;
  const U n = __builtin_bit_cast(U, rounded) - __builtin_bit_cast(typename F::Unsigned, F::kRounder);
  const U half = __builtin_bit_cast(U, __builtin_bit_cast(I, n) >> 1);
  const R first = __builtin_bit_cast(R, (half + F::kBias) << F::kMantissa);
  const R second = __builtin_bit_cast(R, (n - half + F::kBias) << F::kMantissa);
  return x * first * second;
}
TWEEDIE_MATH float scale(float x, float rounded) {
  return scale_by_factors<float, std::int32_t, std::uint32_t, float>(x, rounded);
}
TWEEDIE_MATH double scale(double x, double rounded) {
  return scale_by_factors<double, std::int64_t, std::uint64_t, double>(x, rounded);
}

/// x = 2^exponent fraction, sqrt(1/2) <= fraction < sqrt(2), for normal x > 0.
template <class R, class I, class U, class S>
TWEEDIE_MATH void split_number(R x, R& exponent, R& fraction) {
  using F = Format<S>;
  constexpr S kRoot = static_cast<S>(0.70710678118654752440);
  const auto root = __builtin_bit_cast(typename F::Unsigned, kRoot);
  const U offset = __builtin_bit_cast(U, x) - root;  // the exponent field now counts from sqrt(1/2)
  const I e = __builtin_bit_cast(I, offset) >> F::kMantissa;
  fraction = __builtin_bit_cast(R, __builtin_bit_cast(U, x) - (__builtin_bit_cast(U, e) << F::kMantissa));
  // An integer next to kRounder's bits is kRounder plus that integer.
  exponent =
      __builtin_bit_cast(R, __builtin_bit_cast(U, e) + __builtin_bit_cast(typename F::Unsigned, F::kRounder)) - F::kRounder;
}
TWEEDIE_MATH void split_exponent(float x, float& exponent, float& fraction) {
  split_number<float, std::int32_t, std::uint32_t, float>(x, exponent, fraction);
}
TWEEDIE_MATH void split_exponent(double x, double& exponent, double& fraction) {
  split_number<double, std::int64_t, std::uint64_t, double>(x, exponent, fraction);
}

// ---- functions, over any V ----

/// Horner's scheme: coefficients[0] + x (coefficients[1] + ...).
template <class V, class S, int N>
TWEEDIE_MATH V polynomial(V x, const S (&coefficients)[N]) {
  V y = V(coefficients[N - 1]);
  for (int i = N - 2; i >= 0; --i) y = fma(y, x, V(coefficients[i]));
  return y;
}

/// exp(x) = scale(power, rounded) for |x| <= -kExpFloor; kept apart, because a product with exp(x) may be normal where exp(x)
/// itself underflows.
template <class V>
struct ExpFactors {
  V power, rounded;
};

template <class S>
struct ExpTable;  // Terms: the polynomial (exp(r) - 1 - r) / r^2
template <>
struct ExpTable<float> {
  static constexpr float kLog2E = 1.44269504088896341f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440054690583e-4f;  // high has 9 bits: n * high is exact
  struct Terms {
    float k[5] = {0.499999934125f, 0.166665201078f, 0.0416683942109f, 0.00836878041118f, 0.00138144670593f};
  };
};
template <>
struct ExpTable<double> {
  static constexpr double kLog2E = 1.44269504088896340736;
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;  // high has 32 bits
  struct Terms {
    double k[10] = {0.5000000000000010720982,     0.1666666666666641023451,      0.04166666666652918859406,
                    0.00833333333349562379159,    0.001388888894392263961618,    0.0001984126950476535643577,
                    0.00002480149276279564743943, 0.000002755758734220381835252, 2.763037862080518030515e-7,
                    2.499996534325592263122e-8};
  };
};

template <class V>
TWEEDIE_MATH ExpFactors<V> exp_factors(V x) {
  using S = Scalar<V>;
  using C = ExpTable<S>;
  const V rounded = fma(x, V(C::kLog2E), V(Format<S>::kRounder));
  const V n = rounded - V(Format<S>::kRounder);
  const V r = fma(n, V(-C::kLn2Low), fma(n, V(-C::kLn2High), x));
  constexpr typename C::Terms terms = {};  // of this function: nvcc has no static arrays on the device
  ExpFactors<V> e;
  e.power = fma(r * r, polynomial(r, terms.k), r) + V(S(1));
  e.rounded = rounded;
  return e;
}

/// exp(x): relative error <= 2 u where the result is normal; 0 and infinity beyond the range; NaN stays.
template <class V>
TWEEDIE_MATH V exp(V x) {
  using S = Scalar<V>;
  constexpr S kLimit = -Format<S>::kExpFloor;
  x = select_less(x, V(-kLimit), V(-kLimit), x);
  x = select_less(V(kLimit), x, V(kLimit), x);
  const ExpFactors<V> e = exp_factors(x);
  return scale(e.power, e.rounded);
}

template <class S>
struct LogTable;  // atanh(s)/s = 1 + z (kTerms[0] + z ...), z = s^2: 1/3, 1/5, ...
template <>
struct LogTable<float> {
  static constexpr float kTerms[] = {1 / 3.f, 1 / 5.f, 1 / 7.f, 1 / 9.f};
};
template <>
struct LogTable<double> {
  static constexpr double kTerms[] = {1 / 3.,  1 / 5.,  1 / 7.,  1 / 9.,  1 / 11., 1 / 13.,
                                      1 / 15., 1 / 17., 1 / 19., 1 / 21., 1 / 23.};
};

/// log(x): error <= 4 u max(|log x|, |x - 1|) also for denormal x; log 0 = -infinity, NaN below 0, infinity and NaN stay.
template <class V>
TWEEDIE_MATH V log(V x) {
  using S = Scalar<V>;
  constexpr S kInfinity = S(__builtin_inff());
  constexpr S kLift = S(std::uint64_t{1} << (Format<S>::kMantissa + 1));
  const V smallest = V(Format<S>::kSmallestNormal);
  const V lifted = select_less(x, smallest, x * V(kLift), x);  // denormals become normal
  V exponent, fraction;
  split_exponent(lifted, exponent, fraction);
  exponent = select_less(x, smallest, exponent - V(S(Format<S>::kMantissa + 1)), exponent);
  const V f = fraction - V(S(1));
  const V s = f / (fraction + V(S(1)));
  const V z = s * s;
  // 2 atanh(s) = f - s (f - 2 z (1/3 + z/5 + ...)), since 2 s = f - s f: f, exact, carries the leading digits.
  const V tail = s * (f - V(S(2)) * z * polynomial(z, LogTable<S>::kTerms));
  const V y = fma(exponent, V(ExpTable<S>::kLn2High), f + fma(exponent, V(ExpTable<S>::kLn2Low), -tail));
  const V finite = select_less(x, V(kInfinity), y, x);  // infinity and NaN are their own logarithm
  const V positive = select_less(V(S(0)), x, finite, x - x + V(-kInfinity));
  return select_less(x, V(S(0)), V(S(__builtin_nanf(""))), positive);
}

/// What sigmoid, silu and its derivative are made of, with nothing that overflows.
template <class V>
struct LogisticParts {
  V e;          // exp(-|x|), 0 where it underflows
  V bounded;    // x within +-kExpFloor: an infinity must not meet a zero
  V numerator;  // silu's: x for x >= 0; x exp(x) for x < 0, rounded once even where exp(x) underflows and x exp(x) does not
};

template <class V>
TWEEDIE_MATH LogisticParts<V> logistic_parts(V x) {
  using S = Scalar<V>;
  const V floor = V(Format<S>::kExpFloor);
  const V magnitude = minus_abs(x);
  const V minus = select_less(magnitude, floor, floor, magnitude);
  const ExpFactors<V> f = exp_factors(minus);
  LogisticParts<V> parts;
  parts.e = scale(f.power, f.rounded);
  parts.bounded = select_less(x, V(S(0)), minus, -minus);
  parts.numerator = select_less(x, V(S(0)), scale(minus * f.power, f.rounded), x);
  return parts;
}

/// sigmoid(x) = 1 / (1 + exp(-x)): error <= 4 ULP where the result is normal; 0 and 1 at the infinities.
template <class V>
TWEEDIE_MATH V sigmoid(V x) {
  using S = Scalar<V>;
  const V e = logistic_parts(x).e;
  return select_less(x, V(S(0)), e, V(S(1))) / (V(S(1)) + e);
}

/// silu(x) = x sigmoid(x): error <= 4 ULP where the result is normal; -0 at -infinity, the limit.
template <class V>
TWEEDIE_MATH V silu(V x) {
  const LogisticParts<V> parts = logistic_parts(x);
  return parts.numerator / (V(Scalar<V>(1)) + parts.e);
}

/// d silu / dx = s + x s (1 - s), s = sigmoid(x): error <= 6 u (|s| + |x s (1 - s)|); 0 and 1 at the infinities.
template <class V>
TWEEDIE_MATH V silu_derivative(V x) {
  using S = Scalar<V>;
  const LogisticParts<V> parts = logistic_parts(x);
  const V r = V(S(1)) / (V(S(1)) + parts.e);  // sigmoid(|x|)
  const V er = parts.e * r;                   // sigmoid(-|x|)
  return fma(parts.bounded, er * r, select_less(x, V(S(0)), er, r));
}

}  // namespace tweedie::kernels::math
