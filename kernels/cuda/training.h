// training.h - what surrounds mlp_gradient.h in a training step that never leaves the device.
//
//   training_begin   level bias = E W_e^T + b_0, W_x;   x(b, :) = x0 + sigma_l eps of rows that permutation, level and noise draw
//   (mlp_gradient)   dW_x, d(level bias), dW_i, db_i
//   training_norm    dE = d(level bias) W_e,  dW_e = d(level bias)^T E,  db_0 = sum over levels;  sums of squares, 256 a block
//   training_finish  loss, norm, clipping; whether the step diverged; the step's rates; counts the step
//   training_adam    adam_ema's arithmetic with these
// Shapes: E (L, H), W_0 = [W_x, W_e] (H, D + H), level bias (L, H), x and eps (B, D).
// Draws have the host's bits: core/detail/draws.h, core/philox.h, core/normals.h. The step's number and its rates live in the
// device's memory, so the launches are the same for each step: one graph, captured once. Sums in the order of positions.
//
// Predicted on an H200 (never measured) for P = 205 k parameters: five launches of 2 us beside mlp_gradient's; adam 36 bytes a
// parameter, 1.7 us; begin reads 60 bytes a row at D = 2. SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/core/detail/draws.h"
#include "tweedie/kernels/cuda/dsm_loss.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/training_run.h"

namespace tweedie::kernels::cuda {

/// A step's numbers, made by the host in double.
struct StepNumbers {
  float learning_rate, decay, c1, c2, one_minus_ema;
  double smoothed;  // 1 - smoothing^(t + 1)
};
inline constexpr int kStepTable = 256;  // steps between two uploads

/// What a step leaves to the next, in the device's memory.
struct StepState {
  TrainingProgress progress;
  std::int64_t table_first;  // the step of the table's first entry
  bool update;               // the step may touch the weights
  float gradient_scale;
  StepNumbers now;
};

/// Pointers of the device's. The parameters are one flat buffer, see TrainingSetup.
struct StepMemory {
  float *p, *gradient, *m, *v, *ema;                 // (parameters); ema or nullptr
  float *from_x, *level_bias, *level_bias_gradient;  // (H, D), (L, H), (L, H)
  float *table, *sigma, *loss_weight;                // (N, D), (L), (L) or nullptr where all are 1
  float *x, *eps, *weight;                           // (B, D), (B, D), (B)
  int* level;                                        // (B)
  double *level_losses, *level_totals;               // (L, 2): of a step, since the last look
  double* squares;                                   // a block of training_norm each
  StepNumbers* numbers;                              // (kStepTable)
  StepState* state;
};

struct TrainingBegin {
  StepMemory at;
  int dim, hidden, levels;
  Index embedding, weight, bias;
  Index batch, train_rows, held_out;
  std::uint64_t order_key, noise_key;
  tweedie::detail::Feistel split;  // of the whole table

  template <class Ctx>
  TWEEDIE_KERNEL void fold(Ctx& ctx) const {
    const Index ld = dim + hidden;
    grid_stride(ctx, Index{hidden} * dim, [&](Index i) { at.from_x[i] = at.p[weight + i / dim * ld + i % dim]; });
    const Index warps = Index{ctx.grid_size()} * ctx.block_size() / 32;
    for (Index i = (Index{ctx.block()} * ctx.block_size() + ctx.thread()) / 32; i < Index{levels} * hidden; i += warps) {
      const float *const e = at.p + embedding + i / hidden * hidden, *const w = at.p + weight + i % hidden * ld + dim;
      float sum = 0;
      for (int k = ctx.lane(); k < hidden; k += 32) sum = math::fma(e[k], w[k], sum);
      for (int bits = 16; bits > 0; bits /= 2) sum += ctx.shuffle_xor(~0U, sum, bits);
      if (ctx.lane() == 0) at.level_bias[i] = sum + at.p[bias + i % hidden];
    }
  }

  /// The table's row at place `place` of the endless sequence [epoch 0 | epoch 1 | ...].
  TWEEDIE_KERNEL Index table_row(std::uint64_t place) const {
    const auto n = static_cast<std::uint64_t>(train_rows);
    std::uint64_t row = tweedie::detail::Feistel::of(order_key, static_cast<std::uint32_t>(place / n), n)(place % n);
    if (held_out > 0) row = split(row + static_cast<std::uint64_t>(held_out));
    return static_cast<Index>(row);
  }
  template <class Ctx>
  TWEEDIE_KERNEL void draw(Ctx& ctx) const {
    const auto step = static_cast<std::uint64_t>(at.state->progress.steps);
    const Index blocks = (dim + 3) / 4;
    grid_stride(ctx, batch * blocks, [&](Index i) {
      const Index b = i / blocks, first = i % blocks * 4;
      const auto row = static_cast<std::uint64_t>(b);
      const float* const clean = at.table + table_row(step * static_cast<std::uint64_t>(batch) + row) * dim;
      const auto level = static_cast<int>(tweedie::detail::integer_below(
          noise_key, Purpose::level, static_cast<std::uint32_t>(step), row, static_cast<std::uint64_t>(levels), 0));
      const PhiloxWords w = philox4x32(
          philox_counter(Purpose::perturb, static_cast<std::uint32_t>(step), row, static_cast<std::uint32_t>(i % blocks), 0),
          noise_key);
      float z[4];
      tweedie::detail::normal_pair(w.v[0], w.v[1], z[0], z[1]);
      tweedie::detail::normal_pair(w.v[2], w.v[3], z[2], z[3]);
      for (Index k = 0; k < 4 && first + k < dim; ++k) {
        at.eps[b * dim + first + k] = z[k];
        at.x[b * dim + first + k] = math::fma(at.sigma[level], z[k], clean[first + k]);
      }
      if (first == 0) at.level[b] = level;
      if (first == 0 && at.loss_weight != nullptr) at.weight[b] = at.loss_weight[level];
    });
  }
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    fold(ctx);
    draw(ctx);
  }
};

struct TrainingNorm {
  StepMemory at;
  int dim, hidden, levels;
  Index embedding, weight, bias, parameters;

  /// d loss / d parameter i where the embedding, or what meets it, is that parameter; else what mlp_gradient left.
  TWEEDIE_KERNEL float gradient(Index i) const {
    const Index h = hidden, ld = dim + hidden;
    const float* const d = at.level_bias_gradient;
    float sum = 0;
    if (i >= embedding && i < embedding + levels * h) {
      const Index l = (i - embedding) / h, k = (i - embedding) % h;
      for (Index n = 0; n < h; ++n) sum = math::fma(d[l * h + n], at.p[weight + n * ld + dim + k], sum);
    } else if (i >= weight && i < weight + h * ld && (i - weight) % ld >= dim) {
      const Index n = (i - weight) / ld, k = (i - weight) % ld - dim;
      for (Index l = 0; l < levels; ++l) sum = math::fma(d[l * h + n], at.p[embedding + l * h + k], sum);
    } else if (i >= bias && i < bias + h) {
      for (Index l = 0; l < levels; ++l) sum += d[l * h + i - bias];
    } else {
      return at.gradient[i];
    }
    at.gradient[i] = sum;
    return sum;
  }
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index i = Index{ctx.block()} * kThreads + ctx.thread();
    const double g = i < parameters ? static_cast<double>(gradient(i)) : 0;
    const double sum = block_sum<kThreads>(ctx, g * g);
    if (ctx.thread() == 0) at.squares[ctx.block()] = sum;
  }
};

/// One block.
struct TrainingFinish {
  StepMemory at;
  int levels;
  Index batch, leaves;
  double clip_norm, smoothing, max_loss_growth, zero_loss;

  TWEEDIE_KERNEL void decide(StepState& state, double norm) const {
    TrainingProgress& progress = state.progress;
    const StepNumbers& now = at.numbers[progress.steps - state.table_first];
    double sum = 0;
    for (int l = 0; l < levels; ++l) sum += at.level_losses[2 * l];
    const double loss = sum / static_cast<double>(batch), average = smoothing * progress.loss_average + (1 - smoothing) * loss;
    const double magnitude = loss < 0 ? -loss : loss;
    progress.loss = loss, progress.gradient_norm = norm;
    progress.diverged = Divergence::none;
    if (max_loss_growth > 0 && progress.loss_limit == 0 && magnitude <= 1e300) {
      progress.loss_limit = max_loss_growth * (magnitude > zero_loss ? magnitude : zero_loss);
    }
    if (max_loss_growth > 0 && average / now.smoothed > progress.loss_limit) progress.diverged = Divergence::growth;
    if (!(norm <= 1e300)) progress.diverged = Divergence::gradient;  // also NaN
    if (!(magnitude <= 1e300)) progress.diverged = Divergence::loss;
    state.update = progress.diverged == Divergence::none;
    if (!state.update) return;
    progress.loss_average = average;
    const double scale = clip_norm == 0 ? 1 : clip_norm / (norm + 1e-6);
    state.gradient_scale = static_cast<float>(scale < 1 ? scale : 1);
    state.now = now;
    for (int l = 0; l < 2 * levels; ++l) at.level_totals[l] += at.level_losses[l];
    ++progress.steps;
  }
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    double sum = 0;
    for (Index i = ctx.thread(); i < leaves; i += kThreads) sum += at.squares[i];
    sum = block_sum<kThreads>(ctx, sum);
    if (ctx.thread() == 0) decide(*at.state, math::sqrt(sum));
  }
};

struct TrainingAdam {
  StepMemory at;
  Index parameters;
  float one_minus_beta1, one_minus_beta2, epsilon;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const StepState& s = *at.state;
    if (!s.update) return;
    const AdamEma update = {parameters,
                            s.gradient_scale,
                            one_minus_beta1,
                            one_minus_beta2,
                            s.now.decay,
                            s.now.learning_rate,
                            s.now.c1,
                            s.now.c2,
                            epsilon,
                            s.now.one_minus_ema,
                            at.gradient,
                            at.p,
                            at.m,
                            at.v,
                            at.ema};
    update(ctx);
  }
};

}  // namespace tweedie::kernels::cuda
