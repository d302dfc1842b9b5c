// backend.cu - CUDA devices: how many there are, and one of them as a Device. Its operations' kernels are in backend_*.cu.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/cuda_backend.h"

namespace tweedie::kernels::cuda {

int device_count() {
  int count = 0;
  const bool counted = cudaGetDeviceCount(&count) == cudaSuccess;
  cudaGetLastError();
  return counted ? count : 0;
}

std::shared_ptr<Device> open_device(int index) { return std::make_shared<Backend<CudaRuntime>>(index); }

}  // namespace tweedie::kernels::cuda
