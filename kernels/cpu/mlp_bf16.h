// mlp_bf16.h - the perceptron's forward pass in bf16 and bf16x3 over one target's kernels; kernels.h states what it computes.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cpu {

// The arguments are checked; precision is bf16 or bf16x3.
Index bf16_size(const Bf16Kernels& target, const Mlp& net, Precision precision);
void bf16_pack(const Bf16Kernels& target, const Mlp& net, float* packed, Precision precision);
void bf16_forward(const Bf16Kernels& target, const Mlp& net, const float* packed, Index batch, const float* x, Index ldx,
                  const int* level, float* out, Index ldo, Precision precision);

}  // namespace tweedie::kernels::cpu
