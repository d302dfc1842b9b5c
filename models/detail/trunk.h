// trunk.h - F(c_in x, sigma, condition): what the networks for any noise level have in common (continuous_network.h).
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "tweedie/models/continuous_network.h"
#include "tweedie/models/detail/packed_mlp.h"
#include "tweedie/models/detail/perceptron.h"

namespace tweedie::detail {

class Trunk {
 public:
  static ParameterLayout layout_of(const ContinuousNetworkOptions& options);

  /// Checks what layout_of() does not: the sigmas, the frequencies.
  Trunk(const char* name, const ContinuousNetworkOptions& options, std::vector<double> frequencies);

  const std::vector<double>& frequencies() const { return frequencies_; }
  void initialise(const Rng& rng, const ParameterLayout& layout, float* flat) const;
  Strings config() const;
  std::map<std::string, std::vector<double>> buffers() const;

  double c_in(double sigma) const { return 1 / std::hypot(sigma, options_.sigma_data); }
  void check_sigma(double sigma) const;

  // On the tape.

  /// Throws UsageError unless sigma and condition fit `rows` rows.
  template <class S>
  void check_noise(Index rows, const NoiseInput<S>& noise) const;
  /// The same, and parameters and x (B, D).
  template <class S>
  void check_input(std::span<const VarX<S>> parameters, VarX<S> x, const NoiseInput<S>& noise) const;
  /// F (B, D) of x' = c_in x.
  template <class S>
  VarX<S> forward(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> scaled_x, const NoiseInput<S>& noise) const;
  /// (B, 1), or none.
  template <class S>
  VarX<S> log_variance(TapeX<S>& tape, std::span<const VarX<S>> parameters, const NoiseInput<S>& noise) const;

  // By plain kernels.

  /// First tensors of the parts; -1: absent. An mlp's body is the embedding's weight, then weight and bias of each layer.
  struct Parts {
    Index label = -1, covariate = -1, body = 0, log_variance = -1;
  };
  const Parts& parts() const { return parts_; }
  /// out (rows, 2 num_frequencies) = [cos(w ln sigma), sin(w ln sigma)], the phases in double.
  template <class S>
  void write_features(std::span<const S> sigma, S* out) const;
  /// The body's layers for the fused kernel; none for a residual one.
  PackedMlp pack(const float* flat, kernels::Precision precision) const;
  /// Where an mlp's linear layers are; none of a residual body.
  Perceptron perceptron() const;
  /// W_e e + b_0, an mlp's first bias: (1, H) where all rows have one noise and one condition, else (rows, H).
  MatrixD first_bias(const double* flat, std::span<const double> sigma, const Condition* condition, Index rows) const;
  /// Calls body(first, x' = c_in y (rows, D), F (rows, D)) for blocks of rows, on the library's threads. Arguments are checked.
  /// `packed`, of the same parameters, is what float takes where it has layers; may be nullptr.
  template <class S>
  void for_blocks(const S* flat, const PackedMlp* packed, ConstRows<S> y, std::span<const S> sigma, const Condition* condition,
                  const std::function<void(Index first, ConstRows<S> scaled_y, ConstRows<S> f)>& body) const;
  /// The same with the traces of dF / dx', one a row, where the body is an mlp.
  void for_traced_blocks(const double* flat, ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                         const std::function<void(Index first, ConstRows<double> f, const double* trace)>& body) const;

 private:
  // A linear function of the embedding that enters the body: (width) numbers a row.
  struct Modulation {
    Index weight, bias, width;
    Index offset;  // among all modulations of a row
  };
  // Whether all rows have one noise and one condition.
  template <class S>
  static bool alike(std::span<const S> sigma, const Condition* condition) {
    return sigma.size() == 1 && (condition == nullptr || (condition->labels.size() <= 1 && condition->covariates.rows() <= 1));
  }
  template <class S>
  struct Workspace;
  template <class S>
  struct Pass;
  // Calls run(pass, first, rows) for each block, x' in the pass's workspace.
  template <class S, class Run>
  void run_blocks(const S* flat, const PackedMlp* packed, ConstRows<S> y, std::span<const S> sigma, const Condition* condition,
                  const Run& run) const;

  template <class S>
  VarX<S> features(TapeX<S>& tape, const NoiseInput<S>& noise) const;
  template <class S>
  VarX<S> embed(TapeX<S>& tape, std::span<const VarX<S>> p, const NoiseInput<S>& noise) const;
  template <class S>
  VarX<S> mlp(std::span<const VarX<S>> p, VarX<S> x, VarX<S> e) const;
  template <class S>
  VarX<S> residual(std::span<const VarX<S>> p, VarX<S> x, VarX<S> e) const;
  template <class S>
  void embed_rows(const S* flat, const NoiseInput<S>& noise, S* features, S* out) const;

  const char* name_;
  ContinuousNetworkOptions options_;
  std::vector<double> frequencies_;
  ParameterLayout layout_;
  Parts parts_;
  std::vector<Modulation> modulations_;
  Index modulation_size_ = 0;
};

/// A (B, 1) constant of f(sigma).
template <class S, class F>
VarX<S> sigma_column(TapeX<S>& tape, std::span<const S> sigma, const F& f) {
  static thread_local std::vector<S> values;
  values.clear();
  for (const S s : sigma) values.push_back(static_cast<S>(f(static_cast<double>(s))));
  return tape.constant({values.data(), static_cast<Index>(values.size()), 1});
}

/// Frequencies of a new network, in radians per unit of ln sigma.
std::vector<double> draw_frequencies(const ContinuousNetworkOptions& options, const Rng& rng);

}  // namespace tweedie::detail
