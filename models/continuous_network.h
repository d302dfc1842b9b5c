// continuous_network.h - a score network for any noise level, with EDM's preconditioning [Karras et al. 2022].
//
//   D(x, sigma) = c_skip x + c_out F(c_in x, sigma),  s = (D - x) / sigma^2                           [Eq. 7]
//   c_skip = sd^2 / (sigma^2 + sd^2),  c_out = sigma sd / sqrt(sigma^2 + sd^2),  c_in = 1 / sqrt(sigma^2 + sd^2)   [Table 1]
// What the network computes is u = sigma s. D and x are nearly equal where sigma is small, so their difference is never formed:
//   u = a(sigma) x + b(sigma) F
//   parametrisation   what F stands for                      a                        b
//   edm               as above                               -sigma / (sigma^2+sd^2)  sd / sqrt(sigma^2+sd^2)
//   score             s                                      0                        sigma
//   epsilon           eps = -sigma s                         0                        -1
//   x0                D, the denoised x                      -1 / sigma               1 / sigma
//   v                 alpha eps - sigma' x0 of VP [Salimans  -sigma / (1+sigma^2)     -1 / sqrt(1+sigma^2)
//                     & Ho 2022], alpha = 1 / sqrt(1+sigma^2), sigma' = alpha sigma
// x0 divides a small difference by sigma: that is the parametrisation's own nature. Its errors grow as 1 / sigma.
//
// F (B, D) from c_in x (B, D) and an embedding e (B, E) of the noise level and the condition:
//   e = silu(W [cos(w ln sigma), sin(w ln sigma)] + b + label_embedding[label] + W_c covariates + b_c)      w (num_frequencies)
//   mlp:       h = silu(W_0 c_in x + b_0 + W_e e), then linear layers and silu; num_layers linear layers
//   residual:  h = W_0 c_in x + b_0; num_layers blocks h += gate W_2 silu(W_1 ((1 + scale) LN(h) + shift)), then
//              F = W ((1 + scale) LN(h) + shift) + b; shift, scale, gate linear in e, zero at first [FiLM: Perez et al. 2018;
//              adaLN-Zero: Peebles & Xie 2023, Sec. 3.2]; LN subtracts the row's mean and divides by its deviation
// The last layer starts at zero, so that an untrained network answers with F = 0: for edm the best linear score.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>

#include "tweedie/models/network.h"
#include "tweedie/models/process.h"

namespace tweedie {

namespace detail {
class Trunk;       // detail/trunk.h
struct PackedMlp;  // detail/packed_mlp.h
}  // namespace detail

enum class Architecture { mlp, residual };
/// Frequencies w, in radians per unit of ln sigma. fourier: w = 2 pi z / 4, z ~ N(0, fourier_scale^2), drawn once and fixed,
/// which are the features of c_noise = ln(sigma)/4 [Tancik et al. 2020; Karras et al. 2024, Eq. 75]. log_sigma: geometric from .1
/// to 8.
enum class NoiseEmbedding { fourier, log_sigma };
enum class Parametrisation { edm, score, epsilon, x0, v };

TWEEDIE_API const char* to_string(Architecture architecture);
TWEEDIE_API const char* to_string(NoiseEmbedding embedding);
TWEEDIE_API const char* to_string(Parametrisation parametrisation);
// By name; throw UsageError that lists the names.
TWEEDIE_API Architecture architecture(std::string_view name);
TWEEDIE_API NoiseEmbedding noise_embedding(std::string_view name);
TWEEDIE_API Parametrisation parametrisation(std::string_view name);
/// The parametrisation whose F is what `prediction` names.
TWEEDIE_API Parametrisation parametrisation(Prediction prediction);

struct ContinuousNetworkOptions {
  Index data_dim = 0;  // D >= 1, no default
  Index hidden_dim = 256;
  Index num_layers = 4;  // mlp: linear layers, >= 2; residual: blocks, >= 1
  Architecture architecture = Architecture::mlp;
  NoiseEmbedding embedding = NoiseEmbedding::fourier;
  Index num_frequencies = 16;
  Index embedding_dim = 64;  // E
  double fourier_scale = 1;
  Parametrisation parametrisation = Parametrisation::edm;
  double sigma_min = .002;
  double sigma_max = 80;
  double sigma_data = .5;  // sd, the data's standard deviation: data_deviation()
  Index num_classes = 0;
  Index covariate_dim = 0;
  bool learned_variance = false;  // log_variance(), a linear function of the noise's features
};

/// sqrt of the mean over the columns of each column's variance, the sigma_data of a table (N, D). Throws DataError for fewer than
/// two rows, a cell that is not finite, or data that is constant.
TWEEDIE_API double data_deviation(ConstRows<float> data);

/// A network that answers for any sigma in [sigma_min, sigma_max] (relative slack 1e-6; UsageError outside), unconditionally or
/// given class labels and/or covariates.
///
/// Conditions: a null row of the label embedding and a null vector beside the covariates' embedding stand for "no condition".
/// They are learned from the rows that training marks as `dropped`; so score() without a condition is the unconditional score
/// if the network was trained with dropout, and the score at an untrained null otherwise. A network with both labels and
/// covariates is given both or neither.
class TWEEDIE_API ContinuousScoreNetwork final : public Network {
 public:
  using Options = ContinuousNetworkOptions;

  /// Throws UsageError for sizes below their least, num_classes or covariate_dim < 0, a sigma_data or fourier_scale that is not
  /// positive and finite, or unless 0 < sigma_min < sigma_max < infinity.
  ContinuousScoreNetwork(const Options& options, Rng rng);
  /// With the frequencies w of a stored network, (num_frequencies), all finite.
  ContinuousScoreNetwork(const Options& options, std::vector<double> frequencies, Rng rng);
  ~ContinuousScoreNetwork() override;

  /// The tensors of a network with these options.
  static ParameterLayout layout_of(const Options& options);

  const Options& options() const { return options_; }
  Index dim() const override { return options_.data_dim; }
  double sigma_min() const override { return options_.sigma_min; }
  double sigma_max() const override { return options_.sigma_max; }
  Index num_classes() const override { return options_.num_classes; }
  Index covariate_dim() const override { return options_.covariate_dim; }
  /// Row blocks run on the library's threads; with one sigma and one condition for all, the embedding is computed once. No memory
  /// is taken after each thread's first call.
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override;
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override;
  const char* name() const override { return "continuous_score_network"; }
  /// An mlp by forward mode in all columns at once (detail/mlp_trace.h), a residual network on the tape.
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override;

  void parameters_changed() override;
  /// Linear layers as PyTorch's defaults, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), label embedding N(0, 1), zero for the last layer,
  /// the modulations of residual blocks, the null of covariates and the log-variance. The frequencies stay as they are.
  void initialise(Rng rng) override;
  Var scaled_score(Tape& tape, std::span<const Var> parameters, Var x, const NoiseInput<float>& noise) const override;
  VarD scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x, const NoiseInput<double>& noise) const override;
  Var log_variance(Tape& tape, std::span<const Var> parameters, const NoiseInput<float>& noise) const override;
  VarD log_variance(TapeD& tape, std::span<const VarD> parameters, const NoiseInput<double>& noise) const override;
  Strings config() const override;
  std::map<std::string, std::vector<double>> buffers() const override;
  std::unique_ptr<Network> clone() const override;
  detail::Perceptron perceptron() const override;
  detail::PerceptronRows perceptron_rows(std::span<const double> sigma, const Condition* condition, Index rows) const override;

 private:
  bool has_fused_perceptron() const override {
    return options_.architecture == Architecture::mlp && options_.num_layers <= kernels::Mlp::kMaxLayers;
  }
  template <class S>
  void score_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  template <class S>
  VarX<S> scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x, const NoiseInput<S>& noise) const;

  Options options_;
  std::unique_ptr<const detail::Trunk> trunk_;
  Derived<detail::PackedMlp> packed_;  // what float inference reads of an mlp
};

}  // namespace tweedie
