// elementwise.cu - the element-wise kernels for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/elementwise.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/elementwise.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(Normals);
template __global__ void run_kernel(LangevinUpdate);
template __global__ void run_kernel(DsmPerturb);
template __global__ void run_kernel(AdamEma);

}  // namespace tweedie::kernels::cuda
