// heun.h - Heun's second-order method on the probability flow, with or without churn.
//
//   dx/dsigma = -sigma s(x, sigma), from sigma_i to sigma_{i+1}:
//     t^ = (1 + gamma) sigma_i,   x^ = x + sqrt(t^2 - sigma_i^2) S_noise z            (churn; gamma = 0: x^ = x, t^ = sigma_i)
//     d = -t^ s(x^, t^),          x' = x^ + (sigma_{i+1} - t^) d
//     d' = -sigma_{i+1} s(x', sigma_{i+1}),   x' = x^ + (sigma_{i+1} - t^) (d + d') / 2      (not on the step to 0)
//   gamma = min(S_churn / N, sqrt(2) - 1) where S_tmin <= sigma_i <= S_tmax, else 0; N intervals
//
// [Karras, Aittala, Aila & Laine 2022, Algorithm 1 (S_churn = 0) and Algorithm 2.] Two evaluations an interval, one on the
// step to 0: karras(18, .002, 80) costs 35. On exact mixtures 25 intervals suffice without churn, 64 at S_churn = 40.
// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie {

struct HeunOptions {
  Index samples = 1000;
  double s_churn = 0;  // 0: the deterministic Algorithm 1
  double s_tmin = 0;
  double s_tmax = std::numeric_limits<double>::infinity();
  double s_noise = 1;
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows down the schedule from sigma_0 z (Purpose::prior); churn draws Purpose::sde, step i. Row i depends on the
/// stream and i alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for a schedule
/// that does not fall strictly, bad options, or churn above the model's largest sigma; DivergedError (step and sigma in the
/// message) when a state leaves 1e6 max(sigma_0, |x_init|); CancelledError.
TWEEDIE_API Samples heun(const ScoreModel& model, const std::vector<double>& sigmas, const HeunOptions& options, const Rng& rng);
/// The same from x_init (n, D), a draw at sigma_0, which replaces options.samples and the prior.
TWEEDIE_API Samples heun(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                         const HeunOptions& options, const Rng& rng);
TWEEDIE_API SamplesD heun(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                          const HeunOptions& options, const Rng& rng);

}  // namespace tweedie
