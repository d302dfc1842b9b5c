// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/row_integrator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/samplers/detail/chunks.h"

namespace tweedie::detail {

namespace {

constexpr int kStages = 7;
constexpr double kFirstStep = .1, kLeastStep = 1e-10;  // in ln sigma

void check_options(const AdaptiveOptions& o, double from, double to) {
  check(std::isfinite(o.rtol) && std::isfinite(o.atol) && o.rtol >= 0 && o.atol >= 0 && o.rtol + o.atol > 0, o.name,
        ": rtol = ", o.rtol, ", atol = ", o.atol, "; both must be finite and not negative, one of them positive");
  check(o.max_steps >= 1, o.name, ": max_steps = ", o.max_steps, " must be at least 1");
  check(o.chunk_rows >= 1, o.name, ": chunk_rows = ", o.chunk_rows, " must be at least 1");
  check(from > 0 && to > 0 && std::isfinite(from) && std::isfinite(to), o.name, ": from sigma = ", from, " to ", to,
        "; both ends must be positive and finite");
}

// Some rows on their way. Slot i < active holds one row; arrived rows are replaced by the last slot.
class Block {
 public:
  Block(const AdaptiveOptions& options, double from, double to, const RowField& field, Rows<double> state, Index first,
        std::span<std::int64_t> evaluations)
      : options_(options),
        field_(field),
        out_(state),
        first_(first),
        evaluations_(evaluations),
        end_(std::log(to)),
        low_(std::min(from, to)),
        high_(std::max(from, to)),
        controlled_(options.controlled == 0 ? state.cols() : options.controlled),
        bounded_(options.bounded == 0 ? state.cols() : options.bounded),
        active_(state.rows()),
        y_(ConstRows<double>(state)),
        trial_(active_, state.cols()),
        sigma_(static_cast<std::size_t>(active_)),
        row_(sigma_.size()),
        path_(sigma_.size()) {
    for (MatrixD& k : k_) k = MatrixD(active_, state.cols());
    const double start = std::log(from);
    for (Index i = 0; i < active_; ++i) {
      row_[at(i)] = first + i;
      path_[at(i)] = {start, std::copysign(kFirstStep, end_ - start)};
    }
    evaluate(y_, 0, 0);
    for (Index i = 0; i < active_; ++i) {
      check<DivergedError>(finite(k_[0], i), options_.name, ": the score of row ", first + i, " is not finite at sigma = ", from,
                           ", step 0", "; check the model and the row");
    }
  }

  Index active() const { return active_; }

  /// One attempted step of every row; the number of rows that arrived.
  Index advance() {
    const Index before = active_;
    for (Index i = 0; i < active_; ++i) {
      Path& p = path_[at(i)];
      p.last = std::abs(p.step) >= std::abs(end_ - p.place) * (1 - 1e-9);
      if (p.last) p.step = end_ - p.place;
    }
    for (int stage = 1; stage < kStages; ++stage) {
      for (Index i = 0; i < active_; ++i) advance_trial(i, stage);
      evaluate(trial_, kDormandPrince.c[stage], stage);
    }
    for (Index i = active_ - 1; i >= 0; --i) judge(i);
    return before - active_;
  }

 private:
  struct Path {
    double place, step;  // ln sigma
    double previous_error = 1;
    Index attempts = 0;
    bool last = false, rejected = false;
  };

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  void evaluate(MatrixD& state, double node, int stage) {
    for (Index i = 0; i < active_; ++i) {
      const Path& p = path_[at(i)];
      const double place = node == 1 && p.last ? end_ : p.place + node * p.step;
      sigma_[at(i)] = std::clamp(std::exp(place), low_, high_);
    }
    const std::size_t n = at(active_);
    field_({ConstRows<double>(state.view()).middle_rows(0, active_), std::span<const double>(sigma_).subspan(0, n),
            std::span<const Index>(row_).subspan(0, n), k_[stage].middle_rows(0, active_)});
  }

  void advance_trial(Index i, int stage) {
    const double step = path_[at(i)].step;
    const double* const a = kDormandPrince.a[stage];
    for (Index j = 0; j < y_.cols(); ++j) {
      double sum = 0;
      for (int s = 0; s < stage; ++s) sum += a[s] * k_[s](i, j);
      trial_(i, j) = y_(i, j) + step * sum;
    }
  }

  double error(Index i) const {
    double square = 0;
    for (Index j = 0; j < controlled_; ++j) {
      double e = 0;
      for (int s = 0; s < kStages; ++s) e += kDormandPrinceError[s] * k_[s](i, j);
      const double scale = options_.atol + options_.rtol * std::max(std::abs(y_(i, j)), std::abs(trial_(i, j)));
      const double scaled = path_[at(i)].step * e / scale;
      square += scaled * scaled;
    }
    return std::sqrt(square / static_cast<double>(controlled_));
  }

  void judge(Index i) {
    Path& p = path_[at(i)];
    ++p.attempts;
    const double e = error(i);
    if (e <= 1 && finite(trial_, i) && finite(k_[kStages - 1], i)) {
      const double grow = std::clamp(.9 * std::pow(e, -.7 / 5) * std::pow(p.previous_error, .4 / 5), .2, p.rejected ? 1. : 5.);
      p.place += p.step;
      p.step *= grow;
      p.previous_error = std::max(e, 1e-4);
      p.rejected = false;
      std::copy_n(trial_.row(i).data(), y_.cols(), y_.row(i).data());
      std::copy_n(k_[kStages - 1].row(i).data(), y_.cols(), k_[0].row(i).data());
      check_bound(i);
      if (p.last) return arrive(i);
    } else {
      p.step *= std::isfinite(e) ? std::clamp(.9 * std::pow(e, -1. / 5), .2, .9) : .2;
      p.rejected = true;
    }
    check<DivergedError>(std::abs(p.step) >= kLeastStep, options_.name, ": row ", row_[at(i)], " stopped at step ", p.attempts,
                         " (sigma = ", std::exp(p.place), "): its step in ln sigma fell below ", kLeastStep,
                         "; the score is not finite or not smooth there: check the model, or use a larger rtol and atol");
    check<DivergedError>(p.attempts < options_.max_steps, options_.name, ": row ", row_[at(i)],
                         " used up max_steps = ", options_.max_steps, " at sigma = ", std::exp(p.place),
                         "; use a larger max_steps, rtol or atol");
  }

  void check_bound(Index i) const {
    if (options_.bound == 0) return;
    const auto state = y_.row(i).first(static_cast<std::size_t>(bounded_));
    const bool within = std::all_of(state.begin(), state.end(), [&](double v) { return std::abs(v) <= options_.bound; });
    check<DivergedError>(within, options_.name, ": diverged at row ", row_[at(i)], ", step ", path_[at(i)].attempts,
                         " (sigma = ", std::exp(path_[at(i)].place), "): |x| is beyond ", options_.bound,
                         "; the score drives the row away: check the model and the range of sigma, or train the model further");
  }

  void arrive(Index i) {
    const Index row = row_[at(i)], last = --active_;
    std::copy_n(y_.row(i).data(), y_.cols(), out_.row(row - first_).data());
    evaluations_[at(row)] = 1 + (kStages - 1) * path_[at(i)].attempts;
    if (i == last) return;
    std::copy_n(y_.row(last).data(), y_.cols(), y_.row(i).data());
    std::copy_n(k_[0].row(last).data(), y_.cols(), k_[0].row(i).data());
    row_[at(i)] = row_[at(last)];
    path_[at(i)] = path_[at(last)];
  }

  static bool finite(const MatrixD& m, Index i) {
    return std::all_of(m.row(i).begin(), m.row(i).end(), [](double v) { return std::isfinite(v); });
  }

  const AdaptiveOptions& options_;
  const RowField& field_;
  Rows<double> out_;  // this block's rows
  Index first_;       // index of its first row among all
  std::span<std::int64_t> evaluations_;
  double end_, low_, high_;
  Index controlled_, bounded_, active_;
  MatrixD y_, trial_;   // (n, W)
  MatrixD k_[kStages];  // (n, W)
  std::vector<double> sigma_;
  std::vector<Index> row_;
  std::vector<Path> path_;
};

}  // namespace

void integrate_rows(const AdaptiveOptions& options, double from, double to, const RowField& field, Rows<double> state,
                    std::span<std::int64_t> evaluations) {
  check_options(options, from, to);
  check(static_cast<Index>(evaluations.size()) == state.rows(), options.name, ": room for ", evaluations.size(),
        " counts of evaluations, ", state.rows(), " rows");
  const RunOptions run{.sampler = options.name, .progress = options.progress};
  ProgressReport progress(run, state.rows());
  std::atomic<bool> stop = false;  // one block has failed or was cancelled: the others end too
  const Index chunk = even_chunk(state.rows(), std::max(options.chunk_rows, options.least_rows));
  tweedie::parallel_for(state.rows(), chunk, [&](Index begin, Index end) {
    try {
      for (Index first = begin; first < end; first += chunk) {
        Block block(options, from, to, field, state.middle_rows(first, std::min(chunk, end - first)), first, evaluations);
        while (block.active() > 0 && !stop) progress.add(block.advance());
      }
    } catch (...) {
      stop = true;
      throw;
    }
  });
}

EvaluationCount count(std::span<const std::int64_t> evaluations) {
  EvaluationCount result;
  for (const std::int64_t n : evaluations) {
    result.largest = std::max(result.largest, n);
    result.mean += static_cast<double>(n) / static_cast<double>(evaluations.size());
  }
  return result;
}

}  // namespace tweedie::detail
