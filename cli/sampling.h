// sampling.h - the samplers' options, and drawing any number of rows in blocks of flat memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "tweedie/cli/program.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie::cli {

struct SamplingArguments {
  std::string sampler = "annealed";
  // annealed
  Index steps_per_level = 20;
  double step_size_factor = .2;
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
  // both
  std::string convention = "half";

  std::function<void()> check_given;  // refuses options of the other sampler
};

void add_sampling_options(CLI::App& app, SamplingArguments& arguments);

/// Which states of the first rows are kept.
struct TrajectoryRequest {
  Index save_every = 0;
  Index rows = 0;
};

/// What drawing tells: evaluations of the score per row, and the trajectory of the first block.
struct Drawn {
  std::int64_t evaluations = 0;
  std::vector<Matrix> trajectory;
  std::vector<std::int64_t> trajectory_steps;
};

/// Calls take(rows) with n scaled rows in order, in blocks of kBlockRows that each have a stream of their own: the first k rows
/// are the same for every n. Ctrl-C is a CancelledError.
inline constexpr Index kBlockRows = 16384;
Drawn draw(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>)>& take);
/// All n scaled rows at once.
Matrix draw_all(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console, std::int64_t* evaluations = nullptr);

}  // namespace tweedie::cli
