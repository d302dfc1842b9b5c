// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/langevin_chain.h"

#include <cmath>
#include <limits>

#include "tweedie/kernels/kernels.h"

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

template <class S>
void run_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels, bool denoise, RunOptions run, const Rng& rng,
               SamplesX<S>& samples) {
  run.steps = total_steps(levels, run.sampler);
  run_chunks<S>(model, run, rng, samples, [&](Chunk<S>& chunk) {
    std::uint32_t step = 0;
    for (std::size_t i = 0; i < levels.size(); ++i) {
      const ChainLevel& level = levels[i];
      for (Index t = 0; t < level.steps; ++t) {
        chunk.score(level.sigma);
        chunk.normals(Purpose::langevin, step++);
        kernels::langevin_update(chunk.size(), static_cast<S>(level.drift), static_cast<S>(level.noise), chunk.s.data(),
                                 chunk.z.data(), chunk.x.data());
        chunk.finish_step([&] {
          return join("level ", i, " (sigma = ", level.sigma, "), step ", t, " of ", level.steps, ", step size ",
                      level.step_size);
        });
      }
    }
    if (!denoise) return;
    const double sigma = levels.back().sigma;
    chunk.score(sigma);
    const S variance = static_cast<S>(sigma * sigma);
    for (Index i = 0; i < chunk.size(); ++i) chunk.x.data()[i] += variance * chunk.s.data()[i];
    chunk.check_bound([&] { return join("the final Tweedie step (sigma = ", sigma, ")"); });
  });
  samples.evaluations = run.steps + (denoise ? 1 : 0);  // also of no rows
}

template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, bool, RunOptions, const Rng&, SamplesX<float>&);
template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, bool, RunOptions, const Rng&, SamplesX<double>&);

}  // namespace tweedie::detail
