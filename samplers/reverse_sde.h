// reverse_sde.h - the reverse SDE of any process by Euler-Maruyama.
//
//   from t_i to t_{i+1} < t_i, dt = t_i - t_{i+1}, in the process's own coordinates x_t:
//   mean = x - [f(t_i) x - g(t_i)^2 s_t(x)] dt,     x' = mean + g(t_i) sqrt(dt) z;     the last step returns its mean
//
// [Anderson 1982; Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021, Eq. 6.] Times are equidistant from t_max to
// t_min_sampling; the edm process, whose t is sigma itself, takes Karras's (rho = 7). One evaluation a step. On exact
// mixtures the ve process needs 200 steps.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/process.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

struct ReverseSdeOptions {
  Index samples = 1000;
  Index steps = 1000;
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows from the prior N(0, prior_std^2 I) (Purpose::prior); the noise is Purpose::sde, step i. Row i depends on the
/// stream and i alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for bad options
/// (steps >= 1), DivergedError (step and sigma / alpha in the message) when a state leaves 1e6 max(prior_std, |x_init|),
/// CancelledError.
TWEEDIE_API Samples reverse_sde(const ScoreModel& model, const Process& process, const ReverseSdeOptions& options,
                                const Rng& rng);
/// The same from x_init (n, D), a draw of x_t at t_max, which replaces options.samples and the prior.
TWEEDIE_API Samples reverse_sde(const ScoreModel& model, const Process& process, ConstRows<float> x_init,
                                const ReverseSdeOptions& options, const Rng& rng);
TWEEDIE_API SamplesD reverse_sde(const ScoreModel& model, const Process& process, ConstRows<double> x_init,
                                 const ReverseSdeOptions& options, const Rng& rng);

}  // namespace tweedie
