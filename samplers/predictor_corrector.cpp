// SPDX-License-Identifier: MIT
#include "tweedie/samplers/predictor_corrector.h"

#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie {

namespace {

void check_options(const PredictorCorrectorOptions& options) {
  // With e = 2 (snr sigma)^2 a step multiplies x by 1 - 2 snr^2 where the data are narrow beside sigma.
  check(options.snr > 0 && options.snr < 1, "predictor_corrector: snr = ", options.snr,
        " must lie between 0 and 1, beyond which the corrector diverges; the paper's is .16");
  check(options.corrector_steps >= 0 && options.corrector_steps < 1 << 24,
        "predictor_corrector: corrector_steps = ", options.corrector_steps, " must lie between 0 and 2^24 - 1");
}

template <class S>
double mean_norm(ConstRows<S> x) {
  double sum = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    double squares = 0;
    for (const S v : x.row(r)) squares += static_cast<double>(v) * static_cast<double>(v);
    sum += std::sqrt(squares);
  }
  return sum / static_cast<double>(x.rows());
}

template <class S>
void correct(detail::Chunk<S>& chunk, double sigma, const PredictorCorrectorOptions& options, std::uint32_t step) {
  for (Index j = 1; j <= options.corrector_steps; ++j) {
    chunk.score(sigma);
    chunk.normals(Purpose::sde, step, static_cast<std::uint32_t>(j));
    const double ratio = options.norms == CorrectorNorms::expected ? sigma : mean_norm<S>(chunk.z) / mean_norm<S>(chunk.s);
    const double e = 2 * options.snr * options.snr * ratio * ratio;
    detail::affine_step(chunk, 1, e, std::sqrt(2 * e));
  }
}

template <class S>
SamplesX<S> run(const ScoreModel& model, const std::vector<double>& sigmas, MatrixX<S> x,
                const PredictorCorrectorOptions& options, const Rng& rng) {
  detail::check_schedule(sigmas, "predictor_corrector");
  check_options(options);
  const std::int64_t steps = detail::intervals(sigmas);
  const detail::StepRun step_run{"predictor_corrector",
                                 steps,
                                 steps * (1 + options.corrector_steps),
                                 sigmas.front(),
                                 "use more levels or a smaller snr, or train the model further",
                                 options.norms == CorrectorNorms::batch};
  return detail::run_steps(model, std::move(x), step_run, options, rng, [&](detail::Chunk<S>& chunk) {
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const std::uint32_t step = static_cast<std::uint32_t>(i);
      const double from = sigmas[i], to = sigmas[i + 1], g2 = (from - to) * (from + to);
      correct(chunk, from, options, step);
      chunk.score(from);
      if (to > 0) chunk.normals(Purpose::sde, step);
      detail::affine_step(chunk, 1, g2, to > 0 ? std::sqrt(g2) : 0);
      chunk.finish_step(from);
    }
  });
}

}  // namespace

const char* to_string(CorrectorNorms norms) { return norms == CorrectorNorms::expected ? "expected" : "batch"; }

CorrectorNorms corrector_norms(std::string_view name) {
  if (name == "expected") return CorrectorNorms::expected;
  if (name == "batch") return CorrectorNorms::batch;
  fail("corrector norms '", name, "' are unknown; choose expected (rows independent) or batch (means over all rows)");
}

Samples predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas, const PredictorCorrectorOptions& options,
                            const Rng& rng) {
  detail::check_schedule(sigmas, "predictor_corrector");
  return run(model, sigmas, detail::start<float>(model, sigmas.front(), "predictor_corrector", options, rng), options, rng);
}

Samples predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<float> x_init,
                            const PredictorCorrectorOptions& options, const Rng& rng) {
  return run(model, sigmas, Matrix(x_init), options, rng);
}

SamplesD predictor_corrector(const ScoreModel& model, const std::vector<double>& sigmas, ConstRows<double> x_init,
                             const PredictorCorrectorOptions& options, const Rng& rng) {
  return run(model, sigmas, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
