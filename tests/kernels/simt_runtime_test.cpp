// simt_runtime_test.cpp - the host's Runtime: order of work, graphs, and each rule it is stricter about than a device.
// SPDX-License-Identifier: MIT
#include <cmath>
#include <vector>

#include "kernels_testing.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::KernelFault;
using simt::SimtRuntime;

namespace {

/// x[i] = 2 x[i] + 1 for i in [first, first + n).
struct Double {
  float* x;
  int first, n;
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    if (ctx.thread() < n) x[first + ctx.thread()] = 2 * x[first + ctx.thread()] + 1;
  }
};

float* floats(SimtRuntime& runtime, Index n) {
  return static_cast<float*>(runtime.allocate(sizeof(float) * static_cast<std::size_t>(n)));
}

}  // namespace

TEST_CASE("simt runtime: uploaded, launched in order, downloaded; memory is NaN until written, at a 256-byte boundary") {
  for (const simt::Order order : simt::kAllOrders) {
    SimtRuntime runtime(order);
    float* const x = floats(runtime, 33);
    CHECK(reinterpret_cast<std::uintptr_t>(x) % 256 == 0);
    std::vector<float> host(33), start = uniform<float>(33, 5);
    runtime.download(host.data(), x, sizeof(float) * 33);
    for (const float value : host) CHECK(std::isnan(value));
    runtime.upload(x, start.data(), sizeof(float) * 33);
    runtime.launch("double", 1, 64, 0, Double{x, 0, 33});
    runtime.launch("double", 1, 64, 0, Double{x, 0, 33});
    runtime.download(host.data(), x, sizeof(float) * 33);
    for (std::size_t i = 0; i < 33; ++i) CHECK(host[i] == 2 * (2 * start[i] + 1) + 1);
    runtime.zero(x, sizeof(float) * 32);
    runtime.download(host.data(), x, sizeof(float) * 33);
    CHECK(host[31] == 0);
    CHECK(host[32] == 2 * (2 * start[32] + 1) + 1);
    CHECK(runtime.live() == 1);
    runtime.release(x);
    CHECK(runtime.live() == 0);
  }
}

TEST_CASE("simt runtime: a graph does nothing when captured and everything when replayed") {
  SimtRuntime runtime;
  float* const x = floats(runtime, 4);
  const float ones[4] = {1, 1, 1, 1};
  runtime.upload(x, ones, sizeof ones);
  const SimtRuntime::Graph graph = runtime.capture([&] {
    runtime.launch("double", 1, 32, 0, Double{x, 0, 4});
    runtime.zero(x, sizeof(float));
    runtime.launch("double", 1, 32, 0, Double{x, 0, 2});
  });
  float host[4];
  runtime.download(host, x, sizeof host);
  CHECK(std::equal(host, host + 4, ones));
  for (int i = 0; i < 2; ++i) runtime.replay(graph);
  runtime.download(host, x, sizeof host);
  CHECK(host[0] == 1);
  CHECK(host[1] == 31);  // doubled four times
  CHECK(host[3] == 7);
  CHECK_THROWS_AS(runtime.capture([&] { runtime.synchronize(); }), ResourceError);
  CHECK_THROWS_AS(runtime.capture([&] { floats(runtime, 1); }), ResourceError);
  CHECK_NOTHROW(runtime.synchronize());  // the capture ended with its exception
  runtime.release(x);
}

#ifndef TWEEDIE_SIMT_ASAN  // which would stop the process at the write
TEST_CASE("simt runtime: a write beside a buffer is found after the launch, by kernel and side") {
  const auto write = [](int first) {
    SimtRuntime runtime;
    float* const x = floats(runtime, 8);
    runtime.zero(x, 32);
    std::string message;
    try {
      runtime.launch("double", 1, 32, 0, Double{x, first, 1});
    } catch (const KernelFault& fault) {
      message = fault.what();
    }
    return message;
  };
  CHECK(write(0).empty());
  CHECK(write(7).empty());
  CHECK(write(8).find("double: wrote beyond the end of a buffer of 32 bytes") == 0);
  CHECK(write(-1).find("double: wrote before the start") == 0);
}
#endif

TEST_CASE("simt runtime: copies that leave a buffer or meet the host's memory") {
  SimtRuntime runtime;
  float* const x = floats(runtime, 8);
  float host[9] = {};
  CHECK_THROWS_AS(runtime.upload(x, host, sizeof host), KernelFault);
  CHECK_THROWS_AS(runtime.upload(host, x, 4), KernelFault);
  CHECK_THROWS_AS(runtime.download(host, x + 1, 32), KernelFault);
  CHECK_THROWS_AS(runtime.zero(host, 4), KernelFault);
  CHECK_NOTHROW(runtime.download(host, x + 1, 28));
  CHECK_NOTHROW(runtime.upload(nullptr, nullptr, 0));
}

TEST_CASE("simt runtime: the allocation that fails says so, and nothing leaks") {
  SimtRuntime runtime;
  runtime.allocations_left = 1;
  void* const first = runtime.allocate(16);
  CHECK_THROWS_WITH_AS(runtime.allocate(1 << 20), "host executor: out of memory: 1048576 bytes were asked for, 0 are free",
                       ResourceError);
  runtime.release(first);
  CHECK(runtime.live() == 0);
}
