// mlp.cpp - the perceptron: packing its weights once, then blocks of rows that stay in the cache through all layers.
//
//   For each block of kMlpBlock rows:  two activations of 128 x 256 floats and a panel of weights, 290 KiB, live in L2; the
//   weights come by once per block. Blocks are what threads share; a row's bits depend on neither.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cpu/mlp_bf16.h"
#include "tweedie/kernels/cpu/mlp_layout.h"
#include "tweedie/kernels/cpu/workspace.h"

namespace tweedie::kernels {

namespace {

using cpu::check_net;
using cpu::Dense;
using cpu::Finish;
using cpu::MlpLayout;
using cpu::TargetTable;

constexpr Index kMlpBlock = 128;

/// What stays the same over a call.
struct Forward {
  const Mlp& net;
  const TargetTable& target;
  const MlpLayout& layout;
  const float* packed;

  Index memory() const { return (2 * kMlpBlock) * layout.activation_ld + kMlpBlock * layout.width[0]; }

  /// The first layer's bias of each row, padded to whole panels; its stride, 0 where all rows have the same.
  Index first_bias(Index rows, const int* level, float* to) const {
    const Index out = net.layer[0].out, stride = level == nullptr ? 0 : layout.width[0];
    for (Index r = 0; r < (level == nullptr ? 1 : rows); ++r) {
      const float* from = net.layer[0].bias + (level == nullptr ? 0 : level[r] * out);
      std::fill(std::copy_n(from, out, to + r * stride), to + r * stride + layout.width[0], 0.0f);
    }
    return stride;
  }

  void block(Index rows, const float* x, Index ldx, const int* level, float* out, Index ldo, float* scratch) const {
    const Index ld = layout.activation_ld;
    float *h = scratch, *next = h + kMlpBlock * ld, *bias0 = next + kMlpBlock * ld;
    const Index stride0 = first_bias(rows, level, bias0);
    const int last = net.layers - 1;
    for (int i = 0; i <= last; ++i) {
      const float *weight = packed + layout.weight[i], *bias = i == 0 ? bias0 : packed + layout.bias[i];
      if (i == last && layout.thin) {
        target.mlp.thin(rows, cpu::round_up(net.layer[i].in, layout.lanes), net.layer[i].out, h, ld, weight, bias, out, ldo);
      } else {
        const Dense d = {rows,
                         net.layer[i].in,
                         layout.width[i],
                         i == 0 ? x : h,
                         i == 0 ? ldx : ld,
                         weight,
                         bias,
                         i == 0 ? stride0 : 0,
                         next,
                         nullptr,
                         ld};
        target.mlp.dense(d, i == last ? Finish::affine : Finish::silu);
        std::swap(h, next);
      }
    }
    const Index outputs = net.layer[last].out;
    for (Index r = 0; r < rows; ++r) {
      const float scale = net.scale == nullptr ? 1.0f : net.scale[level == nullptr ? 0 : level[r]];
      const float* from = layout.thin ? out + r * ldo : h + r * ld;
      for (Index n = 0; n < outputs; ++n) out[r * ldo + n] = scale * from[n];
    }
  }
};

/// Whether the products are fp32's; bf16 and bf16x3 are mlp_bf16.cpp's.
bool single(Precision precision, const char* who) {
  check(precision != Precision::tf32, who, ": no CPU computes in tf32; choose fp32, bf16x3 or bf16");
  return precision == Precision::fp32;
}

}  // namespace

Index packed_mlp_size(const Mlp& net, Precision precision) {
  check_net(net, "packed_mlp_size");
  if (!single(precision, "packed_mlp_size")) return cpu::bf16_size(cpu::table().bf16, net, precision);
  return MlpLayout(net, cpu::table()).size;
}

void pack_mlp(const Mlp& net, float* packed, Precision precision) {
  check_net(net, "pack_mlp");
  const TargetTable& target = cpu::table();
  if (!single(precision, "pack_mlp")) return cpu::bf16_pack(target.bf16, net, packed, precision);
  const MlpLayout layout(net, target);
  for (int i = 0; i < net.layers; ++i) {
    for (Index panel = 0; panel < layout.panels(net, i); ++panel) cpu::pack_panel(net, layout, target, i, panel, packed);
  }
}

void mlp_forward(const Mlp& net, const float* packed, Index batch, const float* x, Index ldx, const int* level, float* out,
                 Index ldo, Precision precision) {
  check_net(net, "mlp_forward");
  check(batch >= 0, "mlp_forward: batch = ", batch, " is negative");
  check(ldx >= net.layer[0].in, "mlp_forward: ldx = ", ldx, " is less than the ", net.layer[0].in, " columns of x");
  check(ldo >= net.layer[net.layers - 1].out, "mlp_forward: ldo = ", ldo, " is less than the ", net.layer[net.layers - 1].out,
        " outputs");
  for (Index b = 0; level != nullptr && b < batch; ++b) {
    check(level[b] >= 0 && level[b] < net.levels, "mlp_forward: level[", b, "] = ", level[b], ", the network has ", net.levels);
  }
  const TargetTable& target = cpu::table();
  if (!single(precision, "mlp_forward")) {
    return cpu::bf16_forward(target.bf16, net, packed, batch, x, ldx, level, out, ldo, precision);
  }
  const MlpLayout layout(net, target);
  const Forward forward{net, target, layout, packed};
  parallel_for(batch, kMlpBlock, [&](Index begin, Index end) {
    cpu::Workspace<float, 2> scratch(forward.memory());
    for (Index b = begin; b < end; b += kMlpBlock) {
      forward.block(std::min(kMlpBlock, end - b), x + b * ldx, ldx, level == nullptr ? nullptr : level + b, out + b * ldo, ldo,
                    scratch.data());
    }
  });
}

}  // namespace tweedie::kernels
