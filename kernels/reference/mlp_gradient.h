// mlp_gradient.h - a perceptron's denoising loss and its gradient, as the definitions read.
//   u = scale_b F(x_b),   loss_b = w_b/2 |u_b + eps_b|^2,   gradients of mean_b loss_b
//   with z_i the sums of layer i and dz_i their gradient:   dz_last = w_b scale_b (u + eps) / B
//   dW_i = sum_b dz_i h_i^T,   db_i = sum_b dz_i,   dz_{i-1} = (W_i^T dz_i) silu'(z_{i-1})
//   x, eps (B, D)   level (B)   scale, weight (B) or nullptr: 1   dW_i (out, in)   db_i (out), of the first layer (levels, out)
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/kernels/reference/silu.h"

namespace tweedie::kernels::reference {

/// Gradients are added to what dw and db hold; losses (B).
template <class T>
void mlp_gradient(const Mlp& net, Index batch, const T* x, const int* level, const T* scale, const T* eps, const T* weight,
                  T* losses, std::vector<T>* dw, std::vector<T>* db) {
  for (Index b = 0; b < batch; ++b) {
    std::vector<std::vector<T>> h{{x + b * net.layer[0].in, x + (b + 1) * net.layer[0].in}}, z;
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const float* bias = layer.bias + (i == 0 ? Index{level[b]} * layer.out : 0);
      z.emplace_back(bias, bias + layer.out);
      for (int n = 0; n < layer.out; ++n) {
        for (int k = 0; k < layer.in; ++k) {
          z[static_cast<std::size_t>(i)][static_cast<std::size_t>(n)] +=
              static_cast<T>(layer.weight[Index{n} * layer.in + k]) * h[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)];
        }
      }
      h.push_back(z.back());
      silu(layer.out, h.back().data(), h.back().data());
    }
    const T c = scale == nullptr ? 1 : scale[b], w = weight == nullptr ? 1 : weight[b];
    std::vector<T> dz = z.back();
    losses[b] = 0;
    for (std::size_t d = 0; d < dz.size(); ++d) {
      const T residual = c * dz[d] + eps[static_cast<std::size_t>(b) * dz.size() + d];
      losses[b] += w * residual * residual / 2;
      dz[d] = w * c * residual / static_cast<T>(batch);
    }
    for (int i = net.layers - 1; i >= 0; --i) {
      const MlpLayer& layer = net.layer[i];
      const std::vector<T>& from = h[static_cast<std::size_t>(i)];
      std::vector<T> dh(from.size());
      for (std::size_t n = 0; n < dz.size(); ++n) {
        db[i][(i == 0 ? static_cast<std::size_t>(level[b]) * dz.size() : 0) + n] += dz[n];
        for (std::size_t k = 0; k < from.size(); ++k) {
          dw[i][n * from.size() + k] += dz[n] * from[k];
          dh[k] += dz[n] * static_cast<T>(layer.weight[n * from.size() + k]);
        }
      }
      if (i > 0) silu_gradient(layer.in, z[static_cast<std::size_t>(i) - 1].data(), dh.data(), dh.data());
      dz = dh;
    }
  }
}

}  // namespace tweedie::kernels::reference
