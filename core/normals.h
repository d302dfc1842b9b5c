// normals.h - two random words to two N(0, 1) floats by Box-Muller, the same bits on every host and device.
//
//   u = (r0 + 1) 2^-32,  v = (r1 + 1) 2^-32,   z0 = sqrt(-2 ln u) cos(2 pi v),   z1 = sqrt(-2 ln u) sin(2 pi v)
//
// Only IEEE float operations whose rounding the standard fixes (+, -, *, sqrt, int <-> float) and integer operations; so
// every compiler, instruction set and device gives the same bits, provided that a * b + c is not contracted: compile
// with -ffp-contract=off. In device code the arithmetic goes through __fmul_rn and friends, which are never fused
// whatever -fmad says; the host side of a .cu file should not call these functions. The algorithm is written once, over
// "lanes": one float, or a vector of them (core/detail/normal_lanes.h).
//
// Accuracy against double, measured over every third of the 2^32 words: radius 1.9 ULP, cosine and sine 2.8 ULP. No word is lost
// at either end: u = 2^-32 gives the radius 6.66, u = 1 gives 0, and close to 1 the radius is computed from 1 - u, which is
// exact. SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tweedie/core/host_device.h"

namespace tweedie::detail {

#ifdef __CUDA_ARCH__
/// A float whose operations are never contracted into fused ones.
struct RoundedFloat {
  float value;
  __device__ RoundedFloat(float v) : value(v) {}
  __device__ friend RoundedFloat operator+(RoundedFloat a, RoundedFloat b) { return __fadd_rn(a.value, b.value); }
  __device__ friend RoundedFloat operator-(RoundedFloat a, RoundedFloat b) { return __fsub_rn(a.value, b.value); }
  __device__ friend RoundedFloat operator*(RoundedFloat a, RoundedFloat b) { return __fmul_rn(a.value, b.value); }
};
#endif

/// One lane: what the algorithm needs beyond operators.
struct OneLane {
#ifdef __CUDA_ARCH__
  using Float = RoundedFloat;
  __device__ static Float from_int(std::int32_t x) { return __int2float_rn(x); }
  __device__ static Float from_unsigned(std::uint32_t x) { return __uint2float_rn(x); }
  __device__ static Float sqrt(Float x) { return __fsqrt_rn(x.value); }
  __device__ static std::uint32_t bits(Float x) { return __float_as_uint(x.value); }
  __device__ static Float from_bits(std::uint32_t x) { return __uint_as_float(x); }
#else
  using Float = float;
  static Float from_int(std::int32_t x) { return static_cast<float>(x); }
  static Float from_unsigned(std::uint32_t x) { return static_cast<float>(x); }
  static Float sqrt(Float x) { return std::sqrt(x); }
  static std::uint32_t bits(Float x) {
    std::uint32_t b;
    std::memcpy(&b, &x, sizeof b);
    return b;
  }
  static Float from_bits(std::uint32_t x) {
    float f;
    std::memcpy(&f, &x, sizeof f);
    return f;
  }
#endif
  using Unsigned = std::uint32_t;
  using Signed = std::int32_t;
  /// All bits set where a > b as signed numbers.
  TWEEDIE_HOST_DEVICE static Unsigned greater(Signed a, Signed b) { return a > b ? ~0U : 0U; }
  TWEEDIE_HOST_DEVICE static Signed as_signed(Unsigned x) { return static_cast<Signed>(x); }
  TWEEDIE_HOST_DEVICE static Unsigned as_unsigned(Signed x) { return static_cast<Unsigned>(x); }
};

template <class Lanes>
TWEEDIE_HOST_DEVICE inline typename Lanes::Float select(typename Lanes::Unsigned mask, typename Lanes::Float yes,
                                                        typename Lanes::Float no) {
  return Lanes::from_bits((Lanes::bits(yes) & mask) | (Lanes::bits(no) & ~mask));
}

/// sqrt(-2 ln u), u = (word + 1) 2^-32.
///
/// u = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); -2 ln(1 + f) = -2 f + f^2 + f^3 P(f), P minimax of degree 7
/// (relative error of the logarithm 6e-9). ln 2 is split so that e times its high part is exact.
template <class Lanes>
TWEEDIE_HOST_DEVICE inline typename Lanes::Float normal_radius(typename Lanes::Unsigned word) {
  using Float = typename Lanes::Float;
  using Unsigned = typename Lanes::Unsigned;
  // Where u > sqrt(1/2), e = 0 and f = u - 1 = -(~word) 2^-32 loses nothing; n holds ~word there and word + 1 elsewhere.
  const Unsigned upper = Lanes::greater(Lanes::as_signed(word ^ 0x80000000U), 0x3504F333);
  const Float n = Lanes::from_unsigned((word ^ upper) + upper + 1U);
  const Unsigned bits = Lanes::bits(n);
  const Unsigned k = Lanes::as_unsigned(Lanes::as_signed(bits - 0x3F3504F3U) >> 23);
  const Float f = select<Lanes>(upper, n * -0x1p-32F, Lanes::from_bits(bits - (k << 23)) - 1.0F);
  const Float e = Lanes::from_int(Lanes::as_signed((k - 32U) & ~upper));

  Float p = f * 0.152694050336F + -0.255231659736F;
  p = p * f + 0.263201951809F;
  p = p * f + -0.284035005935F;
  p = p * f + 0.332467328812F;
  p = p * f + -0.400024553709F;
  p = p * f + 0.500016414956F;
  p = p * f + -0.666666633779F;
  const Float f2 = f * f;
  Float y = f2 * f * p + e * 4.2438888010938e-4F;
  y = y + f2;
  y = y - f * 2.0F;
  y = y + e * -1.38671875F;
  return Lanes::sqrt(y);
}

/// cos and sin of 2 pi v, v = (word + 1) 2^-32: quadrant and rest are cut from the integer, so the reduction is exact.
/// On [-pi/4, pi/4] minimax polynomials of degree 7 and 8 (relative errors 4e-9, 1e-10).
template <class Lanes>
TWEEDIE_HOST_DEVICE inline void normal_direction(typename Lanes::Unsigned word, typename Lanes::Float& cosine,
                                                 typename Lanes::Float& sine) {
  using Float = typename Lanes::Float;
  using Unsigned = typename Lanes::Unsigned;
  const Unsigned turn = word + 1U;
  const Unsigned quadrant = (turn + 0x20000000U) >> 30;
  const Float x = Lanes::from_int(Lanes::as_signed(turn - (quadrant << 30))) * 1.46291807926715968e-9F;  // 2 pi / 2^32
  const Float z = x * x;
  Float s = z * -0.000195153054053F + 0.00833216098146F;
  s = s * z + -0.166666546146F;
  s = s * z * x + x;
  Float c = z * 2.44332349544e-5F + -0.0013887317062F;
  c = c * z + 0.0416666457033F;
  c = c * z * z - z * 0.5F;
  c = c + 1.0F;
  const Unsigned odd = 0U - (quadrant & 1U);
  cosine = Lanes::from_bits(Lanes::bits(select<Lanes>(odd, s, c)) ^ (((quadrant + 1U) & 2U) << 30));
  sine = Lanes::from_bits(Lanes::bits(select<Lanes>(odd, c, s)) ^ ((quadrant & 2U) << 30));
}

template <class Lanes>
TWEEDIE_HOST_DEVICE inline void normal_pair(typename Lanes::Unsigned word0, typename Lanes::Unsigned word1,
                                            typename Lanes::Float& z0, typename Lanes::Float& z1) {
  const typename Lanes::Float radius = normal_radius<Lanes>(word0);
  normal_direction<Lanes>(word1, z0, z1);
  z0 = radius * z0;
  z1 = radius * z1;
}

/// One pair of normals. In library code compiled without contraction, and on the device.
TWEEDIE_HOST_DEVICE inline void normal_pair(std::uint32_t word0, std::uint32_t word1, float& z0, float& z1) {
#ifdef __CUDA_ARCH__
  RoundedFloat a{0.0F}, b{0.0F};
  normal_pair<OneLane>(word0, word1, a, b);
  z0 = a.value;
  z1 = b.value;
#else
  normal_pair<OneLane>(word0, word1, z0, z1);
#endif
}

}  // namespace tweedie::detail
