// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include "samplers/rejections.h"
#include "tweedie/samplers/mala.h"

using namespace tweedie;

TEST_CASE("MALA, 100 levels x 10 steps of 2 sigma^2 passes the energy test with 10,000 samples, 20 seeds on both mixtures") {
  const NoiseLevels levels = NoiseLevels::geometric(50, .01, 100);
  for (const GaussianMixture& truth : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const test::Rejections r = test::rejections(
        truth, 20, 1, [&](std::uint64_t seed) { return mala(truth, levels, {.samples = test::kSamples}, Rng{seed}).x; });
    MESSAGE(truth.weights()[0], "-weighted mixture: ", 20 - r.count, " of 20 pass, smallest p-value ", r.least);
    CHECK(r.count <= 2);
  }
}
