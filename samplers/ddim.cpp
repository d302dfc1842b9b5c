// SPDX-License-Identifier: MIT
#include "tweedie/samplers/ddim.h"

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x, const DdimOptions& options,
                const Rng& rng) {
  detail::check_schedule(sigmas, "ddim");
  check(options.eta >= 0 && options.eta <= 1, "ddim: eta = ", options.eta, " must lie in [0, 1]: 0 is the flow, 1 is ancestral");
  const std::int64_t steps = detail::intervals(sigmas);
  const detail::StepRun step_run{"ddim", steps, steps, sigmas.front(), "use more intervals, or train the model further"};
  std::vector<detail::ListedStep> list;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double from = sigmas[i], to = sigmas[i + 1], tau = (from - to) * (from + to) / (from * from);
    const double keep = std::sqrt(1 - options.eta * options.eta * tau), noise = to * options.eta * std::sqrt(tau);
    const auto step = static_cast<std::uint32_t>(i);
    // (x - x0) / sigma = -sigma s.
    list.push_back({{.sigma = from, .x_s = from * (from - to * keep), .x_z = noise, .draw = step}, step, from});
  }
  return detail::run_list(model, std::move(x), step_run, options, rng, list);
}

}  // namespace

Samples ddim(const ScoreModel& model, const std::vector<double>& sigmas, const DdimOptions& options, const Rng& rng) {
  detail::check_schedule(sigmas, "ddim");
  return run(model, sigmas, detail::start<float>(model, sigmas.front(), "ddim", options, rng), options, rng);
}

Samples ddim(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init, const DdimOptions& options,
             const Rng& rng) {
  return run(model, sigmas, Matrix(x_init), options, rng);
}

SamplesD ddim(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init, const DdimOptions& options,
              const Rng& rng) {
  return run(model, sigmas, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
