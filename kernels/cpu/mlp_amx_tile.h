// mlp_amx_tile.h - a dense layer of bf16 operands over AMX tiles; the body, which hardware and the tests' host twin share.
//
//   32 rows x a panel of 32 columns at a time, 32 numbers (16 words) deep in each step:
//     tile 0 1    sums of rows 0-15 (16 x 16 floats each: columns 0-15, 16-31)     tile 4    a's rows 0-15, 16 words each
//     tile 2 3    sums of rows 16-31                                               tile 5    a's rows 16-31
//     tile 6 7    the panel's words of columns 0-15 and 16-31: 16 words deep, a row of 16 words for each
//
// tdpbf16ps sums the even and the odd products of a step apart, adds the two, then adds that to the tile, each with one rounding
// [Intel Software Developer's Manual, TDPBF16PS]: an element's bits depend on its own row and column alone, and its error stays
// within a plain chain's. Rows that are left over take tiles of fewer rows, never rows beyond the end.
// Tiles is the instructions: HardwareTiles below, or what gives the same bits.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/mlp_bf16_tile.h"

namespace tweedie::kernels {
namespace {

constexpr Index kAmxRows = 16, kAmxCols = 32, kAmxWords = 16;

/// What ldtilecfg loads [SDM, LDTILECFG]: palette 1, and for each tile its rows and the bytes of a row.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  /// For blocks of 1 to 32 rows.
  explicit TileConfig(Index block) {
    const auto upper = static_cast<std::uint8_t>(block < kAmxRows ? block : kAmxRows);
    const auto lower = static_cast<std::uint8_t>(block > kAmxRows ? block - kAmxRows : kAmxRows);
    for (int tile = 0; tile < 8; ++tile) {
      row_bytes[tile] = 64;
      rows[tile] = tile == 6 || tile == 7 ? kAmxWords : tile == 2 || tile == 3 || tile == 5 ? lower : upper;
    }
  }
};
static_assert(sizeof(TileConfig) == 64);

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)
/// The tile's number is part of the instruction.
struct HardwareTiles {
  static void configure(const TileConfig& config) {
    asm volatile("" : : "r"(&config) : "memory");  // gcc 12's intrinsic tells the compiler of 8 bytes alone
    _tile_loadconfig(&config);
  }
  static void release() { _tile_release(); }
  template <int kTile>
  static void zero() {
    if constexpr (kTile == 0) _tile_zero(0);
    if constexpr (kTile == 1) _tile_zero(1);
    if constexpr (kTile == 2) _tile_zero(2);
    if constexpr (kTile == 3) _tile_zero(3);
  }
  /// Rows `stride` floats apart.
  template <int kTile>
  static void load(const float* from, Index stride) {
    const Index bytes = stride * 4;
    if constexpr (kTile == 4) _tile_loadd(4, from, bytes);
    if constexpr (kTile == 5) _tile_loadd(5, from, bytes);
    if constexpr (kTile == 6) _tile_loadd(6, from, bytes);
    if constexpr (kTile == 7) _tile_loadd(7, from, bytes);
  }
  template <int kTile>
  static void save(float* to, Index stride) {
    const Index bytes = stride * 4;
    if constexpr (kTile == 0) _tile_stored(0, to, bytes);
    if constexpr (kTile == 1) _tile_stored(1, to, bytes);
    if constexpr (kTile == 2) _tile_stored(2, to, bytes);
    if constexpr (kTile == 3) _tile_stored(3, to, bytes);
  }
  /// sum += a b.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    static_assert(kA == 4 + kSum / 2 && kB == 6 + kSum % 2);
    if constexpr (kSum == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kSum == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kSum == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kSum == 3) _tile_dpbf16ps(3, 5, 7);
  }
};
#endif

/// `rows` rows from row i on, column j's panel; kTwo: more than 16.
template <class Tiles, class Unit, Finish kFinish, bool kSplit, bool kTwo>
void amx_block(const Bf16Dense& d, Index rows, Index i, Index j) {
  using V = Native<float>;
  const Index part = d.depth * kAmxCols, panel = part * (d.products == 3 ? 2 : 1);
  Tiles::template zero<0>();
  Tiles::template zero<1>();
  if constexpr (kTwo) {
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  }
  for (int product = 3 - d.products; product < 3; ++product) {
    const float* const a = d.a + i * d.lda + (product == 1 ? d.a_low : 0);
    const float* const b = d.panels + j / kAmxCols * panel + (product == 0 ? part : 0);
    for (Index k = 0; k < d.depth; k += kAmxWords) {
      Tiles::template load<6>(b + k * kAmxCols, kAmxCols);
      Tiles::template load<7>(b + k * kAmxCols + kAmxCols / 2, kAmxCols);
      Tiles::template load<4>(a + k, d.lda);
      Tiles::template multiply_add<0, 4, 6>();
      Tiles::template multiply_add<1, 4, 7>();
      if constexpr (kTwo) {
        Tiles::template load<5>(a + kAmxRows * d.lda + k, d.lda);
        Tiles::template multiply_add<2, 5, 6>();
        Tiles::template multiply_add<3, 5, 7>();
      }
    }
  }
  alignas(64) float sums[2 * kAmxRows * kAmxCols];
  Tiles::template save<0>(sums, kAmxCols);
  Tiles::template save<1>(sums + kAmxCols / 2, kAmxCols);
  if constexpr (kTwo) {
    Tiles::template save<2>(sums + kAmxRows * kAmxCols, kAmxCols);
    Tiles::template save<3>(sums + kAmxRows * kAmxCols + kAmxCols / 2, kAmxCols);
  }
  for (Index r = 0; r < rows; ++r) {
    const float* const z = sums + r * kAmxCols;
    for (Index n = 0; n < kAmxCols; n += 2 * V::kWidth) {
      finish_bf16<Unit, kFinish, kSplit>(d, i + r, j + n, load<V>(z + n), load<V>(z + n + V::kWidth));
    }
  }
}

template <class Tiles, class Unit, Finish kFinish, bool kSplit>
void amx_rows(const Bf16Dense& d) {
  const Index whole = d.rows / (2 * kAmxRows) * (2 * kAmxRows), left = d.rows - whole;
  if (whole > 0) {
    Tiles::configure(TileConfig(2 * kAmxRows));
    for (Index j = 0; j < d.out; j += kAmxCols) {
      for (Index i = 0; i < whole; i += 2 * kAmxRows) {
        amx_block<Tiles, Unit, kFinish, kSplit, true>(d, 2 * kAmxRows, i, j);
      }
    }
  }
  if (left > 0) {
    Tiles::configure(TileConfig(left));
    for (Index j = 0; j < d.out; j += kAmxCols) {
      left > kAmxRows ? amx_block<Tiles, Unit, kFinish, kSplit, true>(d, left, whole, j)
                      : amx_block<Tiles, Unit, kFinish, kSplit, false>(d, left, whole, j);
    }
  }
  Tiles::release();
}

template <class Tiles, class Unit>
void amx_dense(const Bf16Dense& d, Finish kind) {
  if (kind == Finish::affine) return amx_rows<Tiles, Unit, Finish::affine, false>(d);
  d.y_low == 0 ? amx_rows<Tiles, Unit, Finish::silu, false>(d) : amx_rows<Tiles, Unit, Finish::silu, true>(d);
}

template <class Tiles, class Unit>
constexpr Bf16Kernels kAmxKernels = {
    kAmxCols, Unit::kGroup, Unit::V::kWidth, kAmxWords, bf16_operands<Unit>, amx_dense<Tiles, Unit>, bf16_thin<Unit>};

}  // namespace
}  // namespace tweedie::kernels
