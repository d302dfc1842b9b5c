// mlp_divergence.cu - a perceptron and its Jacobian's trace in double for devices: instances of run_kernel.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -c kernels/cuda/mlp_divergence.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/mlp_divergence.h"

namespace tweedie::kernels::cuda {

template __global__ void run_kernel(const __grid_constant__ MlpDivergenceNaive);
template __global__ void run_kernel(const __grid_constant__ MlpDivergenceTiled<DivergenceTileSmall>);
template __global__ void run_kernel(const __grid_constant__ MlpDivergenceTiled<DivergenceTile48>);
template __global__ void run_kernel(const __grid_constant__ MlpDivergenceTiled<DivergenceTile24>);
template __global__ void run_kernel(const __grid_constant__ MlpDivergenceTiled<DivergenceTile8>);

}  // namespace tweedie::kernels::cuda
