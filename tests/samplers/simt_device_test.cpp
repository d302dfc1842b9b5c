// simt_device_test.cpp - samplers and likelihood by the kernels themselves, run on the host executor.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "tweedie/kernels/cuda/backend.h"
#include "tweedie/kernels/simt/runtime.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/detail/device_score.h"
#include "tweedie/models/score_network.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/langevin.h"
#include "tweedie/samplers/likelihood.h"

using namespace tweedie;
using kernels::Precision;
using HostBackend = kernels::cuda::Backend<kernels::simt::SimtRuntime>;

namespace {

constexpr Index kRows = 19, kDim = 2;
constexpr double kLow = .2, kHigh = 3;

template <class Net>
std::unique_ptr<Net> filled(std::unique_ptr<Net> net) {
  Matrix values(1, net->layout().size());
  Rng(5).normals<float>(Purpose::user, 0, 0, values);
  for (Index i = 0; i < values.cols(); ++i) net->parameters()[static_cast<std::size_t>(i)] = .2f * values(0, i);
  net->parameters_changed();
  return net;
}

std::unique_ptr<ContinuousScoreNetwork> edm_network() {
  return filled(std::make_unique<ContinuousScoreNetwork>(ContinuousNetworkOptions{.data_dim = kDim,
                                                                                  .hidden_dim = 16,
                                                                                  .num_layers = 3,
                                                                                  .num_frequencies = 4,
                                                                                  .embedding_dim = 8,
                                                                                  .sigma_min = kLow,
                                                                                  .sigma_max = 2 * kHigh,
                                                                                  .sigma_data = 1},
                                                         Rng(2)));
}

std::unique_ptr<NoiseConditionalScoreNetwork> chapter_network() {
  return filled(std::make_unique<NoiseConditionalScoreNetwork>(
      ScoreNetworkOptions{
          .data_dim = kDim, .hidden_dim = 16, .num_layers = 3, .num_noise_levels = 3, .sigma_min = kLow, .sigma_max = kHigh},
      Rng(1)));
}

double difference(ConstRows<float> a, ConstRows<float> b) {
  double most = 0;
  for (Index r = 0; r < a.rows(); ++r) {
    for (Index c = 0; c < a.cols(); ++c) most = std::max(most, std::abs(static_cast<double>(a(r, c) - b(r, c))));
  }
  return most;
}

// A layer of 16 inputs errs by 3 x 2^-22 for the split operands and 3 x 18 x 2^-23 for the unit's truncations, of sums that the
// weights of .2 keep near one; the layers behind carry it on by at most 1.6 each (.2 (4 + 4)): 4.2 layers' worth. All a chain's
// steps together move a row by F for at most 2 sigma_max, and carry a difference on by less than 2.
constexpr double kTolerance = (3 * 0x1p-22 + 54 * 0x1p-23) * 4.2 * 2 * kHigh * 2;

std::vector<Samples> all_samples(const ScoreModel& edm, const ScoreModel& chapter, const NoiseLevels& levels) {
  const Rng rng(11);
  const std::vector<double> sigmas = karras(4, kLow, kHigh);
  std::vector<Samples> all;
  all.push_back(annealed_langevin(
      chapter, levels, {.samples = kRows, .steps_per_level = 2, .step_size_factor = .3, .denoise = true, .save_every = 4}, rng));
  all.push_back(heun(edm, sigmas, {.samples = kRows, .s_churn = 1}, rng));
  all.push_back(dpm_solver_pp(edm, sigmas, {.samples = kRows, .eta = 1, .save_every = 2}, rng));
  all.push_back(ddpm(edm, vp(.1, 4), {.samples = kRows, .steps = 4}, rng));
  return all;
}

}  // namespace

TEST_CASE("simt device: the samplers' chains by the kernels") {
  const auto edm = edm_network();
  const auto chapter = chapter_network();
  const std::vector<Samples> expected = all_samples(*edm, *chapter, *chapter->levels());
  std::vector<Samples> found;
  for (const kernels::simt::Order order : {kernels::simt::Order::forward, kernels::simt::Order::shuffled}) {
    const auto device = std::make_shared<HostBackend>(order);
    {
      const auto edm_there = detail::on_device(*edm, device, Precision::fp32);
      const auto chapter_there = detail::on_device(*chapter, device, Precision::fp32);
      REQUIRE(edm_there->has_chain(std::vector<double>{1.}));
      const std::vector<Samples> now = all_samples(*edm_there, *chapter_there, *chapter->levels());
      for (std::size_t i = 0; i < now.size(); ++i) {
        CAPTURE(i);
        CHECK(difference(now[i].x, expected[i].x) <= kTolerance);
        CHECK(now[i].evaluations == expected[i].evaluations);
        REQUIRE(now[i].trajectory.size() == expected[i].trajectory.size());
        for (std::size_t f = 0; f < now[i].trajectory.size(); ++f) {
          CHECK(difference(now[i].trajectory[f], expected[i].trajectory[f]) <= kTolerance);
        }
        if (!found.empty()) CHECK(difference(now[i].x, found[i].x) == 0);
      }
      found = now;
    }
    CHECK(device->runtime().live() <= 1);  // the backend's own scratch memory
  }
}

TEST_CASE("simt device: the noise has the host's bits") {
  NoiseConditionalScoreNetwork net({.data_dim = 5, .hidden_dim = 4, .num_layers = 2, .num_noise_levels = 2}, Rng(1));
  std::fill(net.parameters().begin(), net.parameters().end(), 0.f);
  net.parameters_changed();
  const auto there = detail::on_device(net, std::make_shared<HostBackend>(), Precision::bf16);
  const Matrix start(kRows, 5);
  const auto run = [&](const ScoreModel& m) { return langevin_dynamics(m, .01, start, {.num_steps = 1}, Rng(21)).x; };
  const Matrix expected = run(net), found = run(*there);
  CHECK(difference(found, expected) == 0);
  CHECK(difference(found, start) > 0);
}

TEST_CASE("simt device: a divergence names the CPU's step") {
  const auto net = chapter_network();
  for (Index i = 0; i < 16; ++i) net->parameters()[static_cast<std::size_t>(16 + i)] = 1e10f;  // level 1's embedding
  net->parameters_changed();
  const auto there = detail::on_device(*net, std::make_shared<HostBackend>(), Precision::fp32);
  const auto error = [&](const ScoreModel& m) -> std::string {
    try {
      annealed_langevin(m, *net->levels(), {.samples = 5, .steps_per_level = 2, .step_size_factor = .3}, Rng(1));
    } catch (const DivergedError& e) {
      return e.what();
    }
    return "no error";
  };
  CHECK(error(*there) == error(*net));
  CHECK(error(*net).find("level 1") != std::string::npos);
}

TEST_CASE("simt device: the likelihood in double") {
  const auto net = edm_network();
  const auto there = detail::on_device(*net, std::make_shared<HostBackend>(), Precision::bf16);  // which the likelihood ignores
  MatrixD x(3, kDim);
  Rng(6).normals<double>(Purpose::user, 0, 0, x);
  const ConstRows<double> at = x;
  const LogDensityOptions options{.rtol = 1e-3, .atol = 1e-3};
  const LogDensity expected = log_density(*net, at, options), found = log_density(*there, at, options);
  CHECK(found.evaluations == expected.evaluations);
  for (std::size_t r = 0; r < found.nats.size(); ++r) CHECK(found.nats[r] == doctest::Approx(expected.nats[r]).epsilon(1e-9));
}

TEST_CASE("simt device: memory that runs out is an error, and nothing is left behind") {
  const auto net = edm_network();
  int failures = 0;
  for (int left = 0; left < 30; ++left) {
    const auto device = std::make_shared<HostBackend>();
    device->runtime().allocations_left = left;
    try {
      const auto there = detail::on_device(*net, device, Precision::fp32);
      heun(*there, karras(2, kLow, kHigh), {.samples = 2, .save_every = 1}, Rng(1));
      left = 30;
    } catch (const ResourceError&) {
      ++failures;
    }
    CHECK(device->runtime().live() <= 1);
  }
  CHECK(failures >= 8);
}
