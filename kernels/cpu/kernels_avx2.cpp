// kernels_avx2.cpp - the kernels for AVX2 and FMA, 32-byte vectors; empty where the compiler does not target it.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cpu/table.h"

#if defined(__AVX2__) && defined(__FMA__)
#include "tweedie/kernels/cpu/target.h"

namespace tweedie::kernels::cpu {
const TargetTable* const kAvx2 = &kTargetTable;
}  // namespace tweedie::kernels::cpu
#else
namespace tweedie::kernels::cpu {
const TargetTable* const kAvx2 = nullptr;
}  // namespace tweedie::kernels::cpu
#endif
