// network_options.h - the network that `tweedie train` trains, by its options.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>

#include "tweedie/cli/program.h"
#include "tweedie/core/matrix.h"
#include "tweedie/models/network.h"

namespace tweedie::cli {

struct NetworkArguments {
  std::string net, prediction = "edm", embedding = "fourier";
  Index width = 256, depth = 4;
  std::string levels = "20";            // a count, or ncsnv2
  double sigma_min = 0, sigma_max = 0;  // 0: by the network and the data's scale
  double sigma_data = 0;                // 0: measured
  bool learned_variance = false;

  bool ncsn() const { return net == "ncsn"; }
  bool ncsnv2() const { return levels == "ncsnv2"; }
};

void add_network_options(CLI::App& app, NetworkArguments& arguments);
/// Names the network where none was asked for, and refuses options that it does not take.
void check_network_options(const CLI::App& app, NetworkArguments& arguments);

/// The values that depend on the network and the data, where none were given. rows (N, D): the scaled table, or draws of a
/// built-in distribution; unscaled: they are as they came.
void settle(NetworkArguments& arguments, ConstRows<float> rows, bool unscaled);

/// What rows are conditioned on.
struct ConditionSizes {
  Index classes = 0, covariates = 0;
};
/// The network for rows like `rows` (N, D), by settled arguments.
std::unique_ptr<Network> build_network(const NetworkArguments& arguments, ConstRows<float> rows, const ConditionSizes& sizes,
                                       const Rng& rng);

}  // namespace tweedie::cli
