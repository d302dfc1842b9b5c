// mlp_products.h - products of tiles in shared memory by mma.sync, each operand read through a function of its row and column: as
// it lies or transposed, in any of training's precisions. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_input.h"

namespace tweedie::kernels::cuda {

/// A part (Rows, Cols) of a matrix (rows, cols) on its way to shared memory, zeros beyond the matrix up to the next multiples
/// of 8.
template <int Rows, int Cols, int Threads, class Ctx>
TWEEDIE_KERNEL void fetch_tile(Ctx& ctx, const float* from, int ld, int rows, int cols, float* to, int to_ld) {
  const bool vectors = ld % 4 == 0 && cols % 4 == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
  for (int i = ctx.thread(); i < Rows * (Cols / 4); i += Threads) {
    const int row = i / (Cols / 4), at = i % (Cols / 4) * 4;
    if (row >= round_up8(rows) || at >= round_up8(cols)) continue;
    const float* const source = from + Index{row} * ld + at;
    float* const place = to + row * to_ld + at;
    if (vectors) {
      const bool valid = row < rows && at < cols;
      ctx.template copy_async<16>(place, valid ? source : from, valid);
    } else {
      for (int j = 0; j < 4; ++j) {
        const bool valid = row < rows && at + j < cols;
        ctx.template copy_async<4>(place + j, valid ? source + j : from, valid);
      }
    }
  }
}

/// What a lane hands the unit of a (16 rows from `row` on) and of b (8 columns): fragments as in executor.h's mma_tf32 and
/// mma_bf16. a_of(row, k), b_of(k, column); beyond `depth`, a multiple of 8, there are zeros. Small terms first.
template <Precision P>
struct Fragments {
  static constexpr int kDepth = P == Precision::bf16 ? 16 : 8;  // of a product of the unit
  static constexpr int kParts = P == Precision::fp32 ? 2 : 1;   // of an operand

  template <class Ctx>
  TWEEDIE_KERNEL static void round(Ctx& ctx, float first, float second, std::uint32_t* word) {
    if constexpr (P == Precision::bf16) {
      word[0] = ctx.to_bf16x2(first, second);
    } else if constexpr (P == Precision::fp32) {
      split_tf32(ctx, first, word[0], word[1]);
    } else {
      word[0] = ctx.to_tf32(first);
    }
  }
  template <class Ctx, class A>
  TWEEDIE_KERNEL static void left(Ctx& ctx, int row, int k, int depth, A a_of, std::uint32_t (&a)[kParts][4]) {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4;
    TWEEDIE_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int at = row + g + 8 * (e % 2);
      std::uint32_t word[2] = {};
      if constexpr (P == Precision::bf16) {
        const int column = k + 2 * t + 8 * (e / 2);
        if (column < depth) round(ctx, a_of(at, column), a_of(at, column + 1), word);
      } else {
        round(ctx, a_of(at, k + t + 4 * (e / 2)), 0, word);
      }
      TWEEDIE_UNROLL
      for (int part = 0; part < kParts; ++part) a[part][e] = word[part];
    }
  }
  template <class Ctx, class B>
  TWEEDIE_KERNEL static void right(Ctx& ctx, int column, int k, int depth, B b_of, std::uint32_t (&b)[kParts][2]) {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4;
    TWEEDIE_UNROLL
    for (int e = 0; e < 2; ++e) {
      std::uint32_t word[2] = {};
      if constexpr (P == Precision::bf16) {
        const int row = k + 2 * t + 8 * e;
        if (row < depth) round(ctx, b_of(row, column + g), b_of(row + 1, column + g), word);
      } else {
        round(ctx, b_of(k + t + 4 * e, column + g), 0, word);
      }
      TWEEDIE_UNROLL
      for (int part = 0; part < kParts; ++part) b[part][e] = word[part];
    }
  }
  template <class Ctx>
  TWEEDIE_KERNEL static void multiply(Ctx& ctx, float (&sum)[4], const std::uint32_t (&a)[kParts][4],
                                      const std::uint32_t (&b)[kParts][2]) {
    if constexpr (P == Precision::bf16) {
      ctx.mma_bf16(sum, a[0], b[0]);
    } else {
      if constexpr (P == Precision::fp32) {
        ctx.mma_tf32(sum, a[1], b[0]);
        ctx.mma_tf32(sum, a[0], b[1]);
      }
      ctx.mma_tf32(sum, a[0], b[0]);
    }
  }
};

/// sum += a (rows, depth) b (depth, cols) for the 16 x 8 products of a warp that begin below (rows, cols).
template <Precision P, int RowTiles, int ColTiles, class Ctx, class A, class B>
TWEEDIE_KERNEL void accumulate(Ctx& ctx, int depth, int first_row, int rows, int first, int cols, A a_of, B b_of,
                               float (&sum)[RowTiles][ColTiles][4]) {
  using Part = Fragments<P>;
  for (int k = 0; k < depth; k += Part::kDepth) {
    std::uint32_t a[RowTiles][Part::kParts][4];
    TWEEDIE_UNROLL
    for (int i = 0; i < RowTiles; ++i) {  // conditions are the same for the whole warp
      if (first_row + 16 * i < rows) Part::left(ctx, first_row + 16 * i, k, depth, a_of, a[i]);
    }
    TWEEDIE_UNROLL
    for (int j = 0; j < ColTiles; ++j) {
      if (first + 8 * j >= cols) continue;
      std::uint32_t b[Part::kParts][2];
      Part::right(ctx, first + 8 * j, k, depth, b_of, b);
      TWEEDIE_UNROLL
      for (int i = 0; i < RowTiles; ++i) {
        if (first_row + 16 * i < rows) Part::multiply(ctx, sum[i][j], a[i], b);
      }
    }
  }
}

template <int RowTiles, int ColTiles>
TWEEDIE_KERNEL void clear(float (&sum)[RowTiles][ColTiles][4]) {
  TWEEDIE_UNROLL
  for (int i = 0; i < RowTiles; ++i) {
    TWEEDIE_UNROLL
    for (int j = 0; j < ColTiles; ++j) {
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
    }
  }
}

/// visit(row, column, value) for each element that a lane holds of a warp's part.
template <int RowTiles, int ColTiles, class Visit>
TWEEDIE_KERNEL void each_element(int lane, int first_row, int first, float (&sum)[RowTiles][ColTiles][4], Visit visit) {
  TWEEDIE_UNROLL
  for (int i = 0; i < RowTiles; ++i) {
    TWEEDIE_UNROLL
    for (int j = 0; j < ColTiles; ++j) {
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) {
        visit(first_row + 16 * i + lane / 4 + 8 * (e / 2), first + 8 * j + 2 * (lane % 4) + e % 2, sum[i][j][e]);
      }
    }
  }
}

}  // namespace tweedie::kernels::cuda
