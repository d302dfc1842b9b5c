// training_engine.h - what computes a training step: an objective's loss and its gradient in all parameters of a network.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tweedie/models/objectives.h"

namespace tweedie {

/// Computes an objective's loss and gradient for a batch, at any parameters of the network it was made for.
class TWEEDIE_API TrainingEngine {
 public:
  virtual ~TrainingEngine();
  /// The mean loss; gradient (P), row_losses (B). Allocates nothing once a batch of that size has been seen.
  virtual double loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient,
                                   std::span<float> row_losses) = 0;
  virtual double loss(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) = 0;
  /// What was chosen: "tape, cpu avx512, fp32".
  virtual std::string_view name() const = 0;
};

/// The one place that decides what computes a training step. device auto | cpu, precision fp32, engine auto | tape | fused;
/// anything else throws UsageError naming what exists. (Trainer takes whole runs to a CUDA device; it asks for the rest here.)
/// auto says its choice by name(). fused computes denoising and flow matching, any weighting, of the chapter's network on its
/// levels (such an engine refuses batches without levels) and of a ContinuousScoreNetwork that is an mlp, its conditions and
/// log-variance included; at small widths it is several times as fast as the tape. auto takes it where it can.
TWEEDIE_API std::unique_ptr<TrainingEngine> make_training_step(const Network& model, const Objective& objective,
                                                               const std::string& device = "auto",
                                                               const std::string& precision = "fp32",
                                                               const std::string& engine = "auto");

}  // namespace tweedie
