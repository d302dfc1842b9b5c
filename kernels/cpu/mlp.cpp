// mlp.cpp - the perceptron: packing its weights once, then blocks of rows that stay in the cache through all layers.
//
//   For each block of kMlpBlock rows:  two activations of 128 x 256 floats and a panel of weights, 290 KiB, live in L2; the
//   weights come by once per block. Blocks are what threads share; a row's bits depend on neither.
// SPDX-License-Identifier: MIT
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/kernels/cpu/mlp_bf16.h"
#include "tweedie/kernels/cpu/mlp_layout.h"

namespace tweedie::kernels {

namespace {

using cpu::check_net;
using cpu::Dense;
using cpu::Finish;
using cpu::MlpLayout;
using cpu::TargetTable;

/// What stays the same over a call.
struct Forward {
  const Mlp& net;
  const TargetTable& target;
  const MlpLayout& layout;
  const float* packed;

  Index memory() const { return (2 * cpu::kMlpBlock) * layout.activation_ld + cpu::kMlpBlock * layout.width[0]; }

  void block(Index rows, const float* x, Index ldx, const int* level, float* out, Index ldo, float* scratch) const {
    const Index ld = layout.activation_ld;
    float *h = scratch, *next = h + cpu::kMlpBlock * ld, *bias0 = next + cpu::kMlpBlock * ld;
    const Index stride0 = cpu::first_bias(net, layout.width[0], rows, level, bias0);
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
    layout.thin ? cpu::scale_outputs(net, rows, level, out, ldo, out, ldo)
                : cpu::scale_outputs(net, rows, level, h, ld, out, ldo);
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
  cpu::for_mlp_blocks(forward, batch, x, ldx, level, out, ldo);
}

}  // namespace tweedie::kernels
