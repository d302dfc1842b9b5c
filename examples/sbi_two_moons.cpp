// sbi_two_moons.cpp - theta ~ U(-1, 1)^2; x = p + (-|t1 + t2|, t2 - t1) / sqrt 2, p = (r cos a + .25, r sin a),
// a ~ U(-pi/2, pi/2), r ~ N(.1, .01^2). Posterior: two thin crescents, mirror images along t1 + t2.
//
//   example_sbi_two_moons --simulations 10000 --data sbibm             # see sbi.h
// SPDX-License-Identifier: MIT
#include <numbers>

#include "sbi.h"

int main(int argc, char** argv) {
  using namespace sbi;
  // p, (n, 2).
  const auto crescent = [](Index n, Rng rng) {
    const Matrix angle = uniform(n, 1, -std::numbers::pi / 2, std::numbers::pi / 2, rng.split());
    const Matrix radius = normal(n, 1, .01, rng.split());
    Matrix p(n, 2);
    for (Index r = 0; r < n; ++r) {
      p(r, 0) = (radius(r, 0) + .1F) * std::cos(angle(r, 0)) + .25F;
      p(r, 1) = (radius(r, 0) + .1F) * std::sin(angle(r, 0));
    }
    return p;
  };
  constexpr float kRoot = std::numbers::sqrt2_v<float>;
  const auto inside = [](std::span<const float> theta) { return std::abs(theta[0]) <= 1 && std::abs(theta[1]) <= 1; };
  const Task task{
      .name = "two_moons",
      .prior = [](Index n, const Rng& rng) { return uniform(n, 2, -1, 1, rng); },
      .simulate =
          [=](ConstRows<float> theta, const Rng& rng) {
            Matrix x = crescent(theta.rows(), rng);
            for (Index r = 0; r < x.rows(); ++r) {
              x(r, 0) -= std::abs(theta(r, 0) + theta(r, 1)) / kRoot;
              x(r, 1) += (theta(r, 1) - theta(r, 0)) / kRoot;
            }
            return x;
          },
      .inside = inside,
      // x - p is known with p; either sign of t1 + t2 is as likely, and the map has a constant Jacobian.
      .exact =
          [=](std::span<const float> x, Index n, const Rng& rng) {
            const auto solved = [&](Index m, Rng stream) {
              Matrix theta = crescent(m, stream.split());
              const Matrix sign = uniform(m, 1, -1, 1, stream.split());
              for (Index r = 0; r < m; ++r) {
                const float sum = kRoot * (theta(r, 0) - x[0]), difference = kRoot * (x[1] - theta(r, 1));
                const float signed_sum = sum < 0 ? 4 : sign(r, 0) > 0 ? sum : -sum;  // 4: impossible, outside the box
                theta(r, 0) = (signed_sum - difference) / 2;
                theta(r, 1) = (signed_sum + difference) / 2;
              }
              return theta;
            };
            return reject(n, rng, solved, inside);
          },
  };
  return program(task, {}, argc, argv);
}
