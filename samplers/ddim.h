// ddim.h - DDIM(eta), the family between the probability flow by Euler (eta = 0) and DDPM's ancestral sampling (eta = 1).
//
//   x0 = x + sigma^2 s(x, sigma),   tau = 1 - (sigma' / sigma)^2,   sigma to sigma':
//   x' = x0 + sigma' sqrt(1 - eta^2 tau) (x - x0) / sigma + sigma' eta sqrt(tau) z
//
// [Song, Meng & Ermon 2021 ICLR, Eqs. 12 and 16], in unit-alpha coordinates, where every process has this one form: x_t /
// alpha_t. One evaluation an interval. On exact mixtures 200 intervals of Karras levels suffice, 50 do not.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie {

struct DdimOptions {
  Index samples = 1000;
  double eta = 0;             // 0: deterministic; 1: ancestral
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows down the schedule from sigma_0 z (Purpose::prior); the noise is Purpose::sde, step i. Row i depends on the
/// stream and i alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for a schedule
/// that does not fall strictly or eta outside [0, 1]; DivergedError (step and sigma in the message) when a state leaves 1e6
/// max(sigma_0, |x_init|); CancelledError.
TWEEDIE_API Samples ddim(const ScoreModel& model, const std::vector<double>& sigmas, const DdimOptions& options, const Rng& rng);
/// The same from x_init (n, D), a draw at sigma_0, which replaces options.samples and the prior.
TWEEDIE_API Samples ddim(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                         const DdimOptions& options, const Rng& rng);
TWEEDIE_API SamplesD ddim(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                          const DdimOptions& options, const Rng& rng);

}  // namespace tweedie
