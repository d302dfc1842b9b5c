// SPDX-License-Identifier: MIT
#include "tweedie/samplers/samples.h"

namespace tweedie {

CancelledError::~CancelledError() = default;

const char* to_string(StepConvention convention) { return convention == StepConvention::half ? "half" : "full"; }

StepConvention step_convention(std::string_view name) {
  if (name == "half") return StepConvention::half;
  if (name == "full") return StepConvention::full;
  fail("step convention '", name, "' is unknown; choose half (a/2 s + sqrt(a) z) or full (a s + sqrt(2 a) z)");
}

}  // namespace tweedie
