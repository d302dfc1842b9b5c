// mlp_gradient_test.cpp - the perceptron's loss and gradient on every target: against the reference in double, its bits.
// SPDX-License-Identifier: MIT
#include "mlp_gradient_testing.h"
#include "tweedie/core/check.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

/// losses (B), then every layer's dW and db, one after another; rows of dW with a gap of one number that stays as it was.
std::vector<float> run(const Problem& p, bool own_bias = false) {
  const Mlp& net = p.t.net;
  std::vector<float> losses(static_cast<std::size_t>(p.batch), kNaN<float>), all;
  std::vector<std::vector<float>> dw, db;
  MlpGradient to;
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    dw.emplace_back(static_cast<std::size_t>(layer.out * (layer.in + 1)), 5.f);
    db.emplace_back(static_cast<std::size_t>(layer.out * (i == 0 ? net.levels : 1)), kNaN<float>);
    to.weight[i] = dw.back().data(), to.stride[i] = layer.in + 1, to.bias[i] = db.back().data();
  }
  std::vector<float> workspace(static_cast<std::size_t>(mlp_gradient_workspace(net, p.rows(own_bias))), kNaN<float>);
  mlp_gradient(net, p.rows(own_bias), workspace.data(), losses.data(), to);
  all = losses;
  for (std::size_t i = 0; i < dw.size(); ++i) {
    const auto in = static_cast<std::size_t>(net.layer[i].in);
    for (std::size_t n = 0; n < dw[i].size(); n += in + 1) {
      all.insert(all.end(), dw[i].begin() + static_cast<Index>(n), dw[i].begin() + static_cast<Index>(n + in));
      CHECK(dw[i][n + in] == 5.f);
    }
    all.insert(all.end(), db[i].begin(), db[i].end());
  }
  return all;
}

}  // namespace

TEST_CASE("mlp_gradient matches the reference: sizes about the tiles, leaves and groups") {
  struct Case {
    Index batch;
    std::vector<int> sizes;
    int levels;
  };
  const Case cases[] = {{1, {2, 16, 2}, 3},       {3, {1, 3, 1}, 2},          {64, {2, 33, 17, 2}, 10}, {65, {2, 40, 40, 2}, 4},
                        {129, {3, 24, 64, 9}, 5}, {300, {2, 17, 17, 2}, 10},  {7, {70, 20, 70}, 2},     {66, {34, 65, 31, 34}, 3},
                        {1100, {2, 8, 2}, 10},    {20, {2, 128, 128, 2}, 10}, {5, {4, 3}, 2},           {70, {1, 1}, 1},
                        {9, {2, 264, 2}, 3}};
  for (const Case& c : cases) {
    for (const bool extras : {false, true}) {
      const Problem p(c.batch, c.sizes, c.levels, extras);
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      CAPTURE(extras);
      const Expected e = expected(p);
      on_every_target([&] { CHECK(worst(run(p), e) <= 1); });
    }
  }
}

TEST_CASE("mlp_gradient where each row has its own first bias") {
  for (const Index batch : {1, 67, 300}) {
    const Problem p(batch, {2, 40, 24, 2}, static_cast<int>(batch), true);
    const Expected e = expected(p);
    on_every_target([&] {
      const auto own = run(p, true);
      CHECK(worst(own, e) <= 1);
      CHECK(worst(run(p), e) <= 1);
    });
  }
}

TEST_CASE("a code: the network's part has the bits that its own first biases give, the code's is the chain rule on them") {
  struct Case {
    Index batch;
    int levels;  // of the code
    std::vector<int> code, body;
  };
  for (const Case& c : {Case{1, 1, {3, 5, 16}, {2, 16, 2}}, Case{70, 1, {32, 20, 40}, {2, 40, 24, 2}},
                        Case{130, 130, {6, 33, 7}, {3, 7, 9}}, Case{300, 1, {4, 24}, {1, 24, 24, 24, 1}}}) {
    CAPTURE(c.batch);
    const Problem p(c.batch, c.body, static_cast<int>(c.batch), true);
    TestNet code(c.code, c.levels, 1);
    code.net.scale = nullptr;
    const auto rows = static_cast<std::size_t>(c.batch), hidden = static_cast<std::size_t>(c.body[1]);
    const std::vector<float> features = uniform<float>(c.batch * c.code.front(), 11);
    std::vector<int> own(rows);
    for (std::size_t b = 0; b < rows; ++b) own[b] = c.levels == 1 ? 0 : static_cast<int>(b);
    on_every_target([&] {
      // The network on its own, at the first biases that the code's forward pass gives.
      std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(code.net))), bias(rows * hidden);
      pack_mlp(code.net, packed.data());
      mlp_forward(code.net, packed.data(), c.batch, features.data(), c.code.front(), own.data(), bias.data(), c.body[1]);
      Problem alone = p;
      alone.t = TestNet(c.body, static_cast<int>(c.batch));
      alone.t.net.scale = nullptr;
      alone.t.net.layer[0].bias = bias.data();
      std::vector<float> wanted = run(alone, true);

      Mlp net = alone.t.net;
      net.layer[0].bias = nullptr;
      MlpBatch batch = p.rows(true);
      batch.code = &code.net, batch.features = features.data();
      std::vector<std::vector<float>> dw, db, code_dw, code_db;
      const auto room = [](const Mlp& m, auto& weights, auto& biases) {
        MlpGradient to;
        for (int i = 0; i < m.layers; ++i) {
          weights.emplace_back(static_cast<std::size_t>(m.layer[i].in * m.layer[i].out), kNaN<float>);
          biases.emplace_back(static_cast<std::size_t>(m.layer[i].out * (i == 0 ? m.levels : 1)), kNaN<float>);
          to.weight[i] = weights.back().data(), to.stride[i] = m.layer[i].in, to.bias[i] = biases.back().data();
        }
        return to;
      };
      const MlpGradient to = room(net, dw, db), code_to = room(code.net, code_dw, code_db);
      std::vector<float> workspace(static_cast<std::size_t>(mlp_gradient_workspace(net, batch)), kNaN<float>), found(rows);
      mlp_gradient(net, batch, workspace.data(), found.data(), to, &code_to);
      std::vector<double> top;  // the gradient of the first biases, (B, H)
      for (std::size_t i = 0, at = rows; i < dw.size(); ++i) {
        found.insert(found.end(), dw[i].begin(), dw[i].end());
        at += dw[i].size();
        if (i == 0) {
          top.assign(wanted.begin() + static_cast<Index>(at), wanted.begin() + static_cast<Index>(at + rows * hidden));
          wanted.erase(wanted.begin() + static_cast<Index>(at), wanted.begin() + static_cast<Index>(at + rows * hidden));
          continue;
        }
        found.insert(found.end(), db[i].begin(), db[i].end());
        at += db[i].size();
      }
      CHECK(same_bits(found, wanted));

      // dW and db of the code in double, and the sums of their terms' magnitudes.
      std::vector<std::vector<double>> w(code_dw.size()), w_size, bias_sum(code_dw.size()), bias_size;
      for (std::size_t i = 0; i < w.size(); ++i) w[i].resize(code_dw[i].size()), bias_sum[i].resize(code_db[i].size());
      w_size = w, bias_size = bias_sum;
      double widths = 0;
      for (const int size : c.code) widths += size;
      for (std::size_t b = 0; b < rows; ++b) {
        std::vector<std::vector<double>> h(1), slope;
        const auto first = features.begin() + static_cast<Index>(b) * c.code.front();
        h[0].assign(first, first + c.code.front());
        for (int i = 0; i < code.net.layers; ++i) {
          const MlpLayer& layer = code.net.layer[i];
          h.emplace_back(), slope.emplace_back();
          for (int n = 0; n < layer.out; ++n) {
            double z = layer.bias[(i == 0 ? own[b] * layer.out : 0) + n];
            for (int k = 0; k < layer.in; ++k)
              z += layer.weight[n * layer.in + k] * h[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)];
            const double s = 1 / (1 + std::exp(-z));
            h.back().push_back(z * s), slope.back().push_back(s + z * s * (1 - s));
          }
        }
        std::vector<double> dz(top.begin() + static_cast<Index>(b * hidden), top.begin() + static_cast<Index>((b + 1) * hidden)),
            size = dz;
        for (double& v : size) v = std::fabs(v);
        for (int i = code.net.layers - 1; i >= 0; --i) {
          const MlpLayer& layer = code.net.layer[i];
          const auto l = static_cast<std::size_t>(i);
          std::vector<double> next(static_cast<std::size_t>(layer.in)), next_size(next.size());
          for (int n = 0; n < layer.out; ++n) {
            const auto at = static_cast<std::size_t>(n);
            const auto bias_at = static_cast<std::size_t>(i == 0 ? own[b] * layer.out : 0) + at;
            bias_sum[l][bias_at] += dz[at], bias_size[l][bias_at] += size[at];
            for (int k = 0; k < layer.in; ++k) {
              const auto kk = static_cast<std::size_t>(k), e = at * next.size() + kk;
              w[l][e] += dz[at] * h[l][kk], w_size[l][e] += size[at] * (std::fabs(h[l][kk]) + 1);
              next[kk] += dz[at] * layer.weight[e], next_size[kk] += size[at] * std::fabs(static_cast<double>(layer.weight[e]));
            }
          }
          for (std::size_t k = 0; i > 0 && k < next.size(); ++k) {
            next[k] *= slope[l - 1][k], next_size[k] *= std::fabs(slope[l - 1][k]) + 1;
          }
          dz = next, size = next_size;
        }
      }
      // Every path has at most `widths` products and silus on it and B sums, each rounded once.
      const double bound = (2 * widths + static_cast<double>(c.batch) + 40) * kU;
      double worst_part = 0;
      const auto compare = [&](const std::vector<float>& a, const std::vector<double>& e, const std::vector<double>& sizes) {
        for (std::size_t i = 0; i < a.size(); ++i) {
          const double miss = std::fabs(a[i] - e[i]) / (bound * sizes[i] + 0x1p-140);
          worst_part = std::max(worst_part, std::isnan(miss) ? HUGE_VAL : miss);
        }
      };
      for (std::size_t i = 0; i < w.size(); ++i)
        compare(code_dw[i], w[i], w_size[i]), compare(code_db[i], bias_sum[i], bias_size[i]);
      CHECK(worst_part <= 1);
    });
  }
}

TEST_CASE("the bound would find a forgotten row, a wrong weight of one row, a wrong level of one row") {
  const Problem p(100, {2, 64, 64, 2}, 4, true);
  const Expected e = expected(p);
  CHECK(worst(run(p), e) <= 1);
  for (int fault = 0; fault < 3; ++fault) {
    Problem wrong = p;
    Index i = 0;
    if (fault == 0) wrong.weight[99] = 0;
    if (fault == 1) wrong.weight[50] *= 1.01f;
    if (fault == 2) wrong.level[3] = 1 - wrong.level[3] % 2, i = 1;
    CAPTURE(fault);
    wrong.t = TestNet({2, 64, 64, 2}, 4);
    wrong.t.net.scale = nullptr;
    CHECK(worst(run(wrong), e) > 2 + static_cast<double>(i));
  }
}

TEST_CASE("mlp_gradient has the same bits on any number of threads") {
  for (const Index batch : {64, 130, 700}) {
    const Problem p(batch, {2, 72, 72, 2}, 10, false);
    on_every_target([&] {
      set_threads(1);
      const auto alone = run(p);
      for (const int count : {2, 3, 5}) {
        set_threads(count);
        CHECK(same_bits(run(p), alone));
      }
    });
  }
  set_threads(0);
}

TEST_CASE("mlp_gradient refuses what it cannot mean") {
  const Problem p(4, {2, 8, 2}, 2, false);
  MlpBatch rows = p.rows(false);
  const int bad[] = {0, 1, 2, 0};
  CHECK_NOTHROW(mlp_gradient_workspace(p.t.net, rows));
  rows.level = bad;
  std::vector<float> room(static_cast<std::size_t>(mlp_gradient_workspace(p.t.net, rows))), none(4);
  CHECK_THROWS_WITH_AS(mlp_gradient(p.t.net, rows, room.data(), none.data(), MlpGradient{}),
                       "mlp_gradient: level[2] = 2, the network has 2", UsageError);
  CHECK_THROWS_AS(mlp_gradient_workspace(p.t.net, p.rows(true)), UsageError);
  rows.rows = 0;
  CHECK_THROWS_AS(mlp_gradient_workspace(p.t.net, rows), UsageError);
  TestNet code({3, 8}, 1);
  code.net.scale = nullptr;
  MlpBatch coded = p.rows(true);
  coded.code = &code.net;
  CHECK_THROWS_AS(mlp_gradient_workspace(p.t.net, coded), UsageError);  // no features
  coded.features = p.x.data();
  CHECK_NOTHROW(mlp_gradient_workspace(p.t.net, coded));
  code.net.layer[0].out = 7;
  CHECK_THROWS_WITH_AS(mlp_gradient_workspace(p.t.net, coded),
                       "mlp_gradient_workspace: the code has 7 outputs, the network's first layer 8", UsageError);
  code.net.layer[0].out = 8, code.net.levels = 3;
  CHECK_THROWS_AS(mlp_gradient_workspace(p.t.net, coded), UsageError);
  code.net.levels = 1;
  std::vector<float> workspace(static_cast<std::size_t>(mlp_gradient_workspace(p.t.net, coded))), losses(4);
  CHECK_THROWS_AS(mlp_gradient(p.t.net, coded, workspace.data(), losses.data(), MlpGradient{}), UsageError);
  Mlp scaled = p.t.net;
  scaled.scale = p.x.data();
  CHECK_THROWS_AS(mlp_gradient_workspace(scaled, p.rows(false)), UsageError);
}
