// simt_mlp_sm90_test.cpp - the wgmma kernels' bodies on the CPU, barriers, copies and descriptors included, in three thread
// orders, against the reference in double. SPDX-License-Identifier: MIT
#include "simt_testing.h"
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

constexpr testing::Accuracy kBf16{0x1p-7 + 0x1p-16,
                                  1};  // sums of 16 products, the bias first; those of the last layer one by one

struct Case {
  Index batch;
  std::vector<int> sizes;
};

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

float silu_of_half(float h) { return math::fma(h, std::tanh(h), h); }

/// The kernel's arithmetic, written plainly: one row. Worst-case bounds at these widths are wide; its bits are not.
std::vector<float> plainly(const Mlp& net, int level, const float* x) {
  const int width = net.layer[1].in > 384 ? 512 : net.layer[1].in > 256 ? 384 : 256;
  const auto padded = static_cast<std::size_t>(width);
  std::vector<float> h(padded);
  for (int n = 0; n < net.layer[0].out; ++n) {
    float sum = .5f * net.layer[0].bias[level * net.layer[0].out + n];
    for (int i = 0; i < net.layer[0].in; ++i) sum = math::fma(x[i], .5f * net.layer[0].weight[n * net.layer[0].in + i], sum);
    h[static_cast<std::size_t>(n)] = silu_of_half(sum);
  }
  const auto rounded = [](float v) { return static_cast<double>(__builtin_bit_cast(float, simt::Thread::to_bf16x2(0, v))); };
  for (int l = 1; l + 1 < net.layers; ++l) {
    std::vector<float> next(padded);
    for (int n = 0; n < net.layer[l].out; ++n) {
      float sum = .5f * net.layer[l].bias[n];
      for (int k = 0; k < net.layer[l].in; k += 16) {
        double wide = sum;
        for (int i = k; i < std::min(k + 16, net.layer[l].in); ++i) {
          wide += rounded(h[static_cast<std::size_t>(i)]) * rounded(.5f * net.layer[l].weight[n * net.layer[l].in + i]);
        }
        sum = static_cast<float>(wide);
      }
      next[static_cast<std::size_t>(n)] = silu_of_half(sum);
    }
    h = next;
  }
  const MlpLayer& last = net.layer[net.layers - 1];
  std::vector<float> out(static_cast<std::size_t>(last.out));
  for (int o = 0; o < last.out; ++o) {
    const auto term = [&](int k, float sum) {
      return math::fma(h[static_cast<std::size_t>(k)], k < last.in ? last.weight[o * last.in + k] : 0.0f, sum);
    };
    float& y = out[static_cast<std::size_t>(o)];
    const int chunks = width > 256 ? 2 : 1, columns = width / chunks;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      float part[4] = {};
      for (int k = chunk * columns; k < (chunk + 1) * columns; k += 8) {
        for (int t = 0; t < 4; ++t) part[t] = term(k + 2 * t + 1, term(k + 2 * t, part[t]));
      }
      const float sum = (part[0] + part[1]) + (part[2] + part[3]);
      y = chunk == 0 ? net.scale[level] * (sum + last.bias[o]) : math::fma(net.scale[level], sum, y);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("simt mlp_forward_sm90 matches the reference, whatever the sizes, in every order") {
  const Case cases[] = {{0, {2, 256, 256, 2}},       {1, {2, 256, 256, 256, 2}},  {300, {3, 200, 250, 129, 5}},
                        {70, {2, 256, 256, 256, 2}}, {33, {1, 384, 300, 384, 1}}, {17, {5, 500, 512, 7}}};
  for (const Case& c : cases) {
    for (const bool by_row : {true, false}) {
      if (by_row && c.sizes[1] == 256) continue;
      const TestNet t(c.sizes, 3, by_row ? 1 : 0);
      const Index batch = c.batch;
      CAPTURE(batch);
      CAPTURE(c.sizes[1]);
      const auto x = uniform<float>(batch * c.sizes[0], 7);
      std::vector<int> level(static_cast<std::size_t>(batch), 1);
      for (std::size_t b = 0; by_row && b < level.size(); ++b) level[b] = static_cast<int>(b % 3);
      std::vector<float> first;
      const auto packed = packed_of(t, Order::forward);
      for (const Order order : simt::kAllOrders) {
        std::vector<float> out(static_cast<std::size_t>(batch * c.sizes.back()), kNaN<float>);
        cuda::mlp_forward_sm90(clusters(order), {t.net, batch, x.data(), by_row ? level.data() : nullptr, 1, out.data()},
                               packed.data());
        if (order != Order::forward) CHECK(same_bits(out, first));
        first = out;
      }
      CHECK(beyond_bound(t, batch, x.data(), level, first, kBf16) == 0);
      std::vector<float> plain, other;
      Mlp changed = t.net;
      std::vector<float> weight(changed.layer[1].weight, changed.layer[1].weight + changed.layer[1].in * changed.layer[1].out);
      weight[weight.size() / 2] += .2f;  // one weight of 65536
      changed.layer[1].weight = weight.data();
      for (std::size_t b = 0; b < level.size(); ++b) {
        const float* const row = x.data() + b * static_cast<std::size_t>(c.sizes[0]);
        const auto here = plainly(t.net, level[b], row), there = plainly(changed, level[b], row);
        plain.insert(plain.end(), here.begin(), here.end());
        other.insert(other.end(), there.begin(), there.end());
      }
      CHECK(same_bits(first, plain));
      if (batch > 0) CHECK_FALSE(same_bits(first, other));
    }
  }
}

TEST_CASE("simt mlp_forward_sm90: tiles in turn, cuts and packing orders change no bit; NaN stays in its row") {
  const TestNet t({2, 256, 256, 2}, 1);
  const Index batch = 530;  // three tiles for one cluster
  std::vector<float> x = uniform<float>(batch * 2, 8), whole(x.size()), part(8), again(x.size());
  const auto packed = packed_of(t, Order::reverse);
  CHECK(packed == packed_of(t, Order::shuffled));
  const auto launch = [](const cuda::MlpForwardInput& k, const std::vector<unsigned char>& weights, int grid,
                         std::vector<float>& out) {
    cuda::MlpForwardSm90<256> body{k, weights.data()};
    body.out = out.data();
    simt::launch_clusters("forward", {grid, 384, cuda::Sm90Tile<256>::kSharedBytes}, 2, Order::shuffled, body);
  };
  launch({t.net, batch, x.data(), nullptr, 0, nullptr}, packed, 2, whole);
  launch({t.net, 4, x.data() + 2 * 400, nullptr, 0, nullptr}, packed, 2, part);
  CHECK(same_bits(part, std::vector<float>(whole.begin() + 800, whole.begin() + 808)));
  x[2 * 400] = kNaN<float>;
  launch({t.net, batch, x.data(), nullptr, 0, nullptr}, packed, 4, again);
  CHECK((std::isnan(again[800]) && std::isnan(again[801])));
  again[800] = whole[800], again[801] = whole[801];
  CHECK(same_bits(again, whole));
}

TEST_CASE("simt runtime: a device of sm_90a, and the forward pass through it in a graph") {
  simt::SimtRuntime runtime(Order::shuffled);
  CHECK(cuda::has_sm90(runtime));
  const TestNet t({2, 256, 256, 2}, 1);
  const Index batch = 5;
  const auto x = uniform<float>(batch * 2, 7);
  const auto bytes = static_cast<std::size_t>(cuda::mlp_sm90_packed_bytes(t.net));
  auto* const packed = static_cast<unsigned char*>(runtime.allocate(bytes));
  auto* const out = static_cast<float*>(runtime.allocate(x.size() * 4));
  const auto graph = runtime.capture([&] {
    cuda::pack_mlp_sm90(cuda::launcher(runtime), t.net, packed);
    cuda::mlp_forward_sm90(cuda::launcher(runtime), {t.net, batch, x.data(), nullptr, 0, out}, packed);
  });
  runtime.replay(graph);
  std::vector<float> got(x.size());
  runtime.download(got.data(), out, got.size() * 4);
  CHECK(beyond_bound(t, batch, x.data(), std::vector<int>(5), got, kBf16) == 0);
  runtime.release(packed);
  runtime.release(out);
  CHECK(runtime.live() == 0);
}

TEST_CASE("simt mlp_forward_sm90 serves what pays, and refuses the rest") {
  const auto serves = [](std::vector<int> sizes) { return cuda::mlp_forward_sm90_serves(TestNet(sizes, 1).net); };
  CHECK((serves({2, 256, 256, 2}) && serves({16, 129, 512, 16})));
  CHECK_FALSE((serves({2, 256, 2}) || serves({2, 128, 128, 2}) || serves({2, 256, 513, 2}) || serves({17, 256, 256, 2})));
  const TestNet t({2, 256, 256, 2}, 2), narrow({2, 16, 16, 2}, 1);
  alignas(16) unsigned char packed[32];
  float x[4] = {}, out[4];
  const auto nothing = [](const char*, int, int, int, const auto&) {};
  CHECK_THROWS_AS(cuda::mlp_sm90_packed_bytes(narrow.net), UsageError);
  CHECK_THROWS_AS(cuda::pack_mlp_sm90(nothing, t.net, nullptr), UsageError);
  CHECK_THROWS_AS(cuda::pack_mlp_sm90(nothing, t.net, packed + 1), UsageError);
  CHECK_NOTHROW(cuda::mlp_forward_sm90(nothing, {t.net, 2, x, nullptr, 1, out}, packed));
  CHECK_THROWS_AS(cuda::mlp_forward_sm90(nothing, {narrow.net, 2, x, nullptr, 0, out}, packed), UsageError);
  CHECK_THROWS_AS(cuda::mlp_forward_sm90(nothing, {t.net, 2, x, nullptr, 2, out}, packed), UsageError);
  CHECK_THROWS_AS(cuda::mlp_forward_sm90(nothing, {t.net, 2, x, nullptr, 1, out}, nullptr), UsageError);
}
