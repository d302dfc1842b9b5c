// mlp_bf16_test.cpp - the perceptron's forward pass in bf16 and bf16x3 on every target: bounds, bits, what it refuses.
// SPDX-License-Identifier: MIT
#include "mlp_bf16_testing.h"
#include "tweedie/core/check.h"
#include "tweedie/kernels/cpu/bf16.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

/// Root mean square of the difference to the reference in double, over the reference's.
double relative_error(const TestNet& t, Index batch, const std::vector<float>& x, const std::vector<float>& out) {
  std::vector<double> expected(out.size());
  const std::vector<double> wide(x.begin(), x.end());
  const std::vector<int> level(static_cast<std::size_t>(batch));
  reference::mlp_forward<double>(t.net, batch, wide.data(), level.data(), expected.data());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    error += (out[i] - expected[i]) * (out[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

}  // namespace

TEST_CASE("to_bf16 rounds to nearest, ties to even, and keeps what is not finite") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::pair<float, float> cases[] = {{1, 1},
                                           {1 + 0x1p-8f, 1},                               // a tie: 1 is even
                                           {1 + 0x3p-8f, 1 + 0x1p-6f},                     // a tie: 1 + 2^-7 is odd
                                           {1 + 0x1p-8f + 0x1p-23f, 1 + 0x1p-7f},          // just above a tie
                                           {-(1 + 0x3p-8f), -(1 + 0x1p-6f)},               //
                                           {2 - 0x1p-23f, 2},                              // into the next binade
                                           {0.0f, 0.0f},                                   //
                                           {0x1p-140f, 0},                                 // a bf16 has numbers from 2^-133 on
                                           {0x1p-133f, 0x1p-133f},                         //
                                           {std::numeric_limits<float>::max(), infinity},  //
                                           {0x1.fep127f, 0x1.fep127f},                     // its largest
                                           {-infinity, -infinity}};
  for (const std::pair<float, float>& c : cases) {
    CAPTURE(c.first);
    CHECK(to_bf16(c.first) == c.second);
    CHECK(std::signbit(to_bf16(-0.0f)));
  }
  for (const std::uint32_t bits : {0x7fffffffu, 0x7f800001u, 0xff800001u, 0xffffffffu}) {
    CHECK(std::isnan(to_bf16(__builtin_bit_cast(float, bits))));
    const std::uint32_t pair = bf16_pair(__builtin_bit_cast(float, bits), 1.0f);
    CHECK(std::isnan(__builtin_bit_cast(float, pair << 16)));
    CHECK((pair >> 16) == 0x3f80u);
  }
  double low = 0, rest = 0;
  for (const float x : uniform<float>(20000, 3)) {
    const Bf16Parts<float> parts = bf16_parts(x);
    low = std::max(low, std::fabs(double{parts.low} / x));
    rest = std::max(rest, std::fabs((double{x} - parts.high - parts.low) / x));
  }
  CHECK(low <= 0x1p-8);
  CHECK(low > 0x1p-8 * .95);
  CHECK(rest <= 0x1p-17);
  CHECK(rest > 0x1p-18);
}

TEST_CASE("mlp_forward in bf16 and bf16x3 keeps its bounds: sizes about the tiles, one to many rows, thin and wide ends") {
  for (const MlpCase& c : mlp_cases()) {
    for (const bool by_row : {true, false}) {
      const TestNet t(c.sizes, 3, by_row ? 1 : 0);
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      const auto x = uniform<float>(c.batch * c.sizes[0], 7);
      const auto level = by_row ? levels_of(c.batch, 3) : std::vector<int>(static_cast<std::size_t>(c.batch));
      on_every_target([&] {
        for (const Precision precision : kReduced) {
          const std::string arithmetic = name(precision);
          CAPTURE(arithmetic);
          const auto out = forward(t, c.batch, x, by_row ? level.data() : nullptr, by_row ? 3 : 0, precision);
          CHECK(beyond_bound(t, c.batch, x.data(), level, out, accuracy_of(precision)) == 0);
        }
      });
    }
  }
}

TEST_CASE("the precisions differ as they should: bf16x3 is near fp32, bf16 is not") {
  const Index batch = 64;
  const TestNet t({2, 256, 256, 256, 2}, 1);
  const auto x = uniform<float>(2 * batch, 12);
  on_every_target([&] {
    const auto out = forward(t, batch, x, nullptr), near = forward(t, batch, x, nullptr, 0, Precision::bf16x3),
               rough = forward(t, batch, x, nullptr, 0, Precision::bf16);
    const double fp32 = relative_error(t, batch, x, out), bf16x3 = relative_error(t, batch, x, near),
                 bf16 = relative_error(t, batch, x, rough);
    // Roundings of 2^-9 on average in each of 2 x 256 operands add up to some 2^-9 of a sum, those of bf16x3 to some 2^-17.
    CHECK(bf16 > 0x1p-11);
    CHECK(bf16 < 0x1p-6);
    CHECK(bf16x3 < bf16 / 64);
    CHECK(fp32 < 0x1p-19);
    const std::string at = name(target());
    MESSAGE(at, ": relative error fp32 ", fp32, ", bf16x3 ", bf16x3, ", bf16 ", bf16);
  });
}

TEST_CASE("the bounds would find bf16 taken for bf16x3, and one unit missing among 16") {
  const Index batch = 64;
  TestNet t({2, 16, 2}, 1);
  const auto x = uniform<float>(2 * batch, 12);
  const std::vector<int> level(static_cast<std::size_t>(batch));
  const auto rough = forward(t, batch, x, nullptr, 0, Precision::bf16),
             near = forward(t, batch, x, nullptr, 0, Precision::bf16x3);
  CHECK(beyond_bound(t, batch, x.data(), level, rough, kCpuBf16x3) > 5);
  t.weights[1][3] = t.weights[1][19] = 0;
  CHECK(beyond_bound(t, batch, x.data(), level, rough, kCpuBf16) > 5);
  CHECK(beyond_bound(t, batch, x.data(), level, near, kCpuBf16x3) > 100);
}

TEST_CASE("bf16 takes the state whole: a shift of x far below its 8 bits moves the output") {
  TestNet t({1, 1}, 1);
  t.weights[0][0] = 1, t.biases[0][0] = 0, t.scale[0] = 1;
  on_every_target([&] {
    for (const float x : {1.0f + 0x1p-14f, 1000.0f + 0x1p-6f, 3e30f * (1 + 0x1p-14f)}) {
      const auto out = forward(t, 1, {x}, nullptr, 0, Precision::bf16);
      CHECK(std::fabs(out[0] - x) <= 0x1p-17f * x);
    }
  });
}

TEST_CASE("mlp_forward in bf16 and bf16x3 over the number range") {
  TestNet t({1, 48, 48, 1}, 1);
  for (float& w : t.weights[0]) w *= 60;  // |z| to 120 for |x| <= 1: silu's clamps at -87 and 128
  const auto x = uniform<float>(200, 11);
  const std::vector<int> level(200);
  TestNet tiny({2, 40, 40, 2}, 1);
  for (float& w : tiny.weights[1]) w *= 0x1p-130f;  // operands and products that the units take as zero
  on_every_target([&] {
    for (const Precision precision : kReduced) {
      CHECK(beyond_bound(t, 200, x.data(), level, forward(t, 200, x, nullptr, 0, precision), accuracy_of(precision)) == 0);
      const std::vector<int> hundred(100);
      CHECK(beyond_bound(tiny, 100, x.data(), hundred, forward(tiny, 100, x, nullptr, 0, precision), accuracy_of(precision)) ==
            0);
    }
  });
}

TEST_CASE("bf16 and bf16x3: a row's bits depend neither on the batch, nor on its cut, nor on threads") {
  const std::vector<int> shapes[] = {{2, 72, 256, 2}, {5, 40, 33}, {1, 300, 12}};
  const Index batch = 150;
  on_every_target([&] {
    for (const auto& sizes : shapes) {
      for (const Precision precision : kReduced) {
        const TestNet t(sizes, 4);
        CAPTURE(sizes[1]);
        const Index in = sizes.front(), outputs = sizes.back();
        const auto x = uniform<float>(batch * in, 8);
        const auto level = levels_of(batch, 4);
        set_threads(1);
        const auto whole = forward(t, batch, x, level.data(), 0, precision);
        std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net, precision)));
        pack_mlp(t.net, packed.data(), precision);
        for (const int count : {1, 2, 4}) {
          set_threads(count);
          for (const Index cut : {1, 2, 3, 5, 7, 16, 31, 33, 64, 100, 150}) {
            std::vector<float> pieces(whole.size(), kNaN<float>);
            for (Index b = 0; b < batch; b += cut) {
              mlp_forward(t.net, packed.data(), std::min(cut, batch - b), x.data() + b * in, in, level.data() + b,
                          pieces.data() + b * outputs, outputs, precision);
            }
            CAPTURE(cut);
            CHECK(same_bits(pieces, whole));
          }
        }
      }
    }
  });
  set_threads(0);
}

TEST_CASE("bf16 and bf16x3: NaN and infinity in one row stay there; out may be x") {
  const TestNet t({2, 40, 40, 2}, 1);
  const Index batch = 37;
  const auto x = uniform<float>(batch * 2, 9);
  on_every_target([&] {
    for (const Precision precision : kReduced) {
      const auto clean = forward(t, batch, x, nullptr, 0, precision);
      auto dirty = x;
      dirty[2 * 3] = __builtin_bit_cast(float, 0x7f800001u);  // a NaN whose upper 16 bits are infinity's
      dirty[2 * 10 + 1] = std::numeric_limits<float>::infinity();
      const auto out = forward(t, batch, dirty, nullptr, 0, precision);
      for (Index i = 0; i < 2 * batch; ++i) {
        const auto e = static_cast<std::size_t>(i);
        if (i / 2 == 3) CHECK(std::isnan(out[e]));
        if (i / 2 == 10) CHECK_FALSE(std::isfinite(out[e]));
        if (i / 2 != 3 && i / 2 != 10) CHECK(out[e] == clean[e]);
      }
      std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net, precision)));
      pack_mlp(t.net, packed.data(), precision);
      auto in_place = x;
      mlp_forward(t.net, packed.data(), batch, in_place.data(), 2, nullptr, in_place.data(), 2, precision);
      CHECK(same_bits(in_place, clean));
    }
  });
}

TEST_CASE("the targets with units for bf16 have avx512's bits in fp32") {
  if (!available(Target::avx512_bf16)) {
    say_not_tried(Target::avx512_bf16);
    return;
  }
  const Target before = target();
  const TestNet t({2, 72, 256, 2}, 4);
  const auto x = uniform<float>(300, 8);
  const auto level = levels_of(150, 4);
  set_target(Target::avx512);
  const auto expected = forward(t, 150, x, level.data());
  for (const Target other : {Target::avx512_bf16, Target::amx}) {
    if (!available(other)) continue;
    set_target(other);
    CHECK(same_bits(forward(t, 150, x, level.data()), expected));
  }
  set_target(before);
}

TEST_CASE("no CPU computes in tf32, and the error says what there is") {
  const TestNet t({2, 8, 2}, 2);
  std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net))), x(8), out(8);
  CHECK_THROWS_WITH_AS(packed_mlp_size(t.net, Precision::tf32),
                       "packed_mlp_size: no CPU computes in tf32; choose fp32, bf16x3 or bf16", UsageError);
  CHECK_THROWS_AS(pack_mlp(t.net, packed.data(), Precision::tf32), UsageError);
  CHECK_THROWS_AS(mlp_forward(t.net, packed.data(), 1, x.data(), 2, nullptr, out.data(), 2, Precision::tf32), UsageError);
}
