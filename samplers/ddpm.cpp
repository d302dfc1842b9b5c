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
  return detail::run_steps(model, std::move(x), step_run, options, rng, [&](detail::Chunk<S>& chunk) {
    const double n = static_cast<double>(options.steps);
    for (Index i = 0; i < options.steps; ++i) {
      const double t = static_cast<double>(options.steps - i) / n, next = static_cast<double>(options.steps - i - 1) / n;
      const double a = process.alpha(t) / process.alpha(next), b = (1 - a) * (1 + a);
      const double noise = std::sqrt(b) * process.sigma(next) / process.sigma(t);
      process_score(model, process, t, ConstRows<S>(chunk.x), chunk.s.view());
      ++chunk.evaluations;
      if (noise > 0) chunk.normals(Purpose::sde, static_cast<std::uint32_t>(i));
      detail::affine_step(chunk, 1 / a, b / a, noise);
      chunk.finish_step(process.ratio(t));
    }
  });
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
