// SPDX-License-Identifier: MIT
#include "tweedie/samplers/reverse_sde.h"

#include "tweedie/samplers/detail/step_sampler.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie {

namespace {

// t_0 = t_max > ... > t_steps = t_min_sampling.
std::vector<double> times(const Process& process, Index steps) {
  check(steps >= 1, "reverse_sde: steps = ", steps, " must be at least 1");
  const double first = process.t_max(), last = process.t_min_sampling();
  if (process.kind() == ProcessKind::edm) return karras(steps + 1, last, first, 7, false);
  std::vector<double> result;
  for (Index i = 0; i < steps; ++i) {
    result.push_back(first + static_cast<double>(i) / static_cast<double>(steps) * (last - first));
  }
  result.push_back(last);
  return result;
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const Process& process, MatrixX<S> x, const ReverseSdeOptions& options, const Rng& rng) {
  const std::vector<double> t = times(process, options.steps);
  const detail::StepRun step_run{"reverse_sde", options.steps, options.steps, process.prior_std(),
                                 "use more steps, or train the model further"};
  std::vector<detail::ListedStep> list;
  for (std::size_t i = 0; i + 1 < t.size(); ++i) {
    const double dt = t[i] - t[i + 1], g2 = process.g_squared(t[i]);
    const double sigma = process.ratio(t[i]), inverse = 1 / process.alpha(t[i]);
    const bool last = i + 2 == t.size();
    const auto step = static_cast<std::uint32_t>(i);
    list.push_back({{.sigma = sigma,
                     .input = inverse,
                     .x_x = 1 - process.f(t[i]) * dt,
                     .x_s = g2 * dt * inverse,
                     .x_z = last ? 0 : std::sqrt(g2 * dt),
                     .draw = step},
                    step,
                    sigma});
  }
  return detail::run_list(model, std::move(x), step_run, options, rng, list);
}

}  // namespace

Samples reverse_sde(const ScoreModel& model, const Process& process, const ReverseSdeOptions& options, const Rng& rng) {
  return run(model, process, detail::start<float>(model, process.prior_std(), "reverse_sde", options, rng), options, rng);
}

Samples reverse_sde(const ScoreModel& model, const Process& process, ConstRows<float> x_init, const ReverseSdeOptions& options,
                    const Rng& rng) {
  return run(model, process, Matrix(x_init), options, rng);
}

SamplesD reverse_sde(const ScoreModel& model, const Process& process, ConstRows<double> x_init, const ReverseSdeOptions& options,
                     const Rng& rng) {
  return run(model, process, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
