// fused_engine.h - training steps by kernels::mlp_gradient instead of the tape.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "tweedie/models/training_engine.h"

namespace tweedie::detail {

/// Denoising score matching and flow matching, any weighting, of a NoiseConditionalScoreNetwork on its levels; nullptr for what
/// it does not compute. Its loss functions throw UsageError for a batch without levels.
std::unique_ptr<TrainingEngine> make_fused_engine(const Network& model, const Objective& objective);

}  // namespace tweedie::detail
