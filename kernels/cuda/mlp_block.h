// mlp_block.h - the network for a tile of rows by a whole block: weights stream through shared memory, shared by all its warps.
//
// A `forward` is what a kernel runs the network with (mlp_forward.h, sample_chain.h): a plain struct with
//   kRows, kThreads                                       of a block's tile
//   shared_bytes()                                        that it needs, a multiple of 16
//   padded_inputs()                                       columns that input() must be given, zeros beyond D; a multiple of 4
//   State begin(ctx, memory, runs)                        once, by all threads, before the first of `runs` evaluations
//   input(ctx, state, row, column, values[4])             the network's input, before each; column a multiple of 4
//   run(ctx, state, level_of(row), emit(row, column, y), idle())
//                                                         by all threads: y = h W^T + b for every row of the tile and each output
// run() has a barrier before it reads the inputs, none after the last emit: the caller's, before it gives the next. emit may run
// in any thread, once for each element; idle runs once in every thread when the last layer begins, which has work for few warps
// where D is small.
//
// BlockForward: warps share the tile's rows and columns; a slab of weights (kCols outputs x kSteps blocks of inputs) is
// multiplied while the next one comes by cp.async, across the seams of layers and of evaluations. One barrier a slab.
// Where a layer's outputs are one pass of kCols columns, they stay in registers until all warps have read its inputs, and take
// their place: half the activations' memory, so twice the rows for the same bytes from L2, for one more barrier a layer.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_packed.h"

namespace tweedie::kernels::cuda {

/// RowWarps x ColWarps warps, each with RowTiles x Pairs products of 16 x 16; a slab has `Steps` 512-byte blocks along the
/// inputs.
template <int RowWarps, int ColWarps, int RowTiles, int Pairs, int Steps>
struct BlockTile {
  static constexpr int kColWarps = ColWarps, kRowTiles = RowTiles, kPairs = Pairs, kSteps = Steps;
  static constexpr int kThreads = 32 * RowWarps * ColWarps, kRows = 16 * RowWarps * RowTiles, kCols = 16 * ColWarps * Pairs;
};
using BlockTile128 = BlockTile<2, 4, 4, 4, 4>;     // 128 rows, passes of 256 columns
using BlockTile64 = BlockTile<2, 4, 2, 4, 4>;      // 64 rows
using BlockTile32 = BlockTile<1, 8, 2, 2, 2>;      // 32 rows, small slabs: wide networks, many dimensions
using BlockTile16 = BlockTile<1, 8, 1, 2, 2>;      // 16 rows, the widest networks
using BlockTileNarrow = BlockTile<4, 2, 2, 2, 4>;  // 128 rows, passes of 64 columns: narrow networks

template <class Tile, Precision P>
struct BlockForward {
  using Unit = MlpUnit<P>;
  static constexpr int kRows = Tile::kRows, kThreads = Tile::kThreads;
  static constexpr int kSteps = Tile::kSteps / Unit::kParts, kDepth = kSteps * Unit::kStep;
  static constexpr int kRun = kSteps * Unit::kParts * 32, kStage = Tile::kCols / 16 * kRun * 16;  // in 16 bytes; in bytes
  static_assert(kSteps >= 1);

  Mlp net;
  PackedMlp packed;
  int ld, buffers;  // of activations: 1 in place, 2 where a hidden layer needs several passes

  static BlockForward make(const Mlp& net, const PackedMlp& packed) {
    int width = net.layer[0].in, buffers = 1;
    for (int l = 0; l + 1 < net.layers; ++l) {
      width = width < net.layer[l].out ? net.layer[l].out : width;
      if (net.layer[l].out > Tile::kCols) buffers = 2;
    }
    return {net, packed, Unit::ld(width), buffers};
  }

  struct State {
    unsigned char *even, *odd, *weights;  // activations of every second layer; two stages
    int layer, column, step, stage;       // of the next slab to fetch
    int runs;                             // that are still to be fetched
  };

  TWEEDIE_HOST_DEVICE Index activation_bytes() const { return Unit::kParts * Unit::plane(kRows, ld); }
  TWEEDIE_HOST_DEVICE Index shared_bytes() const { return buffers * activation_bytes() + 2 * kStage; }
  TWEEDIE_KERNEL int padded_inputs() const { return round_up(net.layer[0].in, Unit::kStep); }

  /// The next slab on its way to its stage, as one group; an empty one where nothing is left.
  template <class Ctx>
  TWEEDIE_KERNEL void fetch(Ctx& ctx, State& state) const {
    if (state.runs > 0) {
      const MlpLayer& layer = net.layer[state.layer];
      const int blocks = (layer.out + 15) / 16, steps = (layer.in + Unit::kStep - 1) / Unit::kStep, first = state.column / 16;
      const unsigned char* const from = packed.words + (packed.first[state.layer] + Index{first} * steps * Unit::kParts) * 512;
      unsigned char* const to = state.weights + state.stage * kStage;
      for (int i = ctx.thread(); i < Tile::kCols / 16 * kRun; i += kThreads) {
        const int block = i / kRun, step = i % kRun / (Unit::kParts * 32);
        if (first + block < blocks && state.step + step < steps) {
          ctx.template copy_async<16>(to + i * 16,
                                      from + (Index{block} * steps + state.step) * Unit::kParts * 512 + i % kRun * 16);
        }
      }
      state.stage ^= 1;
      state.step += kSteps;
      if (state.step >= steps) state.step = 0, state.column += Tile::kCols;
      if (state.column >= layer.out) state.column = 0, ++state.layer;
      if (state.layer == net.layers) state.layer = 0, --state.runs;
    }
    ctx.commit_async();
  }

  template <class Ctx>
  TWEEDIE_KERNEL State begin(Ctx& ctx, unsigned char* memory, int runs) const {
    unsigned char* const weights = memory + buffers * activation_bytes();
    State state{memory, weights - activation_bytes(), weights, 0, 0, 0, 0, runs};
    fetch(ctx, state);
    return state;
  }

  template <class Ctx>
  TWEEDIE_KERNEL void input(Ctx& ctx, State& state, int row, int column, const float (&x)[4]) const {
    Unit::store(ctx, state.even, kRows, ld, row, column, x[0], x[1]);
    Unit::store(ctx, state.even, kRows, ld, row, column + 2, x[2], x[3]);
  }

  /// sum += h (rows, steps) W (columns, steps)^T for this warp's part of the tile.
  template <class Ctx>
  TWEEDIE_KERNEL void multiply(Ctx& ctx, const unsigned char* h, int k, const unsigned char* slab, int steps, int columns,
                               float (&sum)[Tile::kRowTiles][2 * Tile::kPairs][4]) const {
    using Fragment = typename Unit::Fragment;
    const int warp = ctx.thread() / 32, first_pair = warp % Tile::kColWarps * Tile::kPairs;
    const int row = warp / Tile::kColWarps * Tile::kRowTiles * 16 + ctx.lane() % 16;
    if (16 * first_pair >= columns) return;  // the same for the whole warp
    for (int s = 0; s < steps; ++s) {
      Fragment a[Tile::kRowTiles];
      TWEEDIE_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) {
        a[i] = Unit::activations(ctx, h, kRows, ld, row + 16 * i, k + s * Unit::kStep, ctx.lane() / 16);
        Unit::convert(ctx, a[i]);
      }
      TWEEDIE_UNROLL
      for (int p = 0; p < Tile::kPairs; ++p) {
        if (16 * (first_pair + p) >= columns) continue;
        Fragment w = Unit::weights(ctx, slab + (first_pair + p) * kRun * 16 + s * Unit::kParts * 512);
        Unit::convert(ctx, w);
        TWEEDIE_UNROLL
        for (int n = 0; n < 2; ++n) {
          const std::uint32_t b[2] = {w.high[n], w.high[n + 2]};
          if constexpr (Unit::kSplit) {  // small terms first
            const std::uint32_t b_low[2] = {w.low[n], w.low[n + 2]};
            TWEEDIE_UNROLL
            for (int i = 0; i < Tile::kRowTiles; ++i) Unit::multiply(ctx, sum[i][2 * p + n], a[i].low, b);
            TWEEDIE_UNROLL
            for (int i = 0; i < Tile::kRowTiles; ++i) Unit::multiply(ctx, sum[i][2 * p + n], a[i].high, b_low);
          }
          TWEEDIE_UNROLL
          for (int i = 0; i < Tile::kRowTiles; ++i) Unit::multiply(ctx, sum[i][2 * p + n], a[i].high, b);
        }
      }
    }
  }

  template <class Ctx, class LevelOf, class Emit, class Idle>
  TWEEDIE_KERNEL void run(Ctx& ctx, State& state, LevelOf level_of, Emit emit, Idle idle) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
    const int first_row = warp / Tile::kColWarps * Tile::kRowTiles * 16, first = warp % Tile::kColWarps * Tile::kPairs * 16;
    float sum[Tile::kRowTiles][2 * Tile::kPairs][4];
    for (int l = 0; l < net.layers; ++l) {
      const MlpLayer& layer = net.layer[l];
      const unsigned char* const h = l % 2 == 0 ? state.even : state.odd;
      unsigned char* const next = l % 2 == 0 ? state.odd : state.even;
      const int steps = (layer.in + Unit::kStep - 1) / Unit::kStep;
      const bool output = l + 1 == net.layers;
      if (output) idle();
      for (int column = 0; column < layer.out; column += Tile::kCols) {
        TWEEDIE_UNROLL
        for (int i = 0; i < Tile::kRowTiles; ++i) {
          TWEEDIE_UNROLL
          for (int j = 0; j < 2 * Tile::kPairs; ++j) {
            TWEEDIE_UNROLL
            for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
          }
        }
        for (int step = 0; step < steps; step += kSteps) {
          ctx.template wait_async<0>();
          ctx.sync();  // this slab has landed; the other stage and the activations of the layer before last are free
          const unsigned char* const slab = state.weights + (state.stage ^ 1) * kStage;
          fetch(ctx, state);
          multiply(ctx, h, step * Unit::kStep, slab, steps - step < kSteps ? steps - step : kSteps, layer.out - column, sum);
        }
        if (buffers == 1 && !output) ctx.sync();  // every warp has read what the results replace
        TWEEDIE_UNROLL
        for (int j = 0; j < 2 * Tile::kPairs; ++j) {
          const int at = column + first + 8 * j + 2 * t;
          if (at >= round_up(layer.out, Unit::kStep)) continue;
          TWEEDIE_UNROLL
          for (int i = 0; i < 2 * Tile::kRowTiles; ++i) {
            const int row = first_row + 8 * i + g;
            const Index from = l == 0 ? Index{level_of(row)} * layer.out + at : Index{at};
            const float y0 = at < layer.out ? sum[i / 2][j][i % 2 * 2] + layer.bias[from] : 0.0f;
            const float y1 = at + 1 < layer.out ? sum[i / 2][j][i % 2 * 2 + 1] + layer.bias[from + 1] : 0.0f;
            if (!output) {
              Unit::store(ctx, next, kRows, ld, row, at, Unit::silu(ctx, y0), Unit::silu(ctx, y1));
            } else {
              if (at < layer.out) emit(row, at, y0);
              if (at + 1 < layer.out) emit(row, at + 1, y1);
            }
          }
        }
      }
    }
  }
};

}  // namespace tweedie::kernels::cuda
