// What the diagnostics' errors and levels are worth, over many seeds.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/c2st.h"
#include "tweedie/samplers/stein.h"

using namespace tweedie;

namespace {
Matrix normals(std::uint64_t seed, Index rows, Index cols) {
  Matrix x(rows, cols);
  Rng{seed}.normals<float>(Purpose::user, 0, 0, x);
  return x;
}

// Stationary, of variance 1 and correlation rho from one row to the next.
Matrix chain(std::uint64_t seed, Index rows, double rho) {
  Matrix x = normals(seed, rows, 1);
  for (Index r = 1; r < rows; ++r) {
    x(r, 0) =
        static_cast<float>(rho * static_cast<double>(x(r - 1, 0)) + std::sqrt(1 - rho * rho) * static_cast<double>(x(r, 0)));
  }
  return x;
}
}  // namespace

TEST_CASE("c2st: accuracies scatter by the standard error under equal laws, and by less where laws differ") {
  // A variance over 100 sets is that of chi-squared with 99 degrees, whose 1e-6 tails lie at 1.37 and .664 deviations.
  constexpr int kSets = 100;
  for (const float shift : {0.0F, 1.0F}) {
    double sum = 0, squares = 0, error = 0;
    for (std::uint64_t seed = 0; seed < kSets; ++seed) {
      Matrix y = normals(2 * seed + 1, 1000, 2);
      for (Index r = 0; r < y.rows(); ++r) y(r, 0) += shift;
      const C2st c = c2st(normals(2 * seed, 1000, 2), y, {}, Rng{seed});
      sum += c.accuracy / kSets;
      squares += c.accuracy * c.accuracy / kSets;
      error = c.standard_error;
    }
    const double deviation = std::sqrt((squares - sum * sum) * kSets / (kSets - 1));
    MESSAGE("shift ", shift, ": mean accuracy ", sum, ", deviation ", deviation, ", standard error ", error);
    CHECK(deviation < 1.37 * error);
    CHECK(deviation > .664 * (shift == 0 ? error : error / std::sqrt(2.0)));
    if (shift == 0) CHECK(std::abs(sum - .5) < error);
  }
}

TEST_CASE("Stein test: a chain's states are rejected as independent ones, and not with signs that change slowly") {
  const GaussianMixture model = GaussianMixture::gaussian(1, 1);
  constexpr int kSets = 100;
  int independent = 0, slow = 0, shifted = 0;
  for (std::uint64_t seed = 0; seed < kSets; ++seed) {
    Matrix x = chain(7000 + seed, 500, .9);
    independent += stein_test(model, 0, x, {.bootstraps = 199}, Rng{seed}).p_value <= .05 ? 1 : 0;
    slow += stein_test(model, 0, x, {.bootstraps = 199, .sign_change = .02}, Rng{seed}).p_value <= .05 ? 1 : 0;
    for (Index r = 0; r < x.rows(); ++r) x(r, 0) += 1;
    shifted += stein_test(model, 0, x, {.bootstraps = 199, .sign_change = .02}, Rng{seed}).p_value <= .05 ? 1 : 0;
  }
  MESSAGE("rejected at 5%: ", independent, " as independent, ", slow, " with slow signs, ", shifted, " shifted; of ", kSets);
  CHECK(independent >= 50);
  CHECK(slow <= 18);  // P(Binomial(100, .05) > 18) < 1e-6
  CHECK(shifted >= 90);
}
