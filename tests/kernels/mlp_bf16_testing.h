// mlp_bf16_testing.h - how far a forward pass in bf16 and bf16x3 may be from the reference in double.
// SPDX-License-Identifier: MIT
#pragma once

#include "mlp_testing.h"

namespace tweedie::kernels::testing {

// kernels.h's bounds: parts of sum |w| |h|, 1 + 2^-5 roundings a product; 2^-110: K <= 1030 products with a denormal operand.
inline constexpr double kSums = 1 + 0x1p-5;
inline constexpr Accuracy kCpuBf16x3{0x1p-15 + 0x1p-30, kSums, .5, 0x1p-110},
    kCpuBf16{0x1p-7 + 0x1p-16, kSums, .5, 0x1p-110, 0, 0x1p-8 + 0x1p-16};

inline constexpr Precision kReduced[] = {Precision::bf16, Precision::bf16x3};
inline const Accuracy& accuracy_of(Precision precision) { return precision == Precision::bf16 ? kCpuBf16 : kCpuBf16x3; }

}  // namespace tweedie::kernels::testing
