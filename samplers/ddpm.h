// ddpm.h - DDPM's ancestral sampling: the reverse Markov chain of a variance-preserving process at equidistant times.
//
//   t_i = 1 - i / N, i = 0..N; from t to t' = t - 1/N:   a = alpha(t) / alpha(t'),   b = 1 - a^2,
//   x' = (x + b s_t(x)) / a + sqrt(b) sigma(t') / sigma(t) z,      without noise on the last step, to t' = 0
//
// [Ho, Jain & Abbeel 2020, Algorithm 2, with the variance beta-tilde of Eq. 7; a^2 and b are their alpha_t and beta_t, and
// -sigma(t) s_t their epsilon_theta.] It is DDIM at eta = 1. One evaluation a step. On exact mixtures 200 steps suffice.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/process.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

struct DdpmOptions {
  Index samples = 1000;
  Index steps = 1000;
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows from the prior N(0, I) (Purpose::prior); the noise is Purpose::sde, step i. Row i depends on the stream and i
/// alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for bad options (steps >= 1) or
/// a process that is not vp (ddim with eta = 1 is the same chain for any process), DivergedError (step and sigma / alpha in the
/// message) when a state leaves 1e6 max(1, |x_init|), CancelledError.
TWEEDIE_API Samples ddpm(const ScoreModel& model, const Process& process, const DdpmOptions& options, const Rng& rng);
/// The same from x_init (n, D), a draw of x_t at t = 1, which replaces options.samples and the prior.
TWEEDIE_API Samples ddpm(const ScoreModel& model, const Process& process, ConstRows<float> x_init, const DdpmOptions& options,
                         const Rng& rng);
TWEEDIE_API SamplesD ddpm(const ScoreModel& model, const Process& process, ConstRows<double> x_init, const DdpmOptions& options,
                          const Rng& rng);

}  // namespace tweedie
