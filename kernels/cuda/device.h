// device.h - a device as the rooms above the kernels see it: memory, one stream of work, a launch of each operation.
//
// Two things are one of these: a CUDA device (backend.cu, where nvcc is) and, in the tests, the host executor running the same
// kernels (backend.h with a SimtRuntime). All pointers in inputs are the device's. Work is queued in order; download() and
// synchronize() wait for it, and errors of earlier work surface there as ResourceError. Not reentrant: one thread at a time.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/cuda/training_run.h"

namespace tweedie::kernels::cuda {

struct MlpForwardInput;

class TWEEDIE_API Device {
 public:
  virtual ~Device() = default;
  /// "cuda:0, NVIDIA H200, sm_90".
  virtual const std::string& name() const = 0;

  /// At a 256-byte boundary. Throws ResourceError naming the bytes asked for and those free.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;
  virtual void zero(void* to, std::size_t bytes) = 0;
  virtual void synchronize() = 0;

  /// Throw UsageError for shapes or a precision that the kernel does not take, naming what it does.
  virtual void mlp_forward(const MlpForwardInput& input, Precision precision) = 0;
  virtual void sample_chain(const ChainInput& input, Precision precision) = 0;
  /// Whether sample_chain() takes a network of these layers in this precision: its tiles must fit the shared memory.
  virtual bool takes_chain(const Mlp& net, Precision precision) const = 0;
  virtual void mlp_divergence(const MlpDivergenceInput& input) = 0;
  /// A training run, without weights yet; the device outlives it. Throws UsageError for a setup or a precision that it does not
  /// take, naming what it does.
  virtual std::unique_ptr<TrainingRun> make_training(const TrainingSetup& setup, Precision precision) = 0;
};

/// How many CUDA devices there are; 0 in a build without nvcc or on a machine without a driver.
TWEEDIE_API int device_count();
/// CUDA device `index`. Throws ResourceError, saying why and what to do: no CUDA in this build, no driver, no such device, an
/// architecture below sm_80.
TWEEDIE_API std::shared_ptr<Device> open_device(int index);

/// Owning device memory, count elements of T.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(std::shared_ptr<Device> device, Index count) : device_(std::move(device)), size_(count) {
    if (count > 0) data_ = static_cast<T*>(device_->allocate(sizeof(T) * static_cast<std::size_t>(count)));
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : device_(std::move(other.device_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) device_->release(data_);
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  /// The first `count` elements.
  void upload(const T* from, Index count) { device_->upload(data_, from, sizeof(T) * static_cast<std::size_t>(count)); }
  void download(T* to, Index count) const { device_->download(to, data_, sizeof(T) * static_cast<std::size_t>(count)); }

 private:
  std::shared_ptr<Device> device_;
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace tweedie::kernels::cuda
