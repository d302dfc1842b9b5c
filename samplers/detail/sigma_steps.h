// sigma_steps.h - a list of noise levels as a sampler walks it, in unit-alpha coordinates.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "tweedie/models/score_model.h"

namespace tweedie::detail {

/// The levels checked: strictly decreasing and finite, positive but for the last, which may be 0, and within the model's range.
/// Ends in 0 always: a step to 0 is the denoiser's mean, so that a list that ends in sigma_min > 0 is followed by a final
/// denoising step. Throws UsageError in the sampler's name.
std::vector<double> sigma_steps(const ScoreModel& model, std::span<const double> sigmas, const char* sampler);

/// DDIM(eta) from sigma to next < sigma, element by element: x <- x0 + keep (x - x0) + noise z.
///   keep = (next / sigma) sqrt(1 - eta^2 tau), noise = eta next sqrt(tau), tau = 1 - (next / sigma)^2
/// [Song, Meng & Ermon 2021, Eq. 12 and 16 with alpha = 1]; eta = 1 is the ancestral step q(x_next | x, x0), next = 0 gives x0.
struct DdimStep {
  double keep, noise;
};
DdimStep ddim_step(double sigma, double next, double eta);

}  // namespace tweedie::detail
