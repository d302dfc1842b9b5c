// backend_training.cu - training runs on CUDA devices.
//   nvcc -std=c++20 -fmad=false -arch=sm_90a -Xptxas -v -I build/release/include -c kernels/cuda/backend_training.cu
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cuda/cuda_backend.h"

namespace tweedie::kernels::cuda {

template std::unique_ptr<TrainingRun> Backend<CudaRuntime>::make_training(const TrainingSetup&, Precision);

}  // namespace tweedie::kernels::cuda
