// mlp_tile.h - a dense layer over a block of rows, its activation applied while the sums are still in registers.
//
//   y = finish(a W^T)     a (rows, in)   W in right panels (gemm_tile.h's)   y (rows, whole panels)
//
// An element's sum is one chain of fused multiply-adds over k = 0, 1, ..., from zero, as gemm's is: neither the tile nor the
// number of rows changes its bits. Many rows run tiles of kTileRows x 1 panel, a panel staying in the first-level cache for all
// of them. Few rows (a single particle's chain) are bound by the weights' way from L2 and by the latency of a chain: they
// run several panels side by side, 2 units x 4 cycles of latency = 8 chains in flight.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/elementwise.h"
#include "tweedie/kernels/cpu/gemm_tile.h"

namespace tweedie::kernels {
namespace {

using cpu::Dense;
using cpu::Finish;

/// 1 / (1 + exp(-x)) for x >= -87, so that nothing overflows. Error <= 4 u of the result.
template <class V>
TWEEDIE_SIMD V logistic(V x) {
  const math::ExpFactors<V> e = math::exp_factors(-smaller(V(128.0f), x));
  return reciprocal(V(1.0f) + scale(e.power, e.rounded));
}

/// The sums z of row i, columns j ... become y, and what is stored beside it.
template <Finish kFinish, class V>
TWEEDIE_SIMD void finish(const Dense& d, Index i, Index j, V z) {
  const Index at = i * d.ldy + j;
  if constexpr (kFinish == Finish::times) {
    store(d.y + at, z * load<V>(d.slope + at));
  } else {
    z = z + load<V>(d.bias + i * d.bias_stride + j);
    if constexpr (kFinish == Finish::affine) {
      store(d.y + at, z);
    } else {
      const V x = larger(V(-87.0f), z);  // where silu is below 2^-119
      const V s = logistic(x);
      const V y = x * s;
      store(d.y + at, y);
      if constexpr (kFinish == Finish::silu_slope) store(d.slope + at, fma(y, V(1.0f) - s, s));
    }
  }
}

/// R rows x P panels, from row i and column j.
template <Finish kFinish, int R, int P>
void dense_tile(const Dense& d, Index i, Index j) {
  using V = Native<float>;
  constexpr int kVectors = P * kTileVectors;
  const float* const a = d.a + i * d.lda;
  const float* b = d.panels + j * d.in;
  const Index panel = d.in * kTileCols<float>;
  V sum[R][kVectors];
  TWEEDIE_UNROLL for (int r = 0; r < R; ++r) { TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = V(0.0f); }
  for (Index k = 0; k < d.in; ++k, b += kTileCols<float>) {
    V right[kVectors];
    TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) {
      right[v] = load<V>(b + (v / kTileVectors) * panel + (v % kTileVectors) * V::kWidth);
      if constexpr (R > 1) in_register(right[v]);
    }
    TWEEDIE_UNROLL for (int r = 0; r < R; ++r) {
      const V left = V(a[r * d.lda + k]);
      TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(left, right[v], sum[r][v]);
    }
  }
  TWEEDIE_UNROLL for (int r = 0; r < R; ++r) {
    TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) finish<kFinish>(d, i + r, j + v * V::kWidth, sum[r][v]);
  }
}

/// Panels that R rows take side by side: as many as leave sums and weights in the registers.
template <int R>
#if defined(__AVX512F__)
constexpr int kPanels = R <= 2 ? 4 : 2;
#else
constexpr int kPanels = R == 1   ? 4
                        : R == 2 ? 2
                                 : 1;
#endif

/// All columns of R rows, kPanels<R> panels at a time and one by one at the end.
template <Finish kFinish, int R>
void few_rows(const Dense& d) {
  constexpr int P = kPanels<R>;
  Index j = 0;
  for (; j + P * kTileCols<float> <= d.out; j += P * kTileCols<float>) dense_tile<kFinish, R, P>(d, 0, j);
  for (; j < d.out; j += kTileCols<float>) dense_tile<kFinish, R, 1>(d, 0, j);
}

/// The last rows of a panel, fewer than a tile has.
template <Finish kFinish, int R = kTileRows - 1>
void edge_tile(const Dense& d, Index rows, Index i, Index j) {
  if constexpr (R > 1) {
    if (rows < R) return edge_tile<kFinish, R - 1>(d, rows, i, j);
  }
  dense_tile<kFinish, R, 1>(d, i, j);
}

template <Finish kFinish>
void dense_rows(const Dense& d) {
  if constexpr (kFinish == Finish::silu || kFinish == Finish::affine) {
    if (d.rows == 1) return few_rows<kFinish, 1>(d);
    if (d.rows == 2) return few_rows<kFinish, 2>(d);
    if (d.rows == 3) return few_rows<kFinish, 3>(d);
    if (d.rows == 4) return few_rows<kFinish, 4>(d);
  }
  for (Index j = 0; j < d.out; j += kTileCols<float>) {
    Index i = 0;
    for (; i + kTileRows <= d.rows; i += kTileRows) dense_tile<kFinish, kTileRows, 1>(d, i, j);
    if (i < d.rows) edge_tile<kFinish>(d, d.rows - i, i, j);
  }
}

void dense(const Dense& d, Finish kind) {
  switch (kind) {
    case Finish::silu:
      return dense_rows<Finish::silu>(d);
    case Finish::silu_slope:
      return dense_rows<Finish::silu_slope>(d);
    case Finish::affine:
      return dense_rows<Finish::affine>(d);
    case Finish::times:
      return dense_rows<Finish::times>(d);
  }
}

void add_rows(Index rows, Index cols, const float* from, Index ld, float* to, bool add) {
  const auto column = [=]<class V>(Index j) {
    V sum = add ? load<V>(to + j) : V(0.0f);
    for (Index r = 0; r < rows; ++r) sum = sum + load<V>(from + r * ld + j);
    store(to + j, sum);
  };
  for_each<float>(cols, column);
}

/// R rows of thin(): a row's sum runs in the lanes of one vector, k = lane, lane + W, ..., then the lanes are added up.
template <int R>
void thin_rows(Index in, Index out, const float* a, Index lda, const float* w, const float* bias, float* y, Index ldy) {
  using V = Native<float>;
  for (Index n = 0; n < out; ++n, w += in) {
    V sum[R];
    TWEEDIE_UNROLL for (int r = 0; r < R; ++r) sum[r] = V(0.0f);
    for (Index k = 0; k < in; k += V::kWidth) {
      const V weight = load<V>(w + k);
      TWEEDIE_UNROLL for (int r = 0; r < R; ++r) sum[r] = fma(load<V>(a + r * lda + k), weight, sum[r]);
    }
    TWEEDIE_UNROLL for (int r = 0; r < R; ++r) y[r * ldy + n] = sum_lanes(sum[r]) + bias[n];
  }
}

/// y = a W^T + bias for a few outputs; w (out, in), in a multiple of the vector's width.
void thin(Index rows, Index in, Index out, const float* a, Index lda, const float* w, const float* bias, float* y, Index ldy) {
  constexpr int kRows = 8;
  Index i = 0;
  for (; i + kRows <= rows; i += kRows) thin_rows<kRows>(in, out, a + i * lda, lda, w, bias, y + i * ldy, ldy);
  for (; i < rows; ++i) thin_rows<1>(in, out, a + i * lda, lda, w, bias, y + i * ldy, ldy);
}

}  // namespace
}  // namespace tweedie::kernels
