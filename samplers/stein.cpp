// stein.cpp - u over tiles of 64 x 64 pairs at and below the diagonal (u is symmetric); nothing of size n x n is stored.
//
//   With d = x - y, q = c^2 + |d|^2:   k = q^beta,   grad_x k = 2 beta q^(beta-1) d = -grad_y k,
//   tr(grad_x grad_y k) = -2 beta D q^(beta-1) - 4 beta (beta-1) |d|^2 q^(beta-2), so
//   u = q^beta s(x).s(y) + 2 beta q^(beta-1) ((s(y) - s(x)).d - D) - 4 beta (beta-1) |d|^2 q^(beta-2)
//   Conditions add their squared distance to q, and nothing else.
// SPDX-License-Identifier: MIT
#include "tweedie/samplers/stein.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {
namespace {

constexpr Index kTile = 64;

/// Samples and their scores, as rows and, tile by tile, as columns.
struct Points {
  MatrixD x, s;                // (n, D)
  std::vector<double> xt, st;  // tile t is (D, 64) at t D 64; columns past the end are zero
  Condition conditions;        // (n) labels, (n, C) covariates, or neither
  Index n = 0, dim = 0;

  Index tiles() const { return (n + kTile - 1) / kTile; }
  Index rows_of(Index tile) const { return std::min(kTile, n - tile * kTile); }
};

void check_kernel(const char* function, const SteinKernel& kernel) {
  check(kernel.c > 0 && std::isfinite(kernel.c), function, ": the kernel's c is ", kernel.c, "; it must be positive");
  check(kernel.beta > -1 && kernel.beta < 0, function, ": the kernel's beta is ", kernel.beta, "; it must lie in (-1, 0)");
}

void check_conditions(const char* function, const ScoreModel& model, Index n, const Condition& c) {
  const auto labels = static_cast<Index>(c.labels.size());
  check((labels == 0 || labels == n) && (c.covariates.rows() == 0 || c.covariates.rows() == n), function, ": ", n,
        " samples have ", labels, " labels and ", c.covariates.rows(), " rows of covariates; ", model.name(),
        " needs one for each sample");
}

/// The conditions of n samples from `first` on.
Condition part_of(const Condition& c, Index first, Index n) {
  Condition part;
  if (!c.labels.empty()) part.labels = c.labels.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
  if (c.covariates.rows() > 0) part.covariates = c.covariates.middle_rows(first, n);
  return part;
}

Points prepare(const char* function, const ScoreModel& model, double sigma, ConstRows<float> samples,
               const Condition* conditions) {
  check(samples.rows() >= 2 && samples.cols() == model.dim(), function, ": samples has shape ", shape(samples), "; ",
        model.name(), " needs ", model.dim(), " columns, the statistic two rows");
  Points p;
  p.n = samples.rows();
  if (conditions != nullptr) {
    check_conditions(function, model, p.n, *conditions);
    p.conditions = *conditions;
  }
  p.dim = samples.cols();
  p.x = MatrixD(samples);
  p.s = MatrixD(p.n, p.dim);
  for (Index i = 0; i < p.x.size(); ++i) {
    check<DataError>(std::isfinite(p.x.data()[i]), function, ": samples holds ", p.x.data()[i], " at row ", i / p.dim,
                     "; remove such rows first");
  }
  parallel_for(p.n, 1024, [&](Index begin, Index end) {
    const Condition part = part_of(p.conditions, begin, end - begin);
    model.score(p.x.view().middle_rows(begin, end - begin), std::span(&sigma, 1), conditions != nullptr ? &part : nullptr,
                p.s.middle_rows(begin, end - begin));
  });
  p.xt.resize(static_cast<std::size_t>(p.tiles() * p.dim * kTile));
  p.st.resize(p.xt.size());
  for (Index r = 0; r < p.n; ++r) {
    for (Index d = 0; d < p.dim; ++d) {
      check<DivergedError>(std::isfinite(p.s(r, d)), function, ": the score of ", model.name(), " is ", p.s(r, d),
                           " at sigma = ", sigma, ", row ", r, "; are the samples those of a diverged chain?");
      const auto at = static_cast<std::size_t>((r / kTile * p.dim + d) * kTile + r % kTile);
      p.xt[at] = p.x(r, d);
      p.st[at] = p.s(r, d);
    }
  }
  return p;
}

/// Squared distances of the conditions of row i and of the tile's.
void add_condition_distances(const Points& p, Index i, Index tile, double* apart) {
  const Condition& c = p.conditions;
  if (c.labels.empty() && c.covariates.cols() == 0) return;
  for (Index j = 0; j < p.rows_of(tile); ++j) {
    const Index other = tile * kTile + j;
    if (!c.labels.empty() && c.labels[static_cast<std::size_t>(i)] != c.labels[static_cast<std::size_t>(other)]) apart[j] += 2;
    for (Index d = 0; d < c.covariates.cols(); ++d) {
      const double difference = static_cast<double>(c.covariates(i, d)) - static_cast<double>(c.covariates(other, d));
      apart[j] += difference * difference;
    }
  }
}

/// u of row i with the 64 columns of a tile.
void stein_row(const Points& p, const SteinKernel& kernel, Index i, Index tile, double* u) {
  double square[kTile] = {}, product[kTile] = {}, drift[kTile] = {}, apart[kTile] = {};
  add_condition_distances(p, i, tile, apart);
  for (Index d = 0; d < p.dim; ++d) {
    const double x = p.x(i, d), s = p.s(i, d);
    const double* const y = p.xt.data() + (tile * p.dim + d) * kTile;
    const double* const t = p.st.data() + (tile * p.dim + d) * kTile;
    for (Index j = 0; j < kTile; ++j) {
      const double difference = x - y[j];
      square[j] += difference * difference;
      product[j] += s * t[j];
      drift[j] += (t[j] - s) * difference;
    }
  }
  const double b = kernel.beta, dim = static_cast<double>(p.dim);
  for (Index j = 0; j < kTile; ++j) {
    const double q = kernel.c * kernel.c + square[j] + apart[j], k = b == -.5 ? 1 / std::sqrt(q) : std::pow(q, b);
    u[j] = k * (product[j] + (2 * b * (drift[j] - dim) - 4 * b * (b - 1) * square[j] / q) / q);
  }
}

/// u over the pairs of tiles i and j, zero past the end: (64, 64).
void stein_tile(const Points& p, const SteinKernel& kernel, Index i, Index j, double* u) {
  std::fill_n(u, kTile * kTile, 0.0);
  for (Index r = 0; r < p.rows_of(i); ++r) {
    stein_row(p, kernel, i * kTile + r, j, u + r * kTile);
    std::fill(u + r * kTile + p.rows_of(j), u + (r + 1) * kTile, 0.0);
  }
}

/// Sums over all pairs and over the diagonal.
struct Sums {
  double all = 0, diagonal = 0;
  Sums operator+(const Sums& o) const { return {all + o.all, diagonal + o.diagonal}; }
};

SteinDiscrepancy discrepancy(const char* function, const Points& p, const SteinKernel& kernel) {
  const Sums sums = parallel_sum(p.n, [&](Index begin, Index) {  // leaves are tiles
    std::vector<double> u(kTile * kTile);
    Sums leaf;
    const Index i = begin / kTile;
    for (Index j = 0; j <= i; ++j) {
      stein_tile(p, kernel, i, j, u.data());
      double tile = 0;
      for (const double value : u) tile += value;
      leaf.all += j < i ? 2 * tile : tile;
    }
    for (Index r = 0; r < kTile; ++r) leaf.diagonal += u[static_cast<std::size_t>(r * (kTile + 1))];
    return leaf;
  });
  check<DataError>(std::isfinite(sums.all), function, ": the statistic overflows; are the samples those of a diverged chain?");
  const double n = static_cast<double>(p.n);
  return {(sums.all - sums.diagonal) / (n * (n - 1)), sums.all / (n * n)};
}

/// signs(i, b) = w_i of bootstrap b, +-1, as (n, B) bytes.
std::vector<signed char> random_signs(Index n, Index bootstraps, double sign_change, const Rng& rng) {
  std::vector<signed char> signs(static_cast<std::size_t>(n * bootstraps));
  constexpr Index kWords = 4;
  const double threshold = sign_change * 0x1p32;
  parallel_for((bootstraps + kWords - 1) / kWords, 16, [&](Index begin, Index end) {
    for (Index block = begin; block < end; ++block) {
      for (Index i = 0; i < n; ++i) {
        std::uint32_t words[kWords];
        rng.words(Purpose::bootstrap, 0, static_cast<std::uint64_t>(i), static_cast<std::uint32_t>(block), 0, words);
        for (Index w = 0; w < kWords && block * kWords + w < bootstraps; ++w) {
          const Index at = i * bootstraps + block * kWords + w;
          const int before = i == 0 ? 1 : signs[static_cast<std::size_t>(at - bootstraps)];
          signs[static_cast<std::size_t>(at)] = static_cast<signed char>(words[w] < threshold ? -before : before);
        }
      }
    }
  });
  return signs;
}

/// sum_ij w_i w_j u_ij for every bootstrap, tile by tile: w_I . (U_IJ w_J).
MatrixD bootstrap_sums(const Points& p, const SteinKernel& kernel, Index bootstraps, const std::vector<signed char>& signs) {
  MatrixD partial(p.tiles(), bootstraps);  // a row per tile, added up in order
  parallel_for(p.tiles(), 1, [&](Index begin, Index end) {
    std::vector<double> u(kTile * kTile);
    MatrixD w(kTile, bootstraps), uw(kTile, bootstraps);
    for (Index i = begin; i < end; ++i) {
      for (Index j = 0; j <= i; ++j) {
        stein_tile(p, kernel, i, j, u.data());
        const signed char* const from = signs.data() + j * kTile * bootstraps;
        // Twice the tiles below the diagonal.
        for (Index at = 0; at < p.rows_of(j) * bootstraps; ++at) w.data()[at] = (j < i ? 2 : 1) * from[at];
        kernels::gemm({.m = kTile, .n = bootstraps, .k = p.rows_of(j), .beta = j == 0 ? 0.0F : 1.0F}, u.data(), kTile, w.data(),
                      bootstraps, uw.data(), bootstraps);
      }
      for (Index r = 0; r < p.rows_of(i); ++r) {
        const signed char* const sign = signs.data() + (i * kTile + r) * bootstraps;
        for (Index b = 0; b < bootstraps; ++b) partial(i, b) += sign[b] * uw(r, b);
      }
    }
  });
  MatrixD sums(1, bootstraps);
  for (Index i = 0; i < p.tiles(); ++i) {
    for (Index b = 0; b < bootstraps; ++b) sums(0, b) += partial(i, b);
  }
  return sums;
}

}  // namespace

SteinDiscrepancy stein_discrepancy(const ScoreModel& model, double sigma, ConstRows<float> samples, const SteinKernel& kernel,
                                   const Condition* conditions) {
  check_kernel("stein_discrepancy", kernel);
  return discrepancy("stein_discrepancy", prepare("stein_discrepancy", model, sigma, samples, conditions), kernel);
}

SteinTest stein_test(const ScoreModel& model, double sigma, ConstRows<float> samples, const SteinTestOptions& options,
                     const Rng& rng, const Condition* conditions) {
  check_kernel("stein_test", options.kernel);
  check(options.bootstraps >= 1, "stein_test: bootstraps = ", options.bootstraps, "; at least 1 is needed, 999 are usual");
  check(options.sign_change > 0 && options.sign_change <= .5, "stein_test: sign_change = ", options.sign_change,
        "; it must lie in (0, 1/2], 1/2 for independent samples");
  const Points points = prepare("stein_test", model, sigma, samples, conditions);
  const double statistic = discrepancy("stein_test", points, options.kernel).v_statistic;
  const std::vector<signed char> signs = random_signs(points.n, options.bootstraps, options.sign_change, rng);
  const MatrixD sums = bootstrap_sums(points, options.kernel, options.bootstraps, signs);
  const double n = static_cast<double>(points.n);
  Index reached = 0;
  for (const double sum : sums.row(0)) reached += sum / (n * n) >= statistic ? 1 : 0;
  return {statistic, static_cast<double>(1 + reached) / (1 + options.bootstraps)};
}

}  // namespace tweedie
