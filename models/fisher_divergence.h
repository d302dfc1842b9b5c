// fisher_divergence.h - how far a model's score is from the exact one, noise level by noise level.
//
//   error    = E_{x ~ p_sigma} sigma^2 |s_model(x, sigma) - s_exact(x, sigma)|^2 / D
//   relative = E |s_model - s_exact|^2 / E |s_exact|^2
//
// Beside them the zero network's: sigma^2 E|s_exact|^2 / D, and 1. All draws are the caller's stream's alone.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

struct FisherDivergenceOptions {
  Index draws = 10000;  // per level
  Index batch = 1024;   // rows per evaluation of the model (speed only)
};

struct LevelError {
  double sigma;
  double error;                    // E sigma^2 |s_model - s_exact|^2 / D
  double standard_error;           // of `error`
  double relative;                 // E |s_model - s_exact|^2 / E |s_exact|^2; the zero network has 1
  double relative_standard_error;  // of `relative`, by the delta method
  double zero_error;               // sigma^2 E|s_exact|^2 / D: `error` of the zero network
};

struct FisherDivergence {
  std::vector<LevelError> levels;
  double mean_error = 0;           // of `error` over the levels
  double mean_standard_error = 0;  // levels draw independently
  double mean_zero_error = 0;
};

/// x = x0 + sigma eps with x0 drawn from the mixture afresh for every level. The model runs in float, the oracle in double on the
/// same float x. Throws UsageError for draws < 2 or dimensions that differ, DivergedError when the model's score is not finite.
TWEEDIE_API FisherDivergence fisher_divergence(const ScoreModel& model, const GaussianMixture& oracle, const NoiseLevels& levels,
                                               const FisherDivergenceOptions& options, Rng rng);
/// The same with x0 a random row of `data` (N, D): against EmpiricalMixture(data) these are exact draws from its p_sigma.
TWEEDIE_API FisherDivergence fisher_divergence(const ScoreModel& model, const ScoreModel& oracle, ConstRows<float> data,
                                               const NoiseLevels& levels, const FisherDivergenceOptions& options, Rng rng);

}  // namespace tweedie
