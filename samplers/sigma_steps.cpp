// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/sigma_steps.h"

#include <cmath>

namespace tweedie::detail {

std::vector<double> sigma_steps(const ScoreModel& model, std::span<const double> sigmas, const char* sampler) {
  check(!sigmas.empty() && sigmas[0] > 0, sampler,
        ": no noise levels; give decreasing sigmas, for example NoiseLevels::geometric(50, .01, 100).values()");
  std::vector<double> steps(sigmas.begin(), sigmas.end());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    check(std::isfinite(steps[i]) && steps[i] >= 0 && (i == 0 || steps[i] < steps[i - 1]), sampler, ": sigma ", i, " is ",
          steps[i], i == 0 ? "" : join(", after ", steps[i - 1]),
          "; give finite sigmas in strictly decreasing order, the last of them 0 or more");
  }
  if (steps.back() > 0) steps.push_back(0);
  const double last = steps[steps.size() - 2];
  check(last >= model.sigma_min() && steps[0] <= model.sigma_max(), sampler, ": sigmas from ", steps[0], " to ", last,
        " leave the model's range [", model.sigma_min(), ", ", model.sigma_max(), "]");
  return steps;
}

DdimStep ddim_step(double sigma, double next, double eta) {
  const double ratio = next / sigma, tau = 1 - ratio * ratio;
  return {ratio * std::sqrt(1 - eta * eta * tau), eta * next * std::sqrt(tau)};
}

}  // namespace tweedie::detail
