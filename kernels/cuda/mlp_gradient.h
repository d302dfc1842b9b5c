// mlp_gradient.h - a perceptron's denoising loss and its gradient in all weights.  Reference: kernels/reference/mlp_gradient.h
//
//   loss_b = w_b/2 |scale_b F(x_b) + eps_b|^2;  with z_i a layer's sums and dz_i their gradient in mean_b loss_b
//   dW_i = sum_b dz_i h_i^T,   db_i = sum_b dz_i (of the first layer by level),   dz_{i-1} = (W_i^T dz_i) silu'(z_{i-1})
//
// Ladder: MlpGradientNaive    mlp_gradient_naive.h: a block is a row, a thread a unit; then a thread is a weight and adds all
// rows
//         MlpGradientRows     a block is a tile of rows on its way forward and back in shared memory; the weights come by
//         cp.async
//                             into two buffers, one filled while the other is multiplied, across the turn too. h_i and silu'(z_i)
//                             go to the workspace, dz_i takes silu'(z_i)'s place
//         MlpGradientWeights  a block is a tile of a dW_i and a part of the rows: products of what the workspace holds
//         MlpGradientReduce   adds the parts
// Rows come in chunks of 132 tiles, whose h_i and dz_i (52 MB at width 256) about fit the second-level cache: both launches once
// a chunk. Sums over rows: products in their order within a part, parts in their order, nothing by atomics; tiles, chunks and
// parts follow from the batch's size and the widest layer alone (and, beyond 2112 rows, from whether a block's shared memory
// holds 64 of them), so the bits do not depend on the launch. Precision: fp32 (three tf32 products) and tf32 as mlp_forward.h;
// bf16 rounds a product's operands to 7 bits, 2^-7 of sum |w| |h|. What is rounded are operands alone: the weights, h_i, dz_i,
// sums, losses and dW are fp32 whatever the precision.
//
// Predicted on an H200 (never measured), width 256, D = 2, 2^20 rows: 3 x 277 GFLOP: tf32 1.7 ms, fp32 5.0 ms, bf16 0.84 ms.
// L2: weights twice, 17 GB, 3.2 ms; workspace 22 kB a row, 23 GB, 4.2 ms. So tf32 and bf16 are bound by L2 (7.4 ms), fp32 by
// both. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/host_device.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/mlp_input.h"
#include "tweedie/kernels/cuda/mlp_products.h"

namespace tweedie::kernels::cuda {

/// All pointers are the device's. batch.level is not a nullptr, net.scale is.
struct MlpGradientInput {
  Mlp net;
  MlpBatch batch;
  float* losses;  // (B)
  MlpGradient gradient;
  double* level_losses;  // (levels, 2): the sum of the losses at each level and their number
  float* workspace;      // mlp_gradient_layout().size, at a multiple of 16 bytes
};

/// What the workspace holds, in floats.
struct GradientLayout {
  int tile_rows;                                    // of MlpGradientRows
  int slots;                                        // tiles of a chunk
  int splits;                                       // parts of a chunk's rows in MlpGradientWeights,
  int split_rows;                                   // of so many rows
  int in_ld[Mlp::kMaxLayers];                       // columns of a layer's inputs and outputs, rounded up
  int out_ld[Mlp::kMaxLayers];                      // (a row is at a multiple of 32 bytes)
  Index input[Mlp::kMaxLayers];                     // h_i (chunk, in_ld)
  Index slope[Mlp::kMaxLayers];                     // silu'(z_i), then dz_i (chunk, out_ld)
  Index weight_sum[Mlp::kMaxLayers], weight_count;  // in a split's sums: (out, in)
  Index bias_sum[Mlp::kMaxLayers], bias_count;      // in a slot's sums: (out), of the first layer (levels, out)
  Index weight_sums, bias_sums, level_sums;         // (splits, weight_count), (slots, bias_count), double (slots, levels, 2)
  Index size;

  TWEEDIE_HOST_DEVICE Index chunk() const { return Index{slots} * tile_rows; }
};

inline constexpr int kGradientSlots = 132;  // an H200's SMs; other devices keep it, and the bits
inline constexpr int kGradientSplits = 16, kRowsPerSplit = 128;

/// A tile of dW: 128 x 128, or 32 x 32 for narrow networks.
using WeightTile128 = MlpTile<2, 4, 4, 4, 32>;
using WeightTile32 = MlpTile<2, 2, 1, 2, 16>;

inline GradientLayout mlp_gradient_layout(const Mlp& net, Index rows, int tile_rows) {
  GradientLayout at = {};
  const Index tiles = (rows + tile_rows - 1) / tile_rows;
  at.tile_rows = tile_rows;
  at.slots = static_cast<int>(tiles < kGradientSlots ? tiles : kGradientSlots);
  const Index splits = at.chunk() / kRowsPerSplit;
  at.splits = static_cast<int>(splits < 1 ? 1 : splits > kGradientSplits ? kGradientSplits : splits);
  at.split_rows = round_up8(static_cast<int>((at.chunk() + at.splits - 1) / at.splits));
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    at.in_ld[i] = round_up8(layer.in), at.out_ld[i] = round_up8(layer.out);
    at.input[i] = at.size;
    at.slope[i] = at.input[i] + at.chunk() * at.in_ld[i];
    at.size = at.slope[i] + at.chunk() * at.out_ld[i];
    at.weight_sum[i] = at.weight_count, at.bias_sum[i] = at.bias_count;
    at.weight_count += Index{layer.in} * layer.out;
    at.bias_count += Index{layer.out} * (i == 0 ? net.levels : 1);
  }
  at.level_sums = at.size;
  at.weight_sums = at.level_sums + 4 * Index{at.slots} * net.levels;
  at.bias_sums = at.weight_sums + at.splits * at.weight_count;
  at.size = at.bias_sums + at.slots * at.bias_count;
  return at;
}

/// silu and its derivative s + x s (1 - s), s = 1 / (1 + 2^(-x log2 e)).
template <class Ctx>
TWEEDIE_KERNEL float silu_approx(Ctx& ctx, float x, float& slope) {
  const float s = ctx.reciprocal_approx(1 + ctx.exp2_approx(-1.44269504f * x)), y = x * s;
  slope = math::fma(y, 1 - s, s);
  return y;
}

// ---- a tile of rows, forward and back

template <class Tile, Precision P>
struct MlpGradientRows {
  static constexpr int kBackLd = Tile::kCols + 8;  // 8 mod 32: fragments read along a row lie in 32 different banks
  static_assert(Tile::kDepth * kBackLd <= Tile::kStage);
  MlpGradientInput in;
  GradientLayout at;
  int ld;       // of activations in shared memory
  Index first;  // row of the chunk

  /// A layer's product: forward h W^T, or back dz W.
  struct Phase {
    int layer;
    bool back;
    int depth, width;  // columns of its left operand and of its result
  };
  TWEEDIE_KERNEL Phase phase_of(int p) const {
    const bool back = p >= in.net.layers;
    const int layer = back ? 2 * in.net.layers - 1 - p : p;
    const int inputs = in.net.layer[layer].in, outputs = in.net.layer[layer].out;
    return {layer, back, back ? outputs : inputs, back ? inputs : outputs};
  }
  struct Shared {
    float *even, *odd, *weights;
    double* loss;        // (rows)
    int *level, *order;  // (rows); of the tile's rows, those of the lowest level first
  };
  TWEEDIE_KERNEL float* left(const Shared& s, int p) const { return p % 2 == 0 ? s.even : s.odd; }
  TWEEDIE_KERNEL float* right(const Shared& s, int p) const { return p % 2 == 0 ? s.odd : s.even; }
  template <class Ctx>
  TWEEDIE_KERNEL Index slot_row(Ctx& ctx) const {
    return Index{ctx.block()} * Tile::kRows;
  }
  /// How many of the tile's rows are the batch's.
  template <class Ctx>
  TWEEDIE_KERNEL int valid(Ctx& ctx) const {
    const Index left = in.batch.rows - first - slot_row(ctx);
    return static_cast<int>(left < Tile::kRows ? left : Tile::kRows);
  }

  template <class Ctx>
  TWEEDIE_KERNEL void load(Ctx& ctx, const Shared& s) const {
    const int dim = in.net.layer[0].in, padded = at.in_ld[0], rows = valid(ctx);
    const Index row0 = first + slot_row(ctx);
    for (int i = ctx.thread(); i < Tile::kRows * padded; i += Tile::kThreads) {
      const int row = i / padded, column = i % padded;
      const float x = row < rows && column < dim ? in.batch.x[(row0 + row) * dim + column] : 0.0f;
      s.even[row * ld + column] = x;
      in.workspace[at.input[0] + (slot_row(ctx) + row) * padded + column] = x;
    }
    for (int row = ctx.thread(); row < Tile::kRows; row += Tile::kThreads) {
      s.level[row] = row < rows ? in.batch.level[row0 + row] : 0;
    }
    ctx.sync();
    for (int row = ctx.thread(); row < rows; row += Tile::kThreads) {
      int place = 0;
      for (int other = 0; other < rows; ++other) {
        place += s.level[other] < s.level[row] || (s.level[other] == s.level[row] && other < row) ? 1 : 0;
      }
      s.order[place] = row;
    }
  }

  /// What becomes of a sum: h and silu', the residual, or dz.
  template <class Ctx>
  TWEEDIE_KERNEL void finish(Ctx& ctx, const Shared& s, int p, const Phase& now, int row, int column, float sum) const {
    const Index place = slot_row(ctx) + row;
    const bool inside = column < now.width;
    float value = 0;
    if (now.back) {
      float* const dz = in.workspace + at.slope[now.layer - 1] + place * at.out_ld[now.layer - 1] + column;
      if (inside) value = sum * *dz;
      *dz = value;
    } else {
      if (inside) sum += in.net.layer[now.layer].bias[(now.layer == 0 ? Index{s.level[row]} * now.width : 0) + column];
      if (now.layer + 1 < in.net.layers) {
        float slope = 0;
        if (inside) value = silu_approx(ctx, sum, slope);
        in.workspace[at.input[now.layer + 1] + place * at.in_ld[now.layer + 1] + column] = value;
        in.workspace[at.slope[now.layer] + place * at.out_ld[now.layer] + column] = slope;
      } else if (inside && row < valid(ctx)) {
        const Index b = first + place;
        const float scale = in.batch.scale == nullptr ? 1.0f : in.batch.scale[b];
        value = math::fma(scale, sum, in.batch.eps[b * now.width + column]);
      }
    }
    right(s, p)[row * ld + column] = value;
  }

  /// Losses of the residuals in shared memory, which become dz of the last layer: a warp takes a row.
  template <class Ctx>
  TWEEDIE_KERNEL void loss(Ctx& ctx, const Shared& s, float* residual) const {
    const int last = in.net.layers - 1, dim = in.net.layer[last].out;
    for (int row = ctx.thread() / 32; row < Tile::kRows; row += Tile::kThreads / 32) {
      const Index b = first + slot_row(ctx) + row;
      const bool real = row < valid(ctx);
      const float scale = real && in.batch.scale != nullptr ? in.batch.scale[b] : 1.0f;
      const float weight = real && in.batch.weight != nullptr ? in.batch.weight[b] : 1.0f;
      const float factor = weight * scale / static_cast<float>(in.batch.rows);
      double sum = 0;
      for (int d = ctx.lane(); d < at.out_ld[last]; d += 32) {
        float& r = residual[row * ld + d];
        if (d < dim) sum += static_cast<double>(r) * static_cast<double>(r);
        r *= factor;
        in.workspace[at.slope[last] + (slot_row(ctx) + row) * at.out_ld[last] + d] = r;
      }
      for (int bits = 16; bits > 0; bits /= 2) sum += ctx.shuffle_xor(~0U, sum, bits);
      const float l = static_cast<float>(0.5 * static_cast<double>(weight) * sum);
      if (ctx.lane() == 0 && real) in.losses[b] = l;
      if (ctx.lane() == 0) s.loss[row] = static_cast<double>(l);
    }
    ctx.sync();
    double* const sums = reinterpret_cast<double*>(in.workspace + at.level_sums) + 2 * Index{ctx.block()} * in.net.levels;
    by_level(
        ctx, s, 1, 0.0, [&](int row, int) { return s.loss[row]; },
        [&](int l, int, double sum, int count) {
          sums[2 * l] = first == 0 ? sum : sums[2 * l] + sum;
          sums[2 * l + 1] = first == 0 ? count : sums[2 * l + 1] + count;
        });
  }

  /// store(level, column, sum, count) of the tile's rows at each level: of value(row, column), in the rows' order.
  template <class Ctx, class T, class Value, class Store>
  TWEEDIE_KERNEL void by_level(Ctx& ctx, const Shared& s, int columns, T zero, Value value, Store store) const {
    const int rows = valid(ctx);
    for (int n = ctx.thread(); n < columns; n += Tile::kThreads) {
      for (int l = 0, place = 0; l < in.net.levels; ++l) {
        const int before = place;
        T sum = zero;
        for (; place < rows && s.level[s.order[place]] == l; ++place) sum += value(s.order[place], n);
        store(l, n, sum, place - before);
      }
    }
  }
  /// The column sums of dz into the slot's.
  template <class Ctx>
  TWEEDIE_KERNEL void bias_gradient(Ctx& ctx, const Shared& s, int layer, const float* dz) const {
    float* const sums = in.workspace + at.bias_sums + Index{ctx.block()} * at.bias_count + at.bias_sum[layer];
    const int columns = in.net.layer[layer].out;
    if (layer == 0) {
      return by_level(
          ctx, s, columns, 0.0f, [&](int row, int n) { return dz[row * ld + n]; },
          [&](int l, int n, float sum, int) {
            float& to = sums[Index{l} * columns + n];
            to = first == 0 ? sum : to + sum;
          });
    }
    for (int n = ctx.thread(); n < columns; n += Tile::kThreads) {
      float sum = 0;
      for (int row = 0; row < Tile::kRows; ++row) sum += dz[row * ld + n];
      sums[n] = first == 0 ? sum : sums[n] + sum;
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL void fetch(Ctx& ctx, const Phase& now, int column, int k, float* to) const {
    const MlpLayer& layer = in.net.layer[now.layer];
    if (now.back) {
      fetch_tile<Tile::kDepth, Tile::kCols, Tile::kThreads>(ctx, layer.weight + Index{k} * layer.in + column, layer.in,
                                                            layer.out - k, layer.in - column, to, kBackLd);
    } else {
      fetch_tile<Tile::kCols, Tile::kDepth, Tile::kThreads>(ctx, layer.weight + Index{column} * layer.in + k, layer.in,
                                                            layer.out - column, layer.in - k, to, Tile::kWeightLd);
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    float* const memory = ctx.template dynamic_shared<float>();
    float* const weights = memory + 2 * Tile::kRows * ld;
    double* const row_losses = reinterpret_cast<double*>(weights + 2 * Tile::kStage);
    int* const levels = reinterpret_cast<int*>(row_losses + Tile::kRows);
    const Shared s = {memory, memory + Tile::kRows * ld, weights, row_losses, levels, levels + Tile::kRows};
    const int warp = ctx.thread() / 32, first_row = warp / Tile::kColWarps * Tile::kRowTiles * 16;
    const int first_col = warp % Tile::kColWarps * Tile::kColTiles * 8, phases = 2 * in.net.layers - 1;
    float sum[Tile::kRowTiles][Tile::kColTiles][4];
    int p = 0, column = 0, k = 0, stage = 0;
    fetch(ctx, phase_of(0), 0, 0, s.weights);
    ctx.commit_async();
    load(ctx, s);
    while (p < phases) {
      const Phase now = phase_of(p);
      const bool last_k = k + Tile::kDepth >= now.depth, last_column = column + Tile::kCols >= now.width;
      const int next_k = last_k ? 0 : k + Tile::kDepth, next_p = last_k && last_column ? p + 1 : p;
      const int next_column = !last_k ? column : last_column ? 0 : column + Tile::kCols;
      if (next_p < phases) fetch(ctx, phase_of(next_p), next_column, next_k, s.weights + (stage ^ 1) * Tile::kStage);
      ctx.commit_async();
      ctx.template wait_async<1>();
      ctx.sync();
      if (now.back && k == 0 && column == 0) bias_gradient(ctx, s, now.layer, left(s, p));
      if (k == 0) clear(sum);
      const float* const a = left(s, p) + k;
      const float* const w = s.weights + stage * Tile::kStage;
      const int depth = last_k ? round_up8(now.depth - k) : Tile::kDepth;
      const auto a_of = [&](int row, int at_k) { return a[row * ld + at_k]; };
      if (now.back) {
        accumulate<P>(
            ctx, depth, first_row, Tile::kRows, first_col, now.width - column, a_of,
            [&](int at_k, int n) { return w[at_k * kBackLd + n]; }, sum);
      } else {
        accumulate<P>(
            ctx, depth, first_row, Tile::kRows, first_col, now.width - column, a_of,
            [&](int at_k, int n) { return w[n * Tile::kWeightLd + at_k]; }, sum);
      }
      if (last_k) {
        each_element(ctx.lane(), first_row, column + first_col, sum, [&](int row, int n, float value) {
          if (n < round_up8(now.width)) finish(ctx, s, p, now, row, n, value);
        });
      }
      ctx.sync();
      if (next_p == in.net.layers && p < next_p) loss(ctx, s, right(s, p));
      p = next_p, column = next_column, k = next_k, stage ^= 1;
    }
    bias_gradient(ctx, s, 0, left(s, p));
  }
};

// ---- the weights' gradient of a chunk

template <class Tile, Precision P>
struct MlpGradientWeights {
  // Both operands are read along their rows, one of the batch each: leading dimensions of 8 mod 32.
  static constexpr int kLeftLd = Tile::kRows + 8, kRightLd = Tile::kCols + 8;
  static constexpr int kStage = Tile::kDepth * (kLeftLd + kRightLd), kSharedBytes = 4 * 2 * kStage;
  Mlp net;
  GradientLayout at;
  float* workspace;
  int rows;    // of the batch in this chunk
  bool fresh;  // the first chunk

  TWEEDIE_HOST_DEVICE static int row_tiles(const MlpLayer& layer) { return (layer.out + Tile::kRows - 1) / Tile::kRows; }
  TWEEDIE_HOST_DEVICE static int tiles(const MlpLayer& layer) {
    return row_tiles(layer) * ((layer.in + Tile::kCols - 1) / Tile::kCols);
  }

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    float* const memory = ctx.template dynamic_shared<float>();
    const int split = ctx.block() % at.splits;
    int i = 0, tile = ctx.block() / at.splits;
    for (; tile >= tiles(net.layer[i]); ++i) tile -= tiles(net.layer[i]);
    const MlpLayer& layer = net.layer[i];
    const int row0 = tile % row_tiles(layer) * Tile::kRows, column0 = tile / row_tiles(layer) * Tile::kCols;
    const int begin = split * at.split_rows, end = begin + at.split_rows < rows ? begin + at.split_rows : rows;
    const float* const dz = workspace + at.slope[i] + row0;
    const float* const h = workspace + at.input[i] + column0;
    const auto fetch = [&](int b, float* to) {
      fetch_tile<Tile::kDepth, Tile::kRows, Tile::kThreads>(ctx, dz + Index{b} * at.out_ld[i], at.out_ld[i], end - b,
                                                            at.out_ld[i] - row0, to, kLeftLd);
      fetch_tile<Tile::kDepth, Tile::kCols, Tile::kThreads>(ctx, h + Index{b} * at.in_ld[i], at.in_ld[i], end - b,
                                                            at.in_ld[i] - column0, to + Tile::kDepth * kLeftLd, kRightLd);
    };
    const int warp = ctx.thread() / 32, first_row = warp / Tile::kColWarps * Tile::kRowTiles * 16;
    const int first_col = warp % Tile::kColWarps * Tile::kColTiles * 8;
    float sum[Tile::kRowTiles][Tile::kColTiles][4];
    clear(sum);
    if (begin < end) fetch(begin, memory);
    ctx.commit_async();
    for (int b = begin, stage = 0; b < end; b += Tile::kDepth, stage ^= 1) {
      if (b + Tile::kDepth < end) fetch(b + Tile::kDepth, memory + (stage ^ 1) * kStage);
      ctx.commit_async();
      ctx.template wait_async<1>();
      ctx.sync();
      const float *const a = memory + stage * kStage, *const w = a + Tile::kDepth * kLeftLd;
      const int depth = end - b < Tile::kDepth ? round_up8(end - b) : Tile::kDepth;
      accumulate<P>(
          ctx, depth, first_row, layer.out - row0, first_col, layer.in - column0,
          [&](int row, int at_k) { return a[at_k * kLeftLd + row]; }, [&](int at_k, int n) { return w[at_k * kRightLd + n]; },
          sum);
      ctx.sync();
    }
    float* const to = workspace + at.weight_sums + split * at.weight_count + at.weight_sum[i];
    each_element(ctx.lane(), row0 + first_row, column0 + first_col, sum, [&](int row, int column, float value) {
      if (row >= layer.out || column >= layer.in) return;
      float& place = to[Index{row} * layer.in + column];
      place = fresh ? value : place + value;
    });
  }
};

/// The gradient: of each number the sum of its parts, in their order.
struct MlpGradientReduce {
  MlpGradientInput in;
  GradientLayout at;

  template <class T>
  TWEEDIE_KERNEL static T sum(const T* from, int count, Index stride) {
    T total = from[0];
    for (int i = 1; i < count; ++i) total += from[i * stride];
    return total;
  }
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index levels = in.net.levels;
    grid_stride(ctx, at.weight_count + at.bias_count + 2 * levels, [&](Index e) {
      int i = in.net.layers - 1;
      if (e < at.weight_count) {
        while (e < at.weight_sum[i]) --i;
        const Index place = e - at.weight_sum[i], row = place / in.net.layer[i].in;
        in.gradient.weight[i][row * in.gradient.stride[i] + place % in.net.layer[i].in] =
            sum(in.workspace + at.weight_sums + e, at.splits, at.weight_count);
        return;
      }
      e -= at.weight_count;
      if (e < at.bias_count) {
        while (e < at.bias_sum[i]) --i;
        in.gradient.bias[i][e - at.bias_sum[i]] = sum(in.workspace + at.bias_sums + e, at.slots, at.bias_count);
        return;
      }
      e -= at.bias_count;
      in.level_losses[e] = sum(reinterpret_cast<const double*>(in.workspace + at.level_sums) + e, at.slots, 2 * levels);
    });
  }
};

// ---- launchers

/// Bytes of shared memory that MlpGradientRows takes.
template <class Tile>
Index mlp_gradient_shared_bytes(int width) {
  return mlp_shared_bytes<Tile>(width) + Tile::kRows * static_cast<Index>(sizeof(double) + 2 * sizeof(int));
}

/// The widest layer, after a look at the network and the batch.
inline int check_mlp_gradient(const char* function, const Mlp& net, const MlpBatch& batch) {
  const int width = check_mlp(function, net);
  check(net.scale == nullptr, function, ": the network has a scale of its outputs; give it by row, in the batch");
  check(batch.rows >= 1 && batch.rows < Index{1} << 31, function, ": ", batch.rows, " rows; give 1 to 2^31 - 1");
  check(batch.x != nullptr && batch.eps != nullptr && batch.level != nullptr, function,
        ": x, eps or level is a null pointer; only scale and weight may be one");
  check(batch.code == nullptr, function, ": the batch has a code; this kernel takes first biases by level");
  return width;
}

inline int check_mlp_gradient(const char* function, const MlpGradientInput& k) {
  check(k.losses != nullptr && k.level_losses != nullptr && k.workspace != nullptr, function,
        ": losses, level_losses or workspace is a null pointer");
  return check_mlp_gradient(function, k.net, k.batch);
}

/// visit(tile of rows, tile of dW) for a network, a batch's size and the shared memory that a block may have.
template <class Visit>
auto with_gradient_tiles(int width, Index rows, int shared_bytes, Visit visit) {
  if (width <= 64) return visit(MlpTileSmall{}, WeightTile32{});
  const bool few = rows <= kGradientSlots * Index{MlpTile16::kRows};
  if (few || mlp_gradient_shared_bytes<MlpTile64>(width) > shared_bytes) return visit(MlpTile16{}, WeightTile128{});
  return visit(MlpTile64{}, WeightTile128{});
}

/// Floats of workspace for a batch.
inline Index mlp_gradient_workspace_floats(const Mlp& net, const MlpBatch& batch, int shared_bytes = kMaxSharedBytes) {
  const int width = check_mlp_gradient("cuda::mlp_gradient_workspace_floats", net, batch);
  return with_gradient_tiles(width, batch.rows, shared_bytes,
                             [&](auto tile, auto) { return mlp_gradient_layout(net, batch.rows, decltype(tile)::kRows).size; });
}

template <class Tile, class WeightTile, Precision P, class Launch>
void mlp_gradient_tiled(Launch&& launch, const MlpGradientInput& k) {
  const int width = check_mlp_gradient("cuda::mlp_gradient", k);
  const Index bytes = mlp_gradient_shared_bytes<Tile>(width), rows = k.batch.rows;
  check(bytes <= kMaxSharedBytes, "cuda::mlp_gradient: width ", width, " needs ", bytes,
        " bytes of shared memory, a block has 232448; train on the CPU (--device cpu)");
  const GradientLayout at = mlp_gradient_layout(k.net, rows, Tile::kRows);
  using Weights = MlpGradientWeights<WeightTile, P>;
  int weight_tiles = 0;
  for (int i = 0; i < k.net.layers; ++i) weight_tiles += Weights::tiles(k.net.layer[i]);
  for (Index first = 0; first < rows; first += at.chunk()) {
    const int now = static_cast<int>(rows - first < at.chunk() ? rows - first : at.chunk());
    launch("mlp_gradient_rows", (now + Tile::kRows - 1) / Tile::kRows, Tile::kThreads, static_cast<int>(bytes),
           MlpGradientRows<Tile, P>{k, at, mlp_ld(width), first});
    launch("mlp_gradient_weights", weight_tiles * at.splits, WeightTile::kThreads, Weights::kSharedBytes,
           Weights{k.net, at, k.workspace, now, first == 0});
  }
  launch("mlp_gradient_reduce", blocks_for(at.weight_count + at.bias_count + 2 * k.net.levels), kThreads, 0,
         MlpGradientReduce{k, at});
}

template <class Launch>
void mlp_gradient(Launch&& launch, const MlpGradientInput& k, Precision precision, int shared_bytes = kMaxSharedBytes) {
  with_gradient_tiles(check_mlp_gradient("cuda::mlp_gradient", k.net, k.batch), k.batch.rows, shared_bytes,
                      [&](auto tile, auto weight_tile) {
                        using Tile = decltype(tile);
                        using WeightTile = decltype(weight_tile);
                        if (precision == Precision::fp32) return mlp_gradient_tiled<Tile, WeightTile, Precision::fp32>(launch, k);
                        if (precision == Precision::tf32) return mlp_gradient_tiled<Tile, WeightTile, Precision::tf32>(launch, k);
                        check(precision == Precision::bf16, "cuda::mlp_gradient: precision ", kernels::name(precision),
                              "; training on a GPU runs in fp32, tf32 or bf16");
                        mlp_gradient_tiled<Tile, WeightTile, Precision::bf16>(launch, k);
                      });
}

}  // namespace tweedie::kernels::cuda
