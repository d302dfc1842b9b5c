// trainer.h - trains a score network: draws batches, takes optimiser steps, averages the weights, validates, saves, resumes.
//
//   train(net, data, {.objective = Denoising{}, .steps = 20'000, .batch = 512, .ema = .999}, rng.split(),
//         [](const TrainingStep& s) { std::printf("%lld %f\n", s.step, s.loss); });
//
// Every draw is a pure function of (rng, step, row): which row, which sigma, which eps. So a run that is cut at any step
// and resumed from its checkpoint goes on bit for bit as if nothing had happened, with any number of threads.
// A table's rows come by a keyed permutation each epoch, and batches are cut from the endless sequence
// [epoch 0 | epoch 1 | ...]: each epoch holds each row once, every batch is full (one may span two epochs) and every row
// weighs the same; a short last batch, whose rows would weigh more, does not exist. An epoch is n rows, so e epochs are
// ceil(e n / batch) steps.
// A conditional network is trained on TrainingData, whose labels and covariates go with their rows through shuffling, validation
// split and resuming. With condition_dropout p it learns the unconditional score too, as classifier-free guidance needs: each
// row goes without its condition with probability p [Ho & Salimans 2022, Alg. 1].
// On a CUDA device (TrainOptions::device) run() takes the steps between two reports, checkpoints or looks at *cancel (at most
// 256) as one: the batch, its noise, the update and the averages are made there, and the network's parameters come back at the
// end. Checkpoints move freely between devices; a resumed run draws the same noise on any. In the steady state a step allocates
// nothing, but where it puts a copy of the weights' averages by (explicit score matching aside: its D recorded gradients come in
// vectors). SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "tweedie/core/matrix.h"
#include "tweedie/core/random.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/objectives.h"
#include "tweedie/models/optimizer.h"
#include "tweedie/models/post_hoc_ema.h"
#include "tweedie/models/training_engine.h"

namespace tweedie {

namespace kernels::cuda {
class Device;
}

/// A table with what each row is conditioned on: what the network was built for, all of it and nothing else. Views; the data
/// outlives the trainer.
struct TrainingData {
  ConstRows<float> rows;                      // (N, D)
  std::span<const std::int32_t> labels = {};  // (N), 0 .. num_classes() - 1; or empty
  ConstRows<float> covariates = {};           // (N, C), finite; or empty
};

struct TrainOptions {
  Objective objective = Denoising{};
  std::int64_t steps = 0;   // optimiser updates ...
  std::int64_t epochs = 0;  // ... or passes over a table: one of the two; both 0: 100 epochs, the chapter's default
  Index batch = 128;
  double learning_rate = 1e-3;
  ScheduleOptions schedule = {};
  AdamOptions adam = {};
  double clip_norm = 0;  // largest norm of a gradient; 0: no clipping
  double ema = .999;     // decay of the weights' average; 0: none (as in the chapter)
  // Copies put by over the run, evenly, of two averages whose length is chosen afterwards (post_hoc_ema.h). Each takes twice the
  // network's memory, in the run and in its checkpoints. 0: none.
  std::int64_t ema_snapshots = 0;
  bool ema_warmup = true;  // decay min(ema, (1 + t) / (10 + t)), so that a short run's average forgets its untrained start
  // automatic: levels of a network that has them; else flow() for flow matching, process(p) for the likelihood weighting of p,
  // lognormal() for the edm weighting and continuous for all others.
  SigmaSampling sigma_sampling = SigmaSampling::automatic;
  double condition_dropout = 0;       // part of the rows that train without their condition, in [0, 1]; validation drops none
  double valid_fraction = 0;          // part of a table's rows kept apart for the validation loss
  std::int64_t log_every = 100;       // steps between callbacks; the last step always calls
  std::string checkpoint_path = {};   // written after the last step (not by a run that was ended early); empty: never
  std::int64_t checkpoint_every = 0;  // and every so many steps; 0: only then
  double max_loss_growth = 1e4;       // the smoothed loss above this many times its start is a divergence; 0: only non-finite is
  // auto | cpu | cuda | cuda:N. A CUDA device trains denoising and flow matching of the chapter's network on its levels, on a
  // table, with the same rows, levels and noise as the CPU. auto takes the first one for such runs where there is one.
  std::string device = "auto";
  std::string precision = "fp32";                  // fp32; on a CUDA device also tf32 and bf16 (of products alone)
  std::string engine = "auto";                     // auto | tape | fused
  std::function<void(Checkpoint&)> annotate = {};  // adds to every checkpoint that the run writes: column names, scaling
  const std::atomic<bool>* cancel = nullptr;       // looked at before every step: true ends the run as a callback's false does
  std::shared_ptr<kernels::cuda::Device> on_device = {};  // trains there, whatever `device` says
};

/// What a callback is told.
struct TrainingStep {
  std::int64_t step = 0;         // updates done so far
  std::int64_t total_steps = 0;  // of the whole run
  double epoch = 0;              // passes over the table so far (0 for a generator)
  double loss = 0;               // of the last batch
  double smoothed_loss = 0;      // exponential average of the losses, decay .98, without the bias of its start
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  double seconds = 0;        // since the run began or was resumed
  bool has_valid_loss = false;
  double valid_loss = 0;  // same objective on the validation rows with fixed noise; EMA weights where ema > 0
  // Mean loss of the rows since the last report, NaN where there were none: at each level (L) of a network that has levels and
  // trains on them; empty where it trains on a range instead; of a network without levels in 8 bins, equal in ln sigma, from
  // the largest sigma down.
  std::vector<double> level_losses;
  std::string engine;  // what computes the steps, such as "tape, cpu avx512, fp32"
};

/// Called with each report; false ends the run. Takes a function that returns bool or nothing.
class TrainingCallback {
 public:
  TrainingCallback() = default;
  template <class F>
  requires std::is_invocable_v<F&, const TrainingStep&> TrainingCallback(F f) {
    if constexpr (std::is_void_v<std::invoke_result_t<F&, const TrainingStep&>>) {
      function_ = [f = std::move(f)](const TrainingStep& s) mutable { return f(s), true; };
    } else {
      function_ = std::move(f);
    }
  }
  bool operator()(const TrainingStep& s) const { return !function_ || function_(s); }

 private:
  std::function<bool(const TrainingStep&)> function_;
};

/// Fresh draws instead of a table: out(r, :) is draw number first_row + r, a pure function of that number.
using FreshRows = std::function<void(std::uint64_t first_row, Rows<float> out)>;

/// A training run, step by step.
class TWEEDIE_API Trainer {
 public:
  /// On a table (N, D) that outlives the trainer. Throws UsageError for options that contradict, DataError for a table of
  /// another width than the network's or with a cell that is not finite.
  Trainer(Network& net, ConstRows<float> data, TrainOptions options, const Rng& rng);
  /// On a table with conditions. Throws DataError besides for labels or covariates that are missing, not the network's, of
  /// another number of rows, out of range or not finite.
  Trainer(Network& net, const TrainingData& data, TrainOptions options, const Rng& rng);
  /// On fresh draws: `steps` must be given, epochs and valid_fraction have no meaning and are refused, and so is a conditional
  /// network.
  Trainer(Network& net, FreshRows draw, TrainOptions options, const Rng& rng);
  Trainer(Trainer&&) noexcept;
  ~Trainer();

  /// One update; returns the batch's loss. Throws DivergedError, naming step, level and loss, before a loss or gradient that
  /// is not finite, or a smoothed loss beyond max_loss_growth, touches the weights. UsageError after the last step.
  double step();
  /// Steps until the last, a callback's false or *cancel. True when all steps are done. Writes checkpoints as asked.
  bool run(const TrainingCallback& callback = {});

  std::int64_t steps_done() const;
  std::int64_t total_steps() const;
  bool done() const { return steps_done() == total_steps(); }
  /// The report a callback would get now (validation loss computed where rows were kept apart).
  TrainingStep report();

  /// The network, optimiser, average, stream and step in one file. A non-finite weight is a DivergedError and leaves the
  /// file that stands there as it is.
  void save(const std::string& path) const;
  /// Goes on from such a file, whose run must have been set up with the same network, objective, batch and data: UsageError
  /// naming the difference otherwise. The random stream comes from the file; the number of steps may differ from that run's
  /// (a cosine then follows the new length). Bits go on as they were under the same engine and target; another (engine auto takes
  /// the fused one where it can) agrees within rounding.
  void resume(const std::string& path);

  /// The averaged weights (P); the network's own where ema is 0. The network itself holds the raw weights while training.
  std::span<const float> ema_parameters() const;
  /// The averages of ema_snapshots; nullptr where that is 0.
  const PostHocEma* post_hoc_ema() const;
  /// Ends the run with the averaged weights in the network (nothing happens where ema is 0). save() still writes both.
  void use_ema();
  /// Rows kept apart for validation, as positions in the table, sorted.
  std::span<const std::int64_t> validation_rows() const;
  std::string_view engine() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Trains `net` on a table (N, D), with conditions or not, or on fresh draws, and leaves it with the averaged weights where ema >
/// 0, else the raw ones (also when a callback ended the run). Errors as Trainer. Returns the last report.
TWEEDIE_API TrainingStep train(Network& net, ConstRows<float> data, const TrainOptions& options, const Rng& rng,
                               const TrainingCallback& callback = {});
TWEEDIE_API TrainingStep train(Network& net, const TrainingData& data, const TrainOptions& options, const Rng& rng,
                               const TrainingCallback& callback = {});
TWEEDIE_API TrainingStep train(Network& net, const FreshRows& draw, const TrainOptions& options, const Rng& rng,
                               const TrainingCallback& callback = {});

/// The chapter's arguments; its data loader's batch size is named here, and the loop is trainer.h's own.
struct TrainNcsnOptions {
  std::int64_t num_epochs = 100;
  Index batch = 128;  // the table's rows if that is fewer
  double learning_rate = 1e-3;
};
/// Called after each epoch, counted from 0, with its average loss (what the chapter prints); false ends the training.
using EpochCallback = std::function<bool(std::int64_t epoch, double average_loss)>;

/// The chapter's train_ncsn: denoising score matching with lambda = sigma^2 and Adam, no average of the weights, for a number
/// of epochs over a table (N, D). Returns the average loss of each epoch. Errors as Trainer.
TWEEDIE_API std::vector<double> train_ncsn(Network& model, ConstRows<float> data, const Rng& rng,
                                           const TrainNcsnOptions& options = {}, const EpochCallback& callback = {});

}  // namespace tweedie
