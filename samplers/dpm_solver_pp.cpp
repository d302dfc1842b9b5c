// SPDX-License-Identifier: MIT
#include "tweedie/samplers/dpm_solver_pp.h"

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

// m is the last step's D: x' = keep x + now D + before m + noise z, D = x + sigma^2 s.
std::vector<detail::ListedStep> steps_of(const std::vector<double>& sigmas, double eta) {
  std::vector<detail::ListedStep> list;
  double h_before = 0;  // none
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double from = sigmas[i], to = sigmas[i + 1], variance = from * from;
    const auto step = static_cast<std::uint32_t>(i);
    if (to == 0) {
      list.push_back({{.sigma = from, .x_s = variance}, step, from});
      break;
    }
    const double h = std::log(from / to), a = -std::expm1(-h * (1 + eta));
    const double slope = h_before == 0 ? 0 : a * h / (2 * h_before);
    const double keep = to / from * std::exp(-eta * h), now = a + slope;
    list.push_back({{.sigma = from,
                     .x_x = keep + now,
                     .x_s = now * variance,
                     .x_m = -slope,
                     .x_z = to * std::sqrt(-std::expm1(-2 * eta * h)),
                     .m_x = 1,
                     .m_s = variance,
                     .draw = step},
                    step,
                    from});
    h_before = h;
  }
  return list;
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x, const DpmSolverOptions& options,
                const Rng& rng) {
  detail::check_schedule(sigmas, "dpm_solver_pp");
  check(std::isfinite(options.eta) && options.eta >= 0, "dpm_solver_pp: eta = ", options.eta,
        " must be finite and not negative: 0 is 2M, 1 is 2M-SDE");
  const std::int64_t count = detail::intervals(sigmas);
  const detail::StepRun step_run{"dpm_solver_pp", count, count, sigmas.front(),
                                 "use more intervals or a karras schedule, or train the model further"};
  return detail::run_list(model, std::move(x), step_run, options, rng, steps_of(sigmas, options.eta));
}

}  // namespace

Samples dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, const DpmSolverOptions& options,
                      const Rng& rng) {
  detail::check_schedule(sigmas, "dpm_solver_pp");
  return run(model, sigmas, detail::start<float>(model, sigmas.front(), "dpm_solver_pp", options, rng), options, rng);
}

Samples dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                      const DpmSolverOptions& options, const Rng& rng) {
  return run(model, sigmas, Matrix(x_init), options, rng);
}

SamplesD dpm_solver_pp(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                       const DpmSolverOptions& options, const Rng& rng) {
  return run(model, sigmas, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
