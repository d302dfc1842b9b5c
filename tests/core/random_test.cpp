// Random streams: accuracy and bits of the normals, their laws, independence, and that each draw is a pure function.
//
// Thresholds are two-sided tails of 1e-6 for a single check: 4.9 standard errors for a mean, sqrt(ln(2e6) / 2n) for a
// Kolmogorov-Smirnov distance (Dvoretzky-Kiefer-Wolfowitz with Massart's constant, exact for every n).
// SPDX-License-Identifier: MIT
// normals.h is called here directly and must not be contracted (the library's own files have the flag).
#ifdef __clang__
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include "tweedie/core/random.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <set>
#include <vector>

#include "tweedie/core/detail/normal_kernels.h"
#include "tweedie/core/normals.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

constexpr double kTail = 4.9;

Matrix draw(const Rng& rng, Index rows, Index cols, std::uint32_t step = 0, std::uint32_t sub_draw = 0,
            Purpose purpose = Purpose::user) {
  Matrix z(rows, cols);
  rng.normals(purpose, step, 0, z.view(), sub_draw);
  return z;
}

double correlation(const Matrix& a, const Matrix& b) {
  double ab = 0, aa = 0, bb = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.data()[i], y = b.data()[i];
    ab += x * y, aa += x * x, bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

/// sup |F_n - F| of sorted values that `cdf` should make uniform.
template <class Cdf>
double ks_distance(std::vector<double> values, Cdf cdf) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double d = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double f = cdf(values[i]);
    d = std::max({d, f - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - f});
  }
  return d;
}
double ks_limit(std::size_t n) { return std::sqrt(std::log(2e6) / (2.0 * static_cast<double>(n))); }

double ulps(double found, double exact) {
  if (exact == 0) return found == 0 ? 0 : HUGE_VAL;
  return std::abs(found - exact) / std::ldexp(1.0, std::ilogb(exact) - 23);
}

double exact_radius(std::uint32_t word) {
  const double complement = static_cast<double>(~word) * 0x1p-32;  // 1 - u
  return std::sqrt(-2.0 * std::log1p(-complement));
}

}  // namespace

TEST_CASE("radius and direction are within 1.9 and 2.8 ULP of double over the words") {
  double worst_radius = 0, worst_direction = 0;
  const auto check_word = [&](std::uint32_t word) {
    worst_radius = std::max(worst_radius, ulps(detail::normal_radius<detail::OneLane>(word), exact_radius(word)));
    float c, s;
    detail::normal_direction<detail::OneLane>(word, c, s);
    // Turn by turn of a quarter, so that the reference has no error of its own next to its zeros.
    const std::uint32_t turn = word + 1, quadrant = (turn + 0x20000000U) >> 30;
    const double x = static_cast<double>(static_cast<std::int32_t>(turn - (quadrant << 30))) * 0x1p-31 * std::numbers::pi;
    double ec = std::cos(x), es = std::sin(x);
    for (std::uint32_t q = 0; q < quadrant; ++q) {
      const double old = ec;
      ec = -es, es = old;
    }
    worst_direction = std::max({worst_direction, ulps(c, ec), ulps(s, es)});
  };
  for (std::uint64_t w = 0; w < (std::uint64_t{1} << 32); w += 4093) check_word(static_cast<std::uint32_t>(w));
  for (std::uint32_t k = 0; k < 5000; ++k) {
    for (const std::uint32_t edge : {0U, 0x40000000U, 0x80000000U, 0xb504f333U, 0xc0000000U, 0x20000000U}) {
      check_word(edge + k);
      check_word(edge - k);
    }
  }
  CHECK(worst_radius <= 1.9);
  CHECK(worst_direction <= 2.8);
  MESSAGE("worst radius " << worst_radius << " ULP, direction " << worst_direction << " ULP");
}

TEST_CASE("the ends of the words: u = 1 gives radius 0, u = 2^-32 the largest normal") {
  CHECK(detail::normal_radius<detail::OneLane>(0xffffffffU) == 0.0F);
  CHECK(detail::normal_radius<detail::OneLane>(0xfffffffeU) == doctest::Approx(std::sqrt(0x1p-31)).epsilon(1e-6));
  CHECK(detail::normal_radius<detail::OneLane>(0) == doctest::Approx(std::sqrt(64 * std::numbers::ln2)).epsilon(1e-6));
  float c, s;
  detail::normal_direction<detail::OneLane>(0xffffffffU, c, s);
  CHECK(c == 1.0F);
  CHECK(s == 0.0F);
}

TEST_CASE("normals have the committed bits, whatever the compiler and the instruction set") {
  const std::uint32_t golden[6][7] = {
#include "normals_golden.inc"
  };
  Matrix z(6, 7);
  Rng{0x0123456789abcdef}.normals(Purpose::langevin, 99, (std::uint64_t{1} << 33) + 5, z.view(), 3);
  for (Index r = 0; r < 6; ++r) {
    for (Index c = 0; c < 7; ++c) CHECK(std::bit_cast<std::uint32_t>(z(r, c)) == golden[r][c]);
  }
}

TEST_CASE("the vector kernels and the scalar algorithm agree in every bit") {
  const Rng rng{17};
  for (const Index cols : {1, 2, 3, 4, 5, 8, 17, 64}) {
    const Matrix z = draw(rng, 300, cols, 5, 6);
    Index different = 0;
    for (Index r = 0; r < z.rows(); ++r) {
      for (Index c = 0; c < cols; ++c) {
        std::uint32_t w[4];
        rng.words(Purpose::user, 5, static_cast<std::uint64_t>(r), static_cast<std::uint32_t>(c / 4), 6, w);
        float a, b;
        detail::normal_pair(w[(c % 4) / 2 * 2], w[(c % 4) / 2 * 2 + 1], a, b);
        different += std::bit_cast<std::uint32_t>(z(r, c)) != std::bit_cast<std::uint32_t>(c % 2 == 0 ? a : b);
      }
    }
    CHECK(different == 0);
  }
}

TEST_CASE("the kernels of every instruction set agree in every bit") {
  constexpr int kCount = 256;
  std::vector<std::uint32_t> row(kCount), block(kCount);
  for (std::uint32_t i = 0; i < kCount; ++i) row[i] = i * 2654435761U, block[i] = i % 5;
  std::vector<detail::NormalKernel> kernels{detail::normals_portable};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(detail::normals_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    kernels.push_back(detail::normals_avx512);
  }
#endif
  for (const detail::NormalKernel kernel : kernels) {
    for (const int count : {16, 240, kCount}) {
      for (const int pairs : {1, 2}) {
        std::vector<float> z(4 * kCount, -77.0F);
        kernel(row.data(), 9, block.data(), 0x05000001, 0xfedcba9876543210, count, pairs, z.data());
        int different = 0;
        for (int i = 0; i < count; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const PhiloxWords w = philox4x32({{row[at], 9, block[at], 0x05000001}}, 0xfedcba9876543210);
          for (int k = 0; k < 2 * pairs; k += 2) {
            float a, b;
            detail::normal_pair(w.v[k], w.v[k + 1], a, b);
            const float* const pair = &z[at * static_cast<std::size_t>(2 * pairs) + static_cast<std::size_t>(k)];
            different += pair[0] != a || pair[1] != b;
          }
        }
        const auto outside = std::count_if(z.begin() + 2 * pairs * count, z.end(), [](float x) { return x != -77.0F; });
        CHECK(different == 0);
        CHECK(outside == 0);
      }
    }
  }
}

TEST_CASE("any cut of the rows, any stride, any number of threads gives the same normals") {
  const Rng rng{3};
  for (const Index cols : {1, 2, 3, 5, 33}) {
    const Index rows = 40000 / cols;
    set_threads(1);
    const Matrix whole = draw(rng, rows, cols);
    set_threads(4);
    CHECK(std::equal(whole.data(), whole.data() + whole.size(), draw(rng, rows, cols).data()));
    set_threads(0);
    Matrix wide(rows, cols + 3);
    for (Index i = 0; i < wide.size(); ++i) wide.data()[i] = -77.0F;
    const Rows<float> strided = wide.view().middle_cols(1, cols);
    for (Index first = 0, step = 1; first < rows; first += step, step = step * 3 % 1009) {
      rng.normals(Purpose::user, 0, static_cast<std::uint64_t>(first), strided.middle_rows(first, std::min(step, rows - first)));
    }
    Index different = 0, overwritten = 0;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c) different += strided(r, c) != whole(r, c);
      overwritten += wide(r, 0) != -77.0F || wide(r, cols + 1) != -77.0F || wide(r, cols + 2) != -77.0F;
    }
    CHECK(different == 0);
    CHECK(overwritten == 0);
  }
}

TEST_CASE("double holds the float's normals; uniforms are the words, rounded") {
  const Rng rng{5};
  MatrixD wide(50, 6);
  rng.normals(Purpose::user, 1, 10, wide.view());
  Matrix z(50, 6), u(50, 6);
  rng.normals(Purpose::user, 1, 10, z.view());
  MatrixD v(50, 6);
  rng.uniforms(Purpose::user, 1, 10, v.view());
  rng.uniforms(Purpose::user, 1, 10, u.view());
  for (Index r = 0; r < 50; ++r) {
    for (Index c = 0; c < 6; ++c) {
      CHECK(wide(r, c) == static_cast<double>(z(r, c)));
      std::uint32_t w[4];
      rng.words(Purpose::user, 1, static_cast<std::uint64_t>(10 + r), static_cast<std::uint32_t>(c / 4), 0, w);
      CHECK(v(r, c) == (static_cast<double>(w[c % 4]) + 1) * 0x1p-32);
      CHECK(u(r, c) == static_cast<float>(v(r, c)));
    }
  }
}

TEST_CASE("normals have the moments and the law of N(0, 1)") {
  for (const Index cols : {1, 2, 3, 4, 64}) {
    const Matrix z = draw(Rng{11}, 400000 / cols, cols);
    const auto n = static_cast<double>(z.size());
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    std::vector<double> values(z.data(), z.data() + z.size());
    for (const double x : values) m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    CHECK(std::abs(m1 / n) < kTail * std::sqrt(1 / n));
    CHECK(std::abs(m2 / n - 1) < kTail * std::sqrt(2 / n));
    CHECK(std::abs(m3 / n) < kTail * std::sqrt(15 / n));
    CHECK(std::abs(m4 / n - 3) < kTail * std::sqrt(96 / n));
    CHECK(ks_distance(values, [](double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }) < ks_limit(values.size()));
  }
}

TEST_CASE("the tail beyond 4 has its probability") {
  const Matrix z = draw(Rng{12}, 1000000, 4);
  const double n = static_cast<double>(z.size()), p = std::erfc(4 / std::numbers::sqrt2);
  const auto found = static_cast<double>(std::count_if(z.data(), z.data() + z.size(), [](float x) { return std::abs(x) > 4; }));
  CHECK(std::abs(found - n * p) < kTail * std::sqrt(n * p));
}

TEST_CASE("rows, steps, sub-draws, purposes, columns and streams are uncorrelated, and so are their squares") {
  const Index rows = 50000;
  const Rng rng{21};
  Rng parent{21};
  const Rng child = parent.split(), second = parent.split();
  const auto base = [&] { return draw(rng, rows, 4); };
  Matrix shifted(rows, 4);
  rng.normals(Purpose::user, 0, 1, shifted.view());
  Matrix columns(rows, 8);
  rng.normals(Purpose::user, 0, 0, columns.view());
  Matrix later(rows, 4);
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < 4; ++c) later(r, c) = columns(r, c + 4);
  }
  std::vector<Matrix> others;
  others.push_back(shifted);
  others.push_back(later);
  others.push_back(draw(rng, rows, 4, 1));
  others.push_back(draw(rng, rows, 4, 0x80000000U));
  others.push_back(draw(rng, rows, 4, 0, 1));
  others.push_back(draw(rng, rows, 4, 0, 0, Purpose::langevin));
  others.push_back(draw(Rng{22}, rows, 4));
  others.push_back(draw(child, rows, 4));
  others.push_back(draw(second, rows, 4));
  const double limit = kTail / std::sqrt(4.0 * static_cast<double>(rows));
  const auto squares = [](Matrix m) {
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = m.data()[i] * m.data()[i] - 1;
    return m;
  };
  for (const Matrix& other : others) {
    CHECK(std::abs(correlation(base(), other)) < limit);
    // The product of squares has heavy tails; its correlation is still asymptotically N(0, 1/n).
    CHECK(std::abs(correlation(squares(base()), squares(other))) < limit);
  }
  CHECK(std::abs(correlation(draw(child, rows, 4), draw(second, rows, 4))) < limit);
  // Within a block: cosine and sine of one radius.
  Matrix even(rows, 1), odd(rows, 1), third(rows, 1);
  const Matrix z = base();
  for (Index r = 0; r < rows; ++r) even(r, 0) = z(r, 0), odd(r, 0) = z(r, 1), third(r, 0) = z(r, 2);
  const double single = kTail / std::sqrt(static_cast<double>(rows));
  CHECK(std::abs(correlation(even, odd)) < single);
  CHECK(std::abs(correlation(squares(even), squares(odd))) < single);
  CHECK(std::abs(correlation(even, third)) < single);
}

TEST_CASE("split gives distinct streams and continues from a stored position") {
  Rng rng{42};
  std::set<std::uint64_t> keys{rng.key()};
  for (int i = 0; i < 1000; ++i) keys.insert(rng.split().key());
  CHECK(keys.size() == 1001);
  CHECK(rng.splits() == 1000);
  Rng stored{rng.key(), rng.splits()};
  CHECK(stored.split().key() == rng.split().key());
  Rng a{42}, b{42};
  CHECK(a.split().key() == b.split().key());
  CHECK(Rng{42}.split().split().key() != Rng{42}.split().key());
}

TEST_CASE("integer is uniform for small and large n") {
  const Rng rng{8};
  for (const std::uint64_t n : {1ULL, 2ULL, 3ULL, 10ULL, 1000ULL}) {
    const std::uint64_t draws = 100000;
    std::vector<double> count(n);
    for (std::uint64_t i = 0; i < draws; ++i) count.at(rng.integer(Purpose::row, 0, i, n)) += 1;
    const double expected = static_cast<double>(draws) / static_cast<double>(n);
    double chi2 = 0;
    for (const double c : count) chi2 += (c - expected) * (c - expected) / expected;
    // Wilson and Hilferty: the cube root of chi2 / k is nearly N(1 - 2 / 9k, 2 / 9k).
    const auto k = static_cast<double>(n - 1);
    if (n == 1) {
      CHECK(chi2 == 0);
    } else {
      CHECK((std::cbrt(chi2 / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k)) < kTail);
    }
  }
  // With n = 3 2^62 a plain remainder would fall below 2^62 half of the time instead of a third, and a quarter of the words is
  // refused.
  const std::uint64_t n = std::uint64_t{3} << 62;
  double low = 0;
  for (std::uint64_t i = 0; i < 30000; ++i) {
    const std::uint64_t x = rng.integer(Purpose::row, 1, i, n);
    CHECK_MESSAGE(x < n, i);
    low += x < (std::uint64_t{1} << 62);
  }
  CHECK(std::abs(low - 10000) < kTail * std::sqrt(30000.0 * 2 / 9));
  CHECK_THROWS_AS(rng.integer(Purpose::row, 0, 0, 0), UsageError);
}

TEST_CASE("uniform and uniforms are uniform on (0, 1]") {
  const Rng rng{9};
  std::vector<double> scalar(50000);
  for (std::size_t i = 0; i < scalar.size(); ++i) {
    scalar[i] = rng.uniform(Purpose::accept, 0, i);
    REQUIRE((scalar[i] > 0 && scalar[i] <= 1));
  }
  CHECK(ks_distance(scalar, [](double x) { return x; }) < ks_limit(scalar.size()));
  // All 53 bits are used: the last ones are as often odd as even.
  double odd = 0;
  for (const double u : scalar) odd += std::fmod(u * 0x1p53, 2.0);
  CHECK(std::abs(odd - 25000) < kTail * std::sqrt(12500.0));
  MatrixD u(10000, 5);
  rng.uniforms(Purpose::level, 0, 0, u.view());
  CHECK(ks_distance({u.data(), u.data() + u.size()}, [](double x) { return x; }) < ks_limit(50000));
}

TEST_CASE("a permutation is a bijection and epochs differ") {
  const Rng rng{10};
  for (const std::uint64_t n : {1ULL, 2ULL, 3ULL, 4ULL, 10ULL, 16ULL, 1000ULL, 65537ULL}) {
    const Permutation first(rng, 0, n), next(rng, 1, n);
    std::vector<char> seen(n, 0);
    std::uint64_t same = 0, fixed = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t to = first(i);
      REQUIRE(to < n);
      CHECK_MESSAGE(!seen[to], n, " ", i);
      seen[to] = 1;
      same += to == next(i);
      fixed += to == i;
    }
    // Matches of two random permutations are nearly Poisson(1): more than 15 have probability below 1e-13.
    if (n >= 1000) {
      CHECK(same <= 15);
      CHECK(fixed <= 15);
    }
    CHECK_THROWS_AS(first(n), UsageError);
  }
  CHECK_THROWS_AS(Permutation(rng, 0, 0), UsageError);
}

TEST_CASE("many positions of a permutation at once: the same elements, on every instruction set") {
  const Rng rng{12};
  for (const std::uint64_t n : {1ULL, 3ULL, 17ULL, 300ULL, 1025ULL, 5000000000ULL}) {
    const Permutation permutation(rng, 7, n);
    for (const std::uint64_t count : {0ULL, 1ULL, 15ULL, 256ULL, 700ULL}) {
      std::vector<std::uint64_t> positions(count), expected;
      for (std::uint64_t i = 0; i < count; ++i) positions[i] = i * 77777777777ULL % n;  // repeats among them, no matter
      for (const std::uint64_t p : positions) expected.push_back(permutation(p));
      permutation.apply(positions);
      CHECK(positions == expected);
    }
    std::vector<std::uint64_t> outside{n};
    CHECK_THROWS_AS(permutation.apply(outside), UsageError);
  }
  std::vector<detail::WordKernel> kernels = {detail::words_portable};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) kernels.push_back(detail::words_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) kernels.push_back(detail::words_avx512);
#endif
  for (const detail::WordKernel kernel : kernels) {
    std::uint32_t c0[48], word[48];
    for (std::uint32_t i = 0; i < 48; ++i) c0[i] = i * 2654435761U;
    kernel(c0, 1, 2, 3, 0x123456789ABCDEFULL, 48, word);
    for (int i = 0; i < 48; ++i) CHECK(word[i] == philox4x32({{c0[i], 1, 2, 3}}, 0x123456789ABCDEFULL).v[0]);
  }
}

TEST_CASE("over the epochs each order of three and each place of ten is equally likely") {
  const Rng rng{13};
  const int epochs = 12000;
  double orders[27] = {}, places[10][10] = {};
  for (int e = 0; e < epochs; ++e) {
    const Permutation three(rng, static_cast<std::uint32_t>(e), 3), ten(rng, static_cast<std::uint32_t>(e), 10);
    orders[9 * three(0) + 3 * three(1) + three(2)] += 1;
    for (std::uint64_t i = 0; i < 10; ++i) places[i][ten(i)] += 1;
  }
  for (const int code : {5, 7, 11, 15, 19, 21}) {  // 012, 021, 102, 120, 201, 210 in base three
    CHECK(std::abs(orders[code] - epochs / 6.0) < kTail * std::sqrt(epochs * 5.0 / 36));
  }
  for (const auto& row : places) {
    for (const double count : row) CHECK(std::abs(count - epochs / 10.0) < 5.7 * std::sqrt(epochs * 0.09));  // 1e-8 each, of 100
  }
}

TEST_CASE("arguments that do not fit the counter are refused; no rows or columns is no work") {
  const Rng rng{1};
  Matrix z(2, 2);
  const std::uint64_t limit = std::uint64_t{1} << 44;
  CHECK_THROWS_AS(rng.normals(Purpose::user, 0, limit, z.view()), UsageError);
  CHECK_THROWS_AS(rng.normals(Purpose::user, 0, limit - 1, z.view()), UsageError);
  CHECK_NOTHROW(rng.normals(Purpose::user, 0, limit - 2, z.view()));
  CHECK_THROWS_AS(rng.normals(Purpose::user, 0, 0, z.view(), 1U << 24), UsageError);
  CHECK_THROWS_AS(rng.uniforms(Purpose::user, 0, limit - 1, z.view()), UsageError);
  float one = 0;
  CHECK_THROWS_AS(rng.normals(Purpose::user, 0, 0, Rows<float>(&one, 1, (Index{1} << 22) + 1)), UsageError);
  std::uint32_t w[4];
  CHECK_THROWS_AS(rng.words(Purpose::user, 0, limit, 0, 0, w), UsageError);
  CHECK_THROWS_AS(rng.words(Purpose::user, 0, 0, 1U << 20, 0, w), UsageError);
  CHECK_NOTHROW(rng.normals(Purpose::user, 0, 0, Rows<float>(nullptr, 0, 3)));
  CHECK_NOTHROW(rng.normals(Purpose::user, 0, 0, Rows<float>(nullptr, 3, 0)));
}
