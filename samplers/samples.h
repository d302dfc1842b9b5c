// samples.h - what every sampler gives back, its progress and how it is cancelled.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie {

template <class S>
struct SamplesX {
  MatrixX<S> x;                                // (n, D)
  std::int64_t evaluations = 0;                // score evaluations per sample (NFE)
  std::vector<MatrixX<S>> trajectory;          // states (rows kept, D), the start first; empty unless asked for
  std::vector<std::int64_t> trajectory_steps;  // steps taken before each of them, from 0 for the start
};
using Samples = SamplesX<float>;
using SamplesD = SamplesX<double>;  // state and score in double, the noise the same numbers

/// How much of a run is done, counted in rows times steps.
struct SamplingProgress {
  std::int64_t done = 0;
  std::int64_t total = 0;
};
/// Called at the start (done = 0), then after each 100 steps of a chunk of rows and its last; where a device runs a whole chain
/// (device_score.h) after each launch: all steps, 4096 of them, or those to the next saved state. `done` never falls and the last
/// call has done = total. Calls come one at a time, though from different threads. Returning false cancels: the sampler throws
/// CancelledError at once and gives back nothing.
using SamplingCallback = std::function<bool(const SamplingProgress&)>;

/// A callback asked to stop.
class TWEEDIE_API CancelledError : public Error {
 public:
  using Error::Error;
  ~CancelledError() override;
  int exit_code() const noexcept override { return 130; }
};

/// The two ways to write a Langevin step of size a: half: x += a/2 s + sqrt(a) z [Song & Ermon 2019, Algorithm 1; the chapter];
/// full: x += a s + sqrt(2 a) z [NCSN's code; Song & Ermon 2020, Algorithm 1].
enum class StepConvention { half, full };
TWEEDIE_API const char* to_string(StepConvention convention);
/// "half" or "full"; throws UsageError for anything else.
TWEEDIE_API StepConvention step_convention(std::string_view name);

}  // namespace tweedie
