// batches.h - which rows a training step sees and at which noise: pure functions of (stream, step), see trainer.h.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tweedie/models/trainer.h"

namespace tweedie::detail {

class Batches {
 public:
  /// Of a table, or with `draw` of fresh draws. `options` outlive it; `sampling` is not automatic. Throws DataError as Trainer.
  Batches(const Network& net, const TrainingData& data, FreshRows draw, const TrainOptions& options,
          const SigmaSampling& sampling, const NoiseLevels& levels, const Rng& rng);

  bool fresh() const { return static_cast<bool>(draw_); }
  const TrainingData& data() const { return data_; }
  /// Rows of the table that are trained on.
  Index train_count() const { return data_.rows.rows() - static_cast<Index>(valid_rows_.size()); }
  const std::vector<std::int64_t>& validation_rows() const { return valid_rows_; }

  /// Keys of the streams that choose an epoch's order, the rows kept apart, and a step's levels and noise.
  std::uint64_t order_key() const { return streams_.order.key(); }
  std::uint64_t split_key() const { return streams_.valid.key(); }
  std::uint64_t noise_key() const { return streams_.noise.key(); }

  /// From now on by another stream, its validation rows included.
  void restart(const Rng& rng);
  /// The batch of a step; its memory is used again.
  const Batch& draw(std::int64_t step);
  const Batch& batch() const { return batch_; }
  /// The objective on the validation rows, noise fixed by the row's place among them.
  double validation_loss(TrainingEngine& engine, std::span<const float> weights) const;

 private:
  // Children of the run's stream, in the order of splitting.
  struct Streams {
    explicit Streams(Rng rng) : order(rng.split()), noise(rng.split()), valid(rng.split()), valid_noise(rng.split()) {}
    Rng order;        // of the rows, by epoch
    Rng noise;        // level, eps and directions of the training batches, by step
    Rng valid;        // which rows are kept apart
    Rng valid_noise;  // their fixed noise
  };

  void split_table();
  void table_rows(std::uint64_t first, std::span<std::uint64_t> rows);
  void take_row(Index row, Index b, Matrix& rows, Batch& into) const;
  void size_conditions(Index rows, Batch& into) const;

  const Network& net_;
  TrainingData data_;  // empty for fresh draws
  FreshRows draw_;
  const TrainOptions& options_;
  SigmaSampling sampling_;
  NoiseLevels levels_;  // of a network without: the ends of its range
  Streams streams_;
  std::vector<std::int64_t> valid_rows_;  // sorted positions in the table
  std::optional<Permutation> split_;      // of the table: its first places are the validation rows
  std::optional<Permutation> order_;      // of order_epoch_
  std::uint64_t order_epoch_ = 0;
  Buffer<std::uint64_t> rows_;  // (B) of the table; empty for fresh draws
  Matrix clean_;                // (B, D)
  Batch batch_;
};

}  // namespace tweedie::detail
