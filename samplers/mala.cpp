// SPDX-License-Identifier: MIT
#include "tweedie/samplers/mala.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>

#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/detail/langevin_chain.h"
#include "tweedie/samplers/detail/mala_ratio.h"

namespace tweedie {

namespace {

using detail::Chunk;

void check_arguments(const ScoreModel& model, const MalaOptions& options) {
  check(model.has_energy(), "mala: ", model.name(),
        " knows its score but no energy, which the acceptance needs; use an exact mixture or an energy network, or a "
        "sampler without acceptance (annealed_langevin, predictor_corrector)");
  check(options.samples >= 0, "mala: samples = ", options.samples, " must not be negative");
  check(options.steps_per_level >= 0, "mala: steps_per_level = ", options.steps_per_level, " must not be negative");
  check(std::isfinite(options.step_size_factor) && options.step_size_factor > 0,
        "mala: step_size_factor = ", options.step_size_factor, " must be positive and finite");
}

// The rows' state, kept with its score (chunk.s) and log p over the steps of a level.
template <class S>
class MetropolisRows {
 public:
  explicit MetropolisRows(Chunk<S>& chunk)
      : chunk_(chunk),
        proposal_(chunk.rows(), chunk.x.cols()),
        proposal_score_(chunk.rows(), chunk.x.cols()),
        uniform_(chunk.rows(), 1),
        log_p_(static_cast<std::size_t>(chunk.rows())),
        proposal_log_p_(log_p_.size()) {}

  void enter_level(double sigma, std::uint32_t step) {
    sigma_ = sigma;
    chunk_.score(sigma);
    energy(chunk_.x, log_p_);
    for (std::size_t r = 0; r < log_p_.size(); ++r) {
      check<DivergedError>(std::isfinite(log_p_[r]), "mala: log p = ", log_p_[r], " of row ",
                           chunk_.first() + static_cast<Index>(r), " at the start of the level sigma = ", sigma, " (step ", step,
                           "); start where the model has a density, or train the model further");
    }
  }

  // One proposal for every row; returns how many were accepted.
  std::int64_t step(std::uint32_t step, double h) {
    const S drift = static_cast<S>(h), noise = static_cast<S>(std::sqrt(2 * h));
    chunk_.normals(Purpose::langevin, step);
    for (Index i = 0; i < chunk_.size(); ++i) {
      proposal_.data()[i] = chunk_.x.data()[i] + drift * chunk_.s.data()[i] + noise * chunk_.z.data()[i];
    }
    chunk_.score(proposal_, sigma_, proposal_score_);
    energy(proposal_, proposal_log_p_);
    chunk_.rng().template uniforms<double>(Purpose::accept, step, static_cast<std::uint64_t>(chunk_.first()), uniform_);
    std::int64_t accepted = 0;
    for (Index r = 0; r < chunk_.rows(); ++r) accepted += decide(r, step, h);
    return accepted;
  }

 private:
  void energy(ConstRows<S> y, std::vector<double>& out) {
    if constexpr (std::is_same_v<S, double>) {
      chunk_.model().energy(y, std::span<const double>(&sigma_, 1), nullptr, out);
    } else {
      const double level = static_cast<double>(static_cast<S>(sigma_));  // the level that the score in S sees
      chunk_.model().energy(MatrixD(y), std::span<const double>(&level, 1), nullptr, out);
    }
  }

  bool decide(Index r, std::uint32_t step, double h) {
    const std::size_t i = static_cast<std::size_t>(r);
    const double ratio =
        detail::mala_log_ratio<S>(h, {ConstRows<S>(chunk_.x).row(r), std::as_const(chunk_.s).row(r), log_p_[i]},
                                  {std::as_const(proposal_).row(r), std::as_const(proposal_score_).row(r), proposal_log_p_[i]});
    check<DivergedError>(!std::isnan(ratio), "mala: the acceptance of row ", chunk_.first() + r, " at step ", step,
                         " (sigma = ", sigma_, ") is not a number (log p of the proposal ", proposal_log_p_[i],
                         "); use a smaller step_size_factor, or train the model further");
    if (std::log(uniform_(r, 0)) > ratio) return false;
    std::copy_n(proposal_.row(r).data(), proposal_.cols(), chunk_.x.row(r).data());
    std::copy_n(proposal_score_.row(r).data(), proposal_.cols(), chunk_.s.row(r).data());
    log_p_[i] = proposal_log_p_[i];
    return true;
  }

  Chunk<S>& chunk_;
  double sigma_ = 0;
  MatrixX<S> proposal_, proposal_score_;  // (n, D)
  MatrixD uniform_;                       // (n, 1)
  std::vector<double> log_p_, proposal_log_p_;
};

template <class S>
MalaSamplesX<S> run(const ScoreModel& model, const NoiseLevels& levels, MatrixX<S> x, const MalaOptions& options,
                    const Rng& rng) {
  check_arguments(model, options);
  check(options.steps_per_level <= std::numeric_limits<std::uint32_t>::max() / levels.size(),
        "mala: more than 2^32 steps in one run");
  const Index steps = options.steps_per_level, n = x.rows();
  const detail::RunOptions run{.sampler = "mala",
                               .steps = steps * levels.size(),
                               .save_every = options.save_every,
                               .trajectory_rows = options.trajectory_rows,
                               .chunk_rows = options.chunk_rows,
                               .bound = 1e6 * std::max(levels.max(), detail::largest_entry<S>(x, "mala")),
                               .remedy = "train the model further",
                               .progress = &options.progress};
  std::vector<std::atomic<std::int64_t>> accepted(static_cast<std::size_t>(levels.size()));
  MalaSamplesX<S> samples;
  samples.x = std::move(x);
  detail::run_chunks<S>(model, run, rng, samples, [&](Chunk<S>& chunk) {
    MetropolisRows<S> rows(chunk);
    std::uint32_t step = 0;
    for (Index i = 0; i < levels.size(); ++i) {
      const double sigma = levels[i];
      const double h = detail::chain_level(sigma, steps, options.step_size_factor * sigma * sigma, options.convention, 1).drift;
      if (steps > 0) rows.enter_level(sigma, step);
      for (Index t = 0; t < steps; ++t) {
        accepted[static_cast<std::size_t>(i)] += rows.step(step++, h);
        chunk.finish_step(sigma);
      }
    }
    if (!options.denoise) return;
    const double sigma = levels.min();
    if (steps == 0) chunk.score(sigma);  // otherwise chunk.s is the state's score already
    for (Index i = 0; i < chunk.size(); ++i) chunk.x.data()[i] += static_cast<S>(sigma * sigma) * chunk.s.data()[i];
    chunk.check_bound([&] { return join("the final Tweedie step (sigma = ", sigma, ")"); });
  });
  samples.evaluations = levels.size() * (steps > 0 ? steps + 1 : 0) + (options.denoise && steps == 0 ? 1 : 0);  // also of no rows
  const double proposals = static_cast<double>(std::max<Index>(1, n * steps));
  for (const auto& count : accepted) samples.acceptance.push_back(static_cast<double>(count) / proposals);
  return samples;
}

}  // namespace

MalaSamples mala(const ScoreModel& model, const NoiseLevels& levels, const MalaOptions& options, const Rng& rng) {
  check_arguments(model, options);
  return run(model, levels, detail::prior_draw<float>(options.samples, model.dim(), levels.max(), rng), options, rng);
}

MalaSamples mala(const ScoreModel& model, const NoiseLevels& levels, ConstRows<float> x_init, const MalaOptions& options,
                 const Rng& rng) {
  return run(model, levels, Matrix(x_init), options, rng);
}

MalaSamplesD mala(const ScoreModel& model, const NoiseLevels& levels, ConstRows<double> x_init, const MalaOptions& options,
                  const Rng& rng) {
  return run(model, levels, MatrixD(x_init), options, rng);
}

}  // namespace tweedie
