// SPDX-License-Identifier: MIT
#include "tweedie/samplers/heun.h"

#include <numbers>

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

// sigma_i raised by churn.
std::vector<double> churned(const ScoreModel& model, const std::vector<double>& sigmas, const HeunOptions& options) {
  check(std::isfinite(options.s_churn) && options.s_churn >= 0 && std::isfinite(options.s_noise) && options.s_noise >= 0,
        "heun: s_churn = ", options.s_churn, " and s_noise = ", options.s_noise, " must be finite and not negative");
  check(options.s_tmin >= 0 && options.s_tmin <= options.s_tmax, "heun: [s_tmin, s_tmax] = [", options.s_tmin, ", ",
        options.s_tmax, "] is no range of noise levels");
  const double gamma = std::min(options.s_churn / static_cast<double>(detail::intervals(sigmas)), std::numbers::sqrt2 - 1);
  std::vector<double> raised;
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const bool inside = sigmas[i] >= options.s_tmin && sigmas[i] <= options.s_tmax;
    raised.push_back(inside ? sigmas[i] + gamma * sigmas[i] : sigmas[i]);
    check(raised[i] == sigmas[i] || raised[i] <= model.sigma_max(), "heun: churn raises sigma = ", sigmas[i], " to ", raised[i],
          ", beyond the model's largest, ", model.sigma_max(), "; use s_tmax below ", model.sigma_max() / (1 + gamma));
  }
  return raised;
}

// m is x^ and half the first slope's way.
std::vector<detail::ListedStep> steps_of(const std::vector<double>& sigmas, const std::vector<double>& raised, double s_noise) {
  std::vector<detail::ListedStep> list;
  for (std::size_t i = 0; i < raised.size(); ++i) {
    const double from = raised[i], to = sigmas[i + 1], h = to - from;
    const auto step = static_cast<std::uint32_t>(i);
    if (from > sigmas[i]) {
      const double noise = std::sqrt(from * from - sigmas[i] * sigmas[i]) * s_noise;
      list.push_back({{.sigma = from, .x_z = noise, .draw = step}, step, sigmas[i], false});
    }
    if (to == 0) {
      list.push_back({{.sigma = from, .x_s = from * from}, step, sigmas[i]});
      break;
    }
    list.push_back({{.sigma = from, .x_s = -h * from, .m_x = 1, .m_s = -h / 2 * from}, step, sigmas[i], false});
    list.push_back({{.sigma = to, .x_x = 0, .x_s = -h / 2 * to, .x_m = 1}, step, sigmas[i]});
  }
  return list;
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x, const HeunOptions& options,
                const Rng& rng) {
  detail::check_schedule(sigmas, "heun");
  const std::vector<double> raised = churned(model, sigmas, options);
  const std::int64_t steps = detail::intervals(sigmas);
  const detail::StepRun step_run{"heun", steps, 2 * steps - (sigmas.back() == 0), sigmas.front(),
                                 "use more intervals or less churn, or train the model further"};
  return detail::run_list(model, std::move(x), step_run, options, rng, steps_of(sigmas, raised, options.s_noise));
}

}  // namespace

Samples heun(const ScoreModel& model, const std::vector<double>& sigmas, const HeunOptions& options, const Rng& rng) {
  detail::check_schedule(sigmas, "heun");
  return run(model, sigmas, detail::start<float>(model, sigmas.front(), "heun", options, rng), options, rng);
}

Samples heun(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init, const HeunOptions& options,
             const Rng& rng) {
  return run(model, sigmas, Matrix(x_init), options, rng);
}

SamplesD heun(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init, const HeunOptions& options,
              const Rng& rng) {
  return run(model, sigmas, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
