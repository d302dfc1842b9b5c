// elementwise.cpp - the element-wise kernels' public entries: preconditions, constants, threads over long arrays.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels {

namespace {

constexpr Index kGrain = 16384;  // elements per task: some 10 us of arithmetic

template <class T>
const cpu::Kernels<T>& target_kernels() {
  if constexpr (sizeof(T) == sizeof(float)) {
    return cpu::table().single;
  } else {
    return cpu::table().twice;
  }
}

/// body(begin, count) over [0, n), in tasks of `grain` when there are several.
template <class Body>
void over(Index n, Index grain, Body body) {
  if (n <= grain) {
    if (n > 0) body(Index{0}, n);
  } else {
    parallel_for(n, grain, [&](Index begin, Index end) { body(begin, end - begin); });
  }
}

void check_size(Index n, const char* who) { check(n >= 0, who, ": n = ", n, " is negative"); }

template <class T>
void silu_any(Index n, const T* x, T* y) {
  check_size(n, "silu");
  const auto kernel = target_kernels<T>().silu;
  over(n, kGrain, [=](Index i, Index count) { kernel(count, x + i, y + i); });
}

template <class T>
void silu_gradient_any(Index n, const T* x, const T* dy, T* dx) {
  check_size(n, "silu_gradient");
  const auto kernel = target_kernels<T>().silu_gradient;
  over(n, kGrain, [=](Index i, Index count) { kernel(count, x + i, dy + i, dx + i); });
}

template <class T>
void dsm_perturb_any(Index batch, Index dim, const T* x0, const T* sigma, const T* eps, T* x) {
  check(batch >= 0 && dim >= 0, "dsm_perturb: batch = ", batch, ", dim = ", dim, "; sizes must not be negative");
  if (dim == 0) return;
  const auto kernel = target_kernels<T>().dsm_perturb;
  over(batch, std::max<Index>(1, kGrain / dim),
       [=](Index b, Index count) { kernel(count, dim, x0 + b * dim, sigma + b, eps + b * dim, x + b * dim); });
}

template <class T>
void langevin_update_any(Index n, T drift, T noise, const T* score, const T* z, T* x) {
  check_size(n, "langevin_update");
  const auto kernel = target_kernels<T>().langevin_update;
  over(n, kGrain, [=](Index i, Index count) { kernel(count, drift, noise, score + i, z + i, x + i); });
}

template <class T>
void adam_ema_any(const AdamStep& o, Index n, const T* gradient, T* p, T* m, T* v, T* ema) {
  check_size(n, "adam_ema");
  check(o.step >= 1, "adam_ema: step = ", o.step, "; steps are counted from 1");
  check(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "adam_ema: beta1 = ", o.beta1, ", beta2 = ", o.beta2,
        "; both lie in [0, 1)");
  const double t = static_cast<double>(o.step);
  const double c1 = 1 - std::pow(o.beta1, t), c2 = 1 - std::pow(o.beta2, t);
  const cpu::AdamFactors<T> factors = {
      T(o.gradient_scale),     T(1 - o.beta1),       T(1 - o.beta2), T(o.learning_rate * o.weight_decay),
      T(o.learning_rate / c1), T(1 / std::sqrt(c2)), T(o.epsilon),   T(1 - o.ema_decay)};
  const auto kernel = target_kernels<T>().adam_ema;
  over(n, kGrain, [=](Index i, Index count) {
    kernel(factors, count, gradient + i, p + i, m + i, v + i, ema == nullptr ? nullptr : ema + i);
  });
}

}  // namespace

void fourier_features(Index batch, Index n, const double* t, const double* w, float* out) {
  check(batch >= 0 && n >= 0, "fourier_features: batch = ", batch, ", n = ", n, "; sizes must not be negative");
  constexpr double kLargestPhase = 0x1p20;
  double largest = 0;
  for (Index i = 0; i < n; ++i) largest = std::max(largest, std::abs(w[i]));
  for (Index b = 0; b < batch; ++b) {
    float* const row = out + b * 2 * n;
    if (largest * std::abs(t[b]) <= kLargestPhase) {
      cpu::table().mlp.fourier(1, n, t + b, w, row);
      continue;
    }
    for (Index i = 0; i < n; ++i) row[i] = static_cast<float>(std::cos(w[i] * t[b]));
    for (Index i = 0; i < n; ++i) row[n + i] = static_cast<float>(std::sin(w[i] * t[b]));
  }
}

double sum_squares(Index n, const float* x) {
  check_size(n, "sum_squares");
  return cpu::table().single.sum_squares(n, x);
}
double sum_squares(Index n, const double* x) {
  check_size(n, "sum_squares");
  return cpu::table().twice.sum_squares(n, x);
}
void silu(Index n, const float* x, float* y) { silu_any(n, x, y); }
void silu(Index n, const double* x, double* y) { silu_any(n, x, y); }
void silu_gradient(Index n, const float* x, const float* dy, float* dx) { silu_gradient_any(n, x, dy, dx); }
void silu_gradient(Index n, const double* x, const double* dy, double* dx) { silu_gradient_any(n, x, dy, dx); }
void dsm_perturb(Index batch, Index dim, const float* x0, const float* sigma, const float* eps, float* x) {
  dsm_perturb_any(batch, dim, x0, sigma, eps, x);
}
void dsm_perturb(Index batch, Index dim, const double* x0, const double* sigma, const double* eps, double* x) {
  dsm_perturb_any(batch, dim, x0, sigma, eps, x);
}
void langevin_update(Index n, float drift, float noise, const float* score, const float* z, float* x) {
  langevin_update_any(n, drift, noise, score, z, x);
}
void langevin_update(Index n, double drift, double noise, const double* score, const double* z, double* x) {
  langevin_update_any(n, drift, noise, score, z, x);
}
void adam_ema(const AdamStep& options, Index n, const float* gradient, float* p, float* m, float* v, float* ema) {
  adam_ema_any(options, n, gradient, p, m, v, ema);
}
void adam_ema(const AdamStep& options, Index n, const double* gradient, double* p, double* m, double* v, double* ema) {
  adam_ema_any(options, n, gradient, p, m, v, ema);
}

}  // namespace tweedie::kernels
