// perceptron.h - a network's score as linear maps around one perceptron F, for backends that compute those alone.
//
//   s(y, sigma | condition) = x y + sum_t f_t F(input y; bias_t),    bias_t F's first bias, given by noise and condition
//
// The chapter's network: x = 0, input = 1, f = 1 / sigma at one of its levels; two terms between two of them (score_network.h).
// EDM's mlp: one term, x = a / sigma, f = b / sigma, input = c_in (continuous_network.h). SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie::detail {

/// `layers` linear layers, weight and bias in the tensors first, first + 1, first + 2, ... of the network's parameters; of the
/// first weight the columns [0, dim()), and its bias is not read.
struct Perceptron {
  Index first = 0, layers = 0;  // layers = 0: the network is none
};

/// The maps at the noise of some rows: `rows` = 1 where all have one noise and one condition, else one a row.
struct PerceptronRows {
  Index rows = 1, terms = 1;
  std::vector<double> x, input;  // (rows)
  std::vector<double> f;         // (terms rows), term by term; 0: the row does without
  MatrixD bias;                  // (terms rows, H)
};

}  // namespace tweedie::detail
