// bf16.h - a float rounded to the 8 bits of a bf16 number, scalar and in vectors.
//
//   bf16 is a float without its lower 16 bits: sign, 8 bits of exponent, 7 of mantissa. Adding half a unit of the last place
//   (less one bit where that place is even) and cutting rounds to nearest even; from 2^127 (2 - 2^-8) on to infinity.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/simd.h"

namespace tweedie::kernels {
namespace {

/// N, U: a number and the unsigned integer of its width, scalars or compiler vectors. NaN stays as it is.
template <class N, class U>
TWEEDIE_SIMD N bf16_rounded(N x) {
  const U bits = __builtin_bit_cast(U, x);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  return x == x ? __builtin_bit_cast(N, rounded) : x;
}
TWEEDIE_SIMD float to_bf16(float x) { return bf16_rounded<float, std::uint32_t>(x); }
template <int W>
TWEEDIE_SIMD Vec<float, W> to_bf16(Vec<float, W> x) {
  return bf16_rounded<typename Vec<float, W>::Raw, typename Vec<float, W>::Unsigned>(x.v);
}

/// x = high + low + rest, |low| <= 2^-8 |x|, |rest| <= 2^-17 |x|.
template <class V>
struct Bf16Parts {
  V high, low;
};
template <class V>
TWEEDIE_SIMD Bf16Parts<V> bf16_parts(V x) {
  const V high = to_bf16(x);
  return {high, to_bf16(x - high)};
}

/// The word of two bf16 numbers, the even one in the lower half. Of a NaN the upper bits stay, with the one that makes it quiet.
TWEEDIE_SIMD std::uint32_t bf16_pair(float even, float odd) {
  const auto half = [](float x) { return (__builtin_bit_cast(std::uint32_t, x) >> 16) | (x == x ? 0u : 0x40u); };
  return half(even) | half(odd) << 16;
}

}  // namespace
}  // namespace tweedie::kernels
