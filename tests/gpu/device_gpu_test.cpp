// device_gpu_test.cpp - the checks of a Device on a CUDA device: every kernel in every precision against the reference in double,
// the chain's noise against the host executor's bits. SPDX-License-Identifier: MIT
#include "gpu_testing.h"
#include "kernels/device_checks.h"
#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

using HostBackend = cuda::Backend<simt::SimtRuntime>;

// Shapes of each kind of tile, ragged ones among them; few rows, so that compute-sanitizer gets through.
const std::vector<NetCase> kCases = {{1, {1, 3, 1}},     {33, {5, 65, 33, 5}},         {65, {4, 8, 4}},
                                     {17, {17, 40, 17}}, {200, {2, 256, 256, 256, 2}}, {40, {64, 512, 512, 64}}};
const std::vector<NetCase> kLarge = {{100'003, {2, 64, 64, 2}}};

}  // namespace

TEST_CASE("gpu: buffers, and the name of the device") {
  if (!have_gpu()) return;
  const std::shared_ptr<cuda::Device> device = cuda::open_device(0);
  MESSAGE(device->name());
  CHECK(device->name().find("cuda:0, ") == 0);
  CHECK(device->name().find(", sm_") != std::string::npos);
  check_buffers(device);
}

TEST_CASE("gpu: mlp_forward in every precision against the reference") {
  if (!have_gpu()) return;
  const std::shared_ptr<cuda::Device> device = cuda::open_device(0);
  for (const Precision precision : kAllPrecisions) check_forward(*device, precision, device_accuracy(precision), kCases);
}

TEST_CASE("gpu: sample_chain in every precision") {
  if (!have_gpu()) return;
  const std::shared_ptr<cuda::Device> device = cuda::open_device(0);
  HostBackend executor;
  executor.sm90 = false;  // noise alone is compared, and its wgmma is slow
  for (const Precision precision : kAllPrecisions) {
    check_chain(*device, executor, precision, device_accuracy(precision), {kCases.begin(), kCases.end() - 1});
    check_diverged(*device, precision);
  }
}

TEST_CASE("gpu: mlp_divergence against the reference in long double") {
  if (!have_gpu()) return;
  check_divergence(*cuda::open_device(0), {{1, {1, 3, 1}}, {33, {5, 65, 33, 5}}, {9, {2, 256, 256, 256, 2}}, {3, {64, 64, 64}}});
}

TEST_CASE("gpu large: many blocks") {
  if (!have_gpu()) return;
  const std::shared_ptr<cuda::Device> device = cuda::open_device(0);
  for (const Precision precision : kAllPrecisions) check_forward(*device, precision, device_accuracy(precision), kLarge);
}
