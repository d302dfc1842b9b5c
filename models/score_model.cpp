// SPDX-License-Identifier: MIT
#include "tweedie/models/score_model.h"

#include <algorithm>
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

void ScoreModel::energy(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                        std::span<double> out) const {
  check(has_log_density(), name(),
        ": this model knows its score, not its energy; use an exact mixture (GaussianMixture, EmpiricalMixture) or train an "
        "EnergyNetwork");
  log_density(y, sigma, condition, out);
}

void ScoreModel::jvp(ConstRows<double>, std::span<const double>, const Condition*, ConstRows<double>, Rows<double>,
                     Rows<double>) const {
  fail(name(),
       ": this model cannot differentiate its score (jvp); use a network or an exact mixture, or give FunctionScore the "
       "derivative as its third argument");
}

void ScoreModel::vjp(ConstRows<double>, std::span<const double>, const Condition*, ConstRows<double>, Rows<double>,
                     Rows<double>) const {
  fail(name(),
       ": this model cannot differentiate its score (vjp); use a network or an exact mixture, or a method without the "
       "score's derivative (RePaint imputation)");
}

void ScoreModel::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                            std::span<double> out) const {
  check(static_cast<Index>(out.size()) == y.rows(), name(), ": divergence has room for ", out.size(), " values, y has ", y.rows(),
        " rows");
  MatrixD v(y.rows(), y.cols()), product(y.rows(), y.cols());
  std::fill(out.begin(), out.end(), 0.);
  for (Index d = 0; d < y.cols(); ++d) {
    for (Index b = 0; b < y.rows(); ++b) {
      std::fill(v.row(b).begin(), v.row(b).end(), 0.);
      v(b, d) = 1;
    }
    jvp(y, sigma, condition, v, score, product);
    for (Index b = 0; b < y.rows(); ++b) out[static_cast<std::size_t>(b)] += product(b, d);
  }
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

template <class S>
void ScoreModel::check_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
  check(y.cols() == dim(), name(), ": y is ", shape(y), ", the network's dimension is ", dim());
  check(out.rows() == y.rows() && out.cols() == y.cols(), name(), ": out is ", shape(out), ", y is ", shape(y),
        "; give them the same shape");
  check(sigma.size() == 1 || static_cast<Index>(sigma.size()) == y.rows(), name(), ": ", sigma.size(), " noise levels for ",
        y.rows(), " rows; give one for all or one per row");
  if (condition == nullptr || (condition->labels.empty() && condition->covariates.empty())) return;
  check(num_classes() > 0 || covariate_dim() > 0, name(), ": this network takes no condition; pass nullptr");
  const auto labels = static_cast<Index>(condition->labels.size());
  check((num_classes() > 0) == (labels > 0), name(), ": the network has ", num_classes(), " classes and ", labels,
        " labels are given with the condition; give what it was trained with, or no condition at all");
  check(labels <= 1 || labels == y.rows(), name(), ": ", labels, " labels for ", y.rows(),
        " rows; give one for all or one per row");
  for (const std::int32_t label : condition->labels) {
    check(label >= 0 && label < num_classes(), name(), ": label ", label, ", expected 0 to ", num_classes() - 1);
  }
  const ConstRows<float> covariates = condition->covariates;
  check((covariates.empty() ? 0 : covariates.cols()) == covariate_dim(), name(), ": the covariates are ", shape(covariates),
        ", the network has ", covariate_dim(), " columns of them; give what it was trained with, or no condition at all");
  check(covariates.empty() || covariates.rows() == 1 || covariates.rows() == y.rows(), name(), ": covariates ", shape(covariates),
        " for ", y.rows(), " rows; give one row for all or one per row");
}

template void ScoreModel::check_rows(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const;
template void ScoreModel::check_rows(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const;

void ScoreModel::check_traces(ConstRows<double> y, std::span<const double> out) const {
  check(static_cast<Index>(out.size()) == y.rows(), name(), ": divergence has room for ", out.size(), " values, y has ", y.rows(),
        " rows");
}

bool ScoreModel::has_chain(std::span<const double>) const { return false; }

void ScoreModel::run_chain(const LinearChain&, const Condition*, Rows<float>, Rows<float>, std::span<std::int32_t>) const {
  fail(name(), ": this model runs no chains of steps; evaluate its score() step by step");
}

void ScoreModel::check_derivative(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                  ConstRows<double> v, Rows<double> score, Rows<double> out) const {
  check_arguments(y, sigma, condition, score);
  check(v.rows() == y.rows() && v.cols() == y.cols() && out.rows() == y.rows() && out.cols() == y.cols(), name(),
        ": derivative with v ", shape(v), " and out ", shape(out), ", y is ", shape(y), "; give them the same shape");
}

FunctionScore::FunctionScore(Index dim, Function function, Derivative derivative)
    : dim_(dim), function_(std::move(function)), derivative_(std::move(derivative)) {
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

void FunctionScore::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                        Rows<double> score, Rows<double> out) const {
  if (!derivative_) return ScoreModel::jvp(y, sigma, condition, v, score, out);
  this->score(y, sigma, condition, score);
  check(v.rows() == y.rows() && v.cols() == y.cols() && out.rows() == y.rows() && out.cols() == y.cols(), name(), ": jvp with v ",
        shape(v), " and out ", shape(out), ", y is ", shape(y), "; give them the same shape");
  derivative_(y, sigma, v, out);
}

}  // namespace tweedie
