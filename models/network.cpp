// network.cpp - parameters as leaves of a tape.
// SPDX-License-Identifier: MIT
#include "tweedie/models/network.h"

#include <utility>

#include "tweedie/autodiff/ops.h"

namespace tweedie {

Network::Network(ParameterLayout layout) : layout_(std::move(layout)), parameters_(layout_.size()) {}

Network::~Network() = default;

Var Network::log_variance(Tape&, std::span<const Var>, const NoiseInput<float>&) const { return {}; }
VarD Network::log_variance(TapeD&, std::span<const VarD>, const NoiseInput<double>&) const { return {}; }

template <class S>
std::vector<VarX<S>> parameter_vars(TapeX<S>& tape, const ParameterLayout& layout, const S* flat) {
  std::vector<VarX<S>> vars;
  vars.reserve(static_cast<std::size_t>(layout.count()));
  for (const ParameterTensor& tensor : layout) vars.push_back(tape.parameter(view(tensor, flat)));
  return vars;
}

template <class S>
VarX<S> tape_score(const Network& network, TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                   const NoiseInput<S>& noise) {
  const VarX<S> scaled = network.scaled_score(tape, parameters, x, noise);
  return scaled / tape.constant({noise.sigma.data(), static_cast<Index>(noise.sigma.size()), 1});
}

template std::vector<VarX<float>> parameter_vars(TapeX<float>&, const ParameterLayout&, const float*);
template std::vector<VarX<double>> parameter_vars(TapeX<double>&, const ParameterLayout&, const double*);
template VarX<float> tape_score(const Network&, TapeX<float>&, std::span<const VarX<float>>, VarX<float>,
                                const NoiseInput<float>&);
template VarX<double> tape_score(const Network&, TapeX<double>&, std::span<const VarX<double>>, VarX<double>,
                                 const NoiseInput<double>&);

}  // namespace tweedie
