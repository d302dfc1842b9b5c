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
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/cpu/workspace.h"
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

inline constexpr Index kMlpBlock = 128;  // rows that go through all layers together

/// The first layer's bias of each row, padded to `width`; its stride, 0 where all rows have the same.
inline Index first_bias(const Mlp& net, Index width, Index rows, const int* level, float* to) {
  const Index out = net.layer[0].out, stride = level == nullptr ? 0 : width;
  for (Index r = 0; r < (level == nullptr ? 1 : rows); ++r) {
    const float* from = net.layer[0].bias + (level == nullptr ? 0 : level[r] * out);
    std::fill(std::copy_n(from, out, to + r * stride), to + r * stride + width, 0.0f);
  }
  return stride;
}

/// out (rows, outputs) = each row's scale times `from`, which may be out.
inline void scale_outputs(const Mlp& net, Index rows, const int* level, const float* from, Index ld, float* out, Index ldo) {
  const Index outputs = net.layer[net.layers - 1].out;
  for (Index r = 0; r < rows; ++r) {
    const float scale = net.scale == nullptr ? 1.0f : net.scale[level == nullptr ? 0 : level[r]];
    for (Index n = 0; n < outputs; ++n) out[r * ldo + n] = scale * from[r * ld + n];
  }
}

/// forward.block(rows, x, ldx, level, out, ldo, scratch) for the blocks of a batch, on the library's threads.
template <class Forward>
void for_mlp_blocks(const Forward& forward, Index batch, const float* x, Index ldx, const int* level, float* out, Index ldo) {
  parallel_for(batch, kMlpBlock, [&](Index begin, Index end) {
    Workspace<float, 2> scratch(forward.memory());
    for (Index b = begin; b < end; b += kMlpBlock) {
      forward.block(std::min(kMlpBlock, end - b), x + b * ldx, ldx, level == nullptr ? nullptr : level + b, out + b * ldo, ldo,
                    scratch.data());
    }
  });
}

}  // namespace tweedie::kernels::cpu
