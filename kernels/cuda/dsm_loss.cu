// dsm_loss.cu - denoising score matching's loss and gradient for devices: instances of run_kernel.
//   nvcc -std=c++20 -arch=sm_90a -Xptxas -v -c kernels/cuda/dsm_loss.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/dsm_loss.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ DsmLoss);
template __global__ void run_kernel(const __grid_constant__ DsmLossSum);

}  // namespace tweedie::kernels::cuda
