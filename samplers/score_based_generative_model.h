// score_based_generative_model.h - the chapter's complete model class: network, training and sampling under one name.
//
//   ScoreBasedGenerativeModel model({.data_dim = 2}, rng.split());
//   model.train(data, 100, {.callback = [](const auto& log) { std::printf("step %ld loss %.4f\n", long(log.step), log.loss); }});
//   Matrix x = model.sample(1000).x;
//
// The chapter's names and defaults: a NoiseConditionalScoreNetwork, denoising score matching with lambda = sigma^2, Adam at
// 1e-3, annealed Langevin dynamics with a_i = 2 sigma_i^2 [Song & Ermon 2019]. It keeps to that recipe; trainer.h and the
// samplers have the options (averaged weights, schedules, checkpoints, better samplers), and take network() as well.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tweedie/core/random.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/samples.h"

namespace tweedie {

/// What train() reports instead of printing: a step (every log_every) or the end of an epoch.
struct ModelTrainingLog {
  std::int64_t step = 0;     // optimiser updates of this call so far
  std::int64_t epoch = 0;    // counted from 0
  double loss = 0;           // of the last batch
  bool epoch_ended = false;  // then average_loss is the epoch's
  double average_loss = 0;
};

struct ModelTrainOptions {
  Index batch = 128;  // of the chapter's data loader; the table's rows if that is fewer
  std::int64_t log_every = 100;
  std::function<bool(const ModelTrainingLog&)> callback = {};  // false ends the training
};

class TWEEDIE_API ScoreBasedGenerativeModel {
 public:
  /// data_dim, hidden_dim 256, num_layers 4, num_noise_levels 10, sigma_min .01, sigma_max 10; errors as the network's.
  ScoreBasedGenerativeModel(const ScoreNetworkOptions& options, Rng rng);
  ScoreBasedGenerativeModel(ScoreBasedGenerativeModel&&) noexcept;
  ~ScoreBasedGenerativeModel();

  /// One Adam update on the rows x (B, D), each at its own random level; returns the loss. Throws UsageError for another width
  /// or no rows, DivergedError for a loss or gradient that is not finite (the weights stay as they were).
  double train_step(ConstRows<float> x);
  /// `num_epochs` passes over the rows (N, D), in a new random order each, cut into batches as trainer.h does: every batch is
  /// full and every row weighs the same. Errors as train_step().
  void train(ConstRows<float> data, std::int64_t num_epochs, const ModelTrainOptions& options = {});

  /// Annealed Langevin dynamics with the chapter's constants: x (num_samples, D); with return_trajectory the start and the
  /// state after each level. Every call draws afresh.
  Samples sample(Index num_samples, Index steps_per_level = 100, bool return_trajectory = false);

  /// The chapter's rough estimate, per row of x:  -sum_{i < L} 1/2 |s(x, sigma_i)|^2 (sigma_i - sigma_{i+1}),
  /// over the network's levels. It is no log-likelihood: its additive constant is missing, the points do not move with the
  /// noise and the divergence term of the probability flow is left out, so that it ranks rows at best; the flow's log-density
  /// is the real thing. The chapter takes num_integration_steps and ignores it. Here no number is the chapter's sum, and a
  /// number n >= 1 is the same integral over n geometric steps from sigma_max to sigma_min, the network interpolated.
  std::vector<double> log_likelihood_estimate(ConstRows<float> x, std::optional<Index> num_integration_steps = {}) const;

  NoiseConditionalScoreNetwork& network();
  const NoiseConditionalScoreNetwork& network() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tweedie
