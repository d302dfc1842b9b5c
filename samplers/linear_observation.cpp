// SPDX-License-Identifier: MIT
#include "tweedie/samplers/linear_observation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "tweedie/core/eigen_solvers.h"

namespace tweedie {

LinearObservation LinearObservation::coordinates(Index dim, std::span<const Index> columns, double noise_variance) {
  LinearObservation observation{MatrixD(static_cast<Index>(columns.size()), dim), {noise_variance}};
  for (Index m = 0; m < observation.a.rows(); ++m) {
    const Index column = columns[static_cast<std::size_t>(m)];
    check(column >= 0 && column < dim, "LinearObservation::coordinates: column ", column, " of ", dim);
    observation.a(m, column) = 1;
  }
  return observation;
}

void check_observation(const LinearObservation& observation, Index dim, const char* function) {
  const MatrixD& a = observation.a;
  check(a.rows() >= 1 && a.cols() == dim, function, ": the observation's A is ", shape(a), ", the model's dimension is ", dim,
        "; give at least one row of ", dim, " entries");
  for (Index m = 0; m < a.rows(); ++m) {
    for (const double v : a.row(m)) check(std::isfinite(v), function, ": row ", m, " of the observation's A is not finite");
  }
  const std::size_t count = observation.noise_variance.size();
  check(count == 1 || static_cast<Index>(count) == a.rows(), function, ": ", count, " noise variances for ", a.rows(),
        " rows of A; give one for all or one per row");
  for (const double v : observation.noise_variance) {
    check(std::isfinite(v) && v >= 0, function, ": a noise variance is ", v, "; it must be finite and not negative");
  }
}

GaussianMixture exact_posterior(const GaussianMixture& prior, const LinearObservation& observation, std::span<const double> y) {
  check_observation(observation, prior.dim(), "exact_posterior");
  const Index rows = observation.a.rows(), dim = prior.dim();
  check(static_cast<Index>(y.size()) == rows, "exact_posterior: y has ", y.size(), " entries, A has ", rows, " rows");
  const detail::EigenRowMajor<double> a = observation.a.eigen();
  std::vector<double> log_weights;
  MatrixD means(prior.components(), dim);
  std::vector<MatrixD> covariances;
  for (Index k = 0; k < prior.components(); ++k) {
    const detail::EigenRowMajor<double> c = prior.covariance(k).eigen(), ac = a * c;
    detail::EigenRowMajor<double> s = ac * a.transpose();
    for (Index m = 0; m < rows; ++m) s(m, m) += observation.variance(m);
    const Eigen::LLT<detail::EigenRowMajor<double>> factor(s);
    check(factor.info() == Eigen::Success && factor.rcond() > 1e-14,
          "exact_posterior: A C A^T + noise is singular for component ", k,
          "; give the observation a noise variance > 0 or independent rows");
    detail::EigenRowMajor<double> residual = -a * prior.means().eigen().row(k).transpose();  // (M, 1)
    for (Index m = 0; m < rows; ++m) residual(m, 0) += y[static_cast<std::size_t>(m)];
    const detail::EigenRowMajor<double> gain = factor.solve(ac).transpose();  // (D, M)
    means.eigen().row(k) = prior.means().eigen().row(k) + (gain * residual).transpose();
    // (I - G A) C by Joseph's form, which stays symmetric and positive semi-definite.
    const detail::EigenRowMajor<double> rest = detail::EigenRowMajor<double>::Identity(dim, dim) - gain * a;
    detail::EigenRowMajor<double> posterior = rest * c * rest.transpose();
    for (Index m = 0; m < rows; ++m) posterior += observation.variance(m) * gain.col(m) * gain.col(m).transpose();
    MatrixD covariance(dim, dim);
    covariance.eigen() = .5 * (posterior + posterior.transpose());
    covariances.push_back(std::move(covariance));
    double log_det = 0;
    for (Index m = 0; m < rows; ++m) log_det += std::log(factor.matrixLLT()(m, m));
    log_weights.push_back(std::log(prior.weights()[static_cast<std::size_t>(k)]) - log_det -
                          .5 * residual.cwiseProduct(factor.solve(residual)).sum());
  }
  const double top = *std::max_element(log_weights.begin(), log_weights.end());
  std::vector<double> weights;
  for (const double w : log_weights) weights.push_back(std::max(std::exp(w - top), std::numeric_limits<double>::min()));
  return GaussianMixture(std::move(weights), std::move(means), std::move(covariances));
}

}  // namespace tweedie
