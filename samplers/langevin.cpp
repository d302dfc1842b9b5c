// SPDX-License-Identifier: MIT
#include "tweedie/samplers/langevin.h"

#include <algorithm>
#include <cmath>

#include "tweedie/samplers/detail/langevin_chain.h"

namespace tweedie {

namespace {

template <class S>
SamplesX<S> dynamics(const ScoreModel& model, double sigma, ConstRows<S> x_init, const LangevinOptions& options, const Rng& rng) {
  const double largest = std::max({1., sigma, detail::largest_entry(x_init, "langevin_dynamics")});
  SamplesX<S> samples{MatrixX<S>(x_init), 0, {}, {}};
  const detail::RunOptions run{
      .sampler = "langevin_dynamics",
      .save_every = options.save_every,
      .trajectory_rows = options.trajectory_rows,
      .chunk_rows = options.chunk_rows,
      .bound = 1e6 * largest,
      .remedy = "use a smaller step_size (on a Gaussian of variance v the drift coefficient must be below 2 v)",
      .progress = &options.progress};
  check(options.step_size > 0, "langevin_dynamics: step_size = ", options.step_size, " must be positive");
  check(options.noise_scale >= 0, "langevin_dynamics: noise_scale = ", options.noise_scale, " must not be negative");
  detail::run_chain(model,
                    {detail::chain_level(sigma, options.num_steps, options.step_size, options.convention, options.noise_scale)},
                    false, run, rng, samples);
  return samples;
}

}  // namespace

Samples langevin_dynamics(const ScoreModel& model, double sigma, ConstRows<float> x_init, const LangevinOptions& options,
                          const Rng& rng) {
  return dynamics(model, sigma, x_init, options, rng);
}

SamplesD langevin_dynamics(const ScoreModel& model, double sigma, ConstRows<double> x_init, const LangevinOptions& options,
                           const Rng& rng) {
  return dynamics(model, sigma, x_init, options, rng);
}

Samples langevin_dynamics_with_trajectory(const ScoreModel& model, double sigma, ConstRows<float> x_init, LangevinOptions options,
                                          const Rng& rng) {
  if (options.save_every == 0) options.save_every = 10;
  return dynamics(model, sigma, x_init, options, rng);
}

}  // namespace tweedie
