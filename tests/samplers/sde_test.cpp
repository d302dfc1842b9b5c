// The reverse SDE, DDPM and predictor-corrector against their formulas written out and against exact laws on Gaussians.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "samplers/exact_flow.h"
#include "tweedie/core/parallel.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/reverse_sde.h"

using namespace tweedie;
using test::Draw;
using test::linear_law;
using test::LinearLaw;

namespace {

// The methods written out once more, one thing wrong at a time.
enum class Fault {
  none,
  half_drift,       // the flow's g^2/2 with the SDE's noise
  forward_drift,    // f with the other sign
  stale_noise,      // every draw used twice
  large_noise,      // g dt^(1/2) 5% too large
  no_alpha,         // the score not divided by alpha
  corrector_sqrt,   // sqrt(e) for sqrt(2 e)
  corrector_late,   // the corrector at the next sigma
  linear_predictor  // sigma - sigma' squared for sigma^2 - sigma'^2
};

MatrixD written_em(const GaussianMixture& model, const Process& p, const std::vector<double>& t, MatrixD x, const Rng& rng,
                   Fault fault) {
  MatrixD y = x, z(x.rows(), x.cols());
  for (std::size_t i = 0; i + 1 < t.size(); ++i) {
    const double alpha = p.alpha(t[i]), dt = t[i] - t[i + 1], g = std::sqrt(p.g_squared(t[i]));
    const double f = fault == Fault::forward_drift ? -p.f(t[i]) : p.f(t[i]);
    for (Index j = 0; j < x.size(); ++j) y.data()[j] = x.data()[j] / alpha;
    const MatrixD s = model.score(y, p.sigma(t[i]) / alpha);
    rng.normals<double>(Purpose::sde, static_cast<std::uint32_t>(fault == Fault::stale_noise ? i / 2 : i), 0, z);
    for (Index j = 0; j < x.size(); ++j) {
      const double score = fault == Fault::no_alpha ? s.data()[j] : s.data()[j] / alpha;
      x.data()[j] -= (f * x.data()[j] - (fault == Fault::half_drift ? .5 : 1) * g * g * score) * dt;
      if (i + 2 < t.size()) x.data()[j] += (fault == Fault::large_noise ? 1.05 : 1) * g * std::sqrt(dt) * z.data()[j];
    }
  }
  return x;
}

std::vector<double> uniform_times(const Process& p, Index steps) {
  std::vector<double> t;
  for (Index i = 0; i <= steps; ++i) {
    t.push_back(p.t_max() + static_cast<double>(i) / static_cast<double>(steps) * (p.t_min_sampling() - p.t_max()));
  }
  return t;
}

double norm_mean(const MatrixD& x) {
  double sum = 0;
  for (Index r = 0; r < x.rows(); ++r) sum += std::hypot(x(r, 0), x.cols() > 1 ? x(r, 1) : 0);
  return sum / static_cast<double>(x.rows());
}

MatrixD written_pc(const GaussianMixture& model, const std::vector<double>& sigmas, MatrixD x, const Rng& rng,
                   const PredictorCorrectorOptions& o, Fault fault) {
  MatrixD z(x.rows(), x.cols());
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double from = sigmas[i], to = sigmas[i + 1];
    for (Index k = 0; k < o.corrector_steps; ++k) {
      const double at = fault == Fault::corrector_late && to > 0 ? to : from;
      const MatrixD s = model.score(x, at);
      rng.normals<double>(Purpose::sde, static_cast<std::uint32_t>(i), 0, z, static_cast<std::uint32_t>(k + 1));
      const double ratio = o.norms == CorrectorNorms::batch ? norm_mean(z) / norm_mean(s) : at;
      const double e = 2 * std::pow(o.snr * ratio, 2), noise = std::sqrt(fault == Fault::corrector_sqrt ? e : 2 * e);
      for (Index j = 0; j < x.size(); ++j) x.data()[j] += e * s.data()[j] + noise * z.data()[j];
    }
    const double g2 = fault == Fault::linear_predictor ? (from - to) * (from - to) : from * from - to * to;
    const MatrixD s = model.score(x, from);
    rng.normals<double>(Purpose::sde, static_cast<std::uint32_t>(i), 0, z);
    for (Index j = 0; j < x.size(); ++j) x.data()[j] += g2 * s.data()[j] + (to > 0 ? std::sqrt(g2) * z.data()[j] : 0);
  }
  return x;
}

std::vector<Draw> pc_draws(std::size_t steps, Index corrector_steps) {
  std::vector<Draw> draws;
  for (std::uint32_t i = 0; i < steps; ++i) {
    for (std::uint32_t k = 0; k <= corrector_steps; ++k) draws.emplace_back(i, k);
  }
  return draws;
}

}  // namespace

TEST_CASE("reverse SDE: in double the algorithm written out, on every process") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  for (const Process& p : {ve(), vp(), sub_vp(), edm()}) {
    CAPTURE(p.name());
    const MatrixD start = test::start_at(p.prior_std(), 30);
    const std::vector<double> t = p.kind() == ProcessKind::edm ? karras(41, .002, 80, 7, false) : uniform_times(p, 40);
    const MatrixD x = reverse_sde(model, p, start, {.steps = 40}, Rng{5}).x;
    // 40 steps of a few roundings of |x| <= 300: 300 x 40 x 1e-16 and some more where the score is steep.
    CHECK(test::largest_difference(x, written_em(model, p, t, start, Rng{5}, Fault::none)) <= 1e-9);
  }
}

TEST_CASE("Euler-Maruyama is of weak order 1 on VP by the chain's exact law; planted faults do not converge") {
  const double scale = 1;
  const GaussianMixture model = GaussianMixture::gaussian(1, scale);
  const Process p = vp();
  const auto variance_at = [&](double t) { return std::pow(p.alpha(t) * scale, 2) + std::pow(p.sigma(t), 2); };
  const auto error = [&](Index steps, Fault fault, bool library) {
    const LinearLaw law = linear_law(
        [&](ConstRows<double> x, const Rng& rng) {
          if (library) return reverse_sde(model, p, x, {.steps = steps}, rng).x;
          return written_em(model, p, uniform_times(p, steps), MatrixD(x), rng, fault);
        },
        test::draws_of_steps(steps - 1));
    CHECK(law.residual <= 1e-10);
    return law.variance(variance_at(1)) - variance_at(p.t_min_sampling());
  };
  const std::vector<double> errors = {error(128, Fault::none, true), error(256, Fault::none, true),
                                      error(512, Fault::none, true)};
  const std::vector<double> order = test::orders(errors);
  MESSAGE("weak orders ", order[0], " ", order[1], ", last error ", errors.back());
  CHECK(std::abs(order[1] - 1) <= .1);
  CHECK(error(128, Fault::none, false) == doctest::Approx(errors[0]).epsilon(1e-8));
  for (const Fault fault : {Fault::half_drift, Fault::forward_drift, Fault::stale_noise, Fault::large_noise, Fault::no_alpha}) {
    CAPTURE(static_cast<int>(fault));
    const std::vector<double> wrong = test::orders({error(64, fault, false), error(128, fault, false), error(256, fault, false)});
    MESSAGE("fault ", static_cast<int>(fault), ": orders ", wrong[0], " ", wrong[1]);
    CHECK(std::abs(wrong[1] - 1) > .1);
  }
}

TEST_CASE("DDPM's ancestral chain is DDIM at eta 1: coefficients and whole runs agree to rounding") {
  const Process p = vp();
  for (const int n : {10, 100, 1000}) {
    for (int i = 1; i < n; ++i) {
      const double t = static_cast<double>(i + 1) / n, next = static_cast<double>(i) / n;
      const double a = p.alpha(t) / p.alpha(next), b = 1 - a * a;
      // DDIM's x_s = a_s x0 + s_s sqrt(1 - tau) (x_t - a_t x0) / s_t + s_s sqrt(tau) z with x0 = (x_t + s_t^2 s) / a_t.
      const double tau = 1 - std::pow(p.alpha(t) * p.sigma(next) / (p.alpha(next) * p.sigma(t)), 2);
      const double on_x = p.alpha(next) / p.alpha(t);
      const double on_score = p.sigma(t) * (on_x * p.sigma(t) - p.sigma(next) * std::sqrt(1 - tau));
      CHECK(1 / a == doctest::Approx(on_x).epsilon(1e-13));
      // b cancels 1 - a^2: 1e-16 over b >= 1e-4.
      CHECK(b / a == doctest::Approx(on_score).epsilon(1e-11));
      CHECK(std::sqrt(b) * p.sigma(next) / p.sigma(t) == doctest::Approx(p.sigma(next) * std::sqrt(tau)).epsilon(1e-11));
    }
  }
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const Index n = 100;
  std::vector<double> sigmas;
  for (Index i = 0; i < n; ++i) sigmas.push_back(p.ratio(static_cast<double>(n - i) / static_cast<double>(n)));
  sigmas.push_back(0);
  const MatrixD start = test::start_at(1, 50);
  MatrixD unit = start;
  for (Index i = 0; i < unit.size(); ++i) unit.data()[i] /= p.alpha(1);
  const SamplesD chain = ddpm(model, p, start, {.steps = n}, Rng{6}), family = ddim(model, sigmas, unit, {.eta = 1}, Rng{6});
  // |y| starts at some 400: 100 roundings of 400.
  CHECK(test::largest_difference(chain.x, family.x) <= 1e-9);
  CHECK(chain.evaluations == family.evaluations);
}

TEST_CASE("predictor-corrector: the algorithm written out, with expected and with batch norms") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const std::vector<double> sigmas = geometric_schedule(30, .01, 50);
  const MatrixD start = test::start_at(50, 30);
  for (const CorrectorNorms norms : {CorrectorNorms::expected, CorrectorNorms::batch}) {
    for (const Index corrector_steps : {0, 1, 3}) {
      const PredictorCorrectorOptions options{.corrector_steps = corrector_steps, .norms = norms};
      const SamplesD s = predictor_corrector(model, sigmas, start, options, Rng{5});
      CHECK(s.evaluations == 30 * (1 + corrector_steps));
      CHECK(test::largest_difference(s.x, written_pc(model, sigmas, start, Rng{5}, options, Fault::none)) <= 1e-9);
      if (corrector_steps == 0) continue;
      for (const Fault fault : {Fault::corrector_sqrt, Fault::corrector_late, Fault::linear_predictor}) {
        CHECK(test::largest_difference(s.x, written_pc(model, sigmas, start, Rng{5}, options, fault)) > 1e-3);
      }
    }
  }
}

TEST_CASE("predictor-corrector by its exact law on a Gaussian: the predictor is of weak order 1, correctors follow theirs") {
  const GaussianMixture model = GaussianMixture::gaussian(1);
  // Data N(0, 1) from sigma = 20 to .05: from the variance 401 to 1.0025.
  const auto predictor_order = [&](const auto& run) {
    std::vector<double> errors;
    for (const Index n : {64, 128, 256}) {
      const std::vector<double> sigmas = geometric_schedule(n + 1, .05, 20, false);
      const auto chain = [&](ConstRows<double> x, const Rng& rng) { return run(sigmas, x, rng); };
      const LinearLaw law = linear_law(chain, test::draws_of_steps(n));
      CHECK(law.residual <= 1e-10);
      errors.push_back(law.variance(401) - 1.0025);
    }
    const std::vector<double> order = test::orders(errors);
    MESSAGE("weak orders ", order[0], " ", order[1], ", last error ", errors.back());
    return order[1];
  };
  const PredictorCorrectorOptions predictor{.corrector_steps = 0};
  CHECK(std::abs(predictor_order([&](const std::vector<double>& s, ConstRows<double> x, const Rng& rng) {
                   return predictor_corrector(model, s, x, predictor, rng).x;
                 }) -
                 1) <= .1);
  CHECK(std::abs(predictor_order([&](const std::vector<double>& s, ConstRows<double> x, const Rng& rng) {
                   return written_pc(model, s, MatrixD(x), rng, predictor, Fault::linear_predictor);
                 }) -
                 1) > .1);
  // Correctors at sigma = 2, v = 5: V <- (1 - e/v)^2 V + 2 e five times, e = 2 (.16 x 2)^2; then the mean of the step to 0.
  const auto law = [&](const auto& run) { return linear_law(run, pc_draws(1, 5)); };
  const PredictorCorrectorOptions five{.corrector_steps = 5};
  const double e = 2 * .32 * .32;
  double gain = 1, variance = 0;
  for (int k = 0; k < 5; ++k) {
    gain *= 1 - e / 5;
    variance = (1 - e / 5) * (1 - e / 5) * variance + 2 * e;
  }
  const double mean = 1 - 4. / 5;
  const LinearLaw measured = law([&](ConstRows<double> x, const Rng& rng) {
    return predictor_corrector(model, {2, 0}, x, five, rng).x;
  });
  CHECK(measured.gain == doctest::Approx(gain * mean).epsilon(1e-12));
  CHECK(measured.noise_variance == doctest::Approx(variance * mean * mean).epsilon(1e-12));
  const LinearLaw faulty = law([&](ConstRows<double> x, const Rng& rng) {
    return written_pc(model, {2, 0}, MatrixD(x), rng, five, Fault::corrector_sqrt);
  });
  CHECK(faulty.noise_variance < .6 * measured.noise_variance);
}

TEST_CASE("threads, chunks and the number of samples leave the bits alone; batch norms depend on the batch alone") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  const std::vector<double> sigmas = geometric_schedule(8, .01, 50);
  const auto check_sampler = [&](const auto& sampler, bool rows_independent) {
    const Samples reference = sampler(700, 512);
    const auto same = [&](const Samples& s, Index rows) {
      return s.x.rows() >= rows && std::equal(s.x.data(), s.x.data() + rows * 2, reference.x.data());
    };
    for (const int count : {1, 3}) {
      set_threads(count);
      for (const Index chunk : {1, 7, 256, 4096}) CHECK(same(sampler(700, chunk), 700));
    }
    set_threads(0);
    CHECK(same(sampler(41, 512), 41) == rows_independent);
  };
  check_sampler(
      [&](Index n, Index chunk) { return reverse_sde(model, vp(), {.samples = n, .steps = 9, .chunk_rows = chunk}, Rng{3}); },
      true);
  check_sampler([&](Index n, Index chunk) { return ddpm(model, vp(), {.samples = n, .steps = 9, .chunk_rows = chunk}, Rng{3}); },
                true);
  for (const CorrectorNorms norms : {CorrectorNorms::expected, CorrectorNorms::batch}) {
    check_sampler(
        [&](Index n, Index chunk) {
          return predictor_corrector(model, sigmas, {.samples = n, .norms = norms, .chunk_rows = chunk}, Rng{3});
        },
        norms == CorrectorNorms::expected);
  }
}

TEST_CASE("evaluations counted at the model, starts, float beside double") {
  int calls = 0;
  const FunctionScore counting(2, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    ++calls;
    for (Index r = 0; r < y.rows(); ++r) {
      for (Index c = 0; c < 2; ++c) out(r, c) = -y(r, c) / (1 + sigma[0] * sigma[0]);
    }
  });
  const auto counted = [&](std::int64_t evaluations) { return std::exchange(calls, 0) == evaluations; };
  CHECK(counted(reverse_sde(counting, ve(), {.samples = 5, .steps = 7}, Rng{1}).evaluations));
  CHECK(counted(ddpm(counting, vp(), {.samples = 5, .steps = 7}, Rng{1}).evaluations));
  const std::vector<double> sigmas = geometric_schedule(6, .1, 10);
  CHECK(counted(predictor_corrector(counting, sigmas, {.samples = 5, .corrector_steps = 2}, Rng{1}).evaluations));
  CHECK(reverse_sde(counting, ve(), {.samples = 0, .steps = 7}, Rng{1}).evaluations == 7);
  CHECK(predictor_corrector(counting, sigmas, {.samples = 0, .norms = CorrectorNorms::batch}, Rng{1}).evaluations == 12);

  const Samples s = reverse_sde(counting, ve(), {.samples = 20, .steps = 50, .save_every = 50}, Rng{3});
  const SamplesD d = reverse_sde(counting, ve(), MatrixD(s.trajectory[0].view()), {.steps = 50}, Rng{3});
  // 50 steps of |x| <= 200 in float, contracted to |x| of a few: 200 x 6e-8 x a few.
  CHECK(test::largest_difference(MatrixD(s.x.view()), d.x) <= 1e-4);
  CHECK(reverse_sde(counting, ve(), s.trajectory[0], {.steps = 50}, Rng{3}).x(3, 1) == s.x(3, 1));
}

TEST_CASE("what is refused, and what diverges") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const Rng rng{1};
  const std::vector<double> sigmas = {2, 1, 0};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(reverse_sde(model, ve(), {.steps = 0}, rng), UsageError);
  CHECK_THROWS_AS(reverse_sde(model, ve(), {.samples = -1}, rng), UsageError);
  CHECK_THROWS_AS(reverse_sde(model, ve(), MatrixD(3, 1), {}, rng), UsageError);
  CHECK_THROWS_AS(reverse_sde(model, ve(), MatrixD{{nan, 1}}, {}, rng), UsageError);
  CHECK_THROWS_AS(ddpm(model, vp(), {.steps = 0}, rng), UsageError);
  CHECK_THROWS_WITH_AS(ddpm(model, sub_vp(), {}, rng),
                       "ddpm: the chain is defined for the vp process, not for sub_vp; use ddim with eta = 1 there", UsageError);
  for (const double snr : {0., 1., -1., nan}) CHECK_THROWS_AS(predictor_corrector(model, sigmas, {.snr = snr}, rng), UsageError);
  CHECK_THROWS_AS(predictor_corrector(model, sigmas, {.corrector_steps = -1}, rng), UsageError);
  CHECK_THROWS_AS(predictor_corrector(model, {1, 2}, {}, rng), UsageError);
  CHECK(corrector_norms("batch") == CorrectorNorms::batch);
  CHECK(corrector_norms(to_string(CorrectorNorms::expected)) == CorrectorNorms::expected);
  CHECK_THROWS_AS(corrector_norms("sample"), UsageError);

  const FunctionScore wild(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 1e12;
  });
  CHECK_THROWS_AS(reverse_sde(wild, ve(), {.samples = 3, .steps = 5}, rng), DivergedError);
  CHECK_THROWS_AS(ddpm(wild, vp(), {.samples = 3, .steps = 5}, rng), DivergedError);
  CHECK_THROWS_AS(predictor_corrector(wild, sigmas, {.samples = 3}, rng), DivergedError);
  // A score of 0 has no norm to divide by.
  const FunctionScore flat(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 0;
  });
  CHECK_THROWS_AS(predictor_corrector(flat, sigmas, {.samples = 3, .norms = CorrectorNorms::batch}, rng), DivergedError);
}
