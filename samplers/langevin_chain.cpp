// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/langevin_chain.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>

#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::detail {

namespace {

// Counts row-steps and hands them to the callback, one call at a time.
class ProgressReport {
 public:
  ProgressReport(const ChainOptions& options, std::int64_t total) : options_(options), total_(total) { add(0); }

  void add(std::int64_t row_steps) {
    if (options_.progress == nullptr || *options_.progress == nullptr) return;
    const std::lock_guard lock(mutex_);
    done_ += row_steps;
    if (!cancelled_ && !(*options_.progress)({done_, total_})) cancelled_ = true;
    check<CancelledError>(!cancelled_, options_.sampler, ": cancelled by its progress callback");
  }

 private:
  const ChainOptions& options_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  bool cancelled_ = false;
  std::mutex mutex_;
};

template <class S>
bool all_within(ConstRows<S> x, S bound) {
  bool within = true;
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index j = 0; j < x.cols(); ++j) within &= std::abs(x(r, j)) <= bound;  // false for NaN
  }
  return within;
}

void copy_rows(auto from, auto to) {
  for (Index r = 0; r < to.rows(); ++r) std::copy_n(from.row(r).data(), from.cols(), to.row(r).data());
}

// One chunk of rows through the whole chain.
template <class S>
class ChunkRun {
 public:
  ChunkRun(const ScoreModel& model, const ChainOptions& options, const Rng& rng, Index first, Rows<S> x)
      : model_(model), options_(options), rng_(rng), first_(first), x_(x), score_(x.rows(), x.cols()), z_(x.rows(), x.cols()) {}

  void step(const ChainLevel& level, Index level_index, Index step_in_level, std::uint32_t step) {
    evaluate(level.sigma);
    rng_.normals<S>(Purpose::langevin, step, static_cast<std::uint64_t>(first_), z_);
    kernels::langevin_update(x_.size(), static_cast<S>(level.drift), static_cast<S>(level.noise), score_.data(), z_.data(),
                             x_.data());
    check<DivergedError>(all_within<S>(x_, static_cast<S>(options_.bound)), options_.sampler, ": diverged at level ", level_index,
                         " (sigma = ", level.sigma, "), step ", step_in_level, " of ", level.steps, ", step size ",
                         level.step_size, ": |x| is beyond ", options_.bound, " or not a number; ", options_.remedy);
  }

  void denoise(double sigma) {
    evaluate(sigma);
    const S variance = static_cast<S>(sigma * sigma);
    for (Index i = 0; i < x_.size(); ++i) x_.data()[i] += variance * score_.data()[i];
    check<DivergedError>(all_within<S>(x_, static_cast<S>(options_.bound)), options_.sampler,
                         ": the final Tweedie step diverged at sigma = ", sigma, "; ", options_.remedy);
  }

  // The part of this chunk among the trajectory's first rows.
  void save(MatrixX<S>& frame) const {
    const Index count = std::clamp<Index>(frame.rows() - first_, 0, x_.rows());
    if (count > 0) copy_rows(ConstRows<S>(x_).middle_rows(0, count), frame.middle_rows(first_, count));
  }

 private:
  void evaluate(double sigma) {
    const S level = static_cast<S>(sigma);
    model_.score(ConstRows<S>(x_), std::span(&level, 1), nullptr, score_);
  }

  const ScoreModel& model_;
  const ChainOptions& options_;
  const Rng& rng_;
  Index first_;
  Rows<S> x_;
  MatrixX<S> score_, z_;
};

std::int64_t total_steps(const std::vector<ChainLevel>& levels, const ChainOptions& options) {
  std::int64_t total = 0;
  for (const ChainLevel& level : levels) {
    check(level.steps >= 0, options.sampler, ": ", level.steps, " steps at a level; the number must not be negative");
    check(std::isfinite(level.drift) && level.drift >= 0 && std::isfinite(level.noise) && level.noise >= 0, options.sampler,
          ": step size ", level.step_size, " at sigma = ", level.sigma,
          "; step size, noise scale and temperature must be finite and not negative");
    check(level.steps <= std::numeric_limits<std::uint32_t>::max() - total, options.sampler, ": more than 2^32 steps in one run");
    total += level.steps;
  }
  return total;
}

template <class S>
void make_frames(const ChainOptions& options, std::int64_t steps, SamplesX<S>& samples) {
  samples.trajectory.clear();
  samples.trajectory_steps.clear();
  if (options.save_every == 0) return;
  const Index rows = options.trajectory_rows == 0 ? samples.x.rows() : std::min(options.trajectory_rows, samples.x.rows());
  for (std::int64_t t = 0; t <= steps; t += options.save_every) {
    samples.trajectory.emplace_back(rows, samples.x.cols());
    samples.trajectory_steps.push_back(t);
  }
}

}  // namespace

ChainLevel chain_level(double sigma, Index steps, double step_size, StepConvention convention, double noise_scale) {
  const bool half = convention == StepConvention::half;
  return {sigma, steps, step_size, half ? step_size / 2 : step_size, std::sqrt(half ? step_size : 2 * step_size) * noise_scale};
}

template <class S>
void run_chain(const ScoreModel& model, const std::vector<ChainLevel>& levels, const ChainOptions& options, const Rng& rng,
               SamplesX<S>& samples) {
  check(samples.x.cols() == model.dim(), options.sampler, ": the start is ", shape(samples.x), ", the model's dimension is ",
        model.dim());
  check(options.save_every >= 0 && options.trajectory_rows >= 0, options.sampler, ": save_every = ", options.save_every,
        ", trajectory_rows = ", options.trajectory_rows, "; neither may be negative");
  check(options.chunk_rows >= 1, options.sampler, ": chunk_rows = ", options.chunk_rows, " must be at least 1");
  const std::int64_t steps = total_steps(levels, options);
  samples.evaluations = steps + (options.denoise ? 1 : 0);
  make_frames(options, steps, samples);
  const Index n = samples.x.rows();
  ProgressReport progress(options, steps * n);
  std::atomic<bool> stop = false;  // one chunk has failed or was cancelled: the others end too
  const auto run_chunk = [&](Index first, Index count) {
    ChunkRun<S> chunk(model, options, rng, first, samples.x.middle_rows(first, count));
    if (options.save_every > 0) chunk.save(samples.trajectory[0]);
    std::int64_t step = 0, reported = 0;
    for (std::size_t i = 0; i < levels.size(); ++i) {
      for (Index t = 0; t < levels[i].steps; ++t) {
        if (stop) return;
        chunk.step(levels[i], static_cast<Index>(i), t, static_cast<std::uint32_t>(step++));
        if (options.save_every > 0 && step % options.save_every == 0) {
          chunk.save(samples.trajectory[static_cast<std::size_t>(step / options.save_every)]);
        }
        if ((t + 1) % 100 == 0 || t + 1 == levels[i].steps) {
          progress.add((step - reported) * count);
          reported = step;
        }
      }
    }
    if (options.denoise) chunk.denoise(levels.back().sigma);
  };
  tweedie::parallel_for(n, options.chunk_rows, [&](Index begin, Index end) {
    try {
      for (Index first = begin; first < end; first += options.chunk_rows) {
        run_chunk(first, std::min(options.chunk_rows, end - first));
      }
    } catch (...) {
      stop = true;
      throw;
    }
  });
}

template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, const ChainOptions&, const Rng&, SamplesX<float>&);
template void run_chain(const ScoreModel&, const std::vector<ChainLevel>&, const ChainOptions&, const Rng&, SamplesX<double>&);

}  // namespace tweedie::detail
