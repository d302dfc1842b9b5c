// backend_divergence.cu - the divergence in double on CUDA devices.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -I build/release/include -c kernels/cuda/backend_divergence.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/cuda_backend.h"

namespace tweedie::kernels::cuda {

template void Backend<CudaRuntime>::mlp_divergence(const MlpDivergenceInput&);

}  // namespace tweedie::kernels::cuda
