// mlp_bf16_testing.h - how far a forward pass in bf16 and bf16x3 may be from the reference in double.
// SPDX-License-Identifier: MIT
#pragma once

#include "mlp_testing.h"

namespace tweedie::kernels::testing {

// kernels.h's bounds. 1.02: the two small sums' roundings, 2 K 2^-7 u; 2^-110: K <= 1030 products with a denormal operand.
inline constexpr double kSplitProduct = 0x1p-15 + 0x1p-30;
inline constexpr Accuracy kCpuBf16x3{kSplitProduct, 1.02, .5, 0x1p-110},
    kCpuBf16{0x1p-7 + 0x1p-16, 1, .5, 0x1p-110, 0, kSplitProduct};

inline constexpr Precision kReduced[] = {Precision::bf16, Precision::bf16x3};
inline const Accuracy& accuracy_of(Precision precision) { return precision == Precision::bf16 ? kCpuBf16 : kCpuBf16x3; }

}  // namespace tweedie::kernels::testing
