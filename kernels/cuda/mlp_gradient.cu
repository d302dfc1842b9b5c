// mlp_gradient.cu - the network's loss and gradient for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_gradient.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_gradient.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile64, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile64, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile16, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile16, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTileSmall, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTileSmall, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile128, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile128, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile32, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile32, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientReduce);

}  // namespace tweedie::kernels::cuda
