// SPDX-License-Identifier: MIT
#include "tweedie/models/noise_levels.h"

#include <cmath>

namespace tweedie {

NoiseLevels NoiseLevels::geometric(double sigma_max, double sigma_min, Index count) {
  check(std::isfinite(sigma_max) && sigma_min > 0 && sigma_max >= sigma_min, "NoiseLevels::geometric: sigma_max = ", sigma_max,
        ", sigma_min = ", sigma_min, "; both must be positive and finite, the largest first");
  check(sigma_max > sigma_min ? count >= 2 : count == 1, "NoiseLevels::geometric: ", count, " levels from ", sigma_max, " to ",
        sigma_min, "; two or more levels need sigma_max > sigma_min, a single one sigma_max = sigma_min");
  std::vector<double> sigmas(static_cast<std::size_t>(count));
  const double log_max = std::log(sigma_max);
  const double step = count > 1 ? (std::log(sigma_min) - log_max) / static_cast<double>(count - 1) : 0;
  for (std::size_t i = 0; i < sigmas.size(); ++i) sigmas[i] = std::exp(log_max + step * static_cast<double>(i));
  // exp(log(x)) may miss x by a rounding; a model trained on these levels must answer for both ends exactly.
  sigmas.front() = sigma_max;
  sigmas.back() = sigma_min;
  return NoiseLevels(std::move(sigmas));
}

NoiseLevels::NoiseLevels(std::vector<double> sigmas) : sigmas_(std::move(sigmas)) {
  check(!sigmas_.empty(), "NoiseLevels: no levels given, at least one is needed");
  for (std::size_t i = 0; i < sigmas_.size(); ++i) {
    check(std::isfinite(sigmas_[i]) && sigmas_[i] > 0, "NoiseLevels: level ", i, " is ", sigmas_[i],
          "; levels must be positive and finite");
    check(i == 0 || sigmas_[i] < sigmas_[i - 1], "NoiseLevels: level ", i, " is ", sigmas_[i], ", not below level ", i - 1, " (",
          i == 0 ? 0. : sigmas_[i - 1], "); give them in strictly decreasing order");
  }
}

}  // namespace tweedie
