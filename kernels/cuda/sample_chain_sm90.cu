// sample_chain_sm90.cu - the sampler's whole chain by wgmma: instances for sm_90a alone.
//   nvcc -std=c++20 -arch=sm_90a -Xptxas -v -c kernels/cuda/sample_chain_sm90.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/sample_chain_sm90.h"

namespace tweedie::kernels::cuda {

template __global__ void run_cluster_kernel(const __grid_constant__ SampleChainSm90<256>);
template __global__ void run_cluster_kernel(const __grid_constant__ SampleChainSm90<384>);
template __global__ void run_cluster_kernel(const __grid_constant__ SampleChainSm90<512>);

}  // namespace tweedie::kernels::cuda
