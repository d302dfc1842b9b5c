// mala.h - annealed Langevin dynamics, each step corrected by Metropolis: the law of every level is left exactly invariant.
//
//   x ~ N(0, sigma_1^2 I);  for i = 1..L, T times:
//     x' = x + h s(x, sigma_i) + sqrt(2 h) z,                          h = a_i / 2 (half) or a_i (full), a_i = factor sigma_i^2
//     x <- x' with probability min(1, p(x') q(x | x') / (p(x) q(x' | x))),        q(x' | x) = N(x'; x + h s(x), 2 h I)
//
// [Roberts & Tweedie 1996, Section 1.4.1 (MALA); the ladder of levels as in Song & Ermon 2019, Algorithm 1.] The plain chain
// (annealed_langevin.h) ends too wide by a term of order h; here no step is too long to be right, only to be accepted.
// It needs log p_sigma up to a constant per level: an exact mixture, or a model that knows its energy.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

struct MalaOptions {
  Index samples = 1000;
  Index steps_per_level = 10;
  double step_size_factor = 2.0;  // a_i = factor sigma_i^2; any positive one is valid, a longer step is accepted less often
  StepConvention convention = StepConvention::half;
  bool denoise = false;       // a last Tweedie step x + sigma_L^2 s(x, sigma_L), whose score is at hand
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run the chain together (speed only)
  SamplingCallback progress = nullptr;
};

template <class S>
struct MalaSamplesX : SamplesX<S> {
  std::vector<double> acceptance;  // (L) the part of the proposals that was accepted at each level; 0 where there were none
};
using MalaSamples = MalaSamplesX<float>;
using MalaSamplesD = MalaSamplesX<double>;

/// `samples` rows down the levels from sigma_1 z (Purpose::prior); z is draw (Purpose::langevin, step, row) of the stream, the
/// uniform that decides is (Purpose::accept, step, row): the same bits for any number of threads, chunk and number of samples.
/// Score and log p of the state are kept, so a step costs one evaluation of either (at the proposal), and a level one more at
/// its start: L (T + 1) evaluations. log p and the ratio are in double. Throws UsageError for bad options and for a model without
/// has_energy(); DivergedError (step and sigma in the message) where log p or the score is not a number or a state leaves
/// 1e6 max(sigma_max, |x|); CancelledError.
TWEEDIE_API MalaSamples mala(const ScoreModel& model, const NoiseLevels& levels, const MalaOptions& options, const Rng& rng);
/// The same from x_init (n, D), which replaces options.samples and the prior.
TWEEDIE_API MalaSamples mala(const ScoreModel& model, const NoiseLevels& levels, ConstRows<float> x_init,
                             const MalaOptions& options, const Rng& rng);
TWEEDIE_API MalaSamplesD mala(const ScoreModel& model, const NoiseLevels& levels, ConstRows<double> x_init,
                              const MalaOptions& options, const Rng& rng);

}  // namespace tweedie
