// philox.h - Philox4x32-10, the counter-based generator of all random numbers, for host and device.
//
//   Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//
// What the counter's 128 bits and the key's 64 mean here (part of the file format: a resumed run must draw the same numbers):
//   c0 = row bits 0..31
//   c1 = step
//   c2 = row bits 32..43 (high 12 bits) | block of four dimensions (low 20 bits)
//   c3 = purpose (high 8 bits) | sub-draw (low 24 bits)
//   k0, k1 = low and high half of the stream's key
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "tweedie/core/host_device.h"

namespace tweedie {

/// What a draw is for: 8 bits of the counter, so that two uses of one stream never meet. Values are part of the format.
enum class Purpose : std::uint32_t {
  split = 0,        // keys of child streams
  initialise = 1,   // network weights
  permutation = 2,  // order of rows in an epoch
  row = 3,          // which row a batch element takes
  level = 4,        // which noise level, or the time / ln sigma, a batch element gets
  perturb = 5,      // eps of x0 + sigma eps
  project = 6,      // directions of sliced score matching, Hutchinson probes
  prior = 7,        // a sampler's start
  langevin = 8,     // z of a Langevin step
  accept = 9,       // Metropolis
  dataset = 10,     // built-in distributions
  fourier = 11,     // frequencies of a Fourier embedding
  dropout = 12,     // labels dropped for classifier-free guidance
  bootstrap = 13,   // resampling, permutation tests, splits
  sde = 14,         // z of a reverse-SDE step
  user = 255,
};

/// Four 32-bit words: a counter, or the draw it gives.
struct PhiloxWords {
  std::uint32_t v[4];
};

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53;
inline constexpr std::uint32_t kPhiloxMultiplier1 = 0xCD9E8D57;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9;  // golden ratio
inline constexpr std::uint32_t kPhiloxWeyl1 = 0xBB67AE85;  // sqrt(3) - 1
inline constexpr int kPhiloxRounds = 10;

/// The counter of a draw; row < 2^44, block < 2^20, sub_draw < 2^24 (the caller checks).
TWEEDIE_HOST_DEVICE constexpr PhiloxWords philox_counter(Purpose purpose, std::uint32_t step, std::uint64_t row,
                                                         std::uint32_t block, std::uint32_t sub_draw) {
  return {{static_cast<std::uint32_t>(row), step, (static_cast<std::uint32_t>(row >> 32) << 20) | block,
           (static_cast<std::uint32_t>(purpose) << 24) | sub_draw}};
}

/// Philox4x32-10: a keyed bijection of 128-bit counters whose outputs pass as independent uniform words.
TWEEDIE_HOST_DEVICE constexpr PhiloxWords philox4x32(PhiloxWords counter, std::uint64_t key) {
  std::uint32_t c0 = counter.v[0], c1 = counter.v[1], c2 = counter.v[2], c3 = counter.v[3];
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier0} * c0;
    const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace tweedie
