// study_samplers.cpp - how many steps every sampler needs on exact mixture scores.
//
//   study_samplers                        20 seeds, about an hour on one core
//   study_samplers --seeds 5 --only heun  fewer seeds; samplers whose name starts with "heun"
//   study_samplers --start p_T            from the mixture's own law at the largest noise level (default: prior, N(0, std^2 I))
//   study_samplers --named                the rows that the table of docs/notes/step2.md names, and no others
//
// Per sampler and mixture (three_gaussians, three_gaussians_unequal): 10,000 samples against fresh draws in a permutation test of
// the energy distance, how many seeds pass at 1e-3, and the smallest p-value. A true sampler passes 20 of 20 in 98 of 100 tables.
// Row "exact draws" is such a sampler. Rows share their reference draws, and converged deterministic samplers of one start their
// samples too, so that they fall together.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/mala.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/reverse_sde.h"

using namespace tweedie;

namespace {

constexpr Index kSamples = 10'000;

struct Sampler {
  std::string name;
  bool named;         // in the table of docs/notes/step2.md
  double alpha, std;  // the start is alpha x0 + std eps
  std::function<Samples(const GaussianMixture&, ConstRows<float> start, const Rng&)> run;
};

std::vector<Sampler> samplers() {
  using Model = GaussianMixture;
  using Start = ConstRows<float>;
  constexpr double kLow = .002, kHigh = 80, kVeHigh = 50;
  const Process variance_exploding = ve(), variance_preserving = vp();
  const double vp_alpha = variance_preserving.alpha(variance_preserving.t_max()),
               vp_std = variance_preserving.sigma(variance_preserving.t_max());
  std::vector<Sampler> all;
  all.push_back({"exact draws", true, 0, 0, [](const Model& m, const Start&, const Rng& rng) {
                   return Samples{m.sample(kSamples, rng), 0, {}, {}};
                 }});
  for (const Index n : {14, 18, 25, 40}) {
    all.push_back({"heun " + std::to_string(n), n == 40, 1, kHigh,
                   [=](const Model& m, const Start& x, const Rng& rng) { return heun(m, karras(n, kLow, kHigh), x, {}, rng); }});
  }
  for (const Index n : {18, 64}) {
    all.push_back({"heun churn 40 " + std::to_string(n), false, 1, kHigh, [=](const Model& m, const Start& x, const Rng& rng) {
                     return heun(m, karras(n, kLow, kHigh), x, {.s_churn = 40}, rng);
                   }});
  }
  for (const Index n : {15, 30, 50}) {
    all.push_back({"2M " + std::to_string(n), n == 50, 1, kHigh, [=](const Model& m, const Start& x, const Rng& rng) {
                     return dpm_solver_pp(m, karras(n, kLow, kHigh), x, {}, rng);
                   }});
  }
  for (const Index n : {20, 50, 100}) {
    all.push_back({"2M-SDE " + std::to_string(n), n == 100, 1, kHigh, [=](const Model& m, const Start& x, const Rng& rng) {
                     return dpm_solver_pp(m, karras(n, kLow, kHigh), x, {.eta = 1}, rng);
                   }});
  }
  for (const double eta : {0., 1.}) {
    for (const Index n : {50, 200, 500}) {
      all.push_back({"ddim eta " + std::to_string(static_cast<int>(eta)) + ", " + std::to_string(n), n == 500, 1, kHigh,
                     [=](const Model& m, const Start& x, const Rng& rng) {
                       return ddim(m, karras(n, kLow, kHigh), x, {.eta = eta}, rng);
                     }});
    }
  }
  for (const Index n : {100, 200, 500}) {
    all.push_back(
        {"Euler-Maruyama ve " + std::to_string(n), n == 500, 1, kVeHigh, [=](const Model& m, const Start& x, const Rng& rng) {
           return reverse_sde(m, variance_exploding, x, {.steps = n}, rng);
         }});
  }
  for (const Index n : {500, 1000}) {
    all.push_back(
        {"Euler-Maruyama vp " + std::to_string(n), true, vp_alpha, vp_std, [=](const Model& m, const Start& x, const Rng& rng) {
           return reverse_sde(m, variance_preserving, x, {.steps = n}, rng);
         }});
  }
  for (const Index n : {100, 200, 500}) {
    all.push_back({"ddpm " + std::to_string(n), n == 500, vp_alpha, vp_std, [=](const Model& m, const Start& x, const Rng& rng) {
                     return ddpm(m, variance_preserving, x, {.steps = n}, rng);
                   }});
  }
  for (const CorrectorNorms norms : {CorrectorNorms::expected, CorrectorNorms::batch}) {
    for (const Index n : {50, 100, 200}) {
      all.push_back({std::string("predictor-corrector ") + to_string(norms) + " " + std::to_string(n), n == 200, 1, kVeHigh,
                     [=](const Model& m, const Start& x, const Rng& rng) {
                       return predictor_corrector(m, geometric_schedule(n, .01, kVeHigh), x, {.norms = norms}, rng);
                     }});
    }
  }
  all.push_back({"annealed Langevin .5 sigma^2 30 x 100", true, 1, kVeHigh, [=](const Model& m, const Start& x, const Rng& rng) {
                   return annealed_langevin(m, NoiseLevels::geometric(kVeHigh, .01, 30), x, {.step_size_factor = .5}, rng);
                 }});
  all.push_back({"mala 100 x 10", true, 1, kVeHigh, [=](const Model& m, const Start& x, const Rng& rng) {
                   return mala(m, NoiseLevels::geometric(kVeHigh, .01, 100), x, {.steps_per_level = 10}, rng);
                 }});
  return all;
}

// The start: of the mixture's own law, or of the prior, with the normals that the samplers would draw for it.
Matrix start(const Sampler& sampler, const GaussianMixture& truth, bool own, std::uint64_t seed) {
  if (own) return truth.noised(sampler.alpha, sampler.std).sample(kSamples, Rng{300 + seed});
  Matrix x(kSamples, truth.dim());
  Rng{seed}.normals<float>(Purpose::prior, 0, 0, x);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] *= static_cast<float>(sampler.std);
  return x;
}

void row(const Sampler& sampler, bool own, int seeds) {
  std::printf("%-38s", sampler.name.c_str());
  std::int64_t evaluations = 0;
  for (const GaussianMixture& truth : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    int passed = 0;
    double least = 1;
    std::string failed;
    for (int i = 1; i <= seeds; ++i) {
      const std::uint64_t seed = static_cast<std::uint64_t>(i);
      const Samples s = sampler.run(truth, start(sampler, truth, own, seed), Rng{seed});
      evaluations = s.evaluations;
      const PermutationTest test =
          energy_test(s.x, truth.sample(kSamples, Rng{100 + seed}), {.stop_after_exceedances = 1}, Rng{200 + seed});
      const bool pass = test.p_value > 1e-3;
      passed += pass;
      if (!pass) failed += " " + std::to_string(i);
      least = std::min(least, test.p_value);
    }
    std::printf("  %2d of %d (p >= %.4f%s%s)", passed, seeds, least, failed.empty() ? "" : "; not", failed.c_str());
  }
  std::printf("  %5ld\n", static_cast<long>(evaluations));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int seeds = 20;
  std::string only, from = "prior";
  bool named = false;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--named") {
      named = true;
      continue;
    }
    ++i;
    if (name == "--seeds" && std::atoi(value.c_str()) > 0) {
      seeds = std::atoi(value.c_str());
    } else if (name == "--only") {
      only = value;
    } else if (name == "--start" && (value == "prior" || value == "p_T")) {
      from = value;
    } else if (name == "--threads" && std::atoi(value.c_str()) > 0) {
      set_threads(std::atoi(value.c_str()));
    } else {
      std::fprintf(stderr,
                   "study_samplers: option %s %s; options: --seeds N, --only NAME, --named, --start prior|p_T, --threads N\n",
                   name.c_str(), value.c_str());
      return 2;
    }
  }
  std::printf("start: %s\n%-38s  %-24s %-24s   NFE\n", from.c_str(), "sampler, intervals", "three_gaussians",
              "three_gaussians_unequal");
  for (const Sampler& sampler : samplers()) {
    if (sampler.name.starts_with(only) && (sampler.named || !named)) row(sampler, from == "p_T", seeds);
  }
}
