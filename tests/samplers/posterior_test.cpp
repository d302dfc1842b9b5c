// SPDX-License-Identifier: MIT
#include "tweedie/samplers/posterior.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "samplers/gaussian_law.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/noise_levels.h"

using namespace tweedie;
using test::Column;
using test::GaussianLaw;
using test::Square;

namespace {

constexpr double kZ = 5.4;  // two-sided tail 7e-8

bool same(const MatrixD& a, const MatrixD& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

double farthest(const MatrixD& a, const MatrixD& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

const MatrixD kMean{{.5, -1, .2}}, kCovariance{{1, .7, .2}, {.7, .9, -.3}, {.2, -.3, .8}};
GaussianMixture gaussian() { return GaussianMixture({1}, kMean, {kCovariance}); }
GaussianMixture three_dimensional() {
  return GaussianMixture({.5, .5}, {{1, -1, .5}, {-1, .5, 1}}, {kCovariance, {{.5, 0, .1}, {0, .7, .2}, {.1, .2, .4}}});
}
// Two rows that are not orthogonal, with noises of their own.
LinearObservation two_rows() { return {{{1, .5, 0}, {-.3, .2, 2}}, {.04, .25}}; }

std::vector<double> to_zero(const NoiseLevels& levels) {
  std::vector<double> sigmas(levels.values().begin(), levels.values().end());
  sigmas.push_back(0);
  return sigmas;
}

Column column(ConstRows<double> x, Index row) { return x.middle_rows(row, 1).eigen().transpose(); }

// The guided denoiser written from the formulas, J by central differences of the exact Tweedie mean (error about 1e-9).
struct Written {
  const GaussianMixture& model;
  const LinearObservation& observation;
  Column y;

  Column mean(const Column& x, double sigma) const {
    MatrixD row(1, x.size());
    row.eigen() = x.transpose();
    return column(model.tweedie_mean(row, sigma), 0);
  }
  Square jacobian(const Column& x, double sigma) const {
    Square j(x.size(), x.size());
    const double step = 1e-5 * std::max(1., sigma);
    for (Index k = 0; k < x.size(); ++k) {
      const Column e = Column::Unit(x.size(), k) * step;
      j.col(k) = (mean(x + e, sigma) - mean(x - e, sigma)) / (2 * step);
    }
    return j;
  }
  Square a() const { return observation.a.eigen(); }
  Square noise() const {
    Square s = Square::Zero(observation.a.rows(), observation.a.rows());
    for (Index m = 0; m < s.rows(); ++m) s(m, m) = observation.variance(m);
    return s;
  }
  Column residual(const Column& x0) const { return y - a() * x0; }
  Column guided(PosteriorMethod method, const Column& x, double sigma) const {
    const Column x0 = mean(x, sigma), r = residual(x0);
    if (method == PosteriorMethod::dps) return x0;
    const Square j = jacobian(x, sigma);
    if (method == PosteriorMethod::pigdm) {
      const double variance = sigma * sigma / (1 + sigma * sigma);
      return x0 + variance * j.transpose() * a().transpose() * (test::inverse(variance * a() * a().transpose() + noise()) * r);
    }
    const Square covariance = sigma * sigma * .5 * (j + j.transpose());
    return x0 + covariance * a().transpose() * (test::inverse(noise() + a() * covariance * a().transpose()) * r);
  }
  // -zeta grad |y - A x0(x)|, the gradient by central differences.
  Column dps_shift(const Column& x, double sigma, double zeta) const {
    Column shift(x.size());
    const double step = 1e-5 * std::max(1., sigma);
    for (Index k = 0; k < x.size(); ++k) {
      const Column e = Column::Unit(x.size(), k) * step;
      shift(k) = -zeta * (residual(mean(x + e, sigma)).norm() - residual(mean(x - e, sigma)).norm()) / (2 * step);
    }
    return shift;
  }
};

}  // namespace

TEST_CASE("the exact posterior of a mixture is prior times likelihood, up to a constant") {
  const GaussianMixture prior = three_dimensional();
  const LinearObservation o = two_rows();
  const std::vector<double> y = {.7, -.4};
  const GaussianMixture posterior = exact_posterior(prior, o, y);
  MatrixD x(50, 3);
  Rng{1}.normals<double>(Purpose::user, 0, 0, x);
  const auto before = prior.log_density(x, 0), after = posterior.log_density(x, 0);
  double low = 1e9, high = -1e9;
  for (Index r = 0; r < 50; ++r) {
    double likelihood = 0;
    for (Index m = 0; m < 2; ++m) {
      double e = y[static_cast<std::size_t>(m)];
      for (Index j = 0; j < 3; ++j) e -= o.a(m, j) * x(r, j);
      likelihood -= e * e / (2 * o.variance(m));
    }
    const double constant = after[static_cast<std::size_t>(r)] - before[static_cast<std::size_t>(r)] - likelihood;
    low = std::min(low, constant);
    high = std::max(high, constant);
  }
  CHECK(high - low <= 1e-10);  // terms of up to some hundreds
  // Without noise: the seen coordinates are pinned.
  const Index columns[] = {2, 0};
  const GaussianMixture pinned =
      exact_posterior(prior, LinearObservation::coordinates(3, columns, 0), std::vector<double>{.3, -.2});
  for (Index k = 0; k < 2; ++k) {
    CHECK(pinned.means()(k, 2) == doctest::Approx(.3));
    CHECK(pinned.means()(k, 0) == doctest::Approx(-.2));
    CHECK(std::abs(pinned.covariance(k)(0, 0)) <= 1e-14);
    CHECK(pinned.covariance(k)(1, 1) > .1);
  }
  CHECK_THROWS_AS(exact_posterior(prior, o, std::vector<double>{1}), UsageError);
  CHECK_THROWS_AS(exact_posterior(prior, {{{1, 0, 0}, {1, 0, 0}}, {0}}, y), UsageError);
  CHECK_THROWS_AS(LinearObservation::coordinates(3, std::vector<Index>{3}, 0), UsageError);
}

TEST_CASE("every method equals its formulas written out, on a mixture with two observations, DDIM and Heun") {
  const GaussianMixture model = three_dimensional();
  const LinearObservation o = two_rows();
  const MatrixD y{{.7, -.4}, {-1.5, 2}};
  const NoiseLevels levels({2, .9, .3});
  for (const PosteriorMethod method : {PosteriorMethod::dps, PosteriorMethod::pigdm, PosteriorMethod::mmps}) {
    for (const PosteriorSolver solver : {PosteriorSolver::ddim, PosteriorSolver::heun}) {
      if (method == PosteriorMethod::dps && solver == PosteriorSolver::heun) continue;
      const double eta = .6, zeta = .7;
      const SamplesD s = posterior_sample(model, o, y, levels.values(),
                                          {.method = method, .solver = solver, .draws = 2, .eta = eta, .zeta = zeta}, Rng{5});
      MatrixD x(4, 3), z(4, 3);
      Rng{5}.normals<double>(Purpose::prior, 0, 0, x);
      for (Index i = 0; i < 12; ++i) x.data()[i] *= 2;
      const std::vector<double> sigmas = to_zero(levels);
      for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
        const double sigma = sigmas[i], next = sigmas[i + 1], tau = 1 - std::pow(next / sigma, 2);
        Rng{5}.normals<double>(Purpose::sde, static_cast<std::uint32_t>(i), 0, z);
        for (Index r = 0; r < 4; ++r) {
          const Written w{model, o, column(y, r / 2)};
          const Column at = column(x, r), x0 = w.guided(method, at, sigma);
          Column to;
          if (solver == PosteriorSolver::ddim) {
            to = x0 + next * std::sqrt(1 - eta * eta * tau) * (at - x0) / sigma + next * eta * std::sqrt(tau) * column(z, r);
            if (method == PosteriorMethod::dps) to += w.dps_shift(at, sigma, zeta);
          } else {
            const Column slope = (at - x0) / sigma, predicted = at + (next - sigma) * slope;
            to = predicted;
            if (next > 0) to = at + (next - sigma) / 2 * (slope + (predicted - w.guided(method, predicted, next)) / next);
          }
          x.view().middle_rows(r, 1).eigen() = to.transpose();
        }
      }
      CAPTURE(to_string(method));
      CHECK(farthest(s.x, x) <= 1e-7);  // the differences' error, three steps
      const int per_step = 2;           // dps, pigdm: score and product; mmps: two products
      CHECK(s.evaluations == per_step * (solver == PosteriorSolver::heun ? 5 : 3));
    }
  }
}

TEST_CASE(
    "mmps is exact on a Gaussian: its denoiser is the posterior's own, and samples have the posterior's mean and covariance") {
  const GaussianMixture model = gaussian();
  double pigdm_off = 0;
  for (const LinearObservation& o : {two_rows(), LinearObservation{{{.3, -1, .8}}, {.5}},
                                     LinearObservation{{{1, 0, 0}, {0, 1, 0}, {.5, .5, 1}}, {.1, .2, .3}}}) {
    MatrixD y(1, o.a.rows());
    for (Index m = 0; m < y.cols(); ++m) y(0, m) = 1.2 - static_cast<double>(m);
    const GaussianMixture posterior = exact_posterior(model, o, y.row(0));
    // One step to 0 from sigma z gives the denoiser: E[x0 | x, y] = m' + C' (C' + sigma^2)^-1 (x - m').
    for (const double sigma : {.05, 1., 30.}) {
      MatrixD z(20, 3);
      Rng{6}.normals<double>(Purpose::prior, 0, 0, z);
      for (Index i = 0; i < z.size(); ++i) z.data()[i] *= sigma;
      const SamplesD step = posterior_sample(model, o, y, std::vector<double>{sigma}, {.draws = 20}, Rng{6});
      CHECK(farthest(step.x, posterior.tweedie_mean(z, sigma)) <= 1e-9);  // conditioning 30^2 / .04 of the solve
      CHECK(step.evaluations == o.a.rows());
    }
    // The whole run, against the recursion of its affine steps and against the posterior.
    const std::vector<double> sigmas = to_zero(NoiseLevels::geometric(40, .01, 300));
    const Square c = posterior.covariance(0).eigen(), identity = Square::Identity(3, 3);
    const Column mean = column(posterior.means(), 0);
    GaussianLaw law{Column::Zero(3), 1600 * identity};
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const double variance = sigmas[i] * sigmas[i], next = sigmas[i + 1] * sigmas[i + 1];
      const Square drift = (variance - next) * test::inverse(c + variance * identity);
      law.push(identity - drift, drift * mean, next * (1 - next / variance) * identity);
    }
    const SamplesD s = posterior_sample(model, o, y, sigmas, {.draws = 5000}, Rng{7});
    CHECK(test::largest_z(law, s.x) <= kZ);
    CHECK(test::largest_z({mean, c}, s.x) <= kZ + .03 * std::sqrt(2500.));  // and the law's own error, below
    CHECK((law.mean - mean).norm() <= 1e-3);
    CHECK((law.covariance - c).norm() <= .03 * c.norm());  // the ancestral step's own error at 300 levels
    const SamplesD heun = posterior_sample(model, o, y, to_zero(NoiseLevels::geometric(40, .01, 60)),
                                           {.solver = PosteriorSolver::heun, .draws = 5000}, Rng{8});
    CHECK(test::largest_z({mean, c}, heun.x) <= kZ);
    const SamplesD pigdm = posterior_sample(model, o, y, sigmas, {.method = PosteriorMethod::pigdm, .draws = 5000}, Rng{7});
    pigdm_off = std::max(pigdm_off, test::largest_z({mean, c}, pigdm.x));
  }
  CHECK(pigdm_off > 2 * kZ);  // pigdm is not exact, on the same prior
}

TEST_CASE("conjugate gradients: M iterations solve exactly, fewer approximately, M = 1 in one") {
  const GaussianMixture model = three_dimensional();
  const LinearObservation o = two_rows();
  const MatrixD y{{.7, -.4}, {-1.5, 2}};
  const NoiseLevels levels = NoiseLevels::geometric(20, .05, 30);
  const auto run = [&](const LinearObservation& observation, ConstRows<double> of, Index iterations) {
    return posterior_sample(model, observation, of, levels.values(), {.draws = 10, .conjugate_gradients = iterations}, Rng{5});
  };
  const SamplesD direct = run(o, y, 0), two = run(o, y, 2), one = run(o, y, 1);
  CHECK(farthest(direct.x, two.x) <= 1e-9);
  CHECK(farthest(direct.x, run(o, y, 5).x) <= 1e-9);
  CHECK(farthest(direct.x, one.x) > 1e-3);
  CHECK(direct.evaluations == 60);
  CHECK(two.evaluations == 90);
  const LinearObservation single{{{1, .5, -1}}, {.1}};
  const MatrixD scalar{{.7}};
  CHECK(farthest(run(single, scalar, 0).x, run(single, scalar, 1).x) <= 1e-10);
}

TEST_CASE("power: planted faults are found by the laws of the affine steps on a Gaussian") {
  // One coordinate of two observed with noise, DDIM(1), mmps and pigdm re-implemented with one thing wrong at a time.
  enum class Fault {
    none,
    no_observation_noise,
    variance_for_covariance,
    sigma_for_its_square,
    no_adjoint,
    jacobian_of_score,
    residual_of_x,
    wrong_sign,
    noise_of_upper_level
  };
  const GaussianMixture model({1}, {{.5, -1}}, {{{1, .7}, {.7, .9}}});
  const LinearObservation o{{{1, .4}}, {.3}};
  const MatrixD y{{1.5}};
  constexpr Index n = 20000;
  const std::vector<double> sigmas = to_zero(NoiseLevels::geometric(10, .05, 12));
  const Square c = model.covariance(0).eigen(), identity = Square::Identity(2, 2), a = o.a.eigen();
  const Column prior_mean = column(model.means(), 0);
  const GaussianMixture posterior = exact_posterior(model, o, y.row(0));
  const Square posterior_covariance = posterior.covariance(0).eigen();
  const Column posterior_mean = column(posterior.means(), 0);
  GaussianLaw law{Column::Zero(2), 100 * identity};
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double variance = sigmas[i] * sigmas[i], next = sigmas[i + 1] * sigmas[i + 1];
    const Square drift = (variance - next) * test::inverse(posterior_covariance + variance * identity);
    law.push(identity - drift, drift * posterior_mean, next * (1 - next / variance) * identity);
  }
  const auto run = [&](Fault fault, std::uint64_t seed) {
    MatrixD x(n, 2), z(n, 2);
    Rng{seed}.normals<double>(Purpose::prior, 0, 0, x);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] *= 10;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const double sigma = sigmas[i], next = sigmas[i + 1], variance = sigma * sigma, ratio = next / sigma;
      const Square shrink = c * test::inverse(c + variance * identity);  // dx0/dx
      const Square j = fault == Fault::jacobian_of_score ? Square(shrink - identity) : shrink;
      const double scale = fault == Fault::sigma_for_its_square ? sigma : variance;
      const Square covariance = fault == Fault::variance_for_covariance ? Square(scale * identity) : Square(scale * j);
      const double s = (a * covariance * a.transpose())(0, 0) + (fault == Fault::no_observation_noise ? 0 : .3);
      const Column gain =
          (fault == Fault::no_adjoint ? Column(scale * j * Column::Unit(2, 0)) : Column(scale * j * a.transpose())) / s;
      Rng{seed}.normals<double>(Purpose::sde, static_cast<std::uint32_t>(i), 0, z);
      const double noise = (fault == Fault::noise_of_upper_level && next > 0 ? sigma : next) * std::sqrt(1 - ratio * ratio);
      for (Index r = 0; r < n; ++r) {
        const Column at = column(x, r), x0 = prior_mean + shrink * (at - prior_mean);
        const double residual = y(0, 0) - (a * (fault == Fault::residual_of_x ? at : x0))(0);
        const Column guided = x0 + (fault == Fault::wrong_sign ? -1 : 1) * residual * gain;
        x.view().middle_rows(r, 1).eigen() = (guided + ratio * ratio * (at - guided) + noise * column(z, r)).transpose();
      }
    }
    return x;
  };
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const MatrixD x = run(Fault::none, seed);
    CHECK(test::largest_z(law, x) <= kZ);
    CHECK(farthest(x, posterior_sample(model, o, y, sigmas, {.draws = n}, Rng{seed}).x) <= 1e-11);
  }
  for (int fault = 1; fault <= static_cast<int>(Fault::noise_of_upper_level); ++fault) {
    double least = 1e9;
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const double z = test::largest_z(law, run(static_cast<Fault>(fault), seed));
      least = std::min(least, std::isnan(z) ? 1e9 : z);  // some blow up
    }
    CAPTURE(fault);
    CHECK(least >= 10);  // the scores scatter by about 1 around their shift: found with far more than 99%
  }
}

TEST_CASE("threads, chunks and the number of observations leave the bits alone") {
  const GaussianMixture model = three_dimensional();
  const LinearObservation o = two_rows();
  MatrixD y(60, 2);
  Rng{1}.normals<double>(Purpose::user, 0, 0, y);
  const NoiseLevels levels = NoiseLevels::geometric(20, .05, 8);
  for (const PosteriorMethod method : {PosteriorMethod::dps, PosteriorMethod::pigdm, PosteriorMethod::mmps}) {
    for (const Index iterations : {0, 1}) {
      PosteriorOptions options{
          .method = method, .draws = 5, .conjugate_gradients = iterations, .save_every = 3, .trajectory_rows = 100};
      const SamplesD reference = posterior_sample(model, o, y, levels.values(), options, Rng{3});
      for (const int count : {1, 4}) {
        set_threads(count);
        for (const Index chunk : {7, 4096}) {
          options.chunk_rows = chunk;
          const SamplesD s = posterior_sample(model, o, y, levels.values(), options, Rng{3});
          CHECK(same(s.x, reference.x));
          CHECK(same(s.trajectory.back(), reference.trajectory.back()));
        }
      }
      const SamplesD head = posterior_sample(model, o, MatrixD(y.middle_rows(0, 9)), levels.values(), options, Rng{3});
      CHECK(same(head.x, MatrixD(reference.x.middle_rows(0, 45))));
    }
  }
  set_threads(0);
}

TEST_CASE("models without vjp are told what to use; names, empty runs and wrong options") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const FunctionScore score(
      2, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) { model.score(y, sigma, nullptr, out); });
  const Index first = 0;
  const LinearObservation o = LinearObservation::coordinates(2, std::span(&first, 1), .01);
  const std::vector<double> sigmas = {5, 1, .1};
  const MatrixD y{{.5}};
  CHECK_THROWS_WITH_AS(
      posterior_sample(score, o, y, sigmas, {}, Rng{1}),
      "posterior_sample: function cannot multiply by its score's Jacobian (vjp), which mmps needs; use a network "
      "or an exact mixture, or repaint, which fills missing coordinates with the score alone",
      UsageError);
  for (const PosteriorMethod m : {PosteriorMethod::dps, PosteriorMethod::pigdm, PosteriorMethod::mmps}) {
    CHECK(posterior_method(to_string(m)) == m);
    CHECK(posterior_sample(model, o, MatrixD(0, 1), sigmas, {.method = m}, Rng{1}).x.rows() == 0);
  }
  CHECK_THROWS_AS(posterior_method("ddrm"), UsageError);
  const auto run = [&](const PosteriorOptions& options) { posterior_sample(model, o, y, sigmas, options, Rng{1}); };
  const double nan = std::nan("");
  CHECK_THROWS_AS(run({.draws = 0}), UsageError);
  CHECK_THROWS_AS(run({.eta = 1.1}), UsageError);
  CHECK_THROWS_AS(run({.eta = nan}), UsageError);
  CHECK_THROWS_AS(run({.zeta = -1}), UsageError);
  CHECK_THROWS_AS(run({.zeta = nan}), UsageError);
  CHECK_THROWS_AS(run({.conjugate_gradients = -1}), UsageError);
  CHECK_THROWS_AS(run({.chunk_rows = 0}), UsageError);
  CHECK_THROWS_AS(run({.method = PosteriorMethod::dps, .solver = PosteriorSolver::heun}), UsageError);
  CHECK_THROWS_AS(run({.progress = [](const SamplingProgress&) { return false; }}), CancelledError);
  CHECK_THROWS_AS(posterior_sample(model, o, MatrixD(1, 2), sigmas, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(posterior_sample(model, o, MatrixD{{nan}}, sigmas, {}, Rng{1}), DataError);
  CHECK_THROWS_AS(posterior_sample(model, o, y, std::vector<double>{}, {}, Rng{1}), UsageError);
  const auto observe = [&](const LinearObservation& bad, PosteriorMethod m = PosteriorMethod::mmps) {
    posterior_sample(model, bad, MatrixD(1, bad.a.rows()), sigmas, {.method = m}, Rng{1});
  };
  CHECK_THROWS_AS(observe({MatrixD(0, 2), {1}}), UsageError);
  CHECK_THROWS_AS(observe({MatrixD(1, 3), {1}}), UsageError);
  CHECK_THROWS_AS(observe({{{1, nan}}, {1}}), UsageError);
  CHECK_THROWS_AS(observe({{{1, 0}}, {}}), UsageError);
  CHECK_THROWS_AS(observe({{{1, 0}}, {1, 1}}), UsageError);
  CHECK_THROWS_AS(observe({{{1, 0}}, {-1}}), UsageError);
  CHECK_THROWS_AS(observe({{{1, 0}, {1, 0}}, {0}}, PosteriorMethod::pigdm), UsageError);
  // Without noise: the seen coordinate comes back.
  const SamplesD exact =
      posterior_sample(model, LinearObservation::coordinates(2, std::span(&first, 1), 0), y, sigmas, {}, Rng{1});
  CHECK(exact.x(0, 0) == doctest::Approx(.5).epsilon(1e-6));
}
