// no_backend.cpp - what a build without nvcc says of CUDA devices; with it, backend.cu answers.
// SPDX-License-Identifier: MIT
#ifndef TWEEDIE_HAVE_CUDA
#include "tweedie/core/check.h"
#include "tweedie/kernels/cuda/device.h"

namespace tweedie::kernels::cuda {

int device_count() { return 0; }

std::shared_ptr<Device> open_device(int index) {
  fail<ResourceError>("cuda:", index,
                      ": this build has no CUDA: build where nvcc is on PATH (TWEEDIE_CUDA=ON), or use --device cpu");
}

}  // namespace tweedie::kernels::cuda
#endif
