// model_file.h - a model file as the commands use it: the network with its best weights, and its table's code.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tweedie/cli/program.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/condition_code.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/noise_levels.h"
#include "tweedie/models/table.h"

namespace tweedie::cli {

struct ModelFile {
  std::string path;
  Checkpoint checkpoint;
  std::unique_ptr<Network> network;
  std::unique_ptr<NoiseLevels> levels;              // the network's own, or 30 geometric ones over its range
  TableCode code;                                   // of the columns that are modelled
  ConditionCode conditions;                         // of those that they are conditioned on
  std::unique_ptr<ScoreModel> on_device = nullptr;  // the network's copy there, where place() put one
  std::string weights;  // which the network has: "best", "averaged", "raw" or "averaged (sigma_rel .13)"

  /// What samplers and likelihoods evaluate.
  const ScoreModel& score() const { return on_device ? *on_device : *network; }
};

/// Puts the network on the device of --device, in --precision, and says where it is. With `auto` a network that devices do not
/// compute stays on the CPU. Throws UsageError for such a network and a device asked for by name, ResourceError as on_device().
void place(ModelFile& model, const Common& common);
/// Best weights if the file has them, else averaged, else raw; or raw when asked for. Errors name the file.
ModelFile load_model(const std::string& path, bool raw_weights = false);

/// A score of the model's scaled data in the data's own units, for figures: s(x) = s_scaled((x - mean) / std) / std, sigma in
/// scaled units. The score outlives it.
std::unique_ptr<ScoreModel> unscaled_score(const TableCode& code, const ScoreModel& scaled);
/// The exact mixture of a built-in distribution as the model's scaled data have it. Throws UsageError (listing the names) when
/// `name` has none, when the model has another dimension, or when its score is that of rows under a condition.
GaussianMixture scaled_oracle(const std::string& name, const ModelFile& model);
/// The built-in distributions whose score is known exactly.
std::vector<std::string> oracle_names();
/// The exact mixture by its name; throws UsageError listing them.
GaussianMixture find_oracle(const std::string& name);

}  // namespace tweedie::cli
