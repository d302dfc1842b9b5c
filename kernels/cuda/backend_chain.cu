// backend_chain.cu - the sampler's whole chain on CUDA devices.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -I build/release/include -c kernels/cuda/backend_chain.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/cuda_backend.h"

namespace tweedie::kernels::cuda {

template void Backend<CudaRuntime>::sample_chain(const ChainInput&, Precision);

}  // namespace tweedie::kernels::cuda
