// fused_engine_test.cpp - the fused training step against the tape in double and in float; its bits, its memory, what it refuses.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

constexpr double kU = 0x1p-24;

ScoreNetwork network(Index dim, Index width, Index layers, Index levels = 10) {
  return ScoreNetwork({.data_dim = dim, .hidden_dim = width, .num_layers = layers, .num_noise_levels = levels}, Rng{1});
}

Batch batch_for(const ScoreNetwork& net, Index rows) {
  Matrix clean(rows, net.dim());
  Rng{2}.normals<float>(Purpose::prior, 0, 0, clean);
  return perturb(clean, *net.levels(), Rng{3});
}

struct Step {
  double loss;
  std::vector<double> gradient, rows;
};

Step step_of(const Network& net, const Objective& objective, const Batch& batch, const std::string& engine) {
  std::vector<float> gradient(net.parameters().size(), NAN), rows(static_cast<std::size_t>(batch.rows()), NAN);
  const auto step = make_training_step(net, objective, "cpu", "fp32", engine);
  const double loss = step->loss_and_gradient(net.parameters(), batch, gradient, rows);
  return {loss, {gradient.begin(), gradient.end()}, {rows.begin(), rows.end()}};
}

// The tape in double, on the same floats.
Step exact(const Network& net, const Objective& objective, const Batch& batch) {
  BatchD wide;
  wide.x = MatrixD(batch.rows(), net.dim()), wide.eps = MatrixD(batch.rows(), net.dim());
  std::copy_n(batch.x.data(), batch.x.size(), wide.x.data());
  std::copy_n(batch.eps.data(), batch.eps.size(), wide.eps.data());
  wide.sigma = Buffer<double>(batch.rows());
  std::copy(batch.sigma.begin(), batch.sigma.end(), wide.sigma.begin());
  wide.level = batch.level, wide.labels = batch.labels, wide.dropped = batch.dropped;
  if (batch.covariates.rows() > 0) {
    wide.covariates = MatrixD(batch.covariates.rows(), batch.covariates.cols());
    std::copy_n(batch.covariates.data(), batch.covariates.size(), wide.covariates.data());
  }
  const std::vector<double> parameters(net.parameters().begin(), net.parameters().end());
  TapeD tape;
  const std::vector<VarD> variables = parameter_vars(tape, net.layout(), parameters.data());
  const LossD loss = objective_loss<double>(objective, net, tape, variables, wide);
  Step result{loss.mean.item(), std::vector<double>(parameters.size()),
              std::vector<double>(static_cast<std::size_t>(batch.rows()))};
  for (Index b = 0; b < batch.rows(); ++b) result.rows[static_cast<std::size_t>(b)] = loss.rows.value()(b, 0);
  std::vector<Rows<double>> views;
  for (const ParameterTensor& tensor : net.layout()) views.push_back(view(tensor, result.gradient.data()));
  tweedie::gradient(loss.mean, std::span<const VarD>(variables), std::span<const Rows<double>>(views));
  return result;
}

// |a - b| over a tensor relative to its largest element.
double tensor_error(const Network& net, const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (const ParameterTensor& tensor : net.layout()) {
    double error = 0, largest = 0;
    for (Index i = tensor.offset; i < tensor.offset + tensor.size(); ++i) {
      const auto e = static_cast<std::size_t>(i);
      const double miss = std::fabs(a[e] - b[e]);
      error = std::isnan(miss) ? HUGE_VAL : std::max(error, miss);
      largest = std::max(largest, std::fabs(b[e]));
    }
    worst = std::max(worst, error / largest);
  }
  return worst;
}

// Random weights everywhere: the last layer and what starts as zero too.
void randomise(Network& net) {
  for (const ParameterTensor& tensor : net.layout()) {
    const Rows<float> rows = view(tensor, net.parameters().data());
    Rng{9}.uniforms(Purpose::initialise, 0, static_cast<std::uint64_t>(tensor.offset), rows);
    const float bound = 1 / std::sqrt(static_cast<float>(tensor.cols));
    for (Index i = 0; i < tensor.size(); ++i) rows.data()[i] = bound * (2 * rows.data()[i] - 1);
  }
  net.parameters_changed();
}

// Every third row is dropped where there is a condition.
Batch batch_for(const ContinuousScoreNetwork& net, Index rows, bool condition = true) {
  const ContinuousNetworkOptions& o = net.options();
  Matrix clean(rows, net.dim());
  Rng{2}.normals<float>(Purpose::prior, 0, 0, clean);
  Batch batch = perturb(clean, NoiseLevels({o.sigma_max, o.sigma_min}), Rng{3}, {.sampling = SigmaSampling::continuous});
  if (!condition) return batch;
  if (o.num_classes > 0) {
    batch.labels = Buffer<std::int32_t>(rows);
    for (Index b = 0; b < rows; ++b) batch.labels[b] = static_cast<std::int32_t>(b % o.num_classes);
  }
  if (o.covariate_dim > 0) {
    batch.covariates = Matrix(rows, o.covariate_dim);
    Rng{4}.normals<float>(Purpose::prior, 0, 0, batch.covariates);
  }
  if (o.num_classes > 0 || o.covariate_dim > 0) {
    batch.dropped = Buffer<std::int32_t>(rows);
    for (Index b = 0; b < rows; ++b) batch.dropped[b] = b % 3 == 2;
  }
  return batch;
}

// The fused step against the tape's in double and in float; what it may be off, in parts of a tensor's largest element.
void check_steps(const Network& net, const Objective& objective, const Batch& batch, double bound) {
  const Step wanted = exact(net, objective, batch), fused = step_of(net, objective, batch, "fused"),
             tape = step_of(net, objective, batch, "tape");
  CHECK(tensor_error(net, fused.gradient, wanted.gradient) <= bound);
  CHECK(tensor_error(net, fused.gradient, tape.gradient) <= 2 * bound);
  double magnitude = 0;  // of a loss that may be negative
  for (const double row : wanted.rows) magnitude += std::fabs(row) / static_cast<double>(wanted.rows.size());
  CHECK(std::fabs(fused.loss - wanted.loss) <= bound * magnitude);
  for (std::size_t b = 0; b < fused.rows.size(); ++b) {
    CHECK(std::fabs(fused.rows[b] - wanted.rows[b]) <= 20 * bound * (std::fabs(wanted.rows[b]) + magnitude));
  }
}

}  // namespace

TEST_CASE("the fused step is the tape's within the rounding of its sums") {
  struct Case {
    Index rows, dim, width, layers;
  };
  for (const Case& c : {Case{1, 2, 16, 4}, Case{70, 2, 48, 3}, Case{300, 3, 20, 2}, Case{128, 12, 40, 5}, Case{257, 1, 33, 4}}) {
    CAPTURE(c.rows);
    CAPTURE(c.width);
    const ScoreNetwork net = network(c.dim, c.width, c.layers);
    const Batch batch = batch_for(net, c.rows);
    for (const Objective& objective : {Objective(Denoising{}), Objective(Denoising{.weighting = Weighting::plain}),
                                       Objective(Denoising{.weighting = Weighting::edm}), Objective(FlowMatching{})}) {
      // Each path from a weight to the loss and back has N = 2 layers (width + dim) + rows roundings of u each, relative to terms
      // of the largest element's size. (The rigorous bound, element by element, is in tests/kernels/mlp_gradient_test.cpp.)
      check_steps(net, objective, batch, static_cast<double>(2 * c.layers * (c.width + c.dim) + c.rows) * kU);
    }
  }
}

TEST_CASE("the fused step of an mlp for any noise level is the tape's: parametrisations, objectives, conditions, log-variance") {
  struct Case {
    Index rows, dim, width, layers, embedding, frequencies, classes, covariates;
    bool variance;
  };
  for (const Case& c :
       {Case{1, 2, 16, 4, 8, 3, 0, 0, false}, Case{150, 2, 40, 3, 24, 16, 0, 0, false}, Case{70, 3, 7, 2, 9, 5, 3, 0, false},
        Case{130, 1, 33, 4, 20, 16, 0, 2, true}, Case{67, 2, 20, 3, 16, 4, 4, 3, true}}) {
    CAPTURE(c.rows);
    CAPTURE(c.width);
    for (const Parametrisation parametrisation :
         {Parametrisation::edm, Parametrisation::score, Parametrisation::epsilon, Parametrisation::x0, Parametrisation::v}) {
      CAPTURE(to_string(parametrisation));
      ContinuousScoreNetwork net({.data_dim = c.dim,
                                  .hidden_dim = c.width,
                                  .num_layers = c.layers,
                                  .num_frequencies = c.frequencies,
                                  .embedding_dim = c.embedding,
                                  .parametrisation = parametrisation,
                                  .sigma_min = .05,
                                  .sigma_max = 20,
                                  .num_classes = c.classes,
                                  .covariate_dim = c.covariates,
                                  .learned_variance = c.variance},
                                 Rng{1});
      randomise(net);
      // Roundings along a path as above, the code's two layers among the layers; the features' rounding is one more of them.
      const double bound =
          static_cast<double>(2 * c.layers * (c.width + c.dim) + 4 * (c.embedding + 2 * c.frequencies + c.covariates) + c.rows) *
          kU;
      const Batch batch = batch_for(net, c.rows);
      for (const Objective& objective : {Objective(Denoising{}), Objective(Denoising{.weighting = Weighting::edm}),
                                         Objective(Denoising{.weighting = Weighting::plain}), Objective(FlowMatching{})}) {
        check_steps(net, objective, batch, bound);
      }
      if (c.classes + c.covariates > 0) check_steps(net, Denoising{}, batch_for(net, c.rows, false), bound);
    }
  }
}

TEST_CASE("ten steps of Adam on an mlp for any noise level: both engines have the same losses") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  const std::vector<std::int32_t> labels(300, 1);
  std::vector<double> losses[2];
  for (const int engine : {0, 1}) {
    ContinuousScoreNetwork net({.data_dim = 2, .hidden_dim = 64, .num_classes = 2}, Rng{1});
    TrainOptions options{.objective = Denoising{.weighting = Weighting::edm}, .steps = 10, .batch = 100};
    options.condition_dropout = .2, options.engine = engine == 0 ? "tape" : "fused";
    Trainer trainer(net, TrainingData{.rows = data, .labels = labels}, options, Rng{2});
    while (!trainer.done()) losses[engine].push_back(trainer.step());
  }
  // Adam's first steps have the gradient's sign alone: a rounding that flips a small element moves it by twice the rate.
  for (std::size_t i = 0; i < 10; ++i) CHECK(std::fabs(losses[0][i] / losses[1][i] - 1) <= 1e-5);
}

TEST_CASE("a resumed fused run of an mlp for any noise level is the uninterrupted one, on any number of threads") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  const TrainOptions options{.objective = Denoising{.weighting = Weighting::edm},
                             .steps = 30,
                             .batch = 200,
                             .valid_fraction = .1,
                             .checkpoint_path = "fused_engine_test.safetensors",
                             .checkpoint_every = 10};
  std::vector<float> alone;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    ContinuousScoreNetwork net({.data_dim = 2, .hidden_dim = 40, .learned_variance = true}, Rng{1});
    {
      Trainer trainer(net, data, options, Rng{4});
      CHECK(trainer.engine().substr(0, 5) == "fused");
      trainer.run([](const TrainingStep& s) { return s.step < 10; });
    }
    ContinuousScoreNetwork resumed({.data_dim = 2, .hidden_dim = 40, .learned_variance = true}, Rng{1});
    Trainer trainer(resumed, data, options, Rng{5});
    trainer.resume(options.checkpoint_path);
    while (!trainer.done()) trainer.step();
    const std::vector<float> weights(resumed.parameters().begin(), resumed.parameters().end());
    if (count == 1) {
      alone = weights;
      TrainOptions straight = options;
      straight.checkpoint_path.clear(), straight.checkpoint_every = 0;
      ContinuousScoreNetwork whole({.data_dim = 2, .hidden_dim = 40, .learned_variance = true}, Rng{1});
      Trainer uninterrupted(whole, data, straight, Rng{4});
      while (!uninterrupted.done()) uninterrupted.step();
      CHECK(weights == std::vector<float>(whole.parameters().begin(), whole.parameters().end()));
    }
    CHECK(weights == alone);
  }
  set_threads(0);
  std::remove(options.checkpoint_path.c_str());
}

TEST_CASE("the loss alone has the bits of the loss with its gradient") {
  const ScoreNetwork net = network(2, 40, 4);
  const Batch batch = batch_for(net, 150);
  for (const Objective& objective : {Objective(Denoising{}), Objective(Denoising{.weighting = Weighting::plain})}) {
    const Step whole = step_of(net, objective, batch, "fused");
    std::vector<float> rows(150);
    const double loss = make_training_step(net, objective, "cpu", "fp32", "fused")->loss(net.parameters(), batch, rows);
    CHECK(loss == whole.loss);
    CHECK(std::vector<double>(rows.begin(), rows.end()) == whole.rows);
  }
  for (const Index classes : {0, 3}) {
    ContinuousScoreNetwork any({.data_dim = 2, .hidden_dim = 40, .num_classes = classes, .learned_variance = true}, Rng{1});
    randomise(any);
    const Batch noisy = batch_for(any, 150);
    const Step whole = step_of(any, Denoising{}, noisy, "fused");
    std::vector<float> rows(150);
    const double loss = make_training_step(any, Denoising{}, "cpu", "fp32", "fused")->loss(any.parameters(), noisy, rows);
    CHECK(loss == whole.loss);
    CHECK(std::vector<double>(rows.begin(), rows.end()) == whole.rows);
  }
}

TEST_CASE("a fused run has the same bits on any number of threads, and learns") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  std::vector<float> alone;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    ScoreNetwork net = network(2, 48, 4);
    Trainer trainer(net, data, {.steps = 60, .batch = 200, .clip_norm = 1}, Rng{4});
    CHECK(trainer.engine().substr(0, 5) == "fused");
    const double first = trainer.step();
    double last = first;
    while (!trainer.done()) last = trainer.step();
    CHECK(last < .9 * first);
    const std::vector<float> weights(net.parameters().begin(), net.parameters().end());
    if (count == 1) alone = weights;
    CHECK(weights == alone);
  }
  set_threads(0);
}

TEST_CASE("between its levels a network trains on the tape; the fused engine says why it does not") {
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = network(2, 16, 3);
  TrainOptions options{.steps = 5, .batch = 20, .sigma_sampling = SigmaSampling::continuous};
  CHECK(Trainer(net, data, options, Rng{1}).engine().substr(0, 4) == "tape");
  options.engine = "fused";
  CHECK_THROWS_WITH_AS(
      Trainer(net, data, options, Rng{1}),
      "train: engine is fused and sigma_sampling continuous; the fused engine trains on the network's levels: give "
      "SigmaSampling::levels, or engine auto or tape",
      UsageError);

  Batch batch = batch_for(net, 4);
  std::vector<float> gradient(net.parameters().size()), rows(4);
  const auto step = make_training_step(net, Denoising{});
  batch.level[2] = 10;
  CHECK_THROWS_AS(step->loss_and_gradient(net.parameters(), batch, gradient, rows), UsageError);
  batch.level = Buffer<std::int32_t>();
  CHECK_THROWS_AS(step->loss_and_gradient(net.parameters(), batch, gradient, rows), UsageError);
  CHECK_THROWS_AS(step->loss(net.parameters(), batch, rows), UsageError);
}

TEST_CASE("what the fused engine refuses of a network for any noise level, and what stays on the tape") {
  const ContinuousNetworkOptions residual{.data_dim = 2, .hidden_dim = 16, .architecture = Architecture::residual};
  CHECK(make_training_step(ContinuousScoreNetwork(residual, Rng{1}), Denoising{})->name().substr(0, 4) == "tape");
  CHECK_THROWS_AS(make_training_step(ContinuousScoreNetwork(residual, Rng{1}), Denoising{}, "cpu", "fp32", "fused"), UsageError);
  const ContinuousScoreNetwork net({.data_dim = 2, .hidden_dim = 16, .num_classes = 2}, Rng{1});
  CHECK(make_training_step(net, Sliced{})->name().substr(0, 4) == "tape");
  const auto step = make_training_step(net, Denoising{});
  CHECK(step->name().substr(0, 5) == "fused");
  std::vector<float> gradient(net.parameters().size()), rows(4);
  Batch batch = batch_for(net, 4);
  CHECK_NOTHROW(step->loss_and_gradient(net.parameters(), batch, gradient, rows));
  batch.labels[1] = 2;
  CHECK_THROWS_WITH_AS(step->loss_and_gradient(net.parameters(), batch, gradient, rows),
                       "training step: row 1 has label 2, expected 0 to 1", UsageError);
  batch.labels = Buffer<std::int32_t>(3);
  CHECK_THROWS_AS(step->loss(net.parameters(), batch, rows), UsageError);
  batch = batch_for(net, 4);
  batch.sigma[3] = 100;
  CHECK_THROWS_AS(step->loss(net.parameters(), batch, rows), UsageError);
}
