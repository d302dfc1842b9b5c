// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include "samplers/rejections.h"
#include "tweedie/samplers/probability_flow.h"

using namespace tweedie;

TEST_CASE("on exact scores the flow takes p_T to p: the energy test with 10,000 samples, 20 seeds on both mixtures") {
  // From the oracle's own p_T: the prior N(0, 50^2 I) misses the mean (-.6, 1.1) of the unequal mixture, which is worth .6 points
  // of two weights (bench/study_likelihood.cpp).
  for (const GaussianMixture& truth : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const test::Rejections r = test::rejections(truth, 20, 1, [&](std::uint64_t seed) {
      return probability_flow(truth, ve(), truth.noised(1, 50).sample(test::kSamples, Rng{1000 + seed}), {}).x;
    });
    MESSAGE(truth.weights()[0], "-weighted mixture: ", 20 - r.count, " of 20 pass, smallest p-value ", r.least);
    CHECK(r.count <= 2);
  }
}

TEST_CASE("power: the energy test sees a flow with the missing factor 1/2, and one that starts at a tenth of the prior") {
  const GaussianMixture truth = GaussianMixture::three_gaussians();
  const FunctionScore doubled(2, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    truth.score(y, sigma, nullptr, out);
    for (Index r = 0; r < out.rows(); ++r) {
      for (double& v : out.row(r)) v *= 2;
    }
  });
  const Matrix reference = truth.sample(10'000, Rng{101});
  const FlowSamples twice = probability_flow(doubled, ve(), {.samples = 10'000}, Rng{1});
  CHECK(energy_test(twice.x, reference, {}, Rng{201}).p_value <= 1e-3);
  MatrixD start(10'000, 2);
  Rng{1}.normals<double>(Purpose::user, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= 5;
  const FlowSamples narrow = probability_flow(truth, ve(), Matrix(start.view()), {});
  CHECK(energy_test(narrow.x, reference, {}, Rng{201}).p_value <= 1e-3);
}
