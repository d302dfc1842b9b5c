// mlp_bf16.cpp - the perceptron in bf16: packing its weights in words, and blocks of rows that stay in the cache through all
// layers.
//
//   a layer:  panels (out / cols, parts, depth, cols) of words, columns beyond out zero; then, but for the first layer, its bias
//   a last layer of few outputs (thin):  rows (out, parts, depth) of words; then its bias
// depth counts words (group numbers each) and is padded with zeros as the target wants; parts: the weights' high parts, and where
// a layer takes three products their low parts. An activation's rows are words too; its low parts lie in a plane of their own.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cpu/mlp_bf16.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tweedie/kernels/cpu/bf16.h"
#include "tweedie/kernels/cpu/mlp_layout.h"

namespace tweedie::kernels::cpu {

namespace {

constexpr Index kThinOutputs = 8;
struct Bf16Layout {
  int products[Mlp::kMaxLayers];  // 1, 2 or 3
  Index depth[Mlp::kMaxLayers];   // words of a row that count
  Index width[Mlp::kMaxLayers];   // outputs, in whole panels
  Index weight[Mlp::kMaxLayers], bias[Mlp::kMaxLayers];
  Index size = 0, activation_ld = 0;  // floats in all; leading dimension of every activation
  bool thin = false;                  // the last layer
  int last;

  Bf16Layout(const Bf16Kernels& target, const Mlp& net, Precision precision) : last(net.layers - 1) {
    thin = last > 0 && net.layer[last].out <= kThinOutputs;
    for (int i = 0; i <= last; ++i) {
      const MlpLayer& layer = net.layer[i];
      const bool rows = thin && i == last;
      products[i] = precision == Precision::bf16x3 ? 3 : i == 0 ? 2 : 1;
      depth[i] = round_up(round_up(layer.in, target.group) / target.group, rows ? target.lanes : target.depth);
      width[i] = rows ? layer.out : round_up(layer.out, target.cols);
      weight[i] = size;
      size = bias[i] = round_up(size + parts(i) * depth[i] * width[i], target.lanes);
      if (i > 0) size = round_up(size + width[i], target.lanes);
      // Operands come in whole panels' widths; the last sums are numbers, not words.
      const Index in = round_up(depth[i] * target.group, target.cols) / target.group;
      activation_ld = std::max({activation_ld, in, i < last || !rows ? width[i] / (i < last ? target.group : 1) : 0});
    }
    activation_ld += target.lanes;
  }

  Index parts(int i) const { return products[i] == 3 ? 2 : 1; }
  bool in_rows(int i) const { return thin && i == last; }
};

/// Part `part` of output n's weights from input k on, as a word.
std::uint32_t word(const MlpLayer& layer, int group, Index part, Index n, Index k) {
  const auto number = [&](Index at) {
    if (n >= layer.out || at >= layer.in) return 0.0f;
    const Bf16Parts<float> parts = bf16_parts(layer.weight[n * layer.in + at]);
    return part == 0 ? parts.high : parts.low;
  };
  return group == 2 ? bf16_pair(number(k), number(k + 1)) : __builtin_bit_cast(std::uint32_t, number(k));
}

/// What stays the same over a call.
struct Forward {
  const Bf16Kernels& target;
  const Mlp& net;
  const Bf16Layout& layout;
  const float* packed;

  Index plane() const { return kMlpBlock * layout.activation_ld; }
  Index memory() const { return 4 * plane() + kMlpBlock * layout.width[0]; }

  void block(Index rows, const float* x, Index ldx, const int* level, float* out, Index ldo, float* scratch) const {
    const Index ld = layout.activation_ld, low = plane();
    float *h = scratch, *next = h + 2 * low, *bias0 = next + 2 * low;
    const Index stride0 = first_bias(net, layout.width[0], rows, level, bias0);
    const int last = layout.last;
    target.operands(rows, net.layer[0].in, x, ldx, layout.depth[0], h, ld, low);
    for (int i = 0; i <= last; ++i) {
      const bool thin = layout.in_rows(i);
      const Bf16Dense d = {rows,
                           layout.depth[i],
                           layout.width[i],
                           layout.products[i],
                           h,
                           ld,
                           low,
                           packed + layout.weight[i],
                           i == 0 ? bias0 : packed + layout.bias[i],
                           i == 0 ? stride0 : 0,
                           thin ? out : next,
                           thin ? ldo : ld,
                           i < last && layout.products[i + 1] > 1 ? low : 0};
      thin ? target.thin(d) : target.dense(d, i == last ? Finish::affine : Finish::silu);
      std::swap(h, next);
    }
    layout.thin ? scale_outputs(net, rows, level, out, ldo, out, ldo) : scale_outputs(net, rows, level, h, ld, out, ldo);
  }
};

}  // namespace

Index bf16_size(const Bf16Kernels& target, const Mlp& net, Precision precision) {
  return Bf16Layout(target, net, precision).size;
}

void bf16_pack(const Bf16Kernels& target, const Mlp& net, float* packed, Precision precision) {
  const Bf16Layout layout(target, net, precision);
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    const Index cols = layout.in_rows(i) ? 1 : target.cols;
    float* to = packed + layout.weight[i];
    for (Index j = 0; j < layout.width[i]; j += cols) {
      for (Index part = 0; part < layout.parts(i); ++part) {
        for (Index k = 0; k < layout.depth[i]; ++k) {
          for (Index n = j; n < j + cols; ++n, ++to) {
            const std::uint32_t bits = word(layer, target.group, part, n, k * target.group);
            std::memcpy(to, &bits, sizeof bits);
          }
        }
      }
    }
    float* const bias = packed + layout.bias[i];
    if (i > 0) std::fill(std::copy_n(layer.bias, layer.out, bias), bias + layout.width[i], 0.0f);
  }
}

void bf16_forward(const Bf16Kernels& target, const Mlp& net, const float* packed, Index batch, const float* x, Index ldx,
                  const int* level, float* out, Index ldo, Precision precision) {
  const Bf16Layout layout(target, net, precision);
  const Forward forward{target, net, layout, packed};
  for_mlp_blocks(forward, batch, x, ldx, level, out, ldo);
}

}  // namespace tweedie::kernels::cpu
