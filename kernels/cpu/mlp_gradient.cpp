// mlp_gradient.cpp - the perceptron's denoising loss and its gradient: forward and backward of a leaf of rows while it is in L2.
//
//   pack    the weights, as panels of W^T for the way forward and of W for the way back
//   groups  each takes its leaves in order:  forward, keeping h_i and silu'(z_i);  loss;  backward, dz_i in silu'(z_i)'s place;
//           dW_i += dz_i^T h_i and db_i += sum dz_i: the first group into the gradient itself, the others into sums of their own
//   sum     of the groups, in their order, into the gradient
// A code is a second perceptron whose outputs are the first one's first bias: it goes forward before it and back after it.
// Leaves and groups are cut by the batch's size alone, so threads, which share groups, change no bit.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <optional>

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

/// Where a perceptron's first bias comes from: row level(b) of its levels, row b of its own, or the code's outputs.
enum class FirstBias { level, own, code };

/// One of the perceptrons of a step: where its panels and its sums are.
struct Part {
  const Mlp& net;
  const int* level;  // nullptr: all rows at level 0
  FirstBias first;
  MlpLayout layout;
  Index panels;                                                  // where they begin among the packed numbers
  Index back[Mlp::kMaxLayers];                                   // W_i's panels for the way back, behind the packed ones
  Index weight_sum[Mlp::kMaxLayers], bias_sum[Mlp::kMaxLayers];  // in a group's sums

  /// Behind what is in the packed numbers and in a group's sums already; moves both ends, widens ld.
  Part(const Mlp& mlp, const int* levels, FirstBias kind, const TargetTable& target, Index& packed_size, Index& group_size,
       Index& ld)
      : net(mlp), level(levels), first(kind), layout(net, target), panels(packed_size) {
    packed_size += round_up(layout.size, layout.lanes);
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      ld = std::max(ld, round_up(std::max(layer.in, layer.out), layout.cols) + layout.lanes);
      back[i] = packed_size;
      if (goes_back(i)) packed_size += layer.out * round_up(layer.in, layout.cols);
      weight_sum[i] = group_size;
      group_size = bias_sum[i] = round_up(group_size + Index{layer.out} * layer.in, layout.lanes);
      group_size = round_up(group_size + bias_rows(i) * layer.out, layout.lanes);
    }
  }

  bool goes_back(int i) const { return i > 0; }  // nobody asks for the gradient of the inputs
  Index back_panels(int i) const { return goes_back(i) ? round_up(net.layer[i].in, layout.cols) / layout.cols : 0; }
  /// Of layer i's bias in a group's sums.
  Index bias_rows(int i) const { return i > 0 ? 1 : first == FirstBias::level ? net.levels : 0; }
  Index level_of(Index b) const { return first == FirstBias::own ? b : level == nullptr ? 0 : level[b]; }

  // ---- packing

  Index pack_tasks() const {
    Index tasks = 0;
    for (int i = 0; i < net.layers; ++i) tasks += layout.panels(net, i) + back_panels(i);
    return tasks;
  }
  /// Packs the `t`-th panel of all layers both ways; a thin last layer is one.
  void pack(Index t, const TargetTable& target, float* packed) const {
    for (int i = 0; i < net.layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      if (t < layout.panels(net, i)) return cpu::pack_panel(net, layout, target, i, t, packed + panels);
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
};

struct Plan {
  const MlpBatch& batch;
  const TargetTable& target;
  Index leaves, groups;
  Index packed_size = 0, group_size = 0;
  Index ld = 0;  // of every activation of a leaf: whole panels, and a vector as in mlp_layout.h
  Part body;
  std::optional<Part> code;

  Plan(const Mlp& net, const MlpBatch& rows)
      : batch(rows),
        target(cpu::table()),
        leaves((rows.rows + kLeaf - 1) / kLeaf),
        groups(std::clamp(rows.rows / kRowsPerGroup, std::min<Index>(leaves, 2), kMostGroups)),
        body(net, rows.level, rows.code != nullptr ? FirstBias::code : kind(net, rows.level), target, packed_size, group_size,
             ld) {
    if (rows.code != nullptr) code.emplace(*rows.code, nullptr, kind(*rows.code, nullptr), target, packed_size, group_size, ld);
  }

  static FirstBias kind(const Mlp& net, const int* level) {
    return level == nullptr && net.levels > 1 ? FirstBias::own : FirstBias::level;
  }
  Index workspace() const { return packed_size + (groups - 1) * group_size; }
  /// Numbers that a leaf keeps: two activations a layer, and each part's first bias.
  Index leaf_size() const { return (2 * (body.net.layers + (code ? code->net.layers : 0)) + 2) * kLeaf * ld; }
};

/// One leaf of rows on a perceptron's way forward and back.
class Way {
 public:
  /// `memory`: (2 layers + 1) activations.
  Way(const Part& part, const Plan& plan, const float* packed, float* memory)
      : part_(part), mlp_(plan.target.mlp), multiply_(plan.target.single), packed_(packed), ld_(plan.ld), memory_(memory) {}

  /// Layer i's input h_i, and silu'(z_i), which becomes dz_i; of the last layer the outputs, which become dz too. (kLeaf, ld)
  float* input(int i) { return memory_ + 2 * i * kLeaf * ld_; }
  float* slope(int i) { return memory_ + (2 * i + 1) * kLeaf * ld_; }
  float* outputs() { return slope(last()); }

  /// Of rows [first, first + rows) of x. bias0: the first bias of each row, or nullptr for the part's own.
  void forward(Index first, Index rows, const float* x, const float* bias0) {
    rows_ = rows;
    first_ = first;
    const Mlp& net = part_.net;
    const MlpLayout& layout = part_.layout;
    const Index dim = net.layer[0].in, padded = round_up(dim, layout.cols);
    for (Index r = 0; r < rows; ++r) {
      float* const to = input(0) + r * ld_;
      std::fill(std::copy_n(x + (first + r) * dim, dim, to), to + padded, 0.0f);
    }
    if (bias0 == nullptr) bias0 = copy_first_bias();
    for (int i = 0; i <= last(); ++i) {
      const float *weight = packed_ + part_.panels + layout.weight[i],
                  *bias = i == 0 ? bias0 : packed_ + part_.panels + layout.bias[i];
      if (layout.in_rows(net, i)) {
        mlp_.thin(rows, round_up(net.layer[i].in, layout.lanes), net.layer[i].out, input(i), ld_, weight, bias, outputs(), ld_);
        for (Index r = 0; r < rows; ++r) std::fill_n(outputs() + r * ld_ + net.layer[i].out, layout.cols, 0.0f);
        continue;
      }
      const Dense d = {rows,
                       net.layer[i].in,
                       layout.width[i],
                       input(i),
                       ld_,
                       weight,
                       bias,
                       i == 0 ? ld_ : 0,
                       i == last() ? outputs() : input(i + 1),
                       slope(i),
                       ld_};
      mlp_.dense(d, i == last() ? Finish::affine : Finish::silu_slope);
    }
  }

  /// From dz of the outputs. The gradient's part is added to the group's `sums`, or to the gradient itself where there are none;
  /// written there where `fresh`.
  void backward(const float* top, const MlpGradient& gradient, float* sums, bool fresh) {
    for (int i = last(); i >= 0; --i) {
      const float* const dz = i == last() ? top : slope(i);
      if (i < last()) {
        const MlpLayer& next = part_.net.layer[i + 1];
        const Dense d = {rows_,
                         next.out,
                         round_up(next.in, part_.layout.cols),
                         i + 1 == last() ? top : slope(i + 1),
                         ld_,
                         packed_ + part_.back[i + 1],
                         nullptr,
                         0,
                         slope(i),
                         slope(i),
                         ld_};
        mlp_.dense(d, Finish::times);
      }
      if (sums == nullptr) {
        weight_gradient(i, dz, gradient.weight[i], gradient.stride[i], fresh);
        bias_gradient(i, dz, gradient, gradient.bias[i], fresh);
      } else {
        weight_gradient(i, dz, sums + part_.weight_sum[i], part_.net.layer[i].in, fresh);
        bias_gradient(i, dz, gradient, sums + part_.bias_sum[i], fresh);
      }
    }
  }

 private:
  int last() const { return part_.net.layers - 1; }

  const float* copy_first_bias() {
    const MlpLayer& layer = part_.net.layer[0];
    float* const to = memory_ + 2 * part_.net.layers * kLeaf * ld_;
    for (Index r = 0; r < rows_; ++r) {
      float* const b = to + r * ld_;
      std::fill(std::copy_n(layer.bias + part_.level_of(first_ + r) * layer.out, layer.out, b), b + part_.layout.width[0], 0.0f);
    }
    return to;
  }

  // (out, in) += dz^T h: the tile is wide in columns, so a layer with few inputs is computed as its transpose.
  void weight_gradient(int i, const float* dz, float* sum, Index stride, bool fresh) {
    const Index in = part_.net.layer[i].in, out = part_.net.layer[i].out, cols = part_.layout.cols;
    const bool transpose = out * round_up(in, cols) > in * round_up(out, cols);
    const float *left = transpose ? input(i) : dz, *right = transpose ? dz : input(i);
    multiply_.multiply(transpose ? in : out, transpose ? out : in, rows_, {left, multiply_.tile_rows, 1, ld_}, {right, cols, ld_},
                       {sum, transpose ? 1 : stride, transpose ? stride : 1}, !fresh);
  }

  void bias_gradient(int i, const float* dz, const MlpGradient& gradient, float* sum, bool fresh) {
    const Index out = part_.net.layer[i].out;
    if (i > 0) return mlp_.add_rows(rows_, out, dz, ld_, sum, !fresh);
    if (part_.first == FirstBias::code) return;
    if (part_.first == FirstBias::own) {
      for (Index r = 0; r < rows_; ++r) std::copy_n(dz + r * ld_, out, gradient.bias[0] + (first_ + r) * out);
      return;
    }
    if (fresh) std::fill_n(sum, part_.net.levels * out, 0.0f);
    for (Index r = 0; r < rows_; ++r) mlp_.add_rows(1, out, dz + r * ld_, ld_, sum + part_.level_of(first_ + r) * out, true);
  }

  const Part& part_;
  const cpu::MlpKernels& mlp_;
  const cpu::Kernels<float>& multiply_;
  const float* packed_;
  const Index ld_;
  float* memory_;
  Index rows_ = 0, first_ = 0;
};

/// A leaf in a thread's own memory.
class Leaf {
 public:
  Leaf(const Plan& plan, const float* packed)
      : plan_(plan), memory_(plan.leaf_size()), body_(plan.body, plan, packed, memory_.data()) {
    if (plan.code) code_.emplace(*plan.code, plan, packed, memory_.data() + (2 * plan.body.net.layers + 1) * kLeaf * plan.ld);
  }

  /// Rows [first, first + rows); the gradient's part is added to `sums` (none: to the gradient itself), or written
  /// there where `fresh`.
  void run(Index first, Index rows, float* losses, const MlpGradient& gradient, const MlpGradient* code_gradient, float* sums,
           bool fresh) {
    if (code_) code_->forward(first, rows, plan_.batch.features, nullptr);
    body_.forward(first, rows, plan_.batch.x, code_ ? code_->outputs() : nullptr);
    loss(first, rows, losses);
    body_.backward(body_.outputs(), gradient, sums, fresh);
    if (code_) code_->backward(body_.slope(0), *code_gradient, sums, fresh);
  }

 private:
  // From the outputs F to their dz.
  void loss(Index first, Index rows, float* losses) {
    const MlpBatch& batch = plan_.batch;
    const Mlp& net = plan_.body.net;
    const Index dim = net.layer[net.layers - 1].out;
    for (Index r = 0; r < rows; ++r) {
      const Index b = first + r;
      const float scale = batch.scale == nullptr ? 1.0f : batch.scale[b], w = batch.weight == nullptr ? 1.0f : batch.weight[b];
      const float factor = w * scale / static_cast<float>(batch.rows);
      float* const u = body_.outputs() + r * plan_.ld;
      const float* const eps = batch.eps + b * dim;
      double sum = 0;
      for (Index d = 0; d < dim; ++d) {
        const float residual = scale * u[d] + eps[d];
        sum += static_cast<double>(residual) * static_cast<double>(residual);
        u[d] = factor * residual;
      }
      losses[b] = static_cast<float>(0.5 * static_cast<double>(w) * sum);
    }
  }

  const Plan& plan_;
  cpu::Workspace<float, 3> memory_;
  Way body_;
  std::optional<Way> code_;
};

/// The segments of a part's sums, from `to` on; returns their end.
Segment* segments_of(const Part& part, const MlpGradient& gradient, Segment* to) {
  for (int i = 0; i < part.net.layers; ++i) {
    const MlpLayer& layer = part.net.layer[i];
    *to++ = {part.weight_sum[i], layer.out, layer.in, gradient.weight[i], gradient.stride[i]};
    if (part.bias_rows(i) > 0) *to++ = {part.bias_sum[i], part.bias_rows(i), layer.out, gradient.bias[i], layer.out};
  }
  return to;
}

/// Rows of all segments, one after another: row `t` of the gradient, where the first group's sum is, becomes the groups' sum.
void sum_row(const Plan& plan, const Segment* segments, Index t, const float* groups) {
  while (t >= segments->rows) t -= (segments++)->rows;
  plan.target.mlp.add_rows(plan.groups - 1, segments->length, groups + segments->offset + t * segments->length, plan.group_size,
                           segments->to + t * segments->stride, true);
}

void check_sizes(const Mlp& net, const MlpBatch& batch, const char* who) {
  cpu::check_net(net, who);
  check(net.scale == nullptr, who, ": the network has a scale of its outputs; give it by row, in the batch");
  check(batch.rows >= 1, who, ": ", batch.rows, " rows; give at least 1");
  if (batch.code == nullptr) {
    check(batch.level != nullptr || net.levels == 1 || net.levels == batch.rows, who, ": without levels each of the ", batch.rows,
          " rows has a first bias of its own, or all have one; the network has ", net.levels);
    return;
  }
  const Mlp& code = *batch.code;
  cpu::check_net(code, who);
  check(batch.level == nullptr && batch.features != nullptr, who,
        ": the first bias of a network with a code comes of the code's features; give them, and no levels");
  check(code.levels == 1 || code.levels == batch.rows, who, ": the code has ", code.levels,
        " first biases; give 1, or one for each of the ", batch.rows, " rows");
  check(code.layer[code.layers - 1].out == net.layer[0].out, who, ": the code has ", code.layer[code.layers - 1].out,
        " outputs, the network's first layer ", net.layer[0].out);
}

}  // namespace

Index mlp_gradient_workspace(const Mlp& net, const MlpBatch& batch) {
  check_sizes(net, batch, "mlp_gradient_workspace");
  return Plan(net, batch).workspace();
}

void mlp_gradient(const Mlp& net, const MlpBatch& batch, float* workspace, float* losses, const MlpGradient& gradient,
                  const MlpGradient* code_gradient) {
  check_sizes(net, batch, "mlp_gradient");
  check((batch.code != nullptr) == (code_gradient != nullptr),
        "mlp_gradient: give a code and where its gradient goes, or neither of them");
  for (Index b = 0; batch.level != nullptr && b < batch.rows; ++b) {
    check(batch.level[b] >= 0 && batch.level[b] < net.levels, "mlp_gradient: level[", b, "] = ", batch.level[b],
          ", the network has ", net.levels);
  }
  const Plan plan(net, batch);
  float *const packed = workspace, *const groups = workspace + plan.packed_size;
  const Index body_tasks = plan.body.pack_tasks();
  parallel_for(body_tasks + (plan.code ? plan.code->pack_tasks() : 0), 4, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      t < body_tasks ? plan.body.pack(t, plan.target, packed) : plan.code->pack(t - body_tasks, plan.target, packed);
    }
  });
  parallel_for(plan.groups, 1, [&](Index begin, Index end) {
    Leaf leaf(plan, packed);
    for (Index g = begin; g < end; ++g) {
      const Index from = g * plan.leaves / plan.groups, to = (g + 1) * plan.leaves / plan.groups;
      for (Index l = from; l < to; ++l) {
        leaf.run(l * kLeaf, std::min(kLeaf, batch.rows - l * kLeaf), losses, gradient, code_gradient,
                 g == 0 ? nullptr : groups + (g - 1) * plan.group_size, l == from);
      }
    }
  });
  if (plan.groups == 1) return;
  Segment segments[4 * Mlp::kMaxLayers];
  const Segment* end = segments_of(plan.body, gradient, segments);
  if (plan.code) end = segments_of(*plan.code, *code_gradient, segments + (end - segments));
  Index rows = 0;
  for (const Segment* s = segments; s != end; ++s) rows += s->rows;
  parallel_for(rows, 16, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) sum_row(plan, segments, t, groups);
  });
}

}  // namespace tweedie::kernels
