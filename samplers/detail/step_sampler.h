// step_sampler.h - what the samplers share that go down a schedule in single steps: checks, the run, one affine update.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tweedie/samplers/detail/linear_list.h"

namespace tweedie::detail {

/// Throws UsageError unless the schedule has two levels or more, is finite and falls strictly, to 0 or above.
void check_schedule(const std::vector<double>& sigmas, const char* sampler);

/// Intervals of a schedule.
inline std::int64_t intervals(const std::vector<double>& sigmas) { return static_cast<std::int64_t>(sigmas.size()) - 1; }

/// The start from the prior N(0, std^2): (options.samples, D).
template <class S, class Options>
MatrixX<S> start(const ScoreModel& model, double std, const char* sampler, const Options& options, const Rng& rng) {
  check(options.samples >= 0, sampler, ": samples = ", options.samples, " must not be negative");
  return prior_draw<S>(options.samples, model.dim(), std, rng);
}

/// What a run is called, how far it goes, what it costs.
struct StepRun {
  const char* sampler;
  std::int64_t steps;
  std::int64_t evaluations;
  double scale;  // of the start's law; |x| beyond 1e6 max(scale, |start|) has diverged
  const char* remedy;
  bool together = false;  // all rows in one chunk
};

/// Runs body(chunk) over the chunks of x (n, D), its start.
template <class S, class Options, class Body>
SamplesX<S> run_steps(const ScoreModel& model, MatrixX<S> x, const StepRun& step_run, const Options& options, const Rng& rng,
                      const Body& body) {
  const double largest = std::max(step_run.scale, largest_entry<S>(x, step_run.sampler));
  SamplesX<S> samples{std::move(x), 0, {}, {}};
  const RunOptions run{.sampler = step_run.sampler,
                       .steps = step_run.steps,
                       .save_every = options.save_every,
                       .trajectory_rows = options.trajectory_rows,
                       .chunk_rows = options.chunk_rows,
                       .together = step_run.together,
                       .bound = 1e6 * largest,
                       .remedy = step_run.remedy,
                       .progress = &options.progress};
  run_chunks<S>(model, run, rng, samples, body);
  samples.evaluations = step_run.evaluations;  // also of no rows
  return samples;
}

/// The same by a list of linear steps with draws Purpose::sde: at once where the model can.
template <class S, class Options>
SamplesX<S> run_list(const ScoreModel& model, MatrixX<S> x, StepRun step_run, const Options& options, const Rng& rng,
                     const std::vector<ListedStep>& list) {
  if constexpr (std::is_same_v<S, float>) {
    if (model.has_chain(evaluated(list))) {
      step_run.together = true;
      return run_steps(model, std::move(x), step_run, options, rng,
                       [&](Chunk<float>& chunk) { run_at_once(chunk, list, Purpose::sde); });
    }
  }
  return run_steps(model, std::move(x), step_run, options, rng,
                   [&](Chunk<S>& chunk) { run_one_by_one(chunk, list, Purpose::sde); });
}

/// x = a x + b s + c z; z is not read where c = 0.
template <class S>
void affine_step(Chunk<S>& chunk, double a, double b, double c) {
  S* x = chunk.x.data();
  const S *s = chunk.s.data(), *z = chunk.z.data();
  const S sa = static_cast<S>(a), sb = static_cast<S>(b), sc = static_cast<S>(c);
  for (Index i = 0; i < chunk.size(); ++i) x[i] = sa * x[i] + sb * s[i];
  if (c == 0) return;
  for (Index i = 0; i < chunk.size(); ++i) x[i] += sc * z[i];
}

}  // namespace tweedie::detail
