// repaint.h - missing coordinates filled in by a diffusion whose known coordinates are replaced at every level.
//
//   x ~ known + sigma_1 z on the known cells, sigma_1 z on the missing ones;  for each step sigma -> next, `resample` times:
//     x0 = x + sigma^2 s(x, sigma)
//     missing:  x <- x0 + (next / sigma)^2 (x - x0) + next sqrt(1 - (next / sigma)^2) z          the ancestral step, DDIM(eta =
//     1) known:    x <- known + next z and, unless this was the last of them:  x <- x + sqrt(sigma^2 - next^2) z back up by one
//     level
//
// [Lugmayr et al. 2022, Algorithm 1, in unit-alpha coordinates.] The step to 0 is taken once, without noise, as there. Replacing
// alone is not conditioning: the resampling is what lets the missing cells agree with the known ones, and with few levels or
// resamplings the draws are measurably off (bench/study_posterior.cpp); 100 levels and resample = 10 are the defaults to begin
// with. The model's score is all it needs; a linear observation rather than known cells is posterior.h's.
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
