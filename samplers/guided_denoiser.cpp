// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/guided_denoiser.h"

#include <algorithm>
#include <cmath>

#include "tweedie/core/eigen_solvers.h"

namespace tweedie::detail {

namespace {

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// y += factor x
void add(double factor, std::span<const double> x, std::span<double> y) {
  for (std::size_t i = 0; i < x.size(); ++i) y[i] += factor * x[i];
}

}  // namespace

GuidedDenoiser::GuidedDenoiser(Chunk<double>& chunk, const LinearObservation& observation, ConstRows<double> y,
                               const PosteriorOptions& options)
    : chunk_(chunk),
      observation_(observation),
      y_(y),
      options_(options),
      residual_(chunk.rows(), observation.a.rows()),
      solution_(chunk.rows(), observation.a.rows()),
      direction_(chunk.rows(), chunk.x.cols()),
      image_(chunk.rows(), chunk.x.cols()) {
  if (options.method == PosteriorMethod::mmps && options.conjugate_gradients == 0) {
    jacobian_.assign(static_cast<std::size_t>(observation.a.rows()), MatrixD(chunk.rows(), chunk.x.cols()));
  }
}

void GuidedDenoiser::denoise(ConstRows<double> x, double sigma, Rows<double> x0) {
  if (!jacobian_.empty()) return mmps_direct(x, sigma, x0);
  chunk_.score(x, sigma, chunk_.s);
  mean(x, sigma, chunk_.s, x0);
  residual(x0);
  if (options_.method == PosteriorMethod::pigdm) pigdm(x, sigma, x0);
  if (options_.method == PosteriorMethod::mmps) mmps_conjugate_gradients(x, sigma, x0);
}

void GuidedDenoiser::mean(ConstRows<double> x, double sigma, ConstRows<double> score, Rows<double> x0) const {
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index j = 0; j < x.cols(); ++j) x0(r, j) = x(r, j) + sigma * sigma * score(r, j);
  }
}

void GuidedDenoiser::residual(ConstRows<double> x0) {
  for (Index r = 0; r < x0.rows(); ++r) {
    const auto y = y_.row((chunk_.first() + r) / options_.draws);
    for (Index m = 0; m < residual_.cols(); ++m) {
      residual_(r, m) = y[static_cast<std::size_t>(m)] - dot(observation_.a.row(m), x0.row(r));
    }
  }
}

void GuidedDenoiser::adjoint(ConstRows<double> u, Rows<double> v) const {
  for (Index r = 0; r < v.rows(); ++r) {
    std::fill(v.row(r).begin(), v.row(r).end(), 0.);
    for (Index m = 0; m < u.cols(); ++m) add(u(r, m), observation_.a.row(m), v.row(r));
  }
}

// J = I + sigma^2 ds/dx.
void GuidedDenoiser::pull_back(ConstRows<double> x, double sigma, ConstRows<double> v, Rows<double> out) {
  chunk_.model().vjp(x, std::span<const double>(&sigma, 1), nullptr, v, chunk_.s, out);
  ++chunk_.evaluations;
  for (Index r = 0; r < v.rows(); ++r) {
    for (Index j = 0; j < v.cols(); ++j) out(r, j) = v(r, j) + sigma * sigma * out(r, j);
  }
}

void GuidedDenoiser::dps_shift(ConstRows<double> x, double sigma, ConstRows<double> x0, Rows<double> shift) {
  residual(x0);
  for (Index r = 0; r < residual_.rows(); ++r) {
    const double norm = std::sqrt(dot(residual_.row(r), residual_.row(r)));
    for (double& v : residual_.row(r)) v = norm > 0 ? options_.zeta * v / norm : 0;
  }
  adjoint(residual_, direction_);
  pull_back(x, sigma, direction_, shift);
}

void GuidedDenoiser::pigdm(ConstRows<double> x, double sigma, Rows<double> x0) {
  const double variance = sigma * sigma / (1 + sigma * sigma);
  const Index count = residual_.cols();
  EigenRowMajor<double> system(count, count);  // one for all rows
  for (Index m = 0; m < count; ++m) {
    for (Index k = 0; k < count; ++k) system(m, k) = variance * dot(observation_.a.row(m), observation_.a.row(k));
    system(m, m) += observation_.variance(m);
  }
  const Eigen::LLT<EigenRowMajor<double>> factor(system);
  check(factor.info() == Eigen::Success && factor.rcond() > 1e-14,
        "posterior_sample: r^2 A A^T + noise is singular at sigma = ", sigma,
        "; give the observation a noise variance > 0 or independent rows");
  for (Index r = 0; r < residual_.rows(); ++r) {
    residual_.view().middle_rows(r, 1).eigen().transpose() =
        variance * factor.solve(residual_.view().middle_rows(r, 1).eigen().transpose()).eval();
  }
  adjoint(residual_, direction_);
  pull_back(x, sigma, direction_, image_);
  for (Index r = 0; r < x0.rows(); ++r) add(1, image_.row(r), x0.row(r));
}

void GuidedDenoiser::mmps_direct(ConstRows<double> x, double sigma, Rows<double> x0) {
  const Index count = residual_.cols();
  for (Index m = 0; m < count; ++m) {
    for (Index r = 0; r < direction_.rows(); ++r) std::copy_n(observation_.a.row(m).data(), x.cols(), direction_.row(r).data());
    pull_back(x, sigma, direction_, jacobian_[static_cast<std::size_t>(m)]);
  }
  mean(x, sigma, chunk_.s, x0);
  residual(x0);
  EigenRowMajor<double> system(count, count);
  Eigen::LDLT<EigenRowMajor<double>> factor(count);
  const double variance = sigma * sigma;
  for (Index r = 0; r < x0.rows(); ++r) {
    for (Index m = 0; m < count; ++m) {
      for (Index k = 0; k <= m; ++k) {  // a learned J need not be symmetric, a covariance is
        system(m, k) = system(k, m) = .5 * variance *
                                      (dot(observation_.a.row(m), jacobian_[static_cast<std::size_t>(k)].row(r)) +
                                       dot(observation_.a.row(k), jacobian_[static_cast<std::size_t>(m)].row(r)));
      }
      system(m, m) += observation_.variance(m);
    }
    factor.compute(system);
    solution_.view().middle_rows(r, 1).eigen().transpose() = factor.solve(residual_.view().middle_rows(r, 1).eigen().transpose());
    for (Index m = 0; m < count; ++m) add(variance * solution_(r, m), jacobian_[static_cast<std::size_t>(m)].row(r), x0.row(r));
  }
}

// (Sy + sigma^2 A J A^T) u = residual by the method of Hestenes & Stiefel (1952), every row on its own. J^T A^T u is summed
// beside u, so that the solution needs no product of its own.
void GuidedDenoiser::mmps_conjugate_gradients(ConstRows<double> x, double sigma, Rows<double> x0) {
  const double variance = sigma * sigma;
  MatrixD& search = solution_;
  search = residual_;
  std::vector<double> applied(static_cast<std::size_t>(search.cols()));
  for (Index iteration = 0; iteration < options_.conjugate_gradients; ++iteration) {
    adjoint(search, direction_);
    pull_back(x, sigma, direction_, image_);
    for (Index r = 0; r < x0.rows(); ++r) {
      const double square = dot(residual_.row(r), residual_.row(r));
      for (Index m = 0; m < search.cols(); ++m) {
        applied[static_cast<std::size_t>(m)] =
            observation_.variance(m) * search(r, m) + variance * dot(observation_.a.row(m), image_.row(r));
      }
      const double curvature = dot(search.row(r), applied);
      check<DivergedError>(std::isfinite(curvature), "posterior_sample: the derivative of the score of row ", chunk_.first() + r,
                           " is not finite at sigma = ", sigma, " (conjugate gradients, iteration ", iteration,
                           "); check the model, or use repaint or a larger noise variance");
      if (curvature <= 0) continue;  // solved, or no longer positive definite
      const double length = square / curvature;
      add(variance * length, image_.row(r), x0.row(r));
      add(-length, applied, residual_.row(r));
      const double turn = dot(residual_.row(r), residual_.row(r)) / square;
      for (Index m = 0; m < search.cols(); ++m) search(r, m) = residual_(r, m) + turn * search(r, m);
    }
  }
}

}  // namespace tweedie::detail
