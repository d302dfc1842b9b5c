// SPDX-License-Identifier: MIT
#include "tweedie/samplers/guidance.h"

#include <cmath>
#include <utility>

namespace tweedie {

namespace {

void check_none(const char* name, const Condition* condition) {
  check(condition == nullptr || (condition->labels.empty() && condition->covariates.empty()), name,
        ": this model carries its own condition; pass nullptr");
}

// out = null + weight (out - null).
template <class S>
void guide(double weight, ConstRows<S> null, Rows<S> out) {
  const S w = static_cast<S>(weight);
  for (Index r = 0; r < out.rows(); ++r) {
    for (Index c = 0; c < out.cols(); ++c) out(r, c) = null(r, c) + w * (out(r, c) - null(r, c));
  }
}

void guide(double weight, std::span<const double> null, std::span<double> out) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = null[i] + weight * (out[i] - null[i]);
}

template <class S>
void guided_score(const ScoreModel& model, double weight, const Condition& condition, ConstRows<S> y, std::span<const S> sigma,
                  Rows<S> out) {
  MatrixX<S> null(y.rows(), y.cols());
  model.score(y, sigma, nullptr, null);
  model.score(y, sigma, &condition, out);  // the last to read y, which `out` may be
  guide<S>(weight, null, out);
}

}  // namespace

Condition OwnedCondition::view() const {
  return {labels_, {covariates_.data(), covariates_.empty() ? 0 : 1, static_cast<Index>(covariates_.size())}};
}

void OwnedCondition::check_for(const ScoreModel& model, const char* function) const {
  const Index classes = model.num_classes(), columns = model.covariate_dim();
  check(
      labels_.empty() || classes > 0, function, ": ", model.name(),
      " knows no classes and cannot be conditioned on a label; train a network with num_classes on labelled rows (tweedie train "
      "--target), its labels dropped in a part of them for guidance");
  check(covariates_.empty() || columns > 0, function, ": ", model.name(),
        " knows no covariates and cannot be conditioned on them; train a network with covariate_dim on rows with covariates, "
        "dropped in a part of them for guidance");
  check(!labels_.empty() || classes == 0, function, ": ", model.name(), " has ", classes, " classes; give a label too");
  check(static_cast<Index>(covariates_.size()) == columns, function, ": ", covariates_.size(), " covariates, ", model.name(),
        " has ", columns);
  if (!labels_.empty()) {
    check(labels_[0] >= 0 && labels_[0] < classes, function, ": label ", labels_[0], ", expected 0 to ", classes - 1);
  }
}

// --- one condition -----------------------------------------------------------------------------------------------------

Conditioned::Conditioned(const ScoreModel& model, OwnedCondition condition)
    : model_(model), condition_(std::move(condition)), name_(join("conditioned ", model.name())) {
  condition_.check_for(model, "Conditioned");
}

Conditioned::~Conditioned() = default;

void Conditioned::score(ConstRows<float> y, std::span<const float> sigma, const Condition* none, Rows<float> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.score(y, sigma, &condition, out);
}

void Conditioned::score(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.score(y, sigma, &condition, out);
}

void Conditioned::log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* none,
                              std::span<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.log_density(y, sigma, &condition, out);
}

void Conditioned::energy(ConstRows<double> y, std::span<const double> sigma, const Condition* none, std::span<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.energy(y, sigma, &condition, out);
}

void Conditioned::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v,
                      Rows<double> score, Rows<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.jvp(y, sigma, &condition, v, score, out);
}

void Conditioned::vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v,
                      Rows<double> score, Rows<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.vjp(y, sigma, &condition, v, score, out);
}

void Conditioned::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> score,
                             std::span<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.divergence(y, sigma, &condition, score, out);
}

void Conditioned::run_chain(const LinearChain& chain, const Condition* none, Rows<float> x, Rows<float> m,
                            std::span<std::int32_t> diverged) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  model_.run_chain(chain, &condition, x, m, diverged);
}

// --- classifier-free guidance ------------------------------------------------------------------------------------------

Guided::Guided(const ScoreModel& model, double weight, OwnedCondition condition)
    : model_(model), weight_(weight), condition_(std::move(condition)), name_(join("guided ", model.name())) {
  check(std::isfinite(weight), "Guided: the weight is ", weight, "; give a finite number, 1 for the plain conditional model");
  condition_.check_for(model, "Guided");
}

Guided::~Guided() = default;

void Guided::score(ConstRows<float> y, std::span<const float> sigma, const Condition* none, Rows<float> out) const {
  check_none(name(), none);
  guided_score(model_, weight_, condition_.view(), y, sigma, out);
}

void Guided::score(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> out) const {
  check_none(name(), none);
  guided_score(model_, weight_, condition_.view(), y, sigma, out);
}

void Guided::energy(ConstRows<double> y, std::span<const double> sigma, const Condition* none, std::span<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  std::vector<double> null(out.size());
  model_.energy(y, sigma, nullptr, null);
  model_.energy(y, sigma, &condition, out);
  guide(weight_, null, out);
}

void Guided::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v,
                 Rows<double> score, Rows<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  MatrixD null_score(y.rows(), y.cols()), null(y.rows(), y.cols());
  model_.jvp(y, sigma, nullptr, v, null_score, null);
  model_.jvp(y, sigma, &condition, v, score, out);
  guide<double>(weight_, null_score, score);
  guide<double>(weight_, null, out);
}

void Guided::vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* none, ConstRows<double> v,
                 Rows<double> score, Rows<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  MatrixD null_score(y.rows(), y.cols()), null(y.rows(), y.cols());
  model_.vjp(y, sigma, nullptr, v, null_score, null);
  model_.vjp(y, sigma, &condition, v, score, out);
  guide<double>(weight_, null_score, score);
  guide<double>(weight_, null, out);
}

void Guided::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* none, Rows<double> score,
                        std::span<double> out) const {
  check_none(name(), none);
  const Condition condition = condition_.view();
  MatrixD null_score(y.rows(), y.cols());
  std::vector<double> null(out.size());
  model_.divergence(y, sigma, nullptr, null_score, null);
  model_.divergence(y, sigma, &condition, score, out);
  guide<double>(weight_, null_score, score);
  guide(weight_, null, out);
}

}  // namespace tweedie
