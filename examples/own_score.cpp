// own_score.cpp - any function is a score model: a ring, p(x) ~ exp(-(|x| - 2)^2 / (2 * .2^2)), sampled by Langevin dynamics.
// SPDX-License-Identifier: MIT
#include <tweedie/tweedie.h>

#include <cmath>
#include <cstdio>

using namespace tweedie;

int main() {
  // grad log p = -(|x| - 2) / .04 * x / |x|, whatever the noise level.
  const FunctionScore ring(2, [](ConstRows<double> x, std::span<const double>, Rows<double> score) {
    for (Index b = 0; b < x.rows(); ++b) {
      const double radius = std::hypot(x(b, 0), x(b, 1));
      for (Index d = 0; d < 2; ++d) score(b, d) = -(radius - 2) / .04 * x(b, d) / radius;
    }
  });

  Rng rng{1};
  Matrix start(2000, 2);
  rng.normals(Purpose::prior, 0, 0, start.view());
  const Samples samples = langevin_dynamics(ring, 0, start, {.step_size = .005, .num_steps = 2000}, rng.split());

  double mean = 0, square = 0;
  for (Index b = 0; b < samples.x.rows(); ++b) {
    const double radius = std::hypot(samples.x(b, 0), samples.x(b, 1));
    mean += radius / 2000;
    square += radius * radius / 2000;
  }
  // The radius has density ~ r exp(-(r - 2)^2 / .08): mean 2 + .04 / 2, standard deviation close to .2.
  std::printf("radius %.3f +- %.3f (expected 2.02 +- 0.20)\n", mean, std::sqrt(square - mean * mean));
  return std::abs(mean - 2.02) < .03 ? 0 : 1;
}
