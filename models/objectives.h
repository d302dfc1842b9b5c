// objectives.h - what a score network is trained to minimise, and the noisy batches it is trained on.
//
//   denoising   1/2 E |sigma s(x0 + sigma eps, sigma) + eps|^2                         [Vincent 2011; Song & Ermon 2019, Eq. 5-6]
//   explicit    E[1/2 |s|^2 + tr(ds/dx)]                                               [Hyvarinen 2005]
//   sliced      E[1/2 (v.s)^2 + v.(ds/dx v)]                                           [Song et al. 2019, Eq. 7-8]
//   flow        1/2 E |v(x_t, t) - (eps - x0)|^2, x_t = (1 - t) x0 + t eps             [after Lipman et al. 2023, Eq. 9 and 23]
// Denoising needs one forward pass; explicit and sliced look at x alone and never at eps. For a network that knows the noise
// level all three are taken at x = x0 + sigma eps, so that their minimiser is the score of the data noised to sigma, and
// each row is weighted by lambda(sigma) = sigma^2, or by 1 (Weighting::plain). Written in u = sigma s, which is what a
// network computes, sigma^2 (1/2 |s|^2 + tr ds/dx) = 1/2 |u|^2 + sigma tr(du/dx): nothing is divided by a small sigma.
// The denoising losses of the literature are all a weight w(sigma) on the row's 1/2 |u + eps|^2, in unit-alpha coordinates
// (score_model.h: y = x_t / alpha = x0 + sigma eps), where the model's error of eps is -(u + eps), of x0 sigma (u + eps):
//   sigma_squared  1                                   error of eps
//   plain          1 / sigma^2                         error of the score
//   edm            (sigma^2 + sd^2) / sd^2             (sigma^2 + sd^2) / (sigma sd)^2 on the error of x0  [Karras et al. 2022,
//   Tab. 1] v              1 + sigma^2                         error of v = alpha eps - sigma_t x0 where alpha^2 + sigma_t^2 = 1
//                                                      [Salimans & Ho 2022, App. D]
//   likelihood     g(t)^2 / sigma_t^2                  g(t)^2 on the error of the score of x_t  [Song et al. 2021b, Eq. 7]
//   flow           (1 + sigma)^2, sigma = t / (1 - t)  error of the velocity: eps - x0 is -(1 + sigma) (u + eps) off
// A network with a learned u_v(sigma) = log_variance() has the row loss w e^-u_v 1/2 |u + eps|^2 + 1/2 D u_v, whose minimum over
// u_v is at e^u_v = w E|u + eps|^2 / D: every noise level then weighs alike  [Karras et al. 2024, Eq. 14-15].
// The tape refers to the batch's memory: the batch outlives the tape's next reset().
// Shapes: B batch, D data dimension; x, eps, s (B, D), sigma (B), row losses (B, 1).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <variant>

#include "tweedie/autodiff/tape.h"
#include "tweedie/core/random.h"
#include "tweedie/models/network.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/process.h"
#include "tweedie/models/sigma_sampling.h"

namespace tweedie {

/// The weight of a row, see above. Explicit and sliced score matching take sigma_squared and plain.
enum class Weighting { sigma_squared, plain, edm, v, likelihood };

struct Denoising {
  Weighting weighting = Weighting::sigma_squared;
  double sigma_data = .5;               // edm: the data's standard deviation
  std::optional<Process> process = {};  // likelihood: the process whose likelihood it bounds, with sigma drawn by process(p)
};

/// The flow's velocity as target: denoising with the weight (1 + sigma)^2.
struct FlowMatching {};

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

using Objective = std::variant<Denoising, Explicit, Sliced, FlowMatching>;

/// "denoising", "sliced(gaussian, variance_reduced, 3), plain": the objective with its options, as checkpoints record it.
TWEEDIE_API std::string describe(const Objective& objective);

/// Throws UsageError for options out of bounds or a weighting the objective does not take.
TWEEDIE_API void check_objective(const Objective& objective);

/// w(sigma) on the row's 1/2 |u + eps|^2; for explicit and sliced score matching on their 1/2 |u|^2 + sigma tr(du/dx).
/// Throws UsageError as check_objective(), and unless sigma is positive and finite.
TWEEDIE_API double loss_weight(const Objective& objective, double sigma);

/// Rows at their noise. `level` is empty unless the sampling is `levels`; `directions` holds num_projections blocks of B rows for
/// sliced score matching and is empty otherwise. The conditions are the caller's: perturb() leaves them as they are.
template <class S>
struct BatchX {
  MatrixX<S> x;                  // (B, D) x0 + sigma eps
  Buffer<S> sigma;               // (B)
  Buffer<std::int32_t> level;    // (B) or empty
  MatrixX<S> eps;                // (B, D)
  MatrixX<S> directions;         // (num_projections B, D) or empty
  Buffer<std::int32_t> labels;   // (B) class labels, or empty
  MatrixX<S> covariates;         // (B, C), or empty
  Buffer<std::int32_t> dropped;  // (B) not 0 where the row goes without its condition, or empty

  Index rows() const { return x.rows(); }
  NoiseInput<S> noise() const { return {sigma.span(), level.span(), labels.span(), covariates.view(), dropped.span()}; }
};
using Batch = BatchX<float>;
using BatchD = BatchX<double>;

/// Which draws of a stream a batch takes: those of `step`, rows first_row, first_row + 1, ...
struct PerturbOptions {
  SigmaSampling sampling = SigmaSampling::levels;
  std::uint32_t step = 0;
  std::uint64_t first_row = 0;
};

/// Every row of `data` (B, D) at its own random noise level: sigma by Purpose::level, eps by Purpose::perturb. Distributions over
/// a range take that of the levels. Throws UsageError for SigmaSampling::automatic and as SigmaSampling::truncated().
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
/// The same with any weight w(sigma_b): mean_b w_b/2 |u_b + eps_b|^2.
template <class S>
TWEEDIE_API LossX<S> denoising_score_matching_loss(VarX<S> scaled_score, const BatchX<S>& batch, const Denoising& options);

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

/// The loss of an objective for a network at a batch, its weighting applied and, where the network has one, its learned
/// log-variance. `parameters` as parameter_vars() makes them. Throws UsageError as check_objective(), and for explicit or sliced
/// score matching of a network with a log-variance: their losses are no squared error that it could be the variance of.
template <class S>
TWEEDIE_API LossX<S> objective_loss(const Objective& objective, const Network& network, TapeX<S>& tape,
                                    std::span<const VarX<S>> parameters, const BatchX<S>& batch);

/// The API page's by-hand form: the weighted denoising loss of a network whose own parameters are the tape's.
TWEEDIE_API Var denoising_loss(Tape& tape, const Network& network, std::span<const Var> parameters, const Batch& batch);

}  // namespace tweedie
