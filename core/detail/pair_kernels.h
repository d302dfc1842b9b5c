// pair_kernels.h - the compiled kernels behind statistics.h: tiles of 64 x 64 pairs, one version per instruction set (exported
// for the tests).
//
// Columns come packed: tile t of y holds yt[d][j] = y(64 t + j, d), (D, 64), its missing columns filled up. Nothing of the STL.
// SPDX-License-Identifier: MIT
#pragma once

#include <stddef.h>

#include "tweedie/core/export.h"

namespace tweedie::detail {

inline constexpr ptrdiff_t kPairTile = 64;   // rows and columns of a tile
inline constexpr ptrdiff_t kSignLanes = 16;  // labellings that a panel holds side by side

struct PairKernels {
  /// squared[i][j] = |x_i - y_j|^2, i < rows; x (rows, dim) with `stride`, yt (dim, 64), squared (64, 64).
  void (*squared_distances)(const float* x, ptrdiff_t stride, ptrdiff_t rows, const float* yt, ptrdiff_t dim, float* squared);
  /// tile[i][j] = sqrt(tile[i][j]), i < rows.
  void (*square_root)(float* tile, ptrdiff_t rows);
  /// tile[i][j] = exp(-scale * tile[i][j]), i < rows; scale * tile >= 0.
  void (*gaussian)(float* tile, ptrdiff_t rows, float scale);
  /// sum of tile[i][j], i < rows, j < cols.
  double (*sum)(const float* tile, ptrdiff_t rows, ptrdiff_t cols);
  /// lowest[i] = min(lowest[i], min_j tile[i][j]), i < rows.
  void (*lowest)(const float* tile, ptrdiff_t rows, float* lowest);
  /// sums[p][l] += factor * sum_ij a[p][i][l] tile[i][j] b[p][j][l], panels p, lanes l < 16; a, b (panels, 64, 16); sums (panels,
  /// 16).
  void (*signed_products)(const float* tile, const float* a, const float* b, ptrdiff_t panels, double factor, double* sums);
};

TWEEDIE_API const PairKernels& pair_kernels_portable();
#ifdef __x86_64__
TWEEDIE_API const PairKernels& pair_kernels_avx2();
TWEEDIE_API const PairKernels& pair_kernels_avx512();
#endif

}  // namespace tweedie::detail
