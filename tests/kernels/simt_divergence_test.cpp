// simt_divergence_test.cpp - the Jacobian's trace and products in double on the CPU, in three thread orders, against the
// reference in long double. SPDX-License-Identifier: MIT
#include "simt_accept.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

struct Case {
  Index batch;
  std::vector<int> sizes;
  int skew = 0;
};

constexpr auto kFast = [](auto launch, const auto& k) { cuda::mlp_divergence(launch, k); };
constexpr auto kNaive = [](auto launch, const auto& k) { cuda::mlp_divergence_naive(launch, k); };

}  // namespace

TEST_CASE("mma_f64 has the PTX table's layout") {
  // Literal entries of the table for .f64 mma.m8n8k4: a row = lane / 4, column = lane % 4; b row = lane % 4, column = lane / 4;
  // c row = lane / 4, column = 2 (lane % 4) + i.
  double a[8][4], b[4][8], c[8][8] = {};
  for (int i = 0; i < 8; ++i) {
    for (int k = 0; k < 4; ++k) a[i][k] = i * 4 + k - 13, b[k][i] = (k * 8 + i) % 11 - 5;
  }
  simt::launch("one", {1, 32, 0}, Order::shuffled, [&](simt::Thread& ctx) {
    double d[2] = {100, 200};
    ctx.mma_f64(d, a[ctx.lane() / 4][ctx.lane() % 4], b[ctx.lane() % 4][ctx.lane() / 4]);
    c[ctx.lane() / 4][2 * (ctx.lane() % 4)] = d[0], c[ctx.lane() / 4][2 * (ctx.lane() % 4) + 1] = d[1];
  });
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 8; ++j) {
      double sum = j % 2 == 0 ? 100 : 200;
      for (int k = 0; k < 4; ++k) sum += a[i][k] * b[k][j];
      CHECK(c[i][j] == sum);
    }
  }
}

TEST_CASE("simt mlp_divergence matches the reference, whatever the sizes, in every order") {
  const Case cases[] = {{0, {2, 8, 2}},       {1, {1, 1}},           {3, {5, 5}},
                        {5, {1, 8, 1}},       {17, {2, 20, 20, 2}},  {4, {3, 64, 64, 3}, 1},
                        {2, {17, 20, 8, 17}}, {2, {65, 20, 20, 65}}, {3, {2, 100, 71, 2}, 1}};
  for (const Case& c : cases) {
    const TestNetD t(c.sizes, 3, c.skew);
    for (const bool with_probe : {false, true}) {
      CAPTURE(c.batch);
      CAPTURE(c.sizes[0]);
      CAPTURE(with_probe);
      DivergenceRows rows(t, c.batch, with_probe, c.batch % 2 == 1);
      const DivergenceReference reference(rows.input);
      const auto run = [&](auto kernel) {
        std::vector<double> first;
        for (const Order order : simt::kAllOrders) {
          rows.forget();
          kernel(host(order), rows.input);
          if (order != Order::forward) CHECK(same_bits(rows.all(), first));
          first = rows.all();
        }
        CHECK(rows.share(reference) <= 1);
      };
      run(kFast);
      run(kNaive);
      if (c.batch == 0 || c.sizes.size() == 2) continue;
      for (std::size_t i = 0; i < rows.x.size(); ++i)
        rows.x[i] = static_cast<float>(rows.x[i]);  // the bounds tell a number of 24 bits from one of 53
      kFast(host(Order::forward), rows.input);
      CHECK(rows.share(reference) > 1e3);
    }
  }
}

TEST_CASE("simt mlp_divergence at width 256 and beyond: the tiles of wide networks") {
  for (const Case& c : {Case{18, {2, 256, 256, 256, 2}}, Case{2, {2, 272, 130, 2}}, Case{1, {9, 540, 12, 9}}}) {
    CAPTURE(c.sizes[1]);
    const TestNetD t(c.sizes, 1);
    DivergenceRows rows(t, c.batch, false, false);
    kFast(host(c.sizes[1] == 256 ? Order::shuffled : Order::reverse), rows.input);
    CHECK(rows.share(DivergenceReference(rows.input)) <= 1);
  }
}

TEST_CASE("simt mlp_divergence at D = 1024: tangents in groups") {
  const TestNetD t({1024, 12, 9, 1024}, 1);
  DivergenceRows rows(t, 1, false, false);
  kFast(host(Order::shuffled), rows.input);
  CHECK(rows.share(DivergenceReference(rows.input)) <= 1);
}

TEST_CASE("simt mlp_divergence: a row's bits depend neither on the tile nor on the other rows") {
  const TestNetD t({3, 40, 24, 3}, 2);
  DivergenceRows rows(t, 31, false, true);
  const auto run = [&](auto tile, Index first, Index count) {
    cuda::MlpDivergenceInput k = rows.input;
    k.x += 3 * first, k.level += first, k.out += 3 * first, k.divergence += first, k.batch = count;
    cuda::mlp_divergence_tiled<decltype(tile)>(host(Order::shuffled), k);
    std::vector<double> result(k.out, k.out + 3 * count);
    result.insert(result.end(), k.divergence, k.divergence + count);
    return result;
  };
  const auto whole = run(cuda::DivergenceTileSmall{}, 0, 31);
  CHECK(same_bits(run(cuda::DivergenceTile48{}, 0, 31), whole));
  CHECK(same_bits(run(cuda::DivergenceTile24{}, 0, 31), whole));
  CHECK(same_bits(run(cuda::DivergenceTile8{}, 0, 31), whole));
  CHECK(same_bits(run(cuda::DivergenceTileSmall{}, 29, 1), {whole[87], whole[88], whole[89], whole[93 + 29]}));
}

TEST_CASE("simt mlp_divergence: NaN in one row stays there") {
  const TestNetD t({2, 16, 16, 2}, 1);
  DivergenceRows rows(t, 3, false, false);
  kFast(host(Order::forward), rows.input);
  const std::vector<double> clean = rows.out.values(), trace = rows.second.values();
  for (const double bad : {kNaN<double>, HUGE_VAL}) {
    rows.x[2] = bad;
    kFast(host(Order::forward), rows.input);
    CHECK_FALSE(std::isfinite(rows.out[2]));
    for (const std::size_t b : {0, 2}) CHECK((rows.out[2 * b] == clean[2 * b] && rows.second[b] == trace[b]));
  }
}

TEST_CASE("divergence_tangents takes the fewest passes a particle") {
  CHECK(cuda::divergence_tangents(48, 1) == 1);
  CHECK(cuda::divergence_tangents(48, 2) == 2);      // 16 particles in one pass
  CHECK(cuda::divergence_tangents(48, 65) == 23);    // 2 particles in three passes
  CHECK(cuda::divergence_tangents(48, 1024) == 47);  // 1 particle in 22
  CHECK(cuda::divergence_tangents(8, 1024) == 7);
}

TEST_CASE("simt mlp_divergence refuses what it cannot mean") {
  const TestNetD t({2, 8, 2}, 3), wrong({2, 8, 3}, 3), wide({2, 1700, 2}, 1);
  double x[4] = {}, out[4], trace[2];
  const auto attempt = [&](auto change) {
    cuda::MlpDivergenceInput k{t.net, 2, x, nullptr, nullptr, out, nullptr, trace};
    change(k);
    cuda::mlp_divergence(host(Order::forward), k);
  };
  CHECK_NOTHROW(attempt([](auto&) {}));
  CHECK_THROWS_AS(attempt([&](auto& k) { k.net = wrong.net; }), UsageError);
  CHECK_THROWS_AS(attempt([&](auto& k) { k.net = wide.net; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.net.layer[0].weight = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.batch = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.x = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& k) { k.divergence = nullptr; }), UsageError);
  CHECK_THROWS_AS(attempt([&](auto& k) { k.probe = x; }), UsageError);
  cuda::MlpDivergenceInput k{wide.net, 1, x, nullptr, nullptr, out, nullptr, trace};
  CHECK_NOTHROW(cuda::mlp_divergence_naive(host(Order::forward), k));
}
