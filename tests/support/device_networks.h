// device_networks.h - small networks with which the samplers' device tests compare a device and the CPU.
// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tweedie/core/random.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/score_network.h"

namespace tweedie::testing {

/// Weights from N(0, size^2) everywhere, the last layer among them. At .2 a score beside EDM's linear one is smooth and of order
/// one.
template <class Net>
std::unique_ptr<Net> filled(std::unique_ptr<Net> net, float size = .2f) {
  Matrix values(1, net->layout().size());
  Rng(5).normals<float>(Purpose::user, 0, 0, values);
  for (Index i = 0; i < values.cols(); ++i) net->parameters()[static_cast<std::size_t>(i)] = size * values(0, i);
  net->parameters_changed();
  return net;
}

/// EDM's mlp in two dimensions for [low, 2 high].
inline std::unique_ptr<ContinuousScoreNetwork> edm_network(double low, double high, Index classes = 0) {
  return filled(std::make_unique<ContinuousScoreNetwork>(ContinuousNetworkOptions{.data_dim = 2,
                                                                                  .hidden_dim = 16,
                                                                                  .num_layers = 3,
                                                                                  .num_frequencies = 4,
                                                                                  .embedding_dim = 8,
                                                                                  .sigma_min = low,
                                                                                  .sigma_max = 2 * high,
                                                                                  .sigma_data = 1,
                                                                                  .num_classes = classes},
                                                         Rng(2)));
}

/// The chapter's network. Its output does not push back, so chains drift by the step and stay in reach.
inline std::unique_ptr<NoiseConditionalScoreNetwork> chapter_network(double low, double high, Index levels) {
  return filled(std::make_unique<NoiseConditionalScoreNetwork>(
      ScoreNetworkOptions{
          .data_dim = 2, .hidden_dim = 16, .num_layers = 3, .num_noise_levels = levels, .sigma_min = low, .sigma_max = high},
      Rng(1)));
}

/// The largest |a - b|.
inline double difference(ConstRows<float> a, ConstRows<float> b) {
  double most = 0;
  REQUIRE(a.rows() == b.rows());
  for (Index r = 0; r < a.rows(); ++r) {
    for (Index c = 0; c < a.cols(); ++c) most = std::max(most, std::abs(static_cast<double>(a(r, c) - b(r, c))));
  }
  return most;
}

}  // namespace tweedie::testing
