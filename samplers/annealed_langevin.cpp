// SPDX-License-Identifier: MIT
#include "tweedie/samplers/annealed_langevin.h"

#include <algorithm>
#include <cmath>

#include "tweedie/samplers/detail/langevin_chain.h"

namespace tweedie {

namespace {

void check_options(const AnnealedLangevinOptions& options) {
  check(options.samples >= 0, "annealed_langevin: samples = ", options.samples, " must not be negative");
  check(options.steps_per_level >= 0, "annealed_langevin: steps_per_level = ", options.steps_per_level, " must not be negative");
  check(std::isfinite(options.step_size_factor) && options.step_size_factor > 0,
        "annealed_langevin: step_size_factor = ", options.step_size_factor, " must be positive and finite");
  check(!options.epsilon || (std::isfinite(*options.epsilon) && *options.epsilon > 0),
        "annealed_langevin: epsilon = ", options.epsilon.value_or(0), " must be positive and finite");
  check(std::isfinite(options.temperature) && options.temperature >= 0, "annealed_langevin: temperature = ", options.temperature,
        " must be finite and not negative");
}

// The steps of every level. Where the data are narrow beside sigma the score is -x / sigma^2 and a step multiplies x by 1 - h /
// sigma^2.
std::vector<detail::ChainLevel> chain_levels(const NoiseLevels& levels, const AnnealedLangevinOptions& options) {
  const bool chapter = options.temperature_mode == TemperatureMode::chapter;
  const double base = options.epsilon ? *options.epsilon / (levels.min() * levels.min()) : options.step_size_factor;
  const double factor = chapter ? base * options.temperature : base;  // a_i / sigma_i^2
  const double limit = options.convention == StepConvention::half ? 4 : 2;
  check(factor <= limit, "annealed_langevin: steps of ", factor, " sigma^2 are unstable, the bound is ", limit,
        " sigma^2 in the ", to_string(options.convention), " convention; ",
        chapter           ? "with temperature_mode chapter use a temperature of at most "
        : options.epsilon ? "use an epsilon of at most "
                          : "use a step_size_factor of at most ",
        chapter           ? limit / base
        : options.epsilon ? limit * levels.min() * levels.min()
                          : limit,
        chapter ? ", or temperature_mode noise" : "");
  std::vector<detail::ChainLevel> chain;
  for (const double sigma : levels.values()) {
    chain.push_back(detail::chain_level(sigma, options.steps_per_level, factor * sigma * sigma, options.convention,
                                        std::sqrt(options.temperature)));
  }
  return chain;
}

template <class S>
SamplesX<S> anneal(const ScoreModel& model, const NoiseLevels& levels, MatrixX<S> x, const AnnealedLangevinOptions& options,
                   const Rng& rng) {
  check_options(options);
  const double largest = std::max(levels.max(), detail::largest_entry<S>(x, "annealed_langevin"));
  SamplesX<S> samples{std::move(x), 0, {}, {}};
  const detail::RunOptions run{.sampler = "annealed_langevin",
                               .save_every = options.save_every,
                               .trajectory_rows = options.trajectory_rows,
                               .chunk_rows = options.chunk_rows,
                               .bound = 1e6 * largest,
                               .remedy = "use a smaller step_size_factor or temperature, or train the model further",
                               .progress = &options.progress};
  detail::run_chain(model, chain_levels(levels, options), options.denoise, run, rng, samples);
  return samples;
}

}  // namespace

const char* to_string(TemperatureMode mode) { return mode == TemperatureMode::noise ? "noise" : "chapter"; }

TemperatureMode temperature_mode(std::string_view name) {
  if (name == "noise") return TemperatureMode::noise;
  if (name == "chapter") return TemperatureMode::chapter;
  fail("temperature mode '", name, "' is unknown; choose noise (noise times sqrt(T)) or chapter (step times T too)");
}

Samples annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, const AnnealedLangevinOptions& options,
                          const Rng& rng) {
  check_options(options);
  return anneal(model, levels, detail::prior_draw<float>(options.samples, model.dim(), levels.max(), rng), options, rng);
}

Samples annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, ConstRows<float> x_init,
                          const AnnealedLangevinOptions& options, const Rng& rng) {
  return anneal(model, levels, Matrix(x_init), options, rng);
}

SamplesD annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, ConstRows<double> x_init,
                           const AnnealedLangevinOptions& options, const Rng& rng) {
  return anneal(model, levels, MatrixD(x_init), options, rng);
}

Matrix annealed_langevin_dynamics(const ScoreModel& model, const NoiseLevels& levels, Index num_samples, const Rng& rng,
                                  Index steps_per_level, double step_size_factor) {
  return annealed_langevin(model, levels,
                           {.samples = num_samples, .steps_per_level = steps_per_level, .step_size_factor = step_size_factor},
                           rng)
      .x;
}

Matrix annealed_langevin_with_temperature(const ScoreModel& model, const NoiseLevels& levels, Index num_samples, const Rng& rng,
                                          double temperature, Index steps_per_level) {
  return annealed_langevin(model, levels,
                           {.samples = num_samples,
                            .steps_per_level = steps_per_level,
                            .temperature = temperature,
                            .temperature_mode = TemperatureMode::chapter},
                           rng)
      .x;
}

}  // namespace tweedie
