// mlp_gradient.cu - the network's loss and gradient for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_gradient.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_gradient_naive.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ MlpGradientNaive);
template __global__ void run_kernel(const __grid_constant__ MlpGradientNaiveSum);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile64, Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile64, Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile64, Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile16, Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile16, Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTile16, Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTileSmall, Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTileSmall, Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientRows<MlpTileSmall, Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile128, Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile128, Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile128, Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile32, Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile32, Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientWeights<WeightTile32, Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpGradientReduce);

}  // namespace tweedie::kernels::cuda
