// optimizer.h - Adam(W) over one flat parameter buffer, gradient clipping, learning-rate schedules, parameter averaging.
//
//   m <- m + (1 - b1)(g - m),  v <- v + (1 - b2)(g^2 - v),  p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//   ema <- ema + (1 - decay)(p - ema)                      [Kingma & Ba 2015; Loshchilov & Hutter 2019 for the decay of p]
// The update and the average are one pass over the buffer (kernels::adam_ema); the results do not depend on the threads.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

#include "tweedie/core/buffer.h"
#include "tweedie/core/export.h"

namespace tweedie {

/// How the learning rate goes from warm-up to the last step.
enum class LearningRate { constant, cosine };

struct ScheduleOptions {
  LearningRate kind = LearningRate::constant;
  std::int64_t warmup_steps = 0;  // the rate climbs linearly, (t + 1) / warmup_steps of it at step t
  double final_fraction = 0;      // cosine ends at this part of the rate (the floor)
};

/// The factor on the learning rate at step t = 0, 1, ..., total - 1:
///   warm-up   (t + 1) / warmup_steps                       while t < warmup_steps
///   cosine    f + (1 - f) (1 + cos(pi r)) / 2,  r = (t - warmup) / (total - warmup)       [Loshchilov & Hutter 2017]
/// Throws UsageError for a step outside [0, total), a negative warm-up or a floor outside [0, 1].
TWEEDIE_API double schedule_factor(const ScheduleOptions& schedule, std::int64_t step, std::int64_t total);

/// The decay of the parameter average at step t: `decay`, or with warm-up min(decay, (1 + t) / (10 + t)), so that the
/// untrained start is forgotten early.
TWEEDIE_API double ema_decay(double decay, bool warmup, std::int64_t step);

struct AdamOptions {
  double beta1 = .9, beta2 = .999, epsilon = 1e-8;
  double weight_decay = 0;  // decoupled (AdamW): p <- p - lr weight_decay p
};

/// Adam's state for `size` parameters.
template <class S>
class TWEEDIE_API AdamX {
 public:
  /// Throws UsageError unless 0 <= beta < 1, epsilon > 0 and weight_decay >= 0.
  explicit AdamX(Index size, const AdamOptions& options = {});

  struct Step {
    double learning_rate = 1e-3;
    double gradient_scale = 1;  // of clipping: clip_scale()
    double ema_decay = 0;
  };
  /// One update of `parameters` (n), and of their average `ema` (n, or empty for none). Throws UsageError for wrong sizes.
  void update(const Step& step, std::span<const S> gradient, std::span<S> parameters, std::span<S> ema = {});

  /// sqrt(sum g^2), summed in double over fixed leaves: the same bits for any number of threads. Allocates nothing.
  double norm(std::span<const S> gradient);

  std::int64_t steps() const { return steps_; }
  std::span<const S> exp_avg() const { return m_.span(); }
  std::span<const S> exp_avg_sq() const { return v_.span(); }
  /// Puts back a stored state (checkpoints).
  void restore(std::int64_t steps, std::span<const S> exp_avg, std::span<const S> exp_avg_sq);

 private:
  AdamOptions options_;
  Buffer<S> m_, v_;           // (n)
  Buffer<double> leaf_sums_;  // scratch of norm()
  std::int64_t steps_ = 0;
};

using Adam = AdamX<float>;
extern template class AdamX<float>;
extern template class AdamX<double>;

/// The factor that brings a gradient of this norm down to at most max_norm: min(1, max_norm / (norm + 1e-6)), as PyTorch's
/// clip_grad_norm_; 1 where max_norm is 0 (no clipping).
TWEEDIE_API double clip_scale(double norm, double max_norm);

}  // namespace tweedie
