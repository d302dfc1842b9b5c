// SPDX-License-Identifier: MIT
#include "tweedie/samplers/detail/step_sampler.h"

namespace tweedie::detail {

void check_schedule(const std::vector<double>& sigmas, const char* sampler) {
  check(sigmas.size() >= 2, sampler, ": a schedule of ", sigmas.size(), " levels has no interval; give two levels or more");
  check(std::isfinite(sigmas.front()) && sigmas.back() >= 0, sampler, ": the schedule runs from ", sigmas.front(), " to ",
        sigmas.back(), "; it must be finite and not negative");
  for (std::size_t i = 1; i < sigmas.size(); ++i) {
    check(sigmas[i] < sigmas[i - 1], sampler, ": the schedule must fall strictly, level ", i, " is ", sigmas[i], " after ",
          sigmas[i - 1]);
  }
}

}  // namespace tweedie::detail
