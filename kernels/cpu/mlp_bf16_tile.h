// mlp_bf16_tile.h - a dense layer of bf16 operands, its sums in fp32, the next layer's operands written while they are in
// registers.
//
//   y = finish(a W^T)     a (rows, depth) words   W (out / cols, parts, depth, cols) words   y (rows, out)
//
// What a word is and how two are multiplied, the Unit says: a float of the number's value where the target has no unit for bf16,
// a pair of bf16 for vdpbf16ps, which adds two products with a rounding each, the odd one first, denormals as zero on both sides
// [Intel Software Developer's Manual, VDPBF16PS]. The small products of split operands are summed first: a's high with W's low
// parts, low with high, high with high, the last 1, 2 or 3 of these, each over k = 0, 1, ... So an element is one chain, which
// neither the tile nor the number of rows changes.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/bf16.h"
#include "tweedie/kernels/cpu/mlp_tile.h"

namespace tweedie::kernels {
namespace {

using cpu::Bf16Dense;
using cpu::Bf16Kernels;

/// A word is the float of one number.
struct FloatWords {
  static constexpr int kGroup = 1;
  using V = Native<float>;

  TWEEDIE_SIMD static V broadcast(const float* word) { return V(*word); }
  TWEEDIE_SIMD static V multiply_add(V a, V b, V sum) { return fma(a, b, sum); }
  /// Two vectors of numbers as words, and their low parts.
  template <bool kSplit>
  TWEEDIE_SIMD static void store_words(float* to, Index low, V x0, V x1) {
    const Bf16Parts<V> p0 = bf16_parts(x0), p1 = bf16_parts(x1);
    store(to, p0.high);
    store(to + V::kWidth, p1.high);
    if constexpr (kSplit) {
      store(to + low, p0.low);
      store(to + low + V::kWidth, p1.low);
    }
  }
};

#if defined(__AVX512BF16__)
/// A word is a pair of bf16.
struct PairWords {
  static constexpr int kGroup = 2;
  using V = Native<float>;  // of bits: 32 numbers

  TWEEDIE_SIMD static V broadcast(const float* word) {
    int bits;
    __builtin_memcpy(&bits, word, sizeof bits);
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
  }
  TWEEDIE_SIMD static V multiply_add(V a, V b, V sum) {
    return _mm512_dpbf16_ps(sum.v, __builtin_bit_cast(__m512bh, a.v), __builtin_bit_cast(__m512bh, b.v));
  }
  template <bool kSplit>
  TWEEDIE_SIMD static void store_words(float* to, Index low, V x0, V x1) {
    const __m512bh high = _mm512_cvtne2ps_pbh(x1.v, x0.v);
    __builtin_memcpy(to, &high, sizeof high);
    if constexpr (kSplit) {
      const auto numbers = __builtin_bit_cast(Halves, high);
      const V rest0 = x0 - expanded(numbers.first), rest1 = x1 - expanded(numbers.second);
      const __m512bh rest = _mm512_cvtne2ps_pbh(rest1.v, rest0.v);
      __builtin_memcpy(to + low, &rest, sizeof rest);
    }
  }

 private:
  using Half = typename CompilerVector<unsigned short, V::kWidth>::Type;
  struct Halves {
    Half first, second;
  };
  // By the compiler's own conversion: gcc 12 warns of its intrinsics, as for sqrt in simd.h.
  TWEEDIE_SIMD static V expanded(Half numbers) {
    return __builtin_bit_cast(V::Raw, __builtin_convertvector(numbers, V::Unsigned) << 16);
  }
};
using NativeWords = PairWords;
#else
using NativeWords = FloatWords;
#endif

/// Two vectors of a row's sums, at column j, become y.
template <class Unit, Finish kFinish, bool kSplit, class V>
TWEEDIE_SIMD void finish_bf16(const Bf16Dense& d, Index i, Index j, V z0, V z1) {
  const float* const bias = d.bias + i * d.bias_stride + j;
  z0 = z0 + load<V>(bias);
  z1 = z1 + load<V>(bias + V::kWidth);
  if constexpr (kFinish == Finish::affine) {
    store(d.y + i * d.ldy + j, z0);
    store(d.y + i * d.ldy + j + V::kWidth, z1);
  } else {
    const V x0 = larger(V(-87.0f), z0), x1 = larger(V(-87.0f), z1);  // where silu is below 2^-119
    Unit::template store_words<kSplit>(d.y + i * d.ldy + j / Unit::kGroup, d.y_low, x0 * logistic(x0), x1 * logistic(x1));
  }
}

/// R rows x P panels, from row i and column j.
template <class Unit, Finish kFinish, bool kSplit, int R, int P>
void bf16_tile(const Bf16Dense& d, Index i, Index j) {
  using V = Native<float>;
  constexpr int kVectors = P * kTileVectors;
  constexpr Index kCols = kTileCols<float>;
  const Index part = d.depth * kCols, panel = part * (d.products == 3 ? 2 : 1);
  V sum[R][kVectors];
  TWEEDIE_UNROLL for (int r = 0; r < R; ++r) { TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = V(0.0f); }
  for (int product = 3 - d.products; product < 3; ++product) {
    const float* const a = d.a + i * d.lda + (product == 1 ? d.a_low : 0);
    const float* b = d.panels + j / kCols * panel + (product == 0 ? part : 0);
    for (Index k = 0; k < d.depth; ++k, b += kCols) {
      V right[kVectors];
      TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) {
        right[v] = load<V>(b + (v / kTileVectors) * panel + (v % kTileVectors) * V::kWidth);
        if constexpr (R > 1) in_register(right[v]);
      }
      TWEEDIE_UNROLL for (int r = 0; r < R; ++r) {
        const V left = Unit::broadcast(a + r * d.lda + k);
        TWEEDIE_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] = Unit::multiply_add(left, right[v], sum[r][v]);
      }
    }
  }
  TWEEDIE_UNROLL for (int r = 0; r < R; ++r) {
    TWEEDIE_UNROLL for (int v = 0; v < kVectors; v += 2) {
      finish_bf16<Unit, kFinish, kSplit>(d, i + r, j + v * V::kWidth, sum[r][v], sum[r][v + 1]);
    }
  }
}

/// All columns of R rows, kPanels<R> panels at a time and one by one at the end (mlp_tile.h says why).
template <class Unit, Finish kFinish, bool kSplit, int R>
void few_bf16_rows(const Bf16Dense& d) {
  constexpr int P = kPanels<R>;
  Index j = 0;
  for (; j + P * kTileCols<float> <= d.out; j += P * kTileCols<float>) bf16_tile<Unit, kFinish, kSplit, R, P>(d, 0, j);
  for (; j < d.out; j += kTileCols<float>) bf16_tile<Unit, kFinish, kSplit, R, 1>(d, 0, j);
}

/// The last rows of a panel, fewer than a tile has.
template <class Unit, Finish kFinish, bool kSplit, int R = kTileRows - 1>
void bf16_edge(const Bf16Dense& d, Index rows, Index i, Index j) {
  if constexpr (R > 1) {
    if (rows < R) return bf16_edge<Unit, kFinish, kSplit, R - 1>(d, rows, i, j);
  }
  bf16_tile<Unit, kFinish, kSplit, R, 1>(d, i, j);
}

template <class Unit, Finish kFinish, bool kSplit>
void bf16_rows(const Bf16Dense& d) {
  if (d.rows == 1) return few_bf16_rows<Unit, kFinish, kSplit, 1>(d);
  if (d.rows == 2) return few_bf16_rows<Unit, kFinish, kSplit, 2>(d);
  if (d.rows == 3) return few_bf16_rows<Unit, kFinish, kSplit, 3>(d);
  if (d.rows == 4) return few_bf16_rows<Unit, kFinish, kSplit, 4>(d);
  for (Index j = 0; j < d.out; j += kTileCols<float>) {
    Index i = 0;
    for (; i + kTileRows <= d.rows; i += kTileRows) bf16_tile<Unit, kFinish, kSplit, kTileRows, 1>(d, i, j);
    if (i < d.rows) bf16_edge<Unit, kFinish, kSplit>(d, d.rows - i, i, j);
  }
}

template <class Unit>
void bf16_dense(const Bf16Dense& d, Finish kind) {
  if (kind == Finish::affine) return bf16_rows<Unit, Finish::affine, false>(d);
  d.y_low == 0 ? bf16_rows<Unit, Finish::silu, false>(d) : bf16_rows<Unit, Finish::silu, true>(d);
}

template <class Unit>
void bf16_operands(Index rows, Index in, const float* x, Index ldx, Index depth, float* words, Index ld, Index low) {
  using V = typename Unit::V;
  constexpr Index kNumbers = 2 * V::kWidth;
  for (Index r = 0; r < rows; ++r, x += ldx, words += ld) {
    for (Index k = 0; k < depth * Unit::kGroup; k += kNumbers) {
      float numbers[kNumbers] = {};
      const float* from = x + k;
      if (in - k < kNumbers) {
        for (Index l = 0; l < in - k; ++l) numbers[l] = from[l];
        from = numbers;
      }
      Unit::template store_words<true>(words + k / Unit::kGroup, low, load<V>(from), load<V>(from + V::kWidth));
    }
  }
}

/// R rows of thin: a row's sum runs in the lanes of one vector, then the lanes are added up.
template <class Unit, int R>
void thin_bf16_rows(const Bf16Dense& d, Index i) {
  using V = typename Unit::V;
  const float* w = d.panels;
  for (Index n = 0; n < d.out; ++n, w += d.depth * (d.products == 3 ? 2 : 1)) {
    V sum[R];
    TWEEDIE_UNROLL for (int r = 0; r < R; ++r) sum[r] = V(0.0f);
    for (int product = 3 - d.products; product < 3; ++product) {
      const float* const a = d.a + i * d.lda + (product == 1 ? d.a_low : 0);
      const float* const right = w + (product == 0 ? d.depth : 0);
      for (Index k = 0; k < d.depth; k += V::kWidth) {
        const V weight = load<V>(right + k);
        TWEEDIE_UNROLL for (int r = 0; r < R; ++r) sum[r] = Unit::multiply_add(load<V>(a + r * d.lda + k), weight, sum[r]);
      }
    }
    TWEEDIE_UNROLL for (int r = 0; r < R; ++r) d.y[(i + r) * d.ldy + n] = sum_lanes(sum[r]) + d.bias[n];
  }
}

template <class Unit>
void bf16_thin(const Bf16Dense& d) {
  constexpr int kRows = 8;
  Index i = 0;
  for (; i + kRows <= d.rows; i += kRows) thin_bf16_rows<Unit, kRows>(d, i);
  for (; i < d.rows; ++i) thin_bf16_rows<Unit, 1>(d, i);
}

template <class Unit>
constexpr Bf16Kernels kBf16Kernels = {kTileCols<float>,    Unit::kGroup,     Unit::V::kWidth, 1,
                                      bf16_operands<Unit>, bf16_dense<Unit>, bf16_thin<Unit>};

}  // namespace
}  // namespace tweedie::kernels
