// kernels_avx512_bf16.cpp - the kernels for AVX-512 with vdpbf16ps; empty where the compiler does not target it.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cpu/table.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "tweedie/kernels/cpu/target.h"

namespace tweedie::kernels::cpu {
const TargetTable* const kAvx512Bf16 = &kTargetTable;
}  // namespace tweedie::kernels::cpu
#else
namespace tweedie::kernels::cpu {
const TargetTable* const kAvx512Bf16 = nullptr;
}  // namespace tweedie::kernels::cpu
#endif
