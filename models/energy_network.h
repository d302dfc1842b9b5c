// energy_network.h - a network that knows log p_sigma up to a constant, and whose score is its gradient.
//
//   log p(x, sigma) = -|x|^2 / (2 (sigma^2 + sd^2)) + (sd / sigma) g(c_in x, sigma) + const(sigma)
//   g(x', sigma) = <x', f(x', sigma)>                         [Salimans & Ho 2021, Sec. 3: an energy from a vector-valued
//   network] u = sigma s = -sigma / (sigma^2 + sd^2) x + sd c_in F,    F = dg/dx'(c_in x, sigma)
// So u has EDM's preconditioning (continuous_network.h) with an F that is a gradient: the score's Jacobian is symmetric, and the
// density it belongs to can be compared at two points, which Metropolis-adjusted samplers need. f is that header's network:
// mlp or residual, conditions included. The factor sd / sigma before g is what makes F of order 1 at every sigma.
// The gradient is taken on the tape, recorded, so a training step costs about three of the plain network's, and a score about
// two on the tape.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "tweedie/models/continuous_network.h"

namespace tweedie {

/// Options, range, conditions and dropout as ContinuousScoreNetwork; the parametrisation is edm.
class TWEEDIE_API EnergyNetwork final : public Network {
 public:
  using Options = ContinuousNetworkOptions;

  /// Throws UsageError for what ContinuousScoreNetwork refuses and for another parametrisation than edm.
  EnergyNetwork(const Options& options, Rng rng);
  /// With the frequencies of a stored network, (num_frequencies), all finite.
  EnergyNetwork(const Options& options, std::vector<double> frequencies, Rng rng);
  ~EnergyNetwork() override;

  static ParameterLayout layout_of(const Options& options);

  const Options& options() const { return options_; }
  Index dim() const override { return options_.data_dim; }
  double sigma_min() const override { return options_.sigma_min; }
  double sigma_max() const override { return options_.sigma_max; }
  Index num_classes() const override { return options_.num_classes; }
  Index covariate_dim() const override { return options_.covariate_dim; }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  /// log p_sigma(y) up to the constant, which may differ from sigma to sigma and from condition to condition.
  bool has_energy() const override { return true; }
  void energy(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
              std::span<double> out) const override;
  const char* name() const override { return "energy_network"; }

  /// As ContinuousScoreNetwork: f starts at zero, the score at the best linear one.
  void initialise(Rng rng) override;
  Var scaled_score(Tape& tape, std::span<const Var> parameters, Var x, const NoiseInput<float>& noise) const override;
  VarD scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x, const NoiseInput<double>& noise) const override;
  Var log_variance(Tape& tape, std::span<const Var> parameters, const NoiseInput<float>& noise) const override;
  VarD log_variance(TapeD& tape, std::span<const VarD> parameters, const NoiseInput<double>& noise) const override;
  Strings config() const override;
  std::map<std::string, std::vector<double>> buffers() const override;
  std::unique_ptr<Network> clone() const override;

 private:
  template <class S>
  VarX<S> scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x, const NoiseInput<S>& noise) const;

  Options options_;
  std::unique_ptr<const detail::Trunk> trunk_;
};

}  // namespace tweedie
