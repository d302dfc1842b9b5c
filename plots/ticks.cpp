// SPDX-License-Identifier: MIT
#include "tweedie/plots/ticks.h"

#include <charconv>
#include <cmath>

namespace tweedie::plots {
namespace {

constexpr const char* kMinus = "\xE2\x88\x92";  // U+2212, as wide as a plus

// k * m * 10^e, rounded once: 10^|e| is exact up to 10^22.
double multiple(double k, double m, int e) { return e < 0 ? k * m / std::pow(10.0, -e) : k * m * std::pow(10.0, e); }

std::string fixed(double value, int decimals) {
  char text[400];
  const auto end = std::to_chars(text, text + sizeof text, std::abs(value), std::chars_format::fixed, decimals).ptr;
  return (value < 0 ? kMinus : "") + std::string(text, end);
}

std::string integer(Index value) { return (value < 0 ? kMinus : "") + std::to_string(std::abs(value)); }

std::string power_label(Index exponent) { return "10^{" + integer(exponent) + "}"; }

// `unit` is m in value = m * 10^exponent.
std::string scientific(double unit, int decimals, int exponent) {
  return unit == 0 ? "0" : fixed(unit, decimals) + "\xC3\x97" + power_label(exponent);
}

// Multiples first .. last of m * 10^e.
struct Steps {
  double m;
  int e;
  double first, last;
  Index count() const { return static_cast<Index>(last - first) + 1; }
  int decimals(int unit = 0) const { return std::max(0, (m == 2.5 ? 1 : 0) - e + unit); }  // of a multiple / 10^unit
};

Steps steps_within(Limits limits, double m, int e) {
  constexpr double kSlack = 1e-9;  // of a step: an end that is a multiple up to rounding has its tick
  const double size = multiple(1, m, e);
  return {m, e, std::ceil(limits.lo / size - kSlack), std::floor(limits.hi / size + kSlack)};
}

Steps nice_steps(Limits limits, Index max_count) {
  const double span = limits.hi - limits.lo;
  // A step below span / (max_count + 1) always has too many ticks: start at the decade beneath it.
  for (int e = static_cast<int>(std::floor(std::log10(span / static_cast<double>(max_count + 1))));; ++e) {
    for (const double m : {1.0, 2.0, 2.5, 5.0}) {
      const Steps steps = steps_within(limits, m, e);
      if (steps.count() <= max_count) return steps;
    }
  }
}

std::vector<Tick> linear_ticks(Limits limits, Index max_count) {
  const Steps step = nice_steps(limits, max_count);
  const double largest = std::max(std::abs(limits.lo), std::abs(limits.hi));
  const int top = static_cast<int>(std::floor(std::log10(largest)));
  const bool plain = top < 5 && step.e > -5;
  std::vector<Tick> result;
  for (double k = step.first; k <= step.last; ++k) {
    const double value = multiple(k, step.m, step.e);
    const std::string label =
        plain ? fixed(value, step.decimals()) : scientific(multiple(k, step.m, step.e - top), step.decimals(top), top);
    result.push_back({value, k == 0 ? "0" : label, false});
  }
  return result;
}

std::string log_label(double m, int e) {
  if (m == 1) return power_label(e);
  return e >= -3 && e <= 3 ? fixed(multiple(1, m, e), std::max(0, -e)) : scientific(m, 0, e);
}

std::vector<Tick> log_ticks(Limits limits, Index max_count) {
  const double lo = std::log10(limits.lo), hi = std::log10(limits.hi);
  const int first = static_cast<int>(std::floor(lo)), last = static_cast<int>(std::floor(hi + 1e-9));
  const auto decades = static_cast<Index>(std::floor(hi + 1e-9) - std::ceil(lo - 1e-9)) + 1;  // whole powers of ten inside
  const Index stride = std::max<Index>(1, (decades + max_count - 1) / max_count);
  const bool between = hi - lo < 2;
  std::vector<Tick> result;
  for (int e = first; e <= last; ++e) {
    for (int m = 1; m <= 9; ++m) {
      const double value = multiple(1, m, e), position = std::log10(value);
      if (position < lo - 1e-9 || position > hi + 1e-9) continue;
      const bool labelled = m == 1 ? (e % stride == 0) : between && (m == 2 || m == 5);
      if (m == 1 || stride == 1) result.push_back({value, labelled ? log_label(m, e) : "", !labelled});
    }
  }
  return result;
}

Index labelled(const std::vector<Tick>& all) {
  Index count = 0;
  for (const Tick& tick : all) count += !tick.minor;
  return count;
}

}  // namespace

std::vector<Tick> ticks(Limits limits, Scale scale, Index max_count) {
  check(std::isfinite(limits.lo) && std::isfinite(limits.hi) && limits.lo < limits.hi && std::isfinite(limits.hi - limits.lo),
        "ticks: the interval [", limits.lo, ", ", limits.hi, "] is empty or not finite; give limits with lo < hi");
  // Narrower than this, neighbouring ticks would be the same double.
  const double largest = std::max(std::abs(limits.lo), std::abs(limits.hi));
  check(limits.hi - limits.lo > std::max(1e-12 * largest, 1e-290), "ticks: the interval [", limits.lo, ", ", limits.hi,
        "] is too narrow for numbers of its size; subtract an offset or widen it");
  check(max_count >= 2, "ticks: max_count is ", max_count, ", at least 2 are needed");
  if (scale == Scale::linear) return linear_ticks(limits, max_count);
  check(limits.lo > 0, "ticks: a logarithmic axis starts at ", limits.lo, "; it needs positive limits");
  std::vector<Tick> result = log_ticks(limits, max_count);
  if (labelled(result) >= 2) return result;
  return linear_ticks(limits, max_count);  // less than a third of a decade: a logarithmic axis is nearly linear there
}

Limits padded(Limits data, Scale scale) {
  const bool log = scale == Scale::log;
  if (!(data.lo <= data.hi)) return log ? Limits{0.1, 10} : Limits{0, 1};
  if (log) {
    if (std::log10(data.hi / data.lo) < 1e-6) return {data.lo / 2, data.hi * 2};
    const double margin = std::pow(data.hi / data.lo, 0.04);
    return {data.lo / margin, data.hi * margin};
  }
  const double largest = std::max(std::abs(data.lo), std::abs(data.hi));
  // Below 1e-9 of its size a difference is rounding noise, and no tick could name it.
  if (data.hi - data.lo <= std::max(1e-9 * largest, 1e-280)) {
    const double width = std::max(0.5, largest / 10);
    return {data.lo - width, data.hi + width};
  }
  const double margin = 0.04 * (data.hi - data.lo);
  return {data.lo - margin, data.hi + margin};
}

}  // namespace tweedie::plots
