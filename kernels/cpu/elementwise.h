// elementwise.h - the element-wise kernels over SIMD vectors, compiled once per dispatch target.
//
// A loop's tail runs the very same body over one number instead of a vector; every operation in it is correctly rounded and
// nothing is contracted behind our back (-ffp-contract=off), so an element's bits do not depend on where it stands.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/simd.h"
#include "tweedie/kernels/cpu/table.h"

namespace tweedie::kernels {
namespace {

using cpu::AdamFactors;
using cpu::Index;

/// body.template operator()<V>(i) for i over [0, n): whole vectors first, then one by one.
template <class T, class Body>
TWEEDIE_SIMD void for_each(Index n, Body body) {
  using V = Native<T>;
  Index i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) body.template operator()<V>(i);
  for (; i < n; ++i) body.template operator()<T>(i);
}

template <class T>
void silu(Index n, const T* x, T* y) {
  for_each<T>(n, [=]<class V>(Index i) { store(y + i, math::silu(load<V>(x + i))); });
}

template <class T>
void silu_gradient(Index n, const T* x, const T* dy, T* dx) {
  for_each<T>(n, [=]<class V>(Index i) { store(dx + i, load<V>(dy + i) * math::silu_derivative(load<V>(x + i))); });
}

template <class T>
void dsm_perturb(Index batch, Index dim, const T* x0, const T* sigma, const T* eps, T* x) {
  using math::fma;
  for (Index b = 0; b < batch; ++b, x0 += dim, eps += dim, x += dim) {
    const T s = sigma[b];
    for_each<T>(dim, [=]<class V>(Index i) { store(x + i, fma(V(s), load<V>(eps + i), load<V>(x0 + i))); });
  }
}

template <class T>
void langevin_update(Index n, T drift, T noise, const T* score, const T* z, T* x) {
  using math::fma;
  for_each<T>(n, [=]<class V>(Index i) {
    const V moved = fma(V(drift), load<V>(score + i), load<V>(x + i));
    store(x + i, fma(V(noise), load<V>(z + i), moved));
  });
}

template <class T, bool kAverage>
void adam(const AdamFactors<T>& f, Index n, const T* gradient, T* p, T* m, T* v, T* ema) {
  using math::fma;
  using math::sqrt;
  for_each<T>(n, [=]<class V>(Index i) {
    const V g = V(f.gradient_scale) * load<V>(gradient + i);
    V mean = load<V>(m + i);
    V square = load<V>(v + i);
    V parameter = load<V>(p + i);
    mean = fma(V(f.one_minus_beta1), g - mean, mean);
    square = fma(V(f.one_minus_beta2), fma(g, g, -square), square);
    parameter = fma(V(-f.decay), parameter, parameter);
    parameter = parameter - V(f.step_size) * mean / (sqrt(square) * V(f.inverse_root_c2) + V(f.epsilon));
    store(m + i, mean);
    store(v + i, square);
    store(p + i, parameter);
    if constexpr (kAverage) {
      const V average = load<V>(ema + i);
      store(ema + i, fma(V(f.one_minus_ema_decay), parameter - average, average));
    }
  });
}

template <class T>
void adam_ema(const AdamFactors<T>& f, Index n, const T* gradient, T* p, T* m, T* v, T* ema) {
  ema != nullptr ? adam<T, true>(f, n, gradient, p, m, v, ema) : adam<T, false>(f, n, gradient, p, m, v, ema);
}

/// sum x^2 in double: 32 chains, i = chain, chain + 32, ..., then their sum; the same on every target, since squares of floats
/// are exact and those of doubles are rounded before they are added.
template <class T>
double sum_squares(Index n, const T* x) {
  using V = Native<double>;
  constexpr Index kChains = 32, kVectors = kChains / V::kWidth;
  V sum[kVectors];
  TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] = V(0.0);
  Index i = 0;
  for (; i + kChains <= n; i += kChains) {
    TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) {
      const V d = widened(x + i + v * V::kWidth);
      sum[v] = sum[v] + d * d;
    }
  }
  double chain[kChains];
  TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) store(chain + v * V::kWidth, sum[v]);
  for (Index c = 0; i < n; ++i, ++c) chain[c] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  for (Index width = kChains / 2; width > 0; width /= 2) {
    for (Index c = 0; c < width; ++c) chain[c] += chain[c + width];
  }
  return chain[0];
}

}  // namespace
}  // namespace tweedie::kernels
