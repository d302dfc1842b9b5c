// portable.cpp - the kernels for any machine: 16-byte vectors, the library's own flags.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/cpu/target.h"

namespace tweedie::kernels::cpu {
const TargetTable* const kPortable = &kTargetTable;
}  // namespace tweedie::kernels::cpu
