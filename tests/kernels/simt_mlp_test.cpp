// simt_mlp_test.cpp - the fused network's kernels on the CPU, in three thread orders, against the reference in double.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "simt_accept.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

struct Case {
  Index batch;
  std::vector<int> sizes;
};

}  // namespace

TEST_CASE("simt mlp_forward matches the reference, whatever the sizes, in every order") {
  const Case cases[] = {{0, {2, 16, 2}},   {1, {1, 3, 1}},       {3, {2, 16, 16, 2}}, {16, {3, 17, 17, 3}},
                        {17, {2, 64, 2}},  {33, {5, 65, 33, 5}}, {65, {4, 8, 4}},     {2, {1, 1}},
                        {5, {17, 40, 70}}, {1, {2, 264, 2}},     {1, {1024, 8, 1024}}};
  for (const Case& c : cases) {
    for (const bool by_row : {true, false}) {
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      const auto run = [&](Accuracy accuracy, auto forward) {
        std::vector<float> first, out;
        double beyond = 0;
        for (const Order order : simt::kAllOrders) {
          beyond = std::max(beyond, accept_mlp_forward(host(order), c.batch, c.sizes, by_row, accuracy, forward, &out));
          if (order != Order::forward) CHECK(same_bits(out, first));
          first = out;
        }
        return beyond;
      };
      CHECK(run(kFp32, [](auto launch, const auto& k) { cuda::mlp_forward_naive(launch, k); }) == 0);
      const TestNet t(c.sizes, 3, by_row ? 1 : 0);
      const auto in = [&](Precision precision, Accuracy accuracy) {
        Scratch scratch(cuda::mlp_forward_scratch_bytes(t.net, precision));
        return run(accuracy, [&](auto launch, const auto& k) { cuda::mlp_forward(launch, k, precision, scratch.resources); });
      };
      CHECK(in(Precision::tf32, kTf32) == 0);
      CHECK(in(Precision::fp32, kTf32x3) == 0);
      CHECK(in(Precision::bf16, kBf16) == 0);
      CHECK(in(Precision::bf16x3, kBf16x3) == 0);
      if (c.batch >= 16 && c.sizes[0] > 1) {  // the test can fail
        CHECK(in(Precision::tf32, kTf32x3) > 1);
        CHECK(in(Precision::bf16, kBf16x3) > 1);
      }
    }
  }
}

TEST_CASE("simt mlp_forward: a row's bits depend neither on the tile nor on the other rows") {
  const TestNet t({3, 96, 96, 5}, 1);  // a tile's second warp of columns is done before the first has read all inputs
  const Index batch = 35;
  const auto x = uniform<float>(batch * 3, 8);
  const auto check_in = [&](auto precision) {
    constexpr Precision P = precision.value;
    Scratch scratch(cuda::packed_mlp_bytes<P>(t.net));
    const auto run = [&](auto tile, Index first, Index rows) {
      std::vector<float> out(static_cast<std::size_t>(rows * 5));
      const auto launch = host(Order::shuffled);
      const cuda::PackedMlp packed = cuda::pack_mlp<P>("test", launch, t.net, scratch.resources);
      CHECK(cuda::mlp_forward_packed<decltype(tile), P>(launch, {t.net, rows, x.data() + 3 * first, nullptr, 0, out.data()},
                                                        packed, scratch.resources));
      return out;
    };
    const auto narrow = run(cuda::BlockTileNarrow{}, 0, batch);
    CHECK(same_bits(run(cuda::BlockTile32{}, 0, batch), narrow));
    CHECK(same_bits(run(cuda::BlockTile64{}, 0, batch), narrow));
    CHECK(same_bits(run(cuda::BlockTile128{}, 0, batch), narrow));
    CHECK(same_bits(run(cuda::BlockTile32{}, 33, 1), std::vector<float>(narrow.begin() + 165, narrow.begin() + 170)));
  };
  check_in(std::integral_constant<Precision, Precision::fp32>{});
  check_in(std::integral_constant<Precision, Precision::bf16>{});
  check_in(std::integral_constant<Precision, Precision::bf16x3>{});
}

TEST_CASE("simt pack_mlp: each lane has its fragment's words, rounded, zeros beyond the layer") {
  const TestNet t({19, 5, 33}, 1);
  const auto word = [](float low, float high) { return simt::Thread::to_bf16x2(low, high); };
  Scratch scratch(cuda::packed_mlp_bytes<Precision::bf16x3>(t.net));
  CHECK(scratch.resources.scratch_bytes == (1 * 2 + 3 * 1) * 2 * 512);
  const cuda::PackedMlp packed = cuda::pack_mlp<Precision::bf16x3>("test", host(Order::reverse), t.net, scratch.resources);
  CHECK(packed.first[1] == 4);
  const auto* words = static_cast<const std::uint32_t*>(scratch.resources.scratch);
  const auto weight = [&](int l, int out, int in) {
    const MlpLayer& layer = t.net.layer[l];
    return out < layer.out && in < layer.in ? layer.weight[out * layer.in + in] : 0.0f;
  };
  // Lane 6 is (g, t) = (1, 2). Layer 0, its second block of inputs: word 0 is W(1, 20), W(1, 21), beyond its 19 inputs.
  CHECK(words[0 * 256 + 6 * 4 + 0] == word(weight(0, 1, 4), weight(0, 1, 5)));
  CHECK(words[0 * 256 + 6 * 4 + 1] == 0);  // W(9, 4) of 5 outputs
  CHECK(words[0 * 256 + 6 * 4 + 2] == word(weight(0, 1, 12), weight(0, 1, 13)));
  CHECK(words[1 * 256 + 6 * 4 + 0] == 0);
  CHECK(words[1 * 256 + 5 * 4 + 0] == word(weight(0, 1, 18), 0));
  // Layer 1, outputs 16..31: word 1 is W(25, 4), word 0 of outputs 32.. is W(33, 4), which is not there.
  CHECK(words[(2 + 1) * 256 + 6 * 4 + 1] == word(weight(1, 25, 4), 0));
  CHECK(words[(2 + 2) * 256 + 6 * 4 + 0] == 0);
  CHECK(words[(2 + 2) * 256 + 2 * 4 + 0] == word(weight(1, 32, 4), 0));
  const float w = weight(0, 1, 4), rest = w - __builtin_bit_cast(float, words[6 * 4] << 16);
  CHECK((words[128 + 6 * 4] & 0xFFFFU) == word(rest, 0));  // the second part
  CHECK(std::fabs(rest) <= 0x1p-8 * std::fabs(w));
}

TEST_CASE("simt mlp_forward: NaN in one row stays there, infinite activations too") {
  const TestNet t({2, 16, 2}, 1);
  std::vector<float> x = uniform<float>(6, 9), clean(6), out(6);
  for (const Precision precision : {Precision::tf32, Precision::bf16, Precision::bf16x3}) {
    Scratch scratch(cuda::mlp_forward_scratch_bytes(t.net, precision));
    const auto run = [&](std::vector<float>& to) {
      cuda::mlp_forward(host(Order::forward), {t.net, 3, x.data(), nullptr, 0, to.data()}, precision, scratch.resources);
    };
    x[2] = .5f;
    run(clean);
    for (const float bad : {kNaN<float>, HUGE_VALF}) {
      x[2] = bad;
      run(out);
      CHECK((!std::isfinite(out[2]) && !std::isfinite(out[3])));
      CHECK((out[0] == clean[0] && out[1] == clean[1] && out[4] == clean[4] && out[5] == clean[5]));
    }
  }
}

TEST_CASE("simt mlp_forward refuses what it cannot mean") {
  const TestNet t({2, 16, 2}, 3);
  float x[4] = {}, out[4];
  Scratch scratch(cuda::mlp_forward_scratch_bytes(t.net, Precision::bf16));
  const auto attempt = [&](auto change) {
    cuda::MlpForwardInput k{t.net, 2, x, nullptr, 0, out};
    change(k);
    cuda::mlp_forward(host(Order::forward), k, Precision::bf16, scratch.resources);
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
  // For no rows a network is still looked at: whether its tiles fit.
  CHECK_NOTHROW(attempt([](auto& k) { k.batch = 0, k.net.layer[0].out = k.net.layer[1].in = 1024; }));
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch = 0, k.net.layer[0].out = k.net.layer[1].in = 4000; }), UsageError);
  const cuda::MlpForwardInput k{t.net, 2, x, nullptr, 0, out};
  CHECK_THROWS_AS(cuda::mlp_forward(host(Order::forward), k, Precision::bf16, {}), UsageError);                   // no memory
  CHECK_THROWS_AS(cuda::mlp_forward(host(Order::forward), k, Precision::bf16x3, scratch.resources), UsageError);  // too little
  scratch.resources.shared_bytes = 20000;
  CHECK_THROWS_AS(attempt([](auto&) {}), UsageError);
  CHECK_THROWS_AS(cuda::mlp_forward_naive(host(Order::forward), {t.net, -1, x, nullptr, 0, out}), UsageError);
}
