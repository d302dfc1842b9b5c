// simt_sample_chain_test.cpp - the chain kernel has the bits of its steps taken one by one, with the host's normals, whatever the
// tile; those steps satisfy the contract's equation in double. SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/sample_chain.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using cuda::ChainStep;
using simt::Order;

namespace {

constexpr int kLevels = 3;
constexpr std::uint64_t kKey = 77, kFirstRow = (std::uint64_t{1} << 33) + 5;
constexpr Precision kAll[] = {Precision::fp32, Precision::tf32, Precision::bf16x3, Precision::bf16};

// Lists as the samplers make them; the numbers are of their size, not theirs.
std::vector<ChainStep> langevin(int steps) {
  std::vector<ChainStep> list;
  for (int i = 0; i < steps; ++i) {
    const float a = .3f / static_cast<float>(i + 1);
    list.push_back({i * kLevels / steps, 1, 1, a, 0, std::sqrt(2 * a), 0, 0, 0, static_cast<std::uint32_t>(4 + i)});
  }
  list.push_back({kLevels - 1, 1, 1, .1f, 0, 0, 0, 0, 0, 0});  // Tweedie's step: no noise
  return list;
}
/// An Euler step that keeps half a slope, and the trapezoid that takes the half back.
std::vector<ChainStep> heun() {
  return {
      {0, .8f, 1, -.4f, 0, 0, 0, .5f, 0, 0}, {1, .9f, 1, -.2f, .4f, 0, 0, 0, 0, 0}, {1, .9f, 1.1f, -.3f, 0, 0, .1f, .5f, 0, 0}};
}
/// The last denoiser D = x + c f in m; churn of the second step draws.
std::vector<ChainStep> two_m() {
  return {{0, .7f, .9f, .1f, 0, 0, 1, .5f, 0, 0},
          {1, .8f, .8f, .3f, -.1f, .2f, 1, .4f, 0, 9},
          {2, .9f, .7f, .5f, -.2f, 0, 1, .3f, .05f, 0}};
}

struct State {
  std::vector<float> x, m;
  std::vector<int> diverged;
};
bool same(const State& a, const State& b) { return same_bits(a.x, b.x) && same_bits(a.m, b.m) && a.diverged == b.diverged; }

constexpr float kBound = 50;

/// The steps by mlp_forward, the library's normals and chain_update; each is checked against the contract's equation in double.
State one_by_one(const TestNet& t, const std::vector<ChainStep>& list, Precision precision, State s) {
  const Index dim = t.net.layer[0].in, n = static_cast<Index>(s.x.size()), batch = n / dim;
  Mlp net = t.net;
  net.scale = nullptr;
  Scratch scratch(cuda::mlp_forward_scratch_bytes(net, precision));
  const auto launch = host(Order::forward);
  std::vector<float> input(s.x.size()), f(s.x.size());
  Matrix z(batch, dim);
  s.diverged.assign(static_cast<std::size_t>(batch), static_cast<int>(list.size()));
  bool right = true;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const ChainStep& step = list[i];
    for (std::size_t e = 0; e < input.size(); ++e) input[e] = step.input_scale * s.x[e];
    cuda::mlp_forward(launch, {net, batch, input.data(), nullptr, step.level, f.data()}, precision, scratch.resources);
    std::fill(z.data(), z.data() + z.size(), 0.0f);
    if (step.x_z != 0) Rng(kKey).normals<float>(Purpose::langevin, step.draw, kFirstRow, z);
    const State before = s;
    cuda::chain_update(launch, {n, step, f.data(), z.data(), s.x.data(), s.m.data()});
    for (std::size_t e = 0; e < input.size(); ++e) {
      const double x = before.x[e], m = before.m[e];
      const double terms[] = {step.x_x * x, double{step.x_f} * f[e], step.x_m * m, double{step.x_z} * z.data()[e]};
      const double rest[] = {step.m_x * x, double{step.m_f} * f[e], step.m_m * m};
      double sum = 0, magnitude = 0, kept = 0, kept_magnitude = 0;
      for (const double term : terms) sum += term, magnitude += std::fabs(term);
      for (const double term : rest) kept += term, kept_magnitude += std::fabs(term);
      if (std::isfinite(sum)) right = right && std::fabs(s.x[e] - sum) <= 4 * kU * magnitude;
      if (std::isfinite(kept)) right = right && std::fabs(s.m[e] - kept) <= 3 * kU * kept_magnitude;
      int& first = s.diverged[e / static_cast<std::size_t>(dim)];
      if (!(std::fabs(s.x[e]) <= kBound)) first = std::min(first, static_cast<int>(i));
    }
  }
  CHECK(right);
  return s;
}

cuda::ChainInput input_of(const TestNet& t, const std::vector<ChainStep>& list, State& s, std::uint64_t first = 0) {
  s.diverged.assign(s.x.size() / static_cast<std::size_t>(t.net.layer[0].in), -7);
  return {t.net,
          static_cast<Index>(s.diverged.size()),
          static_cast<int>(list.size()),
          list.data(),
          Purpose::langevin,
          kKey,
          kFirstRow + first,
          s.x.data(),
          s.m.data(),
          kBound,
          s.diverged.data()};
}
State start(const TestNet& t, Index batch) {
  const Index n = batch * t.net.layer[0].in;
  return {uniform<float>(n, 3), uniform<float>(n, 4), {}};
}

}  // namespace

TEST_CASE("simt sample_chain has the bits of its steps taken one by one") {
  struct Case {
    Index batch;
    std::vector<int> sizes;
    std::vector<ChainStep> list;
  };
  const Case cases[] = {
      {0, {2, 8, 2}, heun()},     {1, {1, 3, 1}, langevin(3)},   {3, {2, 20, 20, 2}, langevin(35)}, {9, {3, 64, 3}, two_m()},
      {17, {1, 1}, langevin(2)},  {19, {17, 100, 17}, heun()},   {2, {9, 65, 9}, two_m()},          {4, {2, 8, 2}, {}},
      {3, {40, 24, 40}, two_m()}, {1, {2, 256, 256, 2}, heun()}, {1, {784, 8, 784}, {two_m()[1]}}};
  for (const Case& c : cases) {
    const TestNet t(c.sizes, kLevels);
    CAPTURE(c.batch);
    CAPTURE(c.sizes[0]);
    CAPTURE(c.sizes[1]);
    for (const Precision precision : kAll) {
      const State expected = one_by_one(t, c.list, precision, start(t, c.batch));
      Scratch scratch(cuda::sample_chain_scratch_bytes(t.net, precision));
      for (const Order order : simt::kAllOrders) {
        if (order == Order::reverse && c.sizes[1] >= 256) continue;
        State s = start(t, c.batch);
        cuda::sample_chain(host(order), input_of(t, c.list, s), precision, scratch.resources);
        CHECK(same(s, expected));
      }
    }
  }
}

TEST_CASE("simt sample_chain: a row's bits depend neither on the tile, nor on what stays in shared memory, nor on the cut") {
  const TestNet t({5, 72, 72, 5}, kLevels);
  const Index batch = 37;
  const std::vector<ChainStep> list = two_m();
  const auto check_in = [&](auto constant) {
    constexpr Precision P = constant.value;
    Scratch scratch(cuda::packed_mlp_bytes<P>(t.net));
    const auto launch = host(Order::shuffled);
    const cuda::PackedMlp packed = cuda::pack_mlp<P>("test", launch, t.net, scratch.resources);
    const auto run = [&](auto chain) {
      State s = start(t, batch);
      CHECK(chain(input_of(t, list, s)));
      return s;
    };
    const auto blocks = [&](auto tile) {
      return run(
          [&](const auto& k) { return cuda::sample_chain_blocks<decltype(tile), P>(launch, k, packed, scratch.resources); });
    };
    const auto warps = [&](auto forward, int slots) {
      return run([&](const auto& k) {
        cuda::launch_chain(launch, k, decltype(forward){t.net, packed, cuda::MlpUnit<P>::ld(72), slots});
        return true;
      });
    };
    using cuda::WarpForward;
    CHECK(WarpForward<1, P>::most_pieces(t.net) >= 7);
    const State whole = warps(WarpForward<1, P>{}, 6);
    for (const int slots : {3, 4}) {  // fewer pieces stay, down to one or none
      CAPTURE(slots);
      CHECK(same(warps(WarpForward<1, P>{}, slots), whole));
      CHECK(same(warps(WarpForward<2, P>{}, slots), whole));
    }
    CHECK(same(blocks(cuda::BlockTile32{}), whole));
    CHECK(same(blocks(cuda::BlockTile64{}), whole));
    CHECK(same(blocks(cuda::BlockTile128{}), whole));
    CHECK(same(blocks(cuda::BlockTileNarrow{}), whole));

    State cut = start(t, batch);
    cut.x.erase(cut.x.begin(), cut.x.begin() + 5 * 30), cut.m.erase(cut.m.begin(), cut.m.begin() + 5 * 30);
    cuda::sample_chain(launch, input_of(t, list, cut, 30), P, scratch.resources);
    CHECK(same_bits(cut.x, std::vector<float>(whole.x.begin() + 5 * 30, whole.x.end())));
  };
  check_in(std::integral_constant<Precision, Precision::fp32>{});
  check_in(std::integral_constant<Precision, Precision::tf32>{});
  check_in(std::integral_constant<Precision, Precision::bf16x3>{});
  check_in(std::integral_constant<Precision, Precision::bf16>{});
}

TEST_CASE("simt sample_chain names each row's first step beyond the bound; other rows do not see it") {
  const TestNet t({6, 16, 6}, kLevels);
  std::vector<ChainStep> list;
  for (int i = 0; i < 20; ++i) list.push_back({i % kLevels, 1, 1.25f, .01f, 0, .01f, 0, 0, 0, static_cast<std::uint32_t>(i)});
  const Index batch = 21;
  State first = start(t, batch);
  for (std::size_t i = 0; i < first.x.size(); ++i) first.x[i] *= 1e-3f;
  first.x[2 * 6 + 5] = 30, first.x[7 * 6] = kNaN<float>, first.x[9 * 6 + 3] = 1, first.x[13 * 6 + 1] = -HUGE_VALF;
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    Scratch scratch(cuda::sample_chain_scratch_bytes(t.net, precision));
    State s = first;
    cuda::sample_chain(host(Order::shuffled), input_of(t, list, s), precision, scratch.resources);
    CHECK(s.diverged == one_by_one(t, list, precision, first).diverged);
    CHECK(s.diverged[7] == 0);
    CHECK(s.diverged[13] == 0);
    CHECK(s.diverged[2] == 2);  // 30 * 1.25^2 < 50 < 30 * 1.25^3
    CHECK(s.diverged[0] == 20);
    State calm = first;
    for (const std::size_t row : {2, 7, 9, 13}) std::fill_n(calm.x.begin() + static_cast<std::ptrdiff_t>(6 * row), 6, 0.0f);
    cuda::sample_chain(host(Order::forward), input_of(t, list, calm), precision, scratch.resources);
    bool apart = true;
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      const std::size_t row = i / 6;
      apart = apart && (row == 2 || row == 7 || row == 9 || row == 13 || s.x[i] == calm.x[i]);
    }
    CHECK(apart);
  }
}

TEST_CASE("simt sample_chain: without memory m starts at 0") {
  const TestNet t({3, 16, 3}, kLevels);
  Scratch scratch(cuda::sample_chain_scratch_bytes(t.net, Precision::bf16));
  State with = start(t, 5), without = with;
  std::fill(with.m.begin(), with.m.end(), 0.0f);
  const std::vector<ChainStep> list = two_m();
  cuda::sample_chain(host(Order::shuffled), input_of(t, list, with), Precision::bf16, scratch.resources);
  cuda::ChainInput k = input_of(t, list, without);
  k.m = nullptr;
  cuda::sample_chain(host(Order::shuffled), k, Precision::bf16, scratch.resources);
  CHECK(same_bits(with.x, without.x));
}

TEST_CASE("simt sample_chain takes the sizes that it says: widths to 512 with D to 1024") {
  const auto fits = [](std::vector<int> sizes, Index batch, Precision precision) {
    const TestNet t(sizes, 1);
    int launches = 0, shared = 0;
    const auto count = [&](const char*, int, int, int bytes, const auto&) { ++launches, shared = bytes; };
    Scratch scratch(cuda::sample_chain_scratch_bytes(t.net, precision));
    std::vector<float> x(1);
    int diverged;
    const ChainStep step{};
    cuda::sample_chain(count, {t.net, batch, 1, &step, Purpose::sde, 0, 0, x.data(), nullptr, 1, &diverged}, precision,
                       scratch.resources);
    CHECK(cuda::takes_sample_chain(t.net, precision));
    return launches == 2 && shared <= cuda::kMaxSharedBytes;
  };
  for (const Precision precision : kAll) {
    for (const Index batch : {1, 1000, 5000, 100000}) {
      CHECK(fits({2, 256, 256, 256, 2}, batch, precision));
      CHECK(fits({64, 512, 512, 64}, batch, precision));
      CHECK(fits({784, 512, 512, 784}, batch, precision));
      CHECK(fits({1024, 512, 1024}, batch, precision));
      CHECK(fits({2, 16, 2}, batch, precision));
    }
  }
  CHECK_FALSE(cuda::takes_sample_chain(TestNet({2000, 512, 2000}, 1).net, Precision::fp32));
  CHECK_FALSE(cuda::takes_sample_chain(TestNet({2, 16, 3}, 1).net, Precision::fp32));
  CHECK_FALSE(cuda::takes_sample_chain(TestNet({2, 16, 2}, 1).net, Precision::fp32, 8000));
}

TEST_CASE("simt sample_chain refuses what it cannot mean") {
  const TestNet t({2, 8, 2}, kLevels), wrong({2, 8, 3}, kLevels);
  const std::vector<ChainStep> list = heun();
  Scratch scratch(cuda::sample_chain_scratch_bytes(t.net, Precision::tf32));
  State s = start(t, 2);
  const auto attempt = [&](auto change) {
    cuda::ChainInput k = input_of(t, list, s);
    cuda::Resources resources = scratch.resources;
    change(k, resources);
    cuda::sample_chain(host(Order::forward), k, Precision::tf32, resources);
  };
  CHECK_NOTHROW(attempt([](auto&, auto&) {}));
  CHECK_THROWS_AS(attempt([&](auto& k, auto&) { k.net = wrong.net; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.batch = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.steps = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.step = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.x = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.diverged = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.bound = kNaN<float>; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k, auto&) { k.first_row = (std::uint64_t{1} << 44) - 1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto&, auto& r) { r.scratch = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto&, auto& r) { r.scratch_bytes -= 512; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto&, auto& r) { r.shared_bytes = 10000; }), UsageError);
}
