// simt_elementwise_test.cpp - the device kernels' bodies, run on the CPU in three thread orders, against the reference in double.
// SPDX-License-Identifier: MIT
#include "simt_accept.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

constexpr Index kDims[] = {1, 2, 3, 4, 5, 17, 64, 65, 257, 1023, 1024};

/// accept(launch) in every order, then by a single block: its loop strides over what more blocks would take.
template <class Accept>
void accepted(Accept accept) {
  for (const Order order : simt::kAllOrders) CHECK(accept(host(order)) <= 1);
  CHECK(accept([](const char* name, int, int block, int shared, const auto& body) {
          simt::launch(name, {1, block, shared}, Order::shuffled, body);
        }) <= 1);
}

}  // namespace

TEST_CASE("simt normals have the library's bits") {
  for (const Index dim : kDims) {
    for (const Index rows : kSizes) {
      if (rows * dim > 4096) continue;
      CAPTURE(rows);
      CAPTURE(dim);
      accepted([&](auto launch) { return accept_normals(launch, rows, dim); });
    }
  }
}

TEST_CASE("simt langevin_update and dsm_perturb match the reference") {
  for (const Index dim : kDims) {
    for (const Index batch : kSizes) {
      if (batch * dim > 4096) continue;
      CAPTURE(batch);
      CAPTURE(dim);
      accepted([&](auto launch) { return accept_langevin(launch, batch * dim); });
      accepted([&](auto launch) { return accept_perturb(launch, batch, dim); });
    }
  }
}

TEST_CASE("simt chain_update takes its step, by elements and by 16 bytes, with the same bits") {
  for (const Index n : {0, 1, 3, 4, 16, 17, 1023, 1025}) {
    for (const bool memory : {false, true}) {
      for (const bool noise : {false, true}) {
        for (const Index skew : {0, 1}) {
          CAPTURE(n);
          accepted([&](auto launch) { return accept_chain_update(launch, n, memory, noise, skew); });
        }
      }
    }
  }
  const auto f = uniform<float>(37, 1), z = uniform<float>(37, 2);
  auto x = uniform<float>(37, 3), m = uniform<float>(37, 4), y = x, k = m;
  const cuda::ChainStep step{0, 1, .9f, -.3f, .7f, .6f, .1f, -1.2f, .45f, 0};
  const auto launch = host(Order::shuffled);
  cuda::chain_update(launch, {37, step, f.data(), z.data(), x.data(), m.data()});
  launch("naive", 1, 64, 0, cuda::ChainUpdateNaive{37, step, f.data(), z.data(), y.data(), k.data()});
  CHECK((same_bits(x, y) && same_bits(m, k)));
}

TEST_CASE("simt adam_ema matches the reference") {
  for (const std::int64_t step : {1, 3, 1000}) {
    for (const Index n : {0, 1, 65, 1000, 1025}) {
      CAPTURE(n);
      accepted([&](auto launch) { return accept_adam(launch, step, n); });
    }
  }
}

TEST_CASE("simt launchers refuse what they cannot mean") {
  float x[4] = {};
  const auto launch = host(Order::forward);
  CHECK_THROWS_AS(cuda::langevin_update(launch, {-1, 1, 1, x, x, x}), UsageError);
  const auto step = [&](Index n, float x_m, float x_z, const float* f) {
    return cuda::ChainUpdateInput{n, {0, 1, 1, 1, x_m, x_z, 0, 0, 0, 0}, f, nullptr, x, nullptr};
  };
  CHECK_NOTHROW(cuda::chain_update(launch, step(4, 0, 0, x)));
  CHECK_THROWS_AS(cuda::chain_update(launch, step(-1, 0, 0, x)), UsageError);
  CHECK_THROWS_AS(cuda::chain_update(launch, step(4, 1, 0, x)), UsageError);
  CHECK_THROWS_AS(cuda::chain_update(launch, step(4, 0, 1, x)), UsageError);
  CHECK_THROWS_AS(cuda::chain_update(launch, step(4, 0, 0, nullptr)), UsageError);
  CHECK_THROWS_AS(cuda::dsm_perturb(launch, {2, -1, x, x, x, x}), UsageError);
  CHECK_THROWS_AS(cuda::normals(launch, {0, Purpose::user, 0, 1U << 24, 0, 1, 1, x}), UsageError);
  CHECK_THROWS_AS(cuda::normals(launch, {0, Purpose::user, 0, 0, std::uint64_t{1} << 44, 1, 1, x}), UsageError);
  AdamStep options;
  options.step = 0;
  CHECK_THROWS_AS(cuda::adam_ema(launch, options, 1, x, x, x, x, x), UsageError);
}
