// mlp_forward.h - the folded network's forward pass in one launch.   Reference: kernels/reference/mlp_forward.h
//
//   out = scale_l (h W^T + b),  h = silu(... silu(x W_0^T + b_{0,l}) ...)       x (B, D)   W (out, in)   l the row's level
//
// Ladder: MlpForwardNaive   a block is a row, a thread a unit; fp32 FMA; reads every weight once for every row
//         MlpForwardTiled   a tile of rows stays in shared memory through all layers; weights come by cp.async into two buffers,
//                           one filled while the other is multiplied; products by mma.m16n8k8 in tf32
//         MlpForwardPacked  weights packed in the order of mma's fragments, activations as the unit takes them, by ldmatrix;
//                           twice the rows a tile, in place (mlp_packed.h, mlp_block.h); mma.m16n8k16 in bf16
// Precision, the error of a layer in sum |w| |h|:
//   tf32    operands rounded to 10 bits: 2^-10 + 2^-22     fp32    split in two tf32 numbers, three products: 3 x 2^-22
//   bf16    operands rounded to 7 bits: 2^-7 + 2^-16       bf16x3  split in two bf16 numbers, three products: 3 x 2^-16
// (and a hundredth of that of the split ones, second order). With split operands an infinite one gives NaN. Each product of the
// unit adds its 8 (bf16: 16) terms to the sum, truncated: 9 K / 8 times 2u of sum |w| |h|; with split operands three times that.
// SiLU by ex2 and rcp adds (8 |silu| + 1/2) u: ex2's argument is rounded, x^2 s (1 - s) <= 0.44, and the two are 4u and 2u off;
// NaN at -infinity. bf16's by tanh.approx adds 2^-12 |x|.
// A row's bits depend on the row, its level and the precision alone: not on kernel, tile or batch.
// Predicted on an H200, never measured: docs/kernel_ladder.md. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_block.h"
#include "tweedie/kernels/cuda/mlp_input.h"
#include "tweedie/kernels/cuda/mlp_packed.h"
#include "tweedie/kernels/reference/mlp_forward.h"

namespace tweedie::kernels::cuda {

enum class Products { tf32, tf32x3 };

/// A block of RowWarps x ColWarps warps, each computing RowTiles x ColTiles products of 16 x 8; Depth of K in a weight buffer.
template <int RowWarps, int ColWarps, int RowTiles, int ColTiles, int Depth>
struct MlpTile {
  static constexpr int kColWarps = ColWarps, kRowTiles = RowTiles, kColTiles = ColTiles, kDepth = Depth;
  static constexpr int kThreads = 32 * RowWarps * ColWarps, kRows = 16 * RowWarps * RowTiles, kCols = 8 * ColWarps * ColTiles;
  // Leading dimensions are 4 mod 8: the fragments' rows g and columns t then lie in 32 different banks.
  static constexpr int kWeightLd = Depth + 4, kStage = kCols * kWeightLd;
};
using MlpTile64 = MlpTile<2, 4, 2, 8, 32>;     // widths to 304
using MlpTile32 = MlpTile<1, 8, 2, 4, 32>;     // widths to 616
using MlpTile16 = MlpTile<1, 8, 1, 4, 32>;     // widths to 1232
using MlpTileSmall = MlpTile<2, 2, 1, 2, 16>;  // narrow networks

/// A tile's shared memory: activations of the layer read and the layer written, two weight buffers.
struct MlpShared {
  float *even, *odd;  // (rows, ld)
  float* weights;     // two stages
  int ld;
};

/// Weights [column, column + kCols) x [k, k + kDepth) of a layer on their way to `to`; zeros beyond the layer.
template <class Tile, class Ctx>
TWEEDIE_KERNEL void fetch_weights(Ctx& ctx, const MlpLayer& layer, int column, int k, float* to) {
  const bool vectors = layer.in % 4 == 0 && reinterpret_cast<std::uintptr_t>(layer.weight) % 16 == 0;
  const int rows = round_up8(layer.out - column), depth = round_up8(layer.in - k);
  constexpr int kQuads = Tile::kDepth / 4;
  for (int i = ctx.thread(); i < Tile::kCols * kQuads; i += Tile::kThreads) {
    const int row = i / kQuads, at = i % kQuads * 4;
    if (row >= rows || at >= depth) continue;
    const bool inside = column + row < layer.out;
    const float* const from = inside ? layer.weight + Index{column + row} * layer.in + k + at : layer.weight;
    float* const place = to + row * Tile::kWeightLd + at;
    if (vectors) {
      ctx.template copy_async<16>(place, from, inside && k + at < layer.in);
    } else {
      for (int j = 0; j < 4; ++j) {
        const bool valid = inside && k + at + j < layer.in;
        ctx.template copy_async<4>(place + j, valid ? from + j : layer.weight, valid);
      }
    }
  }
}

/// x as tf32 and what that leaves, as tf32.
template <class Ctx>
TWEEDIE_KERNEL void split_tf32(Ctx& ctx, float x, std::uint32_t& high, std::uint32_t& low) {
  high = ctx.to_tf32(x);
  low = ctx.to_tf32(x - __builtin_bit_cast(float, high));
}

/// sum += h (rows, depth) W (cols, depth)^T for this warp's part of the tile. Fragments: executor.h's mma_tf32.
template <class Tile, Products P, class Ctx>
TWEEDIE_KERNEL void multiply(Ctx& ctx, const float* h, int ld, const float* w, int depth, int columns,
                             float (&sum)[Tile::kRowTiles][Tile::kColTiles][4]) {
  const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
  const int first_row = warp / Tile::kColWarps * Tile::kRowTiles * 16, first = warp % Tile::kColWarps * Tile::kColTiles * 8;
  for (int k = 0; k < depth; k += 8) {
    std::uint32_t a[Tile::kRowTiles][4], a_low[Tile::kRowTiles][4];
    TWEEDIE_UNROLL
    for (int i = 0; i < Tile::kRowTiles; ++i) {
      const float* const p = h + (first_row + 16 * i + g) * ld + k + t;
      const float value[4] = {p[0], p[8 * ld], p[4], p[8 * ld + 4]};
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) split_tf32(ctx, value[e], a[i][e], a_low[i][e]);
    }
    TWEEDIE_UNROLL
    for (int j = 0; j < Tile::kColTiles; ++j) {
      if (first + 8 * j >= columns) continue;  // the same for the whole warp
      const float* const p = w + (first + 8 * j + g) * Tile::kWeightLd + k + t;
      std::uint32_t b[2], b_low[2];
      split_tf32(ctx, p[0], b[0], b_low[0]);
      split_tf32(ctx, p[4], b[1], b_low[1]);
      TWEEDIE_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) {
        if constexpr (P == Products::tf32x3) {  // small terms first
          ctx.mma_tf32(sum[i][j], a_low[i], b);
          ctx.mma_tf32(sum[i][j], a[i], b_low);
        }
        ctx.mma_tf32(sum[i][j], a[i], b);
      }
    }
  }
}

/// The network for the rows in memory.even (zeros in columns [D, round_up8(D))): store(row, column, h W^T + b) for each output.
/// level_of(row) is a row's level. Starts and ends with all threads free to use the shared memory.
template <class Tile, Products P, class Ctx, class LevelOf, class Store>
TWEEDIE_KERNEL void forward_tile(Ctx& ctx, const Mlp& net, const MlpShared& memory, LevelOf level_of, Store store) {
  const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
  const int first_row = warp / Tile::kColWarps * Tile::kRowTiles * 16, first = warp % Tile::kColWarps * Tile::kColTiles * 8;
  float sum[Tile::kRowTiles][Tile::kColTiles][4];
  int layer = 0, column = 0, k = 0, stage = 0;
  fetch_weights<Tile>(ctx, net.layer[0], 0, 0, memory.weights);
  ctx.commit_async();
  while (layer < net.layers) {
    const MlpLayer& now = net.layer[layer];
    const bool last_k = k + Tile::kDepth >= now.in, last_column = column + Tile::kCols >= now.out;
    const int next_k = last_k ? 0 : k + Tile::kDepth;
    const int next_column = !last_k ? column : last_column ? 0 : column + Tile::kCols;
    const int next_layer = last_k && last_column ? layer + 1 : layer;
    if (next_layer < net.layers) {
      fetch_weights<Tile>(ctx, net.layer[next_layer], next_column, next_k, memory.weights + (stage ^ 1) * Tile::kStage);
    }
    ctx.commit_async();
    ctx.template wait_async<1>();
    ctx.sync();

    const float* const h = layer % 2 == 0 ? memory.even : memory.odd;
    if (k == 0) {
      TWEEDIE_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) {
        TWEEDIE_UNROLL
        for (int j = 0; j < Tile::kColTiles; ++j) {
          TWEEDIE_UNROLL
          for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
        }
      }
    }
    const int depth = last_k ? round_up8(now.in - k) : Tile::kDepth;
    multiply<Tile, P>(ctx, h + k, memory.ld, memory.weights + stage * Tile::kStage, depth, now.out - column, sum);
    if (last_k) {
      float* const next = layer % 2 == 0 ? memory.odd : memory.even;
      const bool output = layer + 1 == net.layers;
      TWEEDIE_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) {
        TWEEDIE_UNROLL
        for (int j = 0; j < Tile::kColTiles; ++j) {
          TWEEDIE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int row = first_row + 16 * i + g + 8 * (e / 2), at = column + first + 8 * j + 2 * t + e % 2;
            if (at < now.out) {
              const float y = sum[i][j][e] + now.bias[layer == 0 ? Index{level_of(row)} * now.out + at : Index{at}];
              if (output) {
                store(row, at, y);
              } else {
                next[row * memory.ld + at] = silu_approx(ctx, y);
              }
            } else if (at < round_up8(now.out) && !output) {
              next[row * memory.ld + at] = 0;
            }
          }
        }
      }
    }
    ctx.sync();
    layer = next_layer, column = next_column, k = next_k, stage ^= 1;
  }
}

struct MlpForwardNaive : MlpForwardInput {
  static constexpr int kThreads = 128;
  int width;  // of the widest layer

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index row = ctx.block();
    float* h = ctx.template dynamic_shared<float>();
    float* next = h + width;
    for (int i = ctx.thread(); i < net.layer[0].in; i += kThreads) h[i] = x[row * net.layer[0].in + i];
    ctx.sync();
    for (int l = 0; l < net.layers; ++l) {
      const MlpLayer& layer = net.layer[l];
      for (int n = ctx.thread(); n < layer.out; n += kThreads) {
        float sum = 0;
        for (int k = 0; k < layer.in; ++k) sum = math::fma(h[k], layer.weight[Index{n} * layer.in + k], sum);
        sum += layer.bias[l == 0 ? Index{level_of(row)} * layer.out + n : Index{n}];
        if (l + 1 < net.layers) {
          next[n] = silu_approx(ctx, sum);
        } else {
          out[row * layer.out + n] = scale_of(row) * sum;
        }
      }
      ctx.sync();
      float* const read = h;
      h = next, next = read;
    }
  }
};

template <class Tile, Products P>
struct MlpForwardTiled : MlpForwardInput {
  int ld;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    float* const memory = ctx.template dynamic_shared<float>();
    const MlpShared shared = {memory, memory + Tile::kRows * ld, memory + 2 * Tile::kRows * ld, ld};
    const Index first = Index{ctx.block()} * Tile::kRows;
    const int dim = net.layer[0].in, padded = round_up8(dim), outputs = net.layer[net.layers - 1].out;
    for (int i = ctx.thread(); i < Tile::kRows * padded; i += Tile::kThreads) {
      const int row = i / padded, column = i % padded;
      shared.even[row * ld + column] = first + row < batch && column < dim ? x[(first + row) * dim + column] : 0.0f;
    }
    forward_tile<Tile, P>(
        ctx, net, shared, [&](int row) { return level_of(first + row); },
        [&](int row, int column, float y) {
          if (first + row < batch) out[(first + row) * outputs + column] = scale_of(first + row) * y;
        });
  }
};

// ---- launchers: launch(name, grid, block, shared bytes, body); nothing is launched for no rows ----

/// Leading dimension of the activations, and bytes of shared memory that a tile needs with `extra` more floats a row.
inline int mlp_ld(int width) { return round_up8(width) + 4; }
template <class Tile>
Index mlp_shared_bytes(int width, int extra = 0) {
  return 4 * (Index{Tile::kRows} * (2 * mlp_ld(width) + extra) + 2 * Tile::kStage);
}

template <class Launch>
void mlp_forward_naive(Launch&& launch, const MlpForwardInput& k) {
  const int width = check_mlp_forward("cuda::mlp_forward_naive", k);
  check(Index{8} * width <= kMaxSharedBytes, "cuda::mlp_forward_naive: width ", width, " does not fit shared memory (29056)");
  if (k.batch > 0) {
    launch("mlp_forward_naive", static_cast<int>(k.batch), MlpForwardNaive::kThreads, 8 * width, MlpForwardNaive{k, width});
  }
}

/// One tile size; mlp_forward chooses.
template <class Tile, Products P, class Launch>
void mlp_forward_tiled(Launch&& launch, const MlpForwardInput& k, const Resources& resources = {}) {
  const int width = check_mlp_forward("cuda::mlp_forward", k);
  const Index bytes = mlp_shared_bytes<Tile>(width);
  check(bytes <= resources.shared_bytes, "cuda::mlp_forward: width ", width, " needs ", bytes,
        " bytes of shared memory, a block has ", resources.shared_bytes, "; use mlp_forward_naive");
  const int grid = static_cast<int>((k.batch + Tile::kRows - 1) / Tile::kRows);
  if (grid > 0) {
    launch("mlp_forward", grid, Tile::kThreads, static_cast<int>(bytes), MlpForwardTiled<Tile, P>{k, mlp_ld(width)});
  }
}

/// visit(tile) with the tile for a width: the most rows that shared memory holds, small ones where a big one would be padding.
template <class Visit>
void with_mlp_tile(int width, int shared_bytes, Visit visit) {
  if (width > 64 && mlp_shared_bytes<MlpTile64>(width) <= shared_bytes) {
    visit(MlpTile64{});
  } else if (width > 64 && mlp_shared_bytes<MlpTile32>(width) <= shared_bytes) {
    visit(MlpTile32{});
  } else if (width > 64) {
    visit(MlpTile16{});
  } else {
    visit(MlpTileSmall{});
  }
}

/// A forward (mlp_block.h) for rows from memory.
template <class Forward>
struct MlpForwardPacked : MlpForwardInput {
  static constexpr int kRows = Forward::kRows, kThreads = Forward::kThreads;
  Forward forward;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index first = Index{ctx.block()} * kRows;
    const int dim = net.layer[0].in, quads = forward.padded_inputs() / 4, outputs = net.layer[net.layers - 1].out;
    typename Forward::State state = forward.begin(ctx, ctx.template dynamic_shared<unsigned char>(), 1);
    for (int i = ctx.thread(); i < kRows * quads; i += kThreads) {
      const int row = i / quads, column = i % quads * 4;
      float values[4] = {};
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) {
        if (first + row < batch && column + e < dim) values[e] = x[(first + row) * dim + column + e];
      }
      forward.input(ctx, state, row, column, values);
    }
    forward.run(
        ctx, state, [&](int row) { return level_of(first + row); },
        [&](int row, int column, float y) {
          if (first + row < batch) out[(first + row) * outputs + column] = scale_of(first + row) * y;
        },
        [] {});
  }
};

/// One tile; false, and nothing launched, where it does not fit. mlp_forward chooses.
template <class Tile, Precision P, class Launch>
bool mlp_forward_packed(Launch&& launch, const MlpForwardInput& k, const PackedMlp& packed, const Resources& resources) {
  using Forward = BlockForward<Tile, P>;
  const MlpForwardPacked<Forward> body{k, Forward::make(k.net, packed)};
  if (body.forward.shared_bytes() > resources.shared_bytes) return false;
  const Index grid = (k.batch + Forward::kRows - 1) / Forward::kRows;
  if (grid > 0) {
    launch("mlp_forward", static_cast<int>(grid), Forward::kThreads, static_cast<int>(body.forward.shared_bytes()), body);
  }
  return true;
}

template <Precision P, class Launch>
void mlp_forward_packed(Launch&& launch, const MlpForwardInput& k, const Resources& resources) {
  const int width = check_mlp_forward("cuda::mlp_forward", k), sms = resources.multiprocessors;
  if (k.batch == 0) return;
  const PackedMlp packed = pack_mlp<P>("cuda::mlp_forward", launch, k.net, resources);
  if (width <= 64 && mlp_forward_packed<BlockTileNarrow, P>(launch, k, packed, resources)) return;
  if (k.batch > Index{64} * sms && mlp_forward_packed<BlockTile128, P>(launch, k, packed, resources)) return;
  if (k.batch > Index{32} * sms && mlp_forward_packed<BlockTile64, P>(launch, k, packed, resources)) return;
  if (mlp_forward_packed<BlockTile32, P>(launch, k, packed, resources)) return;
  check<UsageError>(mlp_forward_packed<BlockTile16, P>(launch, k, packed, resources), "cuda::mlp_forward: width ", width, " in ",
                    name(P), " does not fit ", resources.shared_bytes, " bytes of shared memory; use mlp_forward_naive");
}

/// Bytes of scratch memory for mlp_forward: its packed weights.
inline Index mlp_forward_scratch_bytes(const Mlp& net, Precision precision) {
  check_mlp("cuda::mlp_forward_scratch_bytes", net);
  return with_precision(precision, [&](auto p) { return packed_mlp_bytes<p.value>(net); });
}

/// The network for all rows; fp32 means three tf32 products of split operands. With scratch memory a launch before packs the
/// weights; bf16 and bf16x3 need it, fp32 and tf32 come without it to the same bits by MlpForwardTiled, which reads the weights
/// as they are, twice as often. Throws UsageError for shapes, pointers, scratch memory that do not fit.
template <class Launch>
void mlp_forward(Launch&& launch, const MlpForwardInput& k, Precision precision, const Resources& resources = {}) {
  if (resources.scratch != nullptr || precision == Precision::bf16 || precision == Precision::bf16x3) {
    with_precision(precision, [&](auto p) { mlp_forward_packed<p.value>(launch, k, resources); });
    return;
  }
  with_mlp_tile(check_mlp_forward("cuda::mlp_forward", k), resources.shared_bytes, [&](auto tile) {
    using Tile = decltype(tile);
    if (precision == Precision::tf32) {
      mlp_forward_tiled<Tile, Products::tf32>(launch, k, resources);
    } else {
      mlp_forward_tiled<Tile, Products::tf32x3>(launch, k, resources);
    }
  });
}

}  // namespace tweedie::kernels::cuda
