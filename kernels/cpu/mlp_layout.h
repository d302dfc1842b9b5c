// mlp_layout.h - how a perceptron's weights are packed for a dispatch target, and its activations laid out.
//
//   a layer:  panels (out / cols, in, cols), columns beyond out zero; then, but for the first layer, its bias, zeros beyond out
//   a last layer of few outputs (thin):  rows (out, in), zeros beyond in; then its bias
// An activation has a row for each sample: `width` numbers in whole panels and one vector more, so that the rows of a tile do not
// fall on the same few sets of the cache.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "tweedie/core/check.h"
#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cpu {

inline void check_net(const Mlp& net, const char* who) {
  check(net.layers >= 1 && net.layers <= Mlp::kMaxLayers, who, ": ", net.layers, " layers; give 1 to ", Mlp::kMaxLayers);
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    check(layer.in >= 1 && layer.out >= 1, who, ": layer ", i, " is ", layer.out, " x ", layer.in, "; sizes are at least 1");
    const int before = i == 0 ? layer.in : net.layer[i - 1].out;
    check(before == layer.in, who, ": layer ", i, " takes ", layer.in, " numbers, the one before it gives ", before);
  }
}

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

  bool in_rows(const Mlp& net, int i) const { return thin && i == net.layers - 1; }
  /// Panels of layer i; the rows of a thin one count as one.
  Index panels(const Mlp& net, int i) const { return in_rows(net, i) ? 1 : width[i] / cols; }
};

/// A panel of layer i's weights, and with the first of them the layer's bias.
inline void pack_panel(const Mlp& net, const MlpLayout& layout, const TargetTable& target, int i, Index panel, float* packed) {
  const MlpLayer& layer = net.layer[i];
  float *const weight = packed + layout.weight[i], *const bias = packed + layout.bias[i];
  if (layout.in_rows(net, i)) {
    const Index padded = round_up(layer.in, layout.lanes);
    for (Index n = 0; n < layer.out; ++n) {
      std::fill(std::copy_n(layer.weight + n * layer.in, layer.in, weight + n * padded), weight + (n + 1) * padded, 0.0f);
    }
  } else {
    const Index j = panel * layout.cols;
    target.single.pack_right(std::min<Index>(layout.cols, layer.out - j), layer.in, layer.weight + j * layer.in, layer.in, 1,
                             weight + j * layer.in);
  }
  if (panel == 0 && i > 0) std::fill(std::copy_n(layer.bias, layer.out, bias), bias + layout.width[i], 0.0f);
}

}  // namespace tweedie::kernels::cpu
