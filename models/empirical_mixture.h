// empirical_mixture.h - the optimum that denoising score matching on a finite data set aims at.
//
//   p_sigma(y) = 1/N sum_i N(y; x_i, sigma^2 I),   s(y, sigma) = (sum_i r_i(y) x_i - y) / sigma^2,
//   r_i = softmax_i(-|y - x_i|^2 / (2 sigma^2))                                                    [Vincent 2011]
//
// A network whose error against this score is smaller than against the true one has memorised its data.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/models/score_model.h"

namespace tweedie {

class TWEEDIE_API EmpiricalMixture final : public ScoreModel {
 public:
  /// data (N, D), copied. Throws UsageError when it is empty, DataError when it has a non-finite entry.
  explicit EmpiricalMixture(ConstRows<float> data);
  explicit EmpiricalMixture(ConstRows<double> data);
  ~EmpiricalMixture() override;

  Index dim() const override { return data_.cols(); }
  Index points() const { return data_.rows(); }

  // Any sigma > 0 (sigma = 0: UsageError). O(N D) a row; the soft maximum runs over blocks of points, so no sigma underflows.
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                   std::span<double> out) const override;
  // The Hessian Cov_r[x] / sigma^4 - I / sigma^2 of log p_sigma, Cov_r the covariance of the points under the weights r_i; a
  // second pass over the points. It is symmetric, so vjp is jvp.
  bool has_jvp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  bool has_vjp() const override { return true; }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override;
  const char* name() const override { return "empirical mixture"; }

 private:
  template <class S, class Emit>
  void evaluate(const MatrixX<S>& data, ConstRows<S> y, std::span<const S> sigma, const Emit& emit) const;
  template <class Use>
  void second_pass(ConstRows<double> y, std::span<const double> sigma, Rows<double> score, const Use& use) const;
  template <class S>
  void exact_score(const MatrixX<S>& data, ConstRows<S> y, std::span<const S> sigma, const Condition* condition,
                   Rows<S> out) const;

  MatrixD data_;   // (N, D)
  Matrix single_;  // the same in float
};

}  // namespace tweedie
