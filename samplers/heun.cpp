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

template <class S>
void heun_step(detail::Chunk<S>& chunk, double from, double to, MatrixX<S>& slope, MatrixX<S>& end) {
  const S h = static_cast<S>(to - from);
  S* x = chunk.x.data();
  chunk.score(from);
  for (Index i = 0; i < chunk.size(); ++i) slope.data()[i] = static_cast<S>(-from) * chunk.s.data()[i];
  if (to == 0) {
    for (Index i = 0; i < chunk.size(); ++i) x[i] += h * slope.data()[i];
    return;
  }
  for (Index i = 0; i < chunk.size(); ++i) end.data()[i] = x[i] + h * slope.data()[i];
  chunk.score(end, to, chunk.s);
  for (Index i = 0; i < chunk.size(); ++i) x[i] += h / 2 * (slope.data()[i] - static_cast<S>(to) * chunk.s.data()[i]);
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x, const HeunOptions& options,
                const Rng& rng) {
  detail::check_schedule(sigmas, "heun");
  const std::vector<double> raised = churned(model, sigmas, options);
  const std::int64_t steps = detail::intervals(sigmas);
  const detail::StepRun step_run{"heun", steps, 2 * steps - (sigmas.back() == 0), sigmas.front(),
                                 "use more intervals or less churn, or train the model further"};
  return detail::run_steps(model, std::move(x), step_run, options, rng, [&](detail::Chunk<S>& chunk) {
    MatrixX<S> slope(chunk.rows(), chunk.x.cols()), end(chunk.rows(), chunk.x.cols());
    for (std::size_t i = 0; i < raised.size(); ++i) {
      if (raised[i] > sigmas[i]) {
        const double noise = std::sqrt(raised[i] * raised[i] - sigmas[i] * sigmas[i]) * options.s_noise;
        chunk.normals(Purpose::sde, static_cast<std::uint32_t>(i));
        for (Index j = 0; j < chunk.size(); ++j) chunk.x.data()[j] += static_cast<S>(noise) * chunk.z.data()[j];
      }
      heun_step(chunk, raised[i], sigmas[i + 1], slope, end);
      chunk.finish_step(sigmas[i]);
    }
  });
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
