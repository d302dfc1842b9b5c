// SPDX-License-Identifier: MIT
#ifdef __x86_64__
#include "tweedie/core/detail/pair_tiles.h"

namespace tweedie::detail {

const PairKernels& pair_kernels_avx512() { return kKernels; }

}  // namespace tweedie::detail
#endif
