// The steady-state training step allocates nothing: counted over operator new, Eigen's and the C library's allocators.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "support/allocation_counter.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

using Make = std::function<std::unique_ptr<Network>(Index hidden_dim)>;

std::unique_ptr<Network> chapter(Index hidden_dim) {
  return std::make_unique<ScoreNetwork>(ScoreNetworkOptions{.data_dim = 2, .hidden_dim = hidden_dim}, Rng(1));
}

std::unique_ptr<Network> continuous(Architecture architecture, Index hidden_dim) {
  const ContinuousNetworkOptions options{.data_dim = 2,
                                         .hidden_dim = hidden_dim,
                                         .architecture = architecture,
                                         .num_classes = 3,
                                         .covariate_dim = 2,
                                         .learned_variance = true};
  return std::make_unique<ContinuousScoreNetwork>(options, Rng(1));
}

std::unique_ptr<Network> energy(Index hidden_dim) {
  return std::make_unique<EnergyNetwork>(ContinuousNetworkOptions{.data_dim = 2, .hidden_dim = hidden_dim}, Rng(1));
}

struct Run {
  Run(const Make& make, TrainOptions options, Index hidden_dim)
      : rng(1),
        net(make(hidden_dim)),
        data(datasets::three_gaussians(300, Rng{42})),
        labels(300),
        trainer(*net, training_data(), with_steps(options), rng.split()) {}
  // What the network is conditioned on: labels 0, 1, 2, 0, ... and the rows themselves.
  TrainingData training_data() {
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 3);
    TrainingData all{data};
    if (net->num_classes() > 0) all.labels = labels;
    if (net->covariate_dim() > 0) all.covariates = data;
    return all;
  }
  static TrainOptions with_steps(TrainOptions options) {
    options.steps = 100;
    return options;
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) trainer.step();
  }

  Rng rng;
  std::unique_ptr<Network> net;
  Matrix data;
  std::vector<std::int32_t> labels;
  Trainer trainer;
};

// A kernel keeps packing memory for each thread, from the thread's first product on. Which thread gets which task is chance, so
// every one is given a run of its own first: a task waits until all have begun, each in another thread.
void start_every_thread(int count, const Make& make, const TrainOptions& options, Index hidden_dim) {
  std::atomic<Index> begun{0};
  parallel_for(count, 1, [&](Index begin, Index end) {
    begun += end - begin;
    while (begun < count) std::this_thread::yield();
    Run(make, options, hidden_dim).steps(1);
  });
}

// Allocations of 20 steps, after 5 in which the buffers come to be. Rows of 300 and batches of 64: every epoch's boundary falls
// inside a batch, several within the counted steps.
long allocations_of(int count, const TrainOptions& options, Index hidden_dim, const Make& make = chapter) {
  start_every_thread(count, make, options, hidden_dim);
  Run run(make, options, hidden_dim);
  const test::AllocationCounter first;
  run.steps(5);
  // The memory of the tape or of the fused engine: the counter looks at the right thing.
  CHECK(first.count() > (run.trainer.engine().substr(0, 5) == "fused" ? 3 : 100));
  const test::AllocationCounter counter;
  run.steps(20);
  return counter.count();
}

}  // namespace

TEST_CASE("the counter sees operator new, malloc and aligned memory") {
  if (!test::kCountsAllocations) {
    std::puts("skipped: a sanitizer brings its own allocator, allocations are not counted");
    return;
  }
  const test::AllocationCounter counter;
  {
    const auto number = std::make_unique<int>(3);
    const Buffer<float> buffer(100);
    std::vector<double> vector(10);
    CHECK(counter.count() >= 2 + (vector[3] == 0 && *number == 3));
  }
}

TEST_CASE("a training step in its steady state allocates nothing") {
  if (!test::kCountsAllocations) {
    std::puts("skipped: a sanitizer brings its own allocator, allocations are not counted");
    return;
  }
  for (const int count : {1, 2, 4}) {
    CAPTURE(count);
    set_threads(count);
    CHECK(allocations_of(count, {.batch = 64}, 32) == 0);
    CHECK(allocations_of(count, {.batch = 512, .clip_norm = 1, .ema = .999, .valid_fraction = .1}, 256) == 0);
    CHECK(allocations_of(count, {.batch = 64, .engine = "tape"}, 32) == 0);
    CHECK(allocations_of(count, {.batch = 512, .clip_norm = 1, .engine = "tape"}, 256) == 0);
    CHECK(allocations_of(count, {.batch = 64, .sigma_sampling = SigmaSampling::continuous}, 32) == 0);
    CHECK(allocations_of(count, {.batch = 64, .ema_snapshots = 2}, 32) == 0);  // the copy is of step 50
    for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
      const Make make = [architecture](Index hidden_dim) { return continuous(architecture, hidden_dim); };
      const TrainOptions options{.batch = 64, .sigma_sampling = SigmaSampling::continuous, .condition_dropout = .2};
      CHECK(allocations_of(count, options, 32, make) == 0);
      TrainOptions on_tape = options;
      on_tape.engine = "tape";
      CHECK(allocations_of(count, on_tape, 32, make) == 0);
    }
    CHECK(allocations_of(count, {.batch = 64, .sigma_sampling = SigmaSampling::continuous}, 32, energy) == 0);
    CHECK(allocations_of(count, {.objective = Sliced{.num_projections = 2}, .batch = 64}, 32) == 0);
    CHECK(allocations_of(count, {.objective = Denoising{Weighting::plain}, .batch = 64}, 32) == 0);
    const Denoising likelihood{.weighting = Weighting::likelihood, .process = vp()};
    CHECK(allocations_of(count, {.objective = likelihood, .batch = 64, .sigma_sampling = SigmaSampling::process(vp())}, 32) == 0);
    CHECK(allocations_of(count, {.objective = FlowMatching{}, .batch = 64, .sigma_sampling = SigmaSampling::lognormal()}, 32) ==
          0);
  }
  set_threads(0);
}
