// SPDX-License-Identifier: MIT
#include "tweedie/core/buffer.h"

#include <cstdlib>
#include <limits>

#include "tweedie/core/check.h"

namespace tweedie::detail {

void* allocate_aligned(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  constexpr std::size_t alignment = 64;
  check<ResourceError>(bytes <= std::numeric_limits<std::size_t>::max() - alignment, "out of memory: ", bytes,
                       " bytes asked for");
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  check<ResourceError>(memory != nullptr, "out of memory: ", bytes,
                       " bytes asked for; use fewer rows, a smaller batch or a smaller network");
  return memory;
}

void free_aligned(void* memory) noexcept { std::free(memory); }

std::size_t byte_count(Index count, std::size_t size) {
  check(count >= 0, "Buffer: a negative size was asked for: ", count);
  check<ResourceError>(static_cast<std::size_t>(count) <= static_cast<std::size_t>(std::numeric_limits<Index>::max()) / size,
                       "Buffer: ", count, " elements of ", size, " bytes do not fit in memory");
  return static_cast<std::size_t>(count) * size;
}

}  // namespace tweedie::detail
