// dsm_loss.h - loss = 1/(2B) sum_b w_b |u_b + eps_b|^2 and du = dloss/du = w (u + eps) / B   [Vincent 2011].
//   u = sigma s, eps, du (B, D)   w (B) or nullptr: 1
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

template <class T>
T dsm_loss(Index batch, Index dim, const T* u, const T* eps, const T* weight, T* du) {
  T loss = 0;
  for (Index b = 0; b < batch; ++b) {
    const T w = weight == nullptr ? 1 : weight[b];
    for (Index i = b * dim; i < (b + 1) * dim; ++i) {
      const T residual = u[i] + eps[i];
      loss += w * residual * residual / 2;
      du[i] = w * residual / static_cast<T>(batch);
    }
  }
  return loss / static_cast<T>(batch);
}

}  // namespace tweedie::kernels::reference
