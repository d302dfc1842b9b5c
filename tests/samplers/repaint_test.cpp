// SPDX-License-Identifier: MIT
#include "tweedie/samplers/repaint.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
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

template <class S>
bool same(const MatrixX<S>& a, const MatrixX<S>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

// z at 5.4: two-sided tail 7e-8, some hundred of them in this file.
constexpr double kZ = 5.4;

// A Gaussian in three dimensions and one row of it, its middle cell missing.
const double kNaN = std::numeric_limits<double>::quiet_NaN();
const MatrixD kMean{{.5, -1, .2}}, kCovariance{{1, .7, .2}, {.7, .9, -.3}, {.2, -.3, .8}};
GaussianMixture gaussian() { return GaussianMixture({1}, kMean, {kCovariance}); }

std::vector<double> levels(double smallest) {
  std::vector<double> sigmas = {8, 4, 2, 1, .5};
  sigmas.push_back(smallest);
  return sigmas;
}

// The law of Algorithm 1 on that Gaussian, for the cells of row x: each step is affine in (known cells, missing cells).
GaussianLaw law_of(const MatrixD& x, std::vector<double> sigmas, int resample) {
  if (sigmas.back() > 0) sigmas.push_back(0);
  const Square c = kCovariance.eigen(), identity = Square::Identity(3, 3);
  const Column mean = kMean.eigen().row(0).transpose();
  Column given = Column::Zero(3);
  Square missing = Square::Zero(3, 3);
  for (Index j = 0; j < 3; ++j) {
    if (std::isnan(x(0, j)))
      missing(j, j) = 1;
    else
      given(j) = x(0, j);
  }
  const Square known = identity - missing;
  GaussianLaw law{given, sigmas[0] * sigmas[0] * identity};
  for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
    const double variance = sigmas[i] * sigmas[i], next = sigmas[i + 1] * sigmas[i + 1];
    const Square precision = test::inverse(c + variance * identity);
    // x0 = x - variance precision (x - mean);  x <- x0 + (next / variance) (x - x0) + sqrt(next (1 - next / variance)) z
    const Square drift = (variance - next) * precision;
    const int times = next > 0 ? resample : 1;
    for (int u = 0; u < times; ++u) {
      if (u > 0) law.push(identity, Column::Zero(3), (variance - next) * identity);
      law.push(missing * (identity - drift), missing * drift * mean + given,
               next * (1 - next / variance) * missing + next * known);
    }
  }
  return law;
}

}  // namespace

TEST_CASE("on a Gaussian the imputations have the law of Algorithm 1, worked out step by step") {
  const GaussianMixture model = gaussian();
  for (const MatrixD& x : {MatrixD{{1.7, kNaN, -.4}}, MatrixD{{kNaN, .3, kNaN}}, MatrixD{{kNaN, kNaN, kNaN}}}) {
    for (const double smallest : {.1, 0.}) {
      for (const int resample : {1, 2, 5}) {
        const SamplesD s = repaint(model, levels(smallest), x, {.draws = 20000, .resample = resample}, Rng{3});
        CHECK(s.evaluations == (smallest > 0 ? 5 : 4) * resample + 1);
        CHECK(test::largest_z(law_of(x, levels(smallest), resample), s.x) <= kZ);
      }
    }
  }
}

TEST_CASE("on a Gaussian resampling cures the mean, and closer levels the variance") {
  // Algorithm 1's own error, in closed form; the recursion is what the test above holds the sampler to.
  const MatrixD x{{1.7, kNaN, -.4}};
  const Square c = kCovariance.eigen();
  Square seen(2, 2);
  seen << c(0, 0), c(0, 2), c(2, 0), c(2, 2);
  const Eigen::RowVector2d cross(c(1, 0), c(1, 2));
  const Eigen::Vector2d off(1.7 - .5, -.4 - .2);
  const double mean = -1 + cross.dot(test::inverse(seen) * off);
  const double variance = c(1, 1) - cross.dot(test::inverse(seen) * cross.transpose());
  struct Error {
    double mean, variance;  // in deviations; relative
  };
  const auto error = [&](Index count, int resample) {
    const NoiseLevels sigmas = NoiseLevels::geometric(50, .01, count);
    const GaussianLaw law = law_of(x, {sigmas.values().begin(), sigmas.values().end()}, resample);
    return Error{(law.mean(1) - mean) / std::sqrt(variance), law.covariance(1, 1) / variance - 1};
  };
  CHECK(error(100, 1).mean < -1);  // replacing alone: more than a deviation off
  CHECK(error(100, 1).variance > .5);
  CHECK(error(100, 10).mean == doctest::Approx(-.0908).epsilon(.01));
  CHECK(error(100, 10).variance == doctest::Approx(-.0244).epsilon(.01));
  CHECK(std::abs(error(100, 100).mean) < .01);
  // What resampling tends to is too narrow by the levels' distance.
  CHECK(error(30, 100).variance == doctest::Approx(-.217).epsilon(.01));
  CHECK(error(100, 100).variance == doctest::Approx(-.0739).epsilon(.01));
  CHECK(error(400, 100).variance == doctest::Approx(-.0158).epsilon(.01));
}

TEST_CASE("power: planted faults are found by the same scores") {
  // A plain re-implementation with one thing wrong at a time.
  enum class Fault {
    none,
    known_without_noise,
    known_noise_of_upper_level,
    back_noise_of_level,
    no_way_back,
    ancestral_noise_missing,
    one_resampling_less,
    keep_not_squared,
    stale_back_noise,
    known_at_end_only
  };
  const GaussianMixture model = gaussian();
  const MatrixD x{{4.5, kNaN, -2}};  // far out: what is seen matters
  const std::vector<double> kFaultLevels = {4, 2, 1, .7};
  constexpr Index n = 20000;
  const int resample = 3;
  const auto run = [&](Fault fault, std::uint64_t seed) {
    const Rng rng{seed};
    std::vector<double> sigmas = kFaultLevels;
    sigmas.push_back(0);
    MatrixD y(n, 3), z(n, 3), back(n, 3);
    rng.normals<double>(Purpose::prior, 0, 0, y);
    for (Index r = 0; r < n; ++r) {
      for (Index j = 0; j < 3; ++j) y(r, j) = sigmas[0] * y(r, j) + (j == 1 ? 0 : x(0, j));
    }
    std::uint32_t step = 0;
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const double sigma = sigmas[i], next = sigmas[i + 1], ratio = next / sigma;
      const int times = next > 0 ? resample - (fault == Fault::one_resampling_less) : 1;
      for (int u = 0; u < times; ++u, ++step) {
        rng.normals<double>(Purpose::sde, step, 0, z);
        if (u > 0 && fault != Fault::no_way_back) {
          rng.normals<double>(Purpose::sde, fault == Fault::stale_back_noise ? step - 1 : step, 0, back,
                              fault == Fault::stale_back_noise ? 0 : 1);
          const double noise = fault == Fault::back_noise_of_level ? sigma : std::sqrt(sigma * sigma - next * next);
          for (Index k = 0; k < y.size(); ++k) y.data()[k] += noise * back.data()[k];
        }
        const MatrixD x0 = model.tweedie_mean(y, sigma);
        for (Index r = 0; r < n; ++r) {
          for (Index j = 0; j < 3; ++j) {
            const double keep = fault == Fault::keep_not_squared ? ratio : ratio * ratio;
            const double noise = fault == Fault::ancestral_noise_missing ? 0 : next * std::sqrt(1 - ratio * ratio);
            const double ancestral = x0(r, j) + keep * (y(r, j) - x0(r, j)) + noise * z(r, j);
            const double level = fault == Fault::known_without_noise          ? 0
                                 : fault == Fault::known_noise_of_upper_level ? (next > 0 ? sigma : 0)
                                                                              : next;
            const bool replace = j != 1 && (fault != Fault::known_at_end_only || next == 0);
            y(r, j) = replace ? x(0, j) + level * z(r, j) : ancestral;
          }
        }
      }
    }
    return y;
  };
  const GaussianLaw law = law_of(x, kFaultLevels, resample);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const MatrixD y = run(Fault::none, seed);
    CHECK(test::largest_z(law, y) <= kZ);
    // The re-implementation without a fault is the same sampler.
    const SamplesD s = repaint(model, kFaultLevels, x, {.draws = n, .resample = resample}, Rng{seed});
    double worst = 0;
    for (Index i = 0; i < y.size(); ++i) worst = std::max(worst, std::abs(y.data()[i] - s.x.data()[i]));
    CHECK(worst <= 1e-12);  // 10 steps, none of which expands, of a few roundings of |x| < 30
  }
  for (int fault = 1; fault <= static_cast<int>(Fault::known_at_end_only); ++fault) {
    double least = 1e9;
    for (std::uint64_t seed = 1; seed <= 4; ++seed)
      least = std::min(least, test::largest_z(law, run(static_cast<Fault>(fault), seed)));
    CAPTURE(fault);
    CHECK(least >= 10);  // the scores scatter by about 1 around their shift: found with far more than 99%
  }
}

TEST_CASE("known cells come back as given, a row without a missing cell is itself, the mask and NaN say the same") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const float nan = std::nanf("");
  const Matrix x{{1.25F, nan}, {nan, -3}, {.1F, .7F}, {nan, nan}};
  const Samples s = repaint(model, levels(.1), x, {.draws = 5, .resample = 2}, Rng{1});
  REQUIRE(s.x.rows() == 20);
  for (Index k = 0; k < 5; ++k) {
    CHECK(s.x(k, 0) == 1.25F);
    CHECK(s.x(5 + k, 1) == -3);
    CHECK(s.x(10 + k, 0) == .1F);
    CHECK(s.x(10 + k, 1) == .7F);
    CHECK(s.x(k, 1) != s.x((k + 1) % 5, 1));
  }
  MatrixX<std::uint8_t> known(4, 2);
  known(0, 0) = known(1, 1) = known(2, 0) = known(2, 1) = 1;
  Matrix filled = x;
  filled(0, 1) = 1e30F;  // not read
  CHECK(same(repaint(model, levels(.1), filled, known, {.draws = 5, .resample = 2}, Rng{1}).x, s.x));
  const SamplesD d = repaint(model, levels(.1), MatrixD(x.view()), known, {.draws = 5, .resample = 2}, Rng{1});
  for (Index i = 0; i < s.x.size(); ++i) CHECK(std::abs(d.x.data()[i] - s.x.data()[i]) <= 1e-3);
  CHECK(d.x(5, 1) == -3);
}

TEST_CASE("threads, chunks and the number of rows leave the bits alone; trajectories are states of the run") {
  const GaussianMixture model = GaussianMixture::three_gaussians_unequal();
  Matrix x = model.sample(300, Rng{1});
  for (Index r = 0; r < 300; ++r) x(r, r % 2) = std::nanf("");
  RepaintOptions options{.draws = 3, .resample = 2, .save_every = 4, .trajectory_rows = 100};
  const Samples reference = repaint(model, levels(.1), x, options, Rng{3});
  REQUIRE(reference.trajectory.size() == 3);
  CHECK(reference.evaluations == 11);
  for (const int count : {1, 4}) {
    set_threads(count);
    for (const Index chunk : {7, 256, 4096}) {
      options.chunk_rows = chunk;
      const Samples s = repaint(model, levels(.1), x, options, Rng{3});
      CHECK(same(s.x, reference.x));
      CHECK(same(s.trajectory.back(), reference.trajectory.back()));
    }
  }
  set_threads(0);
  const Samples head = repaint(model, levels(.1), Matrix(x.middle_rows(0, 20)), options, Rng{3});
  CHECK(same(head.x, Matrix(reference.x.middle_rows(0, 60))));
  CHECK_FALSE(same(repaint(model, levels(.1), Matrix(x.middle_rows(0, 20)), options, Rng{4}).x, head.x));
  // The start: known + sigma_1 z.
  Matrix z(1, 2);
  Rng{3}.normals<float>(Purpose::prior, 0, 0, z);
  CHECK(reference.trajectory[0](0, 0) == 8 * z(0, 0));
  CHECK(reference.trajectory[0](0, 1) == x(0, 1) + 8 * z(0, 1));
}

TEST_CASE("empty runs, wrong options, broken data and scores") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const std::vector<double> sigmas = levels(.1);
  const Matrix x{{1, std::nanf("")}};
  CHECK(repaint(model, sigmas, Matrix(0, 2), {}, Rng{1}).x.rows() == 0);
  CHECK(repaint(model, std::vector<double>{3.}, x, {}, Rng{1}).evaluations == 1);
  CHECK_THROWS_AS(repaint(model, sigmas, x, {.draws = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, x, {.resample = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, x, {.resample = Index{1} << 31}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, x, {.chunk_rows = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, Matrix(2, 3), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, x, MatrixX<std::uint8_t>(1, 1), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(repaint(model, sigmas, x, {.progress = [](const SamplingProgress&) { return false; }}, Rng{1}), CancelledError);
  CHECK_THROWS_WITH_AS(
      repaint(model, sigmas, Matrix{{1, std::nanf("")}, {std::numeric_limits<float>::infinity(), 0}}, {}, Rng{1}),
      "repaint: row 1, column 0 is marked as known and is not finite", DataError);
  for (const std::vector<double>& bad : {std::vector<double>{}, {0.}, {1, 1}, {1, 2}, {1, -1}, {2, 0, 0}, {kNaN, 1}}) {
    CHECK_THROWS_AS(repaint(model, bad, x, {}, Rng{1}), UsageError);
  }
  const FunctionScore wild(2, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 1e9;
  });
  CHECK_THROWS_AS(repaint(wild, sigmas, x, {}, Rng{1}), DivergedError);
}
