// executor.h - runs a CUDA kernel body on the CPU: one fiber per thread, blocks in turn, threads in any order.
//
//   struct Body { float* x; template <class Ctx> TWEEDIE_KERNEL void operator()(Ctx& ctx) const { ... ctx.sync(); ... } };
//   simt::launch("name", {grid, block, shared_bytes}, Order::shuffled, Body{x});
//
// The body is the very code that nvcc compiles; it sees threads, shared memory and warp operations through `ctx` alone
// (kernels/cuda/ptx.h is the device's). A thread runs until it must wait; when all wait or have ended, the executor releases what
// may go on. What it finds, as a KernelFault that names kernel, block, thread and the line of the barrier:
//   - a barrier that not all threads of the block (or of the warp's mask) reach; threads that wait for each other for ever;
//   - writes beyond shared arrays (red zones around each; under AddressSanitizer also reads, at once);
//   - shared memory asked for beyond the launch's bytes, cp.async copies in flight at the block's end.
// Shared memory is all ones (NaN) at a block's start, so that a read before any write shows in the result; a race shows as a
// result that depends on the order: run each kernel in all three (forward and reverse run warp by warp, each as far as it gets
// before the next; shuffled runs all at one pace). cp.async copies at its wait, never before; until then its target is NaN, so
// that a buffer filled again while others still read it shows too. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tweedie/kernels/simt/fiber.h"

namespace tweedie::kernels::simt {

/// A kernel that broke the rules of its machine.
class KernelFault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reverse, shuffled };
inline constexpr Order kAllOrders[] = {Order::forward, Order::reverse, Order::shuffled};

/// grid blocks of block threads, shared_bytes of dynamic shared memory.
struct LaunchShape {
  int grid = 1, block = 1, shared_bytes = 0;
};

/// The threads' orders of one launch, block by block.
class Orders {
 public:
  Orders(Order order, int threads) : order_(order), threads_(static_cast<std::size_t>(threads)) {
    for (int i = 0; i < threads; ++i) threads_[static_cast<std::size_t>(i)] = order == Order::reverse ? threads - 1 - i : i;
  }
  Order order() const { return order_; }
  const std::vector<int>& next() {
    for (std::size_t i = threads_.size(); order_ == Order::shuffled && i > 1; --i) {
      state_ ^= state_ << 13, state_ ^= state_ >> 17, state_ ^= state_ << 5;
      std::swap(threads_[i - 1], threads_[state_ % i]);
    }
    return threads_;
  }

 private:
  Order order_;
  std::vector<int> threads_;
  std::uint32_t state_ = 2463534242U;
};

/// Throws UsageError for a shape that no device takes.
inline void check_shape(const char* kernel, const LaunchShape& shape) {
  check(shape.grid >= 1 && shape.block >= 1 && shape.block <= 1024, kernel, ": a launch of ", shape.grid, " blocks of ",
        shape.block, " threads; a grid has at least 1 block and a block 1 to 1024 threads");
  check(shape.shared_bytes >= 0 && shape.shared_bytes <= 227 * 1024, kernel, ": ", shape.shared_bytes,
        " bytes of shared memory; a block has at most 227 KiB");
}

class Block;

/// What one thread sees. Names follow CUDA's: thread = threadIdx.x and so on.
class Thread {
 public:
  virtual ~Thread() = default;
  int thread() const { return index_; }
  int block() const;
  int block_size() const;
  int grid_size() const;
  int lane() const { return index_ % 32; }

  void sync(int line = __builtin_LINE()) { wait(Wait::block, 0, line); }
  void sync_warp(unsigned mask = ~0U, int line = __builtin_LINE()) { wait(Wait::warp, mask, line); }

  template <class T>
  T shuffle(unsigned mask, T value, int source, int line = __builtin_LINE()) {
    return exchange(mask, value, source & 31, line);
  }
  template <class T>
  T shuffle_xor(unsigned mask, T value, int bits, int line = __builtin_LINE()) {
    return exchange(mask, value, lane() ^ bits, line);
  }
  template <class T>
  T shuffle_down(unsigned mask, T value, int delta, int line = __builtin_LINE()) {
    return exchange(mask, value, lane() + delta < 32 ? lane() + delta : lane(), line);
  }
  template <class T>
  T shuffle_up(unsigned mask, T value, int delta, int line = __builtin_LINE()) {
    return exchange(mask, value, lane() >= delta ? lane() - delta : lane(), line);
  }
  unsigned ballot(unsigned mask, bool predicate, int line = __builtin_LINE());
  bool any(unsigned mask, bool predicate, int line = __builtin_LINE()) { return ballot(mask, predicate, line) != 0; }
  bool all(unsigned mask, bool predicate, int line = __builtin_LINE()) {
    return ballot(mask, predicate, line) == (mask & present());
  }

  /// A static shared array; `Tag` is a type of its own for each array (TWEEDIE_SHARED).
  template <class Tag, class T, int N>
  T* shared();
  template <class T>
  T* dynamic_shared();

  /// 4, 8 or 16 bytes from global to shared; a false predicate writes zeros, as the instruction's src-size 0 does.
  template <int Bytes>
  void copy_async(void* to, const void* from, bool predicate = true) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
    if (reinterpret_cast<std::uintptr_t>(to) % Bytes != 0 || (predicate && reinterpret_cast<std::uintptr_t>(from) % Bytes != 0)) {
      fault("cp.async: an address is no multiple of its size");
    }
    std::memset(to, 0xFF, Bytes);  // from here to its wait the copy may land at any moment: whoever reads now sees NaN
    copies_.push_back({to, predicate ? from : nullptr, Bytes, groups_});
  }
  void commit_async() { ++groups_; }
  /// Lands every group but the last `pending`.
  template <int Pending>
  void wait_async() {
    std::size_t kept = 0;
    for (const Copy& copy : copies_) {
      if (copy.group >= groups_ - Pending) {
        copies_[kept++] = copy;
      } else if (copy.from == nullptr) {
        std::memset(copy.to, 0, copy.bytes);
      } else {
        std::memcpy(copy.to, copy.from, copy.bytes);
      }
    }
    copies_.resize(kept);
  }

  /// cvt.rna.tf32: 10 bits of mantissa, ties away from zero; infinities and NaN stay what they are.
  static std::uint32_t to_tf32(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7F800000U) == 0x7F800000U ? bits & 0xFFFFE000U : (bits + 0x1000U) & 0xFFFFE000U;
  }
  /// The device's are wrong by up to 2^-22 and 2^-23, relatively; bounds in the tests allow for that.
  static float exp2_approx(float x) { return std::exp2(x); }
  static float reciprocal_approx(float x) { return 1 / x; }

  /// d (16, 8) += a (16, 8) b (8, 8): mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32. With g = lane / 4, t = lane % 4 a lane
  /// holds
  ///   a0 (g, t)  a1 (g + 8, t)  a2 (g, t + 4)  a3 (g + 8, t + 4)     b0 (t, g)  b1 (t + 4, g)      as (row, column)
  ///   d0 (g, 2t)  d1 (g, 2t + 1)  d2 (g + 8, 2t)  d3 (g + 8, 2t + 1)         [PTX ISA, matrix fragments for mma.m16n8k8]
  /// The operands' low 13 bits are ignored.
  void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line = __builtin_LINE());
  /// d (8, 8) += a (8, 4) b (4, 8): mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64, every product and sum rounded once (fma).
  ///   a (g, t)     b (t, g)     d0 (g, 2t)  d1 (g, 2t + 1)      as (row, column)      [PTX ISA, matrix fragments for mma.m8n8k4]
  void mma_f64(double (&d)[2], double a, double b, int line = __builtin_LINE());

  /// cvt.rn.bf16x2: 7 bits of mantissa, ties to even; `first` in the low half.
  static std::uint32_t to_bf16x2(float first, float second) { return to_bf16(first) | to_bf16(second) << 16; }
  /// The device's is wrong by up to 2^-11, relatively.
  static float tanh_approx(float x) { return std::tanh(x); }
  /// ldmatrix.x4: lane 8 i + r names the 16 bytes of row r of matrix i; of matrix i every lane gets word lane % 4 of row lane /
  /// 4, that is elements (g, 2t) and (g, 2t + 1) in bf16, (g, t) in tf32.
  void load_matrix_x4(std::uint32_t (&to)[4], const void* row, int line = __builtin_LINE());
  /// d (16, 8) += a (16, 16) b (16, 8): mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32. g, t and d as in mma_tf32; a word
  /// holds two neighbours along k, the first in its low half:
  ///   a0 (g, 2t)  a1 (g + 8, 2t)  a2 (g, 2t + 8)  a3 (g + 8, 2t + 8)     b0 (2t, g)  b1 (2t + 8, g)        [PTX ISA, m16n8k16]
  void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line = __builtin_LINE());

  [[noreturn]] void fault(const std::string& what) const;

 private:
  friend class Block;
  friend class ClusterThread;
  enum class Wait { none, block, warp, event };
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    int group;
  };
  struct Aborted {};

  static std::uint32_t to_bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FFFU;  // the instruction's one NaN
    return (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  }

  void whole_warp(const char* what, int line) const;
  template <int K, class Number>
  void mma_m16n8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line, const Number& number);
  void wait(Wait kind, unsigned mask, int line);
  /// Until come() is true; it may be asked at any time that all threads wait.
  void wait_for(std::function<bool()> come, std::function<std::string()> event, int line);
  virtual void restart() {
    waiting_ = Wait::none;
    groups_ = 0;
    copies_.clear();
  }
  /// What must hold when the thread ends.
  virtual void check_end() {
    if (!copies_.empty()) fault("ended with cp.async copies that were never waited for");
  }
  std::string state() const;
  unsigned present() const;
  unsigned char* slot(int lane);
  template <class T>
  T exchange(unsigned mask, T value, int source, int line) {
    static_assert(sizeof(T) <= 64);
    if ((mask >> lane() & 1U) == 0) fault(join("warp operation at line ", line, " with a mask that leaves out the caller"));
    std::memcpy(slot(lane()), &value, sizeof value);
    wait(Wait::warp, mask, line);
    if ((mask >> source & 1U) == 0) fault(join("shuffle at line ", line, " reads lane ", source, ", which its mask leaves out"));
    T result;
    std::memcpy(&result, slot(source), sizeof result);
    wait(Wait::warp, mask, line);
    return result;
  }

  Block* block_ = nullptr;
  int index_ = 0;
  Fiber fiber_;
  Wait waiting_ = Wait::none;
  unsigned mask_ = 0;
  int line_ = 0;
  std::function<bool()> come_;  // of Wait::event, with its name
  std::function<std::string()> event_;
  int groups_ = 0;
  std::vector<Copy> copies_;
  const void* body_ = nullptr;
};

/// One block: its threads, its shared memory, the scheduler.
class Block {
 public:
  Block(const char* kernel, const LaunchShape& shape) : Block(kernel, shape, [](int) { return std::make_unique<Thread>(); }) {}
  template <class Make>
  Block(const char* kernel, const LaunchShape& shape, Make make) : kernel_(kernel), shape_(shape), slots_(shape.block) {
    for (int i = 0; i < shape.block; ++i) threads_.push_back(make(i));
  }

  template <class Body>
  void run(int block, const std::vector<int>& order, const Body& body, std::ostream* trace) {
    start<Thread>(block, body);
    while (!error_ && alive()) {
      pass(order);
      if (trace != nullptr) show(*trace);
      if (!release() && alive()) stuck();
    }
    finish();
  }

  template <class Context, class Body>
  void start(int block, const Body& body) {
    index_ = block;
    error_ = nullptr;
    aborting_ = false;
    interval_ = 0;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      Thread& t = *threads_[i];
      t.block_ = this;
      t.index_ = static_cast<int>(i);
      t.restart();
      t.body_ = &body;
      t.fiber_.start(
          [](void* p) {
            Thread& thread = *static_cast<Thread*>(p);
            try {
              (*static_cast<const Body*>(thread.body_))(static_cast<Context&>(thread));
              thread.check_end();
            } catch (const Thread::Aborted&) {
            } catch (...) {
              if (!thread.block_->error_) thread.block_->error_ = std::current_exception();
            }
          },
          &t);
    }
  }

  /// Lets every thread that may run run until it waits or ends: warp by warp, each as far ahead of the others as the block's
  /// barriers allow, or, where the order mixes the warps, all at one pace. A missing barrier shows in the one or in the other.
  void pass(const std::vector<int>& order) {
    for (std::size_t begin = 0, end = 0; begin < order.size() && !error_; begin = end) {
      const int warp = order[begin] / 32;
      while (end < order.size() && order[end] / 32 == warp) ++end;
      const bool whole = static_cast<int>(end - begin) == std::min(32, shape_.block - 32 * warp);
      do {
        for (std::size_t i = begin; i < end && !error_; ++i) {
          Thread& t = *threads_[static_cast<std::size_t>(order[i])];
          if (!t.fiber_.done() && t.waiting_ == Thread::Wait::none) t.fiber_.resume();
        }
      } while (!error_ && whole && release_warp(warp));
    }
  }

  bool alive() const {
    return std::any_of(threads_.begin(), threads_.end(), [](const auto& t) { return !t->fiber_.done(); });
  }
  bool failed() const { return error_ != nullptr; }

  /// Ends the threads and the shared memory; throws what went wrong.
  void finish() {
    abort_rest();
    check_red_zones();
    arrays_.clear();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  friend class Thread;
  friend class Cluster;
  friend class ClusterThread;
  static constexpr std::size_t kZone = std::size_t{16} << 10;  // before and behind each array: an index may stray far
  struct Array {
    const void* tag;
    std::size_t bytes;
    std::vector<unsigned char> memory;  // kZone | alignment | array | kZone
    std::size_t first;
    std::vector<unsigned char> seen;  // by show()
    ~Array() {
#ifdef TWEEDIE_SIMT_ASAN
      __asan_unpoison_memory_region(memory.data(), memory.size());
#endif
    }
  };
  struct alignas(16) Slot {
    unsigned char bytes[64];
  };

  void* array(const void* tag, std::size_t bytes) {
    for (const auto& a : arrays_) {
      if (a->tag == tag) return a->memory.data() + a->first;
    }
    auto a = std::make_unique<Array>();
    a->tag = tag;
    a->bytes = bytes;
    a->memory.assign(bytes + 2 * kZone + 16, 0xA5);
    const auto address = reinterpret_cast<std::uintptr_t>(a->memory.data()) + kZone;
    a->first = kZone + (16 - address % 16) % 16;
    std::memset(a->memory.data() + a->first, 0xFF, bytes);  // NaN as float, double and bf16
#ifdef TWEEDIE_SIMT_ASAN
    __asan_poison_memory_region(a->memory.data(), a->first);
    __asan_poison_memory_region(a->memory.data() + a->first + bytes, a->memory.size() - a->first - bytes);
#endif
    arrays_.push_back(std::move(a));
    return arrays_.back()->memory.data() + arrays_.back()->first;
  }

  void* dynamic() {
    static const char tag = 0;
    return array(&tag, static_cast<std::size_t>(shape_.shared_bytes));
  }

  void check_red_zones() {
#ifndef TWEEDIE_SIMT_ASAN
    const auto whole = [](const unsigned char* zone, std::size_t size) {
      return zone[0] == 0xA5 && std::memcmp(zone, zone + 1, size - 1) == 0;
    };
    for (const auto& a : arrays_) {
      const std::size_t end = a->first + a->bytes;
      if (whole(a->memory.data(), a->first) && whole(a->memory.data() + end, a->memory.size() - end)) continue;
      for (std::size_t i = 0; i < a->memory.size(); ++i) {
        if (i == a->first) i += a->bytes;
        if (i >= a->memory.size()) break;
        if (a->memory[i] != 0xA5 && !error_) {
          error_ = std::make_exception_ptr(KernelFault(join(kernel_, ": block ", index_, " wrote ",
                                                            static_cast<long long>(i) - static_cast<long long>(a->first),
                                                            " bytes from the start of a shared array of ", a->bytes, " bytes")));
        }
      }
    }
#endif
  }

  /// After a pass in which every thread ended or waits: lets go what may go on. False when that is nothing.
  bool release() {
    bool released = false;
    const int n = shape_.block;
    int at_block = 0;
    for (int i = 0; i < n; ++i) {
      Thread& t = *threads_[i];
      at_block += t.waiting_ == Thread::Wait::block;
      if (t.waiting_ != Thread::Wait::event || !t.come_()) continue;
      t.waiting_ = Thread::Wait::none;
      released = true;
    }
    for (int warp = 0; 32 * warp < n; ++warp) released = release_warp(warp) || released;
    if (released || at_block < n) return released;
    for (const auto& t : threads_) {
      if (t->line_ != threads_[0]->line_) return false;
    }
    for (const auto& t : threads_) t->waiting_ = Thread::Wait::none;
    return true;
  }

  /// Lets go the lanes that have all come to their warp's barrier.
  bool release_warp(int warp) {
    bool released = false;
    for (int first = 32 * warp, i = first; i < std::min(shape_.block, first + 32); ++i) {
      Thread& t = *threads_[i];
      if (t.waiting_ != Thread::Wait::warp) continue;
      const auto together = [&](int other) {
        const Thread& o = *threads_[other];
        return o.waiting_ == Thread::Wait::warp && o.mask_ == t.mask_ && o.line_ == t.line_;
      };
      bool complete = true;
      for_mask(first, t.mask_, [&](int other) { complete = complete && together(other); });
      if (!complete) continue;
      for_mask(first, t.mask_, [&](int other) { threads_[other]->waiting_ = Thread::Wait::none; });
      released = true;
    }
    return released;
  }

  template <class Visit>
  void for_mask(int first, unsigned mask, Visit visit) {
    for (int lane = 0; lane < 32 && first + lane < shape_.block; ++lane) {
      if ((mask >> lane & 1U) != 0) visit(first + lane);
    }
  }

  /// One line per run of threads in the same state.
  std::string states() const {
    std::string all, last;
    for (const auto& t : threads_) {
      const std::string state = t->state();
      if (state != last) all += join(" thread ", t->index_, " and on ", state, ";");
      last = state;
    }
    return all;
  }

  void stuck(const std::string& others = "") {
    if (error_) return;
    const bool barrier =
        std::any_of(threads_.begin(), threads_.end(), [](const auto& t) { return t->waiting_ == Thread::Wait::block; });
    error_ = std::make_exception_ptr(KernelFault(
        join(kernel_, ": ", barrier ? "divergent barrier" : "deadlock", " in block ", index_, ":", states(), others)));
  }

  /// What changed in shared memory since the last time, by 4-byte words, and where each thread stands.
  void show(std::ostream& trace) {
    trace << "block " << index_ << ", interval " << interval_++ << ':' << states() << '\n';
    for (const auto& a : arrays_) {
      unsigned char* const now = a->memory.data() + a->first;
      if (a->seen.empty()) a->seen.assign(a->bytes, 0xFF);
      const auto differs = [&](std::size_t i) {
        return std::memcmp(now + i, a->seen.data() + i, std::min<std::size_t>(4, a->bytes - i)) != 0;
      };
      for (std::size_t i = 0; i < a->bytes;) {
        std::size_t end = i;
        while (end < a->bytes && differs(end)) end += 4;
        if (end > i)
          trace << "  wrote bytes " << i << " to " << std::min(end, a->bytes) - 1 << " of the shared array of " << a->bytes
                << '\n';
        i = end + 4;
      }
      std::memcpy(a->seen.data(), now, a->bytes);
    }
  }

  void abort_rest() {
    aborting_ = true;
    for (const auto& t : threads_) {
      if (!t->fiber_.done()) t->fiber_.resume();
    }
  }

  const char* kernel_;
  LaunchShape shape_;
  int index_ = 0;
  int interval_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Array>> arrays_;
  std::exception_ptr error_;
  bool aborting_ = false;
};

inline int Thread::block() const { return block_->index_; }
inline int Thread::block_size() const { return block_->shape_.block; }
inline int Thread::grid_size() const { return block_->shape_.grid; }
inline unsigned char* Thread::slot(int lane) { return block_->slots_[static_cast<std::size_t>(index_ / 32 * 32 + lane)].bytes; }
inline unsigned Thread::present() const {
  const int lanes = std::min(32, block_size() - index_ / 32 * 32);
  return lanes == 32 ? ~0U : (1U << lanes) - 1;
}
inline void Thread::fault(const std::string& what) const {
  throw KernelFault(join(block_->kernel_, ": block ", block(), ", thread ", index_, ": ", what));
}
inline void Thread::wait(Wait kind, unsigned mask, int line) {
  if (block_->aborting_) throw Aborted{};
  if (kind == Wait::warp && (mask >> lane() & 1U) == 0) {
    fault(join("warp barrier at line ", line, " with a mask that leaves out the caller"));
  }
  waiting_ = kind;
  mask_ = mask & present();
  line_ = line;
  fiber_.pause();
  if (block_->aborting_) throw Aborted{};
}
inline void Thread::wait_for(std::function<bool()> come, std::function<std::string()> event, int line) {
  if (block_->aborting_) throw Aborted{};
  come_ = std::move(come);
  event_ = std::move(event);
  wait(Wait::event, 0, line);
}
inline std::string Thread::state() const {
  if (fiber_.done()) return "has ended";
  const std::string what = waiting_ == Wait::block ? "block" : waiting_ == Wait::warp ? "warp" : event_();
  return join("waits at line ", line_, " (", what, ")");
}
inline unsigned Thread::ballot(unsigned mask, bool predicate, int line) {
  if ((mask >> lane() & 1U) == 0) fault(join("vote at line ", line, " with a mask that leaves out the caller"));
  *slot(lane()) = predicate;
  wait(Wait::warp, mask, line);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i) {
    if ((mask & present()) >> i & 1U) votes |= static_cast<unsigned>(*slot(i)) << i;
  }
  wait(Wait::warp, mask, line);
  return votes;
}
template <class Tag, class T, int N>
T* Thread::shared() {
  static const char tag = 0;
  return static_cast<T*>(block_->array(&tag, sizeof(T) * N));
}
template <class T>
T* Thread::dynamic_shared() {
  return static_cast<T*>(block_->dynamic());
}

/// Runs body over the grid. Throws KernelFault, or what the body threw; UsageError for a shape that no device takes. `trace`:
/// gets a line whenever all threads wait (where each stands) and one for each stretch of shared memory written since.
template <class Body>
void launch(const char* kernel, const LaunchShape& shape, Order order, const Body& body, std::ostream* trace = nullptr) {
  check_shape(kernel, shape);
  Orders orders(order, shape.block);
  Block block(kernel, shape);
  for (int b = 0; b < shape.grid; ++b) block.run(order == Order::reverse ? shape.grid - 1 - b : b, orders.next(), body, trace);
}

}  // namespace tweedie::kernels::simt

#include "tweedie/kernels/simt/mma.h"
