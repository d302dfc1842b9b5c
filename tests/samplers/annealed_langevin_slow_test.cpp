// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "samplers/rejections.h"
#include "samplers/variance_law.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/annealed_langevin.h"

using namespace tweedie;

TEST_CASE("the chapter's defaults on a Gaussian: a million samples within 4 standard errors of the closed form") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  for (const double scale : {1., .3}) {
    double variance = 100;
    for (const double sigma : levels.values()) {
      variance = test::variance_after(variance, scale * scale + sigma * sigma, sigma * sigma, std::sqrt(2) * sigma, 100);
    }
    const Samples s = annealed_langevin(GaussianMixture::gaussian(1, scale), levels, {.samples = 1'000'000}, Rng{2026});
    const double z = test::variance_z(s.x, variance);
    double sum = 0;
    for (Index r = 0; r < s.x.rows(); ++r) sum += static_cast<double>(s.x(r, 0)) * s.x(r, 0);
    MESSAGE("data variance ", scale * scale, ": closed form ", variance, ", measured ", sum / 1e6, ", z = ", z);
    CHECK(std::abs(z) <= 4);
    // The mean stays 0 under a linear score.
    double mean = 0;
    for (Index r = 0; r < s.x.rows(); ++r) mean += s.x(r, 0) / 1e6;
    CHECK(std::abs(mean) <= 4.9 * std::sqrt(variance / 1e6));
  }
}

TEST_CASE("on exact scores 30 levels x 100 steps of .5 sigma^2 pass the energy test with 10,000 samples, 20 seeds each") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 30);
  for (const GaussianMixture& truth : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const test::Rejections r = test::rejections(truth, 20, 1, [&](std::uint64_t seed) {
      return annealed_langevin(truth, levels, {.samples = test::kSamples, .step_size_factor = .5}, Rng{seed}).x;
    });
    MESSAGE(truth.weights()[0], "-weighted mixture: ", 20 - r.count, " of 20 pass, smallest p-value ", r.least);
    CHECK(r.count <= 2);
  }
}

TEST_CASE("the chapter's ten levels are biased on mixtures, as is known: the energy test sees it with 10,000 samples") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  const GaussianMixture truth = GaussianMixture::three_gaussians_unequal();
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const Samples s = annealed_langevin(truth, levels, {.samples = 10'000}, Rng{seed});
    CHECK(energy_test(s.x, truth.sample(10'000, Rng{100 + seed}), {}, Rng{200 + seed}).p_value <= 1e-3);
    const MatrixD r = truth.responsibilities(MatrixD(s.x.view()), 0);
    double weights[3] = {};
    for (Index i = 0; i < r.rows(); ++i) {
      for (Index k = 0; k < 3; ++k) weights[k] += r(i, k) / static_cast<double>(r.rows());
    }
    MESSAGE("mode weights ", weights[0], " ", weights[1], " ", weights[2], ", true .5 .3 .2");
  }
}
