// stein.h - kernel Stein discrepancy: how well samples fit a law of which only the score is known.
//
//   SteinDiscrepancy d = stein_discrepancy(model, .01, samples);      // d.v_statistic >= 0, 0 only at the model's law
//   SteinTest t = stein_test(model, .01, samples, {}, rng);           // t.p_value of "the samples come from the model's law"
//
//   u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr(grad_x grad_y k),     k = (c^2 + |x - y|^2)^beta
//
// E u(X, Y) = 0 where X and Y are independent draws of the law whose score s is [Liu, Lee & Jordan 2016; Chwialkowski, Strathmann
// & Gretton 2016]; with this inverse multiquadric kernel it tends to zero only where the samples' law tends to the model's
// [Gorham & Mackey 2017, Theorem 8]. Wrong weights of far modes are nearly invisible to it: the score does not know them.
// Of a conditional model each sample has its own condition c: s(x) is s(x | c), and the kernel takes how far the conditions are
// apart too, k = (c^2 + |x - y|^2 + |c_x - c_y|^2)^beta, differentiated by x and y alone, so that errors under one condition are
// not made up for by those under another. E u = 0 where each sample is drawn under its condition, whatever the conditions' law
// [Jitkrittum, Kanagawa & Schoelkopf 2020]. Covariates count with their differences, two labels that differ with 2.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

struct SteinKernel {
  double c = 1;       // > 0, the length scale, in the samples' unit
  double beta = -.5;  // in (-1, 0)
};

struct SteinDiscrepancy {
  double u_statistic = 0;  // mean of u over the n (n - 1) pairs of different samples: unbiased, may be negative
  double v_statistic = 0;  // mean of u over all n^2 pairs: >= 0, the squared discrepancy of the empirical law
};

/// Of samples (n, D), n >= 2, against the score at noise level sigma, evaluated in double; `conditions`: the samples', n of each
/// kind. O(n^2 D) time, O(n D) memory; the same bits for any number of threads. Throws UsageError for options or shapes that do
/// not fit, DataError for samples that are not finite, DivergedError for a score that is not.
TWEEDIE_API SteinDiscrepancy stein_discrepancy(const ScoreModel& model, double sigma, ConstRows<float> samples,
                                               const SteinKernel& kernel = {}, const Condition* conditions = nullptr);

struct SteinTestOptions {
  SteinKernel kernel{};
  int bootstraps = 999;  // the smallest p-value is 1 / (bootstraps + 1)
  // Chance that the bootstrap's sign changes from one row to the next: 1/2 for independent samples; for the states of a chain, in
  // order, small beside 1 / (its autocorrelation time) [Chwialkowski et al. 2016, Section 4].
  double sign_change = .5;
};

struct SteinTest {
  double statistic = 0;  // the V-statistic
  double p_value = 1;    // (1 + bootstraps that reach it) / (1 + bootstraps)
};

/// Wild bootstrap: the V-statistic beside mean w_i w_j u(x_i, x_j) with random signs w. O(n^2 (D + bootstraps)) time,
/// O(n bootstraps) bytes. Errors as above.
TWEEDIE_API SteinTest stein_test(const ScoreModel& model, double sigma, ConstRows<float> samples, const SteinTestOptions& options,
                                 const Rng& rng, const Condition* conditions = nullptr);

}  // namespace tweedie
