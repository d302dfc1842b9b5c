// philox_device.cu - proof that the generator and the normals compile for a device as they stand (-fmad has no effect on their
// bits).
//   nvcc -std=c++20 -c tests/core/philox_device.cu
// SPDX-License-Identifier: MIT
#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"

// z (n, 4): the normals of rows 0 .. n - 1, block 0, of stream `key`.
__global__ void philox_normals(float* z, int n, std::uint64_t key) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= n) return;
  const tweedie::PhiloxWords w =
      tweedie::philox4x32(tweedie::philox_counter(tweedie::Purpose::user, 7, static_cast<std::uint64_t>(row), 0, 0), key);
  tweedie::detail::normal_pair(w.v[0], w.v[1], z[4 * row], z[4 * row + 1]);
  tweedie::detail::normal_pair(w.v[2], w.v[3], z[4 * row + 2], z[4 * row + 3]);
}
