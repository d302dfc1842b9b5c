// cuda_runtime.h - a Runtime (runtime.h) over one CUDA device; for nvcc.
//
// Work goes to one stream of its own. A launch is asynchronous, so what a kernel did wrong shows later: the message names the
// last kernel that was launched, and the fault is its or an earlier one's. After such a fault CUDA refuses everything in this
// process. SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "tweedie/core/check.h"
#include "tweedie/kernels/cuda/runtime.h"

namespace tweedie::kernels::cuda {

class CudaRuntime {
 public:
  class Graph {
    friend class CudaRuntime;
    std::shared_ptr<std::remove_pointer_t<cudaGraphExec_t>> graph_;
  };

  /// Device `index` of cudaGetDeviceCount(). Throws ResourceError: no driver, no such device, an architecture below sm_80.
  explicit CudaRuntime(int index) : index_(index), place_(join("cuda:", index)) {
    int count = 0;
    const cudaError_t counted = cudaGetDeviceCount(&count);
    check<ResourceError>(counted == cudaSuccess, place_, ": ", why_no_device(counted), "; use --device cpu");
    check<ResourceError>(index >= 0 && index < count, place_, ": there is no such device, this machine has ", count,
                         " (cuda:0 is the first)");
    cudaDeviceProp properties{};
    must(cudaGetDeviceProperties(&properties, index), "asking for its properties");
    name_ = join(place_, ", ", properties.name, ", sm_", properties.major, properties.minor);
    check<ResourceError>(properties.major >= 8, name_, ": the kernels need sm_80 (Ampere) or newer; use --device cpu");
    shared_limit_ = static_cast<int>(properties.sharedMemPerBlockOptin);
    multiprocessors_ = properties.multiProcessorCount;
    must(cudaSetDevice(index_), "taking it in use");
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  }
  CudaRuntime(const CudaRuntime&) = delete;
  CudaRuntime& operator=(const CudaRuntime&) = delete;
  ~CudaRuntime() {
    cudaSetDevice(index_);
    cudaStreamDestroy(stream_);
  }

  const std::string& name() const { return name_; }
  int max_shared_bytes() const { return shared_limit_; }
  int multiprocessors() const { return multiprocessors_; }
  /// For events around a piece of work.
  cudaStream_t stream() const { return stream_; }

  void* allocate(std::size_t bytes) {
    use();
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // this one does not stick
      std::size_t free = 0, total = 0;
      must(cudaMemGetInfo(&free, &total), "asking for its free memory");
      fail<ResourceError>(
          name_, ": out of memory: ", bytes, " bytes were asked for, ", free, " of ", total,
          " are free; take a smaller batch or fewer rows at once, or another device (nvidia-smi shows who uses it)");
    }
    must(error, join("allocating ", bytes, " bytes"));
    return memory;
  }
  void release(void* memory) noexcept {
    cudaSetDevice(index_);
    cudaFree(memory);
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    use();
    must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), join("uploading ", bytes, " bytes"));
    synchronize();
  }
  void download(void* to, const void* from, std::size_t bytes) {
    use();
    must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), join("downloading ", bytes, " bytes"));
    synchronize();
  }
  void zero(void* to, std::size_t bytes) {
    use();
    must(cudaMemsetAsync(to, 0, bytes, stream_), join("zeroing ", bytes, " bytes"));
  }
  void synchronize() {
    use();
    must(cudaStreamSynchronize(stream_), "waiting for its work");
  }

  template <class Body>
  void launch(const char* kernel, int grid, int block, int shared_bytes, const Body& body) {
    use();
    void (*const function)(const Body) = kernel_of<Body>();
    if (shared_bytes > kPlainShared) allow_shared(kernel, reinterpret_cast<const void*>(function), shared_bytes);
    Body copy = body;
    void* arguments[] = {&copy};
    last_kernel_ = kernel;
    must(cudaLaunchKernel(function, dim3(static_cast<unsigned>(grid)), dim3(static_cast<unsigned>(block)), arguments,
                          static_cast<std::size_t>(shared_bytes), stream_),
         join("launching ", grid, " blocks of ", block, " threads with ", shared_bytes, " bytes of shared memory"));
  }

  template <class Record>
  Graph capture(Record&& record) {
    use();
    must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a graph");
    cudaGraph_t recorded = nullptr;
    try {
      record();
    } catch (...) {
      cudaStreamEndCapture(stream_, &recorded);
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    must(cudaStreamEndCapture(stream_, &recorded), "ending a graph");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t error = cudaGraphInstantiateWithFlags(&ready, recorded, 0);
    cudaGraphDestroy(recorded);
    must(error, "making a graph ready");
    Graph graph;
    graph.graph_.reset(ready, [](cudaGraphExec_t g) { cudaGraphExecDestroy(g); });
    return graph;
  }
  void replay(const Graph& graph) {
    use();
    must(cudaGraphLaunch(graph.graph_.get(), stream_), "replaying a graph");
  }

  /// What keeps cudaGetDeviceCount() from an answer, and what to do about it.
  static std::string why_no_device(cudaError_t error) {
    int driver = 0;
    const bool known = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver && known) {
      return join("the driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10, ", this build needs ", CUDART_VERSION / 1000,
                  ".", CUDART_VERSION % 1000 / 10, "; update the driver or build with an older toolkit");
    }
    if (error == cudaErrorInsufficientDriver) return "this machine has no CUDA driver (libcuda.so.1)";
    if (error == cudaErrorNoDevice) return "the driver sees no CUDA device (nvidia-smi and CUDA_VISIBLE_DEVICES tell more)";
    return join("CUDA does not start: ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  }

 private:
  static constexpr int kPlainShared = 48 * 1024;  // more has to be asked for, kernel by kernel

  /// CUDA's current device belongs to the thread that calls.
  void use() { must(cudaSetDevice(index_), "taking it in use"); }

  void allow_shared(const char* kernel, const void* function, int bytes) {
    check<ResourceError>(bytes <= shared_limit_, name_, ": kernel '", kernel, "' needs ", bytes,
                         " bytes of shared memory a block, this device has ", shared_limit_,
                         "; take a narrower network or another device");
    int& allowed = allowed_shared_[function];
    if (bytes <= allowed) return;
    last_kernel_ = kernel;
    must(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
         join("asking for ", bytes, " bytes of shared memory"));
    allowed = bytes;
  }

  void must(cudaError_t error, const std::string& operation) const {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    const std::string& where = name_.empty() ? place_ : name_;
    const std::string kernel = last_kernel_ == nullptr ? "" : join(" (last kernel: '", last_kernel_, "')");
    fail<ResourceError>(where, ": ", operation, kernel, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), "); ",
                        remedy(error));
  }
  static const char* remedy(cudaError_t error) {
    switch (error) {
      case cudaErrorNoKernelImageForDevice:
      case cudaErrorInvalidDeviceFunction:
      case cudaErrorUnsupportedPtxVersion:
      case cudaErrorInvalidKernelImage:
        return "this build has no code for this device; build again with -DCMAKE_CUDA_ARCHITECTURES=native";
      case cudaErrorMemoryAllocation:
        return "take a smaller batch or fewer rows at once";
      case cudaErrorDevicesUnavailable:
        return "another process holds the device alone; nvidia-smi shows which";
      case cudaErrorStreamCaptureUnsupported:
      case cudaErrorStreamCaptureImplicit:
      case cudaErrorStreamCaptureInvalidated:
        return "a graph records launches and zero() alone";
      default:
        break;
    }
    // What no later call of this process gets past.
    const bool sticky = error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure ||
                        error == cudaErrorIllegalInstruction || error == cudaErrorMisalignedAddress ||
                        error == cudaErrorInvalidAddressSpace || error == cudaErrorInvalidPc ||
                        error == cudaErrorHardwareStackError || error == cudaErrorAssert || error == cudaErrorLaunchTimeout ||
                        error == cudaErrorECCUncorrectable || error == cudaErrorUnknown;
    return sticky ? "the kernel or one before it faulted, and this process can use the device no more: start it again; "
                    "compute-sanitizer (scripts/gpu_check.sh) names the line"
                  : "if it comes again, scripts/gpu_check.sh tells what of the device works";
  }

  int index_;
  std::string place_, name_;
  int shared_limit_ = 0, multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  const char* last_kernel_ = nullptr;
  std::unordered_map<const void*, int> allowed_shared_;
};
static_assert(Runtime<CudaRuntime>);

}  // namespace tweedie::kernels::cuda
