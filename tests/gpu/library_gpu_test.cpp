// library_gpu_test.cpp - what a user calls, on a CUDA device and on the CPU: scores, chains, densities, training, checkpoints.
// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstdio>
#include <vector>

#include "gpu_testing.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/device_score.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/likelihood.h"

using namespace tweedie;
using kernels::Precision;
using kernels::testing::have_gpu;

namespace {

const NoiseLevels kLevels = NoiseLevels::geometric(5, .1, 4);

ScoreNetwork network() { return ScoreNetwork({.data_dim = 2, .hidden_dim = 72}, kLevels, Rng{1}); }

template <class A, class B>
double relative(const A& a, const B& b) {
  double difference = 0, norm = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    difference += (x - y) * (x - y), norm += y * y;
  }
  return std::sqrt(difference / norm);
}

TrainOptions training(const char* device) {
  TrainOptions o;
  o.steps = 12, o.batch = 64, o.log_every = 4, o.valid_fraction = 0, o.device = device;
  return o;
}

}  // namespace

// A layer of width 72 errs by 6.75 x 72 u of its magnitudes in fp32's class, 2^-10 in tf32, 3 x 2^-16 in bf16x3, 2^-7 in bf16
// (cuda/mlp_forward.h); four layers, whose magnitudes are some four times their sums: sixteen times that, at most.
TEST_CASE("gpu: scores of a network on the device are the CPU's in double, within the precision") {
  if (!have_gpu()) return;
  const ScoreNetwork net = network();
  const Matrix x = datasets::three_gaussians(300, Rng{2});
  const std::pair<Precision, double> bounds[] = {
      {Precision::fp32, 5e-4}, {Precision::tf32, 2e-2}, {Precision::bf16x3, 2e-3}, {Precision::bf16, .15}};
  for (const auto& [precision, bound] : bounds) {
    const auto device = on_device(net, "cuda:0", precision);
    for (const double level : kLevels.values()) {
      const float sigma = static_cast<float>(level);
      const double wide = static_cast<double>(sigma);
      Matrix found(x.rows(), 2);
      MatrixD expected(x.rows(), 2), found_wide(x.rows(), 2);
      net.score(MatrixD(x.view()), {&wide, 1}, nullptr, expected);
      device->score(x, {&sigma, 1}, nullptr, found);
      device->score(MatrixD(x.view()), {&wide, 1}, nullptr, found_wide);
      CHECK(relative(found, expected) <= bound);
      CHECK(relative(found_wide, expected) <= 1e-12);
    }
  }
}

TEST_CASE("gpu: a chain on the device follows the CPU's, with the same noise") {
  if (!have_gpu()) return;
  const ScoreNetwork net = network();
  const auto device = on_device(net, "cuda:0");
  const AnnealedLangevinOptions options{.samples = 1000, .steps_per_level = 5, .step_size_factor = .2};
  const Matrix host = annealed_langevin(net, kLevels, options, Rng{3}).x;
  CHECK(relative(annealed_langevin(*device, kLevels, options, Rng{3}).x, host) <= 1e-3);
  CHECK(relative(annealed_langevin(*device, kLevels, options, Rng{4}).x, host) > .1);
}

TEST_CASE("gpu: log-densities in fp64") {
  if (!have_gpu()) return;
  const ScoreNetwork net = network();
  const auto device = on_device(net, "cuda:0");
  const MatrixD x(datasets::three_gaussians(20, Rng{2}).view());
  const std::vector<double> host = log_density(net, x, {}).nats, found = log_density(*device, x, {}).nats;
  for (std::size_t i = 0; i < host.size(); ++i) CHECK(std::fabs(found[i] - host[i]) <= 1e-6 * std::fmax(1, std::fabs(host[i])));
}

TEST_CASE("gpu: training on the device is the CPU's within rounding, and checkpoints move between them") {
  if (!have_gpu()) return;
  const Matrix data = datasets::three_gaussians(500, Rng{2});
  const auto losses = [&](const char* first, const char* second) {
    const std::string path = "tweedie_gpu_test.safetensors";
    std::vector<double> all;
    const auto keep = [&](const TrainingStep& s) { all.push_back(s.loss); };
    ScoreNetwork net = network();
    Trainer begun(net, data, training(first), Rng{5});
    for (int i = 0; i < 6; ++i) all.push_back(begun.step());
    begun.save(path);
    ScoreNetwork again = network();
    Trainer resumed(again, data, training(second), Rng{5});
    resumed.resume(path);
    resumed.run(keep);
    std::remove(path.c_str());
    return all;
  };
  const std::vector<double> host = losses("cpu", "cpu");
  for (const auto& [first, second] : {std::pair("cuda:0", "cuda:0"), std::pair("cpu", "cuda:0"), std::pair("cuda:0", "cpu")}) {
    const std::vector<double> found = losses(first, second);
    REQUIRE(found.size() == host.size());
    for (std::size_t i = 0; i < host.size(); ++i) CHECK(std::fabs(found[i] - host[i]) <= 1e-4 * host[i]);
  }
}
