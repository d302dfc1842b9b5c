// langevin_chain.h - the loop that plain and annealed Langevin dynamics share.
//
//   for each level, for each of its steps:   x += drift s(x, sigma) + noise z
//
// z of step t, row i is draw (Purpose::langevin, t, i) of the stream whatever the chunking (chunks.h).
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/samplers/detail/chunks.h"

namespace tweedie::detail {

struct ChainLevel {
  double sigma;
  Index steps;
  double step_size;  // as the user gave it, for messages
  double drift;
  double noise;
};

/// drift and noise of one step of size a; the noise is multiplied by noise_scale.
ChainLevel chain_level(double sigma, Index steps, double step_size, StepConvention convention, double noise_scale);

/// Runs the chain from samples.x (n, D) in place; denoise: a last Tweedie step x + sigma^2 s at the last level. run.steps is set
/// here. Throws UsageError for bad options, DivergedError, CancelledError.
template <class S>
void run_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels, bool denoise, RunOptions run, const Rng& rng,
               SamplesX<S>& samples);

}  // namespace tweedie::detail
