// simt_testing.h - what the tests of device kernels share: launching on the host.
// SPDX-License-Identifier: MIT
#pragma once

#include "mlp_testing.h"
#include "tweedie/kernels/cuda/mlp_forward.h"
#include "tweedie/kernels/simt/executor.h"

namespace tweedie::kernels::testing {

inline auto host(simt::Order order) {
  return [order](const char* name, int grid, int block, int shared, const auto& body) {
    simt::launch(name, {grid, block, shared}, order, body);
  };
}

/// Scratch memory at a 16-byte boundary, all NaN, and the device's other resources.
class Scratch {
 public:
  explicit Scratch(Index bytes) : memory_(static_cast<std::size_t>(bytes / 16 + 1), {~0U, ~0U, ~0U, ~0U}) {
    resources.scratch = memory_.data(), resources.scratch_bytes = bytes;
  }
  cuda::Resources resources;

 private:
  std::vector<cuda::Words4> memory_;
};

}  // namespace tweedie::kernels::testing
