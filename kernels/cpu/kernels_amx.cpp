// kernels_amx.cpp - the kernels for AVX-512 with AMX tiles for bf16; empty where the compiler does not target them.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cpu/table.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__x86_64__)
#include "tweedie/kernels/cpu/mlp_amx_tile.h"
#include "tweedie/kernels/cpu/target.h"

namespace tweedie::kernels {
namespace {
constexpr cpu::TargetTable kAmxTable = {kTargetTable.single, kTargetTable.twice, kTargetTable.mlp,
                                        kAmxKernels<HardwareTiles, PairWords>};
}  // namespace
namespace cpu {
const TargetTable* const kAmx = &kAmxTable;
}  // namespace cpu
}  // namespace tweedie::kernels
#else
namespace tweedie::kernels::cpu {
const TargetTable* const kAmx = nullptr;
}  // namespace tweedie::kernels::cpu
#endif
