// Heun, DDIM and DPM-Solver++ against the exact flow, their formulas written out, and each other.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "samplers/exact_flow.h"
#include "tweedie/core/parallel.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"

using namespace tweedie;
using test::linear_law;
using test::LinearLaw;

namespace {

constexpr Index kRows = 2000;  // a slope by the median is known to .008

// Median errors at sigma_min with 64, 128, 256 and 512 intervals.
template <class Sampler>
std::vector<double> errors_at_end(const GaussianMixture& model, const MatrixD& start, const MatrixD& exact,
                                  const Sampler& sampler) {
  std::vector<double> errors;
  for (const Index n : {64, 128, 256, 512}) {
    errors.push_back(test::median_error(sampler(model, karras(n + 1, .002, 80, 7, false), start), exact));
  }
  return errors;
}

// The methods written out once more, one thing wrong at a time.
enum class Fault {
  none,
  euler_only,      // Heun without its second half
  slope_at_start,  // the second slope at the old sigma
  old_state,       // the second slope at the old state
  no_correction,   // 2M without D_prev
  wrong_ratio,     // r = h / h_prev
  wrong_sign,      // D_prev's term added
  stale_memory,    // D_prev never renewed
};

MatrixD written_heun(const GaussianMixture& model, const std::vector<double>& sigmas, MatrixD x, Fault fault) {
  for (std::size_t k = 0; k + 1 < sigmas.size(); ++k) {
    const double from = sigmas[k], to = sigmas[k + 1];
    const MatrixD s = model.score(x, from);
    MatrixD end = x;
    for (Index i = 0; i < x.size(); ++i) end.data()[i] -= (to - from) * from * s.data()[i];
    if (fault == Fault::euler_only || to == 0) {
      x = end;
      continue;
    }
    const double second = fault == Fault::slope_at_start ? from : to;
    const MatrixD s2 = model.score(fault == Fault::old_state ? x : end, second);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] -= (to - from) * (from * s.data()[i] + second * s2.data()[i]) / 2;
  }
  return x;
}

MatrixD written_2m(const GaussianMixture& model, const std::vector<double>& sigmas, MatrixD x, Fault fault) {
  MatrixD previous;
  double h_previous = 0;
  for (std::size_t k = 0; k + 1 < sigmas.size(); ++k) {
    const double from = sigmas[k], to = sigmas[k + 1], h = std::log(from) - std::log(to);
    const MatrixD d = model.tweedie_mean(x, from);
    if (to == 0) return d;
    double r = fault == Fault::wrong_ratio ? h / h_previous : h_previous / h;
    if (fault == Fault::wrong_sign) r = -r;
    for (Index i = 0; i < x.size(); ++i) {
      double mix = d.data()[i];
      if (k > 0 && fault != Fault::no_correction) mix = (1 + 1 / (2 * r)) * mix - 1 / (2 * r) * previous.data()[i];
      x.data()[i] = to / from * x.data()[i] + (1 - std::exp(-h)) * mix;
    }
    if (k == 0 || fault != Fault::stale_memory) previous = d;
    h_previous = h;
  }
  return x;
}

}  // namespace

TEST_CASE("orders on an exact mixture: Euler (DDIM eta 0) 1, Heun 2, DPM-Solver++ 2M 2; and planted faults lose theirs") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const MatrixD start = test::start_at(80, kRows), exact = test::exact_flow(model, start, 80, .002);
  const Rng rng{1};
  const auto measured = [&](const auto& sampler) {
    const std::vector<double> p = test::orders(errors_at_end(model, start, exact, sampler));
    MESSAGE("orders ", p[0], " ", p[1], " ", p[2]);
    return p;
  };
  using Sigmas = std::vector<double>;
  const auto within = [](const std::vector<double>& p, double order) {
    return std::all_of(p.begin(), p.end(), [&](double q) { return std::abs(q - order) <= .1; });
  };
  CHECK(
      within(measured([&](const GaussianMixture& m, const Sigmas& s, const MatrixD& x) { return ddim(m, s, x, {}, rng).x; }), 1));
  CHECK(
      within(measured([&](const GaussianMixture& m, const Sigmas& s, const MatrixD& x) { return heun(m, s, x, {}, rng).x; }), 2));
  CHECK(within(
      measured([&](const GaussianMixture& m, const Sigmas& s, const MatrixD& x) { return dpm_solver_pp(m, s, x, {}, rng).x; }),
      2));
  for (const Fault fault : {Fault::euler_only, Fault::slope_at_start, Fault::old_state}) {
    CAPTURE(static_cast<int>(fault));
    CHECK_FALSE(within(
        measured([&](const GaussianMixture& m, const Sigmas& s, const MatrixD& x) { return written_heun(m, s, x, fault); }), 2));
  }
  for (const Fault fault : {Fault::no_correction, Fault::wrong_sign, Fault::stale_memory}) {
    CAPTURE(static_cast<int>(fault));
    CHECK_FALSE(within(
        measured([&](const GaussianMixture& m, const Sigmas& s, const MatrixD& x) { return written_2m(m, s, x, fault); }), 2));
  }
}

TEST_CASE("in double each equals its formula written out, the step to 0 included; the faults do not") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const std::vector<double> sigmas = karras(18, .002, 80);
  const MatrixD start = test::start_at(80, 40);
  // 18 steps that bring 80 down to 3, of a few roundings of 80 each: 1e-12.
  CHECK(test::largest_difference(heun(model, sigmas, start, {}, Rng{1}).x, written_heun(model, sigmas, start, Fault::none)) <=
        1e-11);
  CHECK(test::largest_difference(dpm_solver_pp(model, sigmas, start, {}, Rng{1}).x,
                                 written_2m(model, sigmas, start, Fault::none)) <= 1e-11);
  CHECK(test::largest_difference(dpm_solver_pp(model, sigmas, start, {}, Rng{1}).x,
                                 written_2m(model, sigmas, start, Fault::wrong_ratio)) > 1e-4);
  // DDIM without noise is Euler on the flow.
  CHECK(test::largest_difference(ddim(model, sigmas, start, {}, Rng{1}).x,
                                 written_heun(model, sigmas, start, Fault::euler_only)) <= 1e-11);
  // One step to 0 is the Tweedie mean for all three.
  const MatrixD mean = model.tweedie_mean(start, 80);
  CHECK(test::largest_difference(heun(model, {80, 0}, start, {}, Rng{1}).x, mean) <= 1e-11);
  CHECK(test::largest_difference(ddim(model, {80, 0}, start, {.eta = 1}, Rng{1}).x, mean) <= 1e-11);
  CHECK(test::largest_difference(dpm_solver_pp(model, {80, 0}, start, {.eta = 1}, Rng{1}).x, mean) <= 1e-11);
}

TEST_CASE("2M-SDE: the algorithm written out in double; its planted faults lose the weak order 2") {
  enum class SdeFault { none, noise_without_two, drift_without_eta, no_decay, half_correction };
  const double eta = .7;
  const auto written = [&](const GaussianMixture& model, const std::vector<double>& sigmas, MatrixD x, const Rng& rng,
                           SdeFault fault) {
    MatrixD before, z(x.rows(), x.cols());
    double h_before = 0;
    for (std::size_t k = 0; k + 1 < sigmas.size(); ++k) {
      const double from = sigmas[k], to = sigmas[k + 1], h = std::log(from / to);
      const MatrixD d = model.tweedie_mean(x, from);
      if (to == 0) return d;
      const double a = 1 - std::exp(-h * (fault == SdeFault::drift_without_eta ? 1 : 1 + eta));
      const double decay = fault == SdeFault::no_decay ? 1 : std::exp(-eta * h);
      const double noise = to * std::sqrt(1 - std::exp((fault == SdeFault::noise_without_two ? -1 : -2) * eta * h));
      const double slope = k == 0 ? 0 : a / (fault == SdeFault::half_correction ? 4 : 2) * h / h_before;
      rng.normals<double>(Purpose::sde, static_cast<std::uint32_t>(k), 0, z);
      for (Index i = 0; i < x.size(); ++i) {
        const double turn = k == 0 ? 0 : d.data()[i] - before.data()[i];
        x.data()[i] = to / from * decay * x.data()[i] + a * d.data()[i] + slope * turn + noise * z.data()[i];
      }
      before = d;
      h_before = h;
    }
    return x;
  };
  const GaussianMixture mixture = GaussianMixture::three_gaussians_unequal();
  const std::vector<double> sigmas = karras(18, .002, 80);
  const MatrixD start = test::start_at(80, 40);
  CHECK(test::largest_difference(dpm_solver_pp(mixture, sigmas, start, {.eta = eta}, Rng{4}).x,
                                 written(mixture, sigmas, start, Rng{4}, SdeFault::none)) <= 1e-11);
  const GaussianMixture gaussian = GaussianMixture::gaussian(1);
  const auto order = [&](SdeFault fault) {
    std::vector<double> errors;
    for (const Index n : {64, 128}) {
      const std::vector<double> levels = geometric_schedule(n + 1, .05, 20, false);
      const auto chain = [&](ConstRows<double> x, const Rng& rng) { return written(gaussian, levels, MatrixD(x), rng, fault); };
      errors.push_back(linear_law(chain, test::draws_of_steps(n)).variance(401) - 1.0025);
    }
    return test::orders(errors)[0];
  };
  CHECK(std::abs(order(SdeFault::none) - 2) <= .1);
  for (const SdeFault fault :
       {SdeFault::noise_without_two, SdeFault::drift_without_eta, SdeFault::no_decay, SdeFault::half_correction}) {
    CAPTURE(static_cast<int>(fault));
    CHECK(std::abs(order(fault) - 2) > .5);
  }
}

TEST_CASE("weak orders on a Gaussian from the chain's exact law: DDIM eta 1 order 1, 2M-SDE order 2 at eta 1 and .5") {
  // Data N(0, 1) from sigma = 20 to .05: the law asked for is N(0, 1 + .05^2), from N(0, 1 + 20^2).
  const GaussianMixture model = GaussianMixture::gaussian(1);
  const auto errors = [&](const auto& sampler) {
    std::vector<double> result;
    for (const Index n : {32, 64, 128, 256}) {
      const std::vector<double> sigmas = geometric_schedule(n + 1, .05, 20, false);
      const LinearLaw law =
          linear_law([&](ConstRows<double> x, const Rng& rng) { return sampler(sigmas, x, rng); }, test::draws_of_steps(n));
      CHECK(law.residual <= 1e-11);
      result.push_back(law.variance(401) - 1.0025);
    }
    const std::vector<double> p = test::orders(result);
    MESSAGE("weak orders ", p[0], " ", p[1], " ", p[2], ", last error ", result.back());
    return p;
  };
  using Sigmas = std::vector<double>;
  CHECK(std::abs(errors([&](const Sigmas& s, ConstRows<double> x, const Rng& rng) {
                   return ddim(model, s, x, {.eta = 1}, rng).x;
                 })[2] -
                 1) <= .1);
  for (const double eta : {1., .5}) {
    CHECK(std::abs(errors([&](const Sigmas& s, ConstRows<double> x, const Rng& rng) {
                     return dpm_solver_pp(model, s, x, {.eta = eta}, rng).x;
                   })[2] -
                   2) <= .1);
  }
}

TEST_CASE("DDIM's noise: in one step the law is exact, whatever eta, where the data are one point") {
  // Data at 0: s = -x / sigma^2, x0 = 0, and x' has the variance sigma'^2 [(1 - eta^2 tau) + eta^2 tau] = sigma'^2.
  const FunctionScore point(1, [](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = -y(r, 0) / (sigma[0] * sigma[0]);
  });
  for (const double eta : {0., .3, 1.}) {
    for (const double to : {4.9, 2., .01}) {
      const auto run = [&](ConstRows<double> x, const Rng& rng) { return ddim(point, {5, to}, x, {.eta = eta}, rng).x; };
      const LinearLaw law = linear_law(run, test::draws_of_steps(1));
      CHECK(law.variance(25) == doctest::Approx(to * to).epsilon(1e-12));
      const double tau = 1 - to * to / 25;
      CHECK(law.noise_variance == doctest::Approx(to * to * eta * eta * tau).epsilon(1e-12));
    }
    // The SDE solver has the same property for any eta: e^{-2h} e^{-2 eta h} + 1 - e^{-2 eta h} of sigma'^2 / e^{-2h}.
    const auto run = [&](ConstRows<double> x, const Rng& rng) { return dpm_solver_pp(point, {5, 2}, x, {.eta = eta}, rng).x; };
    CHECK(linear_law(run, test::draws_of_steps(1)).variance(25) == doctest::Approx(4).epsilon(1e-12));
  }
}

TEST_CASE(
    "churn: sigma raised by gamma inside [S_tmin, S_tmax], the noise S_noise sqrt(t^2 - sigma^2), gamma capped at sqrt(2) - 1") {
  const GaussianMixture model = GaussianMixture::gaussian(1);
  const std::vector<double> sigmas = {4, 2, 1, .5, 0};
  for (const double s_churn : {.8, 40.}) {
    const HeunOptions options{.s_churn = s_churn, .s_tmin = .7, .s_tmax = 3, .s_noise = 1.1};
    double gain = 1, variance = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const double gamma = i == 1 || i == 2 ? std::min(s_churn / 4, std::sqrt(2.) - 1) : 0;
      const double t = sigmas[i] * (1 + gamma), to = sigmas[i + 1];
      variance += 1.21 * (t * t - sigmas[i] * sigmas[i]);
      const auto slope = [](double s) { return s / (1 + s * s); };  // of the flow dx/dsigma = sigma x / (1 + sigma^2)
      const double euler = 1 + (to - t) * slope(t), step = to == 0 ? euler : 1 + (to - t) * (slope(t) + slope(to) * euler) / 2;
      gain *= step;
      variance *= step * step;
    }
    const LinearLaw law =
        linear_law([&](ConstRows<double> x, const Rng& rng) { return heun(model, sigmas, x, options, rng).x; }, {{1, 0}, {2, 0}});
    CHECK(law.residual <= 1e-13);
    CHECK(law.gain == doctest::Approx(gain).epsilon(1e-12));
    CHECK(law.noise_variance == doctest::Approx(variance).epsilon(1e-12));
  }
}

TEST_CASE("evaluations: EDM's 18 intervals are 35, the others' one each; of no rows too") {
  const GaussianMixture model = GaussianMixture::two_mode();
  for (const Index n : {0, 5}) {
    CHECK(heun(model, karras(18, .002, 80), {.samples = n}, Rng{1}).evaluations == 35);
    CHECK(heun(model, karras(18, .002, 80, 7, false), {.samples = n}, Rng{1}).evaluations == 34);
    CHECK(ddim(model, karras(18, .002, 80), {.samples = n}, Rng{1}).evaluations == 18);
    CHECK(dpm_solver_pp(model, karras(18, .002, 80), {.samples = n}, Rng{1}).evaluations == 18);
  }
  // Counted at the model, a single chunk.
  int calls = 0;
  const FunctionScore counting(2, [&](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    ++calls;
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 0;
  });
  const auto counted = [&](const Samples& s) { return std::exchange(calls, 0) == s.evaluations; };
  CHECK(counted(heun(counting, karras(18, .002, 80), {.samples = 5}, Rng{1})));
  CHECK(counted(ddim(counting, karras(18, .002, 80), {.samples = 5}, Rng{1})));
  CHECK(counted(dpm_solver_pp(counting, karras(18, .002, 80), {.samples = 5}, Rng{1})));
}

TEST_CASE("threads, chunks and the number of samples leave the bits alone") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const std::vector<double> sigmas = karras(10, .01, 50);
  const auto check_sampler = [&](const auto& sampler) {
    const Samples reference = sampler(700, 512);
    const auto same = [&](const Samples& s, Index rows) {
      return s.x.rows() >= rows && std::equal(s.x.data(), s.x.data() + rows * 2, reference.x.data());
    };
    for (const int count : {1, 3}) {
      set_threads(count);
      for (const Index chunk : {1, 7, 256, 4096}) CHECK(same(sampler(700, chunk), 700));
    }
    set_threads(0);
    CHECK(same(sampler(41, 512), 41));
  };
  check_sampler(
      [&](Index n, Index chunk) { return heun(model, sigmas, {.samples = n, .s_churn = 5, .chunk_rows = chunk}, Rng{3}); });
  check_sampler([&](Index n, Index chunk) { return ddim(model, sigmas, {.samples = n, .eta = 1, .chunk_rows = chunk}, Rng{3}); });
  check_sampler(
      [&](Index n, Index chunk) { return dpm_solver_pp(model, sigmas, {.samples = n, .eta = 1, .chunk_rows = chunk}, Rng{3}); });
}

TEST_CASE("float and double runs agree, a start replaces the prior, the trajectory's frames are states") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const std::vector<double> sigmas = karras(6, .1, 10);
  const Samples prior = heun(model, sigmas, {.samples = 30, .save_every = 3, .trajectory_rows = 20}, Rng{3});
  REQUIRE(prior.trajectory.size() == 3);
  CHECK(prior.trajectory_steps == std::vector<std::int64_t>{0, 3, 6});
  CHECK(prior.trajectory[2].rows() == 20);
  CHECK(prior.trajectory[2](7, 1) == prior.x(7, 1));
  MatrixD z(30, 2);
  Rng{3}.normals<double>(Purpose::prior, 0, 0, z);
  for (Index i = 0; i < z.size(); ++i) z.data()[i] *= 10;
  CHECK(prior.trajectory[0](7, 1) == static_cast<float>(z(7, 1)));
  const SamplesD d = heun(model, sigmas, z, {}, Rng{9});
  // Some 12 float evaluations at |x| <= 30, two-mode slopes up to a few times: 30 eps (6e-8) times ten.
  CHECK(test::largest_difference(MatrixD(prior.x.view()), d.x) <= 2e-5);
  CHECK(heun(model, sigmas, Matrix(z.view()), {}, Rng{9}).x(7, 1) == prior.x(7, 1));
}

TEST_CASE("what is refused, and what diverges") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const Rng rng{1};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::vector<double>> bad = {
      {}, {1}, {1, 1}, {1, 2}, {2, 1, -1}, {nan, 1}, {2, nan}, {2, nan, 0}, {std::numeric_limits<double>::infinity(), 1}};
  for (const std::vector<double>& sigmas : bad) {
    CHECK_THROWS_AS(heun(model, sigmas, {}, rng), UsageError);
    CHECK_THROWS_AS(ddim(model, sigmas, {}, rng), UsageError);
    CHECK_THROWS_AS(dpm_solver_pp(model, sigmas, {}, rng), UsageError);
    CHECK_THROWS_AS(dpm_solver_pp(model, sigmas, MatrixD(3, 2), {}, rng), UsageError);
  }
  const std::vector<double> sigmas = {2, 1, 0};
  CHECK_THROWS_WITH_AS(ddim(model, sigmas, {.eta = 1.5}, rng),
                       "ddim: eta = 1.5 must lie in [0, 1]: 0 is the flow, 1 is ancestral", UsageError);
  CHECK_THROWS_AS(ddim(model, sigmas, {.eta = nan}, rng), UsageError);
  CHECK_THROWS_AS(ddim(model, sigmas, {.samples = -1}, rng), UsageError);
  CHECK_THROWS_AS(ddim(model, sigmas, MatrixD(4, 3), {}, rng), UsageError);
  CHECK_THROWS_AS(ddim(model, sigmas, {.chunk_rows = 0}, rng), UsageError);
  CHECK_THROWS_AS(dpm_solver_pp(model, sigmas, {.eta = -1}, rng), UsageError);
  CHECK_THROWS_AS(heun(model, sigmas, {.s_churn = -1}, rng), UsageError);
  CHECK_THROWS_AS(heun(model, sigmas, {.s_noise = nan}, rng), UsageError);
  CHECK_THROWS_AS(heun(model, sigmas, {.s_tmin = 3, .s_tmax = 2}, rng), UsageError);

  const FunctionScore wild(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 1e9;
  });
  CHECK_THROWS_WITH_AS(ddim(wild, sigmas, MatrixD(3, 2), {}, rng),
                       "ddim: diverged at step 0 of 2 (sigma = 2): |x| is beyond 2e+06 or not a number; use more intervals, or "
                       "train the model further",
                       DivergedError);
  CHECK_THROWS_AS(heun(wild, sigmas, {.samples = 3}, rng), DivergedError);
  CHECK_THROWS_AS(dpm_solver_pp(wild, sigmas, {.samples = 3}, rng), DivergedError);
  CHECK_THROWS_AS(heun(model, sigmas, {.progress = [](const SamplingProgress&) { return false; }}, rng), CancelledError);
}
