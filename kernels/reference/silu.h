// silu.h - y = silu(x) = x s, s = sigmoid(x) = 1 / (1 + exp(-x)), and dx = dy (s + x s (1 - s)).
//   x, y, dy, dx: n numbers. At the infinities the limits: silu(-inf) = -0, silu'(-inf) = 0, silu'(inf) = 1.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

/// sigmoid(x) with an exponential that never overflows: e / (1 + e) for x < 0.
template <class T>
T sigmoid(T x) {
  const T e = std::exp(-std::abs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

template <class T>
void silu(Index n, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] = x[i] == -INFINITY ? T(-0.0) : x[i] * sigmoid(x[i]);
}

template <class T>
void silu_gradient(Index n, const T* x, const T* dy, T* dx) {
  for (Index i = 0; i < n; ++i) {
    const T s = sigmoid(x[i]);
    const T one_minus_s = sigmoid(-x[i]);  // without the cancellation of 1 - s
    dx[i] = dy[i] * (std::isinf(x[i]) ? s : s + x[i] * s * one_minus_s);
  }
}

}  // namespace tweedie::kernels::reference
