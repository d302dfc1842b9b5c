// fourier.h - cosines and sines of products of two numbers, compiled once per dispatch target.
//
//   p = w t,  k = round(2 p / pi),  r = p - k pi / 2 in [-pi/4, pi/4], all in double;  cos p, sin p = +-cos r, +-sin r, swapped
//   where k is odd. Taylor's polynomials of degree 12 and 11 err by 1e-11 there; the result is rounded to float once.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/simd.h"
#include "tweedie/kernels/cpu/table.h"

namespace tweedie::kernels {
namespace {

/// One vector of phases |p| <= 2^20.
TWEEDIE_SIMD void cos_sin(Native<double> p, Native<double>& cosine, Native<double>& sine) {
  using V = Native<double>;
  using U = V::Unsigned;
  using Raw = V::Raw;
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kHalfPiHigh = 0x1.921fb54400000p+0, kHalfPiLow = 0x1.0b4611a626331p-34;  // high has 33 bits: k * high is exact
  constexpr double kCos[] = {-1. / 2, 1. / 24, -1. / 720, 1. / 40320, -1. / 3628800, 1. / 479001600};
  constexpr double kSin[] = {-1. / 6, 1. / 120, -1. / 5040, 1. / 362880, -1. / 39916800};
  const V rounded = p * V(kTwoOverPi) + V(math::Format<double>::kRounder);
  const V k = rounded - V(math::Format<double>::kRounder);
  const V r = (p - k * V(kHalfPiHigh)) - k * V(kHalfPiLow);
  const V z = r * r;
  const V c = V(1.0) + z * math::polynomial(z, kCos);
  const V s = r + r * z * math::polynomial(z, kSin);
  // The quadrant's two bits: cos is -sin in the second and -cos in the third; sin is cos in the second, -sin in the third.
  const U quadrant = __builtin_bit_cast(U, rounded.v);
  const U odd = U{} - (quadrant & 1);
  const U both = __builtin_bit_cast(U, c.v) ^ __builtin_bit_cast(U, s.v);
  const U cos_bits = __builtin_bit_cast(U, c.v) ^ (both & odd), sin_bits = __builtin_bit_cast(U, s.v) ^ (both & odd);
  cosine = __builtin_bit_cast(Raw, cos_bits ^ (((quadrant + 1) >> 1 & 1) << 63));
  sine = __builtin_bit_cast(Raw, sin_bits ^ ((quadrant >> 1 & 1) << 63));
}

/// out (batch, 2 n) of t (batch) and w (n).
void fourier(Index batch, Index n, const double* t, const double* w, float* out) {
  using V = Native<double>;
  for (Index b = 0; b < batch; ++b, out += 2 * n) {
    for (Index i = 0; i < n; i += V::kWidth) {
      const Index count = n - i < V::kWidth ? n - i : V::kWidth;
      double part[V::kWidth] = {};
      __builtin_memcpy(part, w + i, static_cast<std::size_t>(count) * sizeof(double));
      V cosine, sine;
      cos_sin(V(t[b]) * load<V>(part), cosine, sine);
      for (Index l = 0; l < count; ++l) {
        out[i + l] = static_cast<float>(cosine.v[l]);
        out[n + i + l] = static_cast<float>(sine.v[l]);
      }
    }
  }
}

}  // namespace
}  // namespace tweedie::kernels
