// sample_chain_bf16.cu - the sampler's whole chain for devices, in bf16 and bf16x3: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/sample_chain_bf16.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/sample_chain.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile128, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile64, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile32, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTileNarrow, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<1, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<2, Precision::bf16>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile128, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile64, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile32, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTileNarrow, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<1, Precision::bf16x3>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<2, Precision::bf16x3>>);

}  // namespace tweedie::kernels::cuda
