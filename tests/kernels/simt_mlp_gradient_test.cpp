// simt_mlp_gradient_test.cpp - the device's loss and gradient on the CPU, in three thread orders, against the reference in
// double. SPDX-License-Identifier: MIT
#include "simt_gradient_testing.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;
using namespace device_gradient;

namespace {

template <class Gradient>
std::vector<float> run(const Problem& p, Order order, Gradient gradient, Index floats) {
  bool right = true;
  const std::vector<float> found = gradient_of(p, host(order), gradient, floats, right);
  CHECK(right);
  return found;
}

template <class Gradient>
std::vector<float> in_all_orders(const Problem& p, Gradient gradient, Index floats) {
  const std::vector<float> first = run(p, Order::forward, gradient, floats);
  for (const Order order : {Order::reverse, Order::shuffled}) CHECK(same_bits(run(p, order, gradient, floats), first));
  return first;
}

std::vector<float> with(const Problem& p, kernels::Precision precision) {
  return in_all_orders(
      p, [&](auto launch, const auto& k) { cuda::mlp_gradient(launch, k, precision); },
      cuda::mlp_gradient_workspace_floats(p.t.net, p.rows(false)));
}

}  // namespace

TEST_CASE("simt mlp_gradient matches the reference, whatever the sizes, in every order") {
  struct Case {
    Index batch;
    std::vector<int> sizes;
    int levels;
  };
  const Case cases[] = {{1, {2, 16, 2}, 3},   {3, {1, 3, 1}, 2},   {33, {2, 33, 17, 2}, 10}, {65, {3, 24, 40, 9}, 4},
                        {7, {34, 20, 34}, 2}, {5, {4, 3}, 2},      {20, {2, 72, 72, 2}, 10}, {17, {2, 16, 8, 16, 2}, 3},
                        {70, {1, 1}, 1},      {2, {70, 8, 70}, 2}, {3, {2, 136, 2}, 3}};
  for (const Case& c : cases) {
    for (const bool extras : {false, true}) {
      const Problem p(c.batch, c.sizes, c.levels, extras);
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      CAPTURE(extras);
      const std::vector<float> full = with(p, kernels::Precision::fp32);
      CHECK(worst(full, expected(p, kTf32x3)) <= 1);
      const std::vector<float> naive = in_all_orders(
          p, [](auto launch, const auto& k) { cuda::mlp_gradient_naive(launch, k); },
          c.batch * cuda::mlp_gradient_naive_layout(p.t.net).size);
      CHECK(worst(naive, expected(p, kFp32)) <= 1);
      if (!extras) continue;
      const std::vector<float> half = with(p, kernels::Precision::tf32);
      CHECK(worst(half, expected(p, kTf32)) <= 1);
      const std::vector<float> quarter = with(p, kernels::Precision::bf16);
      CHECK(worst(quarter, expected(p, kBf16)) <= 1);
      if (c.batch < 16 || c.sizes[0] == 1) continue;  // the test can fail
      CHECK(worst(half, expected(p, kTf32x3)) > 1);
      CHECK(worst(quarter, expected(p, kTf32x3)) > 2 * worst(half, expected(p, kTf32x3)));
    }
  }
}

TEST_CASE("simt mlp_gradient: several parts and chunks of rows") {
  struct Case {
    Index batch;
    std::vector<int> sizes;
  };
  for (const Case& c : {Case{700, {2, 16, 16, 2}}, Case{4300, {2, 8, 2}}}) {
    const Problem p(c.batch, c.sizes, 5, true);
    CAPTURE(c.batch);
    CHECK(worst(with(p, kernels::Precision::fp32), expected(p, kTf32x3)) <= 1);
  }
}

TEST_CASE("many rows come 64 at a time where shared memory holds them, else 16") {
  const auto rows = [](int width, Index batch, int shared_bytes) {
    return cuda::with_gradient_tiles(width, batch, shared_bytes, [](auto tile, auto) { return decltype(tile)::kRows; });
  };
  CHECK(rows(256, 5000, cuda::kMaxSharedBytes) == 64);
  CHECK(rows(256, 2112, cuda::kMaxSharedBytes) == 16);
  CHECK(rows(256, 5000, 163 * 1024) == 16);
  CHECK(rows(512, 5000, cuda::kMaxSharedBytes) == 16);
  CHECK(rows(64, 5000, cuda::kMaxSharedBytes) == 32);
}

TEST_CASE("simt mlp_gradient: every tile") {
  const Problem p(75, {3, 40, 24, 5}, 4, true);
  const Expected e = expected(p, kTf32x3);
  const auto tiled = [&](auto tile, auto weight_tile) {
    using Tile = decltype(tile);
    using WeightTile = decltype(weight_tile);
    const auto gradient = [](auto launch, const auto& k) {
      cuda::mlp_gradient_tiled<Tile, WeightTile, kernels::Precision::fp32>(launch, k);
    };
    CHECK(worst(in_all_orders(p, gradient, cuda::mlp_gradient_layout(p.t.net, p.batch, Tile::kRows).size), e) <= 1);
  };
  tiled(cuda::MlpTile64{}, cuda::WeightTile32{});
  tiled(cuda::MlpTile16{}, cuda::WeightTile128{});
}

TEST_CASE("the bound would find a forgotten row, a wrong weight of one row, a wrong level of one row on the device too") {
  const Problem p(100, {2, 40, 40, 2}, 4, true);
  const Expected e = expected(p, kTf32x3);
  for (int fault = 0; fault < 4; ++fault) {
    Problem wrong = p;
    if (fault == 1) wrong.weight[99] = 0;
    if (fault == 2) wrong.weight[50] *= 1.01f;
    if (fault == 3) wrong.level[3] = 1 - wrong.level[3] % 2;
    wrong.t = TestNet({2, 40, 40, 2}, 4);
    wrong.t.net.scale = nullptr;
    CAPTURE(fault);
    const double found = worst(with(wrong, kernels::Precision::fp32), e);
    CHECK((fault == 0 ? found <= 1 : found > 2));
  }
}

TEST_CASE("simt mlp_gradient refuses what it cannot mean") {
  const Problem p(4, {2, 8, 2}, 2, false);
  std::vector<float> losses(4), workspace(100000);
  double level_losses[4];
  const auto attempt = [&](auto change) {
    std::vector<float> dw(16), db(16);
    MlpGradient to;
    for (int i = 0; i < 2; ++i) to.weight[i] = dw.data(), to.stride[i] = p.t.net.layer[i].in, to.bias[i] = db.data();
    cuda::MlpGradientInput k{p.t.net, p.rows(false), losses.data(), to, level_losses, workspace.data()};
    change(k);
    cuda::mlp_gradient(host(Order::forward), k, kernels::Precision::tf32);
  };
  CHECK_NOTHROW(attempt([](auto&) {}));
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch.rows = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch.level = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch.eps = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.scale = k.batch.x; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layers = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[0].out = k.net.layer[1].in = 1240; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.workspace = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([&](auto& k) { k.batch.code = &p.t.net; }), UsageError);
}
