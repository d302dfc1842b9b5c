// SPDX-License-Identifier: MIT
#include "tweedie/samplers/repaint.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/detail/sigma_steps.h"

namespace tweedie {

namespace {

using detail::Chunk;

constexpr std::uint32_t kBackNoise = 1;  // sub-draw of the way back up; the step's own is 0

template <class S>
double check_known(ConstRows<S> x, ConstRows<std::uint8_t> known) {
  check(known.rows() == x.rows() && known.cols() == x.cols(), "repaint: the mask of known cells is ", shape(known), ", x is ",
        shape(x), "; give them the same shape");
  double largest = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index j = 0; j < x.cols(); ++j) {
      if (known(r, j) == 0) continue;
      check<DataError>(std::isfinite(x(r, j)), "repaint: row ", r, ", column ", j, " is marked as known and is not finite");
      largest = std::max(largest, std::abs(static_cast<double>(x(r, j))));
    }
  }
  return largest;
}

// A chunk's rows with the cells that they must agree with.
template <class S>
class KnownCells {
 public:
  KnownCells(Chunk<S>& chunk, ConstRows<S> x, ConstRows<std::uint8_t> known, Index draws)
      : chunk_(chunk), x_(x), known_(known), draws_(draws) {}

  // Known cells: to given + sigma z, z being chunk.z. Missing cells: to missing(i), i the index in chunk.x.
  template <class Missing>
  void put(S sigma, const Missing& missing) {
    for (Index r = 0, i = 0; r < chunk_.rows(); ++r) {
      const Index row = (chunk_.first() + r) / draws_;
      for (Index j = 0; j < chunk_.x.cols(); ++j, ++i) {
        chunk_.x.data()[i] = known_(row, j) != 0 ? x_(row, j) + sigma * chunk_.z.data()[i] : missing(i);
      }
    }
  }

 private:
  Chunk<S>& chunk_;
  ConstRows<S> x_;
  ConstRows<std::uint8_t> known_;
  Index draws_;
};

// One ancestral step of every row, the known cells replaced.
template <class S>
void step_down(Chunk<S>& chunk, KnownCells<S>& cells, double sigma, double next, std::uint32_t step) {
  chunk.score(sigma);
  chunk.normals(Purpose::sde, step);
  const detail::DdimStep ddim = detail::ddim_step(sigma, next, 1);
  const S variance = static_cast<S>(sigma * sigma), keep = static_cast<S>(ddim.keep), noise = static_cast<S>(ddim.noise);
  cells.put(static_cast<S>(next), [&](Index i) {
    const S x = chunk.x.data()[i], x0 = x + variance * chunk.s.data()[i];
    return x0 + keep * (x - x0) + noise * chunk.z.data()[i];
  });
}

// Forward noise from level `next` back to sigma > next.
template <class S>
void step_back(Chunk<S>& chunk, double sigma, double next, std::uint32_t step) {
  chunk.normals(Purpose::sde, step, kBackNoise);
  const S noise = static_cast<S>(std::sqrt(sigma * sigma - next * next));
  for (Index i = 0; i < chunk.size(); ++i) chunk.x.data()[i] += noise * chunk.z.data()[i];
}

template <class S>
SamplesX<S> run(const ScoreModel& model, std::span<const double> levels, ConstRows<S> x, ConstRows<std::uint8_t> known,
                const RepaintOptions& options, const Rng& rng) {
  check(options.draws >= 1 && options.resample >= 1, "repaint: draws = ", options.draws, ", resample = ", options.resample,
        "; both must be at least 1");
  check(x.cols() == model.dim(), "repaint: x is ", shape(x), ", the model's dimension is ", model.dim());
  const std::vector<double> sigmas = detail::sigma_steps(model, levels, "repaint");
  const double largest = check_known(x, known);
  const Index last = static_cast<Index>(sigmas.size()) - 2;  // the step to 0
  check(last <= std::numeric_limits<std::uint32_t>::max() / options.resample, "repaint: more than 2^32 steps in one run");
  check(x.rows() <= std::numeric_limits<Index>::max() / options.draws, "repaint: ", options.draws, " draws of ", x.rows(),
        " rows are too many");
  SamplesX<S> samples{MatrixX<S>(x.rows() * options.draws, x.cols()), 0, {}, {}};
  for (Index r = 0; r < samples.x.rows(); ++r) {  // the start's known part; trajectories begin with it
    for (Index j = 0; j < x.cols(); ++j) samples.x(r, j) = known(r / options.draws, j) != 0 ? x(r / options.draws, j) : S(0);
  }
  const MatrixX<S> start = detail::prior_draw<S>(samples.x.rows(), x.cols(), sigmas[0], rng);
  for (Index i = 0; i < start.size(); ++i) samples.x.data()[i] += start.data()[i];
  const detail::RunOptions run{.sampler = "repaint",
                               .steps = last * options.resample + 1,
                               .save_every = options.save_every,
                               .trajectory_rows = options.trajectory_rows,
                               .chunk_rows = options.chunk_rows,
                               .bound = 1e6 * std::max(sigmas[0], largest),
                               .remedy = "train the model further, or use more levels",
                               .progress = &options.progress};
  detail::run_chunks<S>(model, run, rng, samples, [&](Chunk<S>& chunk) {
    KnownCells<S> cells(chunk, x, known, options.draws);
    std::uint32_t step = 0;
    for (Index i = 0; i <= last; ++i) {
      const double sigma = sigmas[static_cast<std::size_t>(i)], next = sigmas[static_cast<std::size_t>(i) + 1];
      const Index times = i < last ? options.resample : 1;
      for (Index u = 0; u < times; ++u, ++step) {
        if (u > 0) step_back(chunk, sigma, next, step);
        step_down(chunk, cells, sigma, next, step);
        chunk.finish_step(sigma);
      }
    }
  });
  samples.evaluations = run.steps;  // also of no rows
  return samples;
}

template <class S>
SamplesX<S> run_nan(const ScoreModel& model, std::span<const double> sigmas, ConstRows<S> x, const RepaintOptions& options,
                    const Rng& rng) {
  MatrixX<std::uint8_t> known(x.rows(), x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index j = 0; j < x.cols(); ++j) known(r, j) = !std::isnan(x(r, j));
  }
  return run<S>(model, sigmas, x, known, options, rng);
}

}  // namespace

Samples repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<float> x, ConstRows<std::uint8_t> known,
                const RepaintOptions& options, const Rng& rng) {
  return run(model, sigmas, x, known, options, rng);
}
SamplesD repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<double> x, ConstRows<std::uint8_t> known,
                 const RepaintOptions& options, const Rng& rng) {
  return run(model, sigmas, x, known, options, rng);
}
Samples repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<float> x, const RepaintOptions& options,
                const Rng& rng) {
  return run_nan(model, sigmas, x, options, rng);
}
SamplesD repaint(const ScoreModel& model, std::span<const double> sigmas, ConstRows<double> x, const RepaintOptions& options,
                 const Rng& rng) {
  return run_nan(model, sigmas, x, options, rng);
}

}  // namespace tweedie
