// runtime.h - a Runtime (kernels/cuda/runtime.h) over the host executor: what runs on a device runs here, thread by thread.
//
// It is stricter than a device: memory is NaN until written; every buffer stands between red zones that are looked at after each
// launch (AddressSanitizer sees them at once); copies must lie within one buffer. What breaks a rule throws KernelFault.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "tweedie/kernels/cuda/runtime.h"
#include "tweedie/kernels/simt/cluster.h"

namespace tweedie::kernels::simt {

class SimtRuntime {
 public:
  class Graph {
    friend class SimtRuntime;
    std::vector<std::function<void()>> work_;
  };

  explicit SimtRuntime(Order threads = Order::forward) : order(threads) {}
  ~SimtRuntime() {
    for (auto& [memory, buffer] : buffers_) unpoison(buffer);
  }
  SimtRuntime(const SimtRuntime&) = delete;
  SimtRuntime& operator=(const SimtRuntime&) = delete;

  Order order;                // of the threads
  int allocations_left = -1;  // the one after these fails as on a full device; -1: none does

  const std::string& name() const { return name_; }
  int max_shared_bytes() const { return 227 * 1024; }
  int multiprocessors() const { return 132; }
  /// Buffers not released.
  std::size_t live() const { return buffers_.size(); }

  void* allocate(std::size_t bytes) {
    not_captured("allocate");
    check<ResourceError>(allocations_left != 0, name_, ": out of memory: ", bytes, " bytes were asked for, 0 are free");
    if (allocations_left > 0) --allocations_left;
    Buffer buffer;
    buffer.bytes = bytes;
    buffer.memory.reset(static_cast<unsigned char*>(::operator new (bytes + 2 * kZone, std::align_val_t{kZone})));
    unsigned char* const first = buffer.memory.get() + kZone;
    std::memset(buffer.memory.get(), kMark, kZone);
    std::memset(first, 0xFF, bytes);  // NaN as float, double and bf16
    std::memset(first + bytes, kMark, kZone);
#ifdef TWEEDIE_SIMT_ASAN
    __asan_poison_memory_region(buffer.memory.get(), kZone);
    __asan_poison_memory_region(first + bytes, kZone);
#endif
    buffers_.emplace(first, std::move(buffer));
    return first;
  }
  void release(void* memory) noexcept {
    const auto at = buffers_.find(static_cast<unsigned char*>(memory));
    if (at == buffers_.end()) std::abort();  // twice, or not this device's
    unpoison(at->second);
    buffers_.erase(at);
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    not_captured("upload");
    within("upload", to, bytes);
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void download(void* to, const void* from, std::size_t bytes) {
    not_captured("download");
    within("download", from, bytes);
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void zero(void* to, std::size_t bytes) {
    within("zero", to, bytes);
    queue([to, bytes] {
      if (bytes > 0) std::memset(to, 0, bytes);
    });
  }
  void synchronize() { not_captured("synchronize"); }

  template <class Body>
  void launch(const char* kernel, int grid, int block, int shared_bytes, const Body& body) {
    queue([this, kernel, shape = LaunchShape{grid, block, shared_bytes}, body] {
      simt::launch_any(kernel, shape, order, body);
      check_zones(kernel);
    });
  }

  template <class Record>
  Graph capture(Record&& record) {
    not_captured("capture");
    Graph graph;
    capturing_ = &graph;
    try {
      record();
    } catch (...) {
      capturing_ = nullptr;
      throw;
    }
    capturing_ = nullptr;
    return graph;
  }
  void replay(const Graph& graph) {
    not_captured("replay");
    for (const auto& work : graph.work_) work();
  }

 private:
  static constexpr std::size_t kZone = 256;
  static constexpr unsigned char kMark = 0xA5;
  struct Free {
    void operator()(unsigned char* memory) const { ::operator delete (memory, std::align_val_t{kZone}); }
  };
  struct Buffer {
    std::size_t bytes = 0;
    std::unique_ptr<unsigned char, Free> memory;  // zone | bytes | zone
  };

  static void unpoison(const Buffer& buffer) {
#ifdef TWEEDIE_SIMT_ASAN
    __asan_unpoison_memory_region(buffer.memory.get(), buffer.bytes + 2 * kZone);
#else
    static_cast<void>(buffer);
#endif
  }
  template <class Work>
  void queue(Work work) {
    if (capturing_ != nullptr) {
      capturing_->work_.emplace_back(std::move(work));
    } else {
      work();
    }
  }
  void not_captured(const char* what) const {
    check<ResourceError>(capturing_ == nullptr, name_, ": ", what,
                         "() within capture(); a graph records launches and zero() alone");
  }
  void within(const char* what, const void* memory, std::size_t bytes) const {
    const auto* const first = static_cast<const unsigned char*>(memory);
    auto at = buffers_.upper_bound(const_cast<unsigned char*>(first));
    const bool inside = at != buffers_.begin() && (--at, first + bytes <= at->first + at->second.bytes);
    check<KernelFault>(bytes == 0 || inside, name_, ": ", what, "() of ", bytes,
                       " bytes that do not lie within one buffer of this device");
  }
  void check_zones(const char* kernel) const {
#ifdef TWEEDIE_SIMT_ASAN
    static_cast<void>(kernel);
#else
    for (const auto& [first, buffer] : buffers_) {
      const auto clean = [](const unsigned char* zone) {
        return std::all_of(zone, zone + kZone, [](unsigned char byte) { return byte == kMark; });
      };
      check<KernelFault>(clean(buffer.memory.get()), kernel, ": wrote before the start of a buffer of ", buffer.bytes, " bytes");
      check<KernelFault>(clean(first + buffer.bytes), kernel, ": wrote beyond the end of a buffer of ", buffer.bytes, " bytes");
    }
#endif
  }

  std::string name_ = "host executor";
  std::map<unsigned char*, Buffer> buffers_;
  Graph* capturing_ = nullptr;
};
static_assert(cuda::Runtime<SimtRuntime>);

}  // namespace tweedie::kernels::simt
