// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/samplers/posterior.h"
#include "tweedie/samplers/repaint.h"

using namespace tweedie;

namespace {

constexpr Index kReplicates = 1000, kDraws = 99;
constexpr double kChiSquare = 63.7;  // 19 degrees of freedom at 1e-6

struct Calibration {
  double chi_square = 0;  // of the true value's rank among its imputations, 20 bins of five ranks
  double distance = 0;    // Kolmogorov's, of F(imputation | known) from uniform, F exact
};

// x (kReplicates kDraws, 2): imputations of column `missing` of the rows of truth.
Calibration calibrate(const GaussianMixture& mixture, const MatrixD& truth, Index missing, const MatrixD& x) {
  const Index seen = 1 - missing;
  const LinearObservation exact = LinearObservation::coordinates(2, std::span(&seen, 1), 0);
  std::array<double, 20> counts{};
  std::vector<float> transforms;
  for (Index r = 0; r < kReplicates; ++r) {
    const GaussianMixture posterior = exact_posterior(mixture, exact, std::span(&truth(r, seen), 1));
    Index rank = 0;
    for (Index k = 0; k < kDraws; ++k) {
      const double value = x(r * kDraws + k, missing);
      rank += value < truth(r, missing);
      double p = 0;
      for (Index c = 0; c < posterior.components(); ++c) {
        p += posterior.weights()[static_cast<std::size_t>(c)] * .5 *
             std::erfc((posterior.means()(c, missing) - value) / std::sqrt(2 * posterior.covariance(c)(missing, missing)));
      }
      transforms.push_back(static_cast<float>(p));
    }
    counts[static_cast<std::size_t>(rank / 5)] += 1;
  }
  Calibration result;
  for (const double count : counts) result.chi_square += (count - 50) * (count - 50) / 50;
  result.distance = kolmogorov_smirnov(transforms, [](double u) { return std::clamp(u, 0., 1.); }).statistic;
  return result;
}

}  // namespace

TEST_CASE("imputations of three_gaussians by RePaint, 100 levels: ranks over 1000 replicates are uniform") {
  // Where column 1 is missing two modes are open, and ten resamplings leave the ranks visibly off: chi^2 is 34 on average.
  const GaussianMixture mixture = GaussianMixture::three_gaussians();
  const NoiseLevels levels = NoiseLevels::geometric(50, .01, 100);
  for (const Index missing : {Index{0}, Index{1}}) {
    const Index resample = missing == 0 ? 10 : 30;
    const MatrixD truth(mixture.sample(kReplicates, Rng{1}).view());
    Matrix known(truth.view());
    for (Index r = 0; r < kReplicates; ++r) known(r, missing) = std::nanf("");
    const auto run = [&](Index times) {
      const Samples s = repaint(mixture, levels.values(), known, {.draws = kDraws, .resample = times}, Rng{2});
      return calibrate(mixture, truth, missing, MatrixD(s.x.view()));
    };
    const Calibration replaced = run(1), repainted = run(resample);
    MESSAGE("column ", missing, " missing: r = ", resample, ": chi^2 ", repainted.chi_square, ", distance ", repainted.distance,
            "; r = 1: chi^2 ", replaced.chi_square, ", distance ", replaced.distance);
    CHECK(repainted.chi_square <= kChiSquare);
    CHECK(repainted.distance < .5 * replaced.distance);
  }
}

TEST_CASE("power: the same ranks tell DPS, which is miscalibrated, from exact draws") {
  const GaussianMixture mixture = GaussianMixture::three_gaussians();
  const MatrixD truth(mixture.sample(kReplicates, Rng{1}).view());
  const Index seen = 1;
  MatrixD y(kReplicates, 1), exact(kReplicates * kDraws, 2);
  for (Index r = 0; r < kReplicates; ++r) {
    y(r, 0) = truth(r, 1);
    const GaussianMixture posterior =
        exact_posterior(mixture, LinearObservation::coordinates(2, std::span(&seen, 1), 0), y.row(r));
    const Matrix draws = posterior.sample(kDraws, Rng{10 + static_cast<std::uint64_t>(r)});
    for (Index k = 0; k < kDraws; ++k) exact(r * kDraws + k, 0) = draws(k, 0);
  }
  CHECK(calibrate(mixture, truth, 0, exact).chi_square <= kChiSquare);
  const SamplesD dps =
      posterior_sample(mixture, LinearObservation::coordinates(2, std::span(&seen, 1), 1e-4), y,
                       NoiseLevels::geometric(50, .01, 200).values(), {.method = PosteriorMethod::dps, .draws = kDraws}, Rng{3});
  CHECK(calibrate(mixture, truth, 0, dps.x).chi_square > kChiSquare);
}
