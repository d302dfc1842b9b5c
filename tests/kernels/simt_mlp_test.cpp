// simt_mlp_test.cpp - the fused network's kernels on the CPU, in three thread orders, against the reference in double.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "simt_testing.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using cuda::Products;
using simt::Order;

namespace {

constexpr Accuracy kFp32{0, 1}, kTf32{0x1p-10 + 0x1p-22, .125}, kTf32x3{0x3.01p-22, .375};

struct Case {
  Index batch;
  std::vector<int> sizes;
};

}  // namespace

TEST_CASE("simt mlp_forward matches the reference, whatever the sizes, in every order") {
  const Case cases[] = {{0, {2, 16, 2}},      {1, {1, 3, 1}},  {3, {2, 16, 16, 2}}, {16, {3, 17, 17, 3}}, {17, {2, 64, 2}},
                        {33, {5, 65, 33, 5}}, {65, {4, 8, 4}}, {2, {1, 1}},         {5, {17, 40, 70}},    {1, {2, 264, 2}}};
  for (const Case& c : cases) {
    for (const bool by_row : {true, false}) {
      const TestNet t(c.sizes, 3, by_row ? 1 : 0);
      const Index batch = c.batch, outputs = c.sizes.back();
      CAPTURE(batch);
      CAPTURE(c.sizes[1]);
      const auto x = uniform<float>(batch * c.sizes[0], 7);
      std::vector<int> level(static_cast<std::size_t>(batch), 1);
      for (std::size_t b = 0; by_row && b < level.size(); ++b) level[b] = static_cast<int>(b % 3);
      const auto run = [&](auto forward) {
        std::vector<float> first;
        for (const Order order : simt::kAllOrders) {
          std::vector<float> out(static_cast<std::size_t>(batch * outputs), kNaN<float>);
          forward(host(order), cuda::MlpForwardInput{t.net, batch, x.data(), by_row ? level.data() : nullptr, 1, out.data()});
          if (order != Order::forward) CHECK(same_bits(out, first));
          first = out;
        }
        return first;
      };
      const auto naive = run([](auto launch, const auto& k) { cuda::mlp_forward_naive(launch, k); });
      const auto half = run([](auto launch, const auto& k) { cuda::mlp_forward(launch, k, Products::tf32); });
      const auto full = run([](auto launch, const auto& k) { cuda::mlp_forward(launch, k, Products::tf32x3); });
      CHECK(beyond_bound(t, batch, x.data(), level, naive, kFp32) == 0);
      CHECK(beyond_bound(t, batch, x.data(), level, half, kTf32) == 0);
      CHECK(beyond_bound(t, batch, x.data(), level, full, kTf32x3) == 0);
      if (batch >= 16 && c.sizes[0] > 1) CHECK(beyond_bound(t, batch, x.data(), level, half, kTf32x3) > 1);  // the test can fail
    }
  }
}

TEST_CASE("simt mlp_forward: a row's bits depend neither on the tile nor on the other rows") {
  const TestNet t({2, 72, 72, 2}, 1);
  const Index batch = 35;
  const auto x = uniform<float>(batch * 2, 8);
  const auto run = [&](auto tile, Index first, Index rows) {
    std::vector<float> out(static_cast<std::size_t>(rows * 2));
    cuda::mlp_forward_tiled<decltype(tile), Products::tf32x3>(host(Order::shuffled),
                                                              {t.net, rows, x.data() + 2 * first, nullptr, 0, out.data()});
    return out;
  };
  const auto small = run(cuda::MlpTileSmall{}, 0, batch);
  CHECK(same_bits(run(cuda::MlpTile32{}, 0, batch), small));
  CHECK(same_bits(run(cuda::MlpTile64{}, 0, batch), small));
  CHECK(same_bits(run(cuda::MlpTileSmall{}, 33, 1), std::vector<float>(small.begin() + 66, small.begin() + 68)));
}

TEST_CASE("simt mlp_forward: NaN in one row stays there, infinite activations too") {
  const TestNet t({2, 16, 2}, 1);
  std::vector<float> x = uniform<float>(6, 9), clean(6), out(6);
  const auto run = [&](std::vector<float>& to) {
    cuda::mlp_forward(host(Order::forward), {t.net, 3, x.data(), nullptr, 0, to.data()}, Products::tf32);
  };
  run(clean);
  for (const float bad : {kNaN<float>, HUGE_VALF}) {
    x[2] = bad;
    run(out);
    CHECK((!std::isfinite(out[2]) && !std::isfinite(out[3])));
    CHECK((out[0] == clean[0] && out[1] == clean[1] && out[4] == clean[4] && out[5] == clean[5]));
  }
}

TEST_CASE("simt mlp_forward refuses what it cannot mean") {
  const TestNet t({2, 16, 2}, 3);
  float x[4] = {}, out[4];
  const auto attempt = [&](auto change) {
    cuda::MlpForwardInput k{t.net, 2, x, nullptr, 0, out};
    change(k);
    cuda::mlp_forward(host(Order::forward), k, Products::tf32);
  };
  CHECK_NOTHROW(attempt([](auto&) {}));
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layers = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layers = 17; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.levels = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[1].in = 15; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[0].in = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[0].weight = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.common_level = 3; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.x = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[0].out = k.net.layer[1].in = 881; }), UsageError);
  CHECK_THROWS_AS(cuda::mlp_forward_naive(host(Order::forward), {t.net, -1, x, nullptr, 0, out}), UsageError);
}
