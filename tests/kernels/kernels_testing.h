// kernels_testing.h - what the kernels' tests share: every dispatch target in turn, data that covers the number range, bits.
// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::testing {

inline constexpr Target kAllTargets[] = {Target::portable, Target::avx2, Target::avx512, Target::avx512_bf16, Target::amx};
inline constexpr Index kSizes[] = {0, 1, 3, 16, 17, 64, 65};

template <class T>
inline constexpr double kUnit = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;  // u: half the distance of 1 to the next number
template <class T>
inline constexpr double kTiny = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022;

/// Says once in a run that a target was not tried.
inline void say_not_tried(Target t) {
  static bool said[std::size(kAllTargets)];
  if (!std::exchange(said[static_cast<std::size_t>(t)], true)) std::printf("not tried on this machine: target %s\n", name(t));
}

/// Runs body() on every target that this machine has, and says which were not tried.
template <class Body>
void on_every_target(Body body) {
  const Target before = target();
  for (const Target t : kAllTargets) {
    if (!available(t)) {
      say_not_tried(t);
      continue;
    }
    set_target(t);
    const std::string running = name(t);
    CAPTURE(running);
    body();
  }
  set_target(before);
}

/// A small generator, so that the tests depend on no other room: uniform in [-1, 1).
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}
  double operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<double>(static_cast<std::int64_t>(state_)) * 0x1p-63;
  }

 private:
  std::uint64_t state_;
};

template <class T>
std::vector<T> uniform(Index n, std::uint64_t seed) {
  Uniform next(seed);
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& value : x) value = static_cast<T>(next());
  return x;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Numbers between two fences, which a kernel must leave as they are; NaN there, or 0 of an integer, so that a read shows too.
template <class T>
class Fenced {
 public:
  explicit Fenced(const std::vector<T>& x) : memory_(x.size() + 2 * kFence, kPost), size_(x.size()) {
    std::copy(x.begin(), x.end(), memory_.begin() + kFence);
  }
  explicit Fenced(Index n) : memory_(static_cast<std::size_t>(n) + 2 * kFence, kPost), size_(static_cast<std::size_t>(n)) {}
  T* data() { return memory_.data() + kFence; }
  const T* data() const { return memory_.data() + kFence; }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return memory_[kFence + i]; }
  const T& operator[](std::size_t i) const { return memory_[kFence + i]; }
  std::vector<T> values() const { return {data(), data() + size_}; }
  bool intact() const {
    const std::vector<T> posts(kFence, kPost);
    return std::memcmp(memory_.data(), posts.data(), kFence * sizeof(T)) == 0 &&
           std::memcmp(data() + size_, posts.data(), kFence * sizeof(T)) == 0;
  }

 private:
  static constexpr std::size_t kFence = 64;
  static constexpr T kPost = std::is_integral_v<T> ? T(0) : std::numeric_limits<T>::quiet_NaN();
  std::vector<T> memory_;
  std::size_t size_;
};

template <class To, class From>
std::vector<To> converted(const std::vector<From>& x) {
  return std::vector<To>(x.begin(), x.end());
}
template <class To, class From>
std::vector<To> converted(const Fenced<From>& x) {
  return std::vector<To>(x.data(), x.data() + x.size());
}

template <class T>
inline constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

}  // namespace tweedie::kernels::testing
