// mlp_forward.h - the folded multilayer perceptron, as the definition reads.
//   h_0 = x,   h_{i+1} = silu(h_i W_i^T + b_i) for the hidden layers,   out = scale (h W^T + b)
//   x (B, D)   W_i (out, in)   b_0 (levels, out): the level's embedding folded in; b_i (out)   scale (levels)   out (B, outputs)
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/kernels/reference/silu.h"

namespace tweedie::kernels::reference {

/// level (B) names each row's first bias and scale.
template <class T>
void mlp_forward(const Mlp& net, Index batch, const T* x, const int* level, T* out) {
  for (Index b = 0; b < batch; ++b) {
    std::vector<T> h(x + b * net.layer[0].in, x + (b + 1) * net.layer[0].in);
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const float* bias = layer.bias + (i == 0 ? Index{level[b]} * layer.out : 0);
      std::vector<T> next(static_cast<std::size_t>(layer.out));
      for (int n = 0; n < layer.out; ++n) {
        T sum = bias[n];
        for (int k = 0; k < layer.in; ++k) sum += h[static_cast<std::size_t>(k)] * layer.weight[Index{n} * layer.in + k];
        next[static_cast<std::size_t>(n)] = sum;
      }
      if (i + 1 < net.layers) silu(layer.out, next.data(), next.data());
      h = next;
    }
    const T scale = net.scale == nullptr ? 1 : net.scale[level[b]];
    for (std::size_t n = 0; n < h.size(); ++n) out[static_cast<std::size_t>(b) * h.size() + n] = scale * h[n];
  }
}

}  // namespace tweedie::kernels::reference
