// mlp_forward_packed.cu - packing, and the forward pass over packed weights, for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_forward_packed.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_forward.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ PackMlp<Precision::fp32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile128, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile64, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile32, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile16, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTileNarrow, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ PackMlp<Precision::tf32>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile128, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile64, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile32, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile16, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTileNarrow, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ PackMlp<Precision::bf16x3>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile128, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile64, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile32, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile16, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTileNarrow, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ PackMlp<Precision::bf16>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile128, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile64, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile32, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTile16, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ MlpForwardPacked<BlockForward<BlockTileNarrow, Precision::bf16>>);

}  // namespace tweedie::kernels::cuda
