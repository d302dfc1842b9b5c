// simt_device_test.cpp - samplers and likelihood by the kernels themselves, run on the host executor.
// SPDX-License-Identifier: MIT
#include "samplers/device_sampler_checks.h"
#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::testing;
using kernels::simt::Order;
using HostBackend = kernels::cuda::Backend<kernels::simt::SimtRuntime>;

TEST_CASE("simt device: the samplers' chains by the kernels, for any order of the threads") {
  const auto forward = std::make_shared<HostBackend>(Order::forward), shuffled = std::make_shared<HostBackend>(Order::shuffled);
  const std::vector<Samples> a = check_chains(forward), b = check_chains(shuffled);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(difference(a[i].x, b[i].x) == 0);
  CHECK(forward->runtime().live() <= 1);  // the backend's own scratch memory
}

TEST_CASE("simt device: the noise has the host's bits") { check_noise_bits(std::make_shared<HostBackend>()); }

TEST_CASE("simt device: a divergence names the CPU's step") { check_divergence_text(std::make_shared<HostBackend>()); }

TEST_CASE("simt device: the likelihood in double") { check_likelihood(std::make_shared<HostBackend>()); }

TEST_CASE("simt device: memory that runs out is an error, and nothing is left behind") {
  const auto net = edm_network(kLow, kHigh);
  int failures = 0;
  for (int left = 0; left < 30; ++left) {
    const auto device = std::make_shared<HostBackend>();
    device->runtime().allocations_left = left;
    try {
      const auto there = detail::on_device(*net, device, Precision::fp32);
      heun(*there, karras(2, kLow, kHigh), {.samples = 2, .save_every = 1}, Rng(1));
      left = 30;
    } catch (const ResourceError&) {
      ++failures;
    }
    CHECK(device->runtime().live() <= 1);
  }
  CHECK(failures >= 8);
}
