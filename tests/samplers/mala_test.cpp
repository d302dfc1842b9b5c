// SPDX-License-Identifier: MIT
#include "tweedie/samplers/mala.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/detail/mala_ratio.h"

using namespace tweedie;

namespace {

bool same(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

// One dimension, two modes and a narrow third.
GaussianMixture line() { return GaussianMixture({.5, .3, .2}, {{-1.5}, {1}, {3}}, {{{.36}}, {{.16}}, {{.04}}}); }

double cdf(const GaussianMixture& m, double sigma, double x) {
  double p = 0;
  for (Index k = 0; k < m.components(); ++k) {
    const double deviation = std::sqrt(m.covariance(k)(0, 0) + sigma * sigma);
    p += m.weights()[static_cast<std::size_t>(k)] * .5 * std::erfc((m.means()(k, 0) - x) / deviation / std::numbers::sqrt2);
  }
  return p;
}

double ks(const GaussianMixture& m, double sigma, const Matrix& x) {
  return kolmogorov_smirnov(std::span(x.data(), static_cast<std::size_t>(x.size())), [&](double v) { return cdf(m, sigma, v); })
      .statistic;
}

// Kolmogorov's critical distance at 1e-6: 2 exp(-2 n d^2) = 1e-6.
double critical(Index n) { return std::sqrt(std::log(2e6) / 2 / static_cast<double>(n)); }

// A test at 1e-5 that stops at the first exceedance: some twelve permutations under the null.
constexpr PermutationOptions kAtOnce{.permutations = 99'999, .stop_after_exceedances = 1};

constexpr double kSigma = .8;
// At this level the widths are 1, .9 and .83, and h = 2.4 sigma^2 / 2 = .77 is a long step beside their squares.
const MalaOptions kLong{.steps_per_level = 30, .step_size_factor = 2.4};

// A mixture that knows its score and an energy, not its density.
class EnergyOnly final : public ScoreModel {
 public:
  EnergyOnly(const GaussianMixture& exact, double per_sigma) : exact_(exact), per_sigma_(per_sigma) {}
  Index dim() const override { return exact_.dim(); }
  void score(ConstRows<float> y, std::span<const float> s, const Condition* c, Rows<float> out) const override {
    exact_.score(y, s, c, out);
  }
  void score(ConstRows<double> y, std::span<const double> s, const Condition* c, Rows<double> out) const override {
    exact_.score(y, s, c, out);
  }
  bool has_energy() const override { return true; }
  void energy(ConstRows<double> y, std::span<const double> s, const Condition* c, std::span<double> out) const override {
    exact_.log_density(y, s, c, out);
    for (double& v : out) v += per_sigma_ / s[0];
    ++calls;
  }
  const char* name() const override { return "energy only"; }
  mutable int calls = 0;

 private:
  const GaussianMixture& exact_;
  double per_sigma_;
};

}  // namespace

TEST_CASE("the ratio is p(x') q(x|x') / (p(x) q(x'|x)), and the flow from x to x' equals the flow back") {
  const GaussianMixture model = line();
  for (const double sigma : {.05, .8, 10.}) {
    for (const double h : {.01, .6, 5.}) {
      MatrixD x(40, 1);
      Rng{1}.normals<double>(Purpose::user, 0, 0, x);
      for (Index r = 0; r < 40; ++r) x(r, 0) *= std::sqrt(h) + sigma;
      const MatrixD score = model.score(x, sigma);
      const std::vector<double> log_p = model.log_density(x, sigma);
      const auto log_q = [&](Index to, Index from) {
        const double d = x(to, 0) - x(from, 0) - h * score(from, 0);
        return -d * d / (4 * h) - .5 * std::log(4 * std::numbers::pi * h);
      };
      for (Index i = 0; i + 1 < 40; ++i) {
        const auto state = [&](Index r) {
          return detail::LangevinState<double>{std::as_const(x).row(r), score.row(r), log_p[static_cast<std::size_t>(r)]};
        };
        const double ratio = detail::mala_log_ratio(h, state(i), state(i + 1));
        const double back = detail::mala_log_ratio(h, state(i + 1), state(i));
        const double there = log_p[static_cast<std::size_t>(i)] + log_q(i + 1, i);
        const double here = log_p[static_cast<std::size_t>(i + 1)] + log_q(i, i + 1);
        const double scale = 1 + std::abs(here) + std::abs(there);
        CHECK(std::abs(ratio - (here - there)) <= 1e-13 * scale);  // some ten roundings of terms of that size
        CHECK(std::abs(there + std::min(0., ratio) - (here + std::min(0., back))) <= 1e-13 * scale);
      }
    }
  }
}

TEST_CASE("in double the chain equals the algorithm written out, and the acceptance is what was accepted") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const NoiseLevels levels = NoiseLevels::geometric(3, .1, 4);
  for (const StepConvention convention : {StepConvention::half, StepConvention::full}) {
    MatrixD x(30, 2), z(30, 2), u(30, 1), moved(30, 2);
    Rng{8}.normals<double>(Purpose::user, 0, 0, x);
    const MalaSamplesD s =
        mala(model, levels, x,
             {.steps_per_level = 6, .step_size_factor = 1.5, .convention = convention, .denoise = true, .save_every = 6}, Rng{9});
    CHECK(s.evaluations == 4 * 7);
    std::uint32_t step = 0;
    for (Index level = 0; level < 4; ++level) {
      const double sigma = levels[level], h = 1.5 * sigma * sigma / (convention == StepConvention::half ? 2 : 1);
      int accepted = 0;
      for (int t = 0; t < 6; ++t, ++step) {
        const MatrixD score = model.score(x, sigma);
        Rng{9}.normals<double>(Purpose::langevin, step, 0, z);
        Rng{9}.uniforms<double>(Purpose::accept, step, 0, u);
        for (Index i = 0; i < x.size(); ++i) {
          moved.data()[i] = x.data()[i] + h * score.data()[i] + std::sqrt(2 * h) * z.data()[i];
        }
        const MatrixD moved_score = model.score(moved, sigma);
        const auto before = model.log_density(x, sigma), after = model.log_density(moved, sigma);
        for (Index r = 0; r < 30; ++r) {
          double log_ratio = after[static_cast<std::size_t>(r)] - before[static_cast<std::size_t>(r)];
          for (Index j = 0; j < 2; ++j) {
            log_ratio -= std::pow(x(r, j) - moved(r, j) - h * moved_score(r, j), 2) / (4 * h);
            log_ratio += std::pow(moved(r, j) - x(r, j) - h * score(r, j), 2) / (4 * h);
          }
          if (u(r, 0) <= std::exp(log_ratio)) {
            for (Index j = 0; j < 2; ++j) x(r, j) = moved(r, j);
            ++accepted;
          }
        }
      }
      CHECK(s.acceptance[static_cast<std::size_t>(level)] == doctest::Approx(accepted / 180.).epsilon(1e-14));
    }
    for (Index i = 0; i < x.size(); ++i) CHECK(std::abs(x.data()[i] - s.trajectory.back().data()[i]) <= 1e-11);
    x = model.tweedie_mean(x, .1);
    for (Index i = 0; i < x.size(); ++i) CHECK(std::abs(x.data()[i] - s.x.data()[i]) <= 1e-11);
  }
}

TEST_CASE("a long step leaves p_sigma invariant, in both conventions; without acceptance it does not") {
  const GaussianMixture model = line(), noisy = model.noised(1, kSigma);
  constexpr Index n = 20000;
  const NoiseLevels level({kSigma});
  const Matrix start = noisy.sample(n, Rng{1});
  for (const StepConvention convention : {StepConvention::half, StepConvention::full}) {
    MalaOptions options = kLong;
    options.convention = convention;
    if (convention == StepConvention::full) options.step_size_factor /= 2;
    const MalaSamples s = mala(model, level, start, options, Rng{2});
    CHECK(s.acceptance[0] > .5);
    CHECK(s.acceptance[0] < .95);
    CHECK(ks(model, kSigma, s.x) <= critical(n));
  }
  const Samples plain = annealed_langevin(model, level, start, {.steps_per_level = 30, .step_size_factor = 2.4}, Rng{2});
  CHECK(ks(model, kSigma, plain.x) > critical(n) + .0106);  // as the faults below
  // Also in two dimensions, where the plain chain at this step is far too wide.
  const GaussianMixture plane = GaussianMixture::three_gaussians();
  const Matrix exact = plane.noised(1, 2).sample(2000, Rng{3}), fresh = plane.noised(1, 2).sample(2000, Rng{4});
  const MalaOptions options{.steps_per_level = 30, .step_size_factor = 3};
  const MalaSamples s = mala(plane, NoiseLevels({2}), exact, options, Rng{5});
  CHECK(energy_test(s.x, fresh, kAtOnce, Rng{6}).p_value > 1e-5);
  const Samples wide = annealed_langevin(plane, NoiseLevels({2}), exact, {.steps_per_level = 30, .step_size_factor = 3}, Rng{5});
  CHECK(energy_test(wide.x, fresh, {}, Rng{6}).p_value <= 1e-3);
}

TEST_CASE("power: planted faults are found by the same distance") {
  // A plain re-implementation at one level with one thing wrong at a time, from exact draws.
  enum class Fault {
    none,
    no_q_ratio,
    inverted_q_ratio,
    wrong_sign,
    stale_log_p,
    stale_score,
    always,
    noise_of_half,
    mirrored_drift
  };
  const GaussianMixture model = line(), noisy = model.noised(1, kSigma);
  constexpr Index n = 20000;
  const double h = 2.4 * kSigma * kSigma / 2;
  const auto run = [&](Fault fault, std::uint64_t seed) {
    const Rng rng{seed};
    MatrixD x(noisy.sample(n, Rng{seed + 1000}).view()), moved(n, 1), z(n, 1), u(n, 1);
    MatrixD score = model.score(x, kSigma);
    std::vector<double> log_p = model.log_density(x, kSigma);
    for (std::uint32_t step = 0; step < 30; ++step) {
      rng.normals<double>(Purpose::langevin, step, 0, z);
      rng.uniforms<double>(Purpose::accept, step, 0, u);
      const double noise = std::sqrt(fault == Fault::noise_of_half ? h : 2 * h);
      for (Index r = 0; r < n; ++r) {
        moved(r, 0) = x(r, 0) + (fault == Fault::mirrored_drift ? -h : h) * score(r, 0) + noise * z(r, 0);
      }
      const MatrixD moved_score = model.score(moved, kSigma);
      const std::vector<double> moved_log_p = model.log_density(moved, kSigma);
      for (Index r = 0; r < n; ++r) {
        const std::size_t i = static_cast<std::size_t>(r);
        double q =
            std::pow(moved(r, 0) - x(r, 0) - h * score(r, 0), 2) - std::pow(x(r, 0) - moved(r, 0) - h * moved_score(r, 0), 2);
        q *= fault == Fault::no_q_ratio ? 0 : fault == Fault::inverted_q_ratio ? -1 : 1;
        double ratio = moved_log_p[i] - log_p[i] + q / (4 * h);
        if (fault == Fault::wrong_sign) ratio = -ratio;
        if (fault != Fault::always && std::log(u(r, 0)) > ratio) continue;
        x(r, 0) = moved(r, 0);
        if (fault != Fault::stale_score) score(r, 0) = moved_score(r, 0);
        if (fault != Fault::stale_log_p) log_p[i] = moved_log_p[i];
      }
    }
    return Matrix(x.view());
  };
  const NoiseLevels level({kSigma});
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const MatrixD start(noisy.sample(n, Rng{seed + 1000}).view());
    const Matrix faultless = run(Fault::none, seed);
    CHECK(ks(model, kSigma, faultless) <= critical(n));
    CHECK(same(faultless, Matrix(mala(model, level, start, kLong, Rng{seed}).x.view())));
  }
  for (const Fault fault : {Fault::no_q_ratio, Fault::inverted_q_ratio, Fault::wrong_sign, Fault::stale_log_p, Fault::stale_score,
                            Fault::always, Fault::noise_of_half, Fault::mirrored_drift}) {
    double least = 1;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) least = std::min(least, ks(model, kSigma, run(fault, seed)));
    CAPTURE(static_cast<int>(fault));
    // The distance scatters by less than .5 / sqrt(n) = .0035 around its shift: three of these beyond the bound are found > 99%.
    CHECK(least >= critical(n) + .0106);
  }
}

TEST_CASE("an energy up to a constant per level is all it needs, once per step and level") {
  const GaussianMixture exact = GaussianMixture::three_gaussians();
  const NoiseLevels levels = NoiseLevels::geometric(5, .1, 5);
  const EnergyOnly model(exact, 7.3);
  const MalaOptions options{.samples = 200, .steps_per_level = 8};
  set_threads(1);  // one chunk
  const MalaSamples s = mala(model, levels, options, Rng{4}), reference = mala(exact, levels, options, Rng{4});
  set_threads(0);
  CHECK(same(s.x, reference.x));
  CHECK(s.evaluations == 45);
  CHECK(model.calls == 45);
}

TEST_CASE("an energy network's score is its energy's gradient: short steps are accepted, long ones judged") {
  const EnergyNetwork model({.data_dim = 2, .hidden_dim = 16, .num_layers = 2}, Rng{1});
  const NoiseLevels levels({3, .5});
  // ln ratio is of third order in the step: sqrt(2 h)^3 at h = 5e-5 sigma^2 is 1e-6 times third derivatives in units of sigma.
  const MalaSamples fine = mala(model, levels, {.samples = 50, .steps_per_level = 5, .step_size_factor = 1e-4}, Rng{2});
  CHECK(fine.acceptance == std::vector<double>{1, 1});
  const MalaSamples coarse = mala(model, levels, {.samples = 50, .steps_per_level = 5, .step_size_factor = 3}, Rng{2});
  CHECK(coarse.acceptance[0] > .2);
  CHECK(coarse.acceptance[0] < .9);
}

TEST_CASE("threads, chunks and the number of samples leave the bits alone") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const NoiseLevels levels = NoiseLevels::geometric(20, .02, 6);
  MalaOptions options{.samples = 1300, .steps_per_level = 5, .denoise = true, .save_every = 13, .trajectory_rows = 700};
  const MalaSamples reference = mala(model, levels, options, Rng{3});
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    for (const Index chunk : {3, 256, 4096}) {
      options.chunk_rows = chunk;
      const MalaSamples s = mala(model, levels, options, Rng{3});
      CHECK(same(s.x, reference.x));
      CHECK(same(s.trajectory.back(), reference.trajectory.back()));
      CHECK(s.acceptance == reference.acceptance);
    }
  }
  set_threads(0);
  options.samples = 41;
  CHECK(same(mala(model, levels, options, Rng{3}).x, Matrix(reference.x.middle_rows(0, 41))));
  CHECK_FALSE(same(mala(model, levels, options, Rng{4}).x, Matrix(reference.x.middle_rows(0, 41))));
}

TEST_CASE("on exact mixtures 100 levels x 10 steps of 2 sigma^2 pass the energy test; acceptance rises towards 1") {
  const NoiseLevels levels = NoiseLevels::geometric(50, .01, 100);
  for (const GaussianMixture& truth : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal()}) {
    const MalaSamples s = mala(truth, levels, {.samples = 2000}, Rng{1});
    CHECK(energy_test(s.x, truth.sample(2000, Rng{100}), kAtOnce, Rng{101}).p_value > 1e-5);
    REQUIRE(s.acceptance.size() == 100);
    // On a Gaussian of variance v >> the data's the step h = sigma^2 = v is long: .68; at small sigma it is short beside the
    // data.
    CHECK(s.acceptance.front() == doctest::Approx(.68).epsilon(.02));
    CHECK(s.acceptance.back() > .99);
  }
}

TEST_CASE("a model without energy is told what to use; broken energies, empty runs and wrong options") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  const FunctionScore score(
      2, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) { model.score(y, sigma, nullptr, out); });
  CHECK_THROWS_WITH_AS(
      mala(score, levels, {}, Rng{1}),
      "mala: function knows its score but no energy, which the acceptance needs; use an exact mixture or an energy "
      "network, or a sampler without acceptance (annealed_langevin, predictor_corrector)",
      UsageError);
  const EnergyOnly nan(model, std::nan("")), infinite(model, -std::numeric_limits<double>::infinity());
  CHECK_THROWS_AS(mala(nan, levels, {.samples = 3}, Rng{1}), DivergedError);
  CHECK_THROWS_AS(mala(infinite, levels, {.samples = 3}, Rng{1}), DivergedError);
  CHECK(mala(model, levels, {.samples = 0}, Rng{1}).x.rows() == 0);
  const MalaSamples none = mala(model, levels, {.samples = 4, .steps_per_level = 0, .denoise = true}, Rng{1});
  CHECK(none.evaluations == 1);
  CHECK(none.acceptance == std::vector<double>(10, 0.));
  const auto run = [&](const MalaOptions& options) { mala(model, levels, options, Rng{1}); };
  CHECK_THROWS_AS(run({.samples = -1}), UsageError);
  CHECK_THROWS_AS(run({.steps_per_level = -1}), UsageError);
  CHECK_THROWS_AS(run({.steps_per_level = Index{1} << 30}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = 0}), UsageError);
  CHECK_THROWS_AS(run({.step_size_factor = std::nan("")}), UsageError);
  CHECK_THROWS_AS(run({.chunk_rows = 0}), UsageError);
  CHECK_THROWS_AS(mala(model, levels, Matrix(3, 3), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(mala(model, levels, Matrix{{1, std::nanf("")}}, {}, Rng{1}), UsageError);
  CHECK_NOTHROW(run({.samples = 10, .step_size_factor = 50}));  // no step is too long
  CHECK_THROWS_AS(run({.samples = 10, .progress = [](const SamplingProgress&) { return false; }}), CancelledError);
}
