// draws.h - integers and permutations from Philox words, for host and device: Rng::integer and Permutation are these.
// SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/philox.h"

namespace tweedie::detail {

/// The upper 64 bits of a b.
TWEEDIE_HOST_DEVICE inline std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(static_cast<Wide>(a) * b >> 64);
#endif
}

/// One integer in [0, n) without bias, n >= 1. Lemire, "Fast random integer generation in an interval" (2019): the high word of
/// x n is uniform once the low words below 2^64 mod n are refused. A refused word's successor is the next of the same counter,
/// then of the next block.
TWEEDIE_HOST_DEVICE inline std::uint64_t integer_below(std::uint64_t key, Purpose purpose, std::uint32_t step, std::uint64_t row,
                                                       std::uint64_t n, std::uint32_t sub_draw) {
  const std::uint64_t refused_below = (0 - n) % n;
  for (std::uint32_t block = 0;; ++block) {
    const PhiloxWords w = philox4x32(philox_counter(purpose, step, row, block, sub_draw), key);
    for (int k = 0; k < 4; k += 2) {
      const std::uint64_t x = (std::uint64_t{w.v[k + 1]} << 32) | w.v[k];
      if (x * n >= refused_below) return multiply_high(x, n);
    }
  }
}

/// A balanced Feistel network on 2 half_bits bits >= log2 n. Each round is a bijection whatever its function, so the network
/// permutes [0, 2^(2 half_bits)); walking its cycle until the value falls below n restricts it to [0, n) (Black and
/// Rogaway, 2002). Four rounds of a random function suffice for wide halves (Luby and Rackoff, 1988); narrow ones get more.
struct Feistel {
  std::uint64_t key, n;
  std::uint32_t epoch, half_bits, rounds;

  /// n >= 1.
  TWEEDIE_HOST_DEVICE static Feistel of(std::uint64_t key, std::uint32_t epoch, std::uint64_t n) {
    std::uint32_t bits = 0;
    for (std::uint64_t rest = n - 1; rest != 0; rest >>= 1) ++bits;
    const std::uint32_t half = bits < 2 ? 1 : (bits + 1) / 2;
    return {key, n, epoch, half, 4 + 32 / half};
  }
  TWEEDIE_HOST_DEVICE std::uint64_t mask() const { return (std::uint64_t{1} << half_bits) - 1; }
  /// position < n.
  TWEEDIE_HOST_DEVICE std::uint64_t operator()(std::uint64_t position) const {
    std::uint64_t value = position;
    do {
      std::uint64_t left = value >> half_bits, right = value & mask();
      for (std::uint32_t round = 0; round < rounds; ++round) {
        const PhiloxWords w = philox4x32(philox_counter(Purpose::permutation, epoch, right, round, 0), key);
        const std::uint64_t next = left ^ (w.v[0] & mask());
        left = right;
        right = next;
      }
      value = (left << half_bits) | right;
    } while (value >= n);
    return value;
  }
};

}  // namespace tweedie::detail
