// simt_sample_chain_test.cpp - the chain kernel has the bits of its steps taken one by one, with the host's normals.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/sample_chain.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using cuda::Products;
using simt::Order;

namespace {

constexpr int kLevels = 3;
constexpr float kDrift[kLevels] = {.5f, .1f, .02f}, kNoise[kLevels] = {.9f, .4f, .2f};
constexpr std::uint64_t kKey = 77, kFirstRow = (std::uint64_t{1} << 33) + 5;
constexpr std::uint32_t kFirstStep = 4;

/// The same steps by mlp_forward, the library's normals and langevin_update.
std::vector<float> one_by_one(const TestNet& t, Index batch, int steps, float denoise, Products products, std::vector<float> x) {
  const Index dim = t.net.layer[0].in;
  std::vector<float> score(x.size());
  Matrix z(batch, dim);
  std::uint32_t step = kFirstStep;
  const auto launch = host(Order::forward);
  for (int level = 0; level < kLevels; ++level) {
    for (int i = 0; i < steps; ++i) {
      cuda::mlp_forward(launch, {t.net, batch, x.data(), nullptr, level, score.data()}, products);
      Rng(kKey).normals<float>(Purpose::langevin, step++, kFirstRow, z);
      cuda::langevin_update(launch, {batch * dim, kDrift[level], kNoise[level], score.data(), z.data(), x.data()});
    }
  }
  if (denoise != 0) {
    std::fill(z.data(), z.data() + z.size(), 0.0f);
    cuda::mlp_forward(launch, {t.net, batch, x.data(), nullptr, kLevels - 1, score.data()}, products);
    cuda::langevin_update(launch, {batch * dim, denoise, 0, score.data(), z.data(), x.data()});
  }
  return x;
}

}  // namespace

TEST_CASE("simt sample_chain has the bits of its steps taken one by one") {
  struct Case {
    Index batch;
    std::vector<int> sizes;
    int steps;
    float denoise;
  };
  const Case cases[] = {{0, {2, 8, 2}, 1, 0},    {1, {1, 3, 1}, 2, .3f},  {3, {2, 16, 16, 2}, 3, .1f},
                        {33, {3, 17, 3}, 2, 0},  {65, {5, 8, 5}, 1, .2f}, {17, {1, 1}, 2, .1f},
                        {2, {9, 65, 9}, 1, .1f}, {4, {2, 8, 2}, 0, 0},    {3, {40, 24, 40}, 1, .1f}};
  for (const Case& c : cases) {
    const TestNet t(c.sizes, kLevels);
    const auto x0 = uniform<float>(c.batch * c.sizes[0], 3);
    CAPTURE(c.batch);
    CAPTURE(c.sizes[0]);
    for (const Products products : {Products::tf32, Products::tf32x3}) {
      const std::vector<float> expected = one_by_one(t, c.batch, c.steps, c.denoise, products, x0);
      for (const Order order : simt::kAllOrders) {
        std::vector<float> x = x0;
        cuda::sample_chain(host(order),
                           {t.net, c.batch, c.steps, kDrift, kNoise, c.denoise, kKey, kFirstStep, kFirstRow, x.data()}, products);
        CHECK(same_bits(x, expected));
      }
    }
  }
}

TEST_CASE("simt sample_chain: a row's bits depend neither on the tile nor on the cut") {
  const TestNet t({2, 16, 2}, kLevels);
  const Index batch = 35;
  const auto x0 = uniform<float>(batch * 2, 8);
  const auto run = [&](auto tile, Index first, Index rows) {
    std::vector<float> x(x0.begin() + 2 * first, x0.begin() + 2 * (first + rows));
    cuda::sample_chain_tiled<decltype(tile), Products::tf32>(
        host(Order::shuffled), {t.net, rows, 2, kDrift, kNoise, .1f, kKey, 0, static_cast<std::uint64_t>(first), x.data()});
    return x;
  };
  const auto whole = run(cuda::MlpTileSmall{}, 0, batch);
  CHECK(same_bits(run(cuda::MlpTile64{}, 0, batch), whole));
  CHECK(same_bits(run(cuda::MlpTile32{}, 0, batch), whole));
  CHECK(same_bits(run(cuda::MlpTileSmall{}, 30, 5), std::vector<float>(whole.begin() + 60, whole.end())));
}

TEST_CASE("simt sample_chain refuses what it cannot mean") {
  const TestNet t({2, 8, 2}, kLevels), wrong({2, 8, 3}, kLevels);
  float x[4] = {};
  const auto attempt = [&](auto change) {
    cuda::SampleChainInput k{t.net, 2, 1, kDrift, kNoise, 0, kKey, 0, 0, x};
    change(k);
    cuda::sample_chain(host(Order::forward), k, Products::tf32);
  };
  CHECK_NOTHROW(attempt([](auto&) {}));
  CHECK_THROWS_AS(attempt([&](auto& k) { k.net = wrong.net; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.steps = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.first_step = ~0U - 2; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.first_row = (std::uint64_t{1} << 44) - 1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.noise = nullptr; }), UsageError);
}
