// mlp_trace.h - a perceptron and the trace of its Jacobian in double: forward mode in all columns at once.
//
//   z = x W_0^T + b_0(r),          t_d = silu'(z) * W_0[:, d]                  for d = 0 .. D - 1
//   z <- silu(z) W_i^T + b_i,      t_d <- silu'(z) * (t_d W_i^T)               hidden layers
//   out = silu(z) W^T + b,         trace(r) = sum_d t_d(r, :) . W[d, :]
//
// A row's value and its D tangents go through each layer in one product: as many products as the tape's D passes back from the
// outputs take, without its copies and its packing of every weight once a pass. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "tweedie/core/buffer.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/detail/linear_rows.h"
#include "tweedie/models/parameter_layout.h"

namespace tweedie::detail {

/// `layers` linear layers, weight and bias in the tensors first, first + 1, first + 2, ... of the flat parameters; of the first
/// weight the columns [0, dim), and its bias is the caller's.
struct TracedMlp {
  const ParameterLayout& layout;
  const double* flat;
  Index first, layers, dim;

  const ParameterTensor& weight(Index i) const { return layout[first + 2 * i]; }
  const double* weights(Index i) const { return flat + weight(i).offset; }
  const double* bias(Index i) const { return flat + layout[first + 2 * i + 1].offset; }
};

/// a . b in eight lanes, so that no sum waits for the one before.
inline double dot(Index n, const double* a, const double* b) {
  constexpr Index kLanes = 8;
  double lane[kLanes] = {};
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (Index l = 0; l < kLanes; ++l) lane[l] += a[i + l] * b[i + l];
  }
  for (Index l = 0; i < n; ++i, ++l) lane[l] += a[i] * b[i];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/// out (rows, D) and trace (rows) of x (rows, D); bias(r): the first layer's, (H). A row's bits depend on that row alone.
template <class Bias>
void mlp_trace(const TracedMlp& net, Index rows, const double* x, Index ldx, const Bias& bias, double* out, double* trace) {
  constexpr Index kStacked = 384;  // values and tangents of one product: two activations of 256 columns are 1.5 MiB
  const Index dim = net.dim, last = net.layers - 1, step = std::clamp<Index>(kStacked / (1 + dim), 1, kBlockRows);
  Index widest = 0;
  for (Index i = 0; i < last; ++i) widest = std::max(widest, net.weight(i).rows);
  static thread_local Buffer<double> memory;
  const Index activation = (1 + dim) * step * widest;
  if (const Index size = 2 * activation + step * widest; memory.size() < size) memory = Buffer<double>(size);
  double *h = memory.data(), *next = h + activation, *const slope = next + activation;

  for (Index at = 0; at < rows; at += step) {
    const Index n = std::min(step, rows - at), hidden = net.weight(0).rows, ld0 = net.weight(0).cols;
    // silu of the n values in `z`, its slope beside.
    const auto activate = [&](Index width, double* z) {
      std::fill_n(slope, n * width, 1.);
      kernels::silu_gradient(n * width, z, slope, slope);
      kernels::silu(n * width, z, z);
    };
    linear_rows(
        n, dim, hidden, x + at * ldx, ldx, net.weights(0), ld0, [&](Index r) { return bias(at + r); }, h);
    activate(hidden, h);
    for (Index d = 0; d < dim; ++d) {
      double *const t = h + (1 + d) * n * hidden, *const column = next;
      for (Index j = 0; j < hidden; ++j) column[j] = net.weights(0)[j * ld0 + d];
      for (Index r = 0; r < n; ++r) {
        for (Index j = 0; j < hidden; ++j) t[r * hidden + j] = slope[r * hidden + j] * column[j];
      }
    }
    for (Index i = 1; i < last; ++i) {
      const ParameterTensor& w = net.weight(i);
      kernels::gemm({.m = (1 + dim) * n, .n = w.rows, .k = w.cols, .transpose_b = true}, h, w.cols, net.weights(i), w.cols, next,
                    w.rows);
      for (Index r = 0; r < n; ++r) {
        for (Index j = 0; j < w.rows; ++j) next[r * w.rows + j] += net.bias(i)[j];
      }
      activate(w.rows, next);
      for (Index d = 0; d < dim; ++d) {
        double* const t = next + (1 + d) * n * w.rows;
        for (Index k = 0; k < n * w.rows; ++k) t[k] *= slope[k];
      }
      std::swap(h, next);
    }
    const Index width = net.weight(last).cols;
    linear_rows(
        n, width, dim, h, width, net.weights(last), width, [&](Index) { return net.bias(last); }, out + at * dim);
    for (Index r = 0; r < n; ++r) {
      double sum = 0;
      for (Index d = 0; d < dim; ++d) sum += dot(width, h + ((1 + d) * n + r) * width, net.weights(last) + d * width);
      trace[at + r] = sum;
    }
  }
}

}  // namespace tweedie::detail
