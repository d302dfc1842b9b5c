// libtorch_agree.h - SPDX-License-Identifier: MIT
#pragma once

#include "race.h"

namespace tweedie::race {

/// Compares what both sides compute from the same weights, rows and noise, prints every error beside its bound and returns 0 if
/// all hold, else 1: outputs in fp32 and fp64 (weights both ways), gradients, ten losses of Adam, log-densities, and each
/// hand-made form of torch_best.h and torch_training.h against the modules.
int agree(const std::string& models);

}  // namespace tweedie::race
