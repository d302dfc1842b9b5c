// score_network.h - the chapter's NoiseConditionalScoreNetwork [Song & Ermon 2019].
//
//   h_1 = silu([x, e_l] W_0^T + b_0)              x (B, D), e_l = noise_embedding.weight[l] (H), W_0 (H, D + H)
//   h_i = silu(h_{i-1} W^T + b)                   num_layers - 2 hidden layers, W (H, H)
//   s(x, sigma_l) = (h W^T + b) / sigma_l         W (D, H)
//
// Since [x, e] W_0^T = x W_x^T + e W_e^T, the embedding is folded into one bias per level, E W_e^T + b_0 (L, H): the wide
// first product is made once for each level instead of once for each row.
// Tensors carry PyTorch's names: noise_embedding.weight, network.{0,2,4,..}.{weight,bias}; sigmas is the levels().
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "tweedie/models/network.h"

namespace tweedie {

/// The chapter's arguments with its defaults.
struct ScoreNetworkOptions {
  Index data_dim = 0;  // D >= 1, no default
  Index hidden_dim = 256;
  Index num_layers = 4;  // linear layers, >= 2
  Index num_noise_levels = 10;
  double sigma_min = .01;
  double sigma_max = 10;
};

/// A multilayer perceptron with a learned embedding of the noise level and an output scaled by 1/sigma.
///
/// Between its levels it interpolates its *denoiser* D_l(x) = x + sigma_l^2 s_l(x) linearly in ln sigma (two evaluations):
///   s(x, sigma) = (D(x) - x) / sigma^2,  D = (1 - w) D_l + w D_{l+1},  w = ln(sigma_l / sigma) / ln(sigma_l / sigma_{l+1}),
/// continuous at the levels. A sigma within 2^-22 of a level (relative: a few roundings of a float) is that level. Outside
/// [sigma_min, sigma_max] (relative slack 1e-6) every function throws UsageError.
class TWEEDIE_API NoiseConditionalScoreNetwork final : public Network {
 public:
  using Options = ScoreNetworkOptions;

  /// Levels geometric from sigma_max to sigma_min. Throws UsageError for data_dim or hidden_dim < 1, num_layers < 2, or levels
  /// that NoiseLevels refuses.
  NoiseConditionalScoreNetwork(const Options& options, Rng rng);
  /// Any levels: they replace num_noise_levels, sigma_min and sigma_max of the options.
  NoiseConditionalScoreNetwork(const Options& options, NoiseLevels levels, Rng rng);
  ~NoiseConditionalScoreNetwork() override;

  /// The tensors of a network with these options.
  static ParameterLayout layout_of(const Options& options);

  const Options& options() const { return options_; }
  const NoiseLevels* levels() const override { return &levels_; }

  Index dim() const override { return options_.data_dim; }
  double sigma_min() const override { return levels_.min(); }
  double sigma_max() const override { return levels_.max(); }
  /// Row blocks run on the library's threads. No memory is taken after each thread's first call.
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  const char* name() const override { return "noise_conditional_score_network"; }
  /// By forward mode in all columns at once (detail/mlp_trace.h).
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override;

  void parameters_changed() override;
  /// PyTorch's defaults: weight and bias of a linear layer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), embedding N(0, 1).
  void initialise(Rng rng) override;
  Var scaled_score(Tape& tape, std::span<const Var> parameters, Var x, const NoiseInput<float>& noise) const override;
  VarD scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x, const NoiseInput<double>& noise) const override;
  Strings config() const override;
  std::unique_ptr<Network> clone() const override;
  detail::Perceptron perceptron() const override;
  detail::PerceptronRows perceptron_rows(std::span<const double> sigma, const Condition* condition, Index rows) const override;

 private:
  bool has_fused_perceptron() const override { return options_.num_layers <= kernels::Mlp::kMaxLayers; }
  // What inference reads, in S.
  template <class S>
  struct Folded;
  template <class S>
  struct Forward;
  template <class S>
  const Derived<Folded<S>>& cache() const;
  template <class S>
  std::shared_ptr<const Folded<S>> folded() const;
  template <class S>
  void score_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  template <class S>
  VarX<S> scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x, const NoiseInput<S>& noise) const;

  Options options_;
  NoiseLevels levels_;
  Derived<Folded<float>> folded_float_;
  Derived<Folded<double>> folded_double_;
};

using ScoreNetwork = NoiseConditionalScoreNetwork;

}  // namespace tweedie
