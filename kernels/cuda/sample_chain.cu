// sample_chain.cu - the sampler's whole chain for devices: instances of run_kernel.
//   nvcc -std=c++20 -arch=sm_90a -Xptxas -v -c kernels/cuda/sample_chain.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/sample_chain.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTile64, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTile64, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTile32, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTile32, Products::tf32x3>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTileSmall, Products::tf32>);
template __global__ void run_kernel(const __grid_constant__ SampleChain<MlpTileSmall, Products::tf32x3>);

}  // namespace tweedie::kernels::cuda
