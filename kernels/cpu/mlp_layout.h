// mlp_layout.h - how a perceptron's weights are packed for a dispatch target, and its activations laid out.
//
//   a layer:  panels (out / cols, in, cols), columns beyond out zero; then, but for the first layer, its bias, zeros beyond out
//   a last layer of few outputs (thin):  rows (out, in), zeros beyond in; then its bias
// An activation has a row for each sample: `width` numbers in whole panels and one vector more, so that the rows of a tile do not
// fall on the same few sets of the cache.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cpu {

inline Index round_up(Index x, Index unit) { return (x + unit - 1) / unit * unit; }

struct MlpLayout {
  static constexpr Index kThinOutputs = 8;

  Index cols, lanes;                  // of the target's tile and vector
  Index weight[Mlp::kMaxLayers];      // where layer i's panels or rows begin
  Index bias[Mlp::kMaxLayers];        // where its bias begins; the first layer's is not packed
  Index width[Mlp::kMaxLayers];       // its outputs, padded
  Index size = 0, activation_ld = 0;  // floats in all; leading dimension of every activation
  bool thin = false;                  // the last layer

  MlpLayout(const Mlp& net, const TargetTable& target) : cols(target.single.tile_cols), lanes(target.mlp.lanes) {
    const int last = net.layers - 1;
    thin = last > 0 && net.layer[last].out <= kThinOutputs;
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const bool rows = thin && i == last;
      width[i] = rows ? layer.out : round_up(layer.out, cols);
      weight[i] = size;
      size += rows ? layer.out * round_up(layer.in, lanes) : layer.in * width[i];
      size = bias[i] = round_up(size, lanes);
      if (i > 0) size = round_up(size + width[i], lanes);
      if (!rows) activation_ld = std::max(activation_ld, width[i] + lanes);
    }
  }
};

}  // namespace tweedie::kernels::cpu
