// linear_observation.h - what is known of x: y = A x + noise, noise ~ N(0, diag(noise_variance)); and the exact posterior of a
// Gaussian mixture given it, the oracle of every posterior sampler.
//
//   p(x | y) = sum_k w'_k N(m_k + G_k (y - A m_k), (I - G_k A) C_k),   G_k = C_k A^T S_k^-1,   S_k = A C_k A^T + Sy
//   w'_k proportional to w_k N(y; A m_k, S_k)
//
// [Bishop 2006, Eq. 2.113-2.117, in the gain's form]
// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "tweedie/models/gaussian_mixture.h"

namespace tweedie {

struct LinearObservation {
  MatrixD a;                           // (M, D)
  std::vector<double> noise_variance;  // 1 for all, or M; 0 or more

  /// A = the rows `columns` of the identity: some coordinates of x seen with noise. Throws UsageError for a column that is none.
  TWEEDIE_API static LinearObservation coordinates(Index dim, std::span<const Index> columns, double noise_variance);
  double variance(Index m) const { return noise_variance[noise_variance.size() == 1 ? 0 : static_cast<std::size_t>(m)]; }
};

/// Throws UsageError, in the name of `function`, unless a is (M, dim) with M >= 1 and finite, and noise_variance has 1 or M
/// finite entries >= 0.
TWEEDIE_API void check_observation(const LinearObservation& observation, Index dim, const char* function);

/// p(x | y), y (M). Throws UsageError for wrong shapes, or where an S_k is singular (dependent rows of A without noise). Without
/// noise the posterior's covariances are singular: it has a score for sigma > 0 only.
TWEEDIE_API GaussianMixture exact_posterior(const GaussianMixture& prior, const LinearObservation& observation,
                                            std::span<const double> y);

}  // namespace tweedie
