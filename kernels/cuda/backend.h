// backend.h - a Runtime and the kernels' launchers as a Device.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tweedie/kernels/cuda/device.h"
#include "tweedie/kernels/cuda/device_training.h"
#include "tweedie/kernels/cuda/mlp_divergence.h"
#include "tweedie/kernels/cuda/mlp_forward.h"
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"
#include "tweedie/kernels/cuda/runtime.h"
#include "tweedie/kernels/cuda/sample_chain.h"
#include "tweedie/kernels/cuda/sample_chain_sm90.h"

namespace tweedie::kernels::cuda {

template <Runtime R>
class Backend final : public Device {
 public:
  template <class... Arguments>
  explicit Backend(Arguments&&... arguments) : runtime_(std::forward<Arguments>(arguments)...) {
    sm90 = has_sm90(runtime_);
  }
  ~Backend() override {
    if (scratch_ != nullptr) runtime_.release(scratch_);
  }
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  R& runtime() { return runtime_; }

  const std::string& name() const override { return runtime_.name(); }
  void* allocate(std::size_t bytes) override { return runtime_.allocate(bytes); }
  void release(void* memory) noexcept override { runtime_.release(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { runtime_.upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { runtime_.download(to, from, bytes); }
  void zero(void* to, std::size_t bytes) override { runtime_.zero(to, bytes); }
  void synchronize() override { runtime_.synchronize(); }

  void mlp_forward(const MlpForwardInput& input, Precision precision) override;
  void sample_chain(const ChainInput& input, Precision precision) override;
  bool takes_chain(const Mlp& net, Precision precision) const override;
  void mlp_divergence(const MlpDivergenceInput& input) override;
  std::unique_ptr<TrainingRun> make_training(const TrainingSetup& setup, Precision precision) override;

  /// Whether bf16 takes the wgmma kernels for the networks that they serve, for any number of rows: bits must not depend on it.
  /// From the start where they run.
  bool sm90;

 private:
  /// With at least so much scratch memory, which the calls share: their kernels run one after the other.
  Resources resources(Index scratch_bytes) {
    if (scratch_bytes > scratch_bytes_) {
      runtime_.synchronize();
      if (scratch_ != nullptr) runtime_.release(std::exchange(scratch_, nullptr));
      scratch_bytes_ = 0;
      scratch_ = runtime_.allocate(static_cast<std::size_t>(scratch_bytes));
      scratch_bytes_ = scratch_bytes;
    }
    return {scratch_, scratch_bytes_, runtime_.max_shared_bytes(), runtime_.multiprocessors()};
  }
  const unsigned char* packed_sm90(const Mlp& net) {
    auto* const packed = static_cast<unsigned char*>(resources(mlp_sm90_packed_bytes(net)).scratch);
    pack_mlp_sm90(launcher(runtime_), net, packed);
    return packed;
  }

  R runtime_;
  void* scratch_ = nullptr;
  Index scratch_bytes_ = 0;
};

// Defined apart, so that each .cu instantiates one of them for CudaRuntime: its kernels are compiled there alone.
template <Runtime R>
void Backend<R>::mlp_forward(const MlpForwardInput& input, Precision precision) {
  check_mlp_forward("cuda::mlp_forward", input);
  if (precision == Precision::bf16 && sm90 && mlp_forward_sm90_serves(input.net)) {
    if (input.batch > 0) cuda::mlp_forward_sm90(launcher(runtime_), input, packed_sm90(input.net));
    return;
  }
  cuda::mlp_forward(launcher(runtime_), input, precision, resources(mlp_forward_scratch_bytes(input.net, precision)));
}
template <Runtime R>
void Backend<R>::sample_chain(const ChainInput& input, Precision precision) {
  check_sample_chain("cuda::sample_chain", input);
  if (precision == Precision::bf16 && sm90 && sample_chain_sm90_serves(input.net)) {
    if (input.batch > 0) cuda::sample_chain_sm90(launcher(runtime_), input, packed_sm90(input.net));
    return;
  }
  cuda::sample_chain(launcher(runtime_), input, precision, resources(sample_chain_scratch_bytes(input.net, precision)));
}
template <Runtime R>
bool Backend<R>::takes_chain(const Mlp& net, Precision precision) const {
  return takes_sample_chain(net, precision, runtime_.max_shared_bytes());
}
template <Runtime R>
void Backend<R>::mlp_divergence(const MlpDivergenceInput& input) {
  cuda::mlp_divergence(launcher(runtime_), input, runtime_.max_shared_bytes());
}
template <Runtime R>
std::unique_ptr<TrainingRun> Backend<R>::make_training(const TrainingSetup& setup, Precision precision) {
  return std::make_unique<DeviceTraining<R>>(runtime_, setup, precision);
}

}  // namespace tweedie::kernels::cuda
