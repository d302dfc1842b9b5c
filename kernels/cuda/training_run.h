// training_run.h - a training run on a device as the rooms above the kernels see it.
//
// The chapter's network, denoising on its levels, Adam: a step draws its batch, computes loss and gradient and updates the
// weights without the host. Row b of step t is that of the host's trainer (models/trainer.h): the same row of the table, the same
// level, the same noise, bit for bit. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cuda {

/// All pointers are the host's; they are read while the run is made, not after.
struct TrainingSetup {
  // The network in one buffer of `parameters` numbers; where its tensors begin.
  int layers = 0, dim = 0, hidden = 0, levels = 0;
  Index parameters = 0;
  Index embedding = 0;                                             // (levels, hidden)
  Index weight[Mlp::kMaxLayers] = {}, bias[Mlp::kMaxLayers] = {};  // (out, in), the first (hidden, dim + hidden); (out)

  const float* table = nullptr;  // (table_rows, dim)
  Index table_rows = 0;
  Index held_out = 0;  // rows kept apart: the first of the split's permutation
  Index batch = 0;
  const float* sigma = nullptr;        // (levels)
  const float* loss_weight = nullptr;  // (levels)
  std::uint64_t order_key = 0, split_key = 0, noise_key = 0;

  double beta1 = .9, beta2 = .999, epsilon = 1e-8, weight_decay = 0;
  bool ema = false;
  double clip_norm = 0;  // 0: no clipping
  // The smoothed loss is sum over steps of (1 - smoothing) smoothing^age loss, over 1 - smoothing^steps. Beyond max_loss_growth
  // times the larger of the first loss and zero_loss the run has diverged; max_loss_growth 0: no limit.
  double smoothing = .98, max_loss_growth = 0, zero_loss = 0;
};

/// What a schedule gives a step.
struct TrainingRate {
  double learning_rate, ema_decay;
};

enum class Divergence : int { none, loss, gradient, growth };

/// Where a run is. A step that diverges changes no weight and is not counted; further steps are the same again.
struct TrainingProgress {
  std::int64_t steps = 0;
  double loss = 0, gradient_norm = 0;  // of the last step, or of the one that diverged; before clipping
  double loss_average = 0, loss_limit = 0;
  Divergence diverged = Divergence::none;
};

/// Host memory of `parameters` numbers each. In a download nullptr is not asked for; in an upload ema may be one without an
/// average.
struct TrainingState {
  float *parameters, *exp_avg, *exp_avg_sq, *ema;
};

class TrainingRun {
 public:
  virtual ~TrainingRun() = default;
  /// So many steps, rates (steps) from progress().steps on. Queued; ends early where the run diverges.
  virtual void run(const TrainingRate* rates, Index steps) = 0;
  /// These wait for all steps.
  virtual TrainingProgress progress() = 0;
  virtual void download(const TrainingState& to) = 0;
  /// (batch): the losses of the last step, or of the one that diverged.
  virtual void row_losses(float* to) = 0;
  /// (levels, 2): sum and number of the rows' losses at each level since the last call.
  virtual void level_losses(double* to) = 0;
  /// From now on from here.
  virtual void upload(const TrainingState& from, const TrainingProgress& progress) = 0;
};

}  // namespace tweedie::kernels::cuda
