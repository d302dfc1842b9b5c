// c2st.h - classifier two-sample test: how well a small network tells samples from reference draws.
//
//   C2st c = c2st(reference, samples, {}, rng);        // c.accuracy: .5 where nothing tells them apart, 1 where all does
//
// [Lopez-Paz & Oquab 2017] by the recipe of the sbibm benchmark [Lueckmann et al. 2021]: both sets z-scored by the reference's
// mean and standard deviation; a network of two ReLU layers of 10 D units with a logistic output; five shuffled folds; the mean
// of the held-out accuracies. The network is trained as scikit-learn's MLPClassifier is by default: weights and biases uniform
// within +-sqrt(6 / (inputs + outputs)); log loss + alpha |weights|^2 / (2 rows); Adam; every epoch in a new order; until the
// epoch's loss has not fallen by 1e-4 below the best for more than 10 epochs.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/core/matrix.h"
#include "tweedie/core/random.h"

namespace tweedie {

struct C2stOptions {
  int folds = 5;           // at least 2; run in parallel
  Index hidden = 0;        // units of each of the two hidden layers; 0: 10 D
  int max_epochs = 10000;  // where training ends though the loss still falls
};

struct C2st {
  double accuracy = 0;  // mean over the folds; for equal laws a little below one half, by less than its standard error
  // sqrt(2 accuracy (1 - accuracy) / rows). Each row is held out once, which alone gives no factor; but near one half, rows of
  // different folds help to judge one another, the same product of their labels counts twice and the variance doubles. For laws
  // that are easily told apart it is too large by up to sqrt(2).
  double standard_error = 0;
  std::vector<double> accuracies;  // of each fold
  std::vector<int> epochs;         // that each fold's training took
};

/// Accuracy of telling samples (m, D) from reference (n, D). The order of the arguments matters a little: the reference's moments
/// scale both. The result depends on the stream and the rows, not on the number of threads. With m != n the rate of the larger
/// set, not .5, stands for "no difference". Throws UsageError for shapes or options that do not fit, DataError for values that
/// are not finite or a column of the reference that is constant.
TWEEDIE_API C2st c2st(ConstRows<float> reference, ConstRows<float> samples, const C2stOptions& options, const Rng& rng);

}  // namespace tweedie
