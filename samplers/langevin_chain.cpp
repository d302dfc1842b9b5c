// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/langevin_chain.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tweedie/kernels/kernels.h"
#include "tweedie/samplers/detail/linear_list.h"

namespace tweedie::detail {

namespace {

std::int64_t total_steps(const std::vector<ChainLevel>& levels, const char* sampler) {
  std::int64_t total = 0;
  for (const ChainLevel& level : levels) {
    check(level.steps >= 0, sampler, ": ", level.steps, " steps at a level; the number must not be negative");
    check(std::isfinite(level.drift) && level.drift >= 0 && std::isfinite(level.noise) && level.noise >= 0, sampler,
          ": step size ", level.step_size, " at sigma = ", level.sigma,
          "; step size, noise scale and temperature must be finite and not negative");
    check(level.steps <= std::numeric_limits<std::uint32_t>::max() - total, sampler, ": more than 2^32 steps in one run");
    total += level.steps;
  }
  return total;
}

}  // namespace

ChainLevel chain_level(double sigma, Index steps, double step_size, StepConvention convention, double noise_scale) {
  const bool half = convention == StepConvention::half;
  return {sigma, steps, step_size, half ? step_size / 2 : step_size, std::sqrt(half ? step_size : 2 * step_size) * noise_scale};
}

namespace {

std::string place_of(const std::vector<ChainLevel>& levels, std::size_t i, Index step) {
  const ChainLevel& level = levels[i];
  return join("level ", i, " (sigma = ", level.sigma, "), step ", step, " of ", level.steps, ", step size ", level.step_size);
}

std::string place_of_denoising(double sigma) { return join("the final Tweedie step (sigma = ", sigma, ")"); }

// The same steps for a model that takes them at once.
void run_chain_at_once(Chunk<float>& chunk, const std::vector<ChainLevel>& levels, bool denoise) {
  std::vector<std::int64_t> end;  // of each level's steps
  for (const ChainLevel& level : levels) end.push_back(level.steps + (end.empty() ? 0 : end.back()));
  const std::int64_t total = end.empty() ? 0 : end.back();
  const auto level_of = [&](std::int64_t i) {
    return static_cast<std::size_t>(std::upper_bound(end.begin(), end.end(), i) - end.begin());
  };
  const auto step = [&](std::int64_t i) -> ListedStep {
    const ChainLevel& level = i == total ? levels.back() : levels[level_of(i)];
    if (i == total) return {{.sigma = level.sigma, .x_s = level.sigma * level.sigma}, i, level.sigma, false};
    return {
        {.sigma = level.sigma, .x_s = level.drift, .x_z = level.noise, .draw = static_cast<std::uint32_t>(i)}, i, level.sigma};
  };
  const auto place = [&](std::int64_t i) {
    if (i == total) return place_of_denoising(levels.back().sigma);
    const std::size_t level = level_of(i);
    return place_of(levels, level, i - (end[level] - levels[level].steps));
  };
  run_at_once(chunk, {total + (denoise ? 1 : 0), step, place, false, Purpose::langevin});
}

bool has_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels) {
  std::vector<double> sigma;
  for (const ChainLevel& level : levels) sigma.push_back(level.sigma);
  return model.has_chain(sigma);
}

}  // namespace

template <class S>
void run_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels, bool denoise, RunOptions run, const Rng& rng,
               SamplesX<S>& samples) {
  run.steps = total_steps(levels, run.sampler);
  if constexpr (std::is_same_v<S, float>) {
    if (has_chain(model, levels)) {
      run.together = true;
      run_chunks<float>(model, run, rng, samples, [&](Chunk<float>& chunk) { run_chain_at_once(chunk, levels, denoise); });
      samples.evaluations = run.steps + (denoise ? 1 : 0);  // also of no rows
      return;
    }
  }
  run_chunks<S>(model, run, rng, samples, [&](Chunk<S>& chunk) {
    std::uint32_t step = 0;
    for (std::size_t i = 0; i < levels.size(); ++i) {
      const ChainLevel& level = levels[i];
      for (Index t = 0; t < level.steps; ++t) {
        chunk.score(level.sigma);
        chunk.normals(Purpose::langevin, step++);
        kernels::langevin_update(chunk.size(), static_cast<S>(level.drift), static_cast<S>(level.noise), chunk.s.data(),
                                 chunk.z.data(), chunk.x.data());
        chunk.finish_step([&] { return place_of(levels, i, t); });
      }
    }
    if (!denoise) return;
    const double sigma = levels.back().sigma;
    chunk.score(sigma);
    const S variance = static_cast<S>(sigma * sigma);
    for (Index i = 0; i < chunk.size(); ++i) chunk.x.data()[i] += variance * chunk.s.data()[i];
    chunk.check_bound([&] { return place_of_denoising(sigma); });
  });
  samples.evaluations = run.steps + (denoise ? 1 : 0);  // also of no rows
}

template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, bool, RunOptions, const Rng&, SamplesX<float>&);
template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, bool, RunOptions, const Rng&, SamplesX<double>&);

}  // namespace tweedie::detail
