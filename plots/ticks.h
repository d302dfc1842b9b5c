// ticks.h - where an axis has its ticks and what stands beside them.
//
// Linear: multiples of m * 10^e with m in {1, 2, 2.5, 5}, the smallest such step that needs at most `max_count` ticks. Each value
// is k * m * 10^e rounded once, so that 0.3 is the double 0.3. Logarithmic: whole decades; below two decades also 2 and 5.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie::plots {

enum class Scale { linear, log };

/// A closed interval, low end first.
struct Limits {
  double lo = 0, hi = 1;
  friend bool operator==(const Limits&, const Limits&) = default;
};

struct Tick {
  double value = 0;
  std::string label = {};  // may hold markup (^{..}); empty for a minor tick
  bool minor = false;
};

/// Ticks within `limits` in rising order, at most `max_count` labelled ones (>= 2). Throws UsageError unless lo < hi are finite
/// and farther apart than 1e-12 of the larger, and on a logarithmic axis lo > 0.
TWEEDIE_API std::vector<Tick> ticks(Limits limits, Scale scale, Index max_count);

/// An interval that can be drawn: [lo, hi] widened by 4 % at each end (of its logarithm on a logarithmic axis). A single value c
/// becomes [c - w, c + w] with w = max(.5, |c| / 10), on a logarithmic axis [c / 2, 2c]. Without any value (lo > hi): [0, 1],
/// logarithmic [.1, 10].
TWEEDIE_API Limits padded(Limits data, Scale scale);

}  // namespace tweedie::plots
