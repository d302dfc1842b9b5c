// mlp_test.cpp - the perceptron's fused forward pass on every target: against the reference in double, its bits, what it refuses.
// SPDX-License-Identifier: MIT
#include "mlp_testing.h"
#include "tweedie/core/check.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

constexpr Accuracy kFp32{0, 1, 0, 0x1p-119};

}  // namespace

TEST_CASE("mlp_forward matches the reference: sizes about the tiles, one to many rows, thin and wide ends") {
  for (const MlpCase& c : mlp_cases()) {
    for (const bool by_row : {true, false}) {
      const TestNet t(c.sizes, 3, by_row ? 1 : 0);
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      const auto x = uniform<float>(c.batch * c.sizes[0], 7);
      const auto level = by_row ? levels_of(c.batch, 3) : std::vector<int>(static_cast<std::size_t>(c.batch));
      on_every_target([&] {
        const auto out = forward(t, c.batch, x, by_row ? level.data() : nullptr, by_row ? 3 : 0);
        CHECK(beyond_bound(t, c.batch, x.data(), level, out, kFp32) == 0);
      });
    }
  }
}

TEST_CASE("the bound would find one unit missing among 256, and one row of bias taken for another") {
  TestNet t({2, 256, 256, 2}, 2);
  const auto x = uniform<float>(40, 12);
  const std::vector<int> level(20, 1);
  const auto out = forward(t, 20, x, level.data());
  CHECK(beyond_bound(t, 20, x.data(), level, out, kFp32) == 0);
  CHECK(beyond_bound(t, 20, x.data(), std::vector<int>(20, 0), out, kFp32) > 10);
  t.weights[2][100] = 0;
  CHECK(beyond_bound(t, 20, x.data(), level, out, kFp32) > 10);
}

TEST_CASE("mlp_forward over the number range: pre-activations far on both sides of zero") {
  TestNet t({1, 48, 48, 1}, 1);
  for (float& w : t.weights[0]) w *= 60;  // |z| to 120 for |x| <= 1: silu's clamps at -87 and 128
  const auto x = uniform<float>(200, 11);
  const std::vector<int> level(200);
  on_every_target([&] { CHECK(beyond_bound(t, 200, x.data(), level, forward(t, 200, x, nullptr), kFp32) == 0); });
}

TEST_CASE(
    "mlp_forward: a row's bits depend neither on the batch, nor on its cut, nor on threads, nor on how its level is given") {
  const std::vector<int> shapes[] = {{2, 72, 256, 2}, {5, 40, 33}, {1, 300, 12}};
  const Index batch = 150;
  on_every_target([&] {
    for (const auto& sizes : shapes) {
      const TestNet t(sizes, 4);
      CAPTURE(sizes[1]);
      const Index in = sizes.front(), outputs = sizes.back();
      const auto x = uniform<float>(batch * in, 8);
      const auto level = levels_of(batch, 4);
      set_threads(1);
      const auto whole = forward(t, batch, x, level.data());
      std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net)));
      pack_mlp(t.net, packed.data());
      for (const int count : {1, 2, 4}) {
        set_threads(count);
        for (const Index cut : {1, 2, 3, 4, 5, 7, 64, 100, 150}) {
          std::vector<float> pieces(whole.size(), kNaN<float>);
          for (Index b = 0; b < batch; b += cut) {
            mlp_forward(t.net, packed.data(), std::min(cut, batch - b), x.data() + b * in, in, level.data() + b,
                        pieces.data() + b * outputs, outputs);
          }
          CAPTURE(cut);
          CHECK(same_bits(pieces, whole));
        }
      }
      // One row at a time, the first bias and the scale moved to its level.
      std::vector<float> single(whole.size(), kNaN<float>);
      for (Index b = 0; b < batch; ++b) {
        const int l = level[static_cast<std::size_t>(b)];
        Mlp net = t.net;
        net.layer[0].bias += Index{l} * sizes[1];
        net.scale += l;
        mlp_forward(net, packed.data(), 1, x.data() + b * in, in, nullptr, single.data() + b * outputs, outputs);
      }
      CHECK(same_bits(single, whole));
    }
  });
  set_threads(0);
}

TEST_CASE("mlp_forward: NaN and infinity in one row stay there; out may be x") {
  const TestNet t({2, 40, 40, 2}, 1);
  const Index batch = 11;
  auto x = uniform<float>(batch * 2, 9);
  on_every_target([&] {
    const auto clean = forward(t, batch, x, nullptr);
    auto dirty = x;
    dirty[2 * 3] = kNaN<float>;
    dirty[2 * 10 + 1] = std::numeric_limits<float>::infinity();
    const auto out = forward(t, batch, dirty, nullptr);
    for (Index i = 0; i < 2 * batch; ++i) {
      const auto e = static_cast<std::size_t>(i);
      if (i / 2 == 3) CHECK(std::isnan(out[e]));
      if (i / 2 == 10) CHECK_FALSE(std::isfinite(out[e]));
      if (i / 2 != 3 && i / 2 != 10) CHECK(out[e] == clean[e]);
    }
    std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net)));
    pack_mlp(t.net, packed.data());
    auto in_place = x;
    mlp_forward(t.net, packed.data(), batch, in_place.data(), 2, nullptr, in_place.data(), 2);
    CHECK(same_bits(in_place, clean));
  });
}

TEST_CASE("mlp_forward refuses what it cannot mean") {
  const TestNet t({2, 8, 2}, 2);
  std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net))), x(8), out(8);
  const int bad[] = {0, 2};
  CHECK_THROWS_AS(mlp_forward(t.net, packed.data(), -1, x.data(), 2, nullptr, out.data(), 2), UsageError);
  CHECK_THROWS_AS(mlp_forward(t.net, packed.data(), 2, x.data(), 1, nullptr, out.data(), 2), UsageError);
  CHECK_THROWS_AS(mlp_forward(t.net, packed.data(), 2, x.data(), 2, nullptr, out.data(), 1), UsageError);
  CHECK_THROWS_WITH_AS(mlp_forward(t.net, packed.data(), 2, x.data(), 2, bad, out.data(), 2),
                       "mlp_forward: level[1] = 2, the network has 2", UsageError);
  Mlp none = t.net;
  none.layers = 0;
  CHECK_THROWS_AS(pack_mlp(none, packed.data()), UsageError);
  Mlp torn = t.net;
  torn.layer[1].in = 7;
  CHECK_THROWS_AS(packed_mlp_size(torn), UsageError);
}
