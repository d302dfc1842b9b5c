// rejections.h - permutation tests over seeds: how many of them reject a sampler, and how many may by chance.
//
// A true sampler is rejected at 1e-3 by one test of 1000, so that "20 of 20 seeds pass" fails for one choice of the seeds in 50.
// More than two rejections of 20 have probability 1.1e-6, more than one of 4 has 6e-6; a fault is rejected at nearly every seed.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"

namespace tweedie::test {

constexpr Index kSamples = 10'000;

struct Rejections {
  int count = 0;
  double least = 1;  // of the p-values
};

/// Energy tests at 1e-3 of sample(seed), (kSamples, D), against as many fresh draws, for the seeds first, first + 1, ...
/// Stopping at the first exceedance leaves the decision at 1e-3 exact.
inline Rejections rejections(const GaussianMixture& truth, int seeds, std::uint64_t first,
                             const std::function<Matrix(std::uint64_t seed)>& sample) {
  Rejections r;
  for (std::uint64_t seed = first; seed < first + static_cast<std::uint64_t>(seeds); ++seed) {
    const Matrix fresh = truth.sample(kSamples, Rng{100 + seed});
    const double p = energy_test(sample(seed), fresh, {.stop_after_exceedances = 1}, Rng{200 + seed}).p_value;
    r.count += p <= 1e-3;
    r.least = std::min(r.least, p);
  }
  return r;
}

}  // namespace tweedie::test
