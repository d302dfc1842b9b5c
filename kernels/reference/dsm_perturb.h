// dsm_perturb.h - x(b, :) = x0(b, :) + sigma(b) eps(b, :): the noised sample of denoising score matching [Vincent 2011].
//   x0, eps, x (B, D)   sigma (B)
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

template <class T>
void dsm_perturb(Index batch, Index dim, const T* x0, const T* sigma, const T* eps, T* x) {
  for (Index b = 0; b < batch; ++b) {
    for (Index d = 0; d < dim; ++d) x[b * dim + d] = x0[b * dim + d] + sigma[b] * eps[b * dim + d];
  }
}

}  // namespace tweedie::kernels::reference
