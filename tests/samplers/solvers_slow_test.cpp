// Every step sampler on exact mixture scores against the truth; the table over 20 seeds is bench/study_samplers.cpp's.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "samplers/rejections.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/reverse_sde.h"

using namespace tweedie;

namespace {

using Start = ConstRows<float>;

// Started from alpha x0 + std eps, for the prior N(0, std^2 I) misses the unequal mixture's mean.
struct Sampler {
  std::string name;
  double alpha, std;
  std::function<Samples(const GaussianMixture&, const Start&, const Rng&)> run;
};

test::Rejections rejections(const Sampler& sampler, const GaussianMixture& truth, int seeds, std::uint64_t first) {
  const GaussianMixture noised = truth.noised(sampler.alpha, sampler.std);
  return test::rejections(truth, seeds, first, [&](std::uint64_t seed) {
    return sampler.run(truth, noised.sample(test::kSamples, Rng{300 + seed}), Rng{seed}).x;
  });
}

const Process kVp = vp();
const double kAlpha = kVp.alpha(kVp.t_max()), kStd = kVp.sigma(kVp.t_max());

}  // namespace

TEST_CASE("on exact scores every sampler passes the energy test with 10,000 samples, two seeds on each of two mixtures") {
  const std::vector<Sampler> samplers = {
      {"heun 40", 1, 80, [](auto& m, auto& x, auto& rng) { return heun(m, karras(40, .002, 80), x, {}, rng); }},
      {"2M 50", 1, 80, [](auto& m, auto& x, auto& rng) { return dpm_solver_pp(m, karras(50, .002, 80), x, {}, rng); }},
      {"2M-SDE 100", 1, 80,
       [](auto& m, auto& x, auto& rng) { return dpm_solver_pp(m, karras(100, .002, 80), x, {.eta = 1}, rng); }},
      {"ddim eta 0, 200", 1, 80, [](auto& m, auto& x, auto& rng) { return ddim(m, karras(200, .002, 80), x, {}, rng); }},
      {"ddim eta 1, 200", 1, 80, [](auto& m, auto& x, auto& rng) { return ddim(m, karras(200, .002, 80), x, {.eta = 1}, rng); }},
      {"reverse SDE, ve, 400", 1, 50, [](auto& m, auto& x, auto& rng) { return reverse_sde(m, ve(), x, {.steps = 400}, rng); }},
      {"reverse SDE, vp, 1000", kAlpha, kStd,
       [](auto& m, auto& x, auto& rng) { return reverse_sde(m, kVp, x, {.steps = 1000}, rng); }},
      {"ddpm 500", kAlpha, kStd, [](auto& m, auto& x, auto& rng) { return ddpm(m, kVp, x, {.steps = 500}, rng); }},
      {"predictor-corrector 200, expected", 1, 50,
       [](auto& m, auto& x, auto& rng) { return predictor_corrector(m, geometric_schedule(200, .01, 50), x, {}, rng); }},
      {"predictor-corrector 200, batch", 1, 50,
       [](auto& m, auto& x, auto& rng) {
         return predictor_corrector(m, geometric_schedule(200, .01, 50), x, {.norms = CorrectorNorms::batch}, rng);
       }},
  };
  for (const Sampler& sampler : samplers) {
    const test::Rejections even = rejections(sampler, GaussianMixture::three_gaussians(), 2, 1);
    const test::Rejections uneven = rejections(sampler, GaussianMixture::three_gaussians_unequal(), 2, 3);
    CAPTURE(sampler.name);
    CAPTURE(even.least);
    CAPTURE(uneven.least);
    CHECK(even.count + uneven.count <= 1);
  }
}

TEST_CASE("too few steps are seen: the same test rejects each at these counts") {
  const std::vector<Sampler> samplers = {
      {"heun 8", 1, 80, [](auto& m, auto& x, auto& rng) { return heun(m, karras(8, .002, 80), x, {}, rng); }},
      {"2M 10", 1, 80, [](auto& m, auto& x, auto& rng) { return dpm_solver_pp(m, karras(10, .002, 80), x, {}, rng); }},
      {"2M-SDE 12", 1, 80,
       [](auto& m, auto& x, auto& rng) { return dpm_solver_pp(m, karras(12, .002, 80), x, {.eta = 1}, rng); }},
      {"ddim eta 0, 20", 1, 80, [](auto& m, auto& x, auto& rng) { return ddim(m, karras(20, .002, 80), x, {}, rng); }},
      {"ddim eta 1, 20", 1, 80, [](auto& m, auto& x, auto& rng) { return ddim(m, karras(20, .002, 80), x, {.eta = 1}, rng); }},
      {"reverse SDE, ve, 12", 1, 50, [](auto& m, auto& x, auto& rng) { return reverse_sde(m, ve(), x, {.steps = 12}, rng); }},
      {"ddpm 10", kAlpha, kStd, [](auto& m, auto& x, auto& rng) { return ddpm(m, kVp, x, {.steps = 10}, rng); }},
      {"predictor-corrector 25", 1, 50,
       [](auto& m, auto& x, auto& rng) { return predictor_corrector(m, geometric_schedule(25, .01, 50), x, {}, rng); }},
  };
  for (const Sampler& sampler : samplers) {
    CAPTURE(sampler.name);
    CHECK(rejections(sampler, GaussianMixture::three_gaussians_unequal(), 1, 1).count == 1);
  }
}
