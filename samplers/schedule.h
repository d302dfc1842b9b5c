// schedule.h - noise levels for the step samplers: sigma_0 > sigma_1 > ... in unit-alpha coordinates (score_model.h).
//
//   sigma_i = w^-1(w(sigma_max) + i / (points - 1) (w(sigma_min) - w(sigma_max))),  i = 0..points - 1,  and a final 0
//     geometric   w = ln sigma                             [Song & Ermon 2019]
//     karras      w = sigma^(1/rho), rho = 7               [Karras et al. 2022, Eq. 5]
//     linear      w = sigma
//     cosine      w = t of alpha_bar(t) = cos^2((t + .008) / 1.008 pi/2) / cos^2(.008 / 1.008 pi/2), sigma^2 = 1 / alpha_bar - 1
//                                                          [Nichol & Dhariwal 2021, Eq. 17]
//     time        w = t of a process, from t_max to t_min_sampling
//
// `points` counts the positive levels, so with the final 0 there are as many intervals: EDM's 18 is karras(18, .002, 80), 18
// positive levels and 0. The first and the last positive level are sigma_max and sigma_min to the bit.
// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <vector>

#include "tweedie/models/process.h"

namespace tweedie {

// Each throws UsageError unless points >= 2, 0 < sigma_min < sigma_max and both are finite, and where the points lie so close
// that neighbours coincide. end_at_zero = false leaves the final 0 away: the samples then keep noise of deviation sigma_min.
TWEEDIE_API std::vector<double> geometric_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero = true);
/// Throws UsageError unless rho is positive and finite.
TWEEDIE_API std::vector<double> karras(Index points, double sigma_min, double sigma_max, double rho = 7, bool end_at_zero = true);
TWEEDIE_API std::vector<double> linear_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero = true);
TWEEDIE_API std::vector<double> cosine_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero = true);
/// The process's levels sigma(t) / alpha(t) at `points` equidistant times from t_max to t_min_sampling.
TWEEDIE_API std::vector<double> time_schedule(const Process& process, Index points, bool end_at_zero = true);
/// By name: "geometric", "karras" (rho 7), "linear" or "cosine"; throws UsageError listing them.
TWEEDIE_API std::vector<double> schedule(std::string_view name, Index points, double sigma_min, double sigma_max,
                                         bool end_at_zero = true);

}  // namespace tweedie
