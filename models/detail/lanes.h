// lanes.h - a few rows side by side in one SIMD register of the baseline (16 bytes), for the exact mixtures.
//
// A row's result may depend on that row alone, so a batch's tail runs through the very same instructions as its body: rows are
// taken four (float) or two (double) at a time, and lanes beyond the last row hold a copy of it.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tweedie/core/matrix.h"

namespace tweedie::detail {

template <class S>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Type __attribute__((vector_size(16)));
};
template <>
struct LanesOf<double> {
  typedef double Type __attribute__((vector_size(16)));
};
template <class S>
using Lanes = typename LanesOf<S>::Type;
template <class S>
inline constexpr Index kLanes = static_cast<Index>(16 / sizeof(S));

/// The same value in every lane.
template <class S>
Lanes<S> spread(S value) {
  return Lanes<S>{} + value;
}

template <class V>
V larger(V a, V b) {
  return a > b ? a : b;
}

/// exp(x) for x <= 0, relative error < 2e-7; arguments below -87 give exp(-87) = 1.6e-38, NaN gives NaN.
/// x = n ln 2 + r, |r| <= ln(2)/2; exp(r) by its Taylor polynomial of degree 7 (remainder r^8/8! < 6e-9).
inline Lanes<float> exp_nonpositive(Lanes<float> x) {
  typedef std::int32_t Ints __attribute__((vector_size(16)));
  x = x < -87.f ? spread(-87.f) : x;
  const float round = 12582912.f;  // 1.5 2^23: adding it leaves the nearest integer in the low bits
  const Lanes<float> shifted = x * 1.44269504f + round;
  const Lanes<float> n = shifted - round;
  // ln 2 in two parts; n times the first is exact.
  const Lanes<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  Lanes<float> p = spread(1.f / 5040);
  for (const float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f, 1.f, 1.f}) p = p * r + c;
  return p * (Lanes<float>)(((Ints)shifted - (0x4B400000 - 127)) << 23);
}

inline Lanes<double> exp_nonpositive(Lanes<double> x) { return Lanes<double>{std::exp(x[0]), std::exp(x[1])}; }

/// Lane i is column `col` of row first + i; beyond the last row, of the last row.
template <class S>
Lanes<S> load_column(ConstRows<S> y, Index first, Index col) {
  Lanes<S> v;
  for (Index i = 0; i < kLanes<S>; ++i) v[i] = y(std::min(first + i, y.rows() - 1), col);
  return v;
}

template <class S>
void store_column(Lanes<S> v, Index first, Index col, Rows<S> out) {
  const Index count = std::min(kLanes<S>, out.rows() - first);
  for (Index i = 0; i < count; ++i) out(first + i, col) = v[i];
}

}  // namespace tweedie::detail
