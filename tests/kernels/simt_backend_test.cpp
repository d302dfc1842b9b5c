// simt_backend_test.cpp - the checks of a Runtime and of a Device, on the host executor. tests/gpu runs them on a CUDA device.
// SPDX-License-Identifier: MIT
#include "device_checks.h"
#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::SimtRuntime;
using HostBackend = cuda::Backend<SimtRuntime>;

TEST_CASE("simt backend: the Runtime's checks") {
  SimtRuntime runtime(simt::Order::shuffled);
  check_runtime(runtime, 600);
  CHECK(runtime.live() == 0);
}

TEST_CASE("simt backend: the Device's checks, in every precision") {
  const std::vector<NetCase> cases = {{1, {1, 3, 1}}, {17, {3, 17, 17, 3}}, {5, {2, 72, 2}}};
  const auto device = std::make_shared<HostBackend>(simt::Order::shuffled);
  HostBackend executor;
  check_buffers(device);
  for (const Precision precision : kAllPrecisions) {
    check_forward(*device, precision, device_accuracy(precision), cases);
    check_chain(*device, executor, precision, device_accuracy(precision), cases);
    check_diverged(*device, precision);
  }
  check_divergence(*device, cases);
}

TEST_CASE("simt backend: the checks can fail") {
  // Three tf32 products pass for fp32's class, one does not: a Device that took the wrong kernel would be found.
  HostBackend device;
  const TestNet t({4, 16, 4}, 3);
  const DeviceNet net(device, t);
  const auto x = uniform<float>(64, 7);
  auto dx = put<cuda::Device>(device, x);
  OnDevice<cuda::Device, float> out(device, 64);
  device.mlp_forward({net.net, 16, dx.data(), nullptr, 1, out.data()}, Precision::tf32);
  CHECK(beyond_bound(t, 16, x.data(), std::vector<int>(16, 1), out.get(), device_accuracy(Precision::fp32)) > 1);
}

TEST_CASE("simt backend: takes_chain says what sample_chain does") {
  HostBackend device;
  for (const int width : {64, 512, 20'000}) {
    const TestNet t({2, width, 2}, 3);
    const DeviceNet net(device, t);
    for (const Precision precision : kAllPrecisions) {
      CAPTURE(width);
      CAPTURE(name(precision));
      const cuda::ChainInput input{net.net, 0, 0, nullptr, Purpose::sde, 0, 0, nullptr, nullptr, 1, nullptr};
      bool taken = device.takes_chain(net.net, precision);
      CHECK(taken == (width <= 512));
      CHECK_NOTHROW(device.sample_chain(input, precision));  // no rows: nothing has to fit
    }
  }
  TestNet wrong({2, 16, 3}, 3);  // 3 columns out for 2 in
  CHECK(!device.takes_chain(wrong.net, Precision::fp32));
}

TEST_CASE("simt backend: the allocation that fails leaves a device that works") {
  HostBackend device;
  const TestNet t({2, 16, 2}, 3);
  const DeviceNet net(device, t);
  OnDevice<cuda::Device, float> x(device, uniform<float>(8, 7)), out(device, 8);
  const cuda::MlpForwardInput input{net.net, 4, x.data(), nullptr, 0, out.data()};
  device.runtime().allocations_left = 0;  // the scratch memory's
  CHECK_THROWS_AS(device.mlp_forward(input, Precision::bf16), ResourceError);
  device.runtime().allocations_left = -1;
  CHECK_NOTHROW(device.mlp_forward(input, Precision::tf32));
  CHECK_NOTHROW(device.mlp_forward(input, Precision::bf16));
}
