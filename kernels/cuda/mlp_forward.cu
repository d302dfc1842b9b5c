// mlp_forward.cu - the network's forward pass for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_forward.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_forward.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ MlpForwardNaive);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile64, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile64, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile32, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile32, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile16, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTileSmall, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTile16, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardTiled<MlpTileSmall, Products::tf32x3>);

}  // namespace tweedie::kernels::cuda
