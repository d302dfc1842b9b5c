// gemm.h - C = op(A) op(B) + beta C, as the definition reads.
//   op(A) (m, k)   op(B) (k, n)   C (m, n), row-major with leading dimensions lda, ldb, ldc
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::reference {

template <class T>
void gemm(const GemmShape& shape, const T* a, Index lda, const T* b, Index ldb, T* c, Index ldc) {
  for (Index i = 0; i < shape.m; ++i) {
    for (Index j = 0; j < shape.n; ++j) {
      T sum = 0;
      for (Index l = 0; l < shape.k; ++l) {
        const T left = shape.transpose_a ? a[l * lda + i] : a[i * lda + l];
        const T right = shape.transpose_b ? b[j * ldb + l] : b[l * ldb + j];
        sum += left * right;
      }
      // beta = 0 writes C without reading it, so that what was there, NaN included, does not matter.
      c[i * ldc + j] = shape.beta == 0 ? sum : sum + T(shape.beta) * c[i * ldc + j];
    }
  }
}

}  // namespace tweedie::kernels::reference
