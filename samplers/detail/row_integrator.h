// row_integrator.h - Dormand-Prince 5(4) for many rows, each with its own step, along ln sigma.
//
//   d state / d ln sigma = rate(state, sigma);   error of a step = rms over columns of  e / (atol + rtol max(|old|, |new|))
//   h <- h clip(.9 e_n^(-.7/5) e_(n-1)^(.4/5), .2, 5);  after a rejection .9 e^(-1/5)
//
// [Dormand & Prince 1980, Table 2 (RK5(4)7M); the PI controller of Gustafsson 1991 with the exponents of Hairer & Wanner, Solving
// ODEs II, Sec. IV.2.] A norm over the batch would make a row depend on its neighbours; here a row's bits depend on that row
// alone. Rows that have arrived leave the batch. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "tweedie/core/matrix.h"
#include "tweedie/samplers/samples.h"

namespace tweedie::detail {

/// The Butcher tableau of an explicit Runge-Kutta method with at most seven stages.
struct Tableau {
  int stages;
  double c[7];     // nodes
  double a[7][6];  // a[i][j], j < i
  double b[7];     // weights
};
/// Dormand & Prince 5(4): row 7 of `a` is b, so the seventh stage is the next step's first.
inline constexpr Tableau kDormandPrince{7,
                                        {0, 1. / 5, 3. / 10, 4. / 5, 8. / 9, 1, 1},
                                        {{},
                                         {1. / 5},
                                         {3. / 40, 9. / 40},
                                         {44. / 45, -56. / 15, 32. / 9},
                                         {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},
                                         {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},
                                         {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84}},
                                        {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84, 0}};
/// b minus the weights of the embedded fourth-order method.
inline constexpr double kDormandPrinceError[7] = {71. / 57600,      0,         -71. / 16695, 71. / 1920,
                                                  -17253. / 339200, 22. / 525, -1. / 40};

struct AdaptiveOptions {
  const char* name;  // of the caller, for messages
  double rtol = 1e-5;
  double atol = 1e-5;
  Index max_steps = 10000;  // attempted, per row
  Index controlled = 0;     // first columns whose error steers the step; 0: all
  double bound = 0;         // |state| beyond it in the first `bounded` columns has diverged; 0: no bound
  Index bounded = 0;        // 0: all columns
  Index chunk_rows = 256;
  Index least_rows = 1;                        // of a chunk whatever the above, as the model asks (ScoreModel::least_rows)
  const SamplingCallback* progress = nullptr;  // counts rows that have arrived
};

/// Some rows at their own noise levels; `rate` is to be filled. `row` holds their indices among all.
struct RowBatch {
  ConstRows<double> state;        // (n, W)
  std::span<const double> sigma;  // (n)
  std::span<const Index> row;     // (n)
  Rows<double> rate;              // (n, W)
};
/// Called from several threads at once. A row's rate may depend on that row alone.
using RowField = std::function<void(const RowBatch&)>;

/// Takes every row of `state` (N, W) from sigma = from to sigma = to (either way); evaluations[i] becomes the number of rates
/// that row i took. sigma never leaves [from, to]. Throws UsageError for bad options, DivergedError naming row, step and sigma
/// when a rate is not finite, the state leaves the bound, a step shrinks to nothing or max_steps are used up, CancelledError.
void integrate_rows(const AdaptiveOptions& options, double from, double to, const RowField& field, Rows<double> state,
                    std::span<std::int64_t> evaluations);

/// Largest and mean of evaluations; 0 for no rows.
struct EvaluationCount {
  std::int64_t largest = 0;
  double mean = 0;
};
EvaluationCount count(std::span<const std::int64_t> evaluations);

}  // namespace tweedie::detail
