// sigma_range.h - the noise levels that a flow runs between, within what the model answers for.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

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

}  // namespace tweedie::detail
