// pool.h - recycled, reference-counted memory for the values on a tape.
//
// Blocks come in size classes, four to a power of two (at most a quarter is wasted), each with a last-in-first-out free list:
// a training step that repeats its shapes finds every block warm and allocates nothing.
// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tweedie/core/buffer.h"

namespace tweedie::detail {

class Pool {
 public:
  using Block = std::int32_t;
  static constexpr Block kNone = -1;  // memory that is not ours

  /// A block of at least `bytes` bytes, 64-byte aligned, with one reference. Its content is whatever was there before.
  Block take(Index bytes) {
    const SizeClass c = size_class(bytes);
    if (static_cast<std::size_t>(c.index) >= free_.size()) free_.resize(static_cast<std::size_t>(c.index) + 1);
    std::vector<Block>& free = free_[static_cast<std::size_t>(c.index)];
    if (free.empty()) {
      blocks_.push_back({Buffer<std::byte>(c.bytes), 0, c.index});
      bytes_ += c.bytes;
      free.push_back(static_cast<Block>(blocks_.size()) - 1);
    }
    const Block block = free.back();
    free.pop_back();
    at(block).references = 1;
    return block;
  }

  void share(Block block) {
    if (block != kNone) ++at(block).references;
  }

  void give(Block block) {
    if (block != kNone && --at(block).references == 0) free_[static_cast<std::size_t>(at(block).size_class)].push_back(block);
  }

  template <class T>
  T* data(Block block) {
    return reinterpret_cast<T*>(at(block).memory.data());
  }

  Index bytes() const { return bytes_; }

 private:
  struct Memory {
    Buffer<std::byte> memory;
    std::int32_t references;
    std::int32_t size_class;
  };
  struct SizeClass {
    std::int32_t index;
    Index bytes;
  };

  // Rounds up to 5, 6, 7 or 8 times a power of two.
  static SizeClass size_class(Index bytes) {
    const auto last = static_cast<std::uint64_t>(bytes > 64 ? bytes : 64) - 1;
    const int shift = static_cast<int>(std::bit_width(last)) - 3;
    const auto steps = static_cast<std::int32_t>(last >> shift) + 1;
    return {shift * 4 + steps - 5, static_cast<Index>(steps) << shift};
  }

  Memory& at(Block block) { return blocks_[static_cast<std::size_t>(block)]; }

  std::vector<Memory> blocks_;
  std::vector<std::vector<Block>> free_;  // per size class
  Index bytes_ = 0;
};

}  // namespace tweedie::detail
