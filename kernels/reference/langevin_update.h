// langevin_update.h - x += drift score + noise z: one step of Langevin dynamics [Song & Ermon 2019, Algorithm 1].
//   score, z, x: n numbers
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

template <class T>
void langevin_update(Index n, T drift, T noise, const T* score, const T* z, T* x) {
  for (Index i = 0; i < n; ++i) x[i] += drift * score[i] + noise * z[i];
}

}  // namespace tweedie::kernels::reference
