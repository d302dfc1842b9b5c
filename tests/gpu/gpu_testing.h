// gpu_testing.h - the device of the GPU tests, or one line that says that there is none. SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include "tweedie/kernels/cuda/device.h"

namespace tweedie::kernels::testing {

/// Whether there is a device; says "skipped" once a test case where there is none (scripts/gpu_check.sh calls that a failure).
inline bool have_gpu() {
  const bool have = cuda::device_count() > 0;
  if (!have) MESSAGE("skipped: no CUDA device");
  return have;
}

}  // namespace tweedie::kernels::testing
