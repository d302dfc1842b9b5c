// samplers_gpu_test.cpp - samplers and likelihood on a CUDA device. SPDX-License-Identifier: MIT
#include "gpu_testing.h"
#include "samplers/device_sampler_checks.h"

using namespace tweedie;
using namespace tweedie::testing;
using kernels::cuda::open_device;
using kernels::testing::have_gpu;

TEST_CASE("gpu: the samplers' chains") {
  if (have_gpu()) check_chains(open_device(0));
}

TEST_CASE("gpu: a sampler's noise has the host's bits") {
  if (have_gpu()) check_noise_bits(open_device(0));
}

TEST_CASE("gpu: a divergence names the CPU's step") {
  if (have_gpu()) check_divergence_text(open_device(0));
}

TEST_CASE("gpu: the likelihood in double") {
  if (have_gpu()) check_likelihood(open_device(0));
}
