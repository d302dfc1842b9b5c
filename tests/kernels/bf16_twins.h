// bf16_twins.h - the processors' instructions for bf16 in plain C++, by the letter of Intel's Software Developer's Manual, so
// that the kernels' bodies for AVX512-BF16 and AMX run and are tested on machines that lack them. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "kernels_testing.h"
#include "tweedie/kernels/cpu/mlp_amx_tile.h"
#include "tweedie/kernels/cpu/target.h"  // the same functions in one table more: none is unused

namespace tweedie::kernels::testing {
namespace {  // as the bodies' own functions, which every target has for itself

/// Denormals as zero, into and out of every operation.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float flushed_fma(float a, float b, float c) { return flushed(std::fma(flushed(a), flushed(b), flushed(c))); }
inline float even_number(std::uint32_t pair) { return __builtin_bit_cast(float, pair << 16); }
inline float odd_number(std::uint32_t pair) { return __builtin_bit_cast(float, pair & 0xffff0000u); }
inline std::uint32_t bits_of(const float* word) {
  std::uint32_t bits;
  std::memcpy(&bits, word, sizeof bits);
  return bits;
}

/// PairWords of mlp_bf16_tile.h.
struct TwinPairs {
  static constexpr int kGroup = 2;
  using V = Native<float>;

  static V broadcast(const float* word) {
    return of([&](int) { return bits_of(word); });
  }
  /// VDPBF16PS: two fused multiply-adds, the odd numbers' first.
  static V multiply_add(V a, V b, V sum) {
    const auto left = __builtin_bit_cast(V::Unsigned, a.v), right = __builtin_bit_cast(V::Unsigned, b.v);
    for (int lane = 0; lane < V::kWidth; ++lane) {
      const float odd = flushed_fma(odd_number(left[lane]), odd_number(right[lane]), sum.v[lane]);
      sum.v[lane] = flushed_fma(even_number(left[lane]), even_number(right[lane]), odd);
    }
    return sum;
  }
  template <bool kSplit>
  static void store_words(float* to, Index low, V x0, V x1) {
    const auto number = [&](int i) { return flushed(i < V::kWidth ? x0.v[i] : x1.v[i - V::kWidth]); };
    const auto part = [&](int i, bool lower) {
      const Bf16Parts<float> parts = bf16_parts(number(i));
      return lower ? flushed(parts.low) : parts.high;
    };
    for (int lower = 0; lower < (kSplit ? 2 : 1); ++lower) {
      const V words = of([&](int lane) { return bf16_pair(part(2 * lane, lower != 0), part(2 * lane + 1, lower != 0)); });
      store(to + (lower != 0 ? low : 0), words);
    }
  }

 private:
  template <class Bits>
  static V of(const Bits& bits) {
    typename V::Unsigned words{};
    for (int lane = 0; lane < V::kWidth; ++lane) words[lane] = bits(lane);
    return __builtin_bit_cast(V::Raw, words);
  }
};

/// HardwareTiles of mlp_amx_tile.h. What hardware would fault on throws std::logic_error.
class TwinTiles {
 public:
  static void configure(const TileConfig& config) {
    // LDTILECFG faults on another palette, on reserved bytes and on sizes beyond a tile; it clears all tiles.
    bool good = config.palette == 1 && config.start_row == 0;
    for (const std::uint8_t byte : config.reserved) good = good && byte == 0;
    for (int tile = 0; tile < 16; ++tile) {
      good = good && config.row_bytes[tile] <= 64 && config.rows[tile] <= 16 && (tile < 8 || config.rows[tile] == 0);
    }
    if (!good) throw std::logic_error("ldtilecfg: no such configuration");
    state().config = config;
    state().configured = true;
    state().tiles = {};
  }
  static void release() { state().configured = false; }
  template <int kTile>
  static void zero() {
    tile(kTile) = {};
  }
  template <int kTile>
  static void load(const float* from, Index stride) {
    Tile& t = tile(kTile);
    t = {};
    for (int r = 0; r < rows(kTile); ++r) std::memcpy(t[static_cast<std::size_t>(r)].data(), from + r * stride, 64);
  }
  template <int kTile>
  static void save(float* to, Index stride) {
    for (int r = 0; r < rows(kTile); ++r) std::memcpy(to + r * stride, tile(kTile)[static_cast<std::size_t>(r)].data(), 64);
  }
  /// TDPBF16PS.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    if (rows(kSum) != rows(kA) || rows(kB) != 16) throw std::logic_error("tdpbf16ps: the tiles' shapes do not fit");
    for (int m = 0; m < rows(kSum); ++m) {
      std::array<float, 16> even{}, odd{};
      const auto row = static_cast<std::size_t>(m);
      for (std::size_t k = 0; k < 16; ++k) {
        const std::uint32_t left = bits_of(&tile(kA)[row][k]);
        for (std::size_t n = 0; n < 16; ++n) {
          const std::uint32_t right = bits_of(&tile(kB)[k][n]);
          even[n] = flushed_fma(even_number(left), even_number(right), even[n]);
          odd[n] = flushed_fma(odd_number(left), odd_number(right), odd[n]);
        }
      }
      for (std::size_t n = 0; n < 16; ++n) {
        float& sum = tile(kSum)[row][n];
        sum = flushed(flushed(sum) + flushed(even[n] + odd[n]));
      }
    }
  }

 private:
  using Tile = std::array<std::array<float, 16>, 16>;  // 16 rows of 64 bytes
  struct State {
    bool configured = false;
    TileConfig config{1};
    std::array<Tile, 8> tiles{};
  };
  static State& state() {
    static thread_local State s;
    return s;
  }
  static Tile& tile(int number) {
    if (!state().configured) throw std::logic_error("a tile is used before ldtilecfg or after tilerelease");
    return state().tiles[static_cast<std::size_t>(number)];
  }
  static int rows(int number) { return state().config.rows[number]; }
};

}  // namespace
}  // namespace tweedie::kernels::testing
