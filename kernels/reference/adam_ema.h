// adam_ema.h - one AdamW step [Kingma & Ba 2015, Algorithm 1; Loshchilov & Hutter 2019] and the parameters' moving average.
//   gradient, p, m, v, ema: n numbers; ema may be nullptr
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

template <class T>
void adam_ema(const AdamStep& o, Index n, const T* gradient, T* p, T* m, T* v, T* ema) {
  const double t = static_cast<double>(o.step);
  const T c1 = T(1 - std::pow(o.beta1, t));
  const T c2 = T(1 - std::pow(o.beta2, t));
  for (Index i = 0; i < n; ++i) {
    const T g = T(o.gradient_scale) * gradient[i];
    m[i] += T(1 - o.beta1) * (g - m[i]);
    v[i] += T(1 - o.beta2) * (g * g - v[i]);
    p[i] -= T(o.learning_rate * o.weight_decay) * p[i];
    p[i] -= T(o.learning_rate) * (m[i] / c1) / (std::sqrt(v[i] / c2) + T(o.epsilon));
    if (ema != nullptr) ema[i] += T(1 - o.ema_decay) * (p[i] - ema[i]);
  }
}

}  // namespace tweedie::kernels::reference
