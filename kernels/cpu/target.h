// target.h - the table of the dispatch target that this translation unit's flags select.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/elementwise.h"
#include "tweedie/kernels/cpu/fourier.h"
#include "tweedie/kernels/cpu/gemm_tile.h"
#include "tweedie/kernels/cpu/mlp_bf16_tile.h"
#include "tweedie/kernels/cpu/mlp_tile.h"

namespace tweedie::kernels {
namespace {

template <class T>
constexpr cpu::Kernels<T> kKernels = {kTileRows,          kTileCols<T>, pack<T, kTileRows>, pack<T, kTileCols<T>>,
                                      multiply<T>,        silu<T>,      silu_gradient<T>,   dsm_perturb<T>,
                                      langevin_update<T>, adam_ema<T>,  sum_squares<T>};
constexpr cpu::TargetTable kTargetTable = {
    kKernels<float>, kKernels<double>, {Native<float>::kWidth, dense, add_rows, thin, fourier}, kBf16Kernels<NativeWords>};

}  // namespace
}  // namespace tweedie::kernels
