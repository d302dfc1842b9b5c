// device_training.h - a trainer's steps on a device: which, and what it is given.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <span>

#include "tweedie/kernels/cuda/device.h"
#include "tweedie/kernels/cuda/training_run.h"
#include "tweedie/models/detail/batches.h"

namespace tweedie::detail {

/// The device that a run trains on, nullptr for the host: options.on_device, or what options.device names. auto takes the first
/// CUDA device for what can be trained there. Throws UsageError for what cannot where a device was named, saying why;
/// ResourceError where there is no such device.
std::shared_ptr<kernels::cuda::Device> training_device(const Network& net, const TrainOptions& options,
                                                       const SigmaSampling& sampling, bool fresh);

/// The steps of a run on a device, and what of its state the host has not seen yet.
class DeviceRun {
 public:
  /// Of what training_device() let through. The loss of a network that answers 0 is `zero_loss`, the smoothed loss's decay
  /// `smoothing`. Throws UsageError for a precision or a size that the device does not take.
  DeviceRun(std::shared_ptr<kernels::cuda::Device> device, const Network& net, const TrainOptions& options,
            const Batches& batches, double smoothing, double zero_loss);

  /// As many steps as rates, fewer where they diverge. The first call takes the host's state there, `start` with it; each brings
  /// the parameters back.
  kernels::cuda::TrainingProgress advance(Network& net, const Adam& adam, std::span<const float> ema,
                                          const kernels::cuda::TrainingProgress& start,
                                          std::span<const kernels::cuda::TrainingRate> rates);
  /// The averages and Adam's state as of the last step.
  void fetch_ema(std::span<float> ema);
  void fetch_moments(Adam& adam);
  /// Adds the sums and numbers of the rows' losses at each level since the last call.
  void add_level_losses(std::span<double> sums, std::span<std::int64_t> counts);
  void row_losses(std::span<float> losses) { run_->row_losses(losses.data()); }

 private:
  std::shared_ptr<kernels::cuda::Device> device_;
  std::unique_ptr<kernels::cuda::TrainingRun> run_;
  std::int64_t steps_ = 0;
  bool begun_ = false, ema_behind_ = false, moments_behind_ = false;
};

}  // namespace tweedie::detail
