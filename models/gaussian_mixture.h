// gaussian_mixture.h - the oracle: a mixture of Gaussians whose score, density and Fisher information are exact at every sigma.
//
//   p(x) = sum_k w_k N(x; m_k, C_k),   p_sigma(y) = sum_k w_k N(y; m_k, C_k + sigma^2 I)
//   s(y, sigma) = sum_k r_k(y) (C_k + sigma^2 I)^-1 (m_k - y),   r_k = softmax_k ln[w_k N(y; m_k, C_k + sigma^2 I)]
//
// Its derivative (the Hessian of log p_sigma) is sum_k r_k [(g_k - s)(g_k - s)^T - P_k], P_k = (C_k + sigma^2 I)^-1, g_k = P_k
// (m_k - y). With C_k = U diag(l) U^T every sigma costs only 1 / (l + sigma^2). Also the analytic examples of the tutorial
// chapter. SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

/// J(p_sigma) = E|s|^2 and how far off it may be.
struct FisherInformation {
  double value;
  double error;  // quadrature (D <= 2): difference of the last two grids; D >= 3: the standard error of a fixed draw
};

class TWEEDIE_API GaussianMixture final : public ScoreModel {
 public:
  /// weights (K), means (K, D), covariances K times (D, D). Weights are positive and are scaled to sum 1; covariances are
  /// symmetric and positive semi-definite (singular ones have a score for sigma > 0 only). Throws UsageError otherwise.
  GaussianMixture(std::vector<double> weights, MatrixD means, std::vector<MatrixD> covariances);
  ~GaussianMixture() override;

  /// N(0, sigma^2 I): the chapter's gaussian_score.
  static GaussianMixture gaussian(Index dim, double sigma = 1);
  /// sum_k w_k N(m_k, sigma^2 I), means (K, D): in one dimension the chapter's mixture_score.
  static GaussianMixture isotropic(std::vector<double> weights, MatrixD means, double sigma);
  /// Equal weights, means (-1, 0) and (1, 0), sigma .5: the chapter's two_mode_score.
  static GaussianMixture two_mode();
  /// The tutorial's three anisotropic Gaussians: weights 1/3, means (-2, -1), (2, -1), (0, 2); component k has covariance
  /// R(theta) diag(a^2, b^2) R(theta)^T with (a, b, theta) = (.7, .3, .5), (.6, .25, -.6), (.8, .3, 0), theta in radians.
  static GaussianMixture three_gaussians();
  static GaussianMixture tutorial() { return three_gaussians(); }
  /// A harder one: weights .5, .3, .2, means (-3, 0), (3, 1), (0, 4), (a, b, theta) = (.6, .1, .8), (.3, .15, -.4), (.9,
  /// .2, 1.3).
  static GaussianMixture three_gaussians_unequal();
  /// Eight equal Gaussians of deviation .5 / sqrt(2) on a circle of radius 4 / sqrt(2).
  static GaussianMixture eight_gaussians();

  Index dim() const override { return means_.cols(); }
  Index components() const { return means_.rows(); }
  std::span<const double> weights() const { return weights_; }
  const MatrixD& means() const { return means_; }
  const MatrixD& covariance(Index component) const;

  // Any sigma >= 0 (sigma > 0 where a covariance is singular: UsageError). Float results err by about 1e-6 relative to |s|
  // times the conditioning of the point; the double ones by rounding.
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                   std::span<double> out) const override;
  // The Hessian of log p_sigma in closed form; it is symmetric, so vjp is jvp. The trace costs as much as a score.
  bool has_jvp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  bool has_vjp() const override { return true; }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override;
  const char* name() const override { return "gaussian mixture"; }

  /// (B, D) score of all rows at one sigma.
  Matrix score(ConstRows<float> y, double sigma) const;
  MatrixD score(ConstRows<double> y, double sigma) const;
  /// (B) log p_sigma(y) in nats.
  std::vector<double> log_density(ConstRows<double> y, double sigma) const;
  /// (B, K) probability of each component given y at noise sigma; rows sum to 1.
  MatrixD responsibilities(ConstRows<double> y, double sigma) const;
  /// (B, D) E[x0 | y] = y + sigma^2 s(y, sigma) [Tweedie; Efron 2011].
  MatrixD tweedie_mean(ConstRows<double> y, double sigma) const;

  /// E|s(y, sigma)|^2 over p_sigma. D <= 2: the trapezoidal rule in each component's own axes, the step halved until the value
  /// moves by less than 1e-10 of itself (or 4 million points are reached); D >= 3: 131,072 draws under a fixed key.
  FisherInformation fisher_information(double sigma) const;
  /// The law of alpha x + sigma eps: means alpha m_k, covariances alpha^2 C_k + sigma^2 I.
  GaussianMixture noised(double alpha, double sigma) const;
  /// The law of the named columns (at least one, each once), in their order. Throws UsageError.
  GaussianMixture marginal(std::span<const Index> columns) const;
  /// (n, D) draws from p. Row i depends on the key and i alone (Purpose::dataset, step 0).
  Matrix sample(Index n, const Rng& rng) const;

 private:
  // Means and axes once per scalar; axes[(k D + d) D + j] is coordinate j of component k's axis d.
  template <class S>
  struct Shape {
    std::vector<S> means, axes;
  };
  template <class S>
  struct Noised;  // what depends on sigma
  template <class S>
  const Shape<S>& shape_of() const;
  template <class S>
  Noised<S> noised_at(S sigma) const;
  template <class S, class Emit>
  void evaluate(ConstRows<S> y, std::span<const S> sigma, const Emit& emit) const;
  template <class S>
  void exact_score(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  double quadrature(double sigma, double step) const;

  std::vector<double> weights_;
  MatrixD means_;
  std::vector<MatrixD> covariances_;
  std::vector<double> variances_;  // (K, D): eigenvalues of C_k
  Shape<float> float_shape_;
  Shape<double> double_shape_;
};

/// The chapter's gaussian_score: -x / sigma^2, any shape.
TWEEDIE_API Matrix gaussian_score(ConstRows<float> x, double sigma = 1);
TWEEDIE_API MatrixD gaussian_score(ConstRows<double> x, double sigma = 1);
/// The chapter's mixture_score: element by element, the score of sum_k w_k N(m_k, sigma^2) in one dimension. Weights need not
/// sum to 1. Throws UsageError for unequal counts, weights <= 0 or sigma <= 0.
TWEEDIE_API Matrix mixture_score(ConstRows<float> x, std::span<const double> means, std::span<const double> weights,
                                 double sigma);
TWEEDIE_API MatrixD mixture_score(ConstRows<double> x, std::span<const double> means, std::span<const double> weights,
                                  double sigma);
/// The chapter's two_mode_score, x (B, 2).
TWEEDIE_API Matrix two_mode_score(ConstRows<float> x);
TWEEDIE_API MatrixD two_mode_score(ConstRows<double> x);

}  // namespace tweedie
