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

struct Precision {
  double product;    // relative error of one product
  double roundings;  // per product, of sums: the executor rounds once per mma, that is once per eight products
};
constexpr Precision kFp32{0, 1}, kTf32{0x1p-10 + 0x1p-22, .125}, kTf32x3{0x3.01p-22, .375};

/// How far beyond the bound `out` is, as a multiple; the bound carries each layer's errors (see mlp_forward.h) to the next.
double beyond_bound(const TestNet& t, Index batch, const float* x, const std::vector<int>& level, const std::vector<float>& out,
                    Precision precision) {
  const Mlp& net = t.net;
  const Index outputs = net.layer[net.layers - 1].out;
  std::vector<double> expected(out.size());
  const std::vector<double> wide(x, x + batch * net.layer[0].in);
  reference::mlp_forward<double>(net, batch, wide.data(), level.data(), expected.data());
  double worst = 0;
  for (Index b = 0; b < batch; ++b) {
    const auto row = static_cast<std::size_t>(b);
    std::vector<double> h(wide.begin() + b * net.layer[0].in, wide.begin() + (b + 1) * net.layer[0].in), error(h.size());
    for (int l = 0; l < net.layers; ++l) {
      const MlpLayer& layer = net.layer[l];
      const double sums = precision.product + (precision.roundings * cuda::round_up8(layer.in) + 1) * kU;
      std::vector<double> next(static_cast<std::size_t>(layer.out)), next_error(next.size());
      for (std::size_t n = 0; n < next.size(); ++n) {
        double y = layer.bias[(l == 0 ? static_cast<std::size_t>(level[row]) * next.size() : 0) + n], magnitude = 0, carried = 0;
        const double bias = std::fabs(y);
        for (std::size_t k = 0; k < h.size(); ++k) {
          const double w = layer.weight[n * h.size() + k];
          y += w * h[k], magnitude += std::fabs(w) * (std::fabs(h[k]) + error[k]), carried += std::fabs(w) * error[k];
        }
        next[n] = y, next_error[n] = carried + sums * magnitude + kU * (magnitude + bias);
        if (l + 1 < net.layers) {
          next[n] = y / (1 + std::exp(-y));
          next_error[n] = 1.1 * next_error[n] + (8 * std::fabs(next[n]) + .5) * 1.01 * kU + 0x1p-120;
        }
      }
      h = next, error = next_error;
    }
    const double scale = net.scale == nullptr ? 1 : net.scale[level[row]];
    for (std::size_t n = 0; n < h.size(); ++n) {
      const std::size_t at = row * static_cast<std::size_t>(outputs) + n;
      const double miss = std::fabs(out[at] - expected[at]);
      const double allowed = std::fabs(scale) * error[n] + kU * std::fabs(expected[at]);
      if (!(miss <= allowed)) worst = std::max(worst, std::isnan(miss) ? HUGE_VAL : miss / allowed);
    }
  }
  return worst;
}

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
