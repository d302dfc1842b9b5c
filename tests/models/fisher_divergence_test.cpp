// SPDX-License-Identifier: MIT
#include "tweedie/models/fisher_divergence.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tweedie/core/parallel.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/empirical_mixture.h"

using namespace tweedie;

namespace {
FunctionScore scaled(const ScoreModel& exact, double factor, double offset) {
  return FunctionScore(exact.dim(),
                       [&exact, factor, offset](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
                         exact.score(y, sigma, nullptr, out);
                         for (Index r = 0; r < out.rows(); ++r) {
                           for (double& s : out.row(r)) s = factor * s + offset / sigma[0];
                         }
                       });
}
const NoiseLevels kLevels = NoiseLevels::geometric(10, .01, 10);
}  // namespace

TEST_CASE("the oracle against itself is zero up to float's rounding") {
  const GaussianMixture oracle = GaussianMixture::three_gaussians();
  const FisherDivergence d = fisher_divergence(oracle, oracle, kLevels, {.draws = 2000}, Rng{1});
  REQUIRE(d.levels.size() == 10);
  for (const LevelError& level : d.levels) {
    CHECK(level.error <= 1e-9);
    CHECK(level.relative <= 1e-9);
  }
}

TEST_CASE("zero, scaled and shifted scores have their closed-form errors") {
  const GaussianMixture oracle = GaussianMixture::three_gaussians_unequal();
  const FisherDivergence zero = fisher_divergence(scaled(oracle, 0, 0), oracle, kLevels, {.draws = 4000}, Rng{1});
  const FisherDivergence ninety = fisher_divergence(scaled(oracle, .9, 0), oracle, kLevels, {.draws = 4000}, Rng{1});
  const FisherDivergence shifted = fisher_divergence(scaled(oracle, 1, .1), oracle, kLevels, {.draws = 4000}, Rng{1});
  double mean = 0;
  for (std::size_t i = 0; i < 10; ++i) {
    const double sigma = kLevels[static_cast<Index>(i)], j = oracle.fisher_information(sigma).value;
    CHECK(zero.levels[i].sigma == sigma);
    CHECK(zero.levels[i].relative == 1);
    CHECK(zero.levels[i].error == zero.levels[i].zero_error);
    CHECK(zero.levels[i].relative_standard_error <= 1e-7);
    // E|s|^2 by quadrature; 4.9: two-sided tail 1e-6. The standard error is estimated from 4,000 draws of a variable with light
    // tails.
    CHECK(std::abs(zero.levels[i].error - sigma * sigma * j / 2) <= 4.9 * zero.levels[i].standard_error);
    CHECK(zero.levels[i].standard_error <= .05 * zero.levels[i].error);
    CHECK(std::abs(ninety.levels[i].relative - .01) <= 1e-5);  // the model's score is rounded to float
    CHECK(std::abs(ninety.levels[i].error - .01 * ninety.levels[i].zero_error) <= 1e-5);
    // A constant offset of .1 / sigma per coordinate: error .01 exactly, no spread.
    CHECK(std::abs(shifted.levels[i].error - .01) <= 1e-5);
    CHECK(shifted.levels[i].standard_error <= 1e-5);
    mean += zero.levels[i].error / 10;
  }
  CHECK(std::abs(zero.mean_error - mean) <= 1e-12);
  CHECK(zero.mean_zero_error == zero.mean_error);
  CHECK(zero.mean_standard_error > 0);
}

TEST_CASE("standard errors are honest: z-scores over many streams have unit variance") {
  const GaussianMixture oracle = GaussianMixture::two_mode();
  const FunctionScore model = scaled(oracle, .5, .3);
  const NoiseLevels levels({1, .3});
  double truth[2], relative_truth[2];
  const FisherDivergence reference = fisher_divergence(model, oracle, levels, {.draws = 400000}, Rng{100});
  for (std::size_t i = 0; i < 2; ++i) truth[i] = reference.levels[i].error, relative_truth[i] = reference.levels[i].relative;
  const int runs = 200;
  double z2 = 0, r2 = 0;
  for (int run = 0; run < runs; ++run) {
    const FisherDivergence d = fisher_divergence(model, oracle, levels, {.draws = 500}, Rng{static_cast<std::uint64_t>(run)});
    for (std::size_t i = 0; i < 2; ++i) {
      z2 += std::pow((d.levels[i].error - truth[i]) / d.levels[i].standard_error, 2) / (2 * runs);
      r2 += std::pow((d.levels[i].relative - relative_truth[i]) / d.levels[i].relative_standard_error, 2) / (2 * runs);
    }
  }
  // 400 squared normals: mean 1, deviation sqrt(2 / 400) = .07; 4.9 of them and .03 for the estimated deviations at 500 draws.
  CHECK(std::abs(z2 - 1) <= 4.9 * std::sqrt(2. / 400) + .03);
  CHECK(std::abs(r2 - 1) <= 4.9 * std::sqrt(2. / 400) + .03);
}

TEST_CASE("against the empirical mixture the draws are data rows plus noise") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  const EmpiricalMixture empirical(data);
  const FisherDivergence self = fisher_divergence(empirical, empirical, data, kLevels, {.draws = 500}, Rng{1});
  CHECK(self.mean_error <= 1e-6);
  const FisherDivergence zero = fisher_divergence(scaled(empirical, 0, 0), empirical, data, kLevels, {.draws = 3000}, Rng{1});
  // At sigma = .01 the points stand apart: the score is -eps / sigma but for rare neighbours, so sigma^2 E|s|^2 / D is just
  // below 1.
  CHECK(zero.levels.back().error <= 1 + 4.9 * zero.levels.back().standard_error);
  CHECK(zero.levels.back().error >= .85);
  // The truth is far from the empirical optimum there, and near it at large sigma: memorisation is seen.
  const GaussianMixture truth = GaussianMixture::three_gaussians();
  const FisherDivergence gap = fisher_divergence(truth, empirical, data, kLevels, {.draws = 3000}, Rng{1});
  CHECK(gap.levels.back().relative > .5);
  CHECK(gap.levels.front().relative < .01);
}

TEST_CASE("the same numbers for any batch and number of threads; other streams differ") {
  const GaussianMixture oracle = GaussianMixture::three_gaussians();
  const FunctionScore model = scaled(oracle, .7, .1);
  const auto run = [&](Index batch, std::uint64_t seed) {
    return fisher_divergence(model, oracle, kLevels, {.draws = 1500, .batch = batch}, Rng{seed});
  };
  const FisherDivergence a = run(1024, 3);
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    const FisherDivergence b = run(100, 3);
    for (std::size_t i = 0; i < 10; ++i) {
      CHECK(a.levels[i].error == b.levels[i].error);
      CHECK(a.levels[i].relative == b.levels[i].relative);
    }
  }
  set_threads(0);
  CHECK(run(1024, 4).mean_error != a.mean_error);
}

TEST_CASE("wrong dimensions, too few draws and scores that are not finite are refused") {
  const GaussianMixture oracle = GaussianMixture::three_gaussians();
  CHECK_THROWS_AS(fisher_divergence(GaussianMixture::gaussian(3), oracle, kLevels, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_divergence(oracle, oracle, kLevels, {.draws = 1}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_divergence(oracle, oracle, kLevels, {.batch = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_divergence(oracle, oracle, Matrix(0, 2), kLevels, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_divergence(oracle, oracle, Matrix(3, 3), kLevels, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(fisher_divergence(scaled(oracle, std::nan(""), 0), oracle, kLevels, {}, Rng{1}), DivergedError);
}
