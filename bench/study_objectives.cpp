// study_objectives.cpp - explicit, sliced and denoising score matching come to the same score at one fixed noise level.
//
//   study_objectives                                   Gaussian and three_gaussians at sigma = .5, 4000 steps of 256
//   study_objectives --steps 8000 --sigma .3 --batch 512
//
// The chapter's network with the one level, trained on fresh draws by each objective from the same start and on the same rows
// and noise. Prints error = E sigma^2 |ds|^2 / D against the exact score with its standard error, relative = E|ds|^2 / E|s|^2,
// the scale E<s_model, s> / E|s|^2 (1 for the score, 1/D for a wrong normalisation of the directions), and milliseconds a step.
// Adam 1e-3 with cosine decay to 0, EMA .999.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

struct Arguments {
  std::int64_t steps = 4000;
  Index batch = 256, width = 64, draws = 50'000;
  double sigma = .5;
  std::uint64_t seed = 1;
};

template <class T>
void read(const char* name, const char* text, T& value) {
  const auto result = std::from_chars(text, text + std::strlen(text), value);
  check(result.ec == std::errc() && *result.ptr == '\0', name, ": '", text, "' is no number");
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    check(i + 1 < argc, name, " needs a value");
    const char* value = argv[i + 1];
    if (name == "--steps") {
      read("--steps", value, a.steps);
    } else if (name == "--batch") {
      read("--batch", value, a.batch);
    } else if (name == "--width") {
      read("--width", value, a.width);
    } else if (name == "--draws") {
      read("--draws", value, a.draws);
    } else if (name == "--sigma") {
      read("--sigma", value, a.sigma);
    } else if (name == "--seed") {
      read("--seed", value, a.seed);
    } else {
      fail(name, ": unknown; give --steps, --batch, --width, --draws, --sigma or --seed");
    }
  }
  return a;
}

FreshRows fresh_draws(const GaussianMixture& mixture, const Rng& rng, Index batch) {
  return [mixture, rng, batch](std::uint64_t first_row, Rows<float> out) {
    Rng stream(rng.key(), first_row / static_cast<std::uint64_t>(batch));
    const Matrix rows = mixture.sample(out.rows(), stream.split());
    for (Index r = 0; r < out.rows(); ++r) std::copy(rows.row(r).begin(), rows.row(r).end(), out.row(r).begin());
  };
}

// E<s_model, s> / E|s|^2.
double scale_of(const ScoreNetwork& net, const GaussianMixture& oracle, double sigma, Index draws, Rng rng) {
  const GaussianMixture noised = oracle.noised(1, sigma);
  const Matrix x = noised.sample(draws, rng);
  Matrix model(draws, x.cols()), exact(draws, x.cols());
  const auto level = static_cast<float>(sigma);
  net.score(x, std::span(&level, 1), nullptr, model.view());
  oracle.score(x, std::span(&level, 1), nullptr, exact.view());
  double product = 0, square = 0;
  for (Index i = 0; i < model.size(); ++i) {
    const double e = static_cast<double>(exact.data()[i]);
    product += static_cast<double>(model.data()[i]) * e;
    square += e * e;
  }
  return product / square;
}

void study(const char* name, const GaussianMixture& oracle, const Arguments& a) {
  std::printf("\n%s, D = %lld, sigma = %g, %lld steps of %lld\n", name, static_cast<long long>(oracle.dim()), a.sigma,
              static_cast<long long>(a.steps), static_cast<long long>(a.batch));
  std::printf("%-44s %10s %9s %9s %7s %8s\n", "objective", "error", "+-", "relative", "scale", "ms/step");
  std::vector<Objective> objectives = {Denoising{}, Explicit{}};
  for (const bool reduced : {false, true}) {
    for (const Projection p : {Projection::unit, Projection::gaussian, Projection::rademacher}) {
      objectives.push_back(Sliced{p, reduced});
    }
  }
  for (const Objective& objective : objectives) {
    Rng rng{a.seed};
    ScoreNetwork net({.data_dim = oracle.dim(), .hidden_dim = a.width}, NoiseLevels({a.sigma}), rng.split());
    const FreshRows draw = fresh_draws(oracle, rng.split(), a.batch);
    const TrainingStep last = train(net, draw,
                                    {.objective = objective,
                                     .steps = a.steps,
                                     .batch = a.batch,
                                     .schedule = {.kind = LearningRate::cosine},
                                     .log_every = a.steps},
                                    rng.split());
    const LevelError e = fisher_divergence(net, oracle, *net.levels(), {.draws = a.draws}, rng.split()).levels.front();
    std::printf("%-44s %10.3g %9.1g %9.3g %7.4f %8.3f\n", describe(objective).c_str(), e.error, e.standard_error, e.relative,
                scale_of(net, oracle, a.sigma, a.draws, rng.split()), 1e3 * last.seconds / static_cast<double>(a.steps));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments a = parse(argc, argv);
    set_threads(1);
    study("gaussian", GaussianMixture::gaussian(2, 1), a);
    study("three_gaussians", GaussianMixture::three_gaussians(), a);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "study_objectives: %s\n", error.what());
    return 1;
  }
}
