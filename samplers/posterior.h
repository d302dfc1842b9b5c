// posterior.h - samples of p(x | y) for a linear observation y = A x + noise, by guiding a diffusion's denoiser.
//
// With x0 = x + sigma^2 s(x, sigma), J = dx0/dx and R = y - A x0, in unit-alpha coordinates:
//   dps     the unconditional step, then  x <- x - zeta grad_x |R| = x + zeta J^T A^T R / |R|
//   pigdm   x0 <- x0 + r^2 J^T A^T (r^2 A A^T + Sy)^-1 R,   r^2 = sigma^2 / (1 + sigma^2)
//   mmps    x0 <- x0 + sigma^2 J^T A^T (Sy + sigma^2 A J A^T)^-1 R
//
// [dps: Chung et al. 2023, Algorithm 1, whose zeta is measured in variance-preserving coordinates; pigdm: Song et al. 2023,
// Algorithm 1; mmps: Rozet et al. 2024, Algorithm 1]
//
// The step from sigma to next is DDIM(eta) or Heun's on the guided x0. sigma^2 J is the covariance of x given its noised value,
// so that mmps is exact where the prior is a Gaussian. On other priors all three are approximations, measurably miscalibrated
// (bench/study_posterior.cpp); for missing coordinates without noise repaint.h comes nearer. State and score are in double; the
// model must be able to multiply by its Jacobian (has_vjp).
// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <string_view>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/linear_observation.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

enum class PosteriorMethod { dps, pigdm, mmps };
TWEEDIE_API const char* to_string(PosteriorMethod method);
/// "dps", "pigdm" or "mmps"; throws UsageError for anything else.
TWEEDIE_API PosteriorMethod posterior_method(std::string_view name);

/// ddim: DDIM(eta). heun: the probability flow dx/dsigma = (x - x0) / sigma by Heun's method, the step to 0 by Euler's
/// [Karras et al. 2022, Algorithm 1]; it has no noise but the start's, and takes no dps.
enum class PosteriorSolver { ddim, heun };

struct PosteriorOptions {
  PosteriorMethod method = PosteriorMethod::mmps;
  PosteriorSolver solver = PosteriorSolver::ddim;
  Index draws = 1;                // samples of each observation
  double eta = 1;                 // ddim: 1 ancestral, 0 deterministic
  double zeta = 1;                // dps: the step along the gradient
  Index conjugate_gradients = 0;  // mmps: solve by so many iterations, one product with J each; 0: exactly, by M products
  Index save_every = 0;           // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;      // of the first so many rows of the result; 0: of all
  Index chunk_rows = 512;         // rows that run together (speed only)
  SamplingCallback progress = nullptr;
};

/// draws samples of p(x | y) for each row of y (n, M): (n draws, D), rows i draws to (i + 1) draws - 1 belong to y's row i.
/// sigmas: strictly decreasing, the last 0 or followed by a final denoising step. A product with J counts as an evaluation: a
/// guided x0 costs 2 (dps, pigdm), M (mmps) or 1 + conjugate_gradients. A row depends on the stream, its index and its
/// observation alone. Throws UsageError for bad options, shapes and sigmas, and for a model without has_vjp(); DivergedError;
/// CancelledError.
TWEEDIE_API SamplesD posterior_sample(const ScoreModel& model, const LinearObservation& observation, ConstRows<double> y,
                                      std::span<const double> sigmas, const PosteriorOptions& options, const Rng& rng);

}  // namespace tweedie
