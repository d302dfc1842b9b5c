// predictor_corrector.h - Langevin correctors at every level, then a reverse-diffusion predictor to the next.
//
//   at sigma, corrector_steps times:   x <- x + e s(x, sigma) + sqrt(2 e) z
//   then down to sigma', g2 = sigma^2 - sigma'^2:   x <- x + g2 s(x, sigma) + sqrt(g2) z,   without z on the step to 0
//   e = 2 (snr sigma)^2 (expected norms), or 2 (snr mean|z| / mean|s|)^2 over the rows (batch norms)
//
// [Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, Algorithms 2 and 4 and Appendix E, the corrector first as in their
// code], in unit-alpha coordinates, where every process is variance exploding. Their norms are the batch's, so that a sample
// depends on its neighbours; E|z| / E|s| is sigma wherever the noise rules: the default takes that and rows stay independent.
// Norms of single rows blow up in few dimensions, where |s| comes near 0. 1 + corrector_steps evaluations a level. On exact
// mixtures 100 geometric levels from 50 to .01 with one corrector step suffice.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie {

enum class CorrectorNorms { expected, batch };
TWEEDIE_API const char* to_string(CorrectorNorms norms);
/// "expected" or "batch"; throws UsageError for anything else.
TWEEDIE_API CorrectorNorms corrector_norms(std::string_view name);

struct PredictorCorrectorOptions {
  Index samples = 1000;
  double snr = .16;
  Index corrector_steps = 1;
  CorrectorNorms norms = CorrectorNorms::expected;
  Index save_every = 0;       // keep the start and every so manieth state (after a level's predictor); 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only; with batch norms all rows do)
  SamplingCallback progress = nullptr;
};

/// `samples` rows down the schedule from sigma_0 z (Purpose::prior); the noise is Purpose::sde, step i, sub-draw 0 for the
/// predictor and 1, 2, ... for the correctors. With expected norms row i depends on the stream and i alone: the same bits for any
/// number of threads, chunk and number of samples; with batch norms on all rows together. Throws UsageError for a schedule that
/// does not fall strictly or bad options (among them snr >= 1, with which the corrector diverges), DivergedError (step and sigma
/// in the message) when a state leaves 1e6 max(sigma_0, |x_init|), CancelledError.
TWEEDIE_API Samples predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas,
                                        const PredictorCorrectorOptions& options, const Rng& rng);
/// The same from x_init (n, D), a draw at sigma_0, which replaces options.samples and the prior.
TWEEDIE_API Samples predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                                        const PredictorCorrectorOptions& options, const Rng& rng);
TWEEDIE_API SamplesD predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                                         const PredictorCorrectorOptions& options, const Rng& rng);

}  // namespace tweedie
