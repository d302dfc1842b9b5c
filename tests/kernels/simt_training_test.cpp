// simt_training_test.cpp - the training step's kernels on the CPU, in three thread orders: the host's draws bit for bit, the
// gradient of the embedding, what counts as a divergence; and a run of steps that goes on from its own state.
// SPDX-License-Identifier: MIT
#include <numeric>

#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/device_training.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;
using simt::SimtRuntime;

namespace {

constexpr std::uint64_t kOrder = 11, kSplit = 22, kNoise = 33;

/// A small network's flat layout and its data.
struct Small {
  cuda::TrainingSetup s;
  std::vector<float> table, sigma, loss_weight, p, m, v, ema;

  Small(int dim, int hidden, int layers, int levels, Index rows, Index held_out, Index batch)
      : table(uniform<float>(rows * dim, 1)), sigma(static_cast<std::size_t>(levels)), loss_weight(sigma.size(), 1.f) {
    s.layers = layers, s.dim = dim, s.hidden = hidden, s.levels = levels, s.batch = batch;
    s.table_rows = rows, s.held_out = held_out;
    s.order_key = kOrder, s.split_key = kSplit, s.noise_key = kNoise;
    for (std::size_t l = 0; l < sigma.size(); ++l) sigma[l] = 3 / (1 + 2 * static_cast<float>(l));
    Index at = 0;
    const auto tensor = [&](Index size) { return std::exchange(at, at + size); };
    s.embedding = tensor(Index{levels} * hidden);
    for (int i = 0; i < layers; ++i) {
      const Index out = i + 1 == layers ? dim : hidden;
      s.weight[i] = tensor(out * (i == 0 ? dim + hidden : hidden));
      s.bias[i] = tensor(out);
    }
    s.parameters = at;
    s.table = table.data(), s.sigma = sigma.data(), s.loss_weight = loss_weight.data();
    p = uniform<float>(at, 2), m.assign(p.size(), 0), v = m, ema = p;
    for (float& value : p) value *= .5f;
  }
  cuda::TrainingState state() { return {p.data(), m.data(), v.data(), ema.data()}; }
};

std::vector<cuda::TrainingRate> rates(Index steps, double rate = 1e-2) {
  return std::vector<cuda::TrainingRate>(static_cast<std::size_t>(steps), {rate, .9});
}

}  // namespace

TEST_CASE("simt training_begin draws the host's rows, levels and noise bit for bit, and folds the embedding") {
  for (const int dim : {1, 2, 5}) {
    for (const Index held_out : {0, 7}) {
      Small net(dim, 12, 3, 4, 30, held_out, 19);
      for (const std::int64_t step : {0, 1, 5}) {
        const Permutation split(Rng(kSplit), 0, 30);
        std::vector<float> clean;
        std::vector<int> level;
        for (std::uint64_t b = 0; b < 19; ++b) {
          const std::uint64_t place = static_cast<std::uint64_t>(step) * 19 + b, n = static_cast<std::uint64_t>(30 - held_out);
          std::uint64_t row = Permutation(Rng(kOrder), static_cast<std::uint32_t>(place / n), n)(place % n);
          if (held_out > 0) row = split(row + static_cast<std::uint64_t>(held_out));
          for (int d = 0; d < dim; ++d)
            clean.push_back(net.table[row * static_cast<std::size_t>(dim) + static_cast<std::size_t>(d)]);
          level.push_back(static_cast<int>(Rng(kNoise).integer(Purpose::level, static_cast<std::uint32_t>(step), b, 4)));
        }
        Matrix noise(19, dim);
        Rng(kNoise).normals<float>(Purpose::perturb, static_cast<std::uint32_t>(step), 0, noise);
        for (const Order order : simt::kAllOrders) {
          const std::size_t size = static_cast<std::size_t>(19 * dim);
          std::vector<float> x(size, kNaN<float>), eps = x, weight(19), from_x(static_cast<std::size_t>(12 * dim)), bias(48);
          std::vector<int> levels(19, -1);
          std::vector<float> level_weight = {1, 2, 3, 4};
          cuda::StepState state{};
          state.progress.steps = step;
          cuda::StepMemory at{};
          at.p = net.p.data(), at.table = net.table.data(), at.sigma = net.sigma.data(), at.loss_weight = level_weight.data();
          at.x = x.data(), at.eps = eps.data(), at.weight = weight.data(), at.level = levels.data(), at.state = &state;
          at.from_x = from_x.data(), at.level_bias = bias.data();
          host(order)("begin", 2, cuda::kThreads, 0,
                      cuda::TrainingBegin{at, dim, 12, 4, net.s.embedding, net.s.weight[0], net.s.bias[0], 19, 30 - held_out,
                                          held_out, kOrder, kNoise, tweedie::detail::Feistel::of(kSplit, 0, 30)});
          CHECK(levels == level);
          CHECK(same_bits(eps, std::vector<float>(noise.data(), noise.data() + noise.size())));
          bool right = true;
          for (std::size_t i = 0; i < size; ++i) {
            const std::size_t b = i / static_cast<std::size_t>(dim);
            const double sigma = net.sigma[static_cast<std::size_t>(level[b])], exact = clean[i] + sigma * eps[i];
            right = right && std::fabs(x[i] - exact) <= 2 * kU * (std::fabs(clean[i]) + std::fabs(sigma * eps[i]));
            right = right && weight[b] == static_cast<float>(level[b] + 1);
          }
          for (int l = 0; l < 4; ++l) {
            for (int n = 0; n < 12; ++n) {
              const float *e = &net.p[static_cast<std::size_t>(net.s.embedding + l * 12)],
                          *w = &net.p[static_cast<std::size_t>(net.s.weight[0] + n * (dim + 12))];
              double sum = net.p[static_cast<std::size_t>(net.s.bias[0] + n)], magnitude = std::fabs(sum);
              for (int k = 0; k < 12; ++k) {
                sum += static_cast<double>(e[k]) * w[dim + k], magnitude += std::fabs(e[k] * w[dim + k]);
              }
              right = right && std::fabs(bias[static_cast<std::size_t>(l * 12 + n)] - sum) <= 14 * kU * magnitude;
              for (int d = 0; d < dim; ++d) right = right && from_x[static_cast<std::size_t>(n * dim + d)] == w[d];
            }
          }
          CHECK(right);
        }
      }
    }
  }
}

TEST_CASE("simt training_norm: the embedding's gradient and the norm of all") {
  Small net(3, 10, 3, 4, 5, 0, 5);
  const auto size = static_cast<std::size_t>(net.s.parameters);
  const auto d = uniform<float>(40, 5), left = uniform<float>(net.s.parameters, 6);
  for (const Order order : simt::kAllOrders) {
    std::vector<float> gradient = left, bias_gradient = d;
    std::vector<double> squares((size + 255) / 256, kNaN<double>);
    cuda::StepMemory at{};
    at.p = net.p.data(), at.gradient = gradient.data(), at.level_bias_gradient = bias_gradient.data(),
    at.squares = squares.data();
    host(order)("norm", static_cast<int>(squares.size()), cuda::kThreads, 0,
                cuda::TrainingNorm{at, 3, 10, 4, net.s.embedding, net.s.weight[0], net.s.bias[0], net.s.parameters});
    std::vector<double> exact(left.begin(), left.end()), magnitude(size);
    const auto at_of = [](Index i) { return static_cast<std::size_t>(i); };
    for (Index n = 0; n < 10; ++n) {
      exact[at_of(net.s.bias[0] + n)] = 0;
      for (Index l = 0; l < 4; ++l) {
        exact[at_of(net.s.bias[0] + n)] += d[at_of(l * 10 + n)],
            magnitude[at_of(net.s.bias[0] + n)] += std::fabs(d[at_of(l * 10 + n)]);
      }
      for (Index k = 0; k < 10; ++k) {
        const std::size_t w = at_of(net.s.weight[0] + n * 13 + 3 + k);
        exact[w] = 0;
        for (Index l = 0; l < 4; ++l) {
          const double term = static_cast<double>(d[at_of(l * 10 + n)]) * net.p[at_of(net.s.embedding + l * 10 + k)];
          exact[w] += term, magnitude[w] += std::fabs(term);
        }
      }
      for (Index l = 0; l < 4; ++l) {
        const std::size_t e = at_of(net.s.embedding + l * 10 + n);
        exact[e] = 0;
        for (Index k = 0; k < 10; ++k) {
          const double term = static_cast<double>(d[at_of(l * 10 + k)]) * net.p[at_of(net.s.weight[0] + k * 13 + 3 + n)];
          exact[e] += term, magnitude[e] += std::fabs(term);
        }
      }
    }
    double worst = 0, norm = 0;
    for (std::size_t i = 0; i < size; ++i) {
      worst = std::max(worst, std::fabs(gradient[i] - exact[i]) / (20 * kU * magnitude[i] + 0x1p-100));
      norm += static_cast<double>(gradient[i]) * gradient[i];
    }
    CHECK(worst <= 1);
    CHECK(std::fabs(std::accumulate(squares.begin(), squares.end(), 0.0) - norm) <= 1e-12 * norm);
  }
}

TEST_CASE("a device run cut anywhere and put back goes on bit for bit, whatever the order; the loss falls") {
  std::vector<float> uncut;
  double first_loss = 0, last_loss = 0;
  for (const Order order : simt::kAllOrders) {
    Small net(2, 16, 3, 3, 40, 5, 24), half = net;
    net.s.ema = half.s.ema = true;
    net.s.clip_norm = half.s.clip_norm = .5;
    SimtRuntime runtime(order);
    {
      cuda::DeviceTraining<SimtRuntime> run(runtime, net.s, kernels::Precision::fp32);
      run.upload(net.state(), {});
      run.run(rates(1).data(), 1);
      first_loss = run.progress().loss;
      run.run(rates(11).data(), 11);
      run.download(net.state());
      CHECK(run.progress().steps == 12);
      last_loss = run.progress().loss;
      std::vector<double> by_level(6);
      std::vector<float> losses(24);
      run.level_losses(by_level.data());
      CHECK(by_level[1] + by_level[3] + by_level[5] == 12 * 24);
      run.row_losses(losses.data());
      CHECK(std::fabs(std::accumulate(losses.begin(), losses.end(), 0.0) / 24 - last_loss) <= 1e-6 * last_loss);
      run.level_losses(by_level.data());
      CHECK(by_level == std::vector<double>(6, 0.0));

      cuda::DeviceTraining<SimtRuntime> before(runtime, half.s, kernels::Precision::fp32);
      before.upload(half.state(), {});
      before.run(rates(5).data(), 5);
      before.download(half.state());
      cuda::DeviceTraining<SimtRuntime> after(runtime, half.s, kernels::Precision::fp32);
      after.upload(half.state(), before.progress());
      after.run(rates(7).data(), 7);
      after.download(half.state());
      CHECK(after.progress().loss_average == run.progress().loss_average);
    }
    CHECK(runtime.live() == 0);
    CHECK((same_bits(net.p, half.p) && same_bits(net.m, half.m) && same_bits(net.v, half.v) && same_bits(net.ema, half.ema)));
    if (order == Order::forward) uncut = net.p;
    CHECK(same_bits(net.p, uncut));
  }
  CHECK(last_loss < first_loss);
}

TEST_CASE("a step that diverges touches no weight, is not counted and is the same again") {
  Small net(2, 8, 2, 2, 20, 0, 8);
  net.p[static_cast<std::size_t>(net.s.bias[1])] = HUGE_VALF;
  SimtRuntime runtime;
  cuda::DeviceTraining<SimtRuntime> run(runtime, net.s, kernels::Precision::fp32);
  const std::vector<float> start = net.p;
  run.upload(net.state(), {});
  for (int again = 0; again < 2; ++again) {
    run.run(rates(3).data(), 3);
    CHECK(run.progress().diverged == cuda::Divergence::loss);
    CHECK(run.progress().steps == 0);
  }
  run.download(net.state());
  CHECK(same_bits(net.p, start));

  Small grows(2, 8, 2, 2, 20, 0, 8);
  grows.s.max_loss_growth = 1.5, grows.s.zero_loss = 0;
  cuda::DeviceTraining<SimtRuntime> other(runtime, grows.s, kernels::Precision::fp32);
  other.upload(grows.state(), {});
  other.run(rates(40, 3.).data(), 40);
  const cuda::TrainingProgress end = other.progress();
  CHECK(end.diverged == cuda::Divergence::growth);
  CHECK((end.steps >= 1 && end.steps < 40));
  CHECK(end.loss_limit > 0);
}

TEST_CASE("a device run refuses what it cannot mean") {
  SimtRuntime runtime;
  const auto attempt = [&](auto change, kernels::Precision precision = kernels::Precision::fp32) {
    Small net(2, 8, 2, 2, 20, 0, 8);
    change(net.s);
    cuda::DeviceTraining<SimtRuntime> run(runtime, net.s, precision);
  };
  CHECK_NOTHROW(attempt([](auto&) {}, kernels::Precision::tf32));
  CHECK_NOTHROW(attempt([](auto&) {}, kernels::Precision::bf16));
  CHECK_THROWS_AS(attempt([](auto&) {}, kernels::Precision::bf16x3), UsageError);
  CHECK_THROWS_AS(attempt([](auto& s) { s.layers = 17; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& s) { s.batch = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& s) { s.held_out = 20; }), UsageError);
  CHECK_THROWS_AS(attempt([](auto& s) { s.hidden = 2000; }), UsageError);
  for (runtime.allocations_left = 0; runtime.allocations_left < 19; ++runtime.allocations_left) {  // 19 are made
    const int left = runtime.allocations_left;
    CHECK_THROWS_AS(attempt([](auto&) {}), ResourceError);
    CHECK(runtime.live() == 0);
    runtime.allocations_left = left;
  }
  runtime.allocations_left = -1;
  Small net(2, 8, 2, 2, 20, 0, 8);
  cuda::DeviceTraining<SimtRuntime> run(runtime, net.s, kernels::Precision::fp32);
  CHECK_THROWS_AS(run.run(rates(1).data(), 1), UsageError);
}
