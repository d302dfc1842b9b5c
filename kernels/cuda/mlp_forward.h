// mlp_forward.h - the folded network's forward pass in one launch.   Reference: kernels/reference/mlp_forward.h
//
//   out = scale_l (h W^T + b),  h = silu(... silu(x W_0^T + b_{0,l}) ...)       x (B, D)   W (out, in)   l the row's level
//
// Ladder: MlpForwardNaive   a block is a row, a thread a unit; fp32 FMA; reads every weight once for every row
//         MlpForwardPacked  a tile of rows stays in shared memory through all layers, in place; weights packed in the order of
//                           mma's fragments come by cp.async into two buffers, one filled while the other is multiplied
//                           (mlp_packed.h, mlp_block.h); mma.m16n8k8 in tf32, mma.m16n8k16 in bf16
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

// ---- launchers: launch(name, grid, block, shared bytes, body); nothing is launched for no rows ----

template <class Launch>
void mlp_forward_naive(Launch&& launch, const MlpForwardInput& k) {
  const int width = check_mlp_forward("cuda::mlp_forward_naive", k);
  check(Index{8} * width <= kMaxSharedBytes, "cuda::mlp_forward_naive: width ", width, " does not fit shared memory (29056)");
  if (k.batch > 0) {
    launch("mlp_forward_naive", static_cast<int>(k.batch), MlpForwardNaive::kThreads, 8 * width, MlpForwardNaive{k, width});
  }
}

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
  const PackedMlp packed =  // for no rows, only whether the network fits is looked at
      k.batch == 0 ? packed_layout<P>(k.net, nullptr) : pack_mlp<P>("cuda::mlp_forward", launch, k.net, resources);
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

/// The network for all rows, after a launch that packs the weights; fp32 means three tf32 products of split operands. Throws
/// UsageError for shapes, pointers, scratch memory that do not fit.
template <class Launch>
void mlp_forward(Launch&& launch, const MlpForwardInput& k, Precision precision, const Resources& resources) {
  with_precision(precision, [&](auto p) { mlp_forward_packed<p.value>(launch, k, resources); });
}

}  // namespace tweedie::kernels::cuda
