// buffer.h - owning, 64-byte aligned host memory that the compiled library allocates and frees.
//
// A consumer built with other flags than the library (another -march, sanitizers) never runs an allocator of its own on
// memory of ours: both ends live in buffer.cpp.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "tweedie/core/export.h"

namespace tweedie {

using Index = std::ptrdiff_t;

namespace detail {
/// `bytes` bytes at a 64-byte boundary, or nullptr for zero bytes. Throws ResourceError when memory is short.
TWEEDIE_API void* allocate_aligned(std::size_t bytes);
TWEEDIE_API void free_aligned(void* memory) noexcept;
/// count * size in bytes; throws UsageError when it does not fit or count is negative.
TWEEDIE_API std::size_t byte_count(Index count, std::size_t size);
}  // namespace detail

/// `size()` elements, zeroed on construction. Copies are deep.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  explicit Buffer(Index size)
      : data_(static_cast<T*>(detail::allocate_aligned(detail::byte_count(size, sizeof(T))))), size_(size) {
    if (data_ != nullptr) std::memset(static_cast<void*>(data_), 0, sizeof(T) * static_cast<std::size_t>(size));
  }
  Buffer(const Buffer& other) : Buffer(other.size_) {
    if (size_ > 0) std::memcpy(static_cast<void*>(data_), other.data_, sizeof(T) * static_cast<std::size_t>(size_));
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { detail::free_aligned(data_); }

  Index size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  std::span<T> span() { return {data_, static_cast<std::size_t>(size_)}; }
  std::span<const T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace tweedie
