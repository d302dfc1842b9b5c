// study_posterior.cpp - what Metropolis-adjusted annealed Langevin and the conditional samplers reach on exact mixtures.
//
//   study_posterior mala                       both mixtures, 20 seeds, energy test with 10,000 samples; acceptance per level
//   study_posterior impute                     three_gaussians, one coordinate missing: calibration of RePaint, DPS, PiGDM, MMPS
//   study_posterior impute --replicates 1000 --draws 99 --seed 1 --threads 1
//
// impute: for each replicate a true row is drawn, one of its coordinates hidden and filled in `draws` times. Columns: NFE,
// evaluations; chi^2 of the true value's rank in 20 bins (19 degrees of freedom; p = .001 at 43.8) and its p; KS(PIT), the
// Kolmogorov distance of all imputations' probability transforms F(x | known) from uniform, F exact (the first line shows
// what chance gives); seconds.
//
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/mala.h"
#include "tweedie/samplers/posterior.h"
#include "tweedie/samplers/repaint.h"

using namespace tweedie;

namespace {

struct Arguments {
  std::string study = "impute";
  Index replicates = 1000, draws = 99, seeds = 20;
  std::uint64_t seed = 1;
  int threads = 1;
};

template <class T>
void read(const std::string& name, const char* text, T& value) {
  const auto result = std::from_chars(text, text + std::strlen(text), value);
  check(result.ec == std::errc() && *result.ptr == '\0', name, ": '", text, "' is no number");
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  if (argc > 1) a.study = argv[1];
  check(a.study == "mala" || a.study == "impute", "unknown study ", a.study, "; choose mala or impute");
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--replicates")
      read(name, argv[i + 1], a.replicates);
    else if (name == "--draws")
      read(name, argv[i + 1], a.draws);
    else if (name == "--seeds")
      read(name, argv[i + 1], a.seeds);
    else if (name == "--seed")
      read(name, argv[i + 1], a.seed);
    else if (name == "--threads")
      read(name, argv[i + 1], a.threads);
    else
      fail("unknown option ", name);
  }
  return a;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// ---- mala ----

void study_mala(const Arguments& a) {
  struct Plan {
    Index levels, steps;
  };
  std::printf("MALA, a = 2 sigma^2 (half), sigma 50 to .01, 10,000 samples, %td seeds: energy test at 1e-3\n\n", a.seeds);
  std::printf("%-24s %6s %6s %8s %12s %8s   acceptance, first level to last\n", "mixture", "levels", "steps", "passed",
              "smallest p", "s/run");
  for (const bool unequal : {false, true}) {
    const GaussianMixture truth = unequal ? GaussianMixture::three_gaussians_unequal() : GaussianMixture::three_gaussians();
    for (const Plan plan : {Plan{10, 100}, Plan{100, 10}}) {
      const NoiseLevels levels = NoiseLevels::geometric(50, .01, plan.levels);
      Index passed = 0;
      double least = 1, seconds = 0;
      std::vector<double> acceptance;
      for (Index i = 0; i < a.seeds; ++i) {
        const std::uint64_t seed = a.seed + static_cast<std::uint64_t>(i);
        const auto begin = std::chrono::steady_clock::now();
        const MalaSamples s = mala(truth, levels, {.samples = 10'000, .steps_per_level = plan.steps}, Rng{seed});
        seconds += seconds_since(begin) / static_cast<double>(a.seeds);
        const PermutationTest test = energy_test(s.x, truth.sample(10'000, Rng{100 + seed}), {}, Rng{200 + seed});
        passed += test.p_value > 1e-3;
        least = std::min(least, test.p_value);
        acceptance = s.acceptance;
      }
      std::printf("%-24s %6td %6td %5td/%td %12.3f %8.1f  ", unequal ? "three_gaussians_unequal" : "three_gaussians", plan.levels,
                  plan.steps, passed, a.seeds, least, seconds);
      for (int i = 0; i < 10; ++i) {
        const double at = static_cast<double>(i) / 9 * static_cast<double>(plan.levels - 1);
        std::printf(" %.3f", acceptance[static_cast<std::size_t>(at)]);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}

// ---- impute ----

// The law of the missing coordinate given the other, exactly.
struct Conditional {
  std::vector<double> weights, means, deviations;
  double cdf(double x) const {
    double p = 0;
    for (std::size_t k = 0; k < weights.size(); ++k)
      p += weights[k] * .5 * std::erfc((means[k] - x) / deviations[k] / std::sqrt(2));
    return p;
  }
};

struct Problem {
  MatrixD truth;                          // (n, 2)
  MatrixD known;                          // (n, 2), NaN where missing
  Index missing;                          // the hidden column
  std::vector<Conditional> conditionals;  // (n)
};

Problem make_problem(const GaussianMixture& mixture, Index n, Index missing, const Rng& rng) {
  Problem problem{MatrixD(mixture.sample(n, rng).view()), {}, missing, {}};
  problem.known = problem.truth;
  const Index seen = 1 - missing;
  const LinearObservation exact = LinearObservation::coordinates(2, std::span(&seen, 1), 0);
  for (Index r = 0; r < n; ++r) {
    problem.known(r, missing) = std::nan("");
    const GaussianMixture posterior = exact_posterior(mixture, exact, std::span(&problem.truth(r, seen), 1));
    Conditional c;
    for (Index k = 0; k < posterior.components(); ++k) {
      c.weights.push_back(posterior.weights()[static_cast<std::size_t>(k)]);
      c.means.push_back(posterior.means()(k, missing));
      c.deviations.push_back(std::sqrt(posterior.covariance(k)(missing, missing)));
    }
    problem.conditionals.push_back(std::move(c));
  }
  return problem;
}

struct Calibration {
  double chi_square = 0;  // 20 bins of the true value's rank
  double pit_distance = 0;
};

Calibration calibrate(const Problem& problem, const MatrixD& x, Index draws) {
  constexpr Index kBins = 20;
  std::array<double, kBins> counts{};
  std::vector<float> pit;
  const Index n = problem.truth.rows();
  for (Index r = 0; r < n; ++r) {
    Index rank = 0;
    for (Index k = 0; k < draws; ++k) {
      const double value = x(r * draws + k, problem.missing);
      rank += value < problem.truth(r, problem.missing);
      pit.push_back(static_cast<float>(problem.conditionals[static_cast<std::size_t>(r)].cdf(value)));
    }
    counts[static_cast<std::size_t>(rank * kBins / (draws + 1))] += 1;
  }
  Calibration result;
  const double expected = static_cast<double>(n) / kBins;
  for (const double c : counts) result.chi_square += (c - expected) * (c - expected) / expected;
  result.pit_distance = kolmogorov_smirnov(pit, [](double u) { return std::clamp(u, 0., 1.); }).statistic;
  return result;
}

// P(chi^2_19 > x) by Wilson & Hilferty.
double tail_19(double x) {
  const double c = 2. / (9 * 19);
  return .5 * std::erfc((std::cbrt(x / 19) - (1 - c)) / std::sqrt(c) / std::sqrt(2));
}

void print(const char* name, const std::string& setting, std::int64_t evaluations, const Calibration& c, double seconds) {
  std::printf("%-9s %-44s %7lld %9.1f %9.2g %9.4f %8.1f\n", name, setting.c_str(), static_cast<long long>(evaluations),
              c.chi_square, tail_19(c.chi_square), c.pit_distance, seconds);
  std::fflush(stdout);
}

void study_impute(const Arguments& a) {
  const GaussianMixture mixture = GaussianMixture::three_gaussians();
  for (const Index missing : {Index{0}, Index{1}}) {
    const Problem problem = make_problem(mixture, a.replicates, missing, Rng{a.seed});
    std::printf("\nthree_gaussians, coordinate %td missing, %td replicates x %td draws\n", missing, a.replicates, a.draws);
    std::printf("%-9s %-44s %7s %9s %9s %9s %8s\n", "method", "setting", "NFE", "chi^2_19", "p", "KS(PIT)", "s");
    MatrixD exact(a.replicates * a.draws, 2);
    const Index seen = 1 - missing;
    for (Index r = 0; r < a.replicates; ++r) {
      const LinearObservation o = LinearObservation::coordinates(2, std::span(&seen, 1), 0);
      const Matrix draws = exact_posterior(mixture, o, std::span(&problem.truth(r, seen), 1))
                               .sample(a.draws, Rng{a.seed + 7 + static_cast<std::uint64_t>(r)});
      for (Index k = 0; k < a.draws; ++k) exact(r * a.draws + k, missing) = draws(k, missing);
    }
    print("exact", "draws of p(x | known)", 0, calibrate(problem, exact, a.draws), 0);
    struct Plan {
      Index levels, resample;
      double sigma_min;
    };
    for (const Plan plan : {Plan{100, 1, .01}, Plan{100, 3, .01}, Plan{30, 10, .01}, Plan{100, 10, .01}, Plan{100, 30, .01},
                            Plan{200, 10, .01}, Plan{200, 30, .01}}) {
      const auto begin = std::chrono::steady_clock::now();
      const NoiseLevels levels = NoiseLevels::geometric(50, plan.sigma_min, plan.levels);
      const Matrix known(problem.known.view());
      const Samples s = repaint(mixture, levels.values(), known, {.draws = a.draws, .resample = plan.resample}, Rng{a.seed + 1});
      print("RePaint", join(plan.levels, " levels, 50 to ", plan.sigma_min, ", r = ", plan.resample), s.evaluations,
            calibrate(problem, MatrixD(s.x.view()), a.draws), seconds_since(begin));
    }
    const LinearObservation observation = LinearObservation::coordinates(2, std::span(&seen, 1), 1e-4);
    MatrixD y(a.replicates, 1);
    for (Index r = 0; r < a.replicates; ++r) y(r, 0) = problem.truth(r, seen);
    for (const PosteriorMethod method : {PosteriorMethod::dps, PosteriorMethod::pigdm, PosteriorMethod::mmps}) {
      for (const double eta : {1., 0.}) {
        const auto begin = std::chrono::steady_clock::now();
        const NoiseLevels levels = NoiseLevels::geometric(50, .01, 200);
        const SamplesD s = posterior_sample(mixture, observation, y, levels.values(),
                                            {.method = method, .draws = a.draws, .eta = eta}, Rng{a.seed + 2});
        print(to_string(method), join("200 levels, sigma_y = .01, eta = ", eta), s.evaluations, calibrate(problem, s.x, a.draws),
              seconds_since(begin));
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments a = parse(argc, argv);
    set_threads(a.threads);
    a.study == "mala" ? study_mala(a) : study_impute(a);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
