// demo.h - what the demo computes, and the figures it makes of it.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tweedie/cli/evaluation.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/score_network.h"

namespace tweedie::cli {

/// Samples of one method beside the truth.
struct DemoSamples {
  std::string name, key;
  Matrix x;                     // (N, 2)
  std::vector<double> weights;  // of the modes, by the most probable component
  double mean[2] = {0, 0};
  double energy = 0;             // energy distance to a true sample of equal size
  double null_99 = 0;            // its 99th percentile between two true samples of that size
  std::int64_t evaluations = 0;  // of the score, per sample
  double seconds = 0;
};

/// A trained network, its losses and its errors per noise level.
struct DemoNetwork {
  std::unique_ptr<NoiseConditionalScoreNetwork> net;
  std::vector<double> steps, losses;
  FisherDivergence to_truth;
  double seconds = 0;
};

struct Demo {
  GaussianMixture truth = GaussianMixture::three_gaussians();
  Matrix data;                           // (300, 2), the tutorial's points
  std::vector<DemoNetwork> networks;     // on fresh draws; on the 300 points
  FisherDivergence points_to_empirical;  // the second network against its data's own score
  FisherDivergence empirical_to_truth;   // the best that fitting the 300 points exactly would give
  std::vector<DemoSamples> samples;
  std::vector<DemoSamples> temperatures;  // T = .5, 1, 2
  std::vector<Matrix> trajectory;         // of the first samples of the network
  CopyCheck fresh_copies, point_copies;
};

/// Draws all figures into `folder`; returns their names.
std::vector<std::string> draw_demo_figures(const Demo& demo, const std::string& folder);

}  // namespace tweedie::cli
