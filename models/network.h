// network.h - a score model with parameters that can be trained: one flat buffer, and a forward pass on the tape.
//
//   Tape tape;
//   std::vector<Var> parameters = parameter_vars(tape, net.layout(), net.parameters().data());
//   Var residual = net.scaled_score(tape, parameters, x, {sigma, level}) + eps;   // sigma s(x, sigma) + eps, (B, D)
//
// The tape sees the buffer by reference, so that optimiser, moving average, checkpoint and network share one memory. What a
// network derives from it (folded biases, a double copy) is rebuilt after parameters_changed().
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "tweedie/autodiff/tape.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/parameter_layout.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

namespace detail {
struct Perceptron;      // detail/perceptron.h
struct PerceptronRows;  // detail/perceptron.h
}  // namespace detail

/// Names and values as a file's metadata holds them.
using Strings = std::map<std::string, std::string, std::less<>>;

/// The noise of a batch as a network on the tape takes it, and what a conditional network is conditioned on.
template <class S>
struct NoiseInput {
  std::span<const S> sigma;                 // (B)
  std::span<const std::int32_t> level{};    // (B), index into levels(), or empty: the network goes by sigma alone
  std::span<const std::int32_t> labels{};   // (B) class labels, or empty
  ConstRows<S> covariates{};                // (B, C), or empty
  std::span<const std::int32_t> dropped{};  // (B): not 0 where the row goes without its condition; empty: nowhere
};

/// A value derived from the parameters, built by the first reader that needs it and shared by all until reset().
/// Readers may come from many threads; each keeps what it got for as long as it uses it.
template <class T>
class Derived {
 public:
  template <class Build>
  std::shared_ptr<const T> get(Build&& build) const {
    return get(build, [](const T&) { return true; });
  }
  /// The same where a value may become useless in another way: it is built again unless serves(value).
  template <class Build, class Serves>
  std::shared_ptr<const T> get(Build&& build, Serves&& serves) const {
    const std::lock_guard lock(mutex_);
    if (!value_ || !serves(*value_)) value_ = std::make_shared<const T>(build());
    return value_;
  }
  void reset() {
    const std::lock_guard lock(mutex_);
    value_.reset();
  }

 private:
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const T> value_;
};

/// Anything with parameters that answers for a score. Training touches it by this interface alone.
class TWEEDIE_API Network : public ScoreModel {
 public:
  ~Network() override;
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const ParameterLayout& layout() const { return layout_; }
  /// All parameters, (layout().size()). After writing to them call parameters_changed(), before the next score().
  std::span<float> parameters() { return parameters_.span(); }
  std::span<const float> parameters() const { return parameters_.span(); }
  /// Forgets what was derived from the parameters. Not to be called while another thread evaluates score(). An override calls
  /// this one too.
  virtual void parameters_changed();
  /// Draws all parameters anew (each network documents its distributions); calls parameters_changed().
  virtual void initialise(Rng rng) = 0;

  /// sigma s(x, sigma), (B, D), recorded on the tape and differentiable in x and in the parameters (one Var per tensor of the
  /// layout, in its order). This is what denoising score matching needs, well conditioned: 1/2 |sigma s + eps|^2.
  /// Throws UsageError for wrong shapes, a level out of bounds or a sigma outside [sigma_min(), sigma_max()].
  virtual Var scaled_score(Tape& tape, std::span<const Var> parameters, Var x, const NoiseInput<float>& noise) const = 0;
  virtual VarD scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x, const NoiseInput<double>& noise) const = 0;

  /// u(sigma), (B, 1): the learned logarithm of the loss's variance at each row's noise, of networks that were built with it
  /// [Karras et al. 2024, Eq. 14-15]; "none" otherwise. It serves training alone.
  virtual Var log_variance(Tape& tape, std::span<const Var> parameters, const NoiseInput<float>& noise) const;
  virtual VarD log_variance(TapeD& tape, std::span<const VarD> parameters, const NoiseInput<double>& noise) const;

  /// Arithmetic of score() in float (kernels.h says what each means and costs), fp32 until set. Score in double, derivatives and
  /// training keep theirs. Throws UsageError for one that the network does not have: bf16 and bf16x3 are the perceptrons'. Not to
  /// be called while another thread evaluates score().
  void set_precision(kernels::Precision precision);
  kernels::Precision precision() const { return precision_; }

  /// The discrete levels the network is built for, or nullptr if it takes any sigma alike.
  virtual const NoiseLevels* levels() const { return nullptr; }

  // Every network can differentiate its score, by reverse mode through scaled_score() in double. Rows run in blocks on the
  // library's threads, a row's bits depend on that row alone, and each thread keeps its tape's memory. Throw UsageError for
  // wrong shapes and for what score() refuses.
  bool has_jvp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  bool has_vjp() const override { return true; }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
           Rows<double> score, Rows<double> out) const override;
  /// One forward and D reverse passes.
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                  std::span<double> out) const override;

  // For backends that compute perceptrons alone (device_score.h).

  /// The linear layers of a network that is one perceptron between linear maps (detail/perceptron.h); none of any other.
  virtual detail::Perceptron perceptron() const;
  /// Those maps at the noise and under the condition of `rows` rows. Throws UsageError for a sigma outside the range.
  virtual detail::PerceptronRows perceptron_rows(std::span<const double> sigma, const Condition* condition, Index rows) const;

  /// What a checkpoint stores to build the same network again, as flat strings (config.<name>); name() tells the kind.
  virtual Strings config() const = 0;
  /// Fixed numbers that a checkpoint stores beside the parameters, as vectors under their names (Fourier frequencies).
  virtual std::map<std::string, std::vector<double>> buffers() const { return {}; }
  /// The same network with its own copy of the parameters.
  virtual std::unique_ptr<Network> clone() const = 0;

 protected:
  explicit Network(ParameterLayout layout);
  /// Whether score() in float is the one kernel that has the reduced precisions.
  virtual bool has_fused_perceptron() const { return false; }

  /// score() through scaled_score() on a tape, for networks without a faster path.
  template <class S>
  void score_on_tape(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const;
  /// All parameters in S, (layout().size()), kept until parameters_changed().
  template <class S>
  std::shared_ptr<const Buffer<S>> parameters_in() const;

 private:
  template <class S, class Body>
  void for_tape_blocks(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Body&& body) const;

  ParameterLayout layout_;
  Buffer<float> parameters_;
  Derived<Buffer<float>> copy_float_;
  Derived<Buffer<double>> copy_double_;
  kernels::Precision precision_ = kernels::Precision::fp32;
};

/// One Var per tensor of the layout, by reference into `flat` (layout.size() elements, which must outlive the tape's use).
/// They require gradients.
template <class S>
TWEEDIE_API std::vector<VarX<S>> parameter_vars(TapeX<S>& tape, const ParameterLayout& layout, const S* flat);

/// s(x, sigma) = scaled_score / sigma on the tape, (B, D).
template <class S>
TWEEDIE_API VarX<S> tape_score(const Network& network, TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                               const NoiseInput<S>& noise);

extern template std::vector<VarX<float>> parameter_vars(TapeX<float>&, const ParameterLayout&, const float*);
extern template std::vector<VarX<double>> parameter_vars(TapeX<double>&, const ParameterLayout&, const double*);
extern template VarX<float> tape_score(const Network&, TapeX<float>&, std::span<const VarX<float>>, VarX<float>,
                                       const NoiseInput<float>&);
extern template VarX<double> tape_score(const Network&, TapeX<double>&, std::span<const VarX<double>>, VarX<double>,
                                        const NoiseInput<double>&);

}  // namespace tweedie
