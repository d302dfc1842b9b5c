// cluster.h - what sm_90a adds, on the CPU: the blocks of a cluster side by side, mbarriers, bulk copies, wgmma.
//
// The rules are PTX ISA 8.x's; as late and as strictly as they allow:
//   - mbarrier: a phase completes when its arrivals and its bytes are complete; wait(parity) passes once the phase of that parity
//     is over. One that can never pass is a deadlock, reported with what is missing.
//   - bulk copy: its target is NaN from issue on; it lands only when a wait needs it and it completes the phase. Copies that
//     carry more bytes than were expected, addresses or sizes off 16 bytes, and peers that have ended are faults.
//   - wgmma: accumulators are NaN from issue to wait; operands are compared at issue and wait, so that registers or shared memory
//     changed in between are a fault, as are accumulators touched there and a wgmma with no fence since the last wait.
//   - the async proxy (bulk copies, wgmma) has a view of shared memory of its own, to which fence_async_proxy carries what
//   threads
//     wrote: without that fence wgmma reads what was there before, NaN at first.
// Barriers, bulk copies' targets and matrices lie in dynamic shared memory. Not seen: a wait of one warp that stands in for
// another's (wgmma_wait gathers the warpgroup), which thread's writes a proxy fence covers, time.
// SPDX-License-Identifier: MIT
#pragma once

#include <map>

#include "tweedie/kernels/simt/executor.h"

namespace tweedie::kernels::simt {

class Cluster;

/// A thread of a launch with clusters; kernels/cuda/ptx_sm90.h is the device's.
class ClusterThread : public Thread {
 public:
  explicit ClusterThread(Cluster* cluster) : cluster_(cluster) {}

  int cluster_rank() const;
  /// barrier.cluster arrive and wait: all threads of the cluster that have not ended.
  void cluster_sync(int line = __builtin_LINE());
  /// Where the block of that rank has what this one has at `here`: mapa.
  template <class T>
  T* peer(T* here, int rank) {
    return reinterpret_cast<T*>(base(rank) + offset(here, 1, "mapa"));
  }
  /// bar.sync of the 128 threads of a warpgroup.
  void sync_warpgroup(int line = __builtin_LINE()) { gather("warpgroup", line); }

  void barrier_init(std::uint64_t* barrier, int arrivals);
  void fence_barrier_init();
  void barrier_arrive(std::uint64_t* barrier) { barrier_arrive(barrier, cluster_rank()); }
  void barrier_arrive(std::uint64_t* barrier, int rank);
  /// One arrival, and that many bytes more to come in this phase.
  void barrier_expect(std::uint64_t* barrier, int bytes);
  void barrier_wait(std::uint64_t* barrier, unsigned parity, int line = __builtin_LINE());

  /// cp.async.bulk from global to shared memory; bytes are counted at `barrier`.
  void copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier) {
    copy_bulk(to, from, bytes, barrier, 1U << cluster_rank());
  }
  /// The same into every block of the mask, at the same place and barrier of each.
  void copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier, unsigned mask);
  void fence_async_proxy();

  /// The address as the block's instructions know it: dynamic shared memory starts at 1024.
  std::uint32_t shared_address(const void* p) { return 1024 + static_cast<std::uint32_t>(offset(p, 1, "an address")); }

  /// d (64, N) += a (64, 16) b (16, N), bf16: wgmma.mma_async.m64nNk16 of the warpgroup. Thread i holds, with warp w = i / 32,
  /// g = lane / 4, t = lane % 4, of d the rows 16 w + g + 8 (e / 2) and columns 8 j + 2 t + e % 2 in d[4 j + e], of a in
  /// registers (row, column) a[0] (16 w + g, 2t and on), a[1] 8 rows below, a[2] and a[3] 8 columns on, the lower column in the
  /// lower half [PTX ISA, register fragments of wgmma.m64nNk16]. `a` and `d` are read and written at the wait: they must live
  /// until then.
  template <int N>
  void wgmma(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, int line = __builtin_LINE()) {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256);
    Product p{d, N, a, {}, 0, b, line, product_groups_, {}};
    std::memcpy(p.a_then, a, sizeof p.a_then);
    issue(p);
  }
  template <int N>
  void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int line = __builtin_LINE()) {
    static_assert(N % 8 == 0 && N >= 8 && N <= 256);
    issue({d, N, nullptr, {}, a, b, line, product_groups_, {}});
  }
  /// For the device's compiler: no access to these registers moves across this.
  static void pin(const float*&) {}
  template <int N>
  static void pin(float (&)[N]) {}
  template <int N>
  static void pin(std::uint32_t (&)[N][4]) {}
  void wgmma_fence() { fenced_ = true; }
  void wgmma_commit() { ++product_groups_; }
  /// All groups but the last `Pending`.
  template <int Pending>
  void wgmma_wait(int line = __builtin_LINE()) {
    finish_products(product_groups_ - Pending, line);
  }
  template <int Count>
  void increase_registers() {
    static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
  }
  template <int Count>
  void decrease_registers() {
    static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
  }

 private:
  friend class Cluster;
  struct Product {
    float* d;
    int n;
    const std::uint32_t* a;  // nullptr: from shared memory
    std::uint32_t a_then[4];
    std::uint64_t a_matrix, b_matrix;
    int line, group;
    std::vector<unsigned char> bytes;  // of the matrices in shared memory at the time of issue; the first thread's alone
  };

  unsigned char* base(int rank);
  std::size_t offset(const void* p, std::size_t bytes, const char* what);
  void issue(Product p);
  void finish_products(int groups, int line);
  void multiply();
  std::vector<unsigned char> matrix_bytes(std::uint64_t matrix, int rows, int line);
  void gather(const char* what, int line);
  ClusterThread& mate(int i);
  void restart() override;
  void check_end() override;

  Cluster* cluster_;
  int at_cluster_ = 0, gathered_ = 0, product_groups_ = 0;
  bool fenced_ = false;
  std::vector<Product> products_;
  std::map<float*, std::vector<float>> sums_;  // of the accumulators in flight
};

/// The blocks of one cluster: barriers, copies in flight, the async proxy's views.
class Cluster {
 public:
  Cluster(const char* kernel, const LaunchShape& shape, int blocks) : shape_(shape), states_(static_cast<std::size_t>(blocks)) {
    for (int i = 0; i < blocks; ++i) {
      blocks_.push_back(std::make_unique<Block>(kernel, shape, [this](int) { return std::make_unique<ClusterThread>(this); }));
    }
  }

  template <class Body>
  void run(int first, Orders& orders, const Body& body, std::ostream* trace) {
    copies_.clear();
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      blocks_[i]->start<ClusterThread>(first + static_cast<int>(i), body);
      states_[i].barriers.clear();
      states_[i].view.assign(static_cast<std::size_t>(shape_.shared_bytes), 0xFF);
      states_[i].gone = states_[i].ended = false;
      states_[i].order = orders.next();
    }
    while (advance(orders.order() == Order::reverse, trace)) {
    }
    std::exception_ptr error;
    for (auto& block : blocks_) {
      try {
        block->finish();
      } catch (...) {
        if (!error) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

 private:
  friend class ClusterThread;
  static constexpr std::uint64_t kCookie = 0x6D62617272696572;
  struct Barrier {
    int expected, pending;
    std::int64_t bytes;
    unsigned phase;
    bool fenced;
  };
  struct State {
    std::map<std::size_t, Barrier> barriers;  // by their place in dynamic shared memory
    std::vector<unsigned char> view;          // of dynamic shared memory, by the async proxy
    std::vector<int> order;
    bool gone;   // no thread runs any more
    bool ended;  // and that was looked at
  };
  struct Copy {
    int rank;
    std::size_t to, bytes, barrier;
    const void* from;
  };

  /// One pass over all blocks and what it releases; false at the end or after a fault.
  bool advance(bool reverse, std::ostream* trace) {
    const std::size_t n = blocks_.size();
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t b = reverse ? n - 1 - i : i;
      blocks_[b]->pass(states_[b].order);
      if (blocks_[b]->failed()) return false;
      states_[b].gone = !blocks_[b]->alive();
      if (trace != nullptr) blocks_[b]->show(*trace);
    }
    bool alive = false, released = false;
    try {
      for (std::size_t b = 0; b < n; ++b) {
        alive = alive || blocks_[b]->alive();
        if (blocks_[b]->alive() || states_[b].ended) continue;
        states_[b].ended = true;
        for (const Copy& copy : copies_) {
          if (copy.rank == static_cast<int>(b)) fault(b, "ended with bulk copies on their way that were never waited for");
        }
      }
      for (auto& block : blocks_) released = block->release() || released;
    } catch (...) {
      if (!blocks_[0]->error_) blocks_[0]->error_ = std::current_exception();
      return false;
    }
    if (released || !alive) return alive;
    for (std::size_t b = 0; b < n; ++b) {
      if (!blocks_[b]->alive()) continue;
      std::string others;
      for (std::size_t o = 0; o < n; ++o) {
        if (o != b) others += join(" block ", blocks_[o]->index_, ":", blocks_[o]->states());
      }
      blocks_[b]->stuck(others);
      break;
    }
    return false;
  }

  [[noreturn]] void fault(std::size_t rank, const std::string& what) const {
    throw KernelFault(join(blocks_[rank]->kernel_, ": block ", blocks_[rank]->index_, ": ", what));
  }

  unsigned char* memory(int rank) { return static_cast<unsigned char*>(blocks_[static_cast<std::size_t>(rank)]->dynamic()); }

  Barrier& barrier(int rank, std::size_t at) {
    const auto r = static_cast<std::size_t>(rank);
    if (states_[r].gone) fault(r, "has ended; its shared memory is gone");
    const auto found = states_[r].barriers.find(at);
    if (found == states_[r].barriers.end()) fault(r, join("no mbarrier was initialised at byte ", at, " of its shared memory"));
    if (std::memcmp(memory(rank) + at, &kCookie, sizeof kCookie) != 0)
      fault(r, join("the mbarrier at byte ", at, " was overwritten"));
    return found->second;
  }

  static void settle(Barrier& b) {
    if (b.pending > 0 || b.bytes != 0) return;
    b.phase ^= 1U;
    b.pending = b.expected;
  }

  std::size_t in_flight(int rank, std::size_t at) const {
    std::size_t bytes = 0;
    for (const Copy& copy : copies_) bytes += copy.rank == rank && copy.barrier == at ? copy.bytes : 0;
    return bytes;
  }

  /// Whether the phase of that parity is over; copies land if that ends it.
  bool over(int rank, std::size_t at, unsigned parity) {
    Barrier& b = barrier(rank, at);
    if (b.phase != parity) return true;
    if (b.pending > 0) return false;
    const auto coming = static_cast<std::int64_t>(in_flight(rank, at));
    if (coming > b.bytes) {
      fault(static_cast<std::size_t>(rank),
            join("copies of ", coming, " bytes for the mbarrier at byte ", at, ", whose phase expects ", b.bytes));
    }
    if (coming < b.bytes) return false;
    std::erase_if(copies_, [&](const Copy& copy) {
      if (copy.rank != rank || copy.barrier != at) return false;
      std::memcpy(memory(rank) + copy.to, copy.from, copy.bytes);
      std::memcpy(states_[static_cast<std::size_t>(rank)].view.data() + copy.to, copy.from, copy.bytes);
      return true;
    });
    b.bytes = 0;
    settle(b);
    return true;
  }

  LaunchShape shape_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<State> states_;
  std::vector<Copy> copies_;
};

inline int ClusterThread::cluster_rank() const { return block() % static_cast<int>(cluster_->blocks_.size()); }
inline unsigned char* ClusterThread::base(int rank) {
  if (rank < 0 || rank >= static_cast<int>(cluster_->blocks_.size())) {
    fault(join("rank ", rank, " in a cluster of ", cluster_->blocks_.size(), " blocks"));
  }
  return cluster_->memory(rank);
}
inline std::size_t ClusterThread::offset(const void* p, std::size_t bytes, const char* what) {
  const auto at = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(base(cluster_rank()));
  const auto size = static_cast<std::size_t>(block_->shape_.shared_bytes);
  if (at > size || bytes > size - at) fault(join(what, " outside of the ", size, " bytes of dynamic shared memory"));
  return at;
}
inline void ClusterThread::restart() {
  Thread::restart();
  at_cluster_ = gathered_ = product_groups_ = 0;
  fenced_ = false;
  products_.clear();
  sums_.clear();
}
inline void ClusterThread::check_end() {
  Thread::check_end();
  if (!products_.empty()) fault(join("ended with the wgmma of line ", products_[0].line, " never waited for"));
}

inline void ClusterThread::cluster_sync(int line) {
  const int mine = ++at_cluster_;
  const auto come = [this, mine] {
    for (const auto& block : cluster_->blocks_) {
      for (const auto& t : block->threads_) {
        if (!t->fiber_.done() && static_cast<const ClusterThread&>(*t).at_cluster_ < mine) return false;
      }
    }
    return true;
  };
  wait_for(
      come, [] { return std::string("cluster"); }, line);
}

inline void ClusterThread::barrier_init(std::uint64_t* barrier, int arrivals) {
  const std::size_t at = offset(barrier, 8, "mbarrier.init");
  if (at % 8 != 0 || arrivals < 1 || arrivals >= 1 << 20) {
    fault(join("mbarrier.init at byte ", at, " for ", arrivals, " arrivals; a multiple of 8, and 1 to 2^20 - 1"));
  }
  std::memcpy(barrier, &Cluster::kCookie, sizeof Cluster::kCookie);
  cluster_->states_[static_cast<std::size_t>(cluster_rank())].barriers[at] = {arrivals, arrivals, 0, 0, false};
}
inline void ClusterThread::fence_barrier_init() {
  for (auto& entry : cluster_->states_[static_cast<std::size_t>(cluster_rank())].barriers) entry.second.fenced = true;
}
inline void ClusterThread::barrier_arrive(std::uint64_t* barrier, int rank) {
  const std::size_t at = offset(barrier, 8, "mbarrier.arrive");
  base(rank);
  Cluster::Barrier& b = cluster_->barrier(rank, at);
  if (rank != cluster_rank() && !b.fenced) fault(join("arrives at a peer's mbarrier at byte ", at, " whose init was not fenced"));
  if (b.pending == 0) fault(join("arrives at the mbarrier at byte ", at, " beyond the ", b.expected, " arrivals of its phase"));
  --b.pending;
  Cluster::settle(b);
}
inline void ClusterThread::barrier_expect(std::uint64_t* barrier, int bytes) {
  Cluster::Barrier& b = cluster_->barrier(cluster_rank(), offset(barrier, 8, "mbarrier.arrive.expect_tx"));
  if (bytes < 0 || b.bytes + bytes >= 1 << 20)
    fault(join("expects ", b.bytes + bytes, " bytes at an mbarrier, which counts to 2^20 - 1"));
  b.bytes += bytes;
  barrier_arrive(barrier);
}
inline void ClusterThread::barrier_wait(std::uint64_t* barrier, unsigned parity, int line) {
  const std::size_t at = offset(barrier, 8, "mbarrier.try_wait");
  const int rank = cluster_rank();
  if (parity > 1) fault(join("mbarrier.try_wait at line ", line, " for parity ", parity));
  if (cluster_->barrier(rank, at).phase != parity) return;
  wait_for([this, rank, at, parity] { return cluster_->over(rank, at, parity); },
           [this, rank, at] {
             const Cluster::Barrier& b = cluster_->barrier(rank, at);
             return join("mbarrier at byte ", at, ", phase ", b.phase, ": ", b.pending, " of ", b.expected, " arrivals missing, ",
                         b.bytes, " bytes expected, ", cluster_->in_flight(rank, at), " on their way");
           },
           line);
}

inline void ClusterThread::copy_bulk(void* to, const void* from, int bytes, std::uint64_t* barrier, unsigned mask) {
  if (bytes < 16 || bytes % 16 != 0) fault(join("cp.async.bulk of ", bytes, " bytes, no positive multiple of 16"));
  const auto n = static_cast<std::size_t>(bytes);
  const std::size_t place = offset(to, n, "cp.async.bulk"), at = offset(barrier, 8, "cp.async.bulk's mbarrier");
  if ((1024 + place) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
    fault("cp.async.bulk: an address is no multiple of 16");
  if (mask == 0 || mask >> cluster_->blocks_.size() != 0) fault(join("cp.async.bulk to the blocks of mask ", mask));
  for (int rank = 0; rank < static_cast<int>(cluster_->blocks_.size()); ++rank) {
    if ((mask >> rank & 1U) == 0) continue;
    if (!cluster_->barrier(rank, at).fenced)
      fault(join("cp.async.bulk with the mbarrier at byte ", at, " whose init was not fenced"));
    std::memset(cluster_->memory(rank) + place, 0xFF, n);
    std::memset(cluster_->states_[static_cast<std::size_t>(rank)].view.data() + place, 0xFF, n);
    cluster_->copies_.push_back({rank, place, n, at, from});
  }
}
inline void ClusterThread::fence_async_proxy() {
  auto& view = cluster_->states_[static_cast<std::size_t>(cluster_rank())].view;
  std::memcpy(view.data(), base(cluster_rank()), view.size());
}

inline ClusterThread& ClusterThread::mate(int i) {
  return static_cast<ClusterThread&>(*block_->threads_[static_cast<std::size_t>(thread() / 128 * 128 + i)]);
}
inline void ClusterThread::gather(const char* what, int line) {
  if (thread() / 128 * 128 + 128 > block_size())
    fault(join(what, " at line ", line, " in a warpgroup of fewer than 128 threads"));
  const int mine = ++gathered_;
  const auto come = [this, mine, line] {
    for (int i = 0; i < 128; ++i) {
      const ClusterThread& t = mate(i);
      if (t.fiber_.done() || t.gathered_ < mine || t.line_ != line) return false;
    }
    return true;
  };
  wait_for(
      come, [what] { return std::string(what); }, line);
}

/// launch() in clusters of `cluster` blocks, for bodies over a ClusterThread.
template <class Body>
void launch_clusters(const char* kernel, const LaunchShape& shape, int cluster, Order order, const Body& body,
                     std::ostream* trace = nullptr) {
  check_shape(kernel, shape);
  check(cluster >= 1 && cluster <= 8 && shape.grid % cluster == 0, kernel, ": clusters of ", cluster, " blocks in a grid of ",
        shape.grid, "; 1 to 8, and the grid a multiple");
  Orders orders(order, shape.block);
  Cluster blocks(kernel, shape, cluster);
  for (int b = 0; b < shape.grid; b += cluster) {
    blocks.run(order == Order::reverse ? shape.grid - cluster - b : b, orders, body, trace);
  }
}

/// launch_clusters() for a body with kCluster, else launch().
template <class Body>
void launch_any(const char* kernel, const LaunchShape& shape, Order order, const Body& body) {
  if constexpr (requires { Body::kCluster; }) {
    launch_clusters(kernel, shape, Body::kCluster, order, body);
  } else {
    launch(kernel, shape, order, body);
  }
}

}  // namespace tweedie::kernels::simt

#include "tweedie/kernels/simt/wgmma.h"
