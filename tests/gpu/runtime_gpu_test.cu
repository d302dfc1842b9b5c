// runtime_gpu_test.cu - the checks of a Runtime on a CUDA device, and what only a device can get wrong: its errors' messages.
// SPDX-License-Identifier: MIT
#include "gpu_testing.h"
#include "kernels/mlp_testing.h"
#include "kernels/runtime_checks.h"
#include "tweedie/kernels/cuda/cuda_runtime.h"
#include "tweedie/kernels/cuda/mlp_forward.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using cuda::CudaRuntime;

namespace {

/// out[i] = i through dynamic shared memory, whose last float it uses too.
struct ThroughShared {
  int floats;
  float* out;  // (block size + 1)
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    float* const memory = ctx.template dynamic_shared<float>();
    memory[ctx.thread()] = static_cast<float>(ctx.thread());
    if (ctx.thread() == 0) memory[floats - 1] = 7;
    ctx.sync();
    out[ctx.thread()] = memory[ctx.thread()];
    if (ctx.thread() == 0) out[ctx.block_size()] = memory[floats - 1];
  }
};

template <class Work>
std::string message_of(const Work& work) {
  try {
    work();
  } catch (const ResourceError& error) {
    return error.what();
  }
  return "no error";
}

bool holds(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (text.find(part) == std::string::npos) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("gpu: the Runtime's checks") {
  if (!have_gpu()) return;
  CudaRuntime runtime(0);
  check_runtime(runtime, 10'001);
}

TEST_CASE("gpu: the naive forward pass, the ladder's first rung") {
  if (!have_gpu()) return;
  CudaRuntime runtime(0);
  const TestNet t({5, 65, 33, 5}, 1);
  const auto x = uniform<float>(40 * 5, 7);
  OnDevice<CudaRuntime, float> w0(runtime, t.weights[0]), w1(runtime, t.weights[1]), w2(runtime, t.weights[2]),
      b0(runtime, t.biases[0]), b1(runtime, t.biases[1]), b2(runtime, t.biases[2]), scale(runtime, t.scale), dx(runtime, x),
      out(runtime, x.size());
  Mlp net = t.net;
  net.scale = scale.data();
  net.layer[0].weight = w0.data(), net.layer[1].weight = w1.data(), net.layer[2].weight = w2.data();
  net.layer[0].bias = b0.data(), net.layer[1].bias = b1.data(), net.layer[2].bias = b2.data();
  cuda::mlp_forward_naive(cuda::launcher(runtime), {net, 40, dx.data(), nullptr, 0, out.data()});
  CHECK(beyond_bound(t, 40, x.data(), std::vector<int>(40, 0), out.get(), {0, 1}) == 0);
}

TEST_CASE("gpu: a block gets all the shared memory that the device has, and no more") {
  if (!have_gpu()) return;
  CudaRuntime runtime(0);
  OnDevice<CudaRuntime, float> out(runtime, 65);
  for (const int bytes : {1024, 48 * 1024, 64 * 1024, runtime.max_shared_bytes()}) {
    runtime.launch("through_shared", 1, 64, bytes, ThroughShared{bytes / 4, out.data()});
    const std::vector<float> got = out.get();
    CHECK(got[63] == 63);
    CHECK(got[64] == 7);
  }
  const std::string message = message_of([&] {
    runtime.launch("through_shared", 1, 64, runtime.max_shared_bytes() + 4, ThroughShared{1, out.data()});
  });
  CHECK_MESSAGE(holds(message, {"through_shared", "shared memory", "narrower network"}), message);
}

TEST_CASE("gpu: what cannot be had is named with its remedy, and the device works on") {
  if (!have_gpu()) return;
  CudaRuntime runtime(0);
  const std::string memory = message_of([&] { runtime.allocate(std::size_t{1} << 50); });
  CHECK_MESSAGE(holds(memory, {"1125899906842624 bytes", "free", "smaller batch"}), memory);
  const std::string threads = message_of([&] { runtime.launch("too_wide", 1, 2048, 0, ThroughShared{1, nullptr}); });
  CHECK_MESSAGE(holds(threads, {"too_wide", "2048 threads"}), threads);
  const std::string index = message_of([] { CudaRuntime other(99); });
  CHECK_MESSAGE(holds(index, {"cuda:99", "cuda:0 is the first"}), index);
  check_copies(runtime);
}
