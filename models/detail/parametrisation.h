// parametrisation.h - what a network for any noise level makes of its trunk's F (the table in continuous_network.h).
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/models/continuous_network.h"

namespace tweedie::detail {

// u = a x + b F.
struct Coefficients {
  double a, b;
};

inline Coefficients coefficients(const ContinuousNetworkOptions& options, double sigma) {
  switch (options.parametrisation) {
    case Parametrisation::edm: {
      const double r = std::hypot(sigma, options.sigma_data);
      return {-sigma / r / r, options.sigma_data / r};
    }
    case Parametrisation::score:
      return {0, sigma};
    case Parametrisation::epsilon:
      return {0, -1};
    case Parametrisation::x0:
      return {-1 / sigma, 1 / sigma};
    case Parametrisation::v: {
      const double r = std::hypot(sigma, 1);
      return {-sigma / r / r, -1 / r};
    }
  }
  fail("ContinuousScoreNetwork: unknown parametrisation");
}

}  // namespace tweedie::detail
