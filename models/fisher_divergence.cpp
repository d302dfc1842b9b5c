// SPDX-License-Identifier: MIT
#include "tweedie/models/fisher_divergence.h"

#include <algorithm>
#include <cmath>

#include "tweedie/core/parallel.h"

namespace tweedie {

namespace {

// Sums over draws of a = |s_model - s_exact|^2 and b = |s_exact|^2.
struct Sums {
  double a = 0, b = 0, aa = 0, ab = 0, bb = 0;
  Sums operator+(const Sums& o) const { return {a + o.a, b + o.b, aa + o.aa, ab + o.ab, bb + o.bb}; }
};

// squares(r, 0) = a, squares(r, 1) = b of row r of x.
void square_errors(const ScoreModel& model, const ScoreModel& oracle, double sigma, ConstRows<float> x, Rows<double> squares) {
  Matrix guess(x.rows(), x.cols());
  const MatrixD wide(x);
  MatrixD exact(x.rows(), x.cols());
  const float level = static_cast<float>(sigma);
  const double wide_level = sigma;
  model.score(x, std::span(&level, 1), nullptr, guess);
  oracle.score(wide, std::span(&wide_level, 1), nullptr, exact);
  for (Index r = 0; r < x.rows(); ++r) {
    double a = 0, b = 0;
    for (Index j = 0; j < x.cols(); ++j) {
      const double error = static_cast<double>(guess(r, j)) - exact(r, j);
      a += error * error;
      b += exact(r, j) * exact(r, j);
    }
    check<DivergedError>(std::isfinite(a), "fisher_divergence: the score of ", model.name(), " is not finite at sigma = ", sigma);
    squares(r, 0) = a;
    squares(r, 1) = b;
  }
}

LevelError level_error(const Sums& sums, double sigma, Index draws, Index dim) {
  const double n = static_cast<double>(draws), scale = sigma * sigma / static_cast<double>(dim);
  const double a = sums.a / n, b = sums.b / n;
  const auto covariance = [n](double xy, double x, double y) { return std::max(0., (xy / n - x * y) * n / (n - 1)); };
  const double var_a = covariance(sums.aa, a, a), var_b = covariance(sums.bb, b, b);
  const double cov_ab = (sums.ab / n - a * b) * n / (n - 1);
  const double ratio = a / b;
  // Var(a/b) ~ (Var a - 2 r Cov(a, b) + r^2 Var b) / (n b^2)
  const double ratio_variance = std::max(0., var_a - 2 * ratio * cov_ab + ratio * ratio * var_b) / (n * b * b);
  return {sigma, scale * a, scale * std::sqrt(var_a / n), ratio, std::sqrt(ratio_variance), scale * b};
}

// draw(level's stream) gives the (draws, D) noiseless rows of one level.
template <class Draw>
FisherDivergence measure(const ScoreModel& model, const ScoreModel& oracle, const NoiseLevels& levels,
                         const FisherDivergenceOptions& options, Rng rng, const Draw& draw) {
  check(model.dim() == oracle.dim(), "fisher_divergence: the model's dimension is ", model.dim(), ", the oracle's ",
        oracle.dim());
  check(options.draws >= 2, "fisher_divergence: draws = ", options.draws, ", at least 2 are needed for a standard error");
  check(options.batch >= 1, "fisher_divergence: batch = ", options.batch, " must be at least 1");
  FisherDivergence result;
  double variance = 0;
  for (const double sigma : levels.values()) {
    const Rng stream = rng.split();
    Matrix x = draw(stream);
    MatrixD squares(options.draws, 2);
    parallel_for(options.draws, options.batch, [&](Index begin, Index end) {
      for (Index first = begin; first < end; first += options.batch) {
        const Index count = std::min(options.batch, end - first);
        Matrix noise(count, x.cols());
        stream.normals<float>(Purpose::perturb, 0, static_cast<std::uint64_t>(first), noise);
        const Rows<float> rows = x.middle_rows(first, count);
        for (Index r = 0; r < count; ++r) {
          for (Index j = 0; j < x.cols(); ++j) rows(r, j) += static_cast<float>(sigma) * noise(r, j);
        }
        square_errors(model, oracle, sigma, rows, squares.middle_rows(first, count));
      }
    });
    const Sums sums = parallel_sum(options.draws, [&](Index begin, Index end) {
      Sums s;
      for (Index r = begin; r < end; ++r) {
        const double a = squares(r, 0), b = squares(r, 1);
        s = s + Sums{a, b, a * a, a * b, b * b};
      }
      return s;
    });
    result.levels.push_back(level_error(sums, sigma, options.draws, model.dim()));
    const double count = static_cast<double>(levels.size());
    result.mean_error += result.levels.back().error / count;
    result.mean_zero_error += result.levels.back().zero_error / count;
    variance += std::pow(result.levels.back().standard_error / count, 2);
  }
  result.mean_standard_error = std::sqrt(variance);
  return result;
}

}  // namespace

FisherDivergence fisher_divergence(const ScoreModel& model, const GaussianMixture& oracle, const NoiseLevels& levels,
                                   const FisherDivergenceOptions& options, Rng rng) {
  return measure(model, oracle, levels, options, rng, [&](const Rng& stream) { return oracle.sample(options.draws, stream); });
}

FisherDivergence fisher_divergence(const ScoreModel& model, const ScoreModel& oracle, ConstRows<float> data,
                                   const NoiseLevels& levels, const FisherDivergenceOptions& options, Rng rng) {
  check(data.rows() >= 1 && data.cols() == oracle.dim(), "fisher_divergence: data is ", shape(data),
        ", the oracle's dimension is ", oracle.dim());
  return measure(model, oracle, levels, options, rng, [&](const Rng& stream) {
    Matrix rows(options.draws, data.cols());
    for (Index r = 0; r < options.draws; ++r) {
      const Index pick = static_cast<Index>(
          stream.integer(Purpose::row, 0, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(data.rows())));
      for (Index j = 0; j < data.cols(); ++j) rows(r, j) = data(pick, j);
    }
    return rows;
  });
}

}  // namespace tweedie
