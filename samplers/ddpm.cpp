// SPDX-License-Identifier: MIT
#include "tweedie/samplers/ddpm.h"

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

template <class S>
SamplesX<S> run(const ScoreModel& model, const Process& process, MatrixX<S> x, const DdpmOptions& options, const Rng& rng) {
  check(process.kind() == ProcessKind::vp, "ddpm: the chain is defined for the vp process, not for ", process.name(),
        "; use ddim with eta = 1 there");
  check(options.steps >= 1, "ddpm: steps = ", options.steps, " must be at least 1");
  const detail::StepRun step_run{"ddpm", options.steps, options.steps, process.prior_std(),
                                 "use more steps, or train the model further"};
  const double n = static_cast<double>(options.steps);
  std::vector<detail::ListedStep> list;
  for (Index i = 0; i < options.steps; ++i) {
    const double t = static_cast<double>(options.steps - i) / n, next = static_cast<double>(options.steps - i - 1) / n;
    const double a = process.alpha(t) / process.alpha(next), b = (1 - a) * (1 + a);
    const double noise = std::sqrt(b) * process.sigma(next) / process.sigma(t);
    const double sigma = process.ratio(t), inverse = 1 / process.alpha(t);
    list.push_back({{.sigma = sigma,
                     .input = inverse,
                     .x_x = 1 / a,
                     .x_s = b / a * inverse,
                     .x_z = noise,
                     .draw = static_cast<std::uint32_t>(i)},
                    i,
                    sigma});
  }
  return detail::run_list(model, std::move(x), step_run, options, rng, list);
}

}  // namespace

Samples ddpm(const ScoreModel& model, const Process& process, const DdpmOptions& options, const Rng& rng) {
  return run(model, process, detail::start<float>(model, process.prior_std(), "ddpm", options, rng), options, rng);
}

Samples ddpm(const ScoreModel& model, const Process& process, ConstRows<float> x_init, const DdpmOptions& options,
             const Rng& rng) {
  return run(model, process, Matrix(x_init), options, rng);
}

SamplesD ddpm(const ScoreModel& model, const Process& process, ConstRows<double> x_init, const DdpmOptions& options,
              const Rng& rng) {
  return run(model, process, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
