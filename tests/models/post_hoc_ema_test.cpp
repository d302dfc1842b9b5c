// Power-function averages: their profiles, the recursion, and averages of other widths put together afterwards.
// SPDX-License-Identifier: MIT
#include "tweedie/models/post_hoc_ema.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tweedie/core/parallel.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();

double profile(const PowerProfile& p, double tau) {
  return tau > p.time ? 0 : (p.gamma + 1) * std::pow(tau / p.time, p.gamma) / p.time;
}

// By the midpoint rule on [0, end].
double integral(const std::function<double(double)>& f, double end) {
  constexpr int kPoints = 200000;
  double sum = 0;
  for (int i = 0; i < kPoints; ++i) sum += f((i + .5) * end / kPoints);
  return sum * end / kPoints;
}

// The average of a trajectory theta_1, ..., theta_T, by its weights (s/T)^(g+1) - ((s-1)/T)^(g+1).
double average_of(const std::vector<float>& trajectory, double gamma) {
  const double total = static_cast<double>(trajectory.size());
  double sum = 0;
  for (std::size_t s = 0; s < trajectory.size(); ++s) {
    const double weight =
        std::pow(static_cast<double>(s + 1) / total, gamma + 1) - std::pow(static_cast<double>(s) / total, gamma + 1);
    sum += weight * static_cast<double>(trajectory[s]);
  }
  return sum;
}

// Weights over the run, one column each: a jump at every tenth, a drift, a decay, waves, and one that stands still.
using Trajectories = std::vector<std::vector<float>>;
Trajectories make_trajectories(int steps) {
  Trajectories all(14, std::vector<float>(static_cast<std::size_t>(steps)));
  for (int s = 0; s < steps; ++s) {
    const auto at = static_cast<std::size_t>(s);
    const double t = (s + 1.) / steps;
    for (int k = 0; k < 9; ++k) all[static_cast<std::size_t>(k)][at] = s < (k + 1) * steps / 10 ? 1.f : 0.f;
    all[9][at] = static_cast<float>(t);
    all[10][at] = static_cast<float>(std::exp(-5 * t));
    all[11][at] = static_cast<float>(std::sin(20 * t));
    all[12][at] = static_cast<float>(std::sin(200 * t) + t);
    all[13][at] = 3.25f;
  }
  return all;
}

PostHocEma track(const Trajectories& all, int snapshots) {
  const auto steps = static_cast<int>(all.front().size());
  PostHocEma ema(static_cast<Index>(all.size()));
  std::vector<float> now(all.size());
  for (int s = 0; s < steps; ++s) {
    for (std::size_t i = 0; i < all.size(); ++i) now[i] = all[i][static_cast<std::size_t>(s)];
    ema.update(now);
    if (s + 1 < steps && (s + 1) * snapshots / steps > s * snapshots / steps) ema.snapshot();
  }
  return ema;
}

// sqrt(int (theta - mean)^2 dtau).
double spread(const std::vector<float>& trajectory) {
  double mean = 0, square = 0;
  for (const float v : trajectory) mean += static_cast<double>(v) / static_cast<double>(trajectory.size());
  for (const float v : trajectory) square += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  return std::sqrt(square);
}

double largest(const std::vector<float>& trajectory) {
  double most = 0;
  for (const float v : trajectory) most = std::max(most, std::abs(static_cast<double>(v)));
  return most;
}

}  // namespace

TEST_CASE("sigma_rel is the profile's deviation over its length, and power_of the way back") {
  CHECK(power_of(.05) == doctest::Approx(16.97).epsilon(1e-3));  // Karras et al. 2024, Sec. 3.2
  CHECK(power_of(.10) == doctest::Approx(6.94).epsilon(1e-3));
  CHECK(power_of(1 / std::sqrt(12.)) == doctest::Approx(0).epsilon(1e-9));
  for (const double gamma : {0., .5, 3., 16.97, 300.}) {
    CHECK(power_of(sigma_rel_of(gamma)) == doctest::Approx(gamma).epsilon(1e-9));
    const PowerProfile p{gamma, 7};
    const double mean = integral([&](double t) { return t * profile(p, t); }, 7);
    const double square = integral([&](double t) { return (t - mean) * (t - mean) * profile(p, t); }, 7);
    CHECK(integral([&](double t) { return profile(p, t); }, 7) == doctest::Approx(1).epsilon(1e-6));
    CHECK(std::sqrt(square) / 7 == doctest::Approx(sigma_rel_of(gamma)).epsilon(1e-5));
  }
  CHECK_THROWS_AS(power_of(0), UsageError);
  CHECK_THROWS_AS(power_of(.3), UsageError);
  CHECK_THROWS_AS(power_of(std::nan("")), UsageError);
}

TEST_CASE("inner products of profiles") {
  for (const auto& [p, q] :
       {std::pair{PowerProfile{2, 1}, PowerProfile{5, 3}}, std::pair{PowerProfile{6.9, 4}, PowerProfile{0, 2}},
        std::pair{PowerProfile{1, 2}, PowerProfile{1, 2}}}) {
    const PowerProfile a = p, b = q;
    CHECK(inner_product(a, b) ==
          doctest::Approx(integral([&](double t) { return profile(a, t) * profile(b, t); }, 4)).epsilon(1e-4));
    CHECK(inner_product(a, b) == inner_product(b, a));
  }
}

TEST_CASE("a fit has sum 1, gives back a stored profile, and says how far it is off") {
  const std::vector<PowerProfile> stored = {{17, 1}, {7, 1}, {17, 2}, {7, 2}, {17, 3}, {7, 3}};
  const ProfileFit same = fit_profile(stored, {7, 3});
  CHECK(same.weights[5] == doctest::Approx(1).epsilon(1e-9));
  CHECK(same.error < 1e-6);  // the root of a rounding error
  const PowerProfile wanted{3, 3};
  const ProfileFit fit = fit_profile(stored, wanted);
  double sum = 0;
  for (const double w : fit.weights) sum += w;
  CHECK(sum == doctest::Approx(1).epsilon(1e-10));
  const auto residual = [&](const std::vector<double>& weights) {
    return integral(
        [&](double t) {
          double r = profile(wanted, t);
          for (std::size_t i = 0; i < stored.size(); ++i) r -= weights[i] * profile(stored[i], t);
          return r * r;
        },
        3);
  };
  const double least = residual(fit.weights);
  CHECK(fit.error == doctest::Approx(std::sqrt(least / inner_product(wanted, wanted))).epsilon(1e-3));
  for (std::size_t i = 1; i < stored.size(); ++i) {  // no combination of sum 1 beside it is nearer
    for (const double step : {-.01, .01}) {
      std::vector<double> other = fit.weights;
      other[0] -= step;
      other[i] += step;
      CHECK(residual(other) > least);
    }
  }
  CHECK_THROWS_AS(fit_profile({}, wanted), UsageError);
}

TEST_CASE("the recursion is the integral over the weights' steps") {
  constexpr int kSteps = 500;
  const Trajectories all = make_trajectories(kSteps);
  const PostHocEma ema = track(all, 1);
  for (std::size_t k = 0; k < 2; ++k) {
    const double gamma = power_of(PostHocEma::kSigmaRel[k]);
    for (std::size_t i = 0; i < all.size(); ++i) {
      // Each update rounds twice by at most eps/2 of the largest weight; what remains of them adds up to t / (gamma + 1) of one.
      const double bound = kEps * largest(all[i]) * (1 + kSteps / (gamma + 1));
      CHECK(std::abs(static_cast<double>(ema.average(k)[i]) - average_of(all[i], gamma)) <= bound);
    }
  }
}

TEST_CASE("any width comes back as the average that would have been tracked, within the profile's error") {
  constexpr int kSteps = 640;
  const Trajectories all = make_trajectories(kSteps);
  double error_before = 1;
  for (const int snapshots : {4, 16, 64}) {
    const PostHocEma ema = track(all, snapshots);
    CHECK(static_cast<int>(ema.snapshots().size()) == snapshots - 1);
    double most = 0;
    for (const double width : {.04, .07, .13, .2}) {
      const PostHocEma::Reconstruction r = ema.reconstruct(width);
      const double gamma = power_of(width);
      const PowerProfile wanted{gamma, kSteps};
      for (std::size_t i = 0; i < all.size(); ++i) {
        // |int r (theta - c)| <= |r| |theta - c|, both known; and the rounding of the averages, whose weights add up to below 20.
        const double fit = r.error * std::sqrt(inner_product(wanted, wanted)) * spread(all[i]);
        const double rounding = 20 * kEps * largest(all[i]) * (1 + kSteps / 7.9);
        CHECK(std::abs(static_cast<double>(r.parameters[i]) - average_of(all[i], gamma)) <= fit + rounding);
      }
      // In closed form: a weight that falls from 1 to 0 after m of T steps has the average (m/T)^(gamma + 1).
      if (snapshots == 64) CHECK(r.parameters[6] == doctest::Approx(std::pow(.7, gamma + 1)).epsilon(.01));
      most = std::max(most, r.error);
    }
    CHECK(most < error_before / 2);
    error_before = most;
  }
  CHECK(error_before < .005);
}

TEST_CASE("stored widths and weights that stand still come back exactly, whatever the copies") {
  const Trajectories all = make_trajectories(100);
  for (const int snapshots : {1, 3}) {
    const PostHocEma ema = track(all, snapshots);
    for (std::size_t k = 0; k < 2; ++k) {
      const PostHocEma::Reconstruction r = ema.reconstruct(PostHocEma::kSigmaRel[k]);
      for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK(std::abs(static_cast<double>(r.parameters[i] - ema.average(k)[i])) <= 2 * kEps * largest(all[i]));
      }
    }
    CHECK(ema.reconstruct(.2).parameters[13] == doctest::Approx(3.25).epsilon(20 * kEps));
    CHECK(ema.reconstruct(.2).error > ema.reconstruct(.12).error);
  }
}

TEST_CASE("a file carries the averages; threads do not change them; a damaged file is refused") {
  const ScoreNetwork net({.data_dim = 2, .hidden_dim = 128}, Rng{1});  // more parameters than a thread takes at once
  const auto track_network = [&](int threads) {
    set_threads(threads);
    PostHocEma ema(net.layout().size());
    std::vector<float> weights(net.parameters().begin(), net.parameters().end());
    for (int s = 1; s <= 6; ++s) {
      for (float& w : weights) w += .1f * std::sin(w + static_cast<float>(s));
      ema.update(weights);
      if (s == 2 || s == 4) ema.snapshot();
    }
    set_threads(0);
    return ema;
  };
  const PostHocEma ema = track_network(1), other = track_network(3);
  for (std::size_t k = 0; k < 2; ++k) {
    CHECK(std::equal(ema.average(k).begin(), ema.average(k).end(), other.average(k).begin()));
  }
  Checkpoint file = make_checkpoint(net);
  CHECK_FALSE(PostHocEma::stored_in(file));
  CHECK_THROWS_AS(PostHocEma::load(file, net.layout()), ModelFileError);
  ema.store(file, net.layout());
  CHECK(file.metadata["post_hoc.steps"] == "2 4 6");
  const PostHocEma read = PostHocEma::load(file, net.layout());
  CHECK(read.steps() == 6);
  CHECK(read.snapshots() == std::vector<std::int64_t>{2, 4});
  CHECK(read.reconstruct(.15).parameters == ema.reconstruct(.15).parameters);
  make_network(file);  // the network's own tensors are still all there is to it
  for (const char* steps : {"", "2 4 6 ", "4 2 6", "0 4", "2,4", "2 4 7", "-1", "2 4 x"}) {
    Checkpoint bad = file;
    bad.metadata["post_hoc.steps"] = steps;
    CHECK_THROWS_AS(PostHocEma::load(bad, net.layout()), ModelFileError);
  }
}

TEST_CASE("misuse") {
  PostHocEma ema(3);
  CHECK_THROWS_AS(ema.reconstruct(.1), UsageError);
  CHECK_THROWS_AS(ema.snapshot(), UsageError);
  CHECK_THROWS_AS(ema.update(std::vector<float>(2)), UsageError);
  ema.update(std::vector<float>{1, 2, 3});
  CHECK(ema.average(0)[2] == 3);
  ema.snapshot();
  CHECK_THROWS_AS(ema.snapshot(), UsageError);
  CHECK(ema.reconstruct(.1).parameters == std::vector<float>{1, 2, 3});
}
