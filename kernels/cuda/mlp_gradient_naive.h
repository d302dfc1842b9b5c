// mlp_gradient_naive.h - mlp_gradient.h's loss and gradient as one would write them first.
//
//   MlpGradientNaive     a block is a row, a thread a unit: forward, loss and back through global memory; fp32 FMA
//   MlpGradientNaiveSum  a thread is a weight: dW(n, k) = sum_b dz(b, n) h(b, k), row after row
// To read, and to test the fast kernels against. Every row reads every weight twice: 2 x 528 kB from L2 at width 256; 2^20 rows
// 1.1 TB, 0.2 s, on an H200 (never measured). SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_gradient.h"

namespace tweedie::kernels::cuda {

/// A row of the workspace: h_0 = x, h_1, ..., then z_i, which become dz_i.
struct NaiveLayout {
  Index input[Mlp::kMaxLayers], slope[Mlp::kMaxLayers];
  Index size;
};

struct MlpGradientNaive : MlpGradientInput {
  static constexpr int kThreads = 128;
  NaiveLayout at;

  template <class Ctx>
  TWEEDIE_KERNEL void forward(Ctx& ctx, Index b, float* row) const {
    for (int d = ctx.thread(); d < net.layer[0].in; d += kThreads) row[at.input[0] + d] = batch.x[b * net.layer[0].in + d];
    ctx.sync();
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const float* const h = row + at.input[i];
      for (int n = ctx.thread(); n < layer.out; n += kThreads) {
        float z = layer.bias[(i == 0 ? Index{batch.level[b]} * layer.out : 0) + n], slope;
        for (int k = 0; k < layer.in; ++k) z = math::fma(layer.weight[Index{n} * layer.in + k], h[k], z);
        row[at.slope[i] + n] = z;
        if (i + 1 < net.layers) row[at.input[i + 1] + n] = silu_approx(ctx, z, slope);
      }
      ctx.sync();
    }
  }
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index b = ctx.block();
    float* const row = workspace + b * at.size;
    forward(ctx, b, row);
    if (ctx.thread() == 0) {
      const float scale = batch.scale == nullptr ? 1.0f : batch.scale[b], w = batch.weight == nullptr ? 1.0f : batch.weight[b];
      const int dim = net.layer[net.layers - 1].out;
      float* const u = row + at.slope[net.layers - 1];
      double sum = 0;
      for (int d = 0; d < dim; ++d) {
        const float residual = math::fma(scale, u[d], batch.eps[b * dim + d]);
        sum += static_cast<double>(residual) * static_cast<double>(residual);
        u[d] = w * scale / static_cast<float>(batch.rows) * residual;
      }
      losses[b] = static_cast<float>(0.5 * static_cast<double>(w) * sum);
    }
    ctx.sync();
    for (int i = net.layers - 1; i > 0; --i) {
      const MlpLayer& layer = net.layer[i];
      const float* const dz = row + at.slope[i];
      for (int k = ctx.thread(); k < layer.in; k += kThreads) {
        float sum = 0, slope, &z = row[at.slope[i - 1] + k];
        for (int n = 0; n < layer.out; ++n) sum = math::fma(dz[n], layer.weight[Index{n} * layer.in + k], sum);
        silu_approx(ctx, z, slope);
        z = sum * slope;
      }
      ctx.sync();
    }
  }
};

struct MlpGradientNaiveSum : MlpGradientInput {
  NaiveLayout at;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const Index in = layer.in, out = layer.out;
      grid_stride(ctx, out * in, [&](Index e) {
        float sum = 0;
        for (Index b = 0; b < batch.rows; ++b) {
          const float* const row = workspace + b * at.size;
          sum = math::fma(row[at.slope[i] + e / in], row[at.input[i] + e % in], sum);
        }
        gradient.weight[i][e / in * gradient.stride[i] + e % in] = sum;
      });
      grid_stride(ctx, out * (i == 0 ? net.levels : 1), [&](Index e) {
        float sum = 0;
        for (Index b = 0; b < batch.rows; ++b) {
          if (i > 0 || batch.level[b] == e / out) sum += workspace[b * at.size + at.slope[i] + e % out];
        }
        gradient.bias[i][e] = sum;
      });
    }
    grid_stride(ctx, net.levels, [&](Index l) {
      double sum = 0, count = 0;
      for (Index b = 0; b < batch.rows; ++b) {
        if (batch.level[b] == l) sum += static_cast<double>(losses[b]), ++count;
      }
      level_losses[2 * l] = sum, level_losses[2 * l + 1] = count;
    });
  }
};

inline NaiveLayout mlp_gradient_naive_layout(const Mlp& net) {
  NaiveLayout at = {};
  for (int i = 0; i < net.layers; ++i) {
    at.input[i] = at.size;
    at.slope[i] = at.input[i] + net.layer[i].in;
    at.size = at.slope[i] + net.layer[i].out;
  }
  return at;
}

/// workspace: rows times mlp_gradient_naive_layout(net).size floats.
template <class Launch>
void mlp_gradient_naive(Launch&& launch, const MlpGradientInput& k) {
  check_mlp_gradient("cuda::mlp_gradient_naive", k);
  const NaiveLayout at = mlp_gradient_naive_layout(k.net);
  launch("mlp_gradient_naive", static_cast<int>(k.batch.rows), MlpGradientNaive::kThreads, 0, MlpGradientNaive{k, at});
  Index most = k.net.levels * Index{k.net.layer[0].out};
  for (int i = 0; i < k.net.layers; ++i) {
    const Index size = Index{k.net.layer[i].out} * k.net.layer[i].in;
    most = most < size ? size : most;
  }
  launch("mlp_gradient_naive_sum", blocks_for(most), kThreads, 0, MlpGradientNaiveSum{k, at});
}

}  // namespace tweedie::kernels::cuda
