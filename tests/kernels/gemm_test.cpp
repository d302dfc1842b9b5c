// gemm_test.cpp - gemm on every target against the reference in long double, its bits, and what it refuses.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/reference/gemm.h"
#include "kernels_testing.h"
#include "tweedie/core/check.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

/// A matrix in memory that ends with its last element, `skew` elements off the alignment, padding columns of NaN.
template <class T>
struct Stored {
  Index rows, cols, ld, skew;
  std::vector<T> memory;

  Stored(Index r, Index c, Index padding, Index offset, std::uint64_t seed) : rows(r), cols(c), ld(c + padding), skew(offset) {
    memory.assign(static_cast<std::size_t>(skew + (rows > 0 ? (rows - 1) * ld + cols : 0)), kNaN<T>);
    Uniform next(seed);
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) data()[i * ld + j] = static_cast<T>(next());
    }
  }
  T* data() { return memory.data() + skew; }
  const T* data() const { return memory.data() + skew; }
  std::vector<long double> wide(bool magnitude) const {
    std::vector<long double> x(memory.begin() + skew, memory.end());
    for (long double& value : x) value = magnitude ? std::fabs(value) : value;
    return x;
  }
};

struct Case {
  Index m, n, k;
  bool transpose_a, transpose_b;
  float beta;
};

/// gemm against the reference in long double (whose own error is 2^-11 of the double bound, or less), on every target.
template <class T>
void compare(const Case& t, Index padding, Index skew) {
  CAPTURE(t.m);
  CAPTURE(t.n);
  CAPTURE(t.k);
  CAPTURE(t.transpose_a);
  CAPTURE(t.transpose_b);
  CAPTURE(t.beta);
  CAPTURE(sizeof(T));
  const GemmShape shape = {t.m, t.n, t.k, t.transpose_a, t.transpose_b, t.beta};
  const Stored<T> a(t.transpose_a ? t.k : t.m, t.transpose_a ? t.m : t.k, padding, skew, 1);
  const Stored<T> b(t.transpose_b ? t.n : t.k, t.transpose_b ? t.k : t.n, padding, skew, 2);
  Stored<T> before(t.m, t.n, padding, skew, 3);
  if (t.beta == 0) std::fill(before.memory.begin(), before.memory.end(), kNaN<T>);  // must not be read

  std::vector<long double> expected = before.wide(false), magnitude = before.wide(true);
  reference::gemm<long double>(shape, a.wide(false).data(), a.ld, b.wide(false).data(), b.ld, expected.data(), before.ld);
  reference::gemm<long double>(shape, a.wide(true).data(), a.ld, b.wide(true).data(), b.ld, magnitude.data(), before.ld);

  on_every_target([&] {
    Stored<T> c = before;
    gemm(shape, a.data(), a.ld, b.data(), b.ld, c.data(), c.ld);
    const double bound = static_cast<double>(t.k + 2) * kUnit<T>;
    double worst = 0;
    bool padding_kept = true;
    for (Index i = 0; i < static_cast<Index>(c.memory.size()) - skew; ++i) {
      const auto e = static_cast<std::size_t>(i);
      if (i % c.ld >= t.n) {
        padding_kept = padding_kept && std::isnan(c.data()[i]);
        continue;
      }
      const double error = static_cast<double>(std::fabs(c.data()[i] - expected[e]));
      const double allowed = bound * static_cast<double>(magnitude[e]);
      if (!(error <= allowed)) worst = std::max(worst, std::isnan(error) ? HUGE_VAL : error / allowed);
    }
    CHECK_MESSAGE(worst == 0, "error is ", worst, " times the bound");
    CHECK(padding_kept);
  });
}

void compare_both(Index m, Index n, Index k, Index padding, Index skew) {
  for (int bits = 0; bits < 8; ++bits) {
    const Case t = {m, n, k, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0 ? 1.f : 0.f};
    compare<float>(t, padding, skew);
    compare<double>(t, padding, skew);
  }
}

}  // namespace

TEST_CASE("gemm matches the reference: every size, transpose and beta") {
  for (const Index m : kSizes) {
    for (const Index n : kSizes) {
      for (const Index k : kSizes) compare_both(m, n, k, (m + n) % 2, k % 3);
    }
  }
}

TEST_CASE("gemm matches the reference: blocks of K, tasks, thin and wide shapes") {
  const Index shapes[][3] = {{257, 255, 256}, {513, 64, 65}, {64, 513, 65},  {65, 64, 513}, {1, 513, 513},
                             {513, 1, 513},   {513, 513, 1}, {10, 256, 256}, {300, 2, 257}, {2, 300, 513}};
  for (const auto& s : shapes) compare_both(s[0], s[1], s[2], 3, 1);
}

TEST_CASE("gemm in pieces of B: the result is that of one piece") {
  // B's packed part is bounded by 2^20 elements; columns and K both go beyond it here.
  compare<float>({3, 4200, 300, false, true, 1.f}, 0, 0);
  compare<float>({20, 256, 4500, true, false, 0.f}, 0, 0);
}

TEST_CASE_TEMPLATE("a row's and a column's bits depend neither on the batch, nor on its cut, nor on threads", T, float, double) {
  const Index rows = 300;
  const Index shapes[][2] = {{256, 300}, {2, 256}, {33, 2}, {1, 513}};  // n, k
  on_every_target([&] {
    for (const auto& s : shapes) {
      const Index n = s[0], k = s[1];
      CAPTURE(n);
      CAPTURE(k);
      for (const bool transpose_b : {false, true}) {
        const std::vector<T> a = uniform<T>(rows * k, 4), b = uniform<T>(n * k, 5);
        const Index ldb = transpose_b ? k : n;
        const auto product = [&](Index cut_rows, Index cut_cols) {
          std::vector<T> c(static_cast<std::size_t>(rows * n), kNaN<T>);
          for (Index i = 0; i < rows; i += cut_rows) {
            for (Index j = 0; j < n; j += cut_cols) {
              const GemmShape shape = {std::min(cut_rows, rows - i), std::min(cut_cols, n - j), k, false, transpose_b, 0};
              gemm(shape, a.data() + i * k, k, b.data() + (transpose_b ? j * k : j), ldb, c.data() + i * n + j, n);
            }
          }
          return c;
        };
        set_threads(1);
        const std::vector<T> whole = product(rows, n);
        for (const int count : {1, 2, 4}) {
          CAPTURE(count);
          set_threads(count);
          CHECK(same_bits(product(rows, n), whole));
          for (const Index cut : {1, 7, 64}) CHECK(same_bits(product(cut, n), whole));
          CHECK(same_bits(product(rows, 17), whole));
          CHECK(same_bits(product(64, 1), whole));
        }
      }
    }
  });
  set_threads(0);
}

TEST_CASE_TEMPLATE("products that call each other's threads agree: many callers at once", T, float, double) {
  const Index n = 96;
  const std::vector<T> a = uniform<T>(n * n, 6), b = uniform<T>(n * n, 7);
  std::vector<T> whole(static_cast<std::size_t>(n * n));
  gemm(GemmShape{n, n, n, false, true, 0}, a.data(), n, b.data(), n, whole.data(), n);
  set_threads(4);
  std::vector<std::vector<T>> results(16, std::vector<T>(static_cast<std::size_t>(n * n), kNaN<T>));
  parallel_for(16, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      gemm(GemmShape{n, n, n, false, true, 0}, a.data(), n, b.data(), n, results[static_cast<std::size_t>(i)].data(), n);
    }
  });
  set_threads(0);
  for (const auto& result : results) CHECK(same_bits(result, whole));
}

TEST_CASE_TEMPLATE("an infinity or NaN stays in its row and column", T, float, double) {
  const Index m = 19, n = 37, k = 21;
  std::vector<T> a = uniform<T>(m * k, 8), b = uniform<T>(k * n, 9);
  a[5 * k + 20] = kNaN<T>;
  b[3 * n + 36] = std::numeric_limits<T>::infinity();
  on_every_target([&] {
    std::vector<T> c(static_cast<std::size_t>(m * n));
    gemm(GemmShape{m, n, k}, a.data(), k, b.data(), n, c.data(), n);
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        const T value = c[static_cast<std::size_t>(i * n + j)];
        CHECK(std::isnan(value) == (i == 5));
        CHECK(std::isinf(value) == (i != 5 && j == 36));
      }
    }
  });
}

TEST_CASE("gemm refuses what it cannot mean") {
  float x[64] = {};
  const auto call = [&](const GemmShape& s, Index lda, Index ldb, Index ldc) { gemm(s, x, lda, x, ldb, x, ldc); };
  CHECK_NOTHROW(call({0, 0, 0}, 0, 0, 0));
  CHECK_THROWS_AS(call({-1, 2, 2}, 2, 2, 2), UsageError);
  CHECK_THROWS_AS(call({2, -1, 2}, 2, 2, 2), UsageError);
  CHECK_THROWS_AS(call({2, 2, -1}, 2, 2, 2), UsageError);
  CHECK_THROWS_AS(call({2, 2, 2, false, false, .5f}, 2, 2, 2), UsageError);
  CHECK_THROWS_AS(call({2, 2, 2, false, false, kNaN<float>}, 2, 2, 2), UsageError);
  CHECK_THROWS_AS(call({2, 3, 4}, 3, 3, 3), UsageError);
  CHECK_THROWS_AS(call({2, 3, 4}, 4, 2, 3), UsageError);
  CHECK_THROWS_AS(call({2, 3, 4}, 4, 3, 2), UsageError);
  CHECK_THROWS_AS(call({2, 3, 4, true, false}, 1, 3, 3), UsageError);
  CHECK_THROWS_AS(call({2, 3, 4, false, true}, 4, 3, 3), UsageError);
  CHECK_THROWS_WITH_AS(call({2, 3, 4}, 3, 3, 3), "gemm: lda = 3 is less than the 4 columns of A", UsageError);
}
