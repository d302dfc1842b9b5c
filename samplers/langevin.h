// langevin.h - unadjusted Langevin dynamics at one noise level.
//
//   half (default): x <- x + a/2 s(x, sigma) + noise_scale sqrt(a) z       full: x <- x + a s(x, sigma) + noise_scale sqrt(2 a) z
//
// [Song & Ermon 2019, Eq. 4; Roberts & Tweedie 1996.] As a -> 0 and steps -> infinity its law tends to p_sigma; at a finite drift
// coefficient h (a/2 or a) a Gaussian of variance v is left with variance v / (1 - h / (2 v)), and h >= 2 v diverges.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

struct LangevinOptions {
  double step_size = .01;  // a
  Index num_steps = 1000;
  double noise_scale = 1;  // 1 for Langevin proper; 0 climbs to a mode
  StepConvention convention = StepConvention::half;
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// num_steps steps from x_init (n, D) at noise level sigma (0 for a score that knows none). Row i depends on the stream, its
/// start and i alone: the same bits for any number of threads, chunk and n. Throws UsageError for bad options or shapes,
/// DivergedError (step and step size in the message) when a state leaves 1e6 max(1, sigma, |x_init|), CancelledError.
TWEEDIE_API Samples langevin_dynamics(const ScoreModel& model, double sigma, ConstRows<float> x_init,
                                      const LangevinOptions& options, const Rng& rng);
TWEEDIE_API SamplesD langevin_dynamics(const ScoreModel& model, double sigma, ConstRows<double> x_init,
                                       const LangevinOptions& options, const Rng& rng);
/// The chapter's form: the trajectory holds x_init and every 10th state (options.save_every where it is given).
TWEEDIE_API Samples langevin_dynamics_with_trajectory(const ScoreModel& model, double sigma, ConstRows<float> x_init,
                                                      LangevinOptions options, const Rng& rng);

}  // namespace tweedie
