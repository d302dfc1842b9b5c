// probability_flow.h - the deterministic flow whose rows have the law of the noising process at every time.
//
//   dx/dt = f(t) x - g(t)^2 / 2 grad log p_t(x)                                           [Song et al. 2021 (score_sde), Eq. 13]
//
// In unit-alpha coordinates y = x / alpha, s = sigma / alpha (process.h) the drift's linear part is gone, exactly and for every
// process:
//   dy/ds = -s score(y, s),  so  dy / d ln s = -s^2 score(y, s)                                       [Karras et al. 2022, Eq. 1,
//   4]
// and ln s is the variable that is stepped in. x and y are (n, D).
// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "tweedie/core/random.h"
#include "tweedie/models/process.h"
#include "tweedie/models/score_model.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

/// Explicit Runge-Kutta methods of order 1, 2 and 5, with 1, 2 and 6 evaluations a step.
enum class FlowMethod { euler, heun, dormand_prince };
TWEEDIE_API const char* to_string(FlowMethod method);
/// "euler", "heun" or "dormand_prince"; throws UsageError listing them.
TWEEDIE_API FlowMethod flow_method(std::string_view name);

struct ProbabilityFlowOptions {
  Index samples = 1000;
  FlowMethod method = FlowMethod::dormand_prince;
  Index steps = 0;  // so many equal steps in ln s; 0: Dormand-Prince 5(4) with each row's own step
  // Of each row's own step: tolerances on y and the most steps it may try.
  double rtol = 1e-5;
  double atol = 1e-5;
  Index max_steps = 10000;
  // Of a fixed number of steps: keep the start and every so manieth state (0: none) of the first so many rows (0: all).
  Index save_every = 0;
  Index trajectory_rows = 0;
  Index chunk_rows = 512;               // rows that run together (speed only)
  SamplingCallback progress = nullptr;  // with rows' own steps it counts rows that have arrived
};

template <class S>
struct FlowSamplesX : SamplesX<S> {  // evaluations: of the row that took most
  double mean_evaluations = 0;       // per row
};
using FlowSamples = FlowSamplesX<float>;
using FlowSamplesD = FlowSamplesX<double>;

/// `samples` rows: x ~ N(0, prior_std^2 I) (Purpose::prior) at t_max is taken to t_min_sampling. The prior knows nothing of the
/// data's mean: at sigma_max = 50 a mean of 1.25 is worth .6 points of a mixture's weights, so centre the data or raise
/// sigma_max. Row i depends on the stream and i alone: the same bits for any number of threads, chunk and number of samples. With
/// rows' own steps the state is double whatever the scalar, the score is evaluated in the scalar. Throws UsageError for bad
/// options, among them rtol < 1e-6 in float (its rounding would be taken for the method's error), and for a process that leaves
/// the model's range of sigma; DivergedError naming row, step and sigma where the score is not finite or a state leaves 1e6 times
/// the larger of the largest sigma and |x|; CancelledError.
TWEEDIE_API FlowSamples probability_flow(const ScoreModel& model, const Process& process, const ProbabilityFlowOptions& options,
                                         const Rng& rng);
/// The same from x (n, D) at t_max, which replaces options.samples and the prior.
TWEEDIE_API FlowSamples probability_flow(const ScoreModel& model, const Process& process, ConstRows<float> x,
                                         const ProbabilityFlowOptions& options);
TWEEDIE_API FlowSamplesD probability_flow(const ScoreModel& model, const Process& process, ConstRows<double> x,
                                          const ProbabilityFlowOptions& options);

/// The way back: x (n, D), taken as x at t_min_sampling, to its latent at t_max. probability_flow(encode(x)) is x up to the
/// tolerance.
TWEEDIE_API FlowSamples encode(const ScoreModel& model, const Process& process, ConstRows<float> x,
                               const ProbabilityFlowOptions& options);
TWEEDIE_API FlowSamplesD encode(const ScoreModel& model, const Process& process, ConstRows<double> x,
                                const ProbabilityFlowOptions& options);

}  // namespace tweedie
