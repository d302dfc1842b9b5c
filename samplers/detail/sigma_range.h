// sigma_range.h - the noise levels that a flow runs between, within what the model answers for.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include "tweedie/models/score_model.h"

namespace tweedie::detail {

struct SigmaRange {
  double low, high;
};

/// [low, high], its ends moved onto the model's where they miss them by rounding alone. Throws UsageError beyond.
inline SigmaRange within_model(const ScoreModel& model, double low, double high, const char* name) {
  constexpr double kRounding = 1e-9;
  const double least = model.sigma_min(), most = model.sigma_max();
  check(low >= least * (1 - kRounding) && high <= most * (1 + kRounding), name, ": needs sigma from ", low, " to ", high, ", ",
        model.name(), " answers from ", least, " to ", most, "; choose a process or a range inside");
  return {std::max(low, least), std::min(high, most)};
}

/// What a user asked for; where that is 0, the model's own end, or ve()'s .01 and 50 where the model has none.
inline SigmaRange flow_range(const ScoreModel& model, double low, double high, const char* name) {
  check(std::isfinite(low) && std::isfinite(high) && low >= 0 && high >= 0, name, ": sigma_min = ", low, ", sigma_max = ", high,
        "; give finite numbers, or 0 for the model's own");
  if (low == 0) low = model.sigma_min() > 0 ? model.sigma_min() : .01;
  if (high == 0) high = std::isfinite(model.sigma_max()) ? model.sigma_max() : 50;
  check(low < high, name, ": sigma_min = ", low, " is not below sigma_max = ", high, "; give two rising numbers");
  return within_model(model, low, high, name);
}

}  // namespace tweedie::detail
