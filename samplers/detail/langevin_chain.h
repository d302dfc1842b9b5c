// langevin_chain.h - the loop that plain and annealed Langevin dynamics share.
//
//   for each level, for each of its steps:   x += drift s(x, sigma) + noise z
//
// Rows are cut into chunks; a chunk runs the whole chain before the next one starts, so that its state stays in cache, and
// chunks run in parallel. z of step t, row i is draw (Purpose::langevin, t, i) of the stream whatever the chunking.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

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

struct ChainOptions {
  const char* sampler;        // its name, for messages
  Index save_every = 0;       // 0: no trajectory
  Index trajectory_rows = 0;  // first rows kept; 0: all
  Index chunk_rows = 512;
  bool denoise = false;                        // a last Tweedie step x + sigma^2 s at the last level
  double bound = 0;                            // |x| beyond it has diverged
  const char* remedy = "";                     // what to do then
  const SamplingCallback* progress = nullptr;  // may be nullptr or empty
};

/// Runs the chain from samples.x (n, D) in place. Throws UsageError for bad options, DivergedError, CancelledError.
template <class S>
void run_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels, const ChainOptions& options, const Rng& rng,
               SamplesX<S>& samples);

}  // namespace tweedie::detail
