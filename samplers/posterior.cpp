// SPDX-License-Identifier: MIT
#include "tweedie/samplers/posterior.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tweedie/samplers/detail/guided_denoiser.h"
#include "tweedie/samplers/detail/sigma_steps.h"

namespace tweedie {

const char* to_string(PosteriorMethod method) {
  switch (method) {
    case PosteriorMethod::dps:
      return "dps";
    case PosteriorMethod::pigdm:
      return "pigdm";
    case PosteriorMethod::mmps:
      break;
  }
  return "mmps";
}

PosteriorMethod posterior_method(std::string_view name) {
  if (name == "dps") return PosteriorMethod::dps;
  if (name == "pigdm") return PosteriorMethod::pigdm;
  if (name == "mmps") return PosteriorMethod::mmps;
  fail("posterior method '", name, "' is unknown; choose dps, pigdm or mmps");
}

namespace {

using detail::Chunk;
using detail::GuidedDenoiser;

void check_arguments(const ScoreModel& model, const LinearObservation& observation, ConstRows<double> y,
                     const PosteriorOptions& options) {
  check(model.has_vjp(), "posterior_sample: ", model.name(), " cannot multiply by its score's Jacobian (vjp), which ",
        to_string(options.method),
        " needs; use a network or an exact mixture, or repaint, which fills missing coordinates with the score alone");
  check_observation(observation, model.dim(), "posterior_sample");
  check(y.cols() == observation.a.rows(), "posterior_sample: y is ", shape(y), ", A has ", observation.a.rows(),
        " rows; give one observation per row of y");
  check(options.draws >= 1 && y.rows() <= std::numeric_limits<Index>::max() / options.draws,
        "posterior_sample: draws = ", options.draws, " must be at least 1, and the draws of ", y.rows(),
        " observations countable");
  check(options.eta >= 0 && options.eta <= 1, "posterior_sample: eta = ", options.eta, " must be in [0, 1]");
  check(std::isfinite(options.zeta) && options.zeta >= 0, "posterior_sample: zeta = ", options.zeta,
        " must be finite and not negative");
  check(options.conjugate_gradients >= 0, "posterior_sample: conjugate_gradients = ", options.conjugate_gradients,
        " must not be negative");
  check(
      options.solver != PosteriorSolver::heun || options.method != PosteriorMethod::dps,
      "posterior_sample: dps guides the step, not the denoiser, and cannot be solved by heun; use ddim (eta = 0 is the flow), or "
      "pigdm or mmps");
}

// x <- x0 + keep (x - x0) + noise z, and dps's shift.
void step_ddim(Chunk<double>& chunk, GuidedDenoiser& guide, double sigma, double next, std::uint32_t step,
               const PosteriorOptions& options, MatrixD& x0, MatrixD& shift) {
  guide.denoise(chunk.x, sigma, x0);
  const bool dps = options.method == PosteriorMethod::dps;
  if (dps) guide.dps_shift(chunk.x, sigma, x0, shift);
  const detail::DdimStep ddim = detail::ddim_step(sigma, next, options.eta);
  if (ddim.noise > 0) chunk.normals(Purpose::sde, step);
  for (Index i = 0; i < chunk.size(); ++i) {
    const double mean = x0.data()[i];
    double x = mean + ddim.keep * (chunk.x.data()[i] - mean);
    if (ddim.noise > 0) x += ddim.noise * chunk.z.data()[i];
    if (dps) x += shift.data()[i];
    chunk.x.data()[i] = x;
  }
}

// d = (x - x0(x)) / sigma;  x' = x + (next - sigma) d;  x <- x + (next - sigma) (d + (x' - x0(x')) / next) / 2.
void step_heun(Chunk<double>& chunk, GuidedDenoiser& guide, double sigma, double next, MatrixD& x0, MatrixD& predicted) {
  guide.denoise(chunk.x, sigma, x0);
  for (Index i = 0; i < chunk.size(); ++i) {
    const double x = chunk.x.data()[i], slope = (x - x0.data()[i]) / sigma;
    predicted.data()[i] = next > 0 ? x + (next - sigma) * slope : x0.data()[i];
    chunk.x.data()[i] = next > 0 ? x + .5 * (next - sigma) * slope : x0.data()[i];
  }
  if (next == 0) return;
  guide.denoise(predicted, next, x0);
  for (Index i = 0; i < chunk.size(); ++i) {
    chunk.x.data()[i] += .5 * (next - sigma) * (predicted.data()[i] - x0.data()[i]) / next;
  }
}

double largest_entry(ConstRows<double> y) {
  double largest = 0;
  for (Index r = 0; r < y.rows(); ++r) {
    for (const double v : y.row(r)) {
      check<DataError>(std::isfinite(v), "posterior_sample: row ", r, " of y is not finite");
      largest = std::max(largest, std::abs(v));
    }
  }
  return largest;
}

}  // namespace

SamplesD posterior_sample(const ScoreModel& model, const LinearObservation& observation, ConstRows<double> y,
                          std::span<const double> levels, const PosteriorOptions& options, const Rng& rng) {
  check_arguments(model, observation, y, options);
  const std::vector<double> sigmas = detail::sigma_steps(model, levels, "posterior_sample");
  SamplesD samples{detail::prior_draw<double>(y.rows() * options.draws, model.dim(), sigmas[0], rng), 0, {}, {}};
  const detail::RunOptions run{.sampler = "posterior_sample",
                               .steps = static_cast<Index>(sigmas.size()) - 1,
                               .save_every = options.save_every,
                               .trajectory_rows = options.trajectory_rows,
                               .chunk_rows = options.chunk_rows,
                               .bound = 1e6 * std::max(sigmas[0], largest_entry(y)),
                               .remedy = "use more levels, a larger noise variance, or train the model further",
                               .progress = &options.progress};
  detail::run_chunks<double>(model, run, rng, samples, [&](Chunk<double>& chunk) {
    GuidedDenoiser guide(chunk, observation, y, options);
    MatrixD x0(chunk.rows(), chunk.x.cols()), other(chunk.rows(), chunk.x.cols());
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      if (options.solver == PosteriorSolver::heun) {
        step_heun(chunk, guide, sigmas[i], sigmas[i + 1], x0, other);
      } else {
        step_ddim(chunk, guide, sigmas[i], sigmas[i + 1], static_cast<std::uint32_t>(i), options, x0, other);
      }
      chunk.finish_step(sigmas[i]);
    }
  });
  return samples;
}

}  // namespace tweedie
