// objectives.h - what a score network is trained to minimise, and the noisy batches it is trained on.
//
//   denoising   1/2 E |sigma s(x0 + sigma eps, sigma) + eps|^2                         [Vincent 2011; Song & Ermon 2019, Eq. 5-6]
//   explicit    E[1/2 |s|^2 + tr(ds/dx)]                                               [Hyvarinen 2005]
//   sliced      E[1/2 (v.s)^2 + v.(ds/dx v)]                                           [Song et al. 2019, Eq. 7-8]
// Denoising needs one forward pass; explicit and sliced look at x alone and never at eps. For a network that knows the noise
// level all three are taken at x = x0 + sigma eps, so that their minimiser is the score of the data noised to sigma, and
// each row is weighted by lambda(sigma) = sigma^2, or by 1 (Weighting::plain). Written in u = sigma s, which is what a
// network computes, sigma^2 (1/2 |s|^2 + tr ds/dx) = 1/2 |u|^2 + sigma tr(du/dx): nothing is divided by a small sigma.
// The tape refers to the batch's memory: the batch outlives the tape's next reset().
// Shapes: B batch, D data dimension; x, eps, s (B, D), sigma (B), row losses (B, 1).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <variant>

#include "tweedie/autodiff/tape.h"
#include "tweedie/core/random.h"
#include "tweedie/models/network.h"
#include "tweedie/models/noise_levels.h"

namespace tweedie {

/// lambda(sigma), the weight of a row.
enum class Weighting { sigma_squared, plain };

struct Denoising {
  Weighting weighting = Weighting::sigma_squared;
};

/// Explicit score matching: the exact trace of the Jacobian, D derivatives a row.
struct Explicit {
  Weighting weighting = Weighting::sigma_squared;
};

/// How a direction v of sliced score matching is drawn. unit: uniform on the unit sphere, as in the chapter.
enum class Projection { unit, gaussian, rademacher };

/// Sliced score matching with `num_projections` directions a row.
/// The variance-reduced form 1/2 |s|^2 + v.(ds/dx v) [Song et al. 2019, Eq. 8] needs E[v v^T] = I. Unit vectors have
/// E[v v^T] = I/D and a minimiser s/D there, so that form takes sqrt(D) times a unit vector. In the plain form a unit vector
/// is right: it scales the whole objective by 1/D, and its minimiser is s.
struct Sliced {
  Projection projection = Projection::unit;
  bool variance_reduced = false;
  Index num_projections = 1;
  Weighting weighting = Weighting::sigma_squared;
};

using Objective = std::variant<Denoising, Explicit, Sliced>;

/// "denoising", "sliced(gaussian, variance_reduced, 3), plain": the objective with its options, as checkpoints record it.
TWEEDIE_API std::string describe(const Objective& objective);

/// levels: each of the discrete levels alike. continuous: ln sigma uniform between the smallest and the largest level.
enum class SigmaSampling { levels, continuous };

/// Rows at their noise. `level` is empty with continuous sampling; `directions` holds num_projections blocks of B rows for
/// sliced score matching and is empty otherwise.
template <class S>
struct BatchX {
  MatrixX<S> x;                // (B, D) x0 + sigma eps
  Buffer<S> sigma;             // (B)
  Buffer<std::int32_t> level;  // (B) or empty
  MatrixX<S> eps;              // (B, D)
  MatrixX<S> directions;       // (num_projections B, D) or empty

  Index rows() const { return x.rows(); }
  NoiseInput<S> noise() const { return {sigma.span(), level.span()}; }
};
using Batch = BatchX<float>;
using BatchD = BatchX<double>;

/// Which draws of a stream a batch takes: those of `step`, rows first_row, first_row + 1, ...
struct PerturbOptions {
  SigmaSampling sampling = SigmaSampling::levels;
  std::uint32_t step = 0;
  std::uint64_t first_row = 0;
};

/// Every row of `data` (B, D) at its own random noise level: sigma by Purpose::level, eps by Purpose::perturb.
TWEEDIE_API Batch perturb(ConstRows<float> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options = {});
TWEEDIE_API BatchD perturb(ConstRows<double> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options = {});
/// The same into a batch whose memory is used again: allocates nothing when the shape and the sampling stay the same.
template <class S>
TWEEDIE_API void perturb(ConstRows<S> data, const NoiseLevels& levels, const Rng& rng, const PerturbOptions& options,
                         BatchX<S>& batch);
/// Draws the directions of sliced score matching (Purpose::project) into the batch; for other objectives none.
template <class S>
TWEEDIE_API void draw_directions(const Objective& objective, const Rng& rng, const PerturbOptions& options, BatchX<S>& batch);

/// A loss on the tape: its mean over the batch (1, 1) and the row losses (B, 1).
template <class S>
struct LossX {
  VarX<S> mean;
  VarX<S> rows;
};
using Loss = LossX<float>;
using LossD = LossX<double>;

/// 1/2 mean_b |u_b + eps_b|^2, or with the plain weighting 1/2 mean_b |s_b + eps_b/sigma_b|^2, s = u/sigma.
/// scaled_score u = sigma s(x, sigma), (B, D), at x = batch.x: a network's scaled_score(), or sigma times any score.
template <class S>
TWEEDIE_API LossX<S> denoising_score_matching_loss(VarX<S> scaled_score, const BatchX<S>& batch,
                                                   Weighting weighting = Weighting::sigma_squared);

/// mean_b |epsilon_b - eps_b|^2 for a model that predicts the noise (the chapter's form, without 1/2; epsilon = -sigma s).
template <class S>
TWEEDIE_API LossX<S> denoising_score_matching_epsilon(VarX<S> epsilon, const BatchX<S>& batch);

/// mean_b [1/2 |s_b|^2 + tr(ds/dx)_b]: explicit score matching. `score` (B, D) was computed from `x` (B, D) on their tape, each
/// row from its own row alone, and x is a variable or parameter of the tape. The trace is exact (D reverse passes that are
/// recorded).
template <class S>
TWEEDIE_API LossX<S> score_matching_loss(VarX<S> score, VarX<S> x);

/// mean over b and projections of 1/2 (v.s_b)^2 + v.(ds/dx v), or of the variance-reduced form. `directions`
/// (num_projections B, D) as draw_directions() makes them: block p holds direction p of each row. Weighting is not applied.
template <class S>
TWEEDIE_API LossX<S> sliced_score_matching_loss(VarX<S> score, VarX<S> x, std::type_identity_t<ConstRows<S>> directions,
                                                const Sliced& options = {});

/// The loss of an objective for a network at a batch, its weighting applied. `parameters` as parameter_vars() makes them.
template <class S>
TWEEDIE_API LossX<S> objective_loss(const Objective& objective, const Network& network, TapeX<S>& tape,
                                    std::span<const VarX<S>> parameters, const BatchX<S>& batch);

/// The API page's by-hand form: the weighted denoising loss of a network whose own parameters are the tape's.
TWEEDIE_API Var denoising_loss(Tape& tape, const Network& network, std::span<const Var> parameters, const Batch& batch);

}  // namespace tweedie
