// The pool, the caller's own executor, and reductions that give the same bits on any number of threads.
// SPDX-License-Identifier: MIT
#include "tweedie/core/parallel.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tweedie/core/check.h"

using namespace tweedie;

namespace {

/// Leaves the library as it found it.
struct Restore {
  ~Restore() {
    set_executor(nullptr);
    set_threads(0);
  }
};

/// One fresh thread per task, begun in reverse order.
class ThreadPerTask final : public Executor {
 public:
  int concurrency() const override { return 3; }
  void run(int count, void (*task)(void*, int), void* context) override {
    ++runs;
    std::vector<std::thread> threads;
    for (int i = count - 1; i >= 0; --i) threads.emplace_back([=] { task(context, i); });
    for (std::thread& t : threads) t.join();
  }
  int runs = 0;
};

/// Runs everything in the caller's thread although it promises more.
class Sequential final : public Executor {
 public:
  int concurrency() const override { return 4; }
  void run(int count, void (*task)(void*, int), void* context) override {
    for (int i = 0; i < count; ++i) task(context, i);
  }
};

double awkward_sum(Index n) {  // rounding makes the order of additions visible
  return parallel_sum(n, [](Index begin, Index end) {
    double s = 0;
    for (Index i = begin; i < end; ++i) s += std::sin(static_cast<double>(i) * 1.7) * std::exp2(static_cast<double>(i % 40));
    return s;
  });
}

float awkward_float(Index n) {
  return parallel_sum(n, [](Index begin, Index end) {
    float s = 0;
    for (Index i = begin; i < end; ++i) s += 1.0F / static_cast<float>(i + 1);
    return s;
  });
}

std::string first_error(Index n, Index grain, Index bad) {
  try {
    parallel_for(n, grain, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        if (i >= bad) throw std::runtime_error(std::to_string(i));
      }
    });
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("every index is visited once, at cuts that are multiples of the grain") {
  const Restore restore;
  for (const int count : {1, 2, 4, 16}) {
    set_threads(count);
    CHECK(threads() == count);
    for (const Index n : {0, 1, 2, 63, 64, 65, 1000, 4097}) {
      for (const Index grain : {1, 7, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
        std::atomic<int> bad_cuts{0};
        parallel_for(n, grain, [&](Index begin, Index end) {
          if (begin % grain != 0 || (end % grain != 0 && end != n) || begin >= end) ++bad_cuts;
          for (Index i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        CHECK(bad_cuts == 0);
        bool once = true;
        for (const auto& v : visits) once = once && v == 1;
        CHECK(once);
      }
    }
  }
  CHECK_THROWS_AS(parallel_for(3, 0, [](Index, Index) {}), UsageError);
}

TEST_CASE("sums are bit-identical on 1, 2, 4 and 16 threads and on the caller's executors") {
  const Restore restore;
  for (const Index n : {0, 1, 64, 65, 129, 8191, 8192, 8193, 100000}) {  // 8192 rows is where partial sums leave the stack
    set_executor(nullptr);
    set_threads(1);
    const double expected = awkward_sum(n);
    const float expected_float = awkward_float(n);
    for (const int count : {2, 4, 16}) {
      set_threads(count);
      CHECK(awkward_sum(n) == expected);
      CHECK(awkward_float(n) == expected_float);
    }
    const auto own = std::make_shared<ThreadPerTask>();
    set_executor(own);
    CHECK(threads() == 3);
    CHECK(awkward_sum(n) == expected);
    CHECK((own->runs > 0) == (n > 64));
    set_executor(std::make_shared<Sequential>());
    CHECK(awkward_sum(n) == expected);
  }
}

TEST_CASE("the tree adds leaves in pairs at distance 1, 2, 4, ...") {
  // ((l0 + l1) + (l2 + l3)) + l4, with values for which another order rounds differently
  const float leaf[5] = {1.0F, 0x1p-24F, 0x1p-24F, 0x1p-24F, 0x1p-23F};
  const float sum = parallel_sum(5 * kLeafRows, [&](Index begin, Index) { return leaf[begin / kLeafRows]; });
  CHECK(sum == ((leaf[0] + leaf[1]) + (leaf[2] + leaf[3])) + leaf[4]);
  struct Pair {
    double a = 0, b = 0;
    Pair operator+(const Pair& o) const { return {a + o.a, b + o.b}; }
  };
  const Pair p = parallel_sum(1000, [](Index begin, Index end) { return Pair{static_cast<double>(end - begin), 1}; });
  CHECK(p.a == 1000);
  CHECK(p.b == 16);
}

TEST_CASE("the first exception by index is rethrown, whatever the number of threads") {
  const Restore restore;
  for (const int count : {1, 2, 4, 16}) {
    set_threads(count);
    for (int repeat = 0; repeat < 20; ++repeat) {
      CHECK(first_error(1000, 1, 37) == "37");
      CHECK(first_error(1000, 64, 0) == "0");
      CHECK(first_error(1000, 10, 999) == "999");
    }
    CHECK(awkward_sum(1000) == awkward_sum(1000));  // the pool still works
  }
  set_executor(std::make_shared<ThreadPerTask>());
  CHECK(first_error(1000, 1, 37) == "37");
}

TEST_CASE("a parallel_for within a parallel_for runs in its caller's thread") {
  const Restore restore;
  for (int kind = 0; kind < 2; ++kind) {
    set_threads(4);
    if (kind == 1) set_executor(std::make_shared<ThreadPerTask>());
    std::atomic<int> visits{0}, elsewhere{0};
    parallel_for(64, 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const auto self = std::this_thread::get_id();
        parallel_for(100, 1, [&](Index b, Index e) {
          visits += static_cast<int>(e - b);
          if (std::this_thread::get_id() != self) ++elsewhere;
        });
      }
    });
    CHECK(visits == 6400);
    CHECK(elsewhere == 0);
  }
  // An exception out of a nested region leaves the outer one usable.
  set_executor(nullptr);
  CHECK_THROWS_AS(parallel_for(4, 1, [](Index, Index) { parallel_for(9, 1, [](Index, Index) { fail("inner"); }); }), UsageError);
  std::atomic<int> visits{0};
  parallel_for(64, 1, [&](Index b, Index e) { visits += static_cast<int>(e - b); });
  CHECK(visits == 64);
}

TEST_CASE("settings cannot change within parallel work, and absurd ones are refused") {
  const Restore restore;
  set_threads(2);
  CHECK_THROWS_AS(parallel_for(8, 1, [](Index, Index) { set_threads(1); }), UsageError);
  CHECK_THROWS_AS(parallel_for(8, 1, [](Index, Index) { set_executor(nullptr); }), UsageError);
  CHECK_THROWS_AS(set_threads(-1), UsageError);
  CHECK_THROWS_AS(set_threads(1 << 20), UsageError);
  set_threads(0);
  CHECK(threads() >= 1);
  CHECK(threads() <= static_cast<int>(std::thread::hardware_concurrency()));
}

TEST_CASE("several threads of the caller may use the pool at once") {
  const Restore restore;
  set_threads(4);
  const double expected = awkward_sum(20000);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (awkward_sum(20000) != expected) ++wrong;
      }
    });
  }
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("many small regions, and regions after a pause in which the threads fell asleep") {
  const Restore restore;
  set_threads(3);
  Index total = 0;
  for (int i = 0; i < 20000; ++i) {
    total += parallel_sum(200, [](Index b, Index e) { return e - b; });
  }
  CHECK(total == 200 * 20000);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(parallel_sum(200, [](Index b, Index e) { return e - b; }) == 200);
  }
}

#ifndef __SANITIZE_THREAD__  // the thread sanitizer does not support threads after fork()
namespace {
/// fork() with nothing in the output buffers that the child would print again.
pid_t quiet_fork() {
  std::cout.flush();
  std::fflush(nullptr);
  return fork();
}
}  // namespace

TEST_CASE("a child of fork() computes, and exits without waiting for threads it does not have") {
  const Restore restore;
  set_threads(4);
  const double expected = awkward_sum(50000);
  const pid_t child = quiet_fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);                                     // a deadlock is a failure, not a hang
    exit(awkward_sum(50000) == expected ? 0 : 1);  // runs static destructors
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(awkward_sum(50000) == expected);
}

TEST_CASE("exit() joins the threads, also within a task") {
  const Restore restore;
  for (const bool within : {false, true}) {
    set_threads(0);
    const pid_t child = quiet_fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(20);
      set_threads(4);
      awkward_sum(50000);
      if (within)
        parallel_for(4, 1, [](Index begin, Index) {
          if (begin == 3) exit(5);
        });
      exit(5);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 5);
  }
}
#endif
