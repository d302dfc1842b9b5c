// objective_options.h - what `tweedie train` minimises, by its options.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "tweedie/cli/network_options.h"
#include "tweedie/models/objectives.h"

namespace tweedie::cli {

struct ObjectiveArguments {
  std::string objective = "denoising", projection = "unit", weighting = "sigma2", sigma_sampling, process = "ve";
  double p_mean = 0, p_std = 1.2;
  bool p_mean_given = false;  // else EDM's for data of deviation .5, moved with sigma_data
  bool variance_reduced = false;
  Index num_projections = 1;
};

void add_objective_options(CLI::App& app, ObjectiveArguments& arguments);
/// Refuses options that the objective or the network does not take.
void check_objective_options(const CLI::App& app, const ObjectiveArguments& arguments, const NetworkArguments& network);

// By settled arguments of the network.
Objective objective_of(const ObjectiveArguments& arguments, const NetworkArguments& network);
SigmaSampling sampling_of(const ObjectiveArguments& arguments, const NetworkArguments& network);

}  // namespace tweedie::cli
