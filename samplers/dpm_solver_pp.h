// dpm_solver_pp.h - DPM-Solver++(2M) and its stochastic form 2M-SDE(eta): second order, one evaluation a step.
//
//   D = x + sigma^2 s(x, sigma),   h = ln(sigma / sigma'),   r = h_prev / h,   a = 1 - e^{-h (1 + eta)}:
//   x' = (sigma' / sigma) e^{-eta h} x + a D + a / (2 r) (D - D_prev) + sigma' sqrt(1 - e^{-2 eta h}) z
//
// The first step has no D_prev and is first order; the step to 0 gives D. eta = 0 is 2M, which is x' = (sigma' / sigma) x
// + (1 - e^-h) [(1 + 1/(2r)) D - 1/(2r) D_prev] [Lu et al. 2022 (DPM-Solver++), Algorithm 2]; eta = 1 is 2M-SDE, that
// paper's solver of the diffusion SDE. On exact mixtures 2M needs 30 intervals, 2M-SDE 50. Use levels even in a power or the
// logarithm of sigma (karras, geometric): on a linear grid r is far from 1 where it matters and the order is lost.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie {

struct DpmSolverOptions {
  Index samples = 1000;
  double eta = 0;             // 0: 2M, deterministic; 1: 2M-SDE
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows down the schedule from sigma_0 z (Purpose::prior); the noise is Purpose::sde, step i. Row i depends on the
/// stream and i alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for a schedule
/// that does not fall strictly or a negative eta; DivergedError (step and sigma in the message) when a state leaves 1e6
/// max(sigma_0, |x_init|); CancelledError.
TWEEDIE_API Samples dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, const DpmSolverOptions& options,
                                  const Rng& rng);
/// The same from x_init (n, D), a draw at sigma_0, which replaces options.samples and the prior.
TWEEDIE_API Samples dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                                  const DpmSolverOptions& options, const Rng& rng);
TWEEDIE_API SamplesD dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                                   const DpmSolverOptions& options, const Rng& rng);

}  // namespace tweedie
