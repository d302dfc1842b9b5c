// dispatch.cpp - which target the kernels run on: the machine's best, TWEEDIE_TARGET's, or the caller's.
// SPDX-License-Identifier: MIT
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "tweedie/core/check.h"
#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels {

namespace {

constexpr Target kTargets[] = {Target::amx, Target::avx512_bf16, Target::avx512, Target::avx2, Target::portable};  // best first
constexpr const char* kVariable = "TWEEDIE_TARGET";

struct Choice {
  Target target;
  const cpu::TargetTable* table;
};

const cpu::TargetTable* table_of(Target target) {
  switch (target) {
    case Target::portable:
      return cpu::kPortable;
    case Target::avx2:
      return cpu::kAvx2;
    case Target::avx512:
      return cpu::kAvx512;
    case Target::avx512_bf16:
      return cpu::kAvx512Bf16;
    case Target::amx:
      return cpu::kAmx;
  }
  return nullptr;
}

#if defined(__x86_64__) && defined(__linux__)
// Tiles for bf16, and the kernel's leave to use their state, which has to be asked for once in a process.
bool has_tiles() {
  static const bool answer = [] {
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // leaf 7, edx
    constexpr int kRequestPermission = 0x1023, kTileData = 18;    // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBf16) != 0 && (edx & kAmxTile) != 0 &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return answer;
}
#elif defined(__x86_64__) || defined(__i386__)
bool has_tiles() { return false; }
#endif

// What the processor has and the operating system saves on a context switch.
bool machine_runs(Target target) {
#if defined(__x86_64__) || defined(__i386__)
  const auto avx2 = [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); };
  const auto avx512 = [&] {
    return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  };
  const auto bf16 = [&] { return avx512() && __builtin_cpu_supports("avx512bf16"); };
  switch (target) {
    case Target::portable:
      return true;
    case Target::avx2:
      return avx2();
    case Target::avx512:
      return avx512();
    case Target::avx512_bf16:
      return bf16();
    case Target::amx:
      return bf16() && has_tiles();
  }
  return false;
#else
  return target == Target::portable;
#endif
}

void require(Target target, std::string_view who) {
  check<ResourceError>(available(target), who, ": this machine or this build cannot run the target ", name(target),
                       "; leave it out to get the best that runs here, or use portable");
}

// One constant per target: the choice in use is a single atomic pointer.
const Choice* choice_of(Target target) {
  static const Choice choices[] = {{Target::portable, cpu::kPortable},
                                   {Target::avx2, cpu::kAvx2},
                                   {Target::avx512, cpu::kAvx512},
                                   {Target::avx512_bf16, cpu::kAvx512Bf16},
                                   {Target::amx, cpu::kAmx}};
  return &choices[static_cast<int>(target)];
}

Target first_choice() {
  const char* wanted = std::getenv(kVariable);
  if (wanted == nullptr || *wanted == '\0') {
    for (const Target target : kTargets) {
      if (available(target)) return target;
    }
  }
  for (const Target target : kTargets) {
    if (std::string_view(wanted) == name(target)) {
      require(target, kVariable);
      return target;
    }
  }
  fail(kVariable, ": unknown target \"", wanted,
       "\"; known are portable, avx2, avx512, avx512_bf16 and amx (unset it for the best one)");
}

std::atomic<const Choice*> in_use = nullptr;

const Choice& choice() {
  const Choice* chosen = in_use.load(std::memory_order_acquire);
  if (chosen == nullptr) {
    const Choice* first = choice_of(first_choice());
    // A set_target that came in between stays.
    if (in_use.compare_exchange_strong(chosen, first, std::memory_order_acq_rel)) chosen = first;
  }
  return *chosen;
}

}  // namespace

const char* name(Target target) {
  switch (target) {
    case Target::portable:
      return "portable";
    case Target::avx2:
      return "avx2";
    case Target::avx512:
      return "avx512";
    case Target::avx512_bf16:
      return "avx512_bf16";
    case Target::amx:
      return "amx";
  }
  return "unknown";
}

const char* name(Precision precision) {
  switch (precision) {
    case Precision::fp32:
      return "fp32";
    case Precision::tf32:
      return "tf32";
    case Precision::bf16x3:
      return "bf16x3";
    case Precision::bf16:
      return "bf16";
  }
  return "unknown";
}

Precision precision_named(std::string_view wanted) {
  for (const Precision p : {Precision::fp32, Precision::tf32, Precision::bf16x3, Precision::bf16}) {
    if (wanted == name(p)) return p;
  }
  fail("precision '", wanted, "' is unknown; choose fp32, tf32, bf16x3 or bf16");
}

bool available(Target target) { return table_of(target) != nullptr && machine_runs(target); }

Target target() { return choice().target; }

void set_target(Target target) {
  require(target, "set_target");
  in_use.store(choice_of(target), std::memory_order_release);
}

namespace cpu {
const TargetTable& table() { return *choice().table; }
}  // namespace cpu

}  // namespace tweedie::kernels
