// sampling.h - the samplers by their names, their options, and drawing any number of rows in blocks of flat memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/program.h"
#include "tweedie/models/network.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie::cli {

struct SamplingArguments {
  std::string sampler;  // empty: default_sampler()
  // annealed, mala
  Index steps_per_level = 0;    // 0: annealed 20, mala 10
  double step_size_factor = 0;  // 0: annealed .2, mala 2
  double epsilon = 0;
  Index levels = 0;
  double temperature = 1;
  std::string temperature_mode = "noise";
  bool denoise = false;
  // langevin
  Index num_steps = 1000;
  double step_size = .01;
  double noise_scale = 1;
  double sigma = 0;
  double init_scale = 1;
  // annealed, mala, langevin
  std::string convention = "half";
  bool ncsnv2 = false;  // annealed: the step size of NCSNv2 where none is given
  // down a schedule of noise levels
  Index steps = 0;  // 0: the sampler's own default
  std::string schedule = "karras";
  double rho = 7;
  double sigma_min = 0, sigma_max = 0;  // 0: the model's
  double eta = -1;                      // below 0: the sampler's own default
  double s_churn = 0, s_tmin = 0, s_tmax = 0, s_noise = 1;
  // processes
  std::string process = "ve";
  double snr = .16;
  Index corrector_steps = 1;
  std::string corrector_norm = "expected";
  double rtol = 1e-5, atol = 1e-5;

  std::function<void(const std::string& sampler)> check_given = nullptr;  // refuses options of other samplers
};

/// Sets a network's arithmetic to --precision, and says so where the target in use gains no time by it. Throws UsageError for a
/// network that has fp32 alone.
void use_precision(const Common& common, Network& network);
void add_sampling_options(CLI::App& app, SamplingArguments& arguments);
/// What a model is sampled with unless the user says: "annealed" for a network of discrete levels, "heun" for any other.
std::string default_sampler(const ScoreModel& model);
/// The samplers' names.
std::vector<std::string> sampler_names();

/// Which states of the first rows are kept.
struct TrajectoryRequest {
  Index save_every = 0;
  Index rows = 0;
};

/// What drawing tells: evaluations of the score per row, and the trajectory of the first block.
struct Drawn {
  std::string sampler;
  std::int64_t evaluations = 0;
  std::vector<Matrix> trajectory;
  std::vector<std::int64_t> trajectory_steps;
};

/// Calls take(rows) with n scaled rows in order, in blocks of kBlockRows that each have a stream of their own: the first k rows
/// are the same for every n. Ctrl-C is a CancelledError. Throws UsageError for a model that takes conditions: see the next one.
inline constexpr Index kBlockRows = 16384;
Drawn draw(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>)>& take);
/// The same from a model under the conditions asked for; take(rows, labels): of a model with classes each row's. Where no class
/// is asked for, a row's is drawn by the training table's frequencies. Throws UsageError as asked_condition(), and for a
/// trajectory of rows under different conditions. A model of NCSNv2's levels gets its step size, unless the user says.
Drawn draw(const ModelFile& model, const ConditionArguments& condition, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>, std::span<const std::int32_t> labels)>& take);
/// All n scaled rows at once.
Matrix draw_all(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console, std::int64_t* evaluations = nullptr);
Matrix draw_all(const ModelFile& model, const ConditionArguments& condition, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console);
/// n rows with the conditions of a table's N rows: row i has that of row i N / n, so that all come as often, give or take one.
Matrix draw_like(const ModelFile& model, const ModelRows& rows, double guidance, Index n, const SamplingArguments& arguments,
                 Rng rng, const Console& console, std::int64_t* evaluations);

}  // namespace tweedie::cli
