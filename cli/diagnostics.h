// diagnostics.h - the slow measures of tweedie eval: exact transport, a classifier, Stein's discrepancy, the likelihood.
//
// Each looks at so many rows of a set at most, spread evenly over it, and says at how many. Distances are between standardised
// rows; a model is asked about rows in its own scaling.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/console.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"
#include "tweedie/models/table.h"
#include "tweedie/samplers/likelihood.h"

namespace tweedie::cli {

inline constexpr Index kTransportRows = 500, kClassifierRows = 1000, kSteinRows = 1000, kLikelihoodRows = 500;
/// Beyond so many columns the trace in the likelihood is Hutchinson's estimate, since the exact one takes D derivatives.
inline constexpr Index kExactTraceDim = 16;
/// Beyond so many columns the classifier, whose layers are 10 D wide, is trained only when it is asked for by name.
inline constexpr Index kClassifierDim = 100;
/// A classifier with fewer rows of each set than this has nothing to learn from.
inline constexpr Index kLeastClassifierRows = 10;

/// W2 between equally many rows of both sets, matched at least cost.
struct Transport {
  double distance = 0;
  Index rows = 0;  // of each
};
Transport exact_transport(ConstRows<float> rows, ConstRows<float> held_out);

/// c2st.h between equally many rows; columns that do not vary among the held-out rows tell nothing apart and are left out.
struct ClassifierTest {
  double accuracy = 0, standard_error = 0;
  Index rows = 0, columns = 0;  // of each; that were used
};
/// Needs kLeastClassifierRows rows of each. Nothing where no column varies.
std::optional<ClassifierTest> classifier_test(ConstRows<float> samples, ConstRows<float> held_out, const Rng& rng);

/// stein.h under the model's own score at its smallest sigma: do the rows, with noise of that sigma added (what the score there
/// is of), follow the law whose score the network gives, under their conditions if it takes any?
struct SteinFit {
  double discrepancy = 0;  // U-statistic: 0 on average for rows of the model's own law
  double p_value = 1;      // that such rows would stand out as much
  Index rows = 0;
};
SteinFit stein_fit(const ScoreModel& model, const ModelRows& rows, Index count, const Rng& rng);

/// log p of each row under its own condition, in nats and the units of the table's own columns. A stream for each condition, by
/// its first row; a model without conditions has the whole stream. Ctrl-C is a CancelledError.
LogDensity density_of_rows(const ModelFile& model, const ModelRows& rows, LogDensityOptions options, const Rng& rng,
                           const Console& console);

/// Mean over rows of log p in nats, in the units of the table's own columns.
struct MeanLogDensity {
  double mean = 0;
  double standard_error = 0;  // over the rows, Hutchinson's noise included; NaN for one row
  double bits_per_dim = 0;
};
MeanLogDensity mean_log_density(const std::vector<double>& nats, Index dim);
/// Warns of columns of whole numbers, which have no density on the number line.
void warn_of_whole_numbers(const Console& console, const TableCode& code, double sigma_min);

struct Likelihood {
  MeanLogDensity density;
  double median = 0;  // nats; a single row far from all others can rule the mean
  Index rows = 0;
  Divergence divergence = Divergence::exact;
  std::int64_t evaluations = 0;  // of the row that took most
};
Likelihood likelihood(const ModelFile& model, const ModelRows& held_out, const Console& console, const Rng& rng);

}  // namespace tweedie::cli
