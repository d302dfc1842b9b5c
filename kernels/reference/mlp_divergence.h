// mlp_divergence.h - a perceptron and the trace of its Jacobian, or one product with it, as the definitions read.
//   t_0 = v,   z_i = h_i W_i^T + b_i,   h_{i+1} = silu(z_i),   t_{i+1} = silu'(z_i) (W_i t_i);   of the last layer z and W t
//   alone out = z,   J v = W t,   trace J = sum_d (J e_d)_d x, out, probe, jvp (B, D)   level (B)   W_i (out, in)   b_0 (levels,
//   out), b_i (out)   divergence (B)
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/reference/silu.h"

namespace tweedie::kernels::reference {

/// F(x) and J(x) v of one row.
template <class T>
void mlp_tangent(const cuda::MlpD& net, int level, std::vector<T> h, std::vector<T> t, T* out, T* jv) {
  for (int i = 0; i < net.layers; ++i) {
    const cuda::MlpLayerD& layer = net.layer[i];
    const double* bias = layer.bias + (i == 0 ? Index{level} * layer.out : 0);
    std::vector<T> z(bias, bias + layer.out), dz(z.size());
    for (std::size_t n = 0; n < z.size(); ++n) {
      for (std::size_t k = 0; k < h.size(); ++k) {
        const T w = layer.weight[n * h.size() + k];
        z[n] += w * h[k], dz[n] += w * t[k];
      }
    }
    h = z, t = dz;
    if (i + 1 < net.layers) {
      silu(layer.out, z.data(), h.data());
      silu_gradient(layer.out, z.data(), dz.data(), t.data());
    }
  }
  for (std::size_t n = 0; n < h.size(); ++n) out[n] = h[n], jv[n] = t[n];
}

/// level (B) names each row's first bias. With `probe` jvp is written, without divergence.
template <class T>
void mlp_divergence(const cuda::MlpD& net, Index batch, const T* x, const int* level, const T* probe, T* out, T* jvp,
                    T* divergence) {
  const Index dim = net.layer[0].in;
  std::vector<T> column(static_cast<std::size_t>(dim));
  for (Index b = 0; b < batch; ++b) {
    const std::vector<T> row(x + b * dim, x + (b + 1) * dim);
    if (probe != nullptr) {
      mlp_tangent(net, level[b], row, {probe + b * dim, probe + (b + 1) * dim}, out + b * dim, jvp + b * dim);
      continue;
    }
    divergence[b] = 0;
    for (std::size_t d = 0; d < row.size(); ++d) {
      std::vector<T> unit(row.size());
      unit[d] = 1;
      mlp_tangent(net, level[b], row, unit, out + b * dim, column.data());
      divergence[b] += column[d];
    }
  }
}

}  // namespace tweedie::kernels::reference
