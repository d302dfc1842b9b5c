// mlp_gradient.cpp - the perceptron's denoising loss and its gradient: forward and backward of a leaf of rows while it is in L2.
//
//   pack    the weights, as panels of W^T for the way forward and of W for the way back
//   groups  each takes its leaves in order:  forward, keeping h_i and silu'(z_i);  loss;  backward, dz_i in silu'(z_i)'s place;
//           dW_i += dz_i^T h_i and db_i += sum dz_i into the group's own sums
//   sum     of the groups, in their order, into the gradient
// Leaves and groups are cut by the batch's size alone, so threads, which share groups, change no bit.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cpu/mlp_layout.h"
#include "tweedie/kernels/cpu/workspace.h"

namespace tweedie::kernels {

namespace {

using cpu::Dense;
using cpu::Finish;
using cpu::MlpLayout;
using cpu::round_up;
using cpu::TargetTable;

constexpr Index kLeaf = 64;
constexpr Index kMostGroups = 8;      // sums in flight, 0.6 MB each at width 256
constexpr Index kRowsPerGroup = 128;  // with fewer the sum of the groups would show

/// A part of a group's sums and where it goes in the gradient: rows of `length` numbers.
struct Segment {
  Index offset, rows, length;
  float* to;
  Index stride;
};

struct Plan {
  const Mlp& net;
  const MlpBatch& batch;
  const TargetTable& target;
  MlpLayout layout;
  Index leaves, groups;
  Index back[Mlp::kMaxLayers];                                   // W_i's panels for the way back, behind the packed ones
  Index weight_sum[Mlp::kMaxLayers], bias_sum[Mlp::kMaxLayers];  // in a group's sums
  Index packed_size, group_size;
  Index ld = 0;  // of every activation of a leaf: whole panels, and a vector as in mlp_layout.h

  Plan(const Mlp& network, const MlpBatch& rows)
      : net(network),
        batch(rows),
        target(cpu::table()),
        layout(network, target),
        leaves((rows.rows + kLeaf - 1) / kLeaf),
        groups(std::clamp(rows.rows / kRowsPerGroup, std::min<Index>(leaves, 2), kMostGroups)) {
    packed_size = round_up(layout.size, layout.lanes);
    group_size = 0;
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      ld = std::max(ld, round_up(std::max(layer.in, layer.out), layout.cols) + layout.lanes);
      back[i] = packed_size;
      if (i > 0) packed_size += layer.out * round_up(layer.in, layout.cols);
      weight_sum[i] = group_size;
      group_size = bias_sum[i] = round_up(group_size + Index{layer.out} * layer.in, layout.lanes);
      group_size = round_up(group_size + (i > 0 ? layer.out : own_bias() ? 0 : Index{net.levels} * layer.out), layout.lanes);
    }
  }

  bool own_bias() const { return batch.level == nullptr; }
  Index workspace() const { return packed_size + groups * group_size; }
  Index back_panels(int i) const { return i == 0 ? 0 : round_up(net.layer[i].in, layout.cols) / layout.cols; }

  // ---- packing

  /// Packs the `t`-th panel of all layers both ways; a thin last layer is one.
  void pack(Index t, float* packed) const {
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      if (t < layout.panels(net, i)) return cpu::pack_panel(net, layout, target, i, t, packed);
      t -= layout.panels(net, i);
      if (t < back_panels(i)) {
        const Index j = t * layout.cols;
        target.single.pack_right(std::min<Index>(layout.cols, layer.in - j), layer.out, layer.weight + j, 1, layer.in,
                                 packed + back[i] + j * layer.out);
        return;
      }
      t -= back_panels(i);
    }
  }
  Index pack_tasks() const {
    Index tasks = 0;
    for (int i = 0; i < net.layers; ++i) tasks += layout.panels(net, i) + back_panels(i);
    return tasks;
  }
};

/// One leaf of rows on its way forward and back, in a thread's own memory.
class Leaf {
 public:
  Leaf(const Plan& plan, const float* packed)
      : plan_(plan), packed_(packed), ld_(plan.ld), memory_((2 * plan.net.layers * ld_ + plan.layout.width[0]) * kLeaf) {}

  /// Rows [first, first + rows); the gradient's part is added to `sums`, or written there where `fresh`.
  void run(Index first, Index rows, float* losses, const MlpGradient& gradient, float* sums, bool fresh) {
    rows_ = rows;
    first_ = first;
    forward();
    loss(losses);
    const int last = plan_.net.layers - 1;
    for (int i = last; i >= 0; --i) {
      float* const dz = slope(i);
      if (i < last) {
        const MlpLayer& next = plan_.net.layer[i + 1];
        const Dense d = {
            rows, next.out, round_up(next.in, plan_.layout.cols), slope(i + 1), ld_, packed_ + plan_.back[i + 1], nullptr, 0, dz,
            dz,   ld_};
        plan_.target.mlp.dense(d, Finish::times);
      }
      weight_gradient(i, sums + plan_.weight_sum[i], fresh);
      bias_gradient(i, gradient, sums + plan_.bias_sum[i], fresh);
    }
  }

 private:
  Index outputs() const { return plan_.net.layer[plan_.net.layers - 1].out; }
  // Layer i's input h_i (i = 0: x) and silu'(z_i), which becomes dz_i; of the last layer u, which becomes dz too.
  float* input(int i) { return memory_.data() + 2 * i * kLeaf * ld_; }
  float* slope(int i) { return memory_.data() + (2 * i + 1) * kLeaf * ld_; }
  void forward() {
    const Mlp& net = plan_.net;
    const MlpLayout& layout = plan_.layout;
    const MlpBatch& batch = plan_.batch;
    const Index dim = net.layer[0].in, padded = round_up(dim, layout.cols), out = net.layer[0].out;
    float* const bias0 = slope(net.layers - 1) + kLeaf * ld_;
    for (Index r = 0; r < rows_; ++r) {
      float* const to = input(0) + r * ld_;
      std::fill(std::copy_n(batch.x + (first_ + r) * dim, dim, to), to + padded, 0.0f);
      const Index level = plan_.own_bias() ? first_ + r : Index{batch.level[first_ + r]};
      float* const b = bias0 + r * layout.width[0];
      std::fill(std::copy_n(net.layer[0].bias + level * out, out, b), b + layout.width[0], 0.0f);
    }
    const int last = net.layers - 1;
    for (int i = 0; i <= last; ++i) {
      const float *weight = packed_ + layout.weight[i], *bias = i == 0 ? bias0 : packed_ + layout.bias[i];
      if (i == last && layout.thin) {
        plan_.target.mlp.thin(rows_, round_up(net.layer[i].in, layout.lanes), net.layer[i].out, input(i), ld_, weight, bias,
                              slope(i), ld_);
      } else {
        const Dense d = {rows_,
                         net.layer[i].in,
                         layout.width[i],
                         input(i),
                         ld_,
                         weight,
                         bias,
                         i == 0 ? layout.width[0] : 0,
                         i == last ? slope(i) : input(i + 1),
                         slope(i),
                         ld_};
        plan_.target.mlp.dense(d, i == last ? Finish::affine : Finish::silu_slope);
      }
    }
  }

  void loss(float* losses) {
    const MlpBatch& batch = plan_.batch;
    const Index dim = outputs(), padded = round_up(dim, plan_.layout.cols);
    for (Index r = 0; r < rows_; ++r) {
      const Index b = first_ + r;
      const float scale = batch.scale == nullptr ? 1.0f : batch.scale[b], w = batch.weight == nullptr ? 1.0f : batch.weight[b];
      const float factor = w * scale / static_cast<float>(batch.rows);
      float* const u = slope(plan_.net.layers - 1) + r * ld_;
      const float* const eps = batch.eps + b * dim;
      double sum = 0;
      for (Index d = 0; d < dim; ++d) {
        const float residual = scale * u[d] + eps[d];
        sum += static_cast<double>(residual) * static_cast<double>(residual);
        u[d] = factor * residual;
      }
      std::fill(u + dim, u + padded, 0.0f);
      losses[b] = static_cast<float>(0.5 * static_cast<double>(w) * sum);
    }
  }

  // (out, in) += dz^T h: the tile is wide in columns, so a layer with few inputs is computed as its transpose.
  void weight_gradient(int i, float* sum, bool fresh) {
    const auto& kernels = plan_.target.single;
    const Index in = plan_.net.layer[i].in, out = plan_.net.layer[i].out, cols = plan_.layout.cols;
    const bool transpose = out * round_up(in, cols) > in * round_up(out, cols);
    const float *left = transpose ? input(i) : slope(i), *right = transpose ? slope(i) : input(i);
    kernels.multiply(transpose ? in : out, transpose ? out : in, rows_, {left, kernels.tile_rows, 1, ld_}, {right, cols, ld_},
                     {sum, transpose ? 1 : in, transpose ? in : 1}, !fresh);
  }

  void bias_gradient(int i, const MlpGradient& gradient, float* sum, bool fresh) {
    const auto add_rows = plan_.target.mlp.add_rows;
    const Index out = plan_.net.layer[i].out;
    if (i > 0) return add_rows(rows_, out, slope(i), ld_, sum, !fresh);
    if (plan_.own_bias()) {
      for (Index r = 0; r < rows_; ++r) std::copy_n(slope(0) + r * ld_, out, gradient.bias[0] + (first_ + r) * out);
      return;
    }
    if (fresh) std::fill_n(sum, plan_.net.levels * out, 0.0f);
    for (Index r = 0; r < rows_; ++r) add_rows(1, out, slope(0) + r * ld_, ld_, sum + plan_.batch.level[first_ + r] * out, true);
  }

  const Plan& plan_;
  const float* packed_;
  const Index ld_;
  cpu::Workspace<float, 3> memory_;
  Index rows_ = 0, first_ = 0;
};

/// Rows of all segments, one after another: row `t` is the groups' sum, in their order.
void sum_row(const Plan& plan, const Segment* segments, Index t, const float* groups) {
  while (t >= segments->rows) t -= (segments++)->rows;
  const float* from = groups + segments->offset + t * segments->length;
  float* const to = segments->to + t * segments->stride;
  std::copy_n(from, segments->length, to);
  for (Index g = 1; g < plan.groups; ++g) {
    from += plan.group_size;
    for (Index k = 0; k < segments->length; ++k) to[k] += from[k];
  }
}

void check_batch(const Mlp& net, const MlpBatch& batch, const char* who) {
  check(net.scale == nullptr, who, ": the network has a scale of its outputs; give it by row, in the batch");
  check(batch.rows >= 1, who, ": ", batch.rows, " rows; give at least 1");
  check(batch.level != nullptr || net.levels == batch.rows, who, ": without levels each of the ", batch.rows,
        " rows has a first bias of its own; the network has ", net.levels);
  for (Index b = 0; batch.level != nullptr && b < batch.rows; ++b) {
    check(batch.level[b] >= 0 && batch.level[b] < net.levels, who, ": level[", b, "] = ", batch.level[b], ", the network has ",
          net.levels);
  }
}

}  // namespace

Index mlp_gradient_workspace(const Mlp& net, const MlpBatch& batch) {
  cpu::check_net(net, "mlp_gradient_workspace");
  check_batch(net, batch, "mlp_gradient_workspace");
  return Plan(net, batch).workspace();
}

void mlp_gradient(const Mlp& net, const MlpBatch& batch, float* workspace, float* losses, const MlpGradient& gradient) {
  cpu::check_net(net, "mlp_gradient");
  check_batch(net, batch, "mlp_gradient");
  const Plan plan(net, batch);
  float *const packed = workspace, *const groups = workspace + plan.packed_size;
  parallel_for(plan.pack_tasks(), 4, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) plan.pack(t, packed);
  });
  parallel_for(plan.groups, 1, [&](Index begin, Index end) {
    Leaf leaf(plan, packed);
    for (Index g = begin; g < end; ++g) {
      const Index from = g * plan.leaves / plan.groups, to = (g + 1) * plan.leaves / plan.groups;
      for (Index l = from; l < to; ++l) {
        leaf.run(l * kLeaf, std::min(kLeaf, batch.rows - l * kLeaf), losses, gradient, groups + g * plan.group_size, l == from);
      }
    }
  });
  Segment segments[2 * Mlp::kMaxLayers];
  int count = 0;
  Index rows = 0;
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    segments[count++] = {plan.weight_sum[i], layer.out, layer.in, gradient.weight[i], gradient.stride[i]};
    rows += layer.out;
    if (i == 0 && plan.own_bias()) continue;
    const Index bias_rows = i == 0 ? net.levels : 1;
    segments[count++] = {plan.bias_sum[i], bias_rows, layer.out, gradient.bias[i], layer.out};
    rows += bias_rows;
  }
  parallel_for(rows, 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) sum_row(plan, segments, t, groups);
  });
}

}  // namespace tweedie::kernels
