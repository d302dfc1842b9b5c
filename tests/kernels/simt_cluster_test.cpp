// simt_cluster_test.cpp - clusters, mbarriers, bulk copies and wgmma in the executor: values by the PTX tables' literal places,
// and planted faults, each caught. SPDX-License-Identifier: MIT
#include <sstream>

#include "kernels_testing.h"
#include "tweedie/kernels/cuda/ptx_sm90.h"
#include "tweedie/kernels/simt/cluster.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::ClusterThread;
using simt::KernelFault;
using simt::Order;

namespace {

/// The text of the fault that body raises in every order, "" if one order shows none.
template <class Body>
std::string fault_of(const simt::LaunchShape& shape, int cluster, const Body& body) {
  std::string text;
  for (const Order order : simt::kAllOrders) {
    try {
      simt::launch_clusters("planted", shape, cluster, order, body);
      return "";
    } catch (const KernelFault& fault) {
      text = fault.what();
    }
  }
  return text;
}

bool mentions(const std::string& text, const char* part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

/// What a bulk copy needs, each step with its mistake.
struct Recipe {
  int bytes = 256, expected = 256, arrivals = 1, target = 0, source = 0;
  unsigned parity = 0;
  bool fence = true, wait = true;
};

/// out (128) = in, first into shared memory by one bulk copy.
struct Fetch {
  Recipe recipe;
  const float* in;
  float* out;
  void operator()(ClusterThread& ctx) const {
    auto* const memory = ctx.dynamic_shared<unsigned char>();
    auto* const barrier = reinterpret_cast<std::uint64_t*>(memory + 512);
    if (ctx.thread() == 0) {
      ctx.barrier_init(barrier, recipe.arrivals);
      if (recipe.fence) ctx.fence_barrier_init();
    }
    ctx.sync();
    if (ctx.thread() == 0) {
      ctx.barrier_expect(barrier, recipe.expected);
      ctx.copy_bulk(memory + recipe.target, reinterpret_cast<const unsigned char*>(in) + recipe.source, recipe.bytes, barrier);
    }
    if (recipe.wait) ctx.barrier_wait(barrier, recipe.parity);
    if (ctx.thread() < 64) out[ctx.thread()] = reinterpret_cast<float*>(memory)[ctx.thread()];
    ctx.barrier_wait(barrier, 0);
  }
};

std::string fetch(const Recipe& recipe, std::vector<float>* out = nullptr) {
  alignas(16) float in[128];
  for (int i = 0; i < 128; ++i) in[i] = static_cast<float>(i);
  std::vector<float> unseen(64);
  if (out == nullptr) out = &unseen;
  return fault_of({1, 64, 640}, 1, Fetch{recipe, in, out->data()});
}

/// Each block of a pair fetches half of 64 floats and sends it to both; then what the other block wrote is read.
struct Share {
  const float* in;
  float* out;  // (2, 64)
  bool wait_for_peer, twice;
  void operator()(ClusterThread& ctx) const {
    auto* const memory = ctx.dynamic_shared<float>();
    auto* const barrier = reinterpret_cast<std::uint64_t*>(memory + 80);
    const int rank = ctx.cluster_rank();
    if (ctx.thread() == 0) {
      ctx.barrier_init(barrier, 1);
      ctx.fence_barrier_init();
    }
    ctx.cluster_sync();
    if (ctx.thread() == 0) {
      ctx.barrier_expect(barrier, 256);
      for (int i = 0; i < (twice ? 2 : 1); ++i) ctx.copy_bulk(memory + 32 * rank, in + 32 * rank, 128, barrier, 3);
    }
    ctx.barrier_wait(barrier, 0);
    if (ctx.thread() == 0) memory[64] = static_cast<float>(10 + rank);
    ctx.cluster_sync();
    const float theirs = *ctx.peer(memory + 64, 1 - rank);
    for (int i = ctx.thread(); i < 64; i += 32) out[64 * rank + i] = memory[i] + theirs;
    if (wait_for_peer) ctx.cluster_sync();
  }
};

std::uint32_t bits_of_one() { return 0x3F80; }  // bf16

/// One wgmma of (64, 16) by (16, 16); `b`: the matrix, 2048 bytes of shared memory; result d of all threads, (128, 8).
struct OneProduct {
  std::vector<std::uint16_t> b;
  std::uint64_t matrix;
  int thread, reg, half;  // where A, in registers, has its only 1
  std::vector<float>* d;
  bool fence = true, proxy = true, wait = true, touch = false, change_a = false, change_b = false, differ = false;
  void operator()(ClusterThread& ctx) const {
    auto* const memory = ctx.dynamic_shared<std::uint16_t>();
    for (std::size_t i = static_cast<std::size_t>(ctx.thread()); i < b.size(); i += 128) memory[i] = b[i];
    if (proxy) ctx.fence_async_proxy();
    ctx.sync();
    float sum[8] = {};
    std::uint32_t a[4] = {};
    if (ctx.thread() == thread) a[reg] = bits_of_one() << 16 * half;
    if (fence) ctx.wgmma_fence();
    ctx.wgmma<16>(sum, a, matrix + (differ && ctx.thread() == 5 ? 2 : 0));
    ctx.wgmma_commit();
    if (touch) sum[3] = 1;
    if (change_a) a[0] = 7;
    if (change_b && ctx.thread() == 0) memory[0] = 9, ctx.fence_async_proxy();
    if (wait) ctx.wgmma_wait<0>();
    for (std::size_t i = 0; i < 8; ++i) (*d)[static_cast<std::size_t>(ctx.thread()) * 8 + i] = sum[i];
    ctx.wgmma_wait<0>();
  }
};

constexpr std::uint64_t kSwizzled = 0x4000004000010040;  // at byte 1024, the start of dynamic shared memory
constexpr std::uint64_t kPlain = 0x0000001000080040;     // the next 8 columns 128 bytes on, the next 8 rows 256

/// The (thread, register) pairs of d that are not 0, when A's only 1 is (thread, reg, half) and B's is its number `at`.
std::string where(int thread, int reg, int half, std::uint64_t matrix, std::size_t at) {
  std::vector<std::uint16_t> b(1024);
  b[at] = static_cast<std::uint16_t>(bits_of_one());
  std::vector<float> d(128 * 8);
  std::string places;
  simt::launch_clusters("one", {1, 128, 2048}, 1, Order::shuffled, OneProduct{b, matrix, thread, reg, half, &d});
  for (std::size_t i = 0; i < d.size(); ++i) {
    if (d[i] != 0) places += join(i / 8, ' ', i % 8, d[i] == 1 ? ";" : "?");
  }
  return places;
}

}  // namespace

TEST_CASE("a bulk copy lands at its wait, not before") {
  std::vector<float> out(64), expected(64);
  for (std::size_t i = 0; i < 64; ++i) expected[i] = static_cast<float>(i);
  CHECK(fetch({}, &out) == "");
  CHECK(out == expected);
  CHECK(fetch({.wait = false}, &out) == "");
  CHECK(std::isnan(out[0]));
  CHECK(fetch({.parity = 1}, &out) == "");  // the phase before the first is over
  CHECK(std::isnan(out[63]));
}

TEST_CASE("bulk copies: wrong bytes, arrivals, addresses and fences are faults") {
  mentions(fetch({.expected = 512}), "deadlock in block 0: thread 0 and on waits at line");
  mentions(fetch({.expected = 512}),
           "mbarrier at byte 512, phase 0: 0 of 1 arrivals missing, 512 bytes expected, 256 on their way");
  mentions(fetch({.expected = 128}), "copies of 256 bytes for the mbarrier at byte 512, whose phase expects 128");
  mentions(fetch({.arrivals = 2}), "1 of 2 arrivals missing");
  mentions(fetch({.target = 8}), "an address is no multiple of 16");
  mentions(fetch({.source = 4}), "an address is no multiple of 16");
  mentions(fetch({.bytes = 248}), "no positive multiple of 16");
  mentions(fetch({.target = 400}), "outside of the 640 bytes");
  mentions(fetch({.fence = false}), "whose init was not fenced");
  alignas(16) float in[4] = {};
  mentions(fault_of({1, 1, 64}, 1,
                    [&](ClusterThread& ctx) {
                      auto* const b = ctx.dynamic_shared<std::uint64_t>();
                      ctx.barrier_init(b, 1), ctx.fence_barrier_init();
                      ctx.barrier_expect(b, 16);
                      ctx.copy_bulk(b + 2, in, 16, b);
                    }),
           "never waited for");
}

TEST_CASE("mbarriers: phases, and what goes wrong with them") {
  for (const Order order : simt::kAllOrders) {  // three laps of a handshake of two threads
    int seen = 0;
    simt::launch_clusters("laps", {1, 64, 64}, 1, order, [&](ClusterThread& ctx) {
      auto* const b = ctx.dynamic_shared<std::uint64_t>();
      if (ctx.thread() == 0) ctx.barrier_init(b, 1), ctx.barrier_init(b + 1, 1);
      ctx.sync();
      for (unsigned lap = 0; lap < 3; ++lap) {
        if (ctx.thread() == 0) {
          ctx.barrier_wait(b + 1, (lap & 1U) ^ 1U);
          seen = static_cast<int>(lap);
          ctx.barrier_arrive(b);
        } else if (ctx.thread() == 1) {
          ctx.barrier_wait(b, lap & 1U);
          if (seen != static_cast<int>(lap)) ctx.fault("lap");
          ctx.barrier_arrive(b + 1);
        }
      }
    });
  }
  const auto alone = [](auto body) {
    return fault_of({1, 1, 64}, 1, [body](ClusterThread& ctx) { body(ctx, ctx.dynamic_shared<std::uint64_t>()); });
  };
  mentions(alone([](auto& ctx, auto* b) { ctx.barrier_wait(b, 0); }), "no mbarrier was initialised at byte 0");
  mentions(alone([](auto& ctx, auto* b) { ctx.barrier_init(b, 1), ctx.barrier_wait(b, 0); }), "1 of 1 arrivals missing");
  mentions(alone([](auto& ctx, auto* b) { ctx.barrier_init(b, 1), *b = 0, ctx.barrier_arrive(b); }), "was overwritten");
  mentions(alone([](auto& ctx, auto* b) {
             ctx.barrier_init(b, 1);
             ctx.barrier_expect(b, 16), ctx.barrier_arrive(b);
           }),
           "beyond the 1 arrivals");
  mentions(alone([](auto& ctx, auto* b) { ctx.barrier_init(b, 0); }), "for 0 arrivals");
}

TEST_CASE("a cluster's blocks run side by side; copies to both; a peer that has ended is a fault") {
  alignas(16) float in[64];
  std::vector<float> out(128), expected(128);
  for (std::size_t i = 0; i < 64; ++i) in[i] = static_cast<float>(i), expected[i] = in[i] + 11, expected[64 + i] = in[i] + 10;
  CHECK(fault_of({2, 32, 384}, 2, Share{in, out.data(), true, false}) == "");
  CHECK(out == expected);
  mentions(fault_of({2, 32, 384}, 2, Share{in, out.data(), true, true}), "copies of 512 bytes");
  const auto early = [](bool copy) {
    return [copy](ClusterThread& ctx) {
      alignas(16) static const float source[4] = {};
      auto* const b = ctx.dynamic_shared<std::uint64_t>();
      if (ctx.thread() == 0) ctx.barrier_init(b, 1), ctx.fence_barrier_init();
      ctx.cluster_sync();
      if (ctx.cluster_rank() == 1) return;
      ctx.cluster_sync();  // of those that are left
      ctx.barrier_expect(b, 16);
      if (copy) {
        ctx.copy_bulk(b + 2, source, 16, b, 3);
      } else {
        ctx.barrier_arrive(b, 1);
      }
    };
  };
  mentions(fault_of({2, 1, 64}, 2, early(true)), "block 1: has ended; its shared memory is gone");
  mentions(fault_of({2, 1, 64}, 2, early(false)), "block 1: has ended; its shared memory is gone");
  mentions(fault_of({2, 1, 64}, 2,
                    [](ClusterThread& ctx) {
                      auto* const b = ctx.dynamic_shared<std::uint64_t>();
                      ctx.barrier_init(b, 1);
                      if (ctx.cluster_rank() == 0) ctx.barrier_wait(b, 0);
                      ctx.cluster_sync();
                    }),
           "(cluster)");
  CHECK_THROWS_AS(simt::launch_clusters("k", {3, 32, 0}, 2, Order::forward, [](ClusterThread&) {}), UsageError);
}

TEST_CASE("wgmma: register fragments and matrix descriptors by the PTX tables' literal places") {
  CHECK(cuda::swizzled_matrix(1024) == kSwizzled);
  // A (17, 11) in thread 37's third register, upper half; d (17, 3) in thread 37: warp 1, g = 1, t = 1, e = 1.
  // B (11, 3), that is row 3, column 11: byte 3 128 + (1 ^ 3) 16 + 3 2 = 422 swizzled.
  CHECK(where(37, 2, 1, kSwizzled, 422 / 2) == "37 1;");
  CHECK(where(37, 2, 1, kSwizzled, (422 + 1024) / 2) == "37 5;");  // row 11
  CHECK(where(37, 2, 1, kSwizzled + 2, 390 / 2) == "37 1;");       // 16 columns on: column 27, byte 384 + (3 ^ 3) 16 + 6
  CHECK(where(37, 2, 1, kPlain, (3 * 16 + 128 + 6) / 2) == "37 1;");
  CHECK(where(37, 2, 1, kPlain, (3 * 16 + 128 + 6 + 256) / 2) == "37 5;");
  CHECK(where(37, 2, 1, kSwizzled, 420 / 2) == "");  // column 10
  // A (0, 0), (8, 1), (55, 14), (63, 7); B's rows 0, 0, 15, 6.
  CHECK(where(0, 0, 0, kSwizzled, 0) == "0 0;");
  CHECK(where(0, 1, 1, kSwizzled, 2 / 2) == "0 2;");
  CHECK(where(127, 2, 0, kSwizzled, (1024 + 7 * 128 + (1 ^ 7) * 16 + 12) / 2) == "127 5;");
  CHECK(where(127, 1, 1, kSwizzled, (6 * 128 + 6 * 16 + 14) / 2) == "127 2;");
}

TEST_CASE("wgmma with A in shared memory, over two steps of K, matches the sums") {
  // a (64, 32), b (24, 32), small integers, exact in bf16.
  const auto element = [](int r, int c, int seed) { return static_cast<float>((r * 7 + c * 3 + seed) % 11 - 5); };
  for (const Order order : simt::kAllOrders) {
    bool right = true;
    simt::launch_clusters("pair", {1, 128, 12288}, 1, order, [&](ClusterThread& ctx) {
      auto* const memory = ctx.dynamic_shared<unsigned char>();
      const auto put = [&](int at, int r, int c, float value) {
        const auto half = static_cast<std::uint16_t>(ClusterThread::to_bf16x2(value, 0));
        std::memcpy(memory + at + r * 128 + (c / 8 ^ r % 8) * 16 + c % 8 * 2, &half, 2);
      };
      for (int i = ctx.thread(); i < 64 * 32; i += 128) put(0, i / 32, i % 32, element(i / 32, i % 32, 1));
      for (int i = ctx.thread(); i < 24 * 32; i += 128) put(8192, i / 32, i % 32, element(i / 32, i % 32, 2));
      ctx.fence_async_proxy();
      ctx.sync_warpgroup();
      float d[12] = {};
      ctx.wgmma_fence();
      for (std::uint32_t k = 0; k < 2; ++k) {
        ctx.wgmma<24>(d, cuda::swizzled_matrix(ctx.shared_address(memory) + 32 * k),
                      cuda::swizzled_matrix(ctx.shared_address(memory + 8192) + 32 * k));
      }
      ctx.wgmma_commit();
      ctx.wgmma_wait<0>();
      for (int i = 0; i < 12; ++i) {
        const int row = ctx.thread() / 32 * 16 + ctx.lane() / 4 + 8 * (i % 4 / 2),
                  column = i / 4 * 8 + ctx.lane() % 4 * 2 + i % 2;
        float sum = 0;
        for (int k = 0; k < 32; ++k) sum += element(row, k, 1) * element(column, k, 2);
        right = right && d[i] == sum;
      }
    });
    CHECK(right);
  }
}

TEST_CASE("wgmma: missing fences and waits, operands and sums touched too early") {
  std::vector<float> d(128 * 8);
  std::vector<std::uint16_t> b(1024);
  b[0] = static_cast<std::uint16_t>(bits_of_one());
  const auto run = [&](auto change) {
    OneProduct k{b, kSwizzled, 0, 0, 0, &d};
    change(k);
    return fault_of({1, 128, 2048}, 1, k);
  };
  CHECK(run([](auto&) {}) == "");
  CHECK(d[0] == 1);
  mentions(run([](auto& k) { k.fence = false; }), "no wgmma_fence");
  CHECK(run([](auto& k) { k.proxy = false; }) == "");
  CHECK(std::isnan(d[0]));
  CHECK(run([](auto& k) { k.wait = false; }) == "");
  CHECK(std::isnan(d[0]));
  mentions(run([](auto& k) { k.touch = true; }), "wrote to accumulators before the wgmma wait");
  mentions(run([](auto& k) { k.change_a = true; }), "wrote to registers of the wgmma");
  mentions(run([](auto& k) { k.change_b = true; }), "changed before its wait");
  mentions(run([](auto& k) { k.differ = true; }), "not the same in all threads");
  mentions(run([](auto& k) { k.matrix = kSwizzled | std::uint64_t{1} << 63; }), "swizzle 3");
  mentions(run([](auto& k) { k.matrix = kSwizzled + 128; }), "outside of shared memory");
  CHECK(where(37, 2, 1, kPlain, 422 / 2) == "37 4;");  // the wrong swizzle reads elsewhere: row 10
  mentions(fault_of({1, 128, 2048}, 1,
                    [](ClusterThread& ctx) {
                      float sum[4] = {};
                      const std::uint32_t a[4] = {};
                      ctx.wgmma_fence();
                      ctx.wgmma<8>(sum, a, kSwizzled);
                    }),
           "never waited for");
  mentions(fault_of({1, 64, 2048}, 1, [](ClusterThread& ctx) { ctx.wgmma_wait<0>(); }), "fewer than 128 threads");
  mentions(fault_of({1, 128, 2048}, 1,
                    [](ClusterThread& ctx) {
                      if (ctx.thread() < 96) ctx.sync_warpgroup();
                    }),
           "deadlock");
}

TEST_CASE("a trace tells where the threads stand and what they wrote") {
  std::ostringstream trace;
  simt::launch(
      "toy", {1, 4, 16}, Order::forward,
      [](simt::Thread& ctx) {
        auto* const memory = ctx.dynamic_shared<float>();
        if (ctx.thread() < 2) memory[ctx.thread()] = 1;
        ctx.sync(7);
        if (ctx.thread() == 3) memory[3] = 2;
      },
      &trace);
  CHECK(trace.str() ==
        "block 0, interval 0: thread 0 and on waits at line 7 (block);\n  wrote bytes 0 to 7 of the shared array of 16\n"
        "block 0, interval 1: thread 0 and on has ended;\n  wrote bytes 12 to 15 of the shared array of 16\n");
}
