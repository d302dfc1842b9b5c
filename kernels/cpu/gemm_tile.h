// gemm_tile.h - the register tile of gemm and the packing of its operands, compiled once per dispatch target.
//
// C (R, 2 W) += A (R, k) B (k, 2 W): for each k, two vectors of B meet R broadcast numbers of A; R x 2 accumulators stay in
// registers. Each accumulator is one chain of fused multiply-adds over k = 0, 1, ..., from zero: the order, hence the bits,
// of an element do not depend on the tile's shape or on where in C it stands. So edges run narrower tiles (fewer rows), and
// columns beyond the edge multiply padding that is never stored.
// Tiles: AVX-512 8 x 32, AVX2 6 x 16, portable 4 x 8 (float; half the columns in double).
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/simd.h"
#include "tweedie/kernels/cpu/table.h"

namespace tweedie::kernels {
namespace {

using cpu::Index;
using cpu::LeftPanels;
using cpu::Output;
using cpu::RightPanels;

#if defined(__AVX512F__)
constexpr int kTileRows = 8;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2;
template <class T>
constexpr int kTileCols = kTileVectors* Native<T>::kWidth;

/// The tile's first `rows` x `cols` elements, from or to memory that is not a whole tile of consecutive columns.
template <class T>
void store_edge(const T* tile, Index rows, Index cols, Output<T> c, bool add) {
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) {
      T& element = c.data[i * c.row + j * c.column];
      element = add ? element + tile[i * kTileCols<T> + j] : tile[i * kTileCols<T> + j];
    }
  }
}

/// One tile of R rows and at most kTileCols columns. Row i of A starts at a + i * row and steps by depth.
template <class T, int R>
void tile(Index k, const T* a, Index row, Index depth, const T* b, Index b_depth, Index cols, Output<T> c, bool add) {
  using V = Native<T>;
  V sum[R][kTileVectors];
  TWEEDIE_UNROLL for (int i = 0; i < R; ++i) { TWEEDIE_UNROLL for (int j = 0; j < kTileVectors; ++j) sum[i][j] = V(T(0)); }
  for (Index l = 0; l < k; ++l) {
    V right[kTileVectors];
    TWEEDIE_UNROLL for (int j = 0; j < kTileVectors; ++j) right[j] = load<V>(b + j * V::kWidth);
    TWEEDIE_UNROLL for (int i = 0; i < R; ++i) {
      const V left = V(a[i * row]);
      TWEEDIE_UNROLL for (int j = 0; j < kTileVectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
    a += depth;
    b += b_depth;
  }
  if (cols == kTileCols<T> && c.column == 1) {
    TWEEDIE_UNROLL for (int i = 0; i < R; ++i) {
      TWEEDIE_UNROLL for (int j = 0; j < kTileVectors; ++j) {
        T* to = c.data + i * c.row + j * V::kWidth;
        store(to, add ? load<V>(to) + sum[i][j] : sum[i][j]);
      }
    }
  } else {
    T scratch[R * kTileCols<T>];
    TWEEDIE_UNROLL for (int i = 0; i < R; ++i) {
      TWEEDIE_UNROLL for (int j = 0; j < kTileVectors; ++j) store(scratch + i * kTileCols<T> + j * V::kWidth, sum[i][j]);
    }
    store_edge(scratch, R, cols, c, add);
  }
}

/// tile<T, R> for R = rows, 1 <= rows <= kTileRows.
template <class T, int R = kTileRows>
void tile_of(Index rows, Index k, const T* a, Index row, Index depth, const T* b, Index b_depth, Index cols, Output<T> c,
             bool add) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of<T, R - 1>(rows, k, a, row, depth, b, b_depth, cols, c, add);
  }
  tile<T, R>(k, a, row, depth, b, b_depth, cols, c, add);
}

template <class T>
void multiply(Index rows, Index cols, Index k, LeftPanels<T> a, RightPanels<T> b, Output<T> c, bool add) {
  for (Index i = 0; i < rows; i += kTileRows, a.data += a.panel) {
    const Index r = rows - i < kTileRows ? rows - i : kTileRows;
    const T* right = b.data;
    for (Index j = 0; j < cols; j += kTileCols<T>, right += b.panel) {
      const Index n = cols - j < kTileCols<T> ? cols - j : kTileCols<T>;
      tile_of<T>(r, k, a.data, a.row, a.depth, right, b.depth, n, {c.data + i * c.row + j * c.column, c.row, c.column}, add);
    }
  }
}

/// to[l * to_stride + i] = from[i * stride + l] for i, l < kBlock: a square of one 16-byte vector's width.
constexpr int kBlockBytes = 16;
TWEEDIE_SIMD void transpose_block(const float* from, Index stride, float* to, Index to_stride) {
  using V = Vec<float, 4>;
  const auto r0 = load<V>(from).v, r1 = load<V>(from + stride).v, r2 = load<V>(from + 2 * stride).v,
             r3 = load<V>(from + 3 * stride).v;
  const auto low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
  const auto low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
  store(to, V(__builtin_shufflevector(low01, low23, 0, 1, 4, 5)));
  store(to + to_stride, V(__builtin_shufflevector(low01, low23, 2, 3, 6, 7)));
  store(to + 2 * to_stride, V(__builtin_shufflevector(high01, high23, 0, 1, 4, 5)));
  store(to + 3 * to_stride, V(__builtin_shufflevector(high01, high23, 2, 3, 6, 7)));
}
TWEEDIE_SIMD void transpose_block(const double* from, Index stride, double* to, Index to_stride) {
  using V = Vec<double, 2>;
  const auto r0 = load<V>(from).v, r1 = load<V>(from + stride).v;
  store(to, V(__builtin_shufflevector(r0, r1, 0, 2)));
  store(to + to_stride, V(__builtin_shufflevector(r0, r1, 1, 3)));
}

/// One panel: to[l * kWidth + i] = from[i * stride + l * depth] for i < width <= kWidth, zero for the rest.
template <class T, int kWidth>
void pack_any(Index width, Index k, const T* from, Index stride, Index depth, T* to) {
  for (Index l = 0; l < k; ++l, to += kWidth) {
    for (Index i = 0; i < width; ++i) to[i] = from[i * stride + l * depth];
    for (Index i = width; i < kWidth; ++i) to[i] = T(0);
  }
}

/// A whole panel whose rows are contiguous in l: transposed in squares, a cache line of each row at a time.
template <class T, int kWidth>
void pack_transposed(Index k, const T* from, Index stride, T* to) {
  constexpr Index kBlock = kBlockBytes / sizeof(T), kLine = 64 / sizeof(T);
  Index l0 = 0;
  for (; l0 + kLine <= k; l0 += kLine) {
    for (Index i = 0; i < kWidth; i += kBlock) {
      for (Index l = l0; l < l0 + kLine; l += kBlock) transpose_block(from + i * stride + l, stride, to + l * kWidth + i, kWidth);
    }
  }
  pack_any<T, kWidth>(kWidth, k - l0, from + l0, stride, 1, to + l0 * kWidth);
}

/// Panels of kWidth numbers: to[p][l][i] = from[(p kWidth + i) stride + l depth], zero beyond count. stride or depth is 1.
template <class T, int kWidth>
void pack(Index count, Index k, const T* from, Index stride, Index depth, T* to) {
  for (Index first = 0; first < count; first += kWidth, from += kWidth * stride, to += kWidth * k) {
    if (count - first < kWidth) {
      pack_any<T, kWidth>(count - first, k, from, stride, depth, to);
    } else if (stride == 1) {
      for (Index l = 0; l < k; ++l) __builtin_memcpy(to + l * kWidth, from + l * depth, sizeof(T) * kWidth);
    } else if (kWidth * sizeof(T) % kBlockBytes == 0 && depth == 1) {
      pack_transposed<T, kWidth>(k, from, stride, to);
    } else {
      pack_any<T, kWidth>(kWidth, k, from, stride, depth, to);
    }
  }
}

}  // namespace
}  // namespace tweedie::kernels
