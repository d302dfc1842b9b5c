// elementwise.cu - the element-wise kernels for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/elementwise.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/elementwise.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ Normals);
template __global__ void run_kernel(const __grid_constant__ LangevinUpdate);
template __global__ void run_kernel(const __grid_constant__ ChainUpdateNaive);
template __global__ void run_kernel(const __grid_constant__ ChainUpdate);
template __global__ void run_kernel(const __grid_constant__ DsmPerturb);
template __global__ void run_kernel(const __grid_constant__ AdamEma);

}  // namespace tweedie::kernels::cuda
