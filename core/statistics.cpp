// statistics.cpp - sums over pairs in tiles of 64 x 64 (nothing of size n x n is stored), order statistics, moments.
// SPDX-License-Identifier: MIT
#include "tweedie/core/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "tweedie/core/detail/pair_kernels.h"
#include "tweedie/core/parallel.h"

namespace tweedie {
namespace {

using detail::kPairTile;
using detail::kSignLanes;

const detail::PairKernels& pair_kernels() {
#ifdef __x86_64__
  static const detail::PairKernels& chosen =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")
          ? detail::pair_kernels_avx512()
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? detail::pair_kernels_avx2()
                                                                        : detail::pair_kernels_portable();
  return chosen;
#else
  return detail::pair_kernels_portable();
#endif
}

void check_finite(const char* function, const char* name, ConstRows<float> x) {
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      check<DataError>(std::isfinite(x(r, c)), function, ": ", name, " holds ", x(r, c), " at row ", r, ", column ", c,
                       "; remove such rows first");
    }
  }
}

void check_samples(const char* function, const char* name, ConstRows<float> x) {
  check(x.rows() >= 1 && x.cols() >= 1, function, ": ", name, " has shape ", shape(x),
        "; at least one row and one column are needed");
  check_finite(function, name, x);
}

void check_pair(const char* function, ConstRows<float> x, ConstRows<float> y) {
  check(x.cols() == y.cols(), function, ": x has ", x.cols(), " columns, y has ", y.cols(), "; they must agree");
  check_samples(function, "x", x);
  check_samples(function, "y", y);
}

void check_values(const char* function, const char* name, std::span<const float> x) {
  check_samples(function, name, {x.data(), static_cast<Index>(x.size()), 1});
}

double check_result(const char* function, double value) {
  check<DataError>(std::isfinite(value), function, ": the distances overflow; are the samples of a diverged chain?");
  return value;
}

Index tile_count(Index rows) { return (rows + kPairTile - 1) / kPairTile; }

/// Rows as columns of tiles: tile t is (D, 64), missing columns hold `fill`.
class PackedColumns {
 public:
  PackedColumns(ConstRows<float> y, float fill) : dim_(y.cols()), data_(tile_count(y.rows()) * y.cols() * kPairTile) {
    for (Index t = 0; t < tile_count(y.rows()); ++t) {
      float* const tile = data_.data() + t * dim_ * kPairTile;
      for (Index j = 0; j < kPairTile; ++j) {
        const Index r = t * kPairTile + j;
        for (Index d = 0; d < dim_; ++d) tile[d * kPairTile + j] = r < y.rows() ? y(r, d) : fill;
      }
    }
  }
  const float* tile(Index t) const { return data_.data() + t * dim_ * kPairTile; }

 private:
  Index dim_;
  Buffer<float> data_;
};

struct alignas(64) Tile {
  float value[kPairTile * kPairTile];
};

Index rows_of_tile(Index t, Index rows) { return std::min(kPairTile, rows - t * kPairTile); }

/// Squared distances between the rows of tile i of x and those of tile j of the packed set.
void fill_tile(Tile& tile, ConstRows<float> x, Index i, const PackedColumns& y, Index j) {
  pair_kernels().squared_distances(x.data() + i * kPairTile * x.stride(), x.stride(), rows_of_tile(i, x.rows()), y.tile(j),
                                   x.cols(), tile.value);
}

/// Sum of transform(|x_i - y_j|^2) over all pairs. With `same`, y is x and each pair of tiles is visited once.
template <class Transform>
double pair_sum(ConstRows<float> x, ConstRows<float> y, bool same, Transform transform) {
  const PackedColumns columns(y, 0.0F);
  const Index across = tile_count(y.rows());
  // A leaf of the reduction is one row of tiles (64 rows of x).
  return parallel_sum(x.rows(), [&](Index begin, Index) {
    const Index i = begin / kPairTile, rows = rows_of_tile(i, x.rows());
    Tile tile;
    double sum = 0;
    for (Index j = same ? i : 0; j < across; ++j) {
      fill_tile(tile, x, i, columns, j);
      transform(tile.value, rows);
      sum += (same && j > i ? 2 : 1) * pair_kernels().sum(tile.value, rows, rows_of_tile(j, y.rows()));
    }
    return sum;
  });
}

/// Means over pairs: across the sets, within x, within y.
struct PairMeans {
  double xy, xx, yy;
};

/// `self` is transform(0): what a sample contributes with itself.
template <class Transform>
PairMeans pair_means(const char* function, ConstRows<float> x, ConstRows<float> y, PairMean mean, double self,
                     Transform transform) {
  check_pair(function, x, y);
  check(mean == PairMean::all || (x.rows() >= 2 && y.rows() >= 2), function,
        ": PairMean::distinct needs two rows in each set, x has ", x.rows(), " and y has ", y.rows());
  const auto within = [&](ConstRows<float> z) {
    const auto n = static_cast<double>(z.rows());
    const double sum = pair_sum(z, z, true, transform);
    return mean == PairMean::all ? sum / (n * n) : (sum - n * self) / (n * (n - 1));
  };
  const double pairs = static_cast<double>(x.rows()) * static_cast<double>(y.rows());
  return {pair_sum(x, y, false, transform) / pairs, within(x), within(y)};
}

PairMeans distance_means(const char* function, ConstRows<float> x, ConstRows<float> y, PairMean mean) {
  const PairMeans m =
      pair_means(function, x, y, mean, 0.0, [](float* tile, Index rows) { pair_kernels().square_root(tile, rows); });
  check_result(function, m.xy + m.xx + m.yy);
  return m;
}

// --- the permutation test ---
//
// Let D be the distances of the n + m pooled samples and t_i = m / g for a sample in x, -n / g for one in y, g the greatest
// common divisor of n and m. Then the energy distance is -(g / nm)^2 t'Dt. It is computed for many labellings at once, as a
// matrix product whose left factor is made tile by tile. The labels are whole numbers, which add up to exactly 0, and +-1 for n =
// m.

/// Labellings t in panels of 16 lanes, [tile][panel][64][16]; 0 for rows that pad the last tile.
class Labellings {
 public:
  Labellings(Index n, Index m, Index panels)
      : n_(n),
        rows_(n + m),
        in_x_(static_cast<float>(m / std::gcd(n, m))),
        in_y_(-static_cast<float>(n / std::gcd(n, m))),
        panels_(panels),
        labels_(tile_count(rows_) * panels * kPairTile * kSignLanes) {}

  Index panels() const { return panels_; }
  const float* tile(Index t) const { return labels_.data() + t * panels_ * kPairTile * kSignLanes; }

  /// The first n rows are x's.
  void set_observed(Index label) {
    for (Index i = 0; i < rows_; ++i) at(label, i) = i < n_ ? in_x_ : in_y_;
  }
  /// A uniformly drawn set of n rows is x's: row i is taken with probability (still wanted) / (rows left), Knuth's algorithm S.
  void set_random(Index label, const Rng& rng, int permutation) {
    auto wanted = static_cast<std::uint64_t>(n_);
    std::uint32_t w[4];
    for (Index i = 0; i < rows_; ++i) {
      if (i % 2 == 0)
        rng.words(Purpose::bootstrap, static_cast<std::uint32_t>(permutation), static_cast<std::uint64_t>(i / 2), 0, 0, w);
      __extension__ using Wide = unsigned __int128;
      const std::uint64_t u = (std::uint64_t{w[2 * (i % 2) + 1]} << 32) | w[2 * (i % 2)];
      const bool take = static_cast<std::uint64_t>((static_cast<Wide>(u) * static_cast<std::uint64_t>(rows_ - i)) >> 64) < wanted;
      wanted -= take ? 1 : 0;
      at(label, i) = take ? in_x_ : in_y_;
    }
  }

 private:
  float& at(Index label, Index row) {
    const Index tile = row / kPairTile, panel = label / kSignLanes;
    return labels_[((tile * panels_ + panel) * kPairTile + row % kPairTile) * kSignLanes + label % kSignLanes];
  }

  Index n_, rows_;
  float in_x_, in_y_;
  Index panels_;
  Buffer<float> labels_;
};

/// x's rows, then y's.
Matrix pool(ConstRows<float> x, ConstRows<float> y) {
  Matrix z(x.rows() + y.rows(), x.cols());
  for (Index r = 0; r < z.rows(); ++r) {
    const std::span<const float> from = r < x.rows() ? x.row(r) : y.row(r - x.rows());
    std::copy(from.begin(), from.end(), z.row(r).begin());
  }
  return z;
}

class EnergyStatistic {
 public:
  EnergyStatistic(ConstRows<float> x, ConstRows<float> y) : z_(pool(x, y)), columns_(z_, 0.0F) {
    const auto n = static_cast<double>(x.rows()), m = static_cast<double>(y.rows());
    const double unit = static_cast<double>(std::gcd(x.rows(), y.rows())) / (n * m);
    factor_ = -unit * unit;
    const PairMeans means = distance_means("energy_test", x, y, PairMean::all);
    const double chunks = std::max(1.0, std::min(n, m) * std::min(n, m) / static_cast<double>(kPairTile));
    tie_ = static_cast<double>(kPairTile) * 0x1p-24 * (2 * means.xy + means.xx + means.yy) / std::sqrt(chunks);
  }

  /// The energy distance under every labelling.
  std::vector<double> operator()(const Labellings& labels) const {
    const Index tiles = tile_count(z_.rows()), width = labels.panels() * kSignLanes;
    Buffer<double> sums(tiles * width);  // one line per row of tiles, added up in order
    parallel_for(tiles, 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) add_row_of_tiles(labels, i, sums.data() + i * width);
    });
    std::vector<double> result(static_cast<std::size_t>(width));
    for (Index l = 0; l < width; ++l) {
      for (Index i = 0; i < tiles; ++i) result[static_cast<std::size_t>(l)] += factor_ * sums[i * width + l];
    }
    return result;
  }

  /// Differences of statistics below this are rounding: labellings that exchange equal rows tie with the observed one.
  /// Chunks of 64 products are added in float, each with an error of at most 64 u |sum|; chunks err independently, and each of
  /// the two sets has at least min(n, m)^2 / 64 of them.
  double tie() const { return tie_; }

 private:
  /// Tiles (i, i), (i, i + 1), ... half way round the circle of tiles: each pair of tiles falls to one i, all i have the same
  /// work.
  void add_row_of_tiles(const Labellings& labels, Index i, double* sums) const {
    const Index tiles = tile_count(z_.rows());
    Tile tile{};
    for (Index k = 0; 2 * k <= tiles; ++k) {
      if (2 * k == tiles && i >= k) break;  // the opposite tile of an even circle: once for the two
      const Index j = (i + k) % tiles;
      fill_tile(tile, z_, i, columns_, j);
      pair_kernels().square_root(tile.value, rows_of_tile(i, z_.rows()));
      pair_kernels().signed_products(tile.value, labels.tile(i), labels.tile(j), labels.panels(), k == 0 ? 1.0 : 2.0, sums);
    }
  }

  Matrix z_;
  PackedColumns columns_;
  double factor_ = 0, tie_ = 0;
};

}  // namespace

double energy_distance(ConstRows<float> x, ConstRows<float> y, PairMean mean) {
  const PairMeans m = distance_means("energy_distance", x, y, mean);
  return 2 * m.xy - m.xx - m.yy;
}

PermutationTest energy_test(ConstRows<float> x, ConstRows<float> y, const PermutationOptions& options, const Rng& rng) {
  check_pair("energy_test", x, y);
  check(options.permutations >= 1, "energy_test: ", options.permutations, " permutations; at least 1 is needed");
  check(options.stop_after_exceedances >= 0, "energy_test: stop_after_exceedances is ", options.stop_after_exceedances,
        "; 0 means never");
  const EnergyStatistic statistic(x, y);
  PermutationTest test;
  Index panels = 1;
  while (test.permutations < options.permutations) {
    // Label 0 is the observed one in every batch, so that it is rounded as the permutations are.
    const Index labels = std::min<Index>(panels * kSignLanes, options.permutations - test.permutations + 1);
    Labellings batch(x.rows(), y.rows(), (labels + kSignLanes - 1) / kSignLanes);
    batch.set_observed(0);
    parallel_for(labels - 1, 1, [&](Index begin, Index end) {
      for (Index l = begin; l < end; ++l) batch.set_random(l + 1, rng, test.permutations + static_cast<int>(l));
    });
    const std::vector<double> values = statistic(batch);
    test.statistic = values[0];
    for (Index l = 1; l < labels; ++l) {
      ++test.permutations;
      test.exceedances += values[static_cast<std::size_t>(l)] >= values[0] - statistic.tie() ? 1 : 0;
      if (options.stop_after_exceedances > 0 && test.exceedances == options.stop_after_exceedances) {
        test.p_value = static_cast<double>(test.exceedances) / test.permutations;
        return test;
      }
    }
    panels = std::min<Index>(4 * panels, 16);
  }
  test.p_value = (test.exceedances + 1.0) / (test.permutations + 1.0);
  return test;
}

// --- order statistics ---

namespace {

double power(double x, double p) { return p == 1 ? x : p == 2 ? x * x : std::pow(x, p); }

/// int |F^-1 - G^-1|^p of sorted values: the quantile functions are constant between the multiples of 1/n and of 1/m.
template <class T>
double wasserstein_sorted(const std::vector<T>& x, const std::vector<T>& y, double p) {
  const std::size_t n = x.size(), m = y.size();
  double sum = 0;
  std::uint64_t position = 0;  // in units of 1 / (n m)
  for (std::size_t i = 0, j = 0; i < n && j < m;) {
    const std::uint64_t end_x = (i + 1) * m, end_y = (j + 1) * n, next = std::min(end_x, end_y);
    sum += static_cast<double>(next - position) * power(std::abs(static_cast<double>(x[i]) - static_cast<double>(y[j])), p);
    position = next;
    i += end_x == next ? 1 : 0;
    j += end_y == next ? 1 : 0;
  }
  return sum / (static_cast<double>(n) * static_cast<double>(m));
}

void check_power(const char* function, double p) {
  check(p >= 1 && std::isfinite(p), function, ": p is ", p, "; it must be finite and at least 1");
}

std::vector<double> project(ConstRows<float> x, const std::vector<double>& direction) {
  std::vector<double> t(static_cast<std::size_t>(x.rows()));
  for (Index r = 0; r < x.rows(); ++r) {
    double dot = 0;
    for (Index d = 0; d < x.cols(); ++d) dot += static_cast<double>(x(r, d)) * direction[static_cast<std::size_t>(d)];
    t[static_cast<std::size_t>(r)] = dot;
  }
  std::sort(t.begin(), t.end());
  return t;
}

}  // namespace

double wasserstein_1d(std::span<const float> x, std::span<const float> y, double p) {
  check_values("wasserstein_1d", "x", x);
  check_values("wasserstein_1d", "y", y);
  check_power("wasserstein_1d", p);
  std::vector<float> a(x.begin(), x.end()), b(y.begin(), y.end());
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return std::pow(wasserstein_sorted(a, b, p), 1 / p);
}

double sliced_wasserstein(ConstRows<float> x, ConstRows<float> y, const SlicedOptions& options, const Rng& rng) {
  check_pair("sliced_wasserstein", x, y);
  check_power("sliced_wasserstein", options.p);
  check(options.projections >= 1, "sliced_wasserstein: ", options.projections, " projections; at least 1 is needed");
  MatrixD directions(options.projections, x.cols());
  rng.normals(Purpose::project, 0, 0, directions.view());
  std::vector<double> distance(static_cast<std::size_t>(options.projections));
  parallel_for(options.projections, 1, [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      std::vector<double> direction(directions.row(k).begin(), directions.row(k).end());
      double square = 0;
      for (const double v : direction) square += v * v;
      if (square == 0) direction[0] = square = 1;  // all D normals are 0: a direction as good as any
      for (double& v : direction) v /= std::sqrt(square);
      distance[static_cast<std::size_t>(k)] = wasserstein_sorted(project(x, direction), project(y, direction), options.p);
    }
  });
  double sum = 0;
  for (const double d : distance) sum += d;
  return std::pow(sum / options.projections, 1 / options.p);
}

// Shortest augmenting paths with potentials (Jonker and Volgenant, 1987; Crouse, 2016): rows are matched one after the other; a
// Dijkstra search over reduced costs finds the cheapest way to a free column, and the potentials u, v keep
// cost - u - v >= 0, with equality on the matching.
double wasserstein(ConstRows<float> x, ConstRows<float> y, double p) {
  check_pair("wasserstein", x, y);
  check_power("wasserstein", p);
  check(x.rows() == y.rows(), "wasserstein: x has ", x.rows(), " rows, y has ", y.rows(),
        "; they must agree (sliced_wasserstein takes any)");
  const Index n = x.rows();
  check(n <= 5000, "wasserstein: ", n, " rows; the matching is made for at most 5000, take a part of them or sliced_wasserstein");
  MatrixD cost(n, n);
  parallel_for(n, 16, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      for (Index j = 0; j < n; ++j) {
        double square = 0;
        for (Index d = 0; d < x.cols(); ++d) {
          const double difference = static_cast<double>(x(i, d)) - static_cast<double>(y(j, d));
          square += difference * difference;
        }
        cost(i, j) = p == 2 ? square : power(std::sqrt(square), p);
      }
    }
  });
  const auto size = static_cast<std::size_t>(n);
  std::vector<double> u(size), v(size), shortest(size);
  std::vector<Index> row_of(size, -1), col_of(size, -1), previous(size), open(size);
  for (Index start = 0; start < n; ++start) {
    std::fill(shortest.begin(), shortest.end(), std::numeric_limits<double>::infinity());
    for (Index j = 0; j < n; ++j) open[static_cast<std::size_t>(j)] = j;
    Index open_count = n, row = start, sink = -1;
    double reached = 0;
    while (sink < 0) {
      Index best = 0;
      double lowest = std::numeric_limits<double>::infinity();
      const double* const row_cost = cost.data() + row * n;
      const double base = reached - u[static_cast<std::size_t>(row)];
      for (Index k = 0; k < open_count; ++k) {
        const auto j = static_cast<std::size_t>(open[static_cast<std::size_t>(k)]);
        const double way = base + row_cost[j] - v[j];
        if (way < shortest[j]) {
          shortest[j] = way;
          previous[j] = row;
        }
        if (shortest[j] < lowest || (shortest[j] == lowest && row_of[j] < 0)) {
          lowest = shortest[j];
          best = k;
        }
      }
      reached = lowest;
      const Index col = open[static_cast<std::size_t>(best)];
      // Closed columns gather behind the open ones.
      std::swap(open[static_cast<std::size_t>(best)], open[static_cast<std::size_t>(--open_count)]);
      if (row_of[static_cast<std::size_t>(col)] < 0) {
        sink = col;
      } else {
        row = row_of[static_cast<std::size_t>(col)];
      }
    }
    u[static_cast<std::size_t>(start)] += reached;
    for (Index k = open_count; k < n; ++k) {
      const auto j = static_cast<std::size_t>(open[static_cast<std::size_t>(k)]);
      const double slack = reached - shortest[j];
      if (row_of[j] >= 0) u[static_cast<std::size_t>(row_of[j])] += slack;
      v[j] -= slack;
    }
    for (Index col = sink; col >= 0;) {
      const Index r = previous[static_cast<std::size_t>(col)];
      row_of[static_cast<std::size_t>(col)] = r;
      std::swap(col, col_of[static_cast<std::size_t>(r)]);
      if (r == start) break;
    }
  }
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += cost(i, col_of[static_cast<std::size_t>(i)]);
  return check_result("wasserstein", std::pow(sum / static_cast<double>(n), 1 / p));
}

// --- maximum mean discrepancy ---

double median_distance(ConstRows<float> x, ConstRows<float> y) {
  check_pair("median_distance", x, y);
  constexpr Index kMost = 2000;
  const Matrix z = pool(x, y);
  const Index count = std::min(kMost, z.rows());
  check(count >= 2, "median_distance: at least two rows are needed");
  std::vector<float> squares;
  squares.reserve(static_cast<std::size_t>(count * (count - 1) / 2));
  for (Index i = 0; i < count; ++i) {
    const Index a = i * z.rows() / count;
    for (Index j = 0; j < i; ++j) {
      const Index b = j * z.rows() / count;
      float square = 0;
      for (Index d = 0; d < z.cols(); ++d) square += (z(a, d) - z(b, d)) * (z(a, d) - z(b, d));
      squares.push_back(square);
    }
  }
  const auto middle = squares.begin() + static_cast<std::ptrdiff_t>(squares.size() / 2);
  std::nth_element(squares.begin(), middle, squares.end());
  return check_result("median_distance", std::sqrt(static_cast<double>(*middle)));
}

double mmd_squared(ConstRows<float> x, ConstRows<float> y, const MmdOptions& options) {
  check_pair("mmd_squared", x, y);
  check(options.bandwidth >= 0 && std::isfinite(options.bandwidth), "mmd_squared: bandwidth ", options.bandwidth,
        " must be positive, or 0 for the median distance");
  const double h = options.bandwidth > 0 ? options.bandwidth : median_distance(x, y);
  check<DataError>(h > 0, "mmd_squared: the median distance is 0, most rows are equal; give a bandwidth");
  const auto scale = static_cast<float>(0.5 / (h * h));
  const PairMeans m = pair_means("mmd_squared", x, y, options.mean, 1.0,
                                 [scale](float* tile, Index rows) { pair_kernels().gaussian(tile, rows, scale); });
  return m.xx + m.yy - 2 * m.xy;
}

// --- Kolmogorov and Smirnov ---

// 1 - K(x) = 2 sum_k (-1)^(k-1) exp(-2 k^2 x^2); for small x by the theta function's other series,
// K(x) = sqrt(2 pi) / x sum_k exp(-(2k - 1)^2 pi^2 / (8 x^2)).
double kolmogorov_tail(double x) {
  if (x <= 0) return 1;
  double sum = 0;
  if (x < 1) {
    for (int k = 1; k <= 5; ++k) sum += std::exp(-std::pow((2 * k - 1) * std::numbers::pi / x, 2) / 8);
    return 1 - std::sqrt(2 * std::numbers::pi) / x * sum;
  }
  for (int k = 1; k <= 5; ++k) sum += (k % 2 == 1 ? 2 : -2) * std::exp(-2.0 * k * k * x * x);
  return sum;
}

namespace {
TestResult kolmogorov_result(double distance, double effective_n) {
  const double root = std::sqrt(effective_n);
  return {distance, std::min(1.0, kolmogorov_tail((root + 0.12 + 0.11 / root) * distance))};
}
}  // namespace

TestResult detail::kolmogorov_smirnov(std::span<const float> values, double (*cdf)(void*, double), void* context) {
  check_values("kolmogorov_smirnov", "values", values);
  std::vector<float> x(values.begin(), values.end());
  std::sort(x.begin(), x.end());
  const auto n = static_cast<double>(x.size());
  double distance = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double f = cdf(context, static_cast<double>(x[i]));
    check(f >= 0 && f <= 1, "kolmogorov_smirnov: the distribution function gives ", f, " at ", x[i], "; it must lie in [0, 1]");
    distance = std::max({distance, f - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - f});
  }
  return kolmogorov_result(distance, n);
}

TestResult kolmogorov_smirnov(std::span<const float> values) {
  return kolmogorov_smirnov(values, [](double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); });
}

TestResult kolmogorov_smirnov(std::span<const float> x, std::span<const float> y) {
  check_values("kolmogorov_smirnov", "x", x);
  check_values("kolmogorov_smirnov", "y", y);
  std::vector<float> a(x.begin(), x.end()), b(y.begin(), y.end());
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  const auto n = static_cast<double>(a.size()), m = static_cast<double>(b.size());
  double distance = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const float at = std::min(a[i], b[j]);
    while (i < a.size() && a[i] == at) ++i;
    while (j < b.size() && b[j] == at) ++j;
    distance = std::max(distance, std::abs(static_cast<double>(i) / n - static_cast<double>(j) / m));
  }
  return kolmogorov_result(distance, n * m / (n + m));
}

// --- nearest neighbours ---

Matrix nearest_distances(ConstRows<float> x, ConstRows<float> y) {
  check_pair("nearest_distances", x, y);
  const PackedColumns columns(y, std::numeric_limits<float>::infinity());
  Matrix nearest(x.rows(), 1);
  parallel_for(tile_count(x.rows()), 1, [&](Index begin, Index end) {
    Tile tile;
    for (Index i = begin; i < end; ++i) {
      const Index rows = rows_of_tile(i, x.rows());
      float* const lowest = nearest.data() + i * kPairTile;
      std::fill(lowest, lowest + rows, std::numeric_limits<float>::infinity());
      for (Index j = 0; j < tile_count(y.rows()); ++j) {
        fill_tile(tile, x, i, columns, j);
        pair_kernels().lowest(tile.value, rows, lowest);
      }
      for (Index r = 0; r < rows; ++r) lowest[r] = std::sqrt(lowest[r]);
    }
  });
  for (Index r = 0; r < x.rows(); ++r) check_result("nearest_distances", nearest(r, 0));
  return nearest;
}

double nearest_neighbour_ratio(ConstRows<float> samples, ConstRows<float> train, ConstRows<float> held_out) {
  const Matrix to_train = nearest_distances(samples, train), to_held_out = nearest_distances(samples, held_out);
  std::vector<double> ratio(static_cast<std::size_t>(samples.rows()));
  for (Index r = 0; r < samples.rows(); ++r) {
    const auto t = static_cast<double>(to_train(r, 0)), h = static_cast<double>(to_held_out(r, 0));
    ratio[static_cast<std::size_t>(r)] = t == h ? 1.0 : t / h;  // t / 0 is infinite, and sorts behind
  }
  std::sort(ratio.begin(), ratio.end());
  const std::size_t n = ratio.size();
  return n % 2 == 1 ? ratio[n / 2] : 0.5 * (ratio[n / 2 - 1] + ratio[n / 2]);
}

// --- moments ---

MatrixD column_mean(ConstRows<float> x) {
  check_samples("column_mean", "x", x);
  MatrixD mean(1, x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) mean(0, c) += static_cast<double>(x(r, c));
  }
  for (Index c = 0; c < x.cols(); ++c) mean(0, c) /= static_cast<double>(x.rows());
  return mean;
}

MatrixD covariance(ConstRows<float> x) {
  check_samples("covariance", "x", x);
  check(x.rows() >= 2, "covariance: x has one row; at least two are needed");
  const MatrixD mean = column_mean(x);
  MatrixD centred(x);
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) centred(r, c) -= mean(0, c);
  }
  MatrixD result(x.cols(), x.cols());
  parallel_for(x.cols(), 1, [&](Index begin, Index end) {
    for (Index r = 0; r < x.rows(); ++r) {
      for (Index i = begin; i < end; ++i) {
        const double value = centred(r, i);
        for (Index j = 0; j <= i; ++j) result(i, j) += value * centred(r, j);
      }
    }
    for (Index i = begin; i < end; ++i) {
      for (Index j = 0; j <= i; ++j) result(i, j) /= static_cast<double>(x.rows() - 1);
    }
  });
  for (Index i = 0; i < x.cols(); ++i) {
    for (Index j = 0; j < i; ++j) result(j, i) = result(i, j);
  }
  return result;
}

MatrixD column_moments(ConstRows<float> x) {
  const MatrixD mean = column_mean(x);
  MatrixD moments(4, x.cols());
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const double d = static_cast<double>(x(r, c)) - mean(0, c);
      moments(1, c) += d * d;
      moments(2, c) += d * d * d;
      moments(3, c) += d * d * d * d;
    }
  }
  const auto n = static_cast<double>(x.rows());
  for (Index c = 0; c < x.cols(); ++c) {
    const double variance = moments(1, c) / n;
    moments(0, c) = mean(0, c);
    moments(1, c) = variance;
    moments(2, c) = variance > 0 ? moments(2, c) / n / std::pow(variance, 1.5) : 0;
    moments(3, c) = variance > 0 ? moments(3, c) / n / (variance * variance) - 3 : 0;
  }
  return moments;
}

}  // namespace tweedie
