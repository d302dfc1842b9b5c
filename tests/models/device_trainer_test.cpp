// device_trainer_test.cpp - the trainer on a device that is the host executor: the CPU's run within rounding, checkpoints that
// move between devices, reports, divergence, what it refuses. SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/simt/runtime.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;
namespace cuda = tweedie::kernels::cuda;

namespace {

constexpr double kU = 0x1p-24;

using Executor = cuda::Backend<kernels::simt::SimtRuntime>;

ScoreNetwork network() { return ScoreNetwork({.data_dim = 2, .hidden_dim = 16, .num_layers = 3, .num_noise_levels = 4}, Rng{1}); }
Matrix table() { return datasets::three_gaussians(70, Rng{42}); }

// Adam's epsilon stands above most gradients: a rounding of a gradient then moves a weight by no more than its share.
TrainOptions options(bool on_device) {
  TrainOptions o{.steps = 20, .batch = 24, .learning_rate = 1e-3};
  o.schedule = {.kind = LearningRate::cosine, .warmup_steps = 3, .final_fraction = .1};
  o.adam = {.epsilon = .1, .weight_decay = .01};
  o.clip_norm = 2, o.ema = .9, o.valid_fraction = .1, o.log_every = 6;
  if (on_device) o.on_device = std::make_shared<Executor>();
  return o;
}

/// As far as the weights of two runs may be apart: a step moves a weight by lr m / (sqrt(v) + epsilon), whose derivative in the
/// gradient is at most 2 lr / epsilon; gradients differ by the roundings of their sums, (2 layers (width + dim) + rows) u of the
/// largest (fused_engine_test.cpp), and by what the weights differ already, which doubles it at most over 20 small steps.
double allowed(double largest_gradient) { return 2 * 20 * 1e-3 * 2 / .1 * (2 * 3 * (16 + 2) + 24) * kU * largest_gradient; }
double largest_gradient() {
  const ScoreNetwork net = network();
  const Batch batch = perturb(table(), *net.levels(), Rng{3});
  std::vector<float> gradient(net.parameters().size()), rows(70);
  make_training_step(net, Denoising{}, "cpu")->loss_and_gradient(net.parameters(), batch, gradient, rows);
  double most = 0;
  for (const float g : gradient) most = std::max(most, static_cast<double>(std::fabs(g)));
  return most;
}
double apart(std::span<const float> a, std::span<const float> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double miss = std::fabs(a[i] - b[i]);
    most = std::isnan(miss) ? HUGE_VAL : std::max(most, miss);
  }
  return most;
}
std::vector<float> copy(std::span<const float> a) { return {a.begin(), a.end()}; }
std::string file(const char* name) { return (std::filesystem::temp_directory_path() / name).string(); }

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a run on a device is the CPU's within rounding: weights, averages, reports") {
  const Matrix data = table();
  for (const Objective& objective : {Objective(Denoising{}), Objective(FlowMatching{})}) {
    ScoreNetwork host = network(), device = network(), other = network();
    const auto run = [&](ScoreNetwork& net, bool on_device, std::uint64_t seed) {
      TrainOptions o = options(on_device);
      o.objective = objective;
      Trainer trainer(net, data, o, Rng{seed});
      CHECK(contains(std::string(trainer.engine()), on_device ? "fused, host executor, fp32" : "fused, cpu"));
      std::vector<TrainingStep> reports;
      CHECK(trainer.run([&](const TrainingStep& s) { reports.push_back(s); }));
      return std::pair(reports, copy(trainer.ema_parameters()));
    };
    const auto [wanted, wanted_ema] = run(host, false, 5);
    const auto [found, found_ema] = run(device, true, 5);
    const auto [apart_reports, apart_ema] = run(other, false, 6);
    const double most = allowed(largest_gradient() * (std::holds_alternative<FlowMatching>(objective) ? 121 : 1));
    CHECK(apart(device.parameters(), host.parameters()) <= most);
    CHECK(apart(found_ema, wanted_ema) <= most);
    if (std::holds_alternative<Denoising>(objective)) CHECK(apart(other.parameters(), host.parameters()) > 100 * most);
    REQUIRE(found.size() == wanted.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].step == wanted[i].step);
      CHECK(found[i].learning_rate == wanted[i].learning_rate);
      for (const auto& [a, b] : {std::pair(found[i].loss, wanted[i].loss), std::pair(found[i].valid_loss, wanted[i].valid_loss),
                                 std::pair(found[i].smoothed_loss, wanted[i].smoothed_loss),
                                 std::pair(found[i].gradient_norm, wanted[i].gradient_norm),
                                 std::pair(found[i].level_losses[0], wanted[i].level_losses[0]),
                                 std::pair(found[i].level_losses[3], wanted[i].level_losses[3])}) {
        CHECK(std::fabs(a - b) <= 1e-4 * std::fabs(b));
      }
    }
  }
}

TEST_CASE("checkpoints move between devices; on one device a resumed run has the uncut run's bits") {
  const Matrix data = table();
  const double most = allowed(largest_gradient());
  const std::string path = file("tweedie_device_trainer.safetensors");
  std::vector<float> uncut[2];
  for (const bool on_device : {false, true}) {
    ScoreNetwork net = network();
    Trainer trainer(net, data, options(on_device), Rng{5});
    trainer.run();
    uncut[on_device ? 1 : 0] = copy(net.parameters());
  }
  for (const bool first : {false, true}) {
    for (const bool second : {false, true}) {
      ScoreNetwork net = network();
      Trainer begun(net, data, options(first), Rng{5});
      while (begun.steps_done() < 9) begun.step();
      begun.save(path);
      ScoreNetwork again = network();
      again.initialise(Rng{77});
      Trainer resumed(again, data, options(second), Rng{99});
      resumed.step();  // forgotten by resume()
      resumed.resume(path);
      CHECK(resumed.steps_done() == 9);
      resumed.run();
      CHECK(apart(again.parameters(), uncut[second ? 1 : 0]) <= (first == second ? 0 : most));
      resumed.use_ema();
      CHECK(apart(again.parameters(), resumed.ema_parameters()) == 0);
    }
  }
  std::filesystem::remove(path);
}

TEST_CASE("a device's run stops where it is asked to, writes its checkpoints and says where it diverged") {
  const Matrix data = table();
  const std::string path = file("tweedie_device_trainer_stop.safetensors");
  std::atomic<bool> cancel = false;
  TrainOptions o = options(true);
  o.checkpoint_path = path, o.checkpoint_every = 4, o.log_every = 7, o.cancel = &cancel;
  ScoreNetwork net = network();
  Trainer trainer(net, data, o, Rng{5});
  std::vector<std::int64_t> seen;
  CHECK(!trainer.run([&](const TrainingStep& s) {
    seen.push_back(s.step);
    cancel = s.step == 14;
  }));
  CHECK(seen == std::vector<std::int64_t>{7, 14});
  CHECK(read_checkpoint(path).step == 12);
  CHECK(contains(read_checkpoint(path).metadata.at("engine"), "host executor"));
  std::filesystem::remove(path);

  std::string messages[2];
  for (const bool on_device : {false, true}) {
    TrainOptions wild = options(on_device);
    wild.schedule = {}, wild.clip_norm = 0, wild.learning_rate = 3, wild.adam.epsilon = 1e-8, wild.max_loss_growth = 3;
    ScoreNetwork bad = network();
    Trainer run(bad, data, wild, Rng{5});
    messages[on_device ? 1 : 0] = message_of([&] { run.run(); });
    CHECK(contains(messages[on_device ? 1 : 0], "train: diverged at step "));
    CHECK(contains(messages[on_device ? 1 : 0], "max_loss_growth"));
    for (const float p : std::as_const(bad).parameters()) CHECK(std::isfinite(p));
  }
  CHECK(messages[0].substr(0, messages[0].find(", loss")) == messages[1].substr(0, messages[1].find(", loss")));
}

TEST_CASE("a device trains without an average and in one call") {
  TrainOptions o = options(true);
  o.ema = 0, o.valid_fraction = 0, o.precision = "tf32", o.steps = 4;
  ScoreNetwork net = network();
  const std::vector<float> start = copy(std::as_const(net).parameters());
  const TrainingStep last = train(net, table(), o, Rng{5});
  CHECK(last.step == 4);
  CHECK(!last.has_valid_loss);
  CHECK(last.engine == "fused, host executor, tf32");
  CHECK(apart(std::as_const(net).parameters(), start) > 0);
}

TEST_CASE("what a device does not train is refused with the reason and the remedy") {
  const Matrix data = table();
  const auto why = [&](auto change) {
    TrainOptions o = options(true);
    change(o);
    ScoreNetwork net = network();
    const std::string message = message_of([&] { Trainer(net, data, o, Rng{5}); });
    return message;
  };
  CHECK(why([](auto&) {}).empty());
  CHECK(why([](auto& o) { o.precision = "tf32"; }).empty());
  CHECK(why([](auto& o) { o.precision = "bf16"; }).empty());
  CHECK(contains(why([](auto& o) { o.objective = Sliced{}; }), "the objective sliced"));
  CHECK(contains(why([](auto& o) { o.ema_snapshots = 3; }), "give device cpu"));
  CHECK(contains(why([](auto& o) { o.sigma_sampling = SigmaSampling::continuous; }), "on the network's levels"));
  CHECK(contains(why([](auto& o) { o.engine = "tape"; }), "engine tape"));
  CHECK(contains(why([](auto& o) { o.precision = "bf16x3"; }), "precision is bf16x3"));
  CHECK(contains(why([](auto& o) { o.precision = "fp8"; }), "fp8"));
  CHECK(contains(why([](auto& o) { o.on_device = nullptr, o.device = "cuda:x"; }), "cuda:N"));
  ScoreNetwork net = network();
  CHECK(contains(message_of([&] {
                   Trainer(
                       net, [](std::uint64_t, Rows<float>) {}, {.steps = 3, .on_device = std::make_shared<Executor>()}, Rng{1});
                 }),
                 "fresh draws"));
  ContinuousScoreNetwork continuous({.data_dim = 2, .hidden_dim = 8}, Rng{1});
  CHECK(contains(message_of([&] { Trainer(continuous, data, options(true), Rng{5}); }), "trains on the CPU"));
}
