// mlp_forward_sm90.cu - the network's forward pass by wgmma: instances for sm_90a alone.
//   nvcc -std=c++20 -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_forward_sm90.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ MlpPackSm90<256>);
template __global__ void run_kernel(const __grid_constant__ MlpPackSm90<384>);
template __global__ void run_kernel(const __grid_constant__ MlpPackSm90<512>);
template __global__ void run_cluster_kernel(const __grid_constant__ Sm90Probe);
template __global__ void run_cluster_kernel(const __grid_constant__ MlpForwardSm90<256>);
template __global__ void run_cluster_kernel(const __grid_constant__ MlpForwardSm90<384>);
template __global__ void run_cluster_kernel(const __grid_constant__ MlpForwardSm90<512>);

}  // namespace tweedie::kernels::cuda
