// likelihood.h - log-densities by the instantaneous change of variables along the probability flow.
//
//   log p_lo(y) = log p_hi(y_hi) + int tr(d/dy [dy / d ln s]) d ln s,   dy / d ln s = -s^2 score(y, s),   s from sigma_min to
//   sigma_max
//                                                                          [Song et al. 2021 (score_sde), Eq. 39; Chen et al.
//                                                                          2018]
//   Hutchinson: tr J = E v^T J v for E v v^T = I, the same probes all the way          [Hutchinson 1990; Grathwohl et al. 2019,
//   Eq. 8]
//
// State (y, integral) in double, Dormand-Prince 5(4) with each row's own step. With a process x = alpha y, and log p_t(x) =
// log p_s(y) - D ln alpha. x is (N, D); everything is in nats.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/process.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

/// exact: ScoreModel::divergence (D products with the derivative unless the model knows better; for D up to about 16).
/// hutchinson: `probes` products with the derivative, unbiased.
enum class Divergence { exact, hutchinson };
/// Rademacher probes have the smallest variance of all with independent entries. In two or three dimensions a few of them may all
/// agree by chance, and the standard error be 0: use the exact divergence there.
enum class Probe { rademacher, gaussian };
/// What stands for p at sigma_max. prior: N(0, sigma_max^2 I) (with a process its prior), which costs about .1 nats at sigma_max
/// = 10 over data of width 3 and .01 at 80. exact: ScoreModel::log_density at sigma_max, for models that have one.
enum class Terminal { prior, exact };

TWEEDIE_API const char* to_string(Divergence divergence);
TWEEDIE_API const char* to_string(Probe probe);
TWEEDIE_API const char* to_string(Terminal terminal);
// By name; throw UsageError listing the names.
TWEEDIE_API Divergence divergence(std::string_view name);
TWEEDIE_API Probe probe(std::string_view name);
TWEEDIE_API Terminal terminal(std::string_view name);

struct LogDensityOptions {
  Divergence divergence = Divergence::exact;
  Index probes = 8;  // of hutchinson
  Probe probe = Probe::rademacher;
  Terminal terminal = Terminal::prior;
  // Where x lives and how far the flow goes. Without a process x is at sigma_min; 0 stands for the model's own end, or .01 and 50
  // where that is 0 or infinite. With a process x is at its t_min, in its own coordinates, and sigma_min and sigma_max stay 0.
  double sigma_min = 0;
  double sigma_max = 0;
  std::optional<Process> process = std::nullopt;
  double rtol = 1e-5;
  double atol = 1e-5;
  Index max_steps = 10000;
  Index chunk_rows = 256;               // rows that run together (speed only)
  SamplingCallback progress = nullptr;  // counts rows that have arrived
};

struct LogDensity {
  std::vector<double> nats;            // (N) log p at sigma_min (with a process: at t_min)
  std::vector<double> standard_error;  // (N) of hutchinson's mean over probes; 0 for exact; NaN for one probe
  std::vector<double> bits_per_dim;    // (N) -nats / (D ln 2)
  std::int64_t evaluations = 0;        // of score and divergence together, by the row that took most
  double mean_evaluations = 0;         // per row
};

/// Row i depends on the stream, i and x_i alone: the same bits for any threads, chunk and number of rows. Hutchinson draws its
/// probes from the stream (Purpose::project). Throws UsageError for bad options or a model without what is asked for,
/// DivergedError naming row, step and sigma where the score is not finite or the state leaves 1e6 max(sigma_max, |x|),
/// CancelledError.
TWEEDIE_API LogDensity log_density(const ScoreModel& model, ConstRows<double> x, const LogDensityOptions& options,
                                   const Rng& rng);
TWEEDIE_API LogDensity log_density(const ScoreModel& model, ConstRows<float> x, const LogDensityOptions& options, const Rng& rng);
/// The same without a stream, for Divergence::exact.
TWEEDIE_API LogDensity log_density(const ScoreModel& model, ConstRows<double> x, const LogDensityOptions& options);
TWEEDIE_API LogDensity log_density(const ScoreModel& model, ConstRows<float> x, const LogDensityOptions& options);

/// A rectangle of the plane.
struct Box {
  double x_min, x_max, y_min, y_max;
};
/// int exp(log_density) over the box by the midpoint rule on resolution^2 points: 1 for a box that holds the mass, if model, flow
/// and divergence agree. The rule's error falls like exp(-2 pi^2 w^2 / h^2) with the spacing h against the narrowest scale w. D
/// = 2.
TWEEDIE_API double integrate_density(const ScoreModel& model, const Box& box, Index resolution, const LogDensityOptions& options);

}  // namespace tweedie
