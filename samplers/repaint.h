// repaint.h - missing coordinates filled in by a diffusion whose known coordinates are replaced at every level.
//
//   x ~ known + sigma_1 z on the known cells, sigma_1 z on the missing ones;  for each step sigma -> next, `resample` times:
//     missing cells:  x0 = x + sigma^2 s(x, sigma),  q = (next / sigma)^2,  x <- x0 + q (x - x0) + next sqrt(1 - q) z
//     known cells:    x <- known + next z
//     all, unless this was the last of these times:  x <- x + sqrt(sigma^2 - next^2) z
//
// [Lugmayr et al. 2022, Algorithm 1, in unit-alpha coordinates.] The missing cells' step is the ancestral one, DDIM(eta = 1); the
// step to 0 is taken once, as there. Replacing alone is not conditioning: the resampling is what lets the missing cells agree
// with the known ones. On a Gaussian it cures the mean and leaves a variance too small by the levels' distance (7% at 100 levels
// from 50 to .01, 2% at 400); on a mixture the choice among modes is cured last. Begin with 100 levels and resample = 10, and
// raise both for exactness: bench/study_posterior.cpp. The score is all it needs; posterior.h is for linear observations.
//
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

struct RepaintOptions {
  Index draws = 1;            // imputations of each row
  Index resample = 10;        // r: ancestral steps at each level
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows of the result; 0: of all
  Index chunk_rows = 512;     // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// The rows of x (n, D) completed: (n * draws, D), rows i draws to (i + 1) draws - 1 are the imputations of row i, the known
/// cells exactly as given. known (n, D): not 0 where the cell is known; what x holds in the others is not read. sigmas: strictly
/// decreasing, the last 0 or followed by a final denoising step. N positive sigmas cost (N - 1) resample + 1 evaluations. A row
/// of the result depends on the stream, its index and its cells alone: the same bits for any number of threads, chunk and n.
/// Throws UsageError for bad options, shapes and sigmas, DataError for a known cell that is not finite; DivergedError;
/// CancelledError.
TWEEDIE_API Samples repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<float> x,
                            ConstRows<std::uint8_t> known, const RepaintOptions& options, const Rng& rng);
TWEEDIE_API SamplesD repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<double> x,
                             ConstRows<std::uint8_t> known, const RepaintOptions& options, const Rng& rng);
/// The same with NaN for the missing cells of x.
TWEEDIE_API Samples repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<float> x,
                            const RepaintOptions& options, const Rng& rng);
TWEEDIE_API SamplesD repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<double> x,
                             const RepaintOptions& options, const Rng& rng);

}  // namespace tweedie
