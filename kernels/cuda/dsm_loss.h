// dsm_loss.h - denoising score matching: loss and gradient in one pass over the data.
//
//   loss = 1/(2B) sum_b w_b |u_b + eps_b|^2,   du = w (u + eps) / B        [Vincent 2011; Song & Ermon 2019, Eq. 5]
//   u = sigma s, what the network computes, and eps, du (B, D); w (B): 1 (nullptr) for lambda = sigma^2, 1 / sigma^2 for plain
//
// Ladder: DsmLoss     a block is a chunk of 4096 elements: 16 a thread, a butterfly over each warp, the warps in order
//         DsmLossSum  one block adds the chunks' sums in double. Chunks are cut by position alone, nothing is added by atomics:
//         the
//                     bits depend neither on the launch nor on the order in which blocks run.
// Tolerance: du 4u |du| (sum, weight, 1/B rounded, product); loss 32u loss: all terms are positive, each square has 4 roundings,
// at most 16 + 5 + 8 additions in float follow, the rest is double. Predicted on an H200 (4.3 TB/s; never measured): 12 bytes an
// element (2 read, 1 written), 5 flops; B = 2^20, D = 2: 25 MB, 5.9 us; the second launch reads 2 kB. SPDX-License-Identifier:
// MIT
#pragma once

#include "tweedie/core/check.h"
#include "tweedie/kernels/cuda/ptx.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cuda {

/// The sum over the block's threads, a power of two of warps, in one fixed order; valid in thread 0.
template <int Threads, class T, class Ctx>
TWEEDIE_KERNEL T block_sum(Ctx& ctx, T value) {
  TWEEDIE_SHARED(T, warps, Threads / 32);
  for (int bits = 16; bits > 0; bits /= 2) value += ctx.shuffle_xor(~0U, value, bits);
  if (ctx.lane() == 0) warps[ctx.thread() / 32] = value;
  ctx.sync();
  T sum = 0;
  if (ctx.thread() == 0) {
    for (int i = 0; i < Threads / 32; ++i) sum += warps[i];
  }
  return sum;
}

struct DsmLoss {
  static constexpr int kThreads = 256, kEach = 16, kChunk = kThreads * kEach;
  Index batch, dim;
  const float *u, *eps, *weight;
  float *du, *partial;  // partial (chunks)

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const float mean = 1 / static_cast<float>(batch);
    const Index first = Index{ctx.block()} * kChunk + ctx.thread();
    float sum = 0;
    for (int j = 0; j < kEach; ++j) {
      const Index i = first + j * kThreads;
      if (i < batch * dim) {
        const float residual = u[i] + eps[i], weighted = weight == nullptr ? residual : weight[i / dim] * residual;
        du[i] = weighted * mean;
        sum += weighted * residual;
      }
    }
    sum = block_sum<kThreads>(ctx, sum);
    if (ctx.thread() == 0) partial[ctx.block()] = sum;
  }
};

struct DsmLossSum {
  static constexpr int kThreads = 256;
  Index chunks, batch;
  const float* partial;
  double* loss;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    double sum = 0;
    for (Index i = ctx.thread(); i < chunks; i += kThreads) sum += partial[i];
    sum = block_sum<kThreads>(ctx, sum);
    if (ctx.thread() == 0) *loss = sum / (2 * static_cast<double>(batch));
  }
};

/// Floats that `partial` needs.
inline Index dsm_loss_chunks(Index batch, Index dim) { return (batch * dim + DsmLoss::kChunk - 1) / DsmLoss::kChunk; }

/// loss is one number of the device's. u, eps, du may not overlap except du == u or du == eps.
template <class Launch>
void dsm_loss(Launch&& launch, const DsmLoss& k, double* loss) {
  check(k.batch >= 1 && k.dim >= 1, "cuda::dsm_loss: (B, D) = (", k.batch, ", ", k.dim,
        "); a mean needs at least one row of one");
  check(k.batch <= Index{1} << 40 && k.dim <= (Index{1} << 42) / k.batch, "cuda::dsm_loss: (B, D) = (", k.batch, ", ", k.dim,
        ") has more than 2^42 elements; cut the batch");
  check(k.u != nullptr && k.eps != nullptr && k.du != nullptr && k.partial != nullptr && loss != nullptr,
        "cuda::dsm_loss: u, eps, du, partial or loss is a null pointer; only weight may be one");
  const Index chunks = dsm_loss_chunks(k.batch, k.dim);
  launch("dsm_loss", static_cast<int>(chunks), DsmLoss::kThreads, 0, k);
  launch("dsm_loss_sum", 1, DsmLossSum::kThreads, 0, DsmLossSum{chunks, k.batch, k.partial, loss});
}

}  // namespace tweedie::kernels::cuda
