// SPDX-License-Identifier: MIT
#include "tweedie/samplers/annealed_langevin.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "samplers/variance_law.h"
#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"

using namespace tweedie;
using test::kZ;
using test::variance_after;
using test::variance_z;

namespace {

bool same(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

// Drift coefficient over sigma^2 and noise variance over (2 drift): what the options mean, written from the formulas.
struct Law {
  double h, temperature;
};
Law law_of(const AnnealedLangevinOptions& o, const NoiseLevels& levels) {
  double a = o.epsilon ? *o.epsilon / (levels.min() * levels.min()) : o.step_size_factor;
  if (o.temperature_mode == TemperatureMode::chapter) a *= o.temperature;
  return {o.convention == StepConvention::half ? a / 2 : a, o.temperature};
}

// The variances at the end of every level on N(0, scale^2), from the prior's sigma_1^2.
std::vector<double> level_variances(double scale, const NoiseLevels& levels, const AnnealedLangevinOptions& options) {
  const Law law = law_of(options, levels);
  std::vector<double> variances;
  double variance = levels.max() * levels.max();
  for (const double sigma : levels.values()) {
    const double h = law.h * sigma * sigma, v = scale * scale + sigma * sigma;
    variance = variance_after(variance, v, h, std::sqrt(2 * h * law.temperature), options.steps_per_level);
    variances.push_back(variance);
  }
  return variances;
}

// Largest |z| over the levels' ends.
double largest_z(const std::vector<Matrix>& level_ends, const std::vector<double>& variances) {
  double worst = 0;
  for (std::size_t i = 0; i < variances.size(); ++i) worst = std::max(worst, std::abs(variance_z(level_ends[i], variances[i])));
  return worst;
}

std::vector<Matrix> level_ends(const Samples& s) { return {s.trajectory.begin() + 1, s.trajectory.end()}; }

const NoiseLevels kChapter = NoiseLevels::geometric(10, .01, 10);

}  // namespace

TEST_CASE("the chapter's defaults follow the closed-form variance recursion on a Gaussian, level by level") {
  const GaussianMixture model = GaussianMixture::gaussian(2, 1);
  AnnealedLangevinOptions options{.samples = 200000};
  const auto predicted = level_variances(1, kChapter, options);
  options.save_every = options.steps_per_level;
  const Samples s = annealed_langevin(model, kChapter, options, Rng{2});
  CHECK(s.evaluations == 1000);
  CHECK(std::abs(variance_z(s.trajectory[0], 100)) <= kZ);
  CHECK(largest_z(level_ends(s), predicted) <= kZ);
  CHECK(predicted.back() == doctest::Approx(1.014).epsilon(.002));  // the known bias: 1.4% too wide
  CHECK(std::abs(variance_z(s.x, 1)) > 4);                          // 6.3 standard errors: this sample shows it
}

TEST_CASE("every way to set the step follows its recursion: conventions, NCSN's epsilon, both temperatures, denoising") {
  const double scale = .7;
  const GaussianMixture model = GaussianMixture::gaussian(2, scale);
  const AnnealedLangevinOptions cases[] = {
      {.step_size_factor = 1, .convention = StepConvention::full},
      {.steps_per_level = 40, .epsilon = 2e-5},
      {.steps_per_level = 40, .epsilon = 2e-5, .convention = StepConvention::full},
      {.steps_per_level = 30, .step_size_factor = .5},
      {.steps_per_level = 30, .temperature = 2},
      {.steps_per_level = 30, .temperature = .25},
      {.steps_per_level = 30, .temperature = 0},
      {.steps_per_level = 30, .temperature = 1.5, .temperature_mode = TemperatureMode::chapter},
      {.steps_per_level = 30, .temperature = .5, .temperature_mode = TemperatureMode::chapter},
      {.steps_per_level = 30,
       .step_size_factor = .8,
       .convention = StepConvention::full,
       .temperature = 1.3,
       .temperature_mode = TemperatureMode::chapter},
  };
  for (AnnealedLangevinOptions options : cases) {
    const auto predicted = level_variances(scale, kChapter, options);
    options.samples = 10000;
    options.save_every = options.steps_per_level;
    const Samples s = annealed_langevin(model, kChapter, options, Rng{2});
    if (options.temperature == 0) {
      // Without noise: (1 - h/v)^t of the start, down to nothing.
      CHECK(predicted.back() <= 1e-12);
      CHECK(std::all_of(s.x.data(), s.x.data() + s.x.size(), [](float x) { return std::abs(x) < 1e-5; }));
    } else {
      CHECK(largest_z(level_ends(s), predicted) <= kZ);
    }
    options.denoise = true;
    options.samples = 10;
    const Samples d = annealed_langevin(model, kChapter, options, Rng{2});
    CHECK(d.evaluations == s.evaluations + 1);
    const double shrink = scale * scale / (scale * scale + 1e-4);  // x + sigma^2 s = x (1 - sigma^2 / v)
    for (Index i = 0; i < 20; ++i) CHECK(d.x.data()[i] == doctest::Approx(shrink * s.x.data()[i]).epsilon(1e-6));
  }
}

TEST_CASE("temperature as the chapter has it blows the first level up, and beyond its bound it is refused") {
  // v = 102: (1 - 200/102)^2 V + 800 a step.
  const GaussianMixture model = GaussianMixture::gaussian(2, std::sqrt(2));
  const AnnealedLangevinOptions options{.samples = 20000, .temperature = 2, .temperature_mode = TemperatureMode::chapter};
  const double variance = level_variances(std::sqrt(2), kChapter, options).front();
  CHECK(variance / 102 > 100);
  const Samples first = annealed_langevin(model, NoiseLevels({10}), options, Rng{2});
  CHECK(std::abs(variance_z(first.x, variance)) <= kZ);
  CHECK_THROWS_WITH_AS(annealed_langevin_with_temperature(model, kChapter, 10, Rng{1}, 3),
                       "annealed_langevin: steps of 6 sigma^2 are unstable, the bound is 4 sigma^2 in the half convention; with "
                       "temperature_mode chapter use a temperature of at most 2, or temperature_mode noise",
                       UsageError);
  CHECK_NOTHROW(annealed_langevin(model, kChapter, {.samples = 10, .steps_per_level = 5, .temperature = 3}, Rng{1}));
  CHECK(temperature_mode("chapter") == TemperatureMode::chapter);
  CHECK(temperature_mode(to_string(TemperatureMode::noise)) == TemperatureMode::noise);
  CHECK_THROWS_AS(temperature_mode("plain"), UsageError);
}

TEST_CASE("power: planted faults are found by the same variance test") {
  // A plain re-implementation in one dimension with one thing wrong at a time.
  enum class Fault { none, noise_scale, missing_half, next_level, stale_noise, noise_before_score, full_for_half, constant_step };
  const NoiseLevels levels = NoiseLevels::geometric(10, .1, 5);
  const Index n = 10000, steps = 20;
  const auto run = [&](Fault fault, std::uint64_t seed) {
    const Rng rng{seed};
    Matrix x(n, 1), z(n, 1);
    rng.normals<float>(Purpose::prior, 0, 0, x);
    for (Index r = 0; r < n; ++r) x(r, 0) *= 10;
    std::vector<Matrix> ends;
    std::uint32_t step = 0;
    for (Index i = 0; i < levels.size(); ++i) {
      const double score_sigma = levels[fault == Fault::next_level ? std::min(i + 1, levels.size() - 1) : i];
      const double a = 2 * std::pow(levels[fault == Fault::constant_step ? levels.size() - 1 : i], 2);
      const double drift = fault == Fault::missing_half ? a : a / 2, v = 1 + score_sigma * score_sigma;
      double noise = std::sqrt(a);
      if (fault == Fault::noise_scale) noise *= 1.07;
      if (fault == Fault::full_for_half) noise = std::sqrt(2 * a);
      for (Index t = 0; t < steps; ++t, ++step) {
        rng.normals<float>(Purpose::langevin, fault == Fault::stale_noise ? step / 2 : step, 0, z);
        for (Index r = 0; r < n; ++r) {
          const double kick = noise * z(r, 0), at = fault == Fault::noise_before_score ? x(r, 0) + kick : x(r, 0);
          x(r, 0) = static_cast<float>(x(r, 0) - drift * at / v + kick);
        }
      }
      ends.push_back(x);
    }
    return ends;
  };
  AnnealedLangevinOptions options{.samples = n, .steps_per_level = steps};
  const auto predicted = level_variances(1, levels, options);
  options.save_every = steps;
  const GaussianMixture model = GaussianMixture::gaussian(1);
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto ends = level_ends(annealed_langevin(model, levels, options, Rng{seed}));
    CHECK(largest_z(ends, predicted) <= kZ);
    // The re-implementation without a fault is the same chain.
    CHECK(run(Fault::none, seed).back()(7, 0) == doctest::Approx(ends.back()(7, 0)).epsilon(1e-4));
  }
  for (const Fault fault : {Fault::noise_scale, Fault::missing_half, Fault::next_level, Fault::stale_noise,
                            Fault::noise_before_score, Fault::full_for_half, Fault::constant_step}) {
    double mean = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) mean += largest_z(run(fault, seed), predicted) / 8;
    CAPTURE(static_cast<int>(fault));
    // The scores scatter by about 1 around their shift: beyond kZ + 2.4 a fault is found with more than 99%.
    CHECK(mean >= kZ + 3);
  }
}

TEST_CASE("in double the chain equals the algorithm written out, noise steps counted over all levels") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const NoiseLevels levels = NoiseLevels::geometric(3, .1, 4);
  MatrixD x(30, 2), z(30, 2);
  Rng{8}.normals<double>(Purpose::user, 0, 0, x);
  const SamplesD s = annealed_langevin(model, levels, x, {.steps_per_level = 6, .step_size_factor = .5, .denoise = true}, Rng{9});
  std::uint32_t step = 0;
  for (const double sigma : levels.values()) {
    const double a = .5 * sigma * sigma;
    for (int t = 0; t < 6; ++t, ++step) {
      const MatrixD score = model.score(x, sigma);
      Rng{9}.normals<double>(Purpose::langevin, step, 0, z);
      for (Index i = 0; i < x.size(); ++i) x.data()[i] += a / 2 * score.data()[i] + std::sqrt(a) * z.data()[i];
    }
  }
  x = model.tweedie_mean(x, .1);
  double worst = 0;
  for (Index i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x.data()[i] - s.x.data()[i]));
  CHECK(worst <= 1e-11);  // 24 contracting steps of a few roundings of |x| < 10 each
}

TEST_CASE("threads, chunks and the number of samples leave the bits alone") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const NoiseLevels levels = NoiseLevels::geometric(20, .02, 6);
  AnnealedLangevinOptions options{
      .samples = 1300, .steps_per_level = 11, .denoise = true, .save_every = 13, .trajectory_rows = 700};
  const Samples reference = annealed_langevin(model, levels, options, Rng{3});
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    for (const Index chunk : {1, 3, 256, 1300, 4096}) {
      options.chunk_rows = chunk;
      const Samples s = annealed_langevin(model, levels, options, Rng{3});
      CHECK(same(s.x, reference.x));
      CHECK(same(s.trajectory.back(), reference.trajectory.back()));
    }
  }
  set_threads(0);
  options.samples = 41;
  options.chunk_rows = 512;
  const Samples head = annealed_langevin(model, levels, options, Rng{3});
  CHECK(same(head.x, Matrix(reference.x.middle_rows(0, 41))));
  CHECK(head.trajectory[2].rows() == 41);
  CHECK_FALSE(same(annealed_langevin(model, levels, options, Rng{4}).x, head.x));
}

TEST_CASE("the trajectory starts at the prior and its frames are states of the run") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const Samples s =
      annealed_langevin(model, kChapter, {.samples = 50, .steps_per_level = 4, .save_every = 4, .trajectory_rows = 20}, Rng{3});
  REQUIRE(s.trajectory.size() == 11);
  CHECK(s.trajectory_steps.back() == 40);
  CHECK(s.trajectory.front().rows() == 20);
  Matrix z(50, 2);
  Rng{3}.normals<float>(Purpose::prior, 0, 0, z);
  for (Index i = 0; i < 40; ++i) CHECK(s.trajectory.front().data()[i] == 10 * z.data()[i]);
  CHECK(same(s.trajectory.back(), Matrix(s.x.middle_rows(0, 20))));
  // Frame 3 is where a run over the first three levels ends.
  const NoiseLevels three({kChapter[0], kChapter[1], kChapter[2]});
  const Samples cut = annealed_langevin(model, three, {.samples = 20, .steps_per_level = 4}, Rng{3});
  CHECK(same(s.trajectory[3], cut.x));
}

TEST_CASE("a given start replaces the prior, and the chapter's functions are the options' defaults") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const Samples s = annealed_langevin(model, kChapter, {.samples = 64, .steps_per_level = 5}, Rng{3});
  Matrix start(64, 2);
  Rng{3}.normals<float>(Purpose::prior, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= 10;
  CHECK(same(annealed_langevin(model, kChapter, start, {.samples = 1, .steps_per_level = 5}, Rng{3}).x, s.x));
  CHECK(same(annealed_langevin_dynamics(model, kChapter, 64, Rng{3}, 5), s.x));
  CHECK(same(annealed_langevin_with_temperature(model, kChapter, 64, Rng{3}, 1, 5), s.x));
  CHECK(same(annealed_langevin_dynamics(model, kChapter, 64, Rng{3}),
             annealed_langevin(model, kChapter, {.samples = 64, .steps_per_level = 100, .step_size_factor = 2}, Rng{3}).x));
  CHECK(same(
      annealed_langevin_with_temperature(model, kChapter, 64, Rng{3}, .6),
      annealed_langevin(model, kChapter, {.samples = 64, .temperature = .6, .temperature_mode = TemperatureMode::chapter}, Rng{3})
          .x));
}

TEST_CASE("progress runs from nothing to everything, one call at a time; false cancels at once") {
  const GaussianMixture model = GaussianMixture::two_mode();
  for (const int count : {1, 4}) {
    set_threads(count);
    std::atomic<int> inside = 0;
    std::vector<SamplingProgress> calls;
    AnnealedLangevinOptions options{.samples = 700, .steps_per_level = 250, .chunk_rows = 100};
    options.progress = [&](const SamplingProgress& p) {
      CHECK(++inside == 1);
      calls.push_back(p);
      --inside;
      return true;
    };
    annealed_langevin(model, NoiseLevels({2, 1}), options, Rng{3});
    REQUIRE(calls.size() == 1 + 7 * 5);  // seven chunks, 500 steps each
    CHECK(calls.front().done == 0);
    CHECK(calls.back().done == 700 * 500);
    CHECK(std::all_of(calls.begin(), calls.end(), [](const SamplingProgress& p) { return p.total == 700 * 500; }));
    CHECK(std::is_sorted(calls.begin(), calls.end(), [](const auto& a, const auto& b) { return a.done < b.done; }));

    for (const int last : {1, 2, 5}) {
      int seen = 0;
      options.progress = [&](const SamplingProgress&) { return ++seen < last; };
      CHECK_THROWS_AS(annealed_langevin(model, NoiseLevels({2, 1}), options, Rng{3}), CancelledError);
      CHECK(seen == last);
    }
    options.progress = [](const SamplingProgress& p) -> bool {
      if (p.done > 0) throw std::runtime_error("the caller's own");
      return true;
    };
    CHECK_THROWS_WITH(annealed_langevin(model, NoiseLevels({2, 1}), options, Rng{3}), "the caller's own");
  }
  set_threads(0);
  CHECK(CancelledError("x").exit_code() == 130);
}

TEST_CASE("a run that diverges names level, step, step size and remedy") {
  // An exact score down to sigma = 1, twenty times too large below.
  const GaussianMixture exact = GaussianMixture::gaussian(1, .1);
  const FunctionScore broken(1, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    exact.score(y, sigma, nullptr, out);
    if (sigma[0] < 1) {
      for (Index r = 0; r < out.rows(); ++r) out(r, 0) *= 20;
    }
  });
  std::string message = "nothing thrown";
  try {
    annealed_langevin(broken, NoiseLevels({4, 2, .5, .25}), {.samples = 600}, Rng{3});
  } catch (const DivergedError& e) {
    message = e.what();
  }
  CHECK(message.find("annealed_langevin: diverged at level 2 (sigma = 0.5), step ") == 0);
  CHECK(message.find(" of 100, step size 0.5: |x| is beyond ") != std::string::npos);
  CHECK(message.find(" or not a number; use a smaller step_size_factor or temperature") != std::string::npos);
  const FunctionScore nan(1, [](ConstRows<double>, std::span<const double> sigma, Rows<double> out) {
    for (Index r = 0; r < out.rows(); ++r) out(r, 0) = sigma[0] < 1 ? std::nan("") : 0;
  });
  CHECK_THROWS_AS(annealed_langevin(nan, NoiseLevels({2, .5}), {.samples = 3}, Rng{3}), DivergedError);
  // The final Tweedie step is watched too.
  CHECK_THROWS_AS(annealed_langevin(nan, NoiseLevels({2, .5}), {.samples = 3, .steps_per_level = 0, .denoise = true}, Rng{3}),
                  DivergedError);
}

TEST_CASE("empty runs and wrong options") {
  const GaussianMixture model = GaussianMixture::two_mode();
  CHECK(annealed_langevin(model, kChapter, {.samples = 0}, Rng{1}).x.rows() == 0);
  const Samples prior = annealed_langevin(model, kChapter, {.samples = 5, .steps_per_level = 0}, Rng{1});
  CHECK(prior.evaluations == 0);
  CHECK(prior.x.rows() == 5);
  const auto run = [&](const AnnealedLangevinOptions& options) { annealed_langevin(model, kChapter, options, Rng{1}); };
  const double nan = std::nan("");
  CHECK_THROWS_AS(run({.samples = -1}), UsageError);
  CHECK_THROWS_AS(run({.steps_per_level = -1}), UsageError);
  CHECK_THROWS_AS(run({.steps_per_level = Index{1} << 30}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = 0}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = nan}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = 4.1}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = 2.1, .convention = StepConvention::full}), UsageError);
  CHECK_THROWS_AS(run({.epsilon = 0.}), UsageError);
  CHECK_THROWS_AS(run({.epsilon = nan}), UsageError);
  CHECK_THROWS_AS(run({.epsilon = 5e-4}), UsageError);  // 5 sigma^2
  CHECK_THROWS_AS(run({.temperature = -1}), UsageError);
  CHECK_THROWS_AS(run({.temperature = nan}), UsageError);
  CHECK_THROWS_AS(run({.save_every = -1}), UsageError);
  CHECK_THROWS_AS(run({.trajectory_rows = -1}), UsageError);
  CHECK_THROWS_AS(run({.chunk_rows = 0}), UsageError);
  CHECK_THROWS_AS(annealed_langevin(model, kChapter, Matrix(3, 3), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(annealed_langevin(model, kChapter, Matrix{{1, std::nanf("")}}, {}, Rng{1}), UsageError);
}

TEST_CASE("on exact scores 30 levels x 100 steps of .5 sigma^2 pass the energy test; a temperature of 3 does not") {
  const GaussianMixture easy = GaussianMixture::three_gaussians(), hard = GaussianMixture::three_gaussians_unequal();
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 30);
  // None of so many permutations reaches the statistic: rejection at 1e-5, or at 1e-3.
  const auto accepted = [](const GaussianMixture& truth, const Matrix& x, std::uint64_t seed, int permutations = 99'999) {
    return energy_test(x, truth.sample(x.rows(), Rng{seed}), {.permutations = permutations, .stop_after_exceedances = 1},
                       Rng{seed + 1})
               .exceedances > 0;
  };
  const AnnealedLangevinOptions options{.samples = 2000, .step_size_factor = .5};
  CHECK(accepted(easy, annealed_langevin(easy, levels, options, Rng{1}).x, 100));
  CHECK(accepted(hard, annealed_langevin(hard, levels, options, Rng{1}).x, 100));
  AnnealedLangevinOptions hot = options;
  hot.temperature = 3;
  CHECK_FALSE(accepted(easy, annealed_langevin(easy, levels, hot, Rng{1}).x, 100, 999));
}
