// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/chunks.h"

#include <algorithm>
#include <cmath>

#include "tweedie/core/parallel.h"

namespace tweedie::detail {

namespace {

constexpr std::int64_t kReportSteps = 100;  // steps of a chunk between two progress reports, or the run's end

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

template <class S>
void make_frames(const RunOptions& options, SamplesX<S>& samples) {
  samples.trajectory.clear();
  samples.trajectory_steps.clear();
  if (options.save_every == 0) return;
  const Index rows = options.trajectory_rows == 0 ? samples.x.rows() : std::min(options.trajectory_rows, samples.x.rows());
  for (std::int64_t t = 0; t <= options.steps; t += options.save_every) {
    samples.trajectory.emplace_back(rows, samples.x.cols());
    samples.trajectory_steps.push_back(t);
  }
}

}  // namespace

std::string step_place(std::int64_t step, std::int64_t steps, double sigma) {
  return join("step ", step, " of ", steps, " (sigma = ", sigma, ")");
}

Index even_chunk(Index rows, Index most) {
  constexpr Index kBlock = 8;
  const Index workers = threads(), share = (rows + workers - 1) / workers;
  return std::min(most, std::max<Index>(1, (share + kBlock - 1) / kBlock) * kBlock);
}

ProgressReport::ProgressReport(const RunOptions& options, std::int64_t total) : options_(options), total_(total) { add(0); }

void ProgressReport::add(std::int64_t row_steps) {
  if (options_.progress == nullptr || *options_.progress == nullptr) return;
  const std::lock_guard lock(mutex_);
  done_ += row_steps;
  if (!cancelled_ && !(*options_.progress)({done_, total_})) cancelled_ = true;
  check<CancelledError>(!cancelled_, options_.sampler, ": cancelled by its progress callback");
}

template <class S>
Chunk<S>::Chunk(const ScoreModel& model, const RunOptions& options, const Rng& rng, Index first, SamplesX<S>& samples,
                Index count, ProgressReport& progress, const std::atomic<bool>& stop)
    : x(samples.x.middle_rows(first, count)),
      s(count, samples.x.cols()),
      z(count, samples.x.cols()),
      model_(model),
      options_(options),
      rng_(rng),
      first_(first),
      samples_(samples),
      progress_(progress),
      stop_(stop) {
  if (options_.save_every > 0) save();
}

template <class S>
void Chunk<S>::score(ConstRows<S> y, double sigma, Rows<S> out) {
  const S level = static_cast<S>(sigma);
  model_.score(y, std::span(&level, 1), nullptr, out);
  ++evaluations;
}

template <class S>
void Chunk<S>::normals(Purpose purpose, std::uint32_t step, std::uint32_t sub_draw) {
  rng_.normals<S>(purpose, step, static_cast<std::uint64_t>(first_), z, sub_draw);
}

template <class S>
bool Chunk<S>::within_bound() const {
  return all_within<S>(x, static_cast<S>(options_.bound));
}

template <class S>
void Chunk<S>::diverged(const std::string& where) const {
  fail<DivergedError>(options_.sampler, ": diverged at ", where, ": |x| is beyond ", options_.bound, " or not a number; ",
                      options_.remedy);
}

template <class S>
std::string Chunk<S>::at_step(double sigma) const {
  return step_place(step_, options_.steps, sigma);
}

template <class S>
void Chunk<S>::count_steps(std::int64_t count) {
  if (stop_) throw Stopped();
  step_ += count;
  if (options_.save_every > 0 && step_ % options_.save_every == 0) save();
  if (step_ - reported_ >= kReportSteps || step_ == options_.steps) {
    progress_.add((step_ - reported_) * rows());
    reported_ = step_;
  }
}

template <class S>
void Chunk<S>::save() {
  MatrixX<S>& frame = samples_.trajectory[static_cast<std::size_t>(step_ / options_.save_every)];
  const Index count = std::clamp<Index>(frame.rows() - first_, 0, rows());  // this chunk's part of the first rows
  if (count > 0) copy_rows(ConstRows<S>(x).middle_rows(0, count), frame.middle_rows(first_, count));
}

namespace {

Index chunk_rows(const ScoreModel& model, const RunOptions& options, Index rows) {
  return options.together ? std::max<Index>(rows, 1) : std::max(even_chunk(rows, options.chunk_rows), model.least_rows());
}

}  // namespace

template <class S>
void run_chunks(const ScoreModel& model, const RunOptions& options, const Rng& rng, SamplesX<S>& samples,
                const std::function<void(Chunk<S>&)>& body) {
  check(samples.x.cols() == model.dim(), options.sampler, ": the start is ", shape(samples.x), ", the model's dimension is ",
        model.dim());
  check(options.save_every >= 0 && options.trajectory_rows >= 0, options.sampler, ": save_every = ", options.save_every,
        ", trajectory_rows = ", options.trajectory_rows, "; neither may be negative");
  check(options.chunk_rows >= 1, options.sampler, ": chunk_rows = ", options.chunk_rows, " must be at least 1");
  check(options.steps >= 0 && options.steps < std::int64_t{1} << 32, options.sampler, ": ", options.steps,
        " steps; give 0 to 2^32 - 1");
  make_frames(options, samples);
  const Index n = samples.x.rows(), rows = chunk_rows(model, options, n);
  ProgressReport progress(options, options.steps * n);
  std::atomic<bool> stop = false;  // one chunk has failed or was cancelled: the others end too
  std::atomic<std::int64_t> evaluations = 0;
  tweedie::parallel_for(n, rows, [&](Index begin, Index end) {
    try {
      for (Index first = begin; first < end; first += rows) {
        Chunk<S> chunk(model, options, rng, first, samples, std::min(rows, end - first), progress, stop);
        body(chunk);
        std::int64_t most = evaluations;
        while (most < chunk.evaluations && !evaluations.compare_exchange_weak(most, chunk.evaluations)) {
        }
      }
    } catch (const Stopped&) {
    } catch (...) {
      stop = true;
      throw;
    }
  });
  samples.evaluations = evaluations;
}

template <class S>
MatrixX<S> prior_draw(Index rows, Index dim, double std, const Rng& rng) {
  MatrixX<S> x(rows, dim);
  constexpr Index kGrain = 4096;
  tweedie::parallel_for(rows, kGrain, [&](Index begin, Index end) {
    const Rows<S> part = x.middle_rows(begin, end - begin);
    rng.normals<S>(Purpose::prior, 0, static_cast<std::uint64_t>(begin), part);
    for (Index i = 0; i < part.size(); ++i) part.data()[i] *= static_cast<S>(std);
  });
  return x;
}

template <class S>
double largest_entry(ConstRows<S> x, const char* sampler) {
  double largest = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    for (const S v : x.row(r)) {
      check(std::isfinite(v), sampler, ": row ", r, " of the start is not finite");
      largest = std::max(largest, std::abs(static_cast<double>(v)));
    }
  }
  return largest;
}

#define TWEEDIE_INSTANTIATE(S)                                                             \
  template class Chunk<S>;                                                                 \
  template void run_chunks(const ScoreModel&, const RunOptions&, const Rng&, SamplesX<S>&, \
                           const std::function<void(Chunk<S>&)>&);                         \
  template MatrixX<S> prior_draw(Index, Index, double, const Rng&);                        \
  template double largest_entry(ConstRows<S>, const char*);
TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
#undef TWEEDIE_INSTANTIATE

}  // namespace tweedie::detail
