// pair_tiles.cpp - the baseline build's kernels: SSE2 on x86-64, the compiler's choice elsewhere.
// SPDX-License-Identifier: MIT
#include "tweedie/core/detail/pair_tiles.h"

namespace tweedie::detail {

const PairKernels& pair_kernels_portable() { return kKernels; }

}  // namespace tweedie::detail
