// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "samplers/flow_support.h"
#include "tweedie/samplers/likelihood.h"

using namespace tweedie;

TEST_CASE("hutchinson over many rows: z against the exact trace, its tail beyond 4 and its variance") {
  // 128 probes: z is like Student's t with 127 degrees, its variance 127/125 and up to (7/4) g^2 / 128 more for a skewness g of
  // the quadratic forms [Hall 1987]: 1.02 to 1.07, and over 3000 rows it is known to .026. |z| > 4 has probability 1e-4 under t:
  // .3 rows of 3000 are expected for Rademacher probes, whose form is symmetric enough, and more than five with probability
  // 8e-7. A Gaussian probe's form is a weighted chi-square, which gives t the mean -g / (2 sqrt 128) (measured: -.08, so g is
  // near 2) and a heavier left tail: if one is expected, more than eight have probability 1e-6.
  const GaussianMixture model = test::correlated_gaussian(6);
  const Index n = 3000;
  const MatrixD x = test::draws(model, n, .3, 12);
  LogDensityOptions options{.terminal = Terminal::exact, .sigma_min = .3, .sigma_max = 3, .rtol = 1e-4, .atol = 1e-4};
  const LogDensity exact = log_density(model, x, options);
  options.divergence = Divergence::hutchinson;
  options.probes = 128;
  for (const Probe kind : {Probe::rademacher, Probe::gaussian}) {
    options.probe = kind;
    const LogDensity estimate = log_density(model, x, options, Rng{22});
    double square = 0, mean = 0, largest = 0, error = 0, variance = 0;
    int beyond = 0;
    for (std::size_t i = 0; i < exact.nats.size(); ++i) {
      const double z = (estimate.nats[i] - exact.nats[i]) / estimate.standard_error[i];
      mean += z / static_cast<double>(n);
      square += z * z / static_cast<double>(n);
      largest = std::max(largest, std::abs(z));
      beyond += std::abs(z) > 4;
      error += estimate.nats[i] - exact.nats[i];
      variance += estimate.standard_error[i] * estimate.standard_error[i];
    }
    const double pooled = error / std::sqrt(variance);  // free of t's skewness: an unbiased estimate has N(0, 1)
    MESSAGE(std::string(to_string(kind)), ": mean of z ", mean, ", variance ", square - mean * mean, ", largest |z| ", largest,
            ", pooled z ", pooled);
    CHECK(std::abs(pooled) <= 5);
    CHECK(beyond <= (kind == Probe::rademacher ? 5 : 8));
    CHECK(std::abs(square - mean * mean - 1.045) <= .025 + 5 * .026);
  }
}

TEST_CASE("the built-in mixtures' densities integrate to 1 +- 1e-4") {
  // Narrowest scales .25 and .1 beside sigma_min: at spacings of .16 and .1 the midpoint rule errs by 2 exp(-48) and 2 exp(-20).
  const LogDensityOptions options{.terminal = Terminal::exact, .rtol = 1e-6, .atol = 1e-6};
  const double plain = integrate_density(GaussianMixture::three_gaussians(), {-6, 6, -5, 5}, 80, options);
  const double unequal = integrate_density(GaussianMixture::three_gaussians_unequal(), {-7, 7, -5, 9}, 140, options);
  MESSAGE("three_gaussians 1 + ", plain - 1, ", three_gaussians_unequal 1 + ", unequal - 1);
  CHECK(std::abs(plain - 1) <= 1e-4);
  CHECK(std::abs(unequal - 1) <= 1e-4);
}
