// cuda_backend.h - the Backend of a CUDA device; for nvcc. Each operation is instantiated, with its kernels, in one backend_*.cu.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/cuda/cuda_runtime.h"

namespace tweedie::kernels::cuda {

extern template void Backend<CudaRuntime>::mlp_forward(const MlpForwardInput&, Precision);
extern template void Backend<CudaRuntime>::sample_chain(const ChainInput&, Precision);
extern template void Backend<CudaRuntime>::mlp_divergence(const MlpDivergenceInput&);
extern template std::unique_ptr<TrainingRun> Backend<CudaRuntime>::make_training(const TrainingSetup&, Precision);

}  // namespace tweedie::kernels::cuda
