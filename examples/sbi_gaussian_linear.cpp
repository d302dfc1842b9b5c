// sbi_gaussian_linear.cpp - theta ~ N(0, .1 I), x | theta ~ N(theta, .1 I), ten dimensions. Posterior N(x/2, .05 I).
//
//   example_sbi_gaussian_linear --simulations 10000 --data sbibm       # see sbi.h
// SPDX-License-Identifier: MIT
#include "sbi.h"

int main(int argc, char** argv) {
  using namespace sbi;
  const double deviation = std::sqrt(.1);
  const Task task{
      .name = "gaussian_linear",
      .prior = [=](Index n, const Rng& rng) { return normal(n, 10, deviation, rng); },
      .simulate =
          [=](ConstRows<float> theta, const Rng& rng) {
            Matrix x = normal(theta.rows(), theta.cols(), deviation, rng);
            x.eigen() += theta.eigen();
            return x;
          },
      .inside = [](std::span<const float>) { return true; },
      .exact =
          [](std::span<const float> x, Index n, const Rng& rng) {
            Matrix theta = normal(n, static_cast<Index>(x.size()), std::sqrt(.05), rng);
            for (Index r = 0; r < n; ++r) {
              for (std::size_t d = 0; d < x.size(); ++d) theta(r, static_cast<Index>(d)) += x[d] / 2;
            }
            return theta;
          },
  };
  return program(task, {}, argc, argv);
}
