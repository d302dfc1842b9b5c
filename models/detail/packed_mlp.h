// packed_mlp.h - a network's linear layers as kernels::mlp_forward takes them.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "tweedie/core/matrix.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/parameter_layout.h"

namespace tweedie::detail {

struct PackedMlp {
  kernels::Mlp net;  // its first bias is the caller's to set; no layers where there are more than kernels::Mlp holds
  kernels::Target target = kernels::target();  // that `packed` is for
  kernels::Precision precision = kernels::Precision::fp32;
  Buffer<float> packed;

  PackedMlp() = default;
  /// `layers` linear layers in the tensors first, first + 1 (weight and bias), first + 2, ... of the flat parameters. Of the
  /// first weight the columns [0, dim).
  PackedMlp(const ParameterLayout& layout, const float* flat, Index first, Index layers, Index dim, kernels::Precision arithmetic)
      : precision(arithmetic) {
    if (layers > kernels::Mlp::kMaxLayers) return;
    const ParameterTensor& w = layout[first];
    Matrix from_x(w.rows, dim);
    for (Index r = 0; r < w.rows; ++r) std::copy_n(flat + w.offset + r * w.cols, dim, from_x.row(r).data());
    net.layers = static_cast<int>(layers);
    for (int i = 0; i < net.layers; ++i) {
      const ParameterTensor& weight = layout[first + 2 * i];
      net.layer[i] = {i == 0 ? from_x.data() : flat + weight.offset, flat + layout[first + 2 * i + 1].offset,
                      static_cast<int>(i == 0 ? dim : weight.cols), static_cast<int>(weight.rows)};
    }
    packed = Buffer<float>(kernels::packed_mlp_size(net, precision));
    kernels::pack_mlp(net, packed.data(), precision);
    for (int i = 0; i < net.layers; ++i) net.layer[i].weight = net.layer[i].bias = nullptr;  // the packed ones serve
  }

  /// Whether it is what these weights are packed to for the target in use; one without layers serves any precision.
  bool serves(kernels::Precision wanted) const { return target == kernels::target() && (precision == wanted || !available()); }
  bool available() const { return net.layers > 0; }

  /// out (rows, outputs) of x; bias: `levels` rows of the first layer's; level (rows), or nullptr: all take the first of them.
  void forward(Index rows, const float* x, Index ldx, const float* bias, Index levels, const int* level, float* out) const {
    kernels::Mlp at = net;
    at.layer[0].bias = bias;
    at.levels = static_cast<int>(levels);
    kernels::mlp_forward(at, packed.data(), rows, x, ldx, level, out, at.layer[at.layers - 1].out, precision);
  }
};

}  // namespace tweedie::detail
