// simt_mlp_sm90_test.cpp - the wgmma kernels' bodies on the CPU, barriers, copies and descriptors included, in three thread
// orders, against the reference in double. SPDX-License-Identifier: MIT
#include "simt_testing.h"
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"
#include "tweedie/kernels/simt/cluster.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

auto clusters(Order order) {
  return [order](const char* name, int grid, int block, int shared, const auto& body) {
    simt::launch_any(name, {grid, block, shared}, order, body);
  };
}

std::vector<unsigned char> packed_of(const TestNet& t, Order order) {
  std::vector<unsigned char> packed(static_cast<std::size_t>(cuda::mlp_sm90_packed_bytes(t.net)));
  cuda::pack_mlp_sm90(clusters(order), t.net, packed.data());
  return packed;
}

}  // namespace

TEST_CASE("probe") {
  const TestNet t({2, 256, 256, 256, 2}, 3);
  const Index batch = 70;
  const auto x = uniform<float>(batch * 2, 7);
  std::vector<int> level(static_cast<std::size_t>(batch), 1);
  std::vector<float> out(static_cast<std::size_t>(batch * 2), kNaN<float>);
  const auto packed = packed_of(t, Order::forward);
  cuda::mlp_forward_sm90(clusters(Order::forward), {t.net, batch, x.data(), nullptr, 1, out.data()}, packed.data());
  std::vector<double> expected(out.size());
  reference::mlp_forward<double>(t.net, batch, converted<double>(x).data(), level.data(), expected.data());
  for (int i = 0; i < 6; ++i) std::printf("%g %g\n", out[i], expected[i]);
  std::printf("%g\n", beyond_bound(t, batch, x.data(), level, out, {0x1p-8, .1, 1, 1e-30}));
}
