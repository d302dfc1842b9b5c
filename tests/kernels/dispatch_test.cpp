// dispatch_test.cpp - which target runs: the best one, TWEEDIE_TARGET's, set_target's; and the errors of each.
// SPDX-License-Identifier: MIT
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "kernels_testing.h"
#include "tweedie/core/check.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

/// Runs this program's hidden test "report target" with TWEEDIE_TARGET = value; its exit status is what target() did.
int status_with(const std::string& value) {
  char path[4096] = {};
  REQUIRE(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  const std::string command =
      "TWEEDIE_TARGET='" + value + "' '" + path + "' --no-skip --no-intro --test-case='child: report target' > /dev/null 2>&1";
  const int status = std::system(command.c_str());
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

constexpr int kTargetStatus = 100;  // + the target's number

}  // namespace

TEST_CASE("child: report target" * doctest::skip()) {
  try {
    std::_Exit(kTargetStatus + static_cast<int>(target()));
  } catch (const Error& error) {
    const bool helpful = std::strstr(error.what(), "TWEEDIE_TARGET") != nullptr;
    std::_Exit(helpful ? error.exit_code() : 99);
  }
}

TEST_CASE("names and availability") {
  CHECK(std::string(name(Target::portable)) == "portable");
  CHECK(std::string(name(Target::avx2)) == "avx2");
  CHECK(std::string(name(Target::avx512)) == "avx512");
  CHECK(std::string(name(Target::avx512_bf16)) == "avx512_bf16");
  CHECK(std::string(name(Target::amx)) == "amx");
  CHECK(available(Target::portable));
  if (available(Target::avx512)) CHECK(available(Target::avx2));
  if (available(Target::avx512_bf16)) CHECK(available(Target::avx512));
  if (available(Target::amx)) CHECK(available(Target::avx512_bf16));
}

TEST_CASE("without the variable the best target runs") {
  Target best = Target::portable;
  for (const Target t : kAllTargets) {  // each has what those before it have
    if (available(t)) best = t;
  }
  CHECK(status_with("") == kTargetStatus + static_cast<int>(best));
}

TEST_CASE("TWEEDIE_TARGET names a target, or the call fails") {
  for (const Target t : kAllTargets) {
    CAPTURE(name(t));
    const int lacking = 6;  // ResourceError
    CHECK(status_with(name(t)) == (available(t) ? kTargetStatus + static_cast<int>(t) : lacking));
  }
  for (const char* unknown : {"sse9", "AVX2", "avx2 ", "portable,avx2"}) {
    CAPTURE(unknown);
    CHECK(status_with(unknown) == 2);  // UsageError
  }
}

TEST_CASE("set_target overrides the choice") {
  const Target before = target();
  for (const Target t : kAllTargets) {
    CAPTURE(name(t));
    if (available(t)) {
      set_target(t);
      CHECK(target() == t);
    } else {
      CHECK_THROWS_AS(set_target(t), ResourceError);
    }
  }
  set_target(before);
}
