// energy_network.cpp - the gradient of an inner product, on the tape.
// SPDX-License-Identifier: MIT
#include "tweedie/models/energy_network.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/models/detail/trunk.h"

namespace tweedie {

ParameterLayout EnergyNetwork::layout_of(const Options& options) {
  check(options.parametrisation == Parametrisation::edm, "EnergyNetwork: parametrisation = ", to_string(options.parametrisation),
        "; an energy's score is that of edm");
  return detail::Trunk::layout_of(options);
}

EnergyNetwork::EnergyNetwork(const Options& options, Rng rng)
    : EnergyNetwork(options, detail::draw_frequencies(options, rng), rng) {}

EnergyNetwork::EnergyNetwork(const Options& options, std::vector<double> frequencies, Rng rng)
    : Network(layout_of(options)),
      options_(options),
      trunk_(std::make_unique<detail::Trunk>("energy_network", options, std::move(frequencies))) {
  initialise(rng);
}

EnergyNetwork::~EnergyNetwork() = default;

void EnergyNetwork::initialise(Rng rng) {
  trunk_->initialise(rng, layout(), parameters().data());
  parameters_changed();
}

Strings EnergyNetwork::config() const { return trunk_->config(); }

std::map<std::string, std::vector<double>> EnergyNetwork::buffers() const { return trunk_->buffers(); }

std::unique_ptr<Network> EnergyNetwork::clone() const {
  auto copy = std::make_unique<EnergyNetwork>(options_, trunk_->frequencies(), Rng{0});
  std::copy(parameters().begin(), parameters().end(), copy->parameters().begin());
  copy->parameters_changed();
  return copy;
}

template <class S>
VarX<S> EnergyNetwork::scaled_score_on(TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                                       const NoiseInput<S>& noise) const {
  trunk_->check_input(parameters, x, noise);
  const auto column = [&](const auto& f) { return detail::sigma_column(tape, noise.sigma, f); };
  const double sd = options_.sigma_data;
  const bool recording = tape.recording();
  const PauseRecording<S> record(tape, true);  // the gradient runs over the nodes of g
  const VarX<S> c_in = column([&](double s) { return trunk_->c_in(s); });
  VarX<S> scaled_x = x * c_in;
  if (!scaled_x.differentiable()) scaled_x = tape.parameter(scaled_x.value());
  const VarX<S> g = dot_cols(scaled_x, trunk_->forward(tape, parameters, scaled_x, noise));  // (B, 1)
  VarX<S> f;                                                                                 // (B, D) dg/dx'
  grad_into<S>(g, std::span<const VarX<S>>(&scaled_x, 1), std::span<VarX<S>>(&f, 1), {.create_graph = true},
               tape.full(x.rows(), 1, S(1)));
  const VarX<S> linear_part = x * column([&](double s) { return -s * std::pow(trunk_->c_in(s), 2); });
  const VarX<S> u = linear_part + sd * c_in * f;
  return recording ? u : stop_gradient(u);
}

Var EnergyNetwork::scaled_score(Tape& tape, std::span<const Var> parameters, Var x, const NoiseInput<float>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

VarD EnergyNetwork::scaled_score(TapeD& tape, std::span<const VarD> parameters, VarD x, const NoiseInput<double>& noise) const {
  return scaled_score_on(tape, parameters, x, noise);
}

Var EnergyNetwork::log_variance(Tape& tape, std::span<const Var> parameters, const NoiseInput<float>& noise) const {
  return trunk_->log_variance(tape, parameters, noise);
}

VarD EnergyNetwork::log_variance(TapeD& tape, std::span<const VarD> parameters, const NoiseInput<double>& noise) const {
  return trunk_->log_variance(tape, parameters, noise);
}

void EnergyNetwork::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const {
  score_on_tape(y, sigma, condition, out);
}

void EnergyNetwork::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                          Rows<double> out) const {
  score_on_tape(y, sigma, condition, out);
}

void EnergyNetwork::energy(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                           std::span<double> out) const {
  check_rows(y, sigma, condition, Rows<double>(nullptr, y.rows(), y.cols()));
  check(static_cast<Index>(out.size()) == y.rows(), name(), ": energy has room for ", out.size(), " values, y has ", y.rows(),
        " rows");
  const auto flat = parameters_in<double>();
  const auto finish = [&](Index first, ConstRows<double> scaled_y, ConstRows<double> f) {
    for (Index r = 0; r < f.rows(); ++r) {
      const double s = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(first + r)];
      double square = 0, g = 0;  // |c_in y|^2 = |y|^2 / (sigma^2 + sd^2)
      for (Index d = 0; d < f.cols(); ++d) {
        square += scaled_y(r, d) * scaled_y(r, d);
        g += scaled_y(r, d) * f(r, d);
      }
      out[static_cast<std::size_t>(first + r)] = -.5 * square + options_.sigma_data / s * g;
    }
  };
  trunk_->for_blocks<double>(flat->data(), nullptr, y, sigma, condition, std::ref(finish));
}

}  // namespace tweedie
