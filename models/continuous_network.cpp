// continuous_network.cpp - u = a(sigma) x + b(sigma) F: the parametrisations around the trunk that computes F.
// SPDX-License-Identifier: MIT
#include "tweedie/models/continuous_network.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "tweedie/autodiff/ops.h"
#include "tweedie/models/detail/parametrisation.h"
#include "tweedie/models/detail/perceptron.h"
#include "tweedie/models/detail/trunk.h"

namespace tweedie {

namespace {

template <class E>
E by_name(const char* what, std::string_view name, std::initializer_list<E> all) {
  std::string known;
  for (const E e : all) {
    if (name == to_string(e)) return e;
    known += join(known.empty() ? "" : ", ", to_string(e));
  }
  fail(what, " '", name, "' is unknown; choose one of: ", known);
}

}  // namespace

const char* to_string(Architecture architecture) { return architecture == Architecture::mlp ? "mlp" : "residual"; }

const char* to_string(NoiseEmbedding embedding) { return embedding == NoiseEmbedding::fourier ? "fourier" : "log_sigma"; }

const char* to_string(Parametrisation parametrisation) {
  switch (parametrisation) {
    case Parametrisation::edm:
      return "edm";
    case Parametrisation::score:
      return "score";
    case Parametrisation::epsilon:
      return "epsilon";
    case Parametrisation::x0:
      return "x0";
    case Parametrisation::v:
      return "v";
  }
  fail("parametrisation: unknown kind");
}

Architecture architecture(std::string_view name) {
  return by_name("architecture", name, {Architecture::mlp, Architecture::residual});
}

NoiseEmbedding noise_embedding(std::string_view name) {
  return by_name("noise embedding", name, {NoiseEmbedding::fourier, NoiseEmbedding::log_sigma});
}

Parametrisation parametrisation(std::string_view name) {
  return by_name(
      "parametrisation", name,
      {Parametrisation::edm, Parametrisation::score, Parametrisation::epsilon, Parametrisation::x0, Parametrisation::v});
}

Parametrisation parametrisation(Prediction prediction) { return parametrisation(to_string(prediction)); }

double data_deviation(ConstRows<float> data) {
  check<DataError>(data.rows() >= 2 && data.cols() >= 1, "data_deviation: the data is ", shape(data),
                   "; a deviation needs at least two rows and a column");
  double sum = 0;
  for (Index c = 0; c < data.cols(); ++c) {
    double mean = 0, squares = 0;
    for (Index r = 0; r < data.rows(); ++r) mean += static_cast<double>(data(r, c));
    mean /= static_cast<double>(data.rows());
    for (Index r = 0; r < data.rows(); ++r) squares += std::pow(static_cast<double>(data(r, c)) - mean, 2);
    sum += squares / static_cast<double>(data.rows());
  }
  const double deviation = std::sqrt(sum / static_cast<double>(data.cols()));
  check<DataError>(std::isfinite(deviation) && deviation > 0, "data_deviation: the deviation of the data ", shape(data), " is ",
                   deviation, "; drop constant data and cells that are not finite");
  return deviation;
}

ParameterLayout ContinuousScoreNetwork::layout_of(const Options& options) { return detail::Trunk::layout_of(options); }

ContinuousScoreNetwork::ContinuousScoreNetwork(const Options& options, Rng rng)
    : ContinuousScoreNetwork(options, detail::draw_frequencies(options, rng), rng) {}

ContinuousScoreNetwork::ContinuousScoreNetwork(const Options& options, std::vector<double> frequencies, Rng rng)
    : Network(layout_of(options)),
      options_(options),
      trunk_(std::make_unique<detail::Trunk>("continuous_score_network", options, std::move(frequencies))) {
  initialise(rng);
}

ContinuousScoreNetwork::~ContinuousScoreNetwork() = default;

void ContinuousScoreNetwork::initialise(Rng rng) {
  trunk_->initialise(rng, layout(), parameters().data());
  parameters_changed();
}

void ContinuousScoreNetwork::parameters_changed() {
  Network::parameters_changed();
  packed_.reset();
}

Strings ContinuousScoreNetwork::config() const { return trunk_->config(); }

std::map<std::string, std::vector<double>> ContinuousScoreNetwork::buffers() const { return trunk_->buffers(); }

std::unique_ptr<Network> ContinuousScoreNetwork::clone() const {
  auto copy = std::make_unique<ContinuousScoreNetwork>(options_, trunk_->frequencies(), Rng{0});
  std::copy(parameters().begin(), parameters().end(), copy->parameters().begin());
  copy->parameters_changed();
  copy->set_precision(precision());
  return copy;
}

template <class S>
VarX<S> ContinuousScoreNetwork::scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                                                const NoiseInput<S>& noise) const {
  trunk_->check_input(parameters, x, noise);
  const auto column = [&](const auto& f) { return detail::sigma_column(tape, noise.sigma, f); };
  const VarX<S> scaled_x = x * column([&](double s) { return trunk_->c_in(s); });
  const VarX<S> f =
      column([&](double s) { return detail::coefficients(options_, s).b; }) * trunk_->forward(tape, parameters, scaled_x, noise);
  const bool alone = options_.parametrisation == Parametrisation::score || options_.parametrisation == Parametrisation::epsilon;
  return alone ? f : x * column([&](double s) { return detail::coefficients(options_, s).a; }) + f;
}

Var ContinuousScoreNetwork::scaled_score(Tape& tape, std::span<const Var> parameters, Var x,
                                         const NoiseInput<float>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

VarD ContinuousScoreNetwork::scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x,
                                          const NoiseInput<double>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

Var ContinuousScoreNetwork::log_variance(Tape& tape, std::span<const Var> parameters, const NoiseInput<float>& noise) const {
  return trunk_->log_variance(tape, parameters, noise);
}

VarD ContinuousScoreNetwork::log_variance(TapeD& tape, std::span<const VarD> parameters, const NoiseInput<double>& noise) const {
  return trunk_->log_variance(tape, parameters, noise);
}

template <class S>
void ContinuousScoreNetwork::score_rows(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
  check_rows(y, sigma, condition, out);
  const std::shared_ptr<const Buffer<S>> flat = parameters_in<S>();
  const auto finish = [&](Index first, ConstRows<S>, ConstRows<S> f) {
    for (Index r = 0; r < f.rows(); ++r) {
      const double at = static_cast<double>(sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(first + r)]);
      const detail::Coefficients c = detail::coefficients(options_, at);
      const S a = static_cast<S>(c.a / at), b = static_cast<S>(c.b / at);
      for (Index d = 0; d < f.cols(); ++d) out(first + r, d) = a * y(first + r, d) + b * f(r, d);
    }
  };
  std::shared_ptr<const detail::PackedMlp> packed;
  if constexpr (sizeof(S) == sizeof(float)) {
    packed = packed_.get([&] { return trunk_->pack(flat->data(), precision()); },
                         [this](const detail::PackedMlp& p) { return p.serves(precision()); });
  }
  trunk_->for_blocks<S>(flat->data(), packed.get(), y, sigma, condition, std::ref(finish));
}

void ContinuousScoreNetwork::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition,
                                   Rows<float> out) const {
  score_rows(y, sigma, condition, out);
}

void ContinuousScoreNetwork::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                   Rows<double> out) const {
  score_rows(y, sigma, condition, out);
}

void ContinuousScoreNetwork::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                        Rows<double> score, std::span<double> out) const {
  if (options_.architecture != Architecture::mlp) return Network::divergence(y, sigma, condition, score, out);
  check_rows(y, sigma, condition, score);
  check_traces(y, out);
  const std::shared_ptr<const Buffer<double>> flat = parameters_in<double>();
  const auto finish = [&](Index first, ConstRows<double> f, const double* trace) {
    for (Index r = 0; r < f.rows(); ++r) {
      const double at = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(first + r)];
      const detail::Coefficients c = detail::coefficients(options_, at);
      const double a = c.a / at, b = c.b / at;
      for (Index d = 0; d < f.cols(); ++d) score(first + r, d) = a * y(first + r, d) + b * f(r, d);
      out[static_cast<std::size_t>(first + r)] = a * static_cast<double>(dim()) + b * trunk_->c_in(at) * trace[r];
    }
  };
  trunk_->for_traced_blocks(flat->data(), y, sigma, condition, std::ref(finish));
}

detail::Perceptron ContinuousScoreNetwork::perceptron() const { return trunk_->perceptron(); }

detail::PerceptronRows ContinuousScoreNetwork::perceptron_rows(std::span<const double> sigma, const Condition* condition,
                                                               Index rows) const {
  if (options_.architecture != Architecture::mlp) return Network::perceptron_rows(sigma, condition, rows);
  detail::PerceptronRows result;
  result.bias = trunk_->first_bias(parameters_in<double>()->data(), sigma, condition, rows);
  result.rows = result.bias.rows();
  for (Index r = 0; r < result.rows; ++r) {
    const double at = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(r)];
    const detail::Coefficients c = detail::coefficients(options_, at);
    result.x.push_back(c.a / at);
    result.f.push_back(c.b / at);
    result.input.push_back(trunk_->c_in(at));
  }
  return result;
}

}  // namespace tweedie
