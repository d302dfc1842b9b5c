// simt_sample_chain_sm90_test.cpp - the wgmma chain kernel has the bits of its steps taken one by one, with the host's normals.
// SPDX-License-Identifier: MIT
#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/sample_chain_sm90.h"
#include "tweedie/kernels/simt/cluster.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

constexpr std::uint64_t kKey = 77, kFirstRow = (std::uint64_t{1} << 33) + 5;

auto clusters(Order order) {
  return [order](const char* name, int grid, int block, int shared, const auto& body) {
    simt::launch_any(name, {grid, block, shared}, order, body);
  };
}

std::vector<unsigned char> packed_of(const TestNet& t) {
  std::vector<unsigned char> packed(static_cast<std::size_t>(cuda::mlp_sm90_packed_bytes(t.net)));
  cuda::pack_mlp_sm90(clusters(Order::forward), t.net, packed.data());
  return packed;
}

const std::vector<cuda::ChainStep> kSteps = {
    {0, 1, 1, .1f, 0, .3f, 0, 0, 0, 11},  // Langevin's form, then all terms, then no noise
    {2, .7f, .9f, .2f, .25f, .4f, .3f, .6f, -.2f, 12},
    {1, 1.3f, .8f, -.1f, .5f, 0, .1f, .2f, .3f, 13}};

struct Particles {
  std::vector<float> x, m;
  std::vector<int> diverged;
};

/// The same steps by mlp_forward_sm90, the library's normals and the header's order of roundings.
void one_by_one(const TestNet& t, const std::vector<unsigned char>& packed, float bound, Particles& p) {
  const Index dim = t.net.layer[0].in, batch = static_cast<Index>(p.x.size()) / dim;
  Mlp net = t.net;
  net.scale = nullptr;
  Matrix z(batch, dim);
  std::vector<float> input(p.x.size()), f(p.x.size());
  p.diverged.assign(static_cast<std::size_t>(batch), static_cast<int>(kSteps.size()));
  for (std::size_t s = 0; s < kSteps.size(); ++s) {
    const cuda::ChainStep& now = kSteps[s];
    for (std::size_t i = 0; i < input.size(); ++i) input[i] = now.input_scale * p.x[i];
    cuda::mlp_forward_sm90(clusters(Order::forward), {net, batch, input.data(), nullptr, now.level, f.data()}, packed.data());
    Rng(kKey).normals<float>(Purpose::langevin, now.draw, kFirstRow, z);
    for (std::size_t i = 0; i < input.size(); ++i) {
      const float noise = now.x_z != 0 ? z.data()[i] : 0, x = p.x[i], m = p.m[i];
      p.x[i] = math::fma(now.x_f, f[i], math::fma(now.x_z, noise, math::fma(now.x_m, m, now.x_x * x)));
      p.m[i] = math::fma(now.m_f, f[i], math::fma(now.m_m, m, now.m_x * x));
      int& at = p.diverged[i / static_cast<std::size_t>(dim)];
      if (!(std::fabs(p.x[i]) <= bound)) at = std::min(at, static_cast<int>(s));
    }
  }
}

}  // namespace

TEST_CASE("simt sample_chain_sm90 has the bits of its steps taken one by one") {
  struct Case {
    Index batch, dim;
    int width;
    bool memory;
  };
  for (const Case c : {Case{1, 1, 256, false}, {140, 2, 256, true}, {260, 5, 256, true}, {3, 2, 384, true}, {2, 1, 512, false}}) {
    const int dim = static_cast<int>(c.dim);
    const TestNet t({dim, c.width, 200, c.width, dim}, 3);
    const auto packed = packed_of(t);
    CAPTURE(c.batch);
    Particles expected{uniform<float>(c.batch * c.dim, 3), std::vector<float>(static_cast<std::size_t>(c.batch * c.dim)), {}};
    if (c.memory) expected.m = uniform<float>(c.batch * c.dim, 4);
    expected.x[0] = c.batch > 1 ? 9.0f : expected.x[0];  // diverged from the first step on
    const auto x0 = expected.x, m0 = expected.m;
    one_by_one(t, packed, 2, expected);
    if (c.batch > 1) CHECK(expected.diverged[0] == 0);
    for (const Order order : simt::kAllOrders) {
      Particles p{x0, m0, std::vector<int>(static_cast<std::size_t>(c.batch), -1)};
      cuda::sample_chain_sm90(clusters(order),
                              {t.net, c.batch, static_cast<int>(kSteps.size()), kSteps.data(), Purpose::langevin, kKey, kFirstRow,
                               p.x.data(), c.memory ? p.m.data() : nullptr, 2, p.diverged.data()},
                              packed.data());
      CHECK(same_bits(p.x, expected.x));
      if (c.memory) CHECK(same_bits(p.m, expected.m));
      CHECK(p.diverged == expected.diverged);
    }
  }
}

TEST_CASE("simt sample_chain_sm90 refuses what it cannot mean") {
  const TestNet t({2, 256, 256, 2}, 3), wide({2, 512, 512, 2}, 1), other({2, 256, 256, 3}, 1);
  CHECK((cuda::sample_chain_sm90_serves(t.net) && !cuda::sample_chain_sm90_serves(wide.net)));
  alignas(16) unsigned char packed[16];
  float x[4] = {};
  int diverged[2];
  const auto attempt = [&](auto change, const unsigned char* weights) {
    cuda::ChainInput k{t.net, 2, 3, kSteps.data(), Purpose::langevin, kKey, 0, x, nullptr, 1, diverged};
    change(k);
    cuda::sample_chain_sm90([](const char*, int, int, int, const auto&) {}, k, weights);
  };
  CHECK_NOTHROW(attempt([](auto&) {}, packed));
  CHECK_THROWS_AS(attempt([](auto&) {}, nullptr), UsageError);
  CHECK_THROWS_AS(attempt([&](auto& k) { k.net = wide.net; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([&](auto& k) { k.net = other.net; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch = -1; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.steps = -1; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.first_row = (std::uint64_t{1} << 44) - 1; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.bound = -1; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.step = nullptr; }, packed), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.diverged = nullptr; }, packed), UsageError);
}
