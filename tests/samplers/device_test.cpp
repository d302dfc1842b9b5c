// device_test.cpp - every sampler and the likelihood on a device give what they give on the CPU.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/device_networks.h"
#include "support/reference_device.h"
#include "tweedie/models/detail/device_score.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/guidance.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/langevin.h"
#include "tweedie/samplers/likelihood.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/probability_flow.h"
#include "tweedie/samplers/repaint.h"
#include "tweedie/samplers/reverse_sde.h"

using namespace tweedie;
using namespace tweedie::testing;

namespace {

constexpr Index kRows = 40, kDim = 2;
constexpr double kLow = .1, kHigh = 4;

// A sampler with everything but the model, the stream and what a run is watched by.
struct Watch {
  Index save_every = 0;
  SamplingCallback progress = nullptr;
};
struct Case {
  std::string name;
  int launches;  // of its chain, without a trajectory
  std::function<Samples(const ScoreModel&, const Rng&, const Watch&)> run;
};

template <class Options>
Options watched(Options o, const Watch& watch) {
  if constexpr (requires { o.samples; }) o.samples = kRows;
  o.save_every = watch.save_every;
  o.progress = watch.progress;
  return o;
}

const NoiseLevels& levels() {
  static const NoiseLevels all = NoiseLevels::geometric(kHigh, kLow, 5);
  return all;
}

std::vector<Case> chains() {
  const std::vector<double> to_zero = karras(7, kLow, kHigh), to_level = karras(7, kLow, kHigh, 7, false);
  const Process flows[] = {ve(kLow, kHigh), vp(.1, 6), edm(kLow, kHigh)};
  std::vector<Case> all = {
      {"annealed", 1,
       [](const ScoreModel& m, const Rng& rng, const Watch& w) {
         return annealed_langevin(m, levels(), watched(AnnealedLangevinOptions{.steps_per_level = 4, .step_size_factor = .3}, w),
                                  rng);
       }},
      {"annealed, denoised", 1,
       [](const ScoreModel& m, const Rng& rng, const Watch& w) {
         return annealed_langevin(
             m, levels(),
             watched(AnnealedLangevinOptions{.steps_per_level = 3, .step_size_factor = .3, .temperature = .5, .denoise = true},
                     w),
             rng);
       }},
      {"langevin", 1, [](const ScoreModel& m, const Rng& rng, const Watch& w) {
         Matrix start(kRows, kDim);
         rng.normals<float>(Purpose::prior, 0, 0, start);
         return langevin_dynamics(m, levels()[2], start, watched(LangevinOptions{.step_size = .05, .num_steps = 9}, w), rng);
       }}};
  for (const std::vector<double>& sigmas : {to_zero, to_level}) {
    all.push_back({"heun", 1, [sigmas](const ScoreModel& m, const Rng& rng, const Watch& w) {
                     return heun(m, sigmas, watched(HeunOptions{}, w), rng);
                   }});
    all.push_back({"heun with churn", 1, [sigmas](const ScoreModel& m, const Rng& rng, const Watch& w) {
                     return heun(m, sigmas, watched(HeunOptions{.s_churn = 2, .s_tmin = .2}, w), rng);
                   }});
    all.push_back({"ddim", 1, [sigmas](const ScoreModel& m, const Rng& rng, const Watch& w) {
                     return ddim(m, sigmas, watched(DdimOptions{.eta = .7}, w), rng);
                   }});
    for (const double eta : {0., 1.}) {
      all.push_back({join("dpm_solver_pp, eta ", eta), 1, [sigmas, eta](const ScoreModel& m, const Rng& rng, const Watch& w) {
                       return dpm_solver_pp(m, sigmas, watched(DpmSolverOptions{.eta = eta}, w), rng);
                     }});
    }
  }
  for (const Process& process : flows) {
    all.push_back({join("reverse_sde, ", process.name()), 1, [process](const ScoreModel& m, const Rng& rng, const Watch& w) {
                     return reverse_sde(m, process, watched(ReverseSdeOptions{.steps = 12}, w), rng);
                   }});
  }
  all.push_back({"ddpm", 1, [](const ScoreModel& m, const Rng& rng, const Watch& w) {
                   return ddpm(m, vp(.1, 6), watched(DdpmOptions{.steps = 10}, w), rng);
                 }});
  return all;
}

// At most 25 steps, each of which may round a state of at most 2 sigma_max twice more on one side than on the other; the steps
// that follow carry a difference on, and the last ones, at a small sigma, shrink it.
constexpr double kTolerance = 25 * 2 * 2 * kHigh * 0x1p-24;

void same_samples(const Samples& a, const Samples& b, double tolerance) {
  CHECK(difference(a.x, b.x) <= tolerance);
  CHECK(a.evaluations == b.evaluations);
  CHECK(a.trajectory_steps == b.trajectory_steps);
  REQUIRE(a.trajectory.size() == b.trajectory.size());
  for (std::size_t f = 0; f < a.trajectory.size(); ++f) CHECK(difference(a.trajectory[f], b.trajectory[f]) <= tolerance);
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const DivergedError& error) {
    return error.what();
  }
  return "no error";
}

// The network there, the calls counted from now on.
std::unique_ptr<ScoreModel> placed(const Network& net, const std::shared_ptr<ReferenceDevice>& device) {
  std::unique_ptr<ScoreModel> there = detail::on_device(net, device, kernels::Precision::fp32);
  device->forwards = 0;
  return there;
}

}  // namespace

TEST_CASE("samplers on a device: one launch, the CPU's samples") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = edm_network(kLow, kHigh);
  const auto there = placed(*net, device);
  for (const Case& c : chains()) {
    CAPTURE(c.name);
    const Rng rng(11);
    device->chain_runs = device->forwards = 0;
    const Samples expected = c.run(*net, rng, {}), found = c.run(*there, rng, {});
    CHECK(device->chain_runs == c.launches);
    CHECK(device->forwards == 0);
    same_samples(found, expected, kTolerance);
    // The test can fail: other noise is far away.
    CHECK(difference(c.run(*there, Rng(12), {}).x, expected.x) > 100 * kTolerance);

    // A trajectory costs a launch for each state kept.
    const Samples path = c.run(*net, rng, {.save_every = 3}), path_there = c.run(*there, rng, {.save_every = 3});
    same_samples(path_there, path, kTolerance);
    CHECK(difference(path_there.x, found.x) == 0);

    // Without the chain the same, call by call.
    device->chains = false;
    const Samples apart = c.run(*there, rng, {});
    device->chains = true;
    CHECK(device->forwards > 0);
    same_samples(apart, expected, kTolerance);
  }
}

TEST_CASE("samplers on a device: the chapter's network at its levels and between them") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = chapter_network(kLow, kHigh, 5);
  const auto there = placed(*net, device);
  const Rng rng(3);
  const auto run = [&](const ScoreModel& m, const NoiseLevels& at) {
    return annealed_langevin(m, at, {.samples = kRows, .steps_per_level = 5, .step_size_factor = .3}, rng);
  };
  same_samples(run(*there, *net->levels()), run(*net, *net->levels()), kTolerance);
  CHECK(device->chain_runs == 1);
  CHECK(device->forwards == 0);
  const NoiseLevels finer = NoiseLevels::geometric(kHigh, kLow, 8);
  same_samples(run(*there, finer), run(*net, finer), kTolerance);
  CHECK(device->chain_runs == 1);
  CHECK(device->forwards > 0);
}

TEST_CASE("samplers on a device: the noise has the host's bits") {
  // With a score of zero a step from zero is the noise times a coefficient, rounded once.
  NoiseConditionalScoreNetwork net({.data_dim = 5, .hidden_dim = 4, .num_layers = 2, .num_noise_levels = 2}, Rng(1));
  std::fill(net.parameters().begin(), net.parameters().end(), 0.f);
  net.parameters_changed();
  const auto there = detail::on_device(net, std::make_shared<ReferenceDevice>(), kernels::Precision::fp32);
  const Matrix start(kRows, 5);
  const auto run = [&](const ScoreModel& m) { return langevin_dynamics(m, .01, start, {.num_steps = 1}, Rng(21)).x; };
  const Matrix expected = run(net), found = run(*there);
  CHECK(difference(found, expected) == 0);
  CHECK(difference(found, start) > 0);
}

TEST_CASE("samplers on a device: conditions") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = edm_network(kLow, kHigh, 3);
  const auto there = placed(*net, device);
  const Rng rng(4);
  const auto run = [&](const ScoreModel& m) { return heun(m, karras(6, kLow, kHigh), {.samples = kRows}, rng); };
  const Samples expected = run(Conditioned(*net, 2));
  same_samples(run(Conditioned(*there, 2)), expected, kTolerance);
  CHECK(device->chain_runs == 1);
  CHECK(device->forwards == 0);
  CHECK(difference(run(Conditioned(*there, 1)).x, expected.x) > 100 * kTolerance);
  same_samples(run(Guided(*there, 2., 1)), run(Guided(*net, 2., 1)), kTolerance);
  CHECK(device->chain_runs == 2);
  CHECK(device->forwards > 0);
}

TEST_CASE("samplers on a device: those that are no chain") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = edm_network(kLow, kHigh);
  const auto there = placed(*net, device);
  const Rng rng(8);
  const auto corrected = [&](const ScoreModel& m) {
    return predictor_corrector(m, karras(8, kLow, kHigh), {.samples = kRows}, rng);
  };
  same_samples(corrected(*there), corrected(*net), kTolerance);
  const auto flow = [&](const ScoreModel& m) { return probability_flow(m, ve(kLow, kHigh), {.samples = kRows}, rng); };
  CHECK(difference(flow(*there).x, flow(*net).x) <= kTolerance + 1e-5 * 4 * kHigh);  // two runs of an adaptive solver at 1e-5
  Matrix holes(kRows, kDim);
  rng.normals<float>(Purpose::user, 0, 0, holes);
  for (Index r = 0; r < kRows; ++r) holes(r, r % 2) = std::nanf("");
  const std::vector<double> sigmas = karras(6, kLow, kHigh);
  const auto filled_in = [&](const ScoreModel& m) { return repaint(m, sigmas, holes, {.resample = 2}, rng); };
  same_samples(filled_in(*there), filled_in(*net), kTolerance);
  MatrixD start(kRows, kDim);
  rng.normals<double>(Purpose::prior, 0, 0, start);
  const auto precise = [&](const ScoreModel& m) { return ddim(m, sigmas, start, {}, rng); };
  const SamplesD a = precise(*there), b = precise(*net);
  for (Index i = 0; i < a.x.size(); ++i) CHECK(a.x.data()[i] == doctest::Approx(b.x.data()[i]).epsilon(1e-12));
  CHECK(device->chain_runs == 0);
}

TEST_CASE("samplers on a device: a divergence names the CPU's step") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = chapter_network(kLow, kHigh, 5);
  // Level 3's embedding is enormous: its score drives all rows away at its first step.
  for (Index i = 0; i < 16; ++i) net->parameters()[static_cast<std::size_t>(3 * 16 + i)] = 1e10f;
  net->parameters_changed();
  const auto there = placed(*net, device);
  const auto anneal = [&](const ScoreModel& m) {
    return error_of(
        [&] { annealed_langevin(m, *net->levels(), {.samples = kRows, .steps_per_level = 3, .step_size_factor = .3}, Rng(1)); });
  };
  CHECK(anneal(*there) == anneal(*net));
  CHECK(anneal(*net).find("level 3") != std::string::npos);
  std::vector<double> sigmas(net->levels()->values().begin(), net->levels()->values().end());
  sigmas.push_back(0);
  for (const int which : {0, 1, 2}) {
    const auto run = [&](const ScoreModel& m) {
      return error_of([&] {
        if (which == 0) heun(m, sigmas, {.samples = kRows}, Rng(1));
        if (which == 1) ddim(m, sigmas, {.samples = kRows}, Rng(1));
        if (which == 2) dpm_solver_pp(m, sigmas, {.samples = kRows, .save_every = 2}, Rng(1));
      });
    };
    CAPTURE(which);
    CHECK(run(*there) == run(*net));
    CHECK(run(*net).find("step ") != std::string::npos);
  }
  CHECK(device->chain_runs > 0);
  CHECK(device->forwards == 0);
}

TEST_CASE("samplers on a device: progress ends at the total, and cancels") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = edm_network(kLow, kHigh);
  const auto there = placed(*net, device);
  for (const Case& c : chains()) {
    CAPTURE(c.name);
    SamplingProgress last{-1, 0};
    bool rising = true;
    c.run(*there, Rng(1), {.progress = [&](const SamplingProgress& p) {
      rising = rising && p.done >= last.done;
      last = p;
      return true;
    }});
    CHECK(rising);
    CHECK(last.done == last.total);
    CHECK(last.total > 0);
    CHECK_THROWS_AS(c.run(*there, Rng(1), {.progress = [](const SamplingProgress&) { return false; }}), CancelledError);
  }
}

TEST_CASE("likelihood on a device") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = edm_network(kLow, kHigh);
  const auto there = placed(*net, device);
  MatrixD x(6, kDim);
  Rng(6).normals<double>(Purpose::user, 0, 0, x);
  const ConstRows<double> at = x;
  const LogDensity expected = log_density(*net, at, LogDensityOptions{}), found = log_density(*there, at, LogDensityOptions{});
  CHECK(found.evaluations == expected.evaluations);
  for (std::size_t r = 0; r < found.nats.size(); ++r) CHECK(found.nats[r] == doctest::Approx(expected.nats[r]).epsilon(1e-9));
  const LogDensityOptions hutchinson{.divergence = Divergence::hutchinson, .probes = 2};
  const LogDensity probed = log_density(*net, at, hutchinson, Rng(1)), probed_there = log_density(*there, at, hutchinson, Rng(1));
  for (std::size_t r = 0; r < found.nats.size(); ++r) {
    CHECK(probed_there.nats[r] == doctest::Approx(probed.nats[r]).epsilon(1e-9));
  }
  CHECK(device->derivatives > 0);
}
