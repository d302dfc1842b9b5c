// guidance.h - a conditional model at one fixed condition as a plain model, so that no sampler knows of conditions.
//
//   Conditioned third(net, 2);              // s(y, sigma | label 2)
//   Guided strong(net, 3., 2);              // s_null + 3 (s_label - s_null)
//   Samples a = annealed_langevin(strong, levels, {.samples = 1000}, rng.split());
//
// Classifier-free guidance [Ho & Salimans 2021, Eq. 6; there w is our w - 1]: w = 0 is the unconditional model, 1 the
// conditional one, above 1 the condition is exaggerated: at each sigma the score of p_null (p_cond / p_null)^w. That is not the
// noised version of any one density, so what samplers draw for w > 1 depends on the sampler too.
// Both keep a reference to the model, which outlives them, and a copy of the condition.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "tweedie/models/score_model.h"

namespace tweedie {

/// A condition that owns what it refers to: one label, one row of covariates, or both.
class TWEEDIE_API OwnedCondition {
 public:
  explicit OwnedCondition(std::int32_t label) : labels_{label} {}
  explicit OwnedCondition(std::span<const float> covariates) : covariates_(covariates.begin(), covariates.end()) {}
  OwnedCondition(std::int32_t label, std::span<const float> covariates)
      : labels_{label}, covariates_(covariates.begin(), covariates.end()) {}

  /// Valid as long as this object is.
  Condition view() const;
  /// Throws UsageError, saying what to train, unless the model can be given this condition.
  void check_for(const ScoreModel& model, const char* function) const;

 private:
  std::vector<std::int32_t> labels_;
  std::vector<float> covariates_;
};

/// The model given one condition for all rows. Forwards every capability. Throws UsageError for a model that takes no such
/// condition, a label outside [0, num_classes()) or covariates of another length than covariate_dim().
class TWEEDIE_API Conditioned final : public ScoreModel {
 public:
  Conditioned(const ScoreModel& model, OwnedCondition condition);
  Conditioned(const ScoreModel& model, std::int32_t label) : Conditioned(model, OwnedCondition(label)) {}
  Conditioned(const ScoreModel& model, std::span<const float> covariates) : Conditioned(model, OwnedCondition(covariates)) {}
  ~Conditioned() override;

  Index dim() const override { return model_.dim(); }
  double sigma_min() const override { return model_.sigma_min(); }
  double sigma_max() const override { return model_.sigma_max(); }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* none, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> out) const override;
  bool has_log_density() const override { return model_.has_log_density(); }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* none,
                   std::span<double> out) const override;
  bool has_energy() const override { return model_.has_energy(); }
  void energy(ConstRows<double> y, std::span<const double> sigma, const Condition* none, std::span<double> out) const override;
  bool has_jvp() const override { return model_.has_jvp(); }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v, Rows<double> score,
           Rows<double> out) const override;
  bool has_vjp() const override { return model_.has_vjp(); }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v, Rows<double> score,
           Rows<double> out) const override;
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> score,
                  std::span<double> out) const override;
  bool has_chain(std::span<const double> sigma) const override { return model_.has_chain(sigma); }
  void run_chain(const LinearChain& chain, const Condition* none, Rows<float> x, Rows<float> m,
                 std::span<std::int32_t> diverged) const override;
  Index least_rows() const override { return model_.least_rows(); }
  const char* name() const override { return name_.c_str(); }

 private:
  const ScoreModel& model_;
  OwnedCondition condition_;
  std::string name_;
};

/// s_null + weight (s_cond - s_null), two evaluations of the model in one call. Jacobians and energies combine alike; a
/// normalised log-density it has not. Throws UsageError as Conditioned, and for a weight that is not finite. The model must have
/// been trained with its condition dropped in a part of the rows, or its unconditional score means nothing.
class TWEEDIE_API Guided final : public ScoreModel {
 public:
  Guided(const ScoreModel& model, double weight, OwnedCondition condition);
  Guided(const ScoreModel& model, double weight, std::int32_t label) : Guided(model, weight, OwnedCondition(label)) {}
  Guided(const ScoreModel& model, double weight, std::span<const float> covariates)
      : Guided(model, weight, OwnedCondition(covariates)) {}
  ~Guided() override;

  double weight() const { return weight_; }
  Index dim() const override { return model_.dim(); }
  double sigma_min() const override { return model_.sigma_min(); }
  double sigma_max() const override { return model_.sigma_max(); }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* none, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> out) const override;
  bool has_energy() const override { return model_.has_energy(); }
  void energy(ConstRows<double> y, std::span<const double> sigma, const Condition* none, std::span<double> out) const override;
  bool has_jvp() const override { return model_.has_jvp(); }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v, Rows<double> score,
           Rows<double> out) const override;
  bool has_vjp() const override { return model_.has_vjp(); }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v, Rows<double> score,
           Rows<double> out) const override;
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> score,
                  std::span<double> out) const override;
  Index least_rows() const override { return model_.least_rows(); }
  const char* name() const override { return name_.c_str(); }

 private:
  const ScoreModel& model_;
  double weight_;
  OwnedCondition condition_;
  std::string name_;
};

}  // namespace tweedie
