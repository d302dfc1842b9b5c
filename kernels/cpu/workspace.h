// workspace.h - memory that a thread keeps between calls of a kernel.
// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "tweedie/core/buffer.h"

namespace tweedie::kernels::cpu {

/// A thread's memory for one role: taken while in use, given back after. Grown, never shrunk; one who finds it taken (a kernel
/// inside another's executor) gets memory of his own.
template <class T, int kRole>
class Workspace {
 public:
  explicit Workspace(std::ptrdiff_t size) : buffer_(std::move(kept())) {
    if (buffer_.size() < size) buffer_ = Buffer<T>(size);
  }
  ~Workspace() {
    if (buffer_.size() > kept().size()) kept() = std::move(buffer_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* data() { return buffer_.data(); }

 private:
  static Buffer<T>& kept() {
    thread_local Buffer<T> buffer;
    return buffer;
  }
  Buffer<T> buffer_;
};

}  // namespace tweedie::kernels::cpu
