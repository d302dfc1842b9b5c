// parallel.cpp - the thread pool behind parallel_for.
//
// A region is published as one 64-bit ticket word (generation, tasks, next task). Threads take tasks by compare-and-swap on
// it, the caller among them, so a thread that wakes up late takes nothing and is not waited for. Waiting spins for a few
// microseconds and then sleeps on a futex. Nothing is allocated once the threads run.
// SPDX-License-Identifier: MIT
#include "tweedie/core/parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tweedie/core/check.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace tweedie {

Executor::~Executor() = default;

namespace {

constexpr std::chrono::nanoseconds kSpin{30'000};  // a sleeping thread takes some 50 us to wake up
constexpr int kMostThreads = 4096;

thread_local bool inside_region = false;  // this thread runs a task of a region: what it calls stays in it

void pause_core() {
#ifdef __SSE2__
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// The smallest of the cgroup's CPU quotas from `group` up to the root, in cores; infinity without one (version 2 files).
double cgroup_quota(std::string group) {
  double cores = HUGE_VAL;
  for (;;) {
    std::ifstream file("/sys/fs/cgroup" + group + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0)
      cores = std::min(cores, std::strtod(quota.c_str(), nullptr) / period);
    if (group.empty() || group == "/") return cores;
    group.resize(group.rfind('/'));
  }
}

/// The same for version 1, whose quota in a container stands at the root of the controller.
double cgroup_quota_v1() {
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period && quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

/// Cores that this process may use: its affinity mask, cut by its control group's quota.
int count_allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  double quota = cgroup_quota_v1();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::/", 0) == 0) quota = std::min(quota, cgroup_quota(line.substr(3)));
  }
  if (quota < cores) cores = static_cast<int>(std::ceil(quota));
  return std::max(1, cores);
}

int allowed_cores() {
  static const int cores = count_allowed_cores();
  return cores;
}

/// The library's own executor: `concurrency() - 1` threads and the caller.
class Pool final : public Executor {
 public:
  explicit Pool(int count) : count_(count), owner_(getpid()), spin_(count <= allowed_cores() ? kSpin : kSpin.zero()) {}
  ~Pool() override { stop(); }

  int concurrency() const override { return count_; }
  bool belongs_to_this_process() const { return owner_ == getpid(); }

  void run(int count, void (*task)(void*, int), void* context) override {
    // Another thread's region is under way: this one runs in its caller's thread rather than wait for it.
    const std::unique_lock lock(region_, std::try_to_lock);
    if (!lock.owns_lock() || count <= 1) {
      for (int i = 0; i < count; ++i) task(context, i);
      return;
    }
    start();
    task_ = task;
    context_ = context;
    finished_.store(0, std::memory_order_relaxed);
    ++generation_;
    ticket_.store(pack(generation_, static_cast<std::uint32_t>(count), 0), std::memory_order_release);
    signal_.fetch_add(1, std::memory_order_release);
    signal_.notify_all();
    work(ticket_.load(std::memory_order_relaxed));
    wait_while(finished_, [count](int finished) { return finished != count; });
  }

 private:
  // Ticket: generation 32 bits, count 16, next 16.
  static std::uint64_t pack(std::uint32_t generation, std::uint32_t count, std::uint32_t next) {
    return (std::uint64_t{generation} << 32) | (count << 16) | next;
  }

  void start() {
    if (!threads_.empty() || count_ == 1) return;
    threads_.reserve(static_cast<std::size_t>(count_) - 1);
    try {
      for (int i = 1; i < count_; ++i) threads_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      // The system gives no more threads. The ones there are, the caller at least, do all the work.
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    signal_.fetch_add(1, std::memory_order_release);
    signal_.notify_all();
    for (std::thread& t : threads_) {
      // exit() called within a task: a thread cannot wait for itself.
      if (t.get_id() == std::this_thread::get_id()) {
        t.detach();
      } else {
        t.join();
      }
    }
  }

  void serve() {
    inside_region = true;
    int seen = 0;
    for (;;) {
      seen = wait_while(signal_, [seen](int signal) { return signal == seen; });
      if (stopping_.load(std::memory_order_relaxed)) return;
      work(ticket_.load(std::memory_order_acquire));
    }
  }

  /// Takes tasks of the ticket's generation until none is left.
  void work(std::uint64_t ticket) {
    const auto generation = static_cast<std::uint32_t>(ticket >> 32);
    const auto count = static_cast<std::uint32_t>(ticket >> 16) & 0xFFFF;
    for (;;) {
      const auto next = static_cast<std::uint32_t>(ticket) & 0xFFFF;
      if (static_cast<std::uint32_t>(ticket >> 32) != generation || next >= count) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      // This task is ours, so the caller waits, and task_ and context_ stay as they are until it is finished.
      const auto task = task_;
      void* const context = context_;
      task(context, static_cast<int>(next));
      if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<int>(count)) finished_.notify_one();
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  /// Returns the first value for which `waiting` is false.
  template <class Waiting>
  int wait_while(std::atomic<int>& value, Waiting waiting) {
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < 16; ++i) {
        const int now = value.load(std::memory_order_acquire);
        if (!waiting(now)) return now;
        pause_core();
      }
    } while (std::chrono::steady_clock::now() - start < spin_);
    for (;;) {
      const int now = value.load(std::memory_order_acquire);
      if (!waiting(now)) return now;
      value.wait(now, std::memory_order_acquire);
    }
  }

  const int count_;
  const pid_t owner_;
  const std::chrono::nanoseconds spin_;  // none when there are more threads than cores: it would keep others from working
  std::vector<std::thread> threads_;
  std::mutex region_;
  std::uint32_t generation_ = 0;
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<int> finished_{0};
  alignas(64) std::atomic<int> signal_{0};
  std::atomic<bool> stopping_{false};
};

int requested_threads = 0;
std::shared_ptr<Executor> user_executor;
std::atomic<Executor*> active_executor{nullptr};  // user_executor's, read without a lock
std::atomic<Pool*> pool{nullptr};
std::atomic<Pool*> parents_pool{nullptr};  // after fork(): kept reachable, never touched
std::atomic<bool> closed{false};

int pool_size() { return requested_threads > 0 ? requested_threads : allowed_cores(); }

/// A pool left behind by fork() belongs to the parent: its threads do not exist here, and it must be neither used nor joined.
void dispose(Pool* old) {
  if (old != nullptr && old->belongs_to_this_process()) delete old;
}

Executor* current_executor() {
  if (Executor* own = active_executor.load(std::memory_order_acquire)) return own;
  Pool* now = pool.load(std::memory_order_acquire);
  if (now != nullptr && now->belongs_to_this_process()) return now;
  if (closed.load(std::memory_order_acquire)) return nullptr;
  auto fresh = std::make_unique<Pool>(pool_size());
  if (pool.compare_exchange_strong(now, fresh.get(), std::memory_order_acq_rel)) {
    parents_pool.store(now, std::memory_order_relaxed);
    return fresh.release();
  }
  return now;
}

/// Joins the threads when the process exits. Work that static destructors still ask for runs in their own thread.
struct AtExit {
  ~AtExit() {
    closed.store(true, std::memory_order_release);
    dispose(pool.exchange(nullptr, std::memory_order_acq_rel));
  }
} at_exit;

/// One parallel_for: pieces of whole grains, taken in order by the tasks.
struct Region {
  Index n, piece, pieces;
  detail::RangeFunction body;
  void* context;
  std::atomic<Index> next{0};
  std::atomic<Index> first_failed;  // pieces behind it are not begun
  std::mutex mutex;
  std::exception_ptr error;

  void run_pieces() {
    for (;;) {
      const Index i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= pieces || i > first_failed.load(std::memory_order_relaxed)) return;
      try {
        body(context, i * piece, std::min(n, (i + 1) * piece));
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (i < first_failed.load(std::memory_order_relaxed)) {
          first_failed.store(i, std::memory_order_relaxed);
          error = std::current_exception();
        }
      }
    }
  }
};

void run_task(void* region, int) {
  const bool before = std::exchange(inside_region, true);
  static_cast<Region*>(region)->run_pieces();
  inside_region = before;
}

}  // namespace

void set_executor(std::shared_ptr<Executor> executor) {
  check(!inside_region, "set_executor: called within parallel work; call it while none runs");
  active_executor.store(executor.get(), std::memory_order_release);
  user_executor = std::move(executor);
}

void set_threads(int count) {
  check(count >= 0 && count <= kMostThreads, "set_threads: ", count, " threads; give 1 to ", kMostThreads,
        ", or 0 for one per core");
  check(!inside_region, "set_threads: called within parallel work; call it while none runs");
  requested_threads = count;
  dispose(pool.exchange(nullptr, std::memory_order_acq_rel));
}

int threads() {
  const Executor* own = active_executor.load(std::memory_order_acquire);
  return own != nullptr ? std::max(1, own->concurrency()) : pool_size();
}

void detail::parallel_for(Index n, Index grain, RangeFunction body, void* context) {
  check(grain >= 1, "parallel_for: grain ", grain, " must be at least 1");
  if (n <= 0) return;
  const Index grains = (n - 1) / grain + 1;
  Executor* const executor = inside_region || grains == 1 ? nullptr : current_executor();
  const int width = executor == nullptr ? 1 : std::max(1, executor->concurrency());
  if (width == 1) return body(context, 0, n);
  // Four pieces a thread even out what differs in cost; fewer, larger pieces cost less to hand out.
  const Index piece = std::max<Index>(1, grains / (Index{4} * width)) * grain;
  Region region{.n = n,
                .piece = piece,
                .pieces = (n - 1) / piece + 1,
                .body = body,
                .context = context,
                .first_failed = PTRDIFF_MAX,
                .mutex = {},
                .error = {}};
  executor->run(static_cast<int>(std::min<Index>(region.pieces, width)), run_task, &region);
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace tweedie
