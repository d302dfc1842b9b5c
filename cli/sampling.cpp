// SPDX-License-Identifier: MIT
#include "tweedie/cli/sampling.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/langevin.h"

namespace tweedie::cli {

namespace {

Samples annealed_block(const ScoreModel& model, const NoiseLevels& levels, Index rows, const SamplingArguments& arguments,
                       const TrajectoryRequest& trajectory, const Rng& rng, const SamplingCallback& progress) {
  AnnealedLangevinOptions options;
  options.samples = rows;
  options.steps_per_level = arguments.steps_per_level;
  options.step_size_factor = arguments.step_size_factor;
  if (arguments.epsilon > 0) options.epsilon = arguments.epsilon;
  options.convention = step_convention(arguments.convention);
  options.temperature = arguments.temperature;
  options.temperature_mode = temperature_mode(arguments.temperature_mode);
  options.denoise = arguments.denoise;
  options.save_every = trajectory.save_every;
  options.trajectory_rows = std::min(trajectory.rows, rows);
  options.progress = progress;
  const bool resample = arguments.levels > 0 && arguments.levels != levels.size();
  return annealed_langevin(model, resample ? NoiseLevels::geometric(levels.max(), levels.min(), arguments.levels) : levels,
                           options, rng);
}

Samples langevin_block(const ScoreModel& model, const NoiseLevels& levels, Index rows, const SamplingArguments& arguments,
                       const TrajectoryRequest& trajectory, const Rng& rng, const SamplingCallback& progress) {
  LangevinOptions options;
  options.step_size = arguments.step_size;
  options.num_steps = arguments.num_steps;
  options.noise_scale = arguments.noise_scale;
  options.convention = step_convention(arguments.convention);
  options.save_every = trajectory.save_every;
  options.trajectory_rows = std::min(trajectory.rows, rows);
  options.progress = progress;
  Matrix start(rows, model.dim());
  rng.normals<float>(Purpose::prior, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= static_cast<float>(arguments.init_scale);
  return langevin_dynamics(model, arguments.sigma > 0 ? arguments.sigma : levels.min(), start, options, rng);
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingArguments& a) {
  choose_from(
      app.add_option("--sampler", a.sampler, "annealed (down the noise levels) | langevin (at one level)")->group("Sampling"),
      "sampler", {"annealed", "langevin"});
  choose_from(app.add_option("--step-convention", a.convention,
                             "How a step of size a is written: half (x += a/2 s + sqrt(a) z) | full (x += a s + sqrt(2a) z)")
                  ->group("Sampling"),
              "step convention", {"half", "full"});
  const char* annealed = "Annealed Langevin (sigmas of the scaled data)";
  std::vector<CLI::Option*> ours = {
      app.add_option(
             "--steps-per-level", a.steps_per_level,
             "Steps at each level (the chapter: 100). More of them follow the learned score to its own law, errors included")
          ->check(CLI::Range(1, 1000000000)),
      app.add_option("--step-size-factor", a.step_size_factor,
                     "a_i = factor sigma_i^2 (the chapter: 2, which leaves a bias; with an exact score .5 and 100 steps at 30 "
                     "levels leave none)")
          ->check(CLI::PositiveNumber),
      app.add_option("--epsilon", a.epsilon, "Instead: a_i = epsilon sigma_i^2 / sigma_L^2 (NCSN: 2e-5; default: not used)")
          ->check(CLI::PositiveNumber),
      app.add_option("--levels,--num-noise-levels", a.levels,
                     "So many levels, geometric over the model's range (default: the model's own)")
          ->check(CLI::Range(2, 100000)),
      app.add_option("--temperature", a.temperature, "Below 1: nearer to the modes; above: wider")->check(CLI::PositiveNumber),
      app.add_option("--temperature-mode", a.temperature_mode,
                     "noise (noise times sqrt(T)) | chapter (the step grows with T as well)"),
      app.add_flag("--denoise", a.denoise, "A last step to the mean: x + sigma_L^2 s(x, sigma_L)")};
  choose_from(ours[5], "temperature mode", {"noise", "chapter"});
  ours[1]->excludes(ours[2]);
  const char* single = "Langevin at one level";
  std::vector<CLI::Option*> theirs = {
      app.add_option("--num-steps", a.num_steps, "Steps")->check(CLI::Range(1, 1000000000)),
      app.add_option("--step-size", a.step_size, "a; above 4 times the smallest variance it diverges")
          ->check(CLI::PositiveNumber),
      app.add_option("--noise-scale", a.noise_scale, "Factor on the noise: 1 samples, 0 climbs to a mode")
          ->check(CLI::NonNegativeNumber),
      app.add_option("--sigma", a.sigma, "Noise level (default: the model's smallest)")->check(CLI::PositiveNumber),
      app.add_option("--init-scale", a.init_scale, "Standard deviation of the normal starts, in scaled units")
          ->check(CLI::PositiveNumber)};
  for (CLI::Option* option : ours) option->group(annealed);
  for (CLI::Option* option : theirs) option->group(single);
  // The default 0 of these three means "not given".
  for (CLI::Option* option : {ours[2], ours[3], theirs[3]}) option->default_str("");
  a.check_given = [&a, ours, theirs] {
    for (const CLI::Option* option : a.sampler == "annealed" ? theirs : ours) {
      check(option->count() == 0, option->get_name(), " has no meaning for --sampler ", a.sampler,
            "; leave it out, or take --sampler ", a.sampler == "annealed" ? "langevin" : "annealed");
    }
  };
}

Drawn draw(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>)>& take) {
  const Index blocks = std::max<Index>(1, (n + kBlockRows - 1) / kBlockRows);
  Drawn drawn;
  Progress bar(console, "sampling");
  for (Index block = 0; block < blocks; ++block) {
    const Index rows = std::min(kBlockRows, n - block * kBlockRows);
    const SamplingCallback progress = [&](const SamplingProgress& p) {
      // In thousandths of a block, so that the bar goes on through all blocks.
      if (p.total > 0)
        bar.update(block * 1000 + static_cast<std::int64_t>(1000. * static_cast<double>(p.done) / static_cast<double>(p.total)),
                   blocks * 1000);
      return !interrupted();
    };
    const TrajectoryRequest request = block == 0 ? trajectory : TrajectoryRequest{};
    const auto sampler = arguments.sampler == "annealed" ? annealed_block : langevin_block;
    Samples samples = sampler(model, levels, rows, arguments, request, rng.split(), progress);
    if (block == 0) drawn = {samples.evaluations, std::move(samples.trajectory), std::move(samples.trajectory_steps)};
    take(samples.x);
  }
  return drawn;
}

Matrix draw_all(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console, std::int64_t* evaluations) {
  Matrix all(n, model.dim());
  Index filled = 0;
  const Drawn drawn = draw(model, levels, n, arguments, {}, rng, console, [&](ConstRows<float> rows) {
    for (Index r = 0; r < rows.rows(); ++r) std::copy_n(rows.row(r).data(), rows.cols(), all.row(filled++).data());
  });
  if (evaluations != nullptr) *evaluations = drawn.evaluations;
  return all;
}

}  // namespace tweedie::cli
