// validation.h - what `tweedie train` watches: the loss on rows kept apart, the best weights, and the losses over the run.
// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tweedie/models/checkpoint.h"
#include "tweedie/models/trainer.h"

namespace tweedie::cli {

/// The averaged weights at the lowest validation loss.
struct Best {
  std::vector<float> weights;
  double valid_loss = std::numeric_limits<double>::infinity();
  std::int64_t step = 0;

  void store(Checkpoint& file, const ParameterLayout& layout) const;
  /// Nothing when the file holds none.
  void load(const Checkpoint& file, const ParameterLayout& layout);
};

/// The objective on the rows kept apart, at every noise level and with several draws of the noise: with so few rows a single draw
/// each, as the trainer's own validation takes, is too noisy to tell which weights are best. Trainer and network outlive it.
class Validation {
 public:
  Validation(const Trainer& trainer, const TrainingData& data, const Network& net, const TrainOptions& options, const Rng& rng);
  double loss();

 private:
  void fill(Index first, Index n, std::span<const std::int64_t> kept, const NoiseLevels& levels);

  const Trainer& trainer_;
  TrainingData data_;
  const Network& net_;
  Objective objective_;
  Rng rng_;
  std::unique_ptr<TrainingEngine> engine_;
  Batch batch_;
  std::vector<float> losses_;
};

/// A line for each report, as a table.
class History {
 public:
  void add(const TrainingStep& s);
  /// Nothing for an empty path.
  void write(const std::string& path) const;

 private:
  std::vector<double> values_;
};

}  // namespace tweedie::cli
