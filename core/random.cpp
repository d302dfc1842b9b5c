// random.cpp - draws of the counter-based streams. Compiled with -ffp-contract=off (see normals.h).
// SPDX-License-Identifier: MIT
#include "tweedie/core/random.h"

#include <algorithm>
#include <type_traits>

#include "tweedie/core/detail/normal_kernels.h"
#include "tweedie/core/parallel.h"

namespace tweedie {
namespace {

constexpr std::uint64_t kRowLimit = std::uint64_t{1} << 44;
constexpr std::uint32_t kBlockLimit = 1U << 20;
constexpr std::uint32_t kSubDrawLimit = 1U << 24;
constexpr int kCounters = 256;  // counters in hand at a time: their normals stay in the first-level cache

std::uint64_t join_words(std::uint32_t low, std::uint32_t high) { return (std::uint64_t{high} << 32) | low; }

void check_counter(const char* function, std::uint64_t first_row, Index rows, Index cols, std::uint32_t sub_draw) {
  check(first_row < kRowLimit && static_cast<std::uint64_t>(rows) <= kRowLimit - first_row, function, ": rows ", first_row,
        " to ", first_row + static_cast<std::uint64_t>(rows),
        " leave [0, 2^44); start again at row 0 with another step or stream");
  check(cols <= Index{4} * kBlockLimit, function, ": ", cols, " columns, at most 2^22 fit; draw the rest with another sub_draw");
  check(sub_draw < kSubDrawLimit, function, ": sub_draw ", sub_draw, " is not below 2^24; use the step instead");
}

detail::NormalKernel choose_normal_kernel() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    return detail::normals_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return detail::normals_avx2;
#endif
  return detail::normals_portable;
}

detail::WordKernel choose_word_kernel() {
#ifdef __x86_64__
  const detail::NormalKernel normals = choose_normal_kernel();
  if (normals == detail::normals_avx512) return detail::words_avx512;
  if (normals == detail::normals_avx2) return detail::words_avx2;
#endif
  return detail::words_portable;
}

/// What stays the same over one call of normals.
struct NormalDraw {
  std::uint64_t key;
  PhiloxWords first;  // counter of row 0, block 0
  std::uint64_t first_row;
};

/// Counters of `count` blocks of four dimensions, row after row, from (row, block) on, which move to what follows.
void fill_counters(int count, Index blocks, std::uint64_t& row, Index& block, std::uint32_t* c0, std::uint32_t* c2) {
  if (blocks == 1) {
    for (int i = 0; i < count; ++i) {
      const std::uint64_t r = row + static_cast<std::uint64_t>(i);
      c0[i] = static_cast<std::uint32_t>(r);
      c2[i] = static_cast<std::uint32_t>(r >> 32) << 20;
    }
    row += static_cast<std::uint64_t>(count);
    return;
  }
  for (int i = 0; i < count;) {
    const int run = static_cast<int>(std::min<Index>(count - i, blocks - block));
    const std::uint32_t low = static_cast<std::uint32_t>(row), high = static_cast<std::uint32_t>(row >> 32) << 20;
    for (int k = 0; k < run; ++k) {
      c0[i + k] = low;
      c2[i + k] = high | (static_cast<std::uint32_t>(block) + static_cast<std::uint32_t>(k));
    }
    i += run;
    block += run;
    if (block == blocks) block = 0, ++row;
  }
}

/// Rows [begin, end) of out: the blocks of four dimensions, row after row, `kCounters` at a time. Where a row is whole blocks (or
/// the one half block of two columns) the kernel's normals lie as out's do, and go there directly.
template <class S>
void fill_normals(const NormalDraw& draw, Rows<S> out, Index begin, Index end) {
  static const detail::NormalKernel kernel = choose_normal_kernel();
  alignas(64) std::uint32_t c0[kCounters] = {}, c2[kCounters] = {};
  alignas(64) float z[4 * kCounters];
  const Index cols = out.cols(), blocks = (cols + 3) / 4;
  const int pairs = cols <= 2 ? 1 : 2;
  const Index total = (end - begin) * blocks;
  const bool direct = std::is_same_v<S, float> && out.stride() == cols && (cols == 2 || cols % 4 == 0);
  std::uint64_t next_row = draw.first_row + static_cast<std::uint64_t>(begin);
  Index next_block = 0;
  for (Index done = 0; done < total; done += kCounters) {
    const int count = static_cast<int>(std::min<Index>(kCounters, total - done));
    fill_counters(count, blocks, next_row, next_block, c0, c2);
    if constexpr (std::is_same_v<S, float>) {
      if (direct && count % 16 == 0) {
        kernel(c0, draw.first.v[1], c2, draw.first.v[3], draw.key, count, pairs, out.row(begin).data() + done * 2 * pairs);
        continue;
      }
    }
    kernel(c0, draw.first.v[1], c2, draw.first.v[3], draw.key, (count + 15) / 16 * 16, pairs, z);
    Index row = begin + done / blocks, block = done % blocks;
    for (int i = 0; i < count; ++i) {
      const float* const from = z + 2 * pairs * i;
      S* const to = out.data() + row * out.stride() + 4 * block;
      const Index left = cols - 4 * block;
      if (left >= 4) {
        std::copy_n(from, 4, to);
      } else {
        for (int k = 0; k < left; ++k) to[k] = from[k];
      }
      if (++block == blocks) block = 0, ++row;
    }
  }
}

}  // namespace

Rng Rng::split() {
  check(splits_ < kRowLimit, "Rng::split: a stream has 2^44 children and this one has used them all");
  std::uint32_t w[4];
  words(Purpose::split, 0, splits_++, 0, 0, w);
  return Rng{join_words(w[0], w[1])};
}

void Rng::words(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint32_t block, std::uint32_t sub_draw,
                std::uint32_t out[4]) const {
  check(row < kRowLimit && block < kBlockLimit && sub_draw < kSubDrawLimit, "Rng::words: row ", row, ", block ", block,
        ", sub_draw ", sub_draw, " do not fit the counter (row < 2^44, block < 2^20, sub_draw < 2^24)");
  const PhiloxWords w = philox4x32(philox_counter(purpose, step, row, block, sub_draw), key_);
  std::copy(w.v, w.v + 4, out);
}

template <class S>
void Rng::normals(Purpose purpose, std::uint32_t step, std::uint64_t first_row, Rows<S> out, std::uint32_t sub_draw) const {
  check_counter("Rng::normals", first_row, out.rows(), out.cols(), sub_draw);
  if (out.empty()) return;
  const NormalDraw draw{key_, philox_counter(purpose, step, 0, 0, sub_draw), first_row};
  constexpr Index kGrain = 16384;  // normals a thread takes at least: some 30 us
  parallel_for(out.rows(), std::max<Index>(1, kGrain / out.cols()),
               [&](Index begin, Index end) { fill_normals(draw, out, begin, end); });
}

template <class S>
void Rng::uniforms(Purpose purpose, std::uint32_t step, std::uint64_t first_row, Rows<S> out, std::uint32_t sub_draw) const {
  check_counter("Rng::uniforms", first_row, out.rows(), out.cols(), sub_draw);
  for (Index r = 0; r < out.rows(); ++r) {
    for (Index c = 0; c < out.cols(); c += 4) {
      const PhiloxWords w = philox4x32(
          philox_counter(purpose, step, first_row + static_cast<std::uint64_t>(r), static_cast<std::uint32_t>(c / 4), sub_draw),
          key_);
      for (Index k = 0; k < std::min<Index>(4, out.cols() - c); ++k) {
        out(r, c + k) = static_cast<S>((static_cast<double>(w.v[k]) + 1.0) * 0x1p-32);
      }
    }
  }
}

template void Rng::normals(Purpose, std::uint32_t, std::uint64_t, Rows<float>, std::uint32_t) const;
template void Rng::normals(Purpose, std::uint32_t, std::uint64_t, Rows<double>, std::uint32_t) const;
template void Rng::uniforms(Purpose, std::uint32_t, std::uint64_t, Rows<float>, std::uint32_t) const;
template void Rng::uniforms(Purpose, std::uint32_t, std::uint64_t, Rows<double>, std::uint32_t) const;

std::uint64_t Rng::integer(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint64_t n,
                           std::uint32_t sub_draw) const {
  check(n >= 1, "Rng::integer: n must be at least 1");
  check(row < kRowLimit && sub_draw < kSubDrawLimit, "Rng::integer: row ", row, ", sub_draw ", sub_draw,
        " do not fit the counter (row < 2^44, sub_draw < 2^24)");
  return detail::integer_below(key_, purpose, step, row, n, sub_draw);
}

double Rng::uniform(Purpose purpose, std::uint32_t step, std::uint64_t row, std::uint32_t sub_draw) const {
  std::uint32_t w[4];
  words(purpose, step, row, 0, sub_draw, w);
  return static_cast<double>((join_words(w[0], w[1]) >> 11) + 1) * 0x1p-53;
}

Permutation::Permutation(const Rng& rng, std::uint32_t epoch, std::uint64_t n) : network_() {
  check(n >= 1, "Permutation: of no elements; n must be at least 1");
  network_ = detail::Feistel::of(rng.key(), epoch, n);
}

std::uint64_t Permutation::operator()(std::uint64_t position) const {
  check(position < network_.n, "Permutation: position ", position, " of ", network_.n, " elements");
  return network_(position);
}

void Permutation::apply(std::span<std::uint64_t> positions) const {
  static const detail::WordKernel kernel = choose_word_kernel();
  const auto& [key, n, epoch, half_bits, rounds] = network_;
  const std::uint64_t mask = network_.mask();
  for (std::size_t first = 0; first < positions.size(); first += kCounters) {
    const std::span<std::uint64_t> block = positions.subspan(first, std::min<std::size_t>(kCounters, positions.size() - first));
    std::uint32_t left[kCounters] = {}, right[kCounters] = {}, words[kCounters];
    std::size_t walking[kCounters], count = block.size();  // places whose value is not below n yet
    for (std::size_t i = 0; i < count; ++i) {
      check(block[i] < n, "Permutation: position ", block[i], " of ", n, " elements");
      walking[i] = i;
    }
    while (count > 0) {
      for (std::size_t i = 0; i < count; ++i) {
        left[i] = static_cast<std::uint32_t>(block[walking[i]] >> half_bits);
        right[i] = static_cast<std::uint32_t>(block[walking[i]] & mask);
      }
      for (std::uint32_t round = 0; round < rounds; ++round) {
        const PhiloxWords c = philox_counter(Purpose::permutation, epoch, 0, round, 0);
        kernel(right, c.v[1], c.v[2], c.v[3], key, static_cast<int>((count + 15) / 16 * 16), words);
        for (std::size_t i = 0; i < count; ++i) {
          const std::uint32_t next = left[i] ^ (words[i] & static_cast<std::uint32_t>(mask));
          left[i] = right[i];
          right[i] = next;
        }
      }
      std::size_t left_over = 0;
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t value = (std::uint64_t{left[i]} << half_bits) | right[i];
        block[walking[i]] = value;
        if (value >= n) walking[left_over++] = walking[i];
      }
      count = left_over;
    }
  }
}

}  // namespace tweedie
