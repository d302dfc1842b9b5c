// allocation_counter.h - counts every allocation of the process: operator new, Eigen's own malloc, the C library's.
//
//   AllocationCounter counter;          // counts from here, in all threads
//   step();
//   CHECK(counter.count() == 0);
//
// The header defines malloc and its family over glibc's __libc_* functions, so exactly one file of a test program includes it.
// Under a sanitizer, which brings an allocator of its own, nothing is replaced and kCountsAllocations is false.
// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TWEEDIE_OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TWEEDIE_OWN_MALLOC 0
#endif
#endif
#if !defined(TWEEDIE_OWN_MALLOC) && defined(__GLIBC__)
#define TWEEDIE_OWN_MALLOC 1
#elif !defined(TWEEDIE_OWN_MALLOC)
#define TWEEDIE_OWN_MALLOC 0
#endif

namespace tweedie::test {

inline constexpr bool kCountsAllocations = TWEEDIE_OWN_MALLOC != 0;
inline std::atomic<long> allocations{0};

/// Allocations of the whole process since it was made.
class AllocationCounter {
 public:
  long count() const { return allocations.load() - start_; }

 private:
  long start_ = allocations.load();
};

}  // namespace tweedie::test

#if TWEEDIE_OWN_MALLOC
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  tweedie::test::allocations.fetch_add(1, std::memory_order_relaxed);
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}
#endif
