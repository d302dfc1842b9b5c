// datasets.h - the built-in distributions. Row i is a pure function of the key and i, so the first n rows agree for every n.
//
//   Matrix x = datasets::make("moons", 1000, Rng{42});   // (1000, 2)
//
// In the formulas u, v ~ U(0, 1], z, z' ~ N(0, 1), all independent; every distribution is two-dimensional.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/gaussian_mixture.h"

namespace tweedie::datasets {

/// GaussianMixture::three_gaussians(); the tutorial's data are three_gaussians(300, Rng{42}).
TWEEDIE_API Matrix three_gaussians(Index n, const Rng& rng);
/// GaussianMixture::three_gaussians_unequal().
TWEEDIE_API Matrix three_gaussians_unequal(Index n, const Rng& rng);
/// GaussianMixture::two_mode().
TWEEDIE_API Matrix two_mode(Index n, const Rng& rng);
/// GaussianMixture::eight_gaussians().
TWEEDIE_API Matrix eight_gaussians(Index n, const Rng& rng);
/// Two half circles, a = pi u: (cos a, sin a) or, for v > 1/2, (1 - cos a, 1/2 - sin a); plus .1 (z, z').
TWEEDIE_API Matrix two_moons(Index n, const Rng& rng);
/// Uniform on the 8 dark fields of side 2 of the board [-4, 4]^2: those whose column + row, counted from 0, is even.
TWEEDIE_API Matrix checkerboard(Index n, const Rng& rng);
/// a = 3/2 pi (1 + 2 u): (a cos a + z, a sin a + z') / 5.
TWEEDIE_API Matrix swiss_roll(Index n, const Rng& rng);
/// Four circles of radius r = .75, 1.5, 2.25, 3, equally likely: r (cos 2 pi u, sin 2 pi u) + .08 (z, z').
TWEEDIE_API Matrix rings(Index n, const Rng& rng);

/// The names that make() knows, aliases left out.
TWEEDIE_API const std::vector<std::string>& names();
/// (n, 2) draws of the distribution `name`; "tutorial" is three_gaussians and "two_moons" is moons. Throws UsageError that lists
/// the names for an unknown one, or for n < 0.
TWEEDIE_API Matrix make(std::string_view name, Index n, const Rng& rng);
/// The exact mixture where the distribution is one, std::nullopt otherwise. Throws UsageError for an unknown name.
TWEEDIE_API std::optional<GaussianMixture> oracle(std::string_view name);

}  // namespace tweedie::datasets
