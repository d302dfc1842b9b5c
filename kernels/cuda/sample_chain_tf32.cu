// sample_chain_tf32.cu - the sampler's whole chain for devices, in tf32 and fp32: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/sample_chain_tf32.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/sample_chain.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile128, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile64, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile32, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTileNarrow, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<1, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<2, Precision::tf32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile128, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile64, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTile32, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<BlockForward<BlockTileNarrow, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<1, Precision::fp32>>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<WarpForward<2, Precision::fp32>>);

}  // namespace tweedie::kernels::cuda
