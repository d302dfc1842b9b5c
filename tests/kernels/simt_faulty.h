// simt_faulty.h - plants a fault in a device kernel without touching its source: a context that does one operation wrongly at one
// line, and a launch that gets one of its sizes wrong.
//
// A kernel reaches its machine through `ctx` alone, so each line with ctx.sync(), ctx.copy_async(), ctx.mma_tf32() ... is a site
// at which that operation can fail, for all threads alike. A first run without a fault lists the sites; each is then planted with
// every fault of its operation. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels_testing.h"
#include "tweedie/kernels/simt/cluster.h"

namespace tweedie::kernels::testing {

enum class Operation {
  barrier,
  warp_barrier,
  fence,
  copy,
  commit,
  wait,
  arrive,
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
  unsigned ballot(unsigned mask, bool predicate, TWEEDIE_HERE) {
    const bool alone = planted_.here(Operation::shuffle, file, line) && planted_.is("vote of one's own");
    return alone ? (predicate ? 1U << in_.lane() : 0) : in_.ballot(mask, predicate, line);
  }
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
    return rounded(in_.to_tf32(x), __builtin_bit_cast(std::uint32_t, x) & 0xFFFFE000U, 0xFFFF0000U, x, 0, file, line);
  }
  std::uint32_t to_bf16x2(float first, float second, TWEEDIE_HERE) {
    return rounded(in_.to_bf16x2(first, second), cut_bf16(first, second), 0xFFF8FFF8U, first, second, file, line);
  }
  std::uint32_t pack_bf16(float low, float high, TWEEDIE_HERE) {
    return rounded(in_.pack_bf16(low, high), cut_bf16(low, high), 0xFFF8FFF8U, low, high, file, line);
  }
  float exp2_approx(float x, TWEEDIE_HERE) { return coarse(in_.exp2_approx(x), 0x1p-11f, file, line); }
  float reciprocal_approx(float x, TWEEDIE_HERE) { return coarse(in_.reciprocal_approx(x), 0x1p-11f, file, line); }
  float tanh_approx(float x, TWEEDIE_HERE) { return coarse(in_.tanh_approx(x), 0x1p-4f, file, line); }

  void load_matrix_x4(std::uint32_t (&to)[4], const void* row, TWEEDIE_HERE) {
    in_.load_matrix_x4(to, row, line);
    if (!planted_.here(Operation::mma, file, line)) return;
    if (planted_.is("wrong fragment index in a")) std::swap(to[1], to[2]);
    if (planted_.is("wrong fragment index in b")) std::swap(to[0], to[3]);
  }

  void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], TWEEDIE_HERE) {
    multiply(d, a, b, file, line, [&](auto& sum, const auto& left, const auto& right) { in_.mma_tf32(sum, left, right, line); });
  }
  void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], TWEEDIE_HERE) {
    multiply(d, a, b, file, line, [&](auto& sum, const auto& left, const auto& right) { in_.mma_bf16(sum, left, right, line); });
  }
  void mma_f64(double (&d)[2], double a, double b, TWEEDIE_HERE) {
    if (planted_.here(Operation::mma, file, line)) {
      if (planted_.is("wrong fragment index in a")) a = in_.shuffle_xor(~0U, a, 1, line);
      if (planted_.is("wrong fragment index in b")) b = in_.shuffle_xor(~0U, b, 4, line);
    }
    const double left[1] = {a}, right[1] = {b};
    multiply(d, left, right, file, line, [&](auto& sum, const auto& l, const auto& r) { in_.mma_f64(sum, l[0], r[0], line); });
  }

  // ---- what a ClusterThread has beside ----

  int cluster_rank(TWEEDIE_HERE) { return shifted(Operation::block, 1, in_.cluster_rank(), 2, file, line); }
  void cluster_sync(TWEEDIE_HERE) {
    if (planted_.here(Operation::barrier, file, line) && planted_.is("missing barrier")) return;
    in_.cluster_sync(line);
  }
  void sync_warpgroup(TWEEDIE_HERE) {
    if (planted_.here(Operation::barrier, file, line) && planted_.is("missing barrier")) return;
    in_.sync_warpgroup(line);
  }
  void barrier_init(std::uint64_t* barrier, int arrivals, TWEEDIE_HERE) {
    const bool more = planted_.here(Operation::arrive, file, line) && planted_.is("an arrival more expected");
    in_.barrier_init(barrier, more ? arrivals + 1 : arrivals);
  }
  void fence_barrier_init(TWEEDIE_HERE) {
    if (!missing_fence(file, line)) in_.fence_barrier_init();
  }
  template <class T>
  static const T* opaque(const T* p) {
    return p;
  }
  void fence_async_proxy(TWEEDIE_HERE) {
    if (!missing_fence(file, line)) in_.fence_async_proxy();
  }
  void wgmma_fence(TWEEDIE_HERE) {
    if (!missing_fence(file, line)) in_.wgmma_fence();
  }
  void barrier_arrive(std::uint64_t* barrier, int rank = -1, TWEEDIE_HERE) {  // -1: the block's own
    if (planted_.here(Operation::arrive, file, line) && planted_.is("missing arrival")) return;
    if (rank < 0) return in_.barrier_arrive(barrier);
    in_.barrier_arrive(barrier, rank);
  }
  void barrier_expect(std::uint64_t* barrier, int bytes, TWEEDIE_HERE) {
    const bool fewer = planted_.here(Operation::arrive, file, line) && planted_.is("too few bytes expected");
    in_.barrier_expect(barrier, fewer ? bytes - 16 : bytes);
  }
  void barrier_wait(std::uint64_t* barrier, unsigned parity, TWEEDIE_HERE) {
    if (planted_.here(Operation::wait, file, line)) {
      if (planted_.is("missing wait")) return;
      if (planted_.is("wait for the other phase")) parity ^= 1U;
    }
    in_.barrier_wait(barrier, parity, line);
  }
  void copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier, unsigned mask, TWEEDIE_HERE) {
    if (planted_.here(Operation::copy, file, line)) {
      if (planted_.is("copy left out: stale shared memory")) return;
      if (previous_ != nullptr && planted_.is("copy of the previous source")) std::swap(from, previous_);
      previous_ = from;
    }
    in_.copy_bulk(to, from, bytes, barrier, mask);
  }
  std::uint32_t shared_address(const void* p) { return in_.shared_address(p); }
  template <int N, class A>
  void wgmma(float (&d)[N / 2], const A& a, std::uint64_t b, TWEEDIE_HERE) {
    if (planted_.here(Operation::mma, file, line)) {
      if (planted_.is("product left out")) return;
      if (planted_.is("product added twice")) in_.template wgmma<N>(d, a, b, line);
      if (previous_matrix_ != 0 && planted_.is("wrong fragment index in b")) std::swap(b, previous_matrix_);
      previous_matrix_ = b;
    }
    in_.template wgmma<N>(d, a, b, line);
  }
  void wgmma_commit(TWEEDIE_HERE) {
    if (planted_.here(Operation::commit, file, line) && planted_.is("missing commit")) return;
    in_.wgmma_commit();
  }
  template <int Pending>
  void wgmma_wait(TWEEDIE_HERE) {
    if (planted_.here(Operation::wait, file, line)) {
      if (planted_.is("missing wait")) return;
      if (planted_.is("wait for one group fewer")) return in_.template wgmma_wait<Pending + 1>(line);
    }
    in_.template wgmma_wait<Pending>(line);
  }
  template <class T>
  void pin(T& value) {
    in_.pin(value);
  }
  template <int Count>
  void increase_registers() {
    in_.template increase_registers<Count>();
  }
  template <int Count>
  void decrease_registers() {
    in_.template decrease_registers<Count>();
  }

 private:
  bool missing_fence(const char* file, int line) {
    return planted_.here(Operation::fence, file, line) && planted_.is("missing fence");
  }
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
  float coarse(float y, float error, const char* file, int line) {
    return planted_.here(Operation::approximation, file, line) && planted_.is("approximation too coarse") ? y * (1 + error) : y;
  }
  static std::uint32_t cut_bf16(float first, float second) {
    return __builtin_bit_cast(std::uint32_t, first) >> 16 | (__builtin_bit_cast(std::uint32_t, second) & 0xFFFF0000U);
  }
  /// `right` is x (tf32), or x and y (bf16), rounded; `cut` truncated. Of a tie, cut is right too.
  std::uint32_t rounded(std::uint32_t right, std::uint32_t cut, std::uint32_t few, float x, float y, const char* file, int line) {
    if (!planted_.here(Operation::round, file, line)) return right;
    if (planted_.is("operand of too few bits")) return right & few;
    const bool halves = few == 0xFFF8FFF8U;
    const auto miss = [&](std::uint32_t word) {
      const float first = __builtin_bit_cast(float, halves ? word << 16 : word);
      const float second = __builtin_bit_cast(float, halves ? word & 0xFFFF0000U : 0);
      return std::fabs(first - x) + std::fabs(second - y);
    };
    return miss(cut) > miss(right) && planted_.is("operand truncated") ? cut : right;
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
  std::uint64_t previous_matrix_ = 0;
};

#undef TWEEDIE_HERE

/// Every fault of each operation.
inline const std::vector<std::pair<Operation, std::string>>& all_faults() {
  static const std::vector<std::pair<Operation, std::string>> faults = {
      {Operation::barrier, "missing barrier"},
      {Operation::warp_barrier, "missing barrier of a warp"},
      {Operation::fence, "missing fence"},
      {Operation::copy, "copy left out: stale shared memory"},
      {Operation::copy, "copy of the previous source"},
      {Operation::copy, "copy's predicate ignored"},
      {Operation::commit, "missing commit"},
      {Operation::wait, "missing wait"},
      {Operation::wait, "wait for one group fewer"},
      {Operation::wait, "wait for the other phase"},
      {Operation::arrive, "missing arrival"},
      {Operation::arrive, "an arrival more expected"},
      {Operation::arrive, "too few bytes expected"},
      {Operation::shuffle, "vote of one's own"},
      {Operation::shuffle, "shuffle with the wrong lane"},
      {Operation::shuffle, "shuffle left out"},
      {Operation::mma, "product left out"},
      {Operation::mma, "wrong fragment index in a"},
      {Operation::mma, "wrong fragment index in b"},
      {Operation::mma, "wrong fragment index in d"},
      {Operation::mma, "product added twice"},
      {Operation::round, "operand truncated"},
      {Operation::round, "operand of too few bits"},
      {Operation::approximation, "approximation too coarse"},
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

/// A kernel's body with the fault.
template <class Body>
struct FaultyBody {
  Body body;
  Planted* planted;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    Faulty<Ctx> faulty(ctx, *planted);
    body(faulty);
  }
};
template <class Body>
requires requires { Body::kCluster; }
struct FaultyBody<Body> {
  static constexpr int kCluster = Body::kCluster;
  Body body;
  Planted* planted;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    Faulty<Ctx> faulty(ctx, *planted);
    body(faulty);
  }
};

/// Kernels that stride over their work, whatever the grid: two blocks do, and make the stride matter.
inline bool strides(const std::string& kernel) {
  const std::set<std::string> kernels = {
      "normals",        "langevin_update", "chain_update",        "chain_update_naive",     "dsm_perturb",  "adam_ema",
      "training_begin", "training_adam",   "mlp_gradient_reduce", "mlp_gradient_naive_sum", "pack_mlp_sm90"};
  return kernels.count(kernel) > 0;
}

/// A launch in which kernels fail as planned, by `launch`.
template <class Launch, class Body>
void launch_faulty(const Launch& launch, Planted* planted, const char* name, int grid, int block, int shared, const Body& body) {
  FaultyBody<Body> changed{body, planted};
  if (strides(name)) grid = std::min(grid, 2);
  if (planted->here(Operation::launch, name, 0)) {
    Body& b = changed.body;
    if constexpr (!requires { Body::kCluster; }) {
      if (grid > 1 && !strides(name) && planted->is("last block missing")) --grid;
    }
    if constexpr (requires { --b.batch; }) {
      if (b.batch != grid && planted->is("last row missing")) --b.batch;  // a block a row: the batch is the grid
    } else if constexpr (requires { --b.rows; }) {
      if (planted->is("last row missing")) --b.rows;
    } else if constexpr (requires { --b.n; }) {
      if (planted->is("last row missing")) --b.n;
    }
    if constexpr (requires { ++b.first_row; }) {
      if (planted->is("random numbers of another row")) ++b.first_row;
    }
  }
  launch(name, grid, block, shared, changed);
}

/// The same on the host.
struct FaultyLaunch {
  simt::Order order;
  Planted* planted;

  template <class Body>
  void operator()(const char* name, int grid, int block, int shared, const Body& body) const {
    const auto launch = [this](const char* kernel, int blocks, int threads, int bytes, const auto& faulty) {
      simt::launch_any(kernel, {blocks, threads, bytes}, order, faulty);
    };
    launch_faulty(launch, planted, name, grid, block, shared, body);
  }
};

/// A kernel's acceptance at one shape: its error as a share of the bound, above 1 where it is wrong.
using Trial = std::function<double(const FaultyLaunch&)>;

/// How the fault shows, "" where it does not.
inline std::string caught(Planted& planted, const std::vector<Trial>& trials) {
  for (const Trial& trial : trials) {
    for (const simt::Order order : simt::kAllOrders) {
      try {
        const double share = trial({order, &planted});
        if (!(share <= 1)) return join("comparison: ", share, " of the bound, order ", static_cast<int>(order));
      } catch (const simt::KernelFault& fault) {
        return join("executor: ", fault.what());
      }
    }
  }
  return "";
}

/// Plants every fault at every site of the kernels that the trials run. harmless: (file, fault) that change no result, and may.
inline void plant_everywhere(const std::vector<Trial>& trials,
                             const std::set<std::pair<std::string, std::string>>& harmless = {}) {
  Planted clean;
  CHECK(caught(clean, trials) == "");
  int count = 0;
  for (const Site& site : clean.seen) {
    for (const auto& each : all_faults()) {
      if (each.first != site.operation) continue;
#ifdef TWEEDIE_SIMT_ASAN  // a wrong index may leave its array: AddressSanitizer ends the process at the access
      if (site.operation >= Operation::thread && site.operation <= Operation::stride) continue;
#endif
      Planted planted{each.second, site};
      const std::string how = caught(planted, trials);
      if (!planted.applied) continue;  // such a launch has no rows, such a copy no predicate
      ++count;
      const std::string place = site.file.substr(site.file.find_last_of('/') + 1);
      if (how.empty() && harmless.count({place, each.second}) > 0) continue;
      INFO(place, ":", site.line, ": ", each.second, ": ", how);
      CHECK(how != "");
    }
  }
  CHECK(count >= 1);
}

}  // namespace tweedie::kernels::testing
