// SPDX-License-Identifier: MIT
#include "tweedie/models/score_model.h"

#include <limits>
#include <utility>
#include <vector>

namespace tweedie {

ScoreModel::~ScoreModel() = default;

double ScoreModel::sigma_max() const { return std::numeric_limits<double>::infinity(); }

void ScoreModel::log_density(ConstRows<double>, std::span<const double>, const Condition*, std::span<double>) const {
  fail(name(),
       ": this model knows its score, not its density; use an exact mixture (GaussianMixture, EmpiricalMixture), or "
       "integrate the score with the probability-flow log-density");
}

template <class S>
void ScoreModel::check_arguments(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
  check(y.cols() == dim(), name(), ": y is ", shape(y), ", the model's dimension is ", dim());
  check(out.rows() == y.rows() && out.cols() == y.cols(), name(), ": out is ", shape(out), ", y is ", shape(y),
        "; give them the same shape");
  check(sigma.size() == 1 || static_cast<Index>(sigma.size()) == y.rows(), name(), ": ", sigma.size(), " noise levels for ",
        y.rows(), " rows; give one for all or one per row");
  check(condition == nullptr || (condition->labels.empty() && condition->covariates.empty()), name(),
        ": this model takes no condition; pass nullptr");
  // Compared in S: a float's .01 lies just below the double's.
  const S low = static_cast<S>(sigma_min()), high = static_cast<S>(sigma_max());
  for (const S s : sigma) {
    check(s >= low && s <= high, name(), ": sigma = ", s, " is outside the model's range [", sigma_min(), ", ", sigma_max(), "]");
  }
}

template void ScoreModel::check_arguments(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const;
template void ScoreModel::check_arguments(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const;

FunctionScore::FunctionScore(Index dim, Function function) : dim_(dim), function_(std::move(function)) {
  check(dim >= 1, "FunctionScore: dimension ", dim, " must be at least 1");
  check(function_ != nullptr, "FunctionScore: the function is empty");
}

FunctionScore::~FunctionScore() = default;

void FunctionScore::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const {
  check_arguments(y, sigma, condition, out);
  const MatrixD wide(y);
  MatrixD result(y.rows(), y.cols());
  const std::vector<double> wide_sigma(sigma.begin(), sigma.end());
  function_(wide, wide_sigma, result);
  for (Index r = 0; r < out.rows(); ++r) {
    for (Index c = 0; c < out.cols(); ++c) out(r, c) = static_cast<float>(result(r, c));
  }
}

void FunctionScore::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                          Rows<double> out) const {
  check_arguments(y, sigma, condition, out);
  const MatrixD copy(y);  // `out` may be y, which the function need not know
  function_(copy, sigma, out);
}

}  // namespace tweedie
