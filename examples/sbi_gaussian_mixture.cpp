// sbi_gaussian_mixture.cpp - theta ~ U(-10, 10)^2, x | theta ~ 1/2 N(theta, I) + 1/2 N(theta, .01 I).
// Posterior: the same mixture about x, cut to the box.
//
//   example_sbi_gaussian_mixture --simulations 10000 --data sbibm      # see sbi.h
// SPDX-License-Identifier: MIT
#include "sbi.h"

int main(int argc, char** argv) {
  using namespace sbi;
  // 1/2 N(0, I) + 1/2 N(0, .01 I), (n, 2).
  const auto noise = [](Index n, Rng rng) {
    Matrix z = normal(n, 2, 1, rng.split());
    const Matrix u = uniform(n, 1, 0, 1, rng.split());
    for (Index r = 0; r < n; ++r) {
      if (u(r, 0) > .5F) z.eigen().row(r) *= .1F;
    }
    return z;
  };
  const auto inside = [](std::span<const float> theta) { return std::abs(theta[0]) <= 10 && std::abs(theta[1]) <= 10; };
  const Task task{
      .name = "gaussian_mixture",
      .prior = [](Index n, const Rng& rng) { return uniform(n, 2, -10, 10, rng); },
      .simulate =
          [=](ConstRows<float> theta, const Rng& rng) {
            Matrix x = noise(theta.rows(), rng);
            x.eigen() += theta.eigen();
            return x;
          },
      .inside = inside,
      .exact =
          [=](std::span<const float> x, Index n, const Rng& rng) {
            const auto about_x = [&](Index m, const Rng& stream) {
              Matrix theta = noise(m, stream);
              for (Index r = 0; r < m; ++r) {
                theta(r, 0) += x[0];
                theta(r, 1) += x[1];
              }
              return theta;
            };
            return reject(n, rng, about_x, inside);
          },
  };
  return program(task, {}, argc, argv);
}
