// demo_samplers.cpp - every sampler side by side, from the exact score and from one network; the network's density.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/cli/demo.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/core/statistics.h"
#include "tweedie/samplers/likelihood.h"

namespace tweedie::cli {

namespace {

constexpr Index kLevels = 30;  // of the Langevin chains

struct Setting {
  const char *key, *name;
  SamplingArguments arguments;
};

// `tweedie sample --sampler ...` with the settings that the summary names.
std::vector<Setting> settings() {
  return {
      {"annealed",
       "annealed Langevin, 30 levels x 50 steps",
       {.sampler = "annealed", .steps_per_level = 50, .step_size_factor = .5}},
      {"mala", "MALA, 30 levels x 10 steps", {.sampler = "mala"}},
      {"langevin",
       "Langevin at \u03C3 = .1, 600 steps",
       {.sampler = "langevin", .num_steps = 600, .step_size = .005, .sigma = .1, .init_scale = 3}},
      {"heun", "Heun (EDM), 40 intervals", {.sampler = "heun", .steps = 40}},
      {"heun_churn",
       "Heun with churn, 40 intervals",
       {.sampler = "heun", .steps = 40, .s_churn = 10, .s_tmin = .05, .s_tmax = 10}},
      {"ddim", "DDIM, \u03B7 = 0, 200 steps", {.sampler = "ddim", .steps = 200, .eta = 0}},
      {"ddim_ancestral", "DDIM, \u03B7 = 1, 200 steps", {.sampler = "ddim", .steps = 200, .eta = 1}},
      {"dpmpp_2m", "DPM-Solver++ 2M, 50 steps", {.sampler = "dpmpp_2m", .steps = 50}},
      {"dpmpp_2m_sde", "DPM-Solver++ 2M SDE, 100 steps", {.sampler = "dpmpp_2m_sde", .steps = 100}},
      {"reverse_sde", "reverse SDE (VE), 500 steps", {.sampler = "reverse_sde", .steps = 500}},
      {"predictor_corrector", "predictor-corrector, 200 levels", {.sampler = "predictor_corrector", .steps = 200}},
      {"ddpm", "DDPM, 500 steps", {.sampler = "ddpm", .steps = 500}},
      {"probability_flow", "probability flow, Dormand-Prince", {.sampler = "probability_flow"}},
  };
}

DemoSamples sampled(const DemoArguments& a, const Setting& setting, const ScoreModel& model, const NoiseLevels& levels, Rng rng) {
  const auto begin = std::chrono::steady_clock::now();
  DemoSamples s{.name = setting.name, .key = setting.key, .x = {}};
  s.x = draw_all(model, levels, a.samples, setting.arguments, rng, a.common.console, &s.evaluations);
  s.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return s;
}

}  // namespace

void Judge::operator()(DemoSamples& s) {
  const MatrixD members = truth_.responsibilities(MatrixD(s.x.view()), .01);
  s.weights.assign(static_cast<std::size_t>(truth_.components()), 0);
  const double share = 1 / static_cast<double>(s.x.rows());
  for (Index r = 0; r < s.x.rows(); ++r) {
    const auto row = members.row(r);
    s.weights[static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin())] += share;
    for (Index c = 0; c < 2; ++c) s.mean[c] += share * static_cast<double>(s.x(r, c));
  }
  s.energy = energy_distance(s.x, truth_.sample(s.x.rows(), rng_.split()));
  s.null_99 = null_99(s.x.rows());
}

double Judge::null_99(Index n) {
  if (n != null_rows_) {
    constexpr std::size_t kPairs = 300;
    std::vector<double> values;
    for (std::size_t i = 0; i < kPairs; ++i) {
      stop_if_interrupted();
      const Matrix x = truth_.sample(n, rng_.split()), y = truth_.sample(n, rng_.split());
      values.push_back(energy_distance(x, y));
    }
    std::sort(values.begin(), values.end());
    null_99_ = values[kPairs * 99 / 100 - 1];
    null_rows_ = n;
  }
  return null_99_;
}

std::vector<DemoSampler> run_demo_samplers(const DemoArguments& a, const GaussianMixture& truth, const Network& network,
                                           Rng rng) {
  const NoiseLevels levels = NoiseLevels::geometric(network.sigma_max(), network.sigma_min(), kLevels);
  std::vector<DemoSampler> all;
  for (const Setting& setting : settings()) {
    stop_if_interrupted();
    const Stage stage(a.common.console, setting.name);
    // One stream for both: the same starts and noise, so that what differs is the score.
    const Rng stream = rng.split();
    DemoSampler sampler{
        .name = setting.name, .key = setting.key, .exact = sampled(a, setting, truth, levels, stream), .network = std::nullopt};
    if (setting.arguments.sampler != "mala" || network.has_energy()) {
      sampler.network = sampled(a, setting, network, levels, stream);
    }
    all.push_back(std::move(sampler));
  }
  return all;
}

DensityGap measure_density(const DemoArguments& a, const GaussianMixture& truth, const Network& network, const Rng& rng) {
  Stage stage(a.common.console, "log-density of the EDM network");
  constexpr Index kRows = 500;
  const double sigma = network.sigma_min();
  const MatrixD x(truth.noised(1, sigma).sample(kRows, rng).view());
  const std::vector<double> exact = truth.log_density(x, sigma);
  // Tolerances of 1e-4 err by less than .001 nats on average; the standard error of these rows is larger.
  const LogDensity learned = log_density(network, x, {.rtol = 1e-4, .atol = 1e-4, .progress = stage.progress()});
  DensityGap gap{.rows = kRows};
  double square = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    gap.exact += exact[i] / kRows;
    gap.network += learned.nats[i] / kRows;
  }
  gap.kl = gap.exact - gap.network;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double difference = exact[i] - learned.nats[i] - gap.kl;
    square += difference * difference;
  }
  gap.standard_error = std::sqrt(square / (kRows - 1) / kRows);
  return gap;
}

}  // namespace tweedie::cli
