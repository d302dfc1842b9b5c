// bf16_twins_test.cpp - the bodies for AMX tiles and for vdpbf16ps over the instructions' host twins: bounds, bits, and where
// this machine has vdpbf16ps itself, its bits. SPDX-License-Identifier: MIT
#include "bf16_twins.h"
#include "mlp_bf16_testing.h"
#include "tweedie/kernels/cpu/mlp_bf16.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

constexpr cpu::Bf16Kernels kTwinOfAmx = kAmxKernels<TwinTiles, TwinPairs>, kTwinOfPairs = kBf16Kernels<TwinPairs>;

/// mlp_forward() by a twin's kernels.
std::vector<float> twin_forward(const cpu::Bf16Kernels& kernels, const TestNet& t, Index batch, const std::vector<float>& x,
                                const int* level, Precision precision, Index cut) {
  const Index in = t.net.layer[0].in, outputs = t.net.layer[t.net.layers - 1].out;
  std::vector<float> packed(static_cast<std::size_t>(cpu::bf16_size(kernels, t.net, precision)), kNaN<float>);
  cpu::bf16_pack(kernels, t.net, packed.data(), precision);
  std::vector<float> out(static_cast<std::size_t>(batch * outputs), kNaN<float>);
  for (Index b = 0; b < batch; b += cut) {
    cpu::bf16_forward(kernels, t.net, packed.data(), std::min(cut, batch - b), x.data() + b * in, in,
                      level == nullptr ? nullptr : level + b, out.data() + b * outputs, outputs, precision);
  }
  return out;
}

}  // namespace

TEST_CASE("the bodies for AMX and for vdpbf16ps keep the bounds over their instructions' twins, with the same bits for any cut") {
  const MlpCase cases[] = {{1, {1, 3, 1}},        {1, {7, 33, 65, 130, 9}},
                           {3, {3, 72, 72, 3}},   {15, {2, 31, 32, 33, 2}},
                           {16, {1, 15, 16, 17}}, {17, {5, 1, 5}},
                           {31, {4, 8, 4}},       {32, {2, 64, 64, 10}},
                           {33, {100, 20, 100}},  {65, {6, 24, 24, 6}},
                           {131, {2, 33, 2}},     {3, {300, 40, 70}},
                           {2, {3, 257, 2}},      {5, {17, 70}},
                           {70, {1, 1}},          {49, {33, 40, 12}}};
  for (const MlpCase& c : cases) {
    const TestNet t(c.sizes, 3, 1);
    CAPTURE(c.batch);
    CAPTURE(c.sizes[1]);
    const auto x = uniform<float>(c.batch * c.sizes[0], 7);
    const auto level = levels_of(c.batch, 3);
    for (const cpu::Bf16Kernels* kernels : {&kTwinOfAmx, &kTwinOfPairs}) {
      for (const Precision precision : kReduced) {
        const auto out = twin_forward(*kernels, t, c.batch, x, level.data(), precision, c.batch);
        CHECK(beyond_bound(t, c.batch, x.data(), level, out, accuracy_of(precision)) == 0);
        for (const Index cut : {1, 19, 40}) {
          if (cut >= c.batch) continue;
          CAPTURE(cut);
          CHECK(same_bits(twin_forward(*kernels, t, c.batch, x, level.data(), precision, cut), out));
        }
      }
    }
  }
}

TEST_CASE("the AMX body: NaN and infinity stay in their row, threads change no bit") {
  const TestNet t({2, 40, 40, 12}, 1);
  const Index batch = 150;
  const auto x = uniform<float>(batch * 2, 9);
  for (const Precision precision : kReduced) {
    set_threads(1);
    const auto clean = twin_forward(kTwinOfAmx, t, batch, x, nullptr, precision, batch);
    set_threads(3);
    CHECK(same_bits(twin_forward(kTwinOfAmx, t, batch, x, nullptr, precision, batch), clean));
    auto dirty = x;
    dirty[2 * 3] = kNaN<float>;
    dirty[2 * 140 + 1] = std::numeric_limits<float>::infinity();
    const auto out = twin_forward(kTwinOfAmx, t, batch, dirty, nullptr, precision, batch);
    for (Index i = 0; i < 12 * batch; ++i) {
      const auto e = static_cast<std::size_t>(i);
      if (i / 12 == 3) CHECK(std::isnan(out[e]));
      if (i / 12 != 3 && i / 12 != 140) CHECK(out[e] == clean[e]);
    }
  }
  set_threads(0);
}

TEST_CASE("vdpbf16ps has its twin's bits: odd product first, a rounding each, denormals as zero") {
  if (!available(Target::avx512_bf16)) {
    say_not_tried(Target::avx512_bf16);
    return;
  }
  const Target before = target();
  set_target(Target::avx512_bf16);
  // One layer has no silu, whose bits are a target's own. Sums over K = 1, an odd K, several panels.
  const std::vector<int> shapes[] = {{1, 1}, {33, 70}, {128, 9}, {301, 40}};
  for (const auto& sizes : shapes) {
    CAPTURE(sizes[0]);
    TestNet t(sizes, 1);
    auto x = uniform<float>(21 * sizes[0], 5);
    for (std::size_t i = 0; i < x.size(); i += 7) x[i] *= 0x1p-120f;  // products and low parts below 2^-126
    for (std::size_t i = 0; i < t.weights[0].size(); i += 5) t.weights[0][i] *= 0x1p-122f;
    t.biases[0].assign(t.biases[0].size(), 0);
    for (const Precision precision : kReduced) {
      CHECK(same_bits(forward(t, 21, x, nullptr, 0, precision), twin_forward(kTwinOfPairs, t, 21, x, nullptr, precision, 21)));
    }
  }
  set_target(before);
}

TEST_CASE("the twin of the tiles refuses what hardware faults on") {
  CHECK_THROWS_AS(TwinTiles::zero<0>(), std::logic_error);
  TileConfig config(32);
  config.rows[3] = 17;
  CHECK_THROWS_AS(TwinTiles::configure(config), std::logic_error);
  config = TileConfig(5);
  TwinTiles::configure(config);
  CHECK_NOTHROW((TwinTiles::multiply_add<0, 4, 6>()));
  config.rows[4] = 6;
  TwinTiles::configure(config);
  CHECK_THROWS_AS((TwinTiles::multiply_add<0, 4, 6>()), std::logic_error);
  TwinTiles::release();
}
