// parallel.h - a thread pool, or the caller's own executor, and reductions whose order never depends on it.
//
//   parallel_for(n, 64, [&](Index begin, Index end) { ... });
//   double total = parallel_sum(n, [&](Index begin, Index end) { ...; return sum; });
//
// Chunk boundaries are multiples of `grain` and reductions run over fixed 64-row leaves and a fixed tree, so results are
// bit-identical for 1, 2 or 16 threads. A parallel_for inside a parallel_for runs in its caller's thread.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "tweedie/core/buffer.h"

namespace tweedie {

/// Runs the library's parallel work. Implement it to run everything on your own threads.
class TWEEDIE_API Executor {
 public:
  virtual ~Executor();
  /// How many tasks may run at the same time (>= 1).
  virtual int concurrency() const = 0;
  /// Runs task(context, 0) ... task(context, count - 1), in any order, and returns when all have ended. Tasks do not throw.
  virtual void run(int count, void (*task)(void* context, int index), void* context) = 0;
};

/// Uses `executor` from now on; nullptr returns to the library's own pool. Call it while no parallel work runs.
TWEEDIE_API void set_executor(std::shared_ptr<Executor> executor);
/// Number of threads of the library's own pool; 0 (the default) is one per core that this process may use. Threads start with the
/// first use.
TWEEDIE_API void set_threads(int count);
/// Threads that parallel work uses now.
TWEEDIE_API int threads();

namespace detail {
using RangeFunction = void (*)(void* context, Index begin, Index end);
TWEEDIE_API void parallel_for(Index n, Index grain, RangeFunction body, void* context);
}  // namespace detail

/// Calls body(begin, end) over [0, n) cut at multiples of `grain`. The first exception that a body throws is rethrown here.
template <class Body>
void parallel_for(Index n, Index grain, Body&& body) {
  using B = std::remove_reference_t<Body>;
  detail::parallel_for(
      n, grain, [](void* context, Index begin, Index end) { (*static_cast<B*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

inline constexpr Index kLeafRows = 64;

namespace detail {
/// partial[i] = leaf i; then pairs at distance 1, 2, 4 ... are added up into partial[0].
template <class T, class Leaf>
T sum_leaves(T* partial, Index leaves, Index n, Leaf& leaf) {
  tweedie::parallel_for(leaves, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) partial[i] = leaf(i * kLeafRows, i + 1 == leaves ? n : (i + 1) * kLeafRows);
  });
  for (Index width = 1; width < leaves; width *= 2) {
    for (Index i = 0; i + width < leaves; i += 2 * width) partial[i] = partial[i] + partial[i + width];
  }
  return partial[0];
}
}  // namespace detail

/// The sum of leaf(begin, end) over the 64-row leaves of [0, n), added up in a fixed binary tree. T{} for n = 0.
/// T needs operator+ and a default constructor that gives zero. Up to 8192 rows of a small T nothing is allocated.
template <class Leaf>
auto parallel_sum(Index n, Leaf&& leaf) {
  using T = decltype(leaf(Index{0}, Index{0}));
  constexpr Index kOnStack = sizeof(T) <= 32 ? 128 : 0;
  const Index leaves = (n + kLeafRows - 1) / kLeafRows;
  if (leaves <= 0) return T{};
  if (leaves == 1) return leaf(Index{0}, n);
  if constexpr (kOnStack > 0) {
    if (leaves <= kOnStack) {
      T partial[kOnStack]{};
      return detail::sum_leaves(partial, leaves, n, leaf);
    }
  }
  const std::unique_ptr<T[]> partial = std::make_unique<T[]>(static_cast<std::size_t>(leaves));
  return detail::sum_leaves(partial.get(), leaves, n, leaf);
}

}  // namespace tweedie
