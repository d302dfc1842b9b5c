// simt_faulty.h - plants a fault in a device kernel without touching its source: a context that does one operation wrongly at one
// line, and a launch that gets one of its sizes wrong.
//
// A kernel reaches its machine through `ctx` alone, so each line with ctx.sync(), ctx.copy_async(), ctx.mma_tf32() ... is a site
// at which that operation can fail, for all threads alike. A first run without a fault lists the sites; each is then planted with
// every fault of its operation. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tweedie/kernels/simt/executor.h"

namespace tweedie::kernels::testing {

enum class Operation {
  barrier,
  warp_barrier,
  copy,
  commit,
  wait,
  shuffle,
  mma,
  round,
  approximation,
  thread,
  block,
  lane,
  stride,
  launch
};

/// Where an operation stands; line 0 is a launch, by its kernel's name.
struct Site {
  Operation operation;
  std::string file;
  int line;
  auto operator<=>(const Site&) const = default;
};

/// One fault at one site, or none: then the sites are listed.
struct Planted {
  std::string fault{};
  Site site{};
  std::set<Site> seen{};
  bool applied = false;  // whether it changed anything

  bool here(Operation operation, const char* file, int line) {
    if (fault.empty()) {
      seen.insert({operation, file, line});
      return false;
    }
    return site.line == line && site.operation == operation && site.file == file;
  }
  /// Of a site that is here: whether it fails in this way.
  bool is(const char* name) {
    if (fault != name) return false;
    applied = true;
    return true;
  }
};

#define TWEEDIE_HERE int line = __builtin_LINE(), const char *file = __builtin_FILE()

/// A Thread (or what has its members) with the fault.
template <class Inner>
class Faulty {
 public:
  Faulty(Inner& inner, Planted& planted) : in_(inner), planted_(planted) {}

  int thread(TWEEDIE_HERE) { return shifted(Operation::thread, 33, in_.thread(), in_.block_size(), file, line); }
  int block(TWEEDIE_HERE) { return shifted(Operation::block, 1, in_.block(), in_.grid_size(), file, line); }
  int lane(TWEEDIE_HERE) { return shifted(Operation::lane, 1, in_.lane(), 32, file, line); }
  int block_size(TWEEDIE_HERE) { return shifted(Operation::stride, 1, in_.block_size(), 2048, file, line); }
  int grid_size(TWEEDIE_HERE) { return shifted(Operation::stride, 1, in_.grid_size(), 1 << 30, file, line); }

  void sync(TWEEDIE_HERE) {
    if (planted_.here(Operation::barrier, file, line) && planted_.is("missing barrier")) return;
    in_.sync(line);
  }
  void sync_warp(unsigned mask = ~0U, TWEEDIE_HERE) {
    if (planted_.here(Operation::warp_barrier, file, line) && planted_.is("missing barrier of a warp")) return;
    in_.sync_warp(mask, line);
  }

  template <class T>
  T shuffle(unsigned mask, T value, int source, TWEEDIE_HERE) {
    return exchanged(value, file, line, [&](int wrong) { return in_.shuffle(mask, value, source ^ wrong, line); });
  }
  template <class T>
  T shuffle_xor(unsigned mask, T value, int bits, TWEEDIE_HERE) {
    return exchanged(value, file, line, [&](int wrong) { return in_.shuffle_xor(mask, value, bits ^ wrong, line); });
  }
  template <class T>
  T shuffle_down(unsigned mask, T value, int delta, TWEEDIE_HERE) {
    return exchanged(value, file, line, [&](int wrong) { return in_.shuffle_down(mask, value, delta ^ wrong, line); });
  }
  template <class T>
  T shuffle_up(unsigned mask, T value, int delta, TWEEDIE_HERE) {
    return exchanged(value, file, line, [&](int wrong) { return in_.shuffle_up(mask, value, delta ^ wrong, line); });
  }
  unsigned ballot(unsigned mask, bool predicate, int line = __builtin_LINE()) { return in_.ballot(mask, predicate, line); }
  bool any(unsigned mask, bool predicate, int line = __builtin_LINE()) { return in_.any(mask, predicate, line); }
  bool all(unsigned mask, bool predicate, int line = __builtin_LINE()) { return in_.all(mask, predicate, line); }

  template <class Tag, class T, int N>
  T* shared() {
    return in_.template shared<Tag, T, N>();
  }
  template <class T>
  T* dynamic_shared() {
    return in_.template dynamic_shared<T>();
  }

  template <int Bytes>
  void copy_async(void* to, const void* from, bool predicate = true, TWEEDIE_HERE) {
    alignas(16) static constexpr std::uint32_t kOther[4] = {~0U, ~0U, ~0U, ~0U};  // whatever lies beyond: NaN
    if (planted_.here(Operation::copy, file, line)) {
      if (planted_.is("copy left out: stale shared memory")) return;
      if (previous_ != nullptr && predicate && planted_.is("copy of the previous source")) std::swap(from, previous_);
      if (!predicate && planted_.is("copy's predicate ignored")) from = kOther, predicate = true;
      if (predicate && from != kOther) previous_ = from;
    }
    in_.template copy_async<Bytes>(to, from, predicate);
  }
  void commit_async(TWEEDIE_HERE) {
    if (planted_.here(Operation::commit, file, line) && planted_.is("missing commit")) return;
    in_.commit_async();
  }
  template <int Pending>
  void wait_async(TWEEDIE_HERE) {
    if (planted_.here(Operation::wait, file, line)) {
      if (planted_.is("missing wait")) return;
      if (planted_.is("wait for one group fewer")) return in_.template wait_async<Pending + 1>();
    }
    in_.template wait_async<Pending>();
  }

  std::uint32_t to_tf32(float x, TWEEDIE_HERE) {
    const std::uint32_t right = in_.to_tf32(x), cut = __builtin_bit_cast(std::uint32_t, x) & 0xFFFFE000U;
    if (!planted_.here(Operation::round, file, line)) return right;
    if (planted_.is("operand of 8 bits")) return right & 0xFFFF0000U;
    const auto miss = [x](std::uint32_t y) { return std::fabs(__builtin_bit_cast(float, y) - x); };
    return miss(cut) > miss(right) && planted_.is("operand truncated") ? cut : right;  // of a tie both are right
  }
  float exp2_approx(float x, TWEEDIE_HERE) { return coarse(in_.exp2_approx(x), file, line); }
  float reciprocal_approx(float x, TWEEDIE_HERE) { return coarse(in_.reciprocal_approx(x), file, line); }

  void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], TWEEDIE_HERE) {
    multiply(d, a, b, file, line, [&](auto& sum, const auto& left, const auto& right) { in_.mma_tf32(sum, left, right, line); });
  }
  void mma_f64(double (&d)[2], double a, double b, TWEEDIE_HERE) {
    if (planted_.here(Operation::mma, file, line)) {
      if (planted_.is("wrong fragment index in a")) a = in_.shuffle_xor(~0U, a, 1, line);
      if (planted_.is("wrong fragment index in b")) b = in_.shuffle_xor(~0U, b, 4, line);
    }
    const double left[1] = {a}, right[1] = {b};
    multiply(d, left, right, file, line, [&](auto& sum, const auto& l, const auto& r) { in_.mma_f64(sum, l[0], r[0], line); });
  }

 private:
  int shifted(Operation operation, int by, int index, int count, const char* file, int line) {
    const bool fails = planted_.here(operation, file, line) && index + by < count &&
                       planted_.is(kShifted[static_cast<int>(operation) - static_cast<int>(Operation::thread)]);
    return fails ? index + by : index;
  }
  template <class T, class Exchange>
  T exchanged(T value, const char* file, int line, Exchange exchange) {
    if (!planted_.here(Operation::shuffle, file, line)) return exchange(0);
    if (planted_.is("shuffle left out")) return value;
    return exchange(planted_.is("shuffle with the wrong lane") ? 1 : 0);
  }
  float coarse(float y, const char* file, int line) {
    return planted_.here(Operation::approximation, file, line) && planted_.is("approximation to 11 bits") ? y * (1 + 0x1p-11f)
                                                                                                          : y;
  }
  template <class T, std::size_t D, class A, std::size_t Na, std::size_t Nb, class Mma>
  void multiply(T (&d)[D], const A (&a)[Na], const A (&b)[Nb], const char* file, int line, Mma mma) {
    if (!planted_.here(Operation::mma, file, line)) return mma(d, a, b);
    if (planted_.is("product left out")) return;
    A left[Na], right[Nb];
    std::copy(a, a + Na, left), std::copy(b, b + Nb, right);
    if (Na > 2 && planted_.is("wrong fragment index in a")) std::swap(left[Na > 2], left[Na > 2 ? 2 : 0]);
    if (Nb > 1 && planted_.is("wrong fragment index in b")) std::swap(right[0], right[Nb > 1]);
    if (planted_.is("wrong fragment index in d")) {
      T sum[D] = {};
      mma(sum, left, right);
      for (std::size_t i = 0; i < D; ++i) d[i] += sum[i ^ 1];
      return;
    }
    if (planted_.is("product added twice")) mma(d, left, right);
    mma(d, left, right);
  }

  static constexpr const char* kShifted[] = {"thread index off by a warp and a lane", "block index off by one",
                                             "lane index off by one", "stride off by one"};

  Inner& in_;
  Planted& planted_;
  const void* previous_ = nullptr;
};

#undef TWEEDIE_HERE

/// Every fault of each operation.
inline const std::vector<std::pair<Operation, std::string>>& all_faults() {
  static const std::vector<std::pair<Operation, std::string>> faults = {
      {Operation::barrier, "missing barrier"},
      {Operation::warp_barrier, "missing barrier of a warp"},
      {Operation::copy, "copy left out: stale shared memory"},
      {Operation::copy, "copy of the previous source"},
      {Operation::copy, "copy's predicate ignored"},
      {Operation::commit, "missing commit"},
      {Operation::wait, "missing wait"},
      {Operation::wait, "wait for one group fewer"},
      {Operation::shuffle, "shuffle with the wrong lane"},
      {Operation::shuffle, "shuffle left out"},
      {Operation::mma, "product left out"},
      {Operation::mma, "wrong fragment index in a"},
      {Operation::mma, "wrong fragment index in b"},
      {Operation::mma, "wrong fragment index in d"},
      {Operation::mma, "product added twice"},
      {Operation::round, "operand truncated"},
      {Operation::round, "operand of 8 bits"},
      {Operation::approximation, "approximation to 11 bits"},
      {Operation::thread, "thread index off by a warp and a lane"},
      {Operation::block, "block index off by one"},
      {Operation::lane, "lane index off by one"},
      {Operation::stride, "stride off by one"},
      {Operation::launch, "last block missing"},
      {Operation::launch, "last row missing"},
      {Operation::launch, "random numbers of another row"},
  };
  return faults;
}

/// A launch on the host in which kernels fail as planned.
struct FaultyLaunch {
  simt::Order order;
  Planted* planted;
  int most_blocks = 0;  // not 0: of a kernel that strides over its elements, whatever the grid

  template <class Body>
  void operator()(const char* name, int grid, int block, int shared, const Body& body) const {
    Body changed = body;
    if (most_blocks != 0) grid = std::min(grid, most_blocks);
    if (planted->here(Operation::launch, name, 0)) {
      if (grid > 1 && most_blocks == 0 && planted->is("last block missing")) --grid;
      if constexpr (requires { --changed.batch; }) {
        if (changed.batch != grid && planted->is("last row missing")) --changed.batch;  // a block a row: as before
      } else if constexpr (requires { --changed.rows; }) {
        if (planted->is("last row missing")) --changed.rows;
      } else if constexpr (requires { --changed.n; }) {
        if (planted->is("last row missing")) --changed.n;
      }
      if constexpr (requires { ++changed.first_row; }) {
        if (planted->is("random numbers of another row")) ++changed.first_row;
      }
    }
    simt::launch(name, {grid, block, shared}, order, [&](simt::Thread& ctx) {
      Faulty<simt::Thread> faulty(ctx, *planted);
      changed(faulty);
    });
  }
};

}  // namespace tweedie::kernels::testing
