// SPDX-License-Identifier: MIT
#include "tweedie/samplers/dpm_solver_pp.h"

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

// x' = keep x + now D + before D_prev + noise z.
struct Coefficients {
  double keep, now, before, noise;
};

std::vector<Coefficients> coefficients(const std::vector<double>& sigmas, double eta) {
  std::vector<Coefficients> steps;
  double h_before = 0;  // none
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double from = sigmas[i], to = sigmas[i + 1];
    if (to == 0) {
      steps.push_back({0, 1, 0, 0});
      break;
    }
    const double h = std::log(from / to), a = -std::expm1(-h * (1 + eta));
    const double slope = h_before == 0 ? 0 : a * h / (2 * h_before);
    steps.push_back({to / from * std::exp(-eta * h), a + slope, -slope, to * std::sqrt(-std::expm1(-2 * eta * h))});
    h_before = h;
  }
  return steps;
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x, const DpmSolverOptions& options,
                const Rng& rng) {
  detail::check_schedule(sigmas, "dpm_solver_pp");
  check(std::isfinite(options.eta) && options.eta >= 0, "dpm_solver_pp: eta = ", options.eta,
        " must be finite and not negative: 0 is 2M, 1 is 2M-SDE");
  const std::vector<Coefficients> steps = coefficients(sigmas, options.eta);
  const std::int64_t count = detail::intervals(sigmas);
  const detail::StepRun step_run{"dpm_solver_pp", count, count, sigmas.front(),
                                 "use more intervals or a karras schedule, or train the model further"};
  return detail::run_steps(model, std::move(x), step_run, options, rng, [&](detail::Chunk<S>& chunk) {
    MatrixX<S> previous(chunk.rows(), chunk.x.cols());  // the last step's D
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const S variance = static_cast<S>(sigmas[i] * sigmas[i]), keep = static_cast<S>(steps[i].keep),
              now = static_cast<S>(steps[i].now), before = static_cast<S>(steps[i].before),
              noise = static_cast<S>(steps[i].noise);
      chunk.score(sigmas[i]);
      if (noise > 0) chunk.normals(Purpose::sde, static_cast<std::uint32_t>(i));
      for (Index j = 0; j < chunk.size(); ++j) {
        S& at = chunk.x.data()[j];
        const S denoised = at + variance * chunk.s.data()[j];
        at = keep * at + now * denoised + before * previous.data()[j];
        if (noise > 0) at += noise * chunk.z.data()[j];
        previous.data()[j] = denoised;
      }
      chunk.finish_step(sigmas[i]);
    }
  });
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
