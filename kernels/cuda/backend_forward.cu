// backend_forward.cu - the network's forward pass on CUDA devices.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -I build/release/include -c kernels/cuda/backend_forward.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/cuda_backend.h"

namespace tweedie::kernels::cuda {

template void Backend<CudaRuntime>::mlp_forward(const MlpForwardInput&, Precision);

}  // namespace tweedie::kernels::cuda
