// annealed_langevin.h - Langevin dynamics down a ladder of noise levels.
//
//   x ~ N(0, sigma_1^2 I);  for i = 1..L, T times:   half (default): x <- x + a_i/2 s(x, sigma_i) + sqrt(a_i) z
//                                                    full:           x <- x + a_i s(x, sigma_i) + sqrt(2 a_i) z
//   a_i = step_size_factor sigma_i^2 (the chapter: 2), or epsilon sigma_i^2 / sigma_L^2 (NCSN: epsilon = 2e-5)
//
// [Song & Ermon 2019, Algorithm 1; Song & Ermon 2020, Algorithm 1 with the final denoising step.] On a Gaussian of variance s^2
// each step takes the variance V to (1 - h/v)^2 V + 2 h T, v = s^2 + sigma_i^2, h the coefficient of the drift, T the
// temperature. SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "tweedie/core/random.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

/// noise: plain tempering, the noise times sqrt(T), the step unchanged: as the step shrinks the law tends to p^(1/T).
/// chapter: the chapter's annealed_langevin_with_temperature, a_i = factor sigma_i^2 T and the noise times sqrt(T). Its step
/// grows with T: beyond T = 4 / step_size_factor (half; 2 / factor in full) it is unstable and refused, and near that it is far
/// too wide (T = 2 at sigma = 10 over data of variance 2: 102-fold on the first level).
enum class TemperatureMode { noise, chapter };
TWEEDIE_API const char* to_string(TemperatureMode mode);
/// "noise" or "chapter"; throws UsageError for anything else.
TWEEDIE_API TemperatureMode temperature_mode(std::string_view name);

struct AnnealedLangevinOptions {
  Index samples = 1000;
  Index steps_per_level = 100;
  double step_size_factor = 2.0;                 // a_i = factor sigma_i^2
  std::optional<double> epsilon = std::nullopt;  // if given: a_i = epsilon sigma_i^2 / sigma_L^2 instead
  StepConvention convention = StepConvention::half;
  double temperature = 1;
  TemperatureMode temperature_mode = TemperatureMode::noise;
  bool denoise = false;       // a last Tweedie step x + sigma_L^2 s(x, sigma_L), one evaluation more
  Index save_every = 0;       // keep the start and every so manieth state; 0: none
  Index trajectory_rows = 0;  // of the first so many rows; 0: of all
  Index chunk_rows = 512;     // rows that run the chain together (speed only)
  SamplingCallback progress = nullptr;
};

/// `samples` rows from the model at the given levels, the start sigma_1 z (Purpose::prior). Row i depends on the stream and i
/// alone: the same bits for any number of threads, chunk and number of samples. Throws UsageError for bad options, among them a
/// drift coefficient h > 2 sigma_i^2, with which the chain diverges wherever the data are narrow beside sigma_i; DivergedError
/// (level, step and step size in the message) when a state leaves 1e6 max(sigma_1, |x_init|); CancelledError.
TWEEDIE_API Samples annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, const AnnealedLangevinOptions& options,
                                      const Rng& rng);
/// The same from x_init (n, D), which replaces options.samples and the prior.
TWEEDIE_API Samples annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, ConstRows<float> x_init,
                                      const AnnealedLangevinOptions& options, const Rng& rng);
TWEEDIE_API SamplesD annealed_langevin(const ScoreModel& model, const NoiseLevels& levels, ConstRows<double> x_init,
                                       const AnnealedLangevinOptions& options, const Rng& rng);

/// The chapter's functions by their names and defaults; (num_samples, D).
TWEEDIE_API Matrix annealed_langevin_dynamics(const ScoreModel& model, const NoiseLevels& levels, Index num_samples,
                                              const Rng& rng, Index steps_per_level = 100, double step_size_factor = 2.0);
/// TemperatureMode::chapter. Throws UsageError for temperature > 2, its bound of stability.
TWEEDIE_API Matrix annealed_langevin_with_temperature(const ScoreModel& model, const NoiseLevels& levels, Index num_samples,
                                                      const Rng& rng, double temperature = 1.0, Index steps_per_level = 100);

}  // namespace tweedie
