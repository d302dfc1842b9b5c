// device_sampler_checks.h - what samplers and likelihoods must do on every Device: run by simt_device_test.cpp on the host
// executor and by tests/gpu on a CUDA device. SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/device_networks.h"
#include "tweedie/models/detail/device_score.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/langevin.h"
#include "tweedie/samplers/likelihood.h"

namespace tweedie::testing {

using kernels::Precision;
using SharedDevice = std::shared_ptr<kernels::cuda::Device>;

inline constexpr Index kRows = 19, kDim = 2;
inline constexpr double kLow = .2, kHigh = 3;

// A layer of 16 inputs errs by 3 x 2^-22 for the split operands and 3 x 18 x 2^-23 for the unit's truncations, of sums that the
// weights of .2 keep near one; the layers behind carry it on by at most 1.6 each (.2 (4 + 4)): 4.2 layers' worth. All a chain's
// steps together move a row by F for at most 2 sigma_max, and carry a difference on by less than 2.
inline constexpr double kTolerance = (3 * 0x1p-22 + 54 * 0x1p-23) * 4.2 * 2 * kHigh * 2;

inline std::vector<Samples> all_samples(const ScoreModel& edm, const ScoreModel& chapter, const NoiseLevels& levels) {
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

/// The samples of four samplers, trajectories among them: the CPU's within fp32's class.
inline std::vector<Samples> check_chains(const SharedDevice& device) {
  const auto edm = edm_network(kLow, kHigh);
  const auto chapter = chapter_network(kLow, kHigh, 3);
  const auto edm_there = detail::on_device(*edm, device, Precision::fp32);
  const auto chapter_there = detail::on_device(*chapter, device, Precision::fp32);
  REQUIRE(edm_there->has_chain(std::vector<double>{1.}));
  const std::vector<Samples> expected = all_samples(*edm, *chapter, *chapter->levels());
  const std::vector<Samples> found = all_samples(*edm_there, *chapter_there, *chapter->levels());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(difference(found[i].x, expected[i].x) <= kTolerance);
    CHECK(found[i].evaluations == expected[i].evaluations);
    REQUIRE(found[i].trajectory.size() == expected[i].trajectory.size());
    for (std::size_t f = 0; f < found[i].trajectory.size(); ++f) {
      CHECK(difference(found[i].trajectory[f], expected[i].trajectory[f]) <= kTolerance);
    }
  }
  return found;
}

/// With a score of zero a step from zero is the noise times a coefficient: the host's bits.
inline void check_noise_bits(const SharedDevice& device) {
  NoiseConditionalScoreNetwork net({.data_dim = 5, .hidden_dim = 4, .num_layers = 2, .num_noise_levels = 2}, Rng(1));
  std::fill(net.parameters().begin(), net.parameters().end(), 0.f);
  net.parameters_changed();
  const auto there = detail::on_device(net, device, Precision::bf16);
  const Matrix start(kRows, 5);
  const auto run = [&](const ScoreModel& m) { return langevin_dynamics(m, .01, start, {.num_steps = 1}, Rng(21)).x; };
  const Matrix expected = run(net), found = run(*there);
  CHECK(difference(found, expected) == 0);
  CHECK(difference(found, start) > 0);
}

/// A divergence names the step that it names on the CPU.
inline void check_divergence_text(const SharedDevice& device) {
  const auto net = chapter_network(kLow, kHigh, 3);
  for (Index i = 0; i < 16; ++i) net->parameters()[static_cast<std::size_t>(16 + i)] = 1e10f;  // level 1's embedding
  net->parameters_changed();
  const auto there = detail::on_device(*net, device, Precision::fp32);
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

/// Log-densities in double, whatever the precision of samples.
inline void check_likelihood(const SharedDevice& device) {
  const auto net = edm_network(kLow, kHigh);
  const auto there = detail::on_device(*net, device, Precision::bf16);
  MatrixD x(3, kDim);
  Rng(6).normals<double>(Purpose::user, 0, 0, x);
  const ConstRows<double> at = x;
  const LogDensityOptions options{.rtol = 1e-3, .atol = 1e-3};
  const LogDensity expected = log_density(*net, at, options), found = log_density(*there, at, options);
  CHECK(found.evaluations == expected.evaluations);
  for (std::size_t r = 0; r < found.nats.size(); ++r) CHECK(found.nats[r] == doctest::Approx(expected.nats[r]).epsilon(1e-9));
}

}  // namespace tweedie::testing
