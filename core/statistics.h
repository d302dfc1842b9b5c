// statistics.h - distances between sample sets, and tests whether two sets have one law.
//
//   energy_distance(a, b)                       2 E|X - Y| - E|X - X'| - E|Y - Y'|       [Szekely & Rizzo 2013]
//   energy_test(a, b, {}, rng).p_value          the same as a permutation test
//
// All sample sets are (n, D), one sample per row, finite; x and y have the same D >= 1. Distances of single pairs are computed
// in float from the differences, everything is summed in double in a fixed order: the result does not depend on the number of
// threads (between instruction sets the last digits may differ). Wrong shapes throw UsageError, NaN or infinite values DataError.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "tweedie/core/matrix.h"
#include "tweedie/core/random.h"

namespace tweedie {

/// How means over the pairs within one set are formed.
enum class PairMean {
  all,       // V-statistic, over all n^2 pairs: a distance between the two empirical laws, >= 0, biased by O(1/n)
  distinct,  // U-statistic, over the n (n - 1) pairs of different samples: unbiased, may be negative; needs n >= 2
};

/// 2 E|X - Y| - E|X - X'| - E|Y - Y'| between x (n, D) and y (m, D), in the data's unit. O((n + m)^2 D) time, O(n + m) memory.
TWEEDIE_API double energy_distance(ConstRows<float> x, ConstRows<float> y, PairMean mean = PairMean::all);

struct PermutationOptions {
  int permutations = 999;  // at most; the smallest p-value is 1 / (permutations + 1)
  // Stop when so many permutations reached the observed statistic [Besag & Clifford 1991]; 0: never. Rejection at level
  // 1 / (permutations + 1) means no such permutation at all, so stopping at the first leaves that decision exact.
  int stop_after_exceedances = 10;
};

struct PermutationTest {
  double statistic = 0;  // of the observed sets
  double p_value = 1;    // valid (P(p <= a) <= a under the null) also when stopped early
  int permutations = 0;  // drawn
  int exceedances = 0;   // of these, how many reached the statistic
};

/// Permutation test of x and y having the same law, by the energy distance (PairMean::all). Time is that of (n + m)^2 / 2
/// multiply- adds per permutation: 999 of them with n = m = 10,000 take a few seconds on two cores, a typical acceptance a tenth
/// of that.
TWEEDIE_API PermutationTest energy_test(ConstRows<float> x, ConstRows<float> y, const PermutationOptions& options,
                                        const Rng& rng);

/// W_p = (int_0^1 |F^-1(u) - G^-1(u)|^p du)^(1/p) of two sets of numbers, p >= 1; the sizes may differ.
TWEEDIE_API double wasserstein_1d(std::span<const float> x, std::span<const float> y, double p = 1);

struct SlicedOptions {
  int projections = 128;
  double p = 1;
};

/// (mean over random unit directions of W_p^p of the projections)^(1/p) [Bonneel et al. 2015].
TWEEDIE_API double sliced_wasserstein(ConstRows<float> x, ConstRows<float> y, const SlicedOptions& options, const Rng& rng);

/// W_p between two sets of equal size n in D dimensions, exactly: (mean of |x_i - y_m(i)|^p under the best matching m of the
/// rows)^(1/p), p >= 1 (shortest augmenting paths, O(n^3) time and O(n^2) memory; n <= 5000).
TWEEDIE_API double wasserstein(ConstRows<float> x, ConstRows<float> y, double p = 1);

struct MmdOptions {
  double bandwidth = 0;  // h > 0, or 0 for the median distance between pooled samples (see median_distance)
  PairMean mean = PairMean::all;
};

/// MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y), k(a, b) = exp(-|a - b|^2 / (2 h^2)) [Gretton et al. 2012].
TWEEDIE_API double mmd_squared(ConstRows<float> x, ConstRows<float> y, const MmdOptions& options = {});

/// The median of the distances between different rows of x and y together. Above 2000 rows, of 2000 at equal spacing.
TWEEDIE_API double median_distance(ConstRows<float> x, ConstRows<float> y);

struct TestResult {
  double statistic = 0;
  double p_value = 1;
};

/// sup |F_n - Phi| of the values against N(0, 1); asymptotic p-value with Stephens's correction (1970), good from n = 5 on.
TWEEDIE_API TestResult kolmogorov_smirnov(std::span<const float> values);
/// sup |F_n - G_m| of two sets of numbers; asymptotic p-value, conservative with ties.
TWEEDIE_API TestResult kolmogorov_smirnov(std::span<const float> x, std::span<const float> y);
namespace detail {
TWEEDIE_API TestResult kolmogorov_smirnov(std::span<const float> values, double (*cdf)(void* context, double x), void* context);
}
/// The same against a continuous distribution function cdf(double) -> double, non-decreasing.
template <class Cdf>
requires std::is_invocable_r_v<double, Cdf&, double> TestResult kolmogorov_smirnov(std::span<const float> values, Cdf cdf) {
  return detail::kolmogorov_smirnov(
      values, [](void* c, double x) { return static_cast<double>((*static_cast<Cdf*>(c))(x)); }, &cdf);
}
/// P(sup |Brownian bridge| > x), the tail of Kolmogorov's law.
TWEEDIE_API double kolmogorov_tail(double x);

/// Median over the samples of (distance to the nearest row of train) / (distance to the nearest row of held_out). Near 1 when the
/// samples are as far from either, well below when training rows are copied. Compare it with train and held_out of
/// equal size: m held-out rows are farther away than n > m training rows by about (n / m)^(1/D) even without copying. 0/0 counts
/// as 1.
TWEEDIE_API double nearest_neighbour_ratio(ConstRows<float> samples, ConstRows<float> train, ConstRows<float> held_out);

/// Distance from each row of x (n, D) to the nearest row of y (m, D): (n, 1).
TWEEDIE_API Matrix nearest_distances(ConstRows<float> x, ConstRows<float> y);

/// Means of the columns: (1, D).
TWEEDIE_API MatrixD column_mean(ConstRows<float> x);
/// Unbiased covariance of the columns: (D, D); needs two rows.
TWEEDIE_API MatrixD covariance(ConstRows<float> x);
/// Rows: mean, variance (divided by n), skewness, excess kurtosis of each column: (4, D). The last two are 0 for a constant
/// column.
TWEEDIE_API MatrixD column_moments(ConstRows<float> x);

}  // namespace tweedie
