// chunks.h - what every sampler shares: rows cut into chunks, each of which runs all its steps before the next one begins.
//
//   run_chunks(model, run, rng, samples, [&](Chunk<S>& chunk) {
//     for (Index i = 0; i < n; ++i) {
//       chunk.score(sigma[i]);                             // chunk.s = s(chunk.x, sigma), counted
//       chunk.normals(Purpose::sde, step);                 // chunk.z, draw (purpose, step, row) of the stream
//       ... chunk.x += ...;
//       chunk.finish_step(sigma[i]);                       // divergence, trajectory, progress, cancelling
//     }
//   });
//
// The state stays in cache, chunks run in parallel, and since a row's numbers depend on the stream and its own index alone, the
// samples are the same bits for any chunk size, number of threads and number of rows.
// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <type_traits>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie::detail {

/// "step 3 of 20 (sigma = .1)", where a step sampler diverged.
std::string step_place(std::int64_t step, std::int64_t steps, double sigma);

/// How a run is cut, watched and kept.
struct RunOptions {
  const char* sampler;                         // its name, for messages
  std::int64_t steps = 0;                      // calls of finish_step per chunk
  Index save_every = 0;                        // 0: no trajectory
  Index trajectory_rows = 0;                   // first rows kept; 0: all
  Index chunk_rows = 512;                      // at most; fewer where that would leave a thread without work
  bool together = false;                       // all rows in one chunk: for steps that look at the whole batch
  double bound = 0;                            // |x| beyond it has diverged
  const char* remedy = "";                     // what to do then
  const SamplingCallback* progress = nullptr;  // may be nullptr or empty
};

/// Rows of a chunk: an even share of the threads, in whole blocks of what a kernel takes at once, but `most` at most.
Index even_chunk(Index rows, Index most);

/// Counts row-steps and hands them to the callback, one call at a time.
class ProgressReport {
 public:
  ProgressReport(const RunOptions& options, std::int64_t total);
  void add(std::int64_t row_steps);

 private:
  const RunOptions& options_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  bool cancelled_ = false;
  std::mutex mutex_;
};

/// Some rows on their way through a sampler.
template <class S>
class Chunk {
 public:
  Chunk(const ScoreModel& model, const RunOptions& options, const Rng& rng, Index first, SamplesX<S>& samples, Index count,
        ProgressReport& progress, const std::atomic<bool>& stop);

  Rows<S> x;     // (n, D) the state, part of samples.x
  MatrixX<S> s;  // (n, D) the last score
  MatrixX<S> z;  // (n, D) the last noise

  Index rows() const { return x.rows(); }
  Index size() const { return x.size(); }
  Index first() const { return first_; }  // index of the chunk's first row among all
  const ScoreModel& model() const { return model_; }
  const Rng& rng() const { return rng_; }
  const RunOptions& options() const { return options_; }

  /// s = score(x, sigma).
  void score(double sigma) { score(ConstRows<S>(x), sigma, s.view()); }
  /// out = score(y, sigma) for the chunk's rows at another place.
  void score(ConstRows<S> y, double sigma, Rows<S> out);
  /// z = this step's normals.
  void normals(Purpose purpose, std::uint32_t step, std::uint32_t sub_draw = 0);
  /// To be called once per step. Throws DivergedError naming step and sigma, CancelledError.
  void finish_step(double sigma) {
    finish_step([&] { return at_step(sigma); });
  }
  /// The same where the sampler says the place itself: where() gives "level 3 (sigma = .1), step 5".
  template <class Where>
  requires std::is_invocable_v<Where&>
  void finish_step(const Where& where) {
    check_bound(where);
    count_steps(1);
  }
  /// Throws DivergedError unless |x| is within the bound everywhere: for work after the last step.
  template <class Where>
  void check_bound(const Where& where) const {
    if (!within_bound()) [[unlikely]] {
      diverged(where());
    }
  }
  /// For steps that were taken together: their count, where none diverged; and the error where one did.
  void count_steps(std::int64_t count);
  [[noreturn]] void diverged(const std::string& where) const;

  std::int64_t evaluations = 0;  // of the score, so far

 private:
  bool within_bound() const;
  std::string at_step(double sigma) const;
  void save();

  const ScoreModel& model_;
  const RunOptions& options_;
  const Rng& rng_;
  Index first_;
  SamplesX<S>& samples_;
  ProgressReport& progress_;
  const std::atomic<bool>& stop_;
  std::int64_t step_ = 0, reported_ = 0;
};

/// Thrown inside a chunk when another chunk has failed; run_chunks takes it.
struct Stopped {};

/// Runs body(chunk) over the chunks of samples.x (n, D), from the state it holds. samples.evaluations is the largest count of a
/// chunk. Throws UsageError for bad options, DivergedError, CancelledError, and what the body throws.
template <class S>
void run_chunks(const ScoreModel& model, const RunOptions& options, const Rng& rng, SamplesX<S>& samples,
                const std::function<void(Chunk<S>&)>& body);

/// x (rows, D) = std times the stream's normals (Purpose::prior), std >= 0: where samplers start.
template <class S>
MatrixX<S> prior_draw(Index rows, Index dim, double std, const Rng& rng);
/// Throws UsageError naming the row if x has an entry that is not finite; returns the largest |x|.
template <class S>
double largest_entry(ConstRows<S> x, const char* sampler);

extern template class Chunk<float>;
extern template class Chunk<double>;

}  // namespace tweedie::detail
