// Distances between sample sets against closed forms and naive sums in double; tests' decisions under the null and shifted.
//
// Tolerances: a distance of two rows has a relative error of at most (D / 2 + 2) u in float, u = 2^-24, so a mean of distances
// agrees with the naive one in double within (D / 2 + 2) u times itself; kPair(D) below doubles that.
// SPDX-License-Identifier: MIT
#include "tweedie/core/statistics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <vector>

#include "tweedie/core/detail/pair_kernels.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

Matrix normals(std::uint64_t seed, Index rows, Index cols, float shift = 0, float scale = 1) {
  Matrix x(rows, cols);
  Rng{seed}.normals(Purpose::user, 0, 0, x.view());
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) x(r, c) = scale * x(r, c) + (c == 0 ? shift : 0.0F);
  }
  return x;
}

double kPair(Index dim) { return static_cast<double>(dim + 4) * 0x1p-24; }

double naive_distance(ConstRows<float> x, Index i, ConstRows<float> y, Index j) {
  double square = 0;
  for (Index d = 0; d < x.cols(); ++d) square += std::pow(static_cast<double>(x(i, d)) - static_cast<double>(y(j, d)), 2);
  return std::sqrt(square);
}

double naive_mean(ConstRows<float> x, ConstRows<float> y, bool skip_same, const std::function<double(double)>& f) {
  double sum = 0;
  Index count = 0;
  for (Index i = 0; i < x.rows(); ++i) {
    for (Index j = 0; j < y.rows(); ++j) {
      if (skip_same && i == j) continue;
      sum += f(naive_distance(x, i, y, j));
      ++count;
    }
  }
  return sum / static_cast<double>(count);
}

double naive_energy(ConstRows<float> x, ConstRows<float> y, bool distinct) {
  const auto same = [](double d) { return d; };
  return 2 * naive_mean(x, y, false, same) - naive_mean(x, x, distinct, same) - naive_mean(y, y, distinct, same);
}

std::span<const float> span_of(const Matrix& m) { return {m.data(), static_cast<std::size_t>(m.size())}; }

}  // namespace

TEST_CASE("the tile kernels of every instruction set agree with plain loops in double") {
  std::vector<const detail::PairKernels*> versions{&detail::pair_kernels_portable()};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) versions.push_back(&detail::pair_kernels_avx2());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    versions.push_back(&detail::pair_kernels_avx512());
  }
#endif
  constexpr Index kTile = detail::kPairTile, kLanes = detail::kSignLanes;
  const Matrix a = normals(40, 2 * kTile, kLanes), b = normals(41, 2 * kTile, kLanes);  // two panels of labels
  for (const detail::PairKernels* kernels : versions) {
    for (const Index dim : {1, 3, 16}) {
      for (const Index rows : {1, 5, 64}) {
        const Matrix x = normals(42, rows, dim + 2), y = normals(43, kTile, dim);
        Matrix yt(dim, kTile);
        for (Index d = 0; d < dim; ++d) {
          for (Index j = 0; j < kTile; ++j) yt(d, j) = y(j, d);
        }
        Matrix squared(kTile, kTile);
        kernels->squared_distances(x.data(), dim + 2, rows, yt.data(), dim, squared.data());
        Matrix root = squared, gauss = squared;
        kernels->square_root(root.data(), rows);
        kernels->gaussian(gauss.data(), rows, 0.7F);
        std::vector<float> lowest(static_cast<std::size_t>(rows), 1.0F);
        kernels->lowest(squared.data(), rows, lowest.data());
        double sum = 0, worst = 0;
        bool lowest_right = true;
        for (Index i = 0; i < rows; ++i) {
          float low = 1.0F;
          for (Index j = 0; j < kTile; ++j) {
            const double d = naive_distance(x.view().middle_cols(0, dim), i, y, j), s = static_cast<double>(squared(i, j));
            worst = std::max(worst, std::abs(s / (d * d) - 1) / (2 * kPair(dim)));
            worst = std::max(worst, std::abs(static_cast<double>(root(i, j)) / std::sqrt(s) - 1) / 0x1p-24);
            // The argument 0.7 s is rounded (u), as are n ln 2 - t (u ln 2 / 2 each) and the polynomial: 4 u + u t.
            worst = std::max(worst, std::abs(static_cast<double>(gauss(i, j)) / std::exp(-static_cast<double>(0.7F) * s) - 1) /
                                        ((4 + s) * 0x1p-24));
            low = std::min(low, squared(i, j));
            if (j < 61) sum += static_cast<double>(root(i, j));
          }
          lowest_right = lowest_right && lowest[static_cast<std::size_t>(i)] == low;
        }
        CHECK(worst <= 1);
        CHECK(lowest_right);
        CHECK(kernels->sum(root.data(), rows, 61) == doctest::Approx(sum).epsilon(1e-13));

        for (Index i = rows; i < kTile; ++i) std::fill(root.row(i).begin(), root.row(i).end(), 0.0F);
        std::vector<double> sums(2 * kLanes, 1.0);
        kernels->signed_products(root.data(), a.data(), b.data(), 2, 0.5, sums.data());
        double error = 0;
        for (Index p = 0; p < 2; ++p) {
          for (Index l = 0; l < kLanes; ++l) {
            double expected = 0, size = 0;
            for (Index i = 0; i < kTile; ++i) {
              for (Index j = 0; j < kTile; ++j) {
                const double t = static_cast<double>(a(p * kTile + i, l)) * static_cast<double>(root(i, j)) *
                                 static_cast<double>(b(p * kTile + j, l));
                expected += t, size += std::abs(t);
              }
            }
            error = std::max(error, std::abs(sums[static_cast<std::size_t>(p * kLanes + l)] - (1 + 0.5 * expected)) / size);
          }
        }
        CHECK(error < 0.5 * 66 * 0x1p-24);  // 64 additions, the products, the label
      }
    }
    // The Gaussian's ends: 1 at 0, nearly nothing far away, never NaN.
    Matrix ends(1, kTile);
    ends(0, 1) = 1e30F;
    ends(0, 2) = std::numeric_limits<float>::infinity();
    kernels->gaussian(ends.data(), 1, 1.0F);
    CHECK(ends(0, 0) == 1.0F);
    CHECK(ends(0, 1) < 1e-37F);
    CHECK(ends(0, 2) < 1e-37F);
    CHECK(ends(0, 2) >= 0.0F);
  }
}

TEST_CASE("energy distance: the naive sums, for sizes about the tile and several dimensions") {
  for (const Index dim : {1, 2, 3, 17}) {
    for (const Index n : {1, 2, 63, 64, 65, 130}) {
      const Matrix x = normals(1, n, dim), y = normals(2, 71, dim, 0.5F);
      const double scale = 4 * naive_mean(x, y, false, [](double d) { return d; });
      CHECK(std::abs(energy_distance(x, y) - naive_energy(x, y, false)) < kPair(dim) * scale);
      if (n >= 2) CHECK(std::abs(energy_distance(x, y, PairMean::distinct) - naive_energy(x, y, true)) < kPair(dim) * scale);
    }
  }
}

TEST_CASE("energy distance: known values") {
  // Two points at distance 5.
  CHECK(energy_distance(Matrix{{0, 0}}, Matrix{{3, 4}}) == doctest::Approx(10).epsilon(1e-7));
  // {0, 2} and {1}: 2 * 1 - 1 - 0.
  CHECK(energy_distance(Matrix{{0}, {2}}, Matrix{{1}}) == doctest::Approx(1).epsilon(1e-7));
  // {0, 2} and {1, 3}, different pairs only: 2 (1 + 3 + 1 + 1) / 4 - 2 - 2.
  CHECK(energy_distance(Matrix{{0}, {2}}, Matrix{{1}, {3}}, PairMean::distinct) == doctest::Approx(-1).epsilon(1e-7));
  // A set and itself.
  const Matrix x = normals(3, 100, 2);
  CHECK(std::abs(energy_distance(x, x)) < kPair(2) * 4);
  // N(0, 1) and N(mu, 1): E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2), m = 1. The standard error of
  // a U-statistic at n = 20000 is below 2 sd(h) / sqrt(n) with sd(h) < 1.2.
  const double expected =
      2 * (2 / std::sqrt(std::numbers::pi) * std::exp(-0.25) + std::erf(0.5)) - 4 / std::sqrt(std::numbers::pi);
  const Matrix a = normals(4, 20000, 1), b = normals(5, 20000, 1, 1.0F);
  CHECK(std::abs(energy_distance(a, b, PairMean::distinct) - expected) < 4.9 * 2 * 1.2 / std::sqrt(20000.0));
}

TEST_CASE("energy distance: symmetric, free of the origin, linear in the unit, and blind to the order of the rows") {
  const Matrix x = normals(6, 150, 3), y = normals(7, 90, 3, 0.3F);
  const double e = energy_distance(x, y), tolerance = kPair(3) * 8;
  CHECK(std::abs(energy_distance(y, x) - e) < tolerance);
  Matrix big = x, big_y = y;
  for (Index i = 0; i < big.size(); ++i) big.data()[i] *= 1024;
  for (Index i = 0; i < big_y.size(); ++i) big_y.data()[i] *= 1024;
  CHECK(energy_distance(big, big_y) == doctest::Approx(1024 * e).epsilon(1e-12));
  Matrix reversed(150, 3);
  for (Index r = 0; r < 150; ++r) std::copy(x.row(r).begin(), x.row(r).end(), reversed.row(149 - r).begin());
  CHECK(std::abs(energy_distance(reversed, y) - e) < tolerance);
  // Views with a stride give the same bits as packed copies.
  Matrix wide(150, 7);
  for (Index r = 0; r < 150; ++r) std::copy(x.row(r).begin(), x.row(r).end(), wide.row(r).begin() + 2);
  CHECK(energy_distance(wide.view().middle_cols(2, 3), y) == e);
}

TEST_CASE("statistics are bit-identical on 1, 2, 4 and 16 threads") {
  const Matrix x = normals(8, 333, 2), y = normals(9, 257, 2, 0.1F);
  const auto all = [&] {
    const PermutationTest t = energy_test(x, y, {99, 0}, Rng{1});
    std::vector<double> v{energy_distance(x, y),
                          t.statistic,
                          t.p_value,
                          mmd_squared(x, y),
                          sliced_wasserstein(x, y, {}, Rng{1}),
                          nearest_neighbour_ratio(x, y, x.middle_rows(0, 100)),
                          covariance(x)(0, 1)};
    return v;
  };
  set_threads(1);
  const std::vector<double> expected = all();
  for (const int count : {2, 4, 16}) {
    set_threads(count);
    CHECK(all() == expected);
  }
  set_threads(0);
}

TEST_CASE("energy test: the statistic is the energy distance, also for unequal sizes") {
  for (const Index n : {1, 5, 64, 200}) {
    for (const Index m : {1, 64, 137}) {
      const Matrix x = normals(10, n, 2), y = normals(11, m, 2, 1.0F);
      const PermutationTest t = energy_test(x, y, {19, 0}, Rng{2});
      CHECK(std::abs(t.statistic - naive_energy(x, y, false)) <
            16 * kPair(2) * naive_mean(x, y, false, [](double d) { return d; }));
      CHECK(t.permutations == 19);
      CHECK(t.p_value == (t.exceedances + 1) / 20.0);
    }
  }
}

TEST_CASE("energy test: p-values against all relabellings of a small set") {
  // 4 + 3 rows: 35 ways to choose x's. The exact p is the share that reaches the observed statistic.
  const Matrix x{{0.0F}, {1.0F}, {1.5F}, {4.0F}}, y{{3.0F}, {5.0F}, {6.5F}};
  std::vector<float> pooled{0.0F, 1.0F, 1.5F, 4.0F, 3.0F, 5.0F, 6.5F};
  const double observed = naive_energy(x, y, false);
  int reached = 0, ways = 0;
  for (unsigned mask = 0; mask < 128; ++mask) {
    if (std::popcount(mask) != 4) continue;
    Matrix a(4, 1), b(3, 1);
    Index i = 0, j = 0;
    for (unsigned k = 0; k < 7; ++k) ((mask >> k) & 1 ? a(i++, 0) : b(j++, 0)) = pooled[k];
    ++ways;
    reached += naive_energy(a, b, false) >= observed - 1e-9;
  }
  REQUIRE(ways == 35);
  const double exact = static_cast<double>(reached) / ways;
  const PermutationTest t = energy_test(x, y, {19999, 0}, Rng{3});
  CHECK(std::abs(t.p_value - exact) < 4.9 * std::sqrt(exact * (1 - exact) / 19999) + 1e-4);
}

TEST_CASE("energy test: ties are exceedances, not rounding") {
  // All rows equal: every relabelling gives the observed statistic, 0.
  Matrix same(40, 3), other(25, 3);
  std::fill(same.data(), same.data() + same.size(), 0.1F);
  std::fill(other.data(), other.data() + other.size(), 0.1F);
  CHECK(energy_test(same, other, {199, 0}, Rng{4}).exceedances == 199);
  // One against one: exchanging the two changes nothing.
  CHECK(energy_test(Matrix{{0.1F, 0.7F}}, Matrix{{2.3F, -0.9F}}, {199, 0}, Rng{4}).exceedances == 199);
  // Rows that come in a few kinds: relabelling within a kind is a tie. x has 8 of one kind and y 8 of the other, so of the
  // C(16, 8) relabellings 2 reach the observed statistic; with one unlike row in each, far more.
  Matrix x(8, 2), y(8, 2);
  for (Index r = 0; r < 8; ++r) x(r, 0) = 0.3F, x(r, 1) = 1.7F, y(r, 0) = -0.2F, y(r, 1) = 0.9F;
  std::swap(x(0, 0), y(0, 0));
  std::swap(x(0, 1), y(0, 1));
  // 2 (8 * 8 + 1) of C(16, 8) = 12870 reach it: p = 0.0101.
  const PermutationTest t = energy_test(x, y, {19999, 0}, Rng{5});
  const double exact = 130.0 / 12870;
  CHECK(std::abs(t.p_value - exact) < 4.9 * std::sqrt(exact / 19999) + 1e-4);
}

TEST_CASE("energy test: stopping early takes the same permutations and leaves decisions as they are") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Matrix x = normals(100 + seed, 80, 2), y = normals(200 + seed, 60, 2, seed < 5 ? 0.0F : 1.0F);
    const PermutationTest full = energy_test(x, y, {999, 0}, Rng{seed});
    for (const int stop : {1, 3, 10}) {
      const PermutationTest t = energy_test(x, y, {999, stop}, Rng{seed});
      CHECK(t.statistic == full.statistic);
      CHECK((t.p_value <= 1e-3) == (full.p_value <= 1e-3));
      if (full.exceedances < stop) {
        CHECK(t.permutations == 999);
        CHECK(t.p_value == full.p_value);
      } else {
        CHECK(t.exceedances == stop);
        CHECK(t.p_value == static_cast<double>(stop) / t.permutations);
      }
    }
  }
}

TEST_CASE(
    "energy test: rejects the null at 1e-3 on two seeds of 20 at most, p-values are uniform; rejects shifts and wider laws") {
  std::vector<float> p;
  int rejected = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const PermutationTest t = energy_test(normals(300 + seed, 400, 2), normals(400 + seed, 300, 2), {999, 0}, Rng{seed});
    rejected += t.p_value <= 1e-3;
    p.push_back(static_cast<float>(t.p_value));
  }
  CHECK(rejected <= 2);  // P(Binomial(20, 1e-3) > 2) = 1.1e-6
  CHECK(kolmogorov_smirnov(p, [](double x) { return std::clamp(x, 0.0, 1.0); }).p_value > 1e-6);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    CHECK(energy_test(normals(500 + seed, 400, 2), normals(600 + seed, 400, 2, 0.5F), {}, Rng{seed}).p_value == 1e-3);
    CHECK(energy_test(normals(500 + seed, 400, 2), normals(600 + seed, 300, 2, 0, 1.6F), {}, Rng{seed}).p_value == 1e-3);
  }
}

TEST_CASE("Wasserstein on the line: known values and unequal sizes") {
  const std::vector<float> a{3, 1, 2}, b{4, 6, 5};
  CHECK(wasserstein_1d(a, b) == doctest::Approx(3).epsilon(1e-14));
  CHECK(wasserstein_1d(a, b, 2) == doctest::Approx(3).epsilon(1e-14));
  CHECK(wasserstein_1d(a, a) == 0);
  // {0} against {-1, 2}: (1 + 2) / 2 and sqrt((1 + 4) / 2).
  CHECK(wasserstein_1d(std::vector<float>{0}, std::vector<float>{-1, 2}) == doctest::Approx(1.5).epsilon(1e-14));
  CHECK(wasserstein_1d(std::vector<float>{0}, std::vector<float>{-1, 2}, 2) == doctest::Approx(std::sqrt(2.5)).epsilon(1e-14));
  // {0, 1} against {0, 1, 2}: quantiles differ on (1/3, 1/2) by 1 and on (2/3, 1) by 1.
  CHECK(wasserstein_1d(std::vector<float>{0, 1}, std::vector<float>{0, 1, 2}) == doctest::Approx(0.5).epsilon(1e-14));
  // W_1 is the area between the distribution functions: another formula, another path.
  const Matrix x = normals(12, 101, 1), y = normals(13, 67, 1, 0.4F);
  std::vector<float> cuts(x.data(), x.data() + 101);
  cuts.insert(cuts.end(), y.data(), y.data() + 67);
  std::sort(cuts.begin(), cuts.end());
  const auto below = [](const Matrix& m, float at) {
    return static_cast<double>(std::count_if(m.data(), m.data() + m.size(), [at](float v) { return v <= at; })) /
           static_cast<double>(m.size());
  };
  double area = 0;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    area += std::abs(below(x, cuts[i]) - below(y, cuts[i])) * (static_cast<double>(cuts[i + 1]) - static_cast<double>(cuts[i]));
  }
  CHECK(wasserstein_1d(span_of(x), span_of(y)) == doctest::Approx(area).epsilon(1e-12));
}

TEST_CASE("sliced Wasserstein: one dimension, shifts, and invariance") {
  const Matrix x = normals(14, 200, 1), y = normals(15, 150, 1, 0.2F);
  // In one dimension each direction is +-1.
  CHECK(sliced_wasserstein(x, y, {.projections = 3}, Rng{1}) ==
        doctest::Approx(wasserstein_1d(span_of(x), span_of(y))).epsilon(1e-12));
  // A shift by (1, 0) has SW_2^2 = E cos^2 = 1/2 and SW_1 = E|cos| = 2 / pi in the plane, up to the choice of directions:
  // standard deviations sqrt(1/8) and sqrt(1/2 - 4/pi^2) over 4000 of them.
  Matrix a = normals(16, 300, 2), b = a;
  for (Index r = 0; r < 300; ++r) b(r, 0) += 1;
  const double sw2 = sliced_wasserstein(a, b, {.projections = 4000, .p = 2}, Rng{2});
  CHECK(std::abs(sw2 * sw2 - 0.5) < 4.9 * std::sqrt(0.125 / 4000) + 1e-6);
  const double sw1 = sliced_wasserstein(a, b, {.projections = 4000}, Rng{2});
  CHECK(std::abs(sw1 - 2 / std::numbers::pi) < 4.9 * std::sqrt((0.5 - 4 / (std::numbers::pi * std::numbers::pi)) / 4000) + 1e-6);
  CHECK(sliced_wasserstein(a, a, {}, Rng{3}) == 0);
  CHECK(sliced_wasserstein(a, b, {}, Rng{3}) == sliced_wasserstein(b, a, {}, Rng{3}));
}

TEST_CASE("exact Wasserstein: the best of all matchings, the line's formula, shifts and convex maps") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Index n = 1 + static_cast<Index>(seed % 7);
    const Matrix x = normals(700 + seed, n, 2), y = normals(800 + seed, n, 2);
    std::vector<Index> order(static_cast<std::size_t>(n));
    for (Index i = 0; i < n; ++i) order[static_cast<std::size_t>(i)] = i;
    double best = HUGE_VAL, best_square = HUGE_VAL, best_cube = HUGE_VAL;
    do {
      double sum = 0, squares = 0, cubes = 0;
      for (Index i = 0; i < n; ++i) {
        const double distance = naive_distance(x, i, y, order[static_cast<std::size_t>(i)]);
        sum += distance;
        squares += distance * distance;
        cubes += distance * distance * distance;
      }
      best = std::min(best, sum / static_cast<double>(n));
      best_square = std::min(best_square, squares / static_cast<double>(n));
      best_cube = std::min(best_cube, cubes / static_cast<double>(n));
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(wasserstein(x, y) == doctest::Approx(best).epsilon(1e-12));
    CHECK(wasserstein(x, y, 2) == doctest::Approx(std::sqrt(best_square)).epsilon(1e-12));
    CHECK(wasserstein(x, y, 3) == doctest::Approx(std::cbrt(best_cube)).epsilon(1e-12));
  }
  const Matrix a = normals(17, 150, 1), b = normals(18, 150, 1, 0.7F);
  CHECK(wasserstein(a, b) == doctest::Approx(wasserstein_1d(span_of(a), span_of(b))).epsilon(1e-10));
  Matrix c = normals(19, 120, 3), d = c;
  for (Index r = 0; r < 120; ++r) d(r, 1) += 2;  // a shift is its own best matching
  CHECK(wasserstein(c, d) == doctest::Approx(2).epsilon(1e-6));
  CHECK(wasserstein(c, d, 2) == doctest::Approx(2).epsilon(1e-6));
  CHECK(wasserstein(c, c) == 0);
  CHECK(wasserstein(c, c, 2) == 0);
  CHECK(wasserstein(a, b, 2) == doctest::Approx(wasserstein_1d(span_of(a), span_of(b), 2)).epsilon(1e-10));
  // The gradient of a convex function is its own best matching for p = 2 [Brenier 1991]: a symmetric positive definite map.
  Matrix mapped(120, 3);
  double squares = 0;
  for (Index r = 0; r < 120; ++r) {
    mapped(r, 0) = 2 * c(r, 0) + 0.5F * c(r, 1);
    mapped(r, 1) = 0.5F * c(r, 0) + c(r, 1) - 0.25F * c(r, 2);
    mapped(r, 2) = -0.25F * c(r, 1) + 0.5F * c(r, 2);
    squares += std::pow(naive_distance(c, r, mapped, r), 2);
  }
  CHECK(wasserstein(c, mapped, 2) == doctest::Approx(std::sqrt(squares / 120)).epsilon(1e-10));
  CHECK(wasserstein(c, mapped) < wasserstein(c, mapped, 2));  // by Jensen, strictly: the distances differ
  Matrix ties(30, 2);                                         // equal rows: many best matchings
  CHECK(wasserstein(ties, normals(20, 30, 2)) > 0);
}

TEST_CASE("MMD: the naive sums, the median heuristic, and far sets") {
  for (const Index dim : {1, 2, 9}) {
    for (const Index n : {2, 64, 100}) {
      const Matrix x = normals(21, n, dim), y = normals(22, 70, dim, 0.5F);
      for (const double h : {0.3, 1.0, 5.0}) {
        const auto k = [h](double d) { return std::exp(-d * d / (2 * h * h)); };
        for (const bool distinct : {false, true}) {
          const double expected = naive_mean(x, x, distinct, k) + naive_mean(y, y, distinct, k) - 2 * naive_mean(x, y, false, k);
          // k's error: 4 u from exp, and u t e^-t <= u / e per u of the exponent's relative error, (D + 4) u.
          const double tolerance = 4 * (8 + static_cast<double>(dim)) * 0x1p-24;
          CHECK(std::abs(mmd_squared(x, y, {h, distinct ? PairMean::distinct : PairMean::all}) - expected) < tolerance);
        }
      }
    }
  }
  // Far apart, each set a point: 1 + 1 - 0.
  CHECK(mmd_squared(Matrix{{0}}, Matrix{{1e6F}}, {1.0, PairMean::all}) == doctest::Approx(2).epsilon(1e-12));
  // Distances 1, 2, 3 (points 0, 1, 3): the median is 2.
  CHECK(median_distance(Matrix{{0}, {1}}, Matrix{{3}}) == doctest::Approx(2).epsilon(1e-7));
  const Matrix x = normals(23, 50, 2), y = normals(24, 50, 2, 2.0F);
  CHECK(mmd_squared(x, y) == mmd_squared(x, y, {median_distance(x, y), PairMean::all}));
  CHECK_THROWS_AS(mmd_squared(Matrix{{1}, {1}}, Matrix{{1}, {1}}), DataError);
}

TEST_CASE("Kolmogorov's tail: tabulated values, and both series where they meet") {
  CHECK(kolmogorov_tail(0) == 1);
  CHECK(kolmogorov_tail(0.3) == doctest::Approx(1 - 9.30541e-6).epsilon(1e-9));
  CHECK(kolmogorov_tail(1.2238) == doctest::Approx(0.10).epsilon(1e-3));
  CHECK(kolmogorov_tail(1.3581) == doctest::Approx(0.05).epsilon(1e-3));
  CHECK(kolmogorov_tail(1.6276) == doctest::Approx(0.01).epsilon(1e-3));
  CHECK(kolmogorov_tail(std::nextafter(1.0, 0.0)) == doctest::Approx(kolmogorov_tail(1.0)).epsilon(1e-12));
}

TEST_CASE("Kolmogorov-Smirnov: statistics by hand, null and power") {
  // One value at the median: sup is 1/2. Values at the quartiles of the uniform: 1/4.
  CHECK(kolmogorov_smirnov(std::vector<float>{0}).statistic == doctest::Approx(0.5).epsilon(1e-12));
  const auto uniform = [](double x) { return std::clamp(x, 0.0, 1.0); };
  CHECK(kolmogorov_smirnov(std::vector<float>{0.75F, 0.25F}, uniform).statistic == doctest::Approx(0.25).epsilon(1e-12));
  CHECK(kolmogorov_smirnov(std::vector<float>{1, 2, 3}, std::vector<float>{2.5F, 4}).statistic ==
        doctest::Approx(2.0 / 3).epsilon(1e-12));
  CHECK(kolmogorov_smirnov(std::vector<float>{1, 2}, std::vector<float>{1, 2}).statistic == 0);
  CHECK(kolmogorov_smirnov(std::vector<float>{1, 2}, std::vector<float>{1, 2}).p_value == 1);
  // 400 null p-values are uniform; DKW at 1e-6.
  std::vector<float> one, two;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const Matrix x = normals(1000 + seed, 500, 1), y = normals(5000 + seed, 300, 1);
    one.push_back(static_cast<float>(kolmogorov_smirnov(span_of(x)).p_value));
    two.push_back(static_cast<float>(kolmogorov_smirnov(span_of(x), span_of(y)).p_value));
  }
  const double limit = std::sqrt(std::log(2e6) / 800);
  CHECK(kolmogorov_smirnov(one, uniform).statistic < limit);
  CHECK(kolmogorov_smirnov(two, uniform).statistic < limit);
  const Matrix shifted = normals(25, 2000, 1, 0.3F), plain = normals(26, 2000, 1);
  CHECK(kolmogorov_smirnov(span_of(shifted)).p_value < 1e-6);
  CHECK(kolmogorov_smirnov(span_of(shifted), span_of(plain)).p_value < 1e-6);
}

TEST_CASE("nearest distances: the naive minimum") {
  for (const Index dim : {1, 2, 20}) {
    const Matrix x = normals(27, 70, dim), y = normals(28, 129, dim);
    const Matrix nearest = nearest_distances(x, y);
    REQUIRE(nearest.rows() == 70);
    for (Index i = 0; i < 70; ++i) {
      double best = HUGE_VAL;
      for (Index j = 0; j < 129; ++j) best = std::min(best, naive_distance(x, i, y, j));
      CHECK(nearest(i, 0) == doctest::Approx(best).epsilon(kPair(dim)));
    }
  }
}

TEST_CASE("nearest-neighbour ratio: 1 for fresh samples, small for copies") {
  const Matrix train = normals(29, 500, 2), held_out = normals(30, 500, 2), fresh = normals(31, 500, 2);
  // A fresh sample is as often nearer to either set: the median's error over 500 is 0.5 / (f(1) sqrt(500)), and the ratio t of
  // two such distances in the plane has density 2t / (1 + t^2)^2, f(1) = 1/2.
  CHECK(std::abs(nearest_neighbour_ratio(fresh, train, held_out) - 1) < 4.9 / std::sqrt(500.0));
  Matrix copies = train;
  for (Index i = 0; i < copies.size(); ++i) copies.data()[i] += 1e-3F * fresh.data()[i];
  CHECK(nearest_neighbour_ratio(copies, train, held_out) < 0.1);
  CHECK(nearest_neighbour_ratio(train, train, held_out) == 0);
  CHECK(nearest_neighbour_ratio(train, train, train) == 1);
  CHECK(nearest_neighbour_ratio(train, held_out, train) == HUGE_VAL);
  // Medians of even and odd counts: samples 1 and 9 against train {0}, held out {10}: 1/9 and 9.
  CHECK(nearest_neighbour_ratio(Matrix{{1}, {9}}, Matrix{{0}}, Matrix{{10}}) == doctest::Approx((1.0 / 9 + 9) / 2).epsilon(1e-6));
  CHECK(nearest_neighbour_ratio(Matrix{{1}, {9}, {5}}, Matrix{{0}}, Matrix{{10}}) == 1);
}

TEST_CASE("means, covariances and moments by hand") {
  const Matrix x{{1, 10}, {2, 20}, {6, 60}};
  CHECK(column_mean(x)(0, 0) == 3);
  CHECK(column_mean(x)(0, 1) == 30);
  const MatrixD c = covariance(x);
  CHECK(c(0, 0) == doctest::Approx(7).epsilon(1e-14));
  CHECK(c(0, 1) == doctest::Approx(70).epsilon(1e-14));
  CHECK(c(1, 0) == c(0, 1));
  CHECK(c(1, 1) == doctest::Approx(700).epsilon(1e-14));
  const MatrixD m = column_moments(Matrix{{0, 5}, {0, 5}, {0, 5}, {4, 5}});
  CHECK(m(0, 0) == 1);
  CHECK(m(1, 0) == 3);
  CHECK(m(2, 0) == doctest::Approx((3 * -1 + 27) / 4.0 / std::pow(3, 1.5)).epsilon(1e-14));
  CHECK(m(3, 0) == doctest::Approx((3 + 81) / 4.0 / 9 - 3).epsilon(1e-14));
  CHECK(m(1, 1) == 0);
  CHECK(m(2, 1) == 0);
  CHECK(m(3, 1) == 0);
  // A large offset costs nothing: the second pass is centred.
  Matrix offset(1000, 1);
  for (Index r = 0; r < 1000; ++r) offset(r, 0) = 8388608.0F + static_cast<float>(r % 2);
  CHECK(covariance(offset)(0, 0) == doctest::Approx(250.0 / 999).epsilon(1e-12));
}

TEST_CASE("shapes that do not fit and values that are no numbers are refused") {
  const Matrix x(3, 2), y(3, 3), no_rows(0, 2), no_cols(3, 0);
  const Rng rng{1};
  CHECK_THROWS_AS(energy_distance(x, y), UsageError);
  CHECK_THROWS_AS(energy_distance(x, no_rows), UsageError);
  CHECK_THROWS_AS(energy_distance(no_cols, no_cols), UsageError);
  CHECK_THROWS_AS(energy_distance(Matrix(1, 2), x, PairMean::distinct), UsageError);
  CHECK_THROWS_AS(energy_test(x, y, {}, rng), UsageError);
  CHECK_THROWS_AS(energy_test(x, x, {0, 0}, rng), UsageError);
  CHECK_THROWS_AS(energy_test(x, x, {9, -1}, rng), UsageError);
  CHECK_THROWS_AS(sliced_wasserstein(x, y, {}, rng), UsageError);
  CHECK_THROWS_AS(sliced_wasserstein(x, x, {.projections = 0}, rng), UsageError);
  CHECK_THROWS_AS(sliced_wasserstein(x, x, {.p = 0.5}, rng), UsageError);
  CHECK_THROWS_AS(wasserstein_1d({}, std::vector<float>{1}), UsageError);
  CHECK_THROWS_AS(wasserstein_1d(std::vector<float>{1}, std::vector<float>{1}, 0), UsageError);
  CHECK_THROWS_AS(wasserstein(x, Matrix(2, 2)), UsageError);
  CHECK_THROWS_AS(wasserstein(Matrix(5001, 1), Matrix(5001, 1)), UsageError);
  CHECK_THROWS_AS(mmd_squared(x, y), UsageError);
  CHECK_THROWS_AS(mmd_squared(x, x, {-1, PairMean::all}), UsageError);
  CHECK_THROWS_AS(kolmogorov_smirnov(std::span<const float>{}), UsageError);
  CHECK_THROWS_AS(kolmogorov_smirnov(std::vector<float>{1}, [](double v) { return v + 1; }), UsageError);
  CHECK_THROWS_AS(nearest_neighbour_ratio(x, no_rows, x), UsageError);
  CHECK_THROWS_AS(column_mean(no_rows), UsageError);
  CHECK_THROWS_AS(covariance(Matrix(1, 2)), UsageError);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Matrix z(3, 2);
    z(1, 1) = bad;
    CHECK_THROWS_AS(energy_distance(z, x), DataError);
    CHECK_THROWS_AS(energy_test(x, z, {}, rng), DataError);
    CHECK_THROWS_AS(covariance(z), DataError);
    CHECK_THROWS_AS(kolmogorov_smirnov(std::vector<float>{bad}), DataError);
  }
  CHECK_THROWS_AS(energy_distance(Matrix{{3e38F}}, Matrix{{-3e38F}}), DataError);  // the difference overflows
}
