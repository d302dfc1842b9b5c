// score_model.h - the one interface a sampler knows: s(y, sigma) = grad_y log p_sigma(y).
//
// Unit-alpha coordinates: y = x_t / alpha_t and sigma = sigma_t / alpha_t, so that a variance-exploding, a
// variance-preserving or any other process (process.h) meets the same model. A network, an exact mixture and a user's lambda
// are all one of these. Const and reentrant: samplers call it from many threads at once, on disjoint rows.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "tweedie/core/matrix.h"
#include "tweedie/models/linear_chain.h"

namespace tweedie {

/// What a conditional model is conditioned on: one entry for all rows, or one per row. Empty parts are absent. A conditional
/// model that is given no condition (nullptr) answers with its unconditional score, if it was trained to have one.
struct Condition {
  std::span<const std::int32_t> labels;  // 1 or B class labels
  ConstRows<float> covariates;           // (1 or B, C)
};

class TWEEDIE_API ScoreModel {
 public:
  virtual ~ScoreModel();

  /// D, the dimension of the data.
  virtual Index dim() const = 0;
  /// out(b, :) = score of row b at noise sigma[b] (or sigma[0] for all rows when one is given). y, out (B, D), `out` may be y.
  /// A row's result depends on that row alone. Throws UsageError for wrong shapes, a sigma outside the model's range, or a
  /// condition where the model takes none.
  virtual void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const = 0;
  virtual void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const = 0;

  /// Smallest and largest sigma that the model answers for.
  virtual double sigma_min() const { return 0; }
  virtual double sigma_max() const;  // infinity

  /// How many class labels (0 .. num_classes() - 1) and columns of covariates it can be conditioned on; 0: none.
  virtual Index num_classes() const { return 0; }
  virtual Index covariate_dim() const { return 0; }

  /// log p_sigma(y) per row, in nats. A capability: the default throws UsageError and names what to use instead.
  virtual bool has_log_density() const { return false; }
  virtual void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                           std::span<double> out) const;
  /// The same up to a constant of each (sigma, condition): what a Metropolis step needs, which compares two points at one
  /// sigma. The sign is a log-density's, so that its gradient is the score. By default what log_density() says.
  virtual bool has_energy() const { return has_log_density(); }
  virtual void energy(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                      std::span<double> out) const;

  // Derivatives of the score, J(b) = ds(y_b)/dy_b (D, D); in double only, since likelihoods and posterior samplers run there.
  // Capabilities like log_density(): the defaults throw UsageError and name what to use instead.

  /// score = s(y) and out(b, :) = J(b) v(b, :). All (B, D); score and out overlap nothing else.
  virtual bool has_jvp() const { return false; }
  virtual void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                   Rows<double> score, Rows<double> out) const;
  /// score = s(y) and out(b, :) = J(b)^T v(b, :). A score that is a gradient has a symmetric J; a network's need not be.
  virtual bool has_vjp() const { return false; }
  virtual void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                   Rows<double> score, Rows<double> out) const;
  /// score = s(y) and out[b] = tr J(b), exact. The default takes D products jvp().
  virtual void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                          std::span<double> out) const;

  // Whole chains, in float: a capability of models on a device (device_score.h), where one launch runs all steps.

  /// Whether run_chain() takes evaluations at these noise levels. The default: no.
  virtual bool has_chain(std::span<const double> sigma) const;
  /// Takes x (n, D), row r of which is row first_row + r of the stream, through all steps. m (n, D), in place, or empty: it
  /// starts at 0 and is not kept. The condition has one entry for all rows. diverged (n): the first step after which the row was
  /// beyond the bound, counted from 0; as many as there are steps for a row that never was. Throws UsageError for wrong shapes
  /// and for levels that has_chain() does not name; the default always.
  virtual void run_chain(const LinearChain& chain, const Condition* condition, Rows<float> x, Rows<float> m,
                         std::span<std::int32_t> diverged) const;
  /// The fewest rows that a call should have, for speed: a device is idle with less. Samplers cut their rows so.
  virtual Index least_rows() const { return 1; }

  /// A short name for messages and reports.
  virtual const char* name() const = 0;

 protected:
  /// The checks every score() starts with; `sigma` has 1 or B entries within the range.
  template <class S>
  void check_arguments(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  /// The checks of a model that can be conditioned, but sigma's range, which is the model's own. A condition must fit
  /// num_classes() and covariate_dim(), be given for all that the model knows or for nothing (nullptr or empty), and have one
  /// entry for all rows or one per row.
  template <class S>
  void check_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  /// The check of divergence()'s out.
  void check_traces(ConstRows<double> y, std::span<const double> out) const;
  /// The checks every jvp() and vjp() starts with: check_arguments(), and all of y's shape.
  void check_derivative(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                        Rows<double> score, Rows<double> out) const;
};

/// A user's own score as a model: f(y, sigma, out) for all rows of y at once.
///   FunctionScore s(2, [](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) { ... });
/// The function runs in double; float calls are converted.
class TWEEDIE_API FunctionScore final : public ScoreModel {
 public:
  using Function = std::function<void(ConstRows<double> y, std::span<const double> sigma, Rows<double> out)>;
  /// out = J(y) v, row by row, for likelihoods (jvp); may be absent.
  using Derivative =
      std::function<void(ConstRows<double> y, std::span<const double> sigma, ConstRows<double> v, Rows<double> out)>;
  FunctionScore(Index dim, Function function, Derivative derivative = nullptr);
  ~FunctionScore() override;

  Index dim() const override { return dim_; }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  bool has_jvp() const override { return derivative_ != nullptr; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  const char* name() const override { return "function"; }

 private:
  Index dim_;
  Function function_;
  Derivative derivative_;
};

}  // namespace tweedie
