// simt_executor_test.cpp - the executor finds what it says it finds: planted kernel faults, each caught; and the operations'
// values. SPDX-License-Identifier: MIT
#include "kernels_testing.h"
#include "tweedie/kernels/cuda/ptx.h"
#include "tweedie/kernels/simt/executor.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::KernelFault;
using simt::Order;

namespace {

/// The text of the fault that body raises, "" for none.
template <class Body>
std::string fault_of(const simt::LaunchShape& shape, const Body& body, Order order = Order::forward) {
  try {
    simt::launch("planted", shape, order, body);
  } catch (const KernelFault& fault) {
    return fault.what();
  }
  return "";
}

bool mentions(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// out[i] = in[reversed i] by shared memory; the barrier can be left out.
template <bool WithBarrier>
struct Reverse {
  const float* in;
  float* out;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    TWEEDIE_SHARED(float, tile, 64);
    tile[ctx.thread()] = in[ctx.thread()];
    if constexpr (WithBarrier) ctx.sync();
    out[ctx.thread()] = tile[63 - ctx.thread()];
  }
};

/// The same, but the lanes of a warp wait for each other: no barrier for the block.
struct ReverseByWarps {
  const float* in;
  float* out;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    TWEEDIE_SHARED(float, tile, 64);
    tile[ctx.thread()] = in[ctx.thread()];
    ctx.sync_warp();
    out[ctx.thread()] = tile[63 - ctx.thread()];
  }
};

/// out = in by cp.async; the wait can be left out (or wait for too little).
template <int Pending>
struct CopyAsync {
  const float* in;
  float* out;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    TWEEDIE_SHARED(float, tile, 32);
    ctx.template copy_async<4>(tile + ctx.thread(), in + ctx.thread());
    ctx.commit_async();
    ctx.template wait_async<Pending>();
    ctx.sync();
    out[ctx.thread()] = tile[31 - ctx.thread()];
    ctx.template wait_async<0>();
  }
};

/// Every thread reads its neighbour's value, then fills its own place again; the barrier between can be left out.
template <bool WithBarrier>
struct Refill {
  const float* in;
  float* out;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    TWEEDIE_SHARED(float, tile, 64);
    tile[ctx.thread()] = in[ctx.thread()];
    ctx.sync();
    out[ctx.thread()] = tile[63 - ctx.thread()];
    if constexpr (WithBarrier) ctx.sync();
    ctx.template copy_async<4>(tile + ctx.thread(), in + ctx.thread());
    ctx.commit_async();
    ctx.sync();
    ctx.template wait_async<0>();
  }
};

/// c (16, 8) = a (16, 8) b (8, 8) by one mma; Swap exchanges a1 and a2, a wrong fragment index.
template <bool Swap>
struct OneMma {
  const float *a, *b;
  float* c;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4;
    const auto bits = [](float x) { return __builtin_bit_cast(std::uint32_t, x); };
    std::uint32_t fa[4] = {bits(a[g * 8 + t]), bits(a[(g + 8) * 8 + t]), bits(a[g * 8 + t + 4]), bits(a[(g + 8) * 8 + t + 4])};
    if constexpr (Swap) std::swap(fa[1], fa[2]);
    const std::uint32_t fb[2] = {bits(b[t * 8 + g]), bits(b[(t + 4) * 8 + g])};
    float d[4] = {};
    ctx.mma_tf32(d, fa, fb);
    c[g * 8 + 2 * t] = d[0], c[g * 8 + 2 * t + 1] = d[1], c[(g + 8) * 8 + 2 * t] = d[2], c[(g + 8) * 8 + 2 * t + 1] = d[3];
  }
};

/// c (16, 8) = a (16, 16) b (16, 8) by one mma in bf16, where lane `lane` alone holds a 1: half `half` of word `word` of a or of
/// b; the other operand is given.
struct OneInBf16 {
  int lane, word, half;
  bool in_a;
  const float* other;  // (16, 16) a, or (16, 8) b
  float* c;
  template <class Ctx>
  void operator()(Ctx& ctx) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4;
    std::uint32_t a[4] = {}, b[2] = {};
    const std::uint32_t one = ctx.lane() == lane ? 0x3F80U << 16 * half : 0;
    if (in_a) {
      a[word] = one;
      for (int i = 0; i < 2; ++i) {
        const int k = 2 * t + 8 * i;
        b[i] = ctx.to_bf16x2(other[k * 8 + g], other[(k + 1) * 8 + g]);
      }
    } else {
      b[word] = one;
      for (int i = 0; i < 4; ++i) {
        const int row = g + 8 * (i % 2), k = 2 * t + 8 * (i / 2);
        a[i] = ctx.to_bf16x2(other[row * 16 + k], other[row * 16 + k + 1]);
      }
    }
    float d[4] = {};
    ctx.mma_bf16(d, a, b);
    c[g * 8 + 2 * t] = d[0], c[g * 8 + 2 * t + 1] = d[1], c[(g + 8) * 8 + 2 * t] = d[2], c[(g + 8) * 8 + 2 * t + 1] = d[3];
  }
};

/// Whether every order gives `expected`.
template <class Body>
bool always(const simt::LaunchShape& shape, const Body& body, const std::vector<float>& out, const std::vector<float>& expected) {
  bool right = true;
  for (const Order order : simt::kAllOrders) {
    simt::launch("kernel", shape, order, body);
    right = right && out == expected;
  }
  return right;
}

}  // namespace

TEST_CASE("a missing barrier shows in some order") {
  const std::vector<float> in = uniform<float>(64, 1);
  std::vector<float> out(64);
  const std::vector<float> expected(in.rbegin(), in.rend());
  CHECK(always({1, 64, 0}, Reverse<true>{in.data(), out.data()}, out, expected));
  CHECK_FALSE(always({1, 64, 0}, Reverse<false>{in.data(), out.data()}, out, expected));
  CHECK_FALSE(
      always({1, 64, 0}, ReverseByWarps{in.data(), out.data()}, out, expected));  // were all warps at one pace it would not
}

TEST_CASE("a missing or too weak cp.async wait shows; copies in flight at the end are a fault") {
  const std::vector<float> in = uniform<float>(32, 2);
  std::vector<float> out(32);
  const std::vector<float> expected(in.rbegin(), in.rend());
  CHECK(always({1, 32, 0}, CopyAsync<0>{in.data(), out.data()}, out, expected));
  CHECK_FALSE(always({1, 32, 0}, CopyAsync<1>{in.data(), out.data()}, out, expected));
  const std::string text = fault_of({1, 32, 0}, [&](simt::Thread& ctx) {
    TWEEDIE_SHARED(float, tile, 32);
    ctx.copy_async<4>(tile + ctx.thread(), in.data());
    ctx.commit_async();
  });
  CHECK(mentions(text, "never waited for"));
  CHECK(mentions(fault_of({1, 32, 0},
                          [&](simt::Thread& ctx) {
                            TWEEDIE_SHARED(float, tile, 32);
                            ctx.copy_async<16>(tile + 1, in.data());
                          }),
                 "multiple of its size"));
}

TEST_CASE("a buffer that cp.async fills again while others still read it shows") {
  const std::vector<float> in = uniform<float>(64, 2);
  std::vector<float> out(64);
  const std::vector<float> expected(in.rbegin(), in.rend());
  CHECK(always({1, 64, 0}, Refill<true>{in.data(), out.data()}, out, expected));
  CHECK_FALSE(always({1, 64, 0}, Refill<false>{in.data(), out.data()}, out, expected));
}

TEST_CASE("mma has the PTX tables' layout; a wrong fragment index shows") {
  std::vector<float> a(128), b(64), c(128), expected(128);
  for (int i = 0; i < 128; ++i) a[static_cast<std::size_t>(i)] = static_cast<float>(i % 13 - 6);  // exact in tf32
  for (int i = 0; i < 64; ++i) b[static_cast<std::size_t>(i)] = static_cast<float>(i % 7 - 3);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      for (std::size_t k = 0; k < 8; ++k) expected[i * 8 + j] += a[i * 8 + k] * b[k * 8 + j];
    }
  }
  CHECK(always({1, 32, 0}, OneMma<false>{a.data(), b.data(), c.data()}, c, expected));
  CHECK_FALSE(always({1, 32, 0}, OneMma<true>{a.data(), b.data(), c.data()}, c, expected));
}

TEST_CASE("mma in bf16 has the PTX tables' layout, read off them for some lanes") {
  struct Place {
    int lane, word, half, row, col;
  };
  // PTX ISA, m16n8k16, .bf16: A's a0, a1 | a2, a3 | a4, a5 | a6, a7 in words 0 to 3; B's b0, b1 | b2, b3 in words 0 and 1.
  const Place in_a[] = {{0, 0, 0, 0, 0},  {0, 0, 1, 0, 1},   {0, 1, 0, 8, 0},   {0, 2, 0, 0, 8},   {0, 3, 1, 8, 9},
                        {3, 0, 0, 0, 6},  {4, 0, 0, 1, 0},   {5, 1, 1, 9, 3},   {18, 2, 0, 4, 12}, {18, 3, 0, 12, 12},
                        {31, 0, 1, 7, 7}, {31, 1, 0, 15, 6}, {31, 2, 1, 7, 15}, {31, 3, 1, 15, 15}};
  const Place in_b[] = {{0, 0, 0, 0, 0},  {0, 0, 1, 1, 0},  {0, 1, 0, 8, 0},  {1, 0, 0, 2, 0},   {4, 0, 0, 0, 1},
                        {7, 1, 1, 15, 1}, {18, 0, 1, 5, 4}, {31, 0, 0, 6, 7}, {31, 1, 0, 14, 7}, {31, 1, 1, 15, 7}};
  std::vector<float> a(256), b(128), c(128);
  for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = static_cast<float>(i);  // exact in bf16
  for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = static_cast<float>(i + 1);
  for (const Place& p : in_a) {
    CAPTURE(p.lane);
    CAPTURE(p.word);
    std::vector<float> expected(128);
    for (std::size_t n = 0; n < 8; ++n) {
      expected[static_cast<std::size_t>(p.row) * 8 + n] = b[static_cast<std::size_t>(p.col) * 8 + n];
    }
    CHECK(always({1, 32, 0}, OneInBf16{p.lane, p.word, p.half, true, b.data(), c.data()}, c, expected));
  }
  for (const Place& p : in_b) {
    CAPTURE(p.lane);
    CAPTURE(p.word);
    std::vector<float> expected(128);
    for (std::size_t m = 0; m < 16; ++m) {
      expected[m * 8 + static_cast<std::size_t>(p.col)] = a[m * 16 + static_cast<std::size_t>(p.row)];
    }
    CHECK(always({1, 32, 0}, OneInBf16{p.lane, p.word, p.half, false, a.data(), c.data()}, c, expected));
  }
}

TEST_CASE("ldmatrix: a lane's word of matrix i is word lane % 4 of the row that lane 8 i + lane / 4 names; misuse is a fault") {
  for (const Order order : simt::kAllOrders) {
    simt::launch("ldmatrix", {1, 32, 0}, order, [](simt::Thread& ctx) {
      TWEEDIE_SHARED(std::uint32_t, rows, 32 * 8);
      for (int i = 0; i < 8; ++i) rows[8 * ctx.lane() + i] = static_cast<std::uint32_t>(100 * ctx.lane() + i);
      ctx.sync_warp();
      std::uint32_t to[4];
      ctx.load_matrix_x4(to, rows + 8 * (31 - ctx.lane()) + 4);  // lane r names row 31 - r, from its fifth word on
      for (int i = 0; i < 4; ++i) {
        if (to[i] != static_cast<std::uint32_t>(100 * (31 - 8 * i - ctx.lane() / 4) + 4 + ctx.lane() % 4)) ctx.fault("ldmatrix");
      }
    });
  }
  const auto from = [](int offset) {
    return [offset](simt::Thread& ctx) {
      TWEEDIE_SHARED(std::uint32_t, rows, 32 * 8);
      std::uint32_t to[4];
      ctx.load_matrix_x4(to, rows + offset);
    };
  };
  CHECK(mentions(fault_of({1, 32, 0}, from(1)), "not at 16 bytes"));
  CHECK(mentions(fault_of({1, 16, 0}, from(0)), "fewer than 32 threads"));
}

TEST_CASE("bf16 rounds to 7 bits, ties to even; NaN and the infinities stay") {
  const auto round = [](float x) { return __builtin_bit_cast(float, simt::Thread::to_bf16x2(0, x)); };
  CHECK(round(1) == 1);
  CHECK(round(1 + 0x1p-7f) == 1 + 0x1p-7f);
  CHECK(round(1 + 0x1p-8f) == 1);                       // a tie, to even
  CHECK(round(1 + 0x1p-8f + 0x1p-23f) == 1 + 0x1p-7f);  // above it
  CHECK(round(1 + 0x1p-7f + 0x1p-8f) == 1 + 0x1p-6f);   // a tie, to even
  CHECK(round(-1 - 0x1p-8f - 0x1p-7f) == -1 - 0x1p-6f);
  CHECK(round(3.4e38f) == HUGE_VALF);  // beyond the largest number
  CHECK(round(-HUGE_VALF) == -HUGE_VALF);
  CHECK(std::isnan(round(kNaN<float>)));
  CHECK(simt::Thread::to_bf16x2(1, 2) == 0x40003F80U);  // the first in the low half
}

TEST_CASE("divergent barriers and deadlocks are named with their lines") {
  for (const Order order : simt::kAllOrders) {
    const std::string early = fault_of(
        {1, 64, 0},
        [](simt::Thread& ctx) {
          if (ctx.thread() >= 40) return;
          ctx.sync();
        },
        order);
    CHECK(mentions(early, "divergent barrier in block 0"));
    CHECK(mentions(early, "thread 40 and on has ended"));
    const std::string two = fault_of(
        {1, 64, 0},
        [](simt::Thread& ctx) {
          if (ctx.thread() < 32) {
            ctx.sync();
          } else {
            ctx.sync();
          }
        },
        order);
    CHECK(mentions(two, "divergent barrier"));
    CHECK(mentions(two, "waits at line"));
    const std::string warp = fault_of(
        {1, 32, 0},
        [](simt::Thread& ctx) {
          if (ctx.thread() != 3) ctx.sync_warp();
        },
        order);
    CHECK(mentions(warp, "deadlock"));
  }
}

TEST_CASE("wrong shuffle masks are faults") {
  CHECK(mentions(fault_of({1, 32, 0}, [](simt::Thread& ctx) { ctx.shuffle(0xFFFFU, 1, 0); }), "leaves out the caller"));
  CHECK(mentions(fault_of({1, 32, 0},
                          [](simt::Thread& ctx) {
                            if (ctx.thread() < 16) ctx.shuffle_xor(0xFFFFU, 1, 16);
                          }),
                 "reads lane"));
}

TEST_CASE("an unwritten shared value is NaN, also in the second block") {
  std::vector<float> out(2);
  simt::launch("stale", {2, 1, 0}, Order::forward, [&](simt::Thread& ctx) {
    TWEEDIE_SHARED(float, tile, 1);
    out[static_cast<std::size_t>(ctx.block())] = tile[0];
    tile[0] = 1;
  });
  CHECK(std::isnan(out[0]));
  CHECK(std::isnan(out[1]));  // stale shared memory does not reach the next block
}

#ifndef TWEEDIE_SIMT_ASAN  // AddressSanitizer ends the process at the access itself
TEST_CASE("an off-by-one tile and a write before an array hit the red zones") {
  CHECK(mentions(fault_of({1, 33, 0},
                          [](simt::Thread& ctx) {
                            TWEEDIE_SHARED(float, tile, 32);
                            tile[ctx.thread()] = 0;
                          }),
                 "wrote 128 bytes from the start of a shared array of 128 bytes"));
  CHECK(mentions(fault_of({1, 1, 64}, [](simt::Thread& ctx) { ctx.dynamic_shared<float>()[-1] = 0; }), "wrote -4 bytes"));
}
#endif

TEST_CASE("order dependence shows: the last writer differs") {
  std::vector<float> out(1), seen;
  for (const Order order : simt::kAllOrders) {
    simt::launch("race", {1, 64, 0}, order, [&](simt::Thread& ctx) { out[0] = static_cast<float>(ctx.thread()); });
    seen.push_back(out[0]);
  }
  CHECK(seen[0] == 63);
  CHECK(seen[1] == 0);
}

TEST_CASE("shuffles and votes, full and ragged warps") {
  for (const Order order : simt::kAllOrders) {
    simt::launch("warp", {2, 40, 0}, order, [](simt::Thread& ctx) {
      const int lane = ctx.lane(), width = ctx.thread() < 32 ? 32 : 8;
      const unsigned mask = width == 32 ? ~0U : 0xFFU;
      if (ctx.shuffle(mask, lane * 3, 5) != 15) ctx.fault("shuffle");
      if (ctx.shuffle_xor(mask, lane, 1) != (lane ^ 1)) ctx.fault("shuffle_xor");
      if (ctx.shuffle_up(mask, lane, 2) != (lane >= 2 ? lane - 2 : lane)) ctx.fault("shuffle_up");
      if (width == 32 && ctx.shuffle_down(mask, lane, 4) != (lane < 28 ? lane + 4 : lane)) ctx.fault("shuffle_down");
      if (ctx.ballot(mask, lane % 2 == 0) != (0x55555555U & mask)) ctx.fault("ballot");
      if (!ctx.any(mask, lane == 0) || ctx.all(mask, lane == 0) || !ctx.all(mask, true)) ctx.fault("any, all");
    });
  }
}

TEST_CASE("launch shapes that no device takes are refused") {
  const auto nothing = [](simt::Thread&) {};
  CHECK_THROWS_AS(simt::launch("k", {0, 32, 0}, Order::forward, nothing), UsageError);
  CHECK_THROWS_AS(simt::launch("k", {1, 1025, 0}, Order::forward, nothing), UsageError);
  CHECK_THROWS_AS(simt::launch("k", {1, 32, 228 * 1024}, Order::forward, nothing), UsageError);
}
