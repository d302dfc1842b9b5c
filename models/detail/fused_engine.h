// fused_engine.h - training steps by kernels::mlp_gradient instead of the tape.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>

#include "tweedie/kernels/kernels.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/training_engine.h"

namespace tweedie::detail {

/// Denoising score matching and flow matching, any weighting, of a NoiseConditionalScoreNetwork on its levels and of a
/// ContinuousScoreNetwork that is an mlp; nullptr for what it does not compute. Of a network with levels its loss functions throw
/// UsageError for a batch without them.
std::unique_ptr<TrainingEngine> make_fused_engine(const Network& model, const Objective& objective);
/// The same of a ContinuousScoreNetwork that is an mlp of at most kernels::Mlp::kMaxLayers layers.
std::unique_ptr<TrainingEngine> make_fused_continuous_engine(const ContinuousScoreNetwork& network, const Objective& objective);

/// What the fused engines share: the network's parameters as kernels::Mlp, the call of the kernel, the loss alone.
class FusedEngine : public TrainingEngine {
 public:
  double loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient,
                           std::span<float> row_losses) final;
  double loss(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) final;
  std::string_view name() const final { return name_; }

 protected:
  /// Where the kernel writes its gradient.
  struct Gradients {
    kernels::MlpGradient body = {}, code = {};
  };

  explicit FusedEngine(const Network& network);
  /// Sets net_ at these parameters and returns the batch as the kernel takes it. Throws UsageError for one that does not fit.
  virtual kernels::MlpBatch prepare(const float* flat, const Batch& batch) = 0;
  virtual Gradients gradients(float* gradient) = 0;
  /// From the kernel's row losses to the objective's.
  virtual void finish_losses(std::span<float> row_losses) { static_cast<void>(row_losses); }
  /// The parameters' gradient that the kernel has not written. Before finish_losses().
  virtual void finish_gradient(const float* flat, const Batch& batch, std::span<const float> row_losses, float* gradient) = 0;

  template <class T>
  static void grow(Buffer<T>& buffer, Index size) {
    if (buffer.size() < size) buffer = Buffer<T>(size);
  }

  const ParameterLayout& layout_;
  const Index dim_;
  kernels::Mlp net_;

 private:
  kernels::MlpBatch checked(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses);
  const float* packed(const kernels::Mlp& net);
  const int* own_levels(Index rows);
  void forward(const kernels::MlpBatch& rows);

  std::string name_;
  Buffer<float> workspace_;
  // Of the loss alone.
  Buffer<float> packed_, first_bias_, output_;
  Buffer<int> own_levels_;
};

}  // namespace tweedie::detail
