// fused_engine_test.cpp - the fused training step against the tape in double and in float; its bits, its memory, what it refuses.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/core/parallel.h"
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

Step step_of(const ScoreNetwork& net, const Objective& objective, const Batch& batch, const std::string& engine) {
  std::vector<float> gradient(net.parameters().size(), NAN), rows(static_cast<std::size_t>(batch.rows()), NAN);
  const auto step = make_training_step(net, objective, "cpu", "fp32", engine);
  const double loss = step->loss_and_gradient(net.parameters(), batch, gradient, rows);
  return {loss, {gradient.begin(), gradient.end()}, {rows.begin(), rows.end()}};
}

// The tape in double, on the same floats.
Step exact(const ScoreNetwork& net, const Objective& objective, const Batch& batch) {
  BatchD wide;
  wide.x = MatrixD(batch.rows(), net.dim()), wide.eps = MatrixD(batch.rows(), net.dim());
  std::copy_n(batch.x.data(), batch.x.size(), wide.x.data());
  std::copy_n(batch.eps.data(), batch.eps.size(), wide.eps.data());
  wide.sigma = Buffer<double>(batch.rows());
  std::copy(batch.sigma.begin(), batch.sigma.end(), wide.sigma.begin());
  wide.level = batch.level;
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
double tensor_error(const ScoreNetwork& net, const std::vector<double>& a, const std::vector<double>& b) {
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
      const Step wanted = exact(net, objective, batch), fused = step_of(net, objective, batch, "fused"),
                 tape = step_of(net, objective, batch, "tape");
      // Each path from a weight to the loss and back has N = 2 layers (width + dim) + rows roundings of u each, relative to terms
      // of the largest element's size. (The rigorous bound, element by element, is in tests/kernels/mlp_gradient_test.cpp.)
      const double bound = static_cast<double>(2 * c.layers * (c.width + c.dim) + c.rows) * kU;
      CHECK(tensor_error(net, fused.gradient, wanted.gradient) <= bound);
      CHECK(tensor_error(net, fused.gradient, tape.gradient) <= 2 * bound);
      CHECK(std::fabs(fused.loss - wanted.loss) <= bound * std::fabs(wanted.loss));
      for (std::size_t b = 0; b < fused.rows.size(); ++b) {
        CHECK(std::fabs(fused.rows[b] - wanted.rows[b]) <= 20 * bound * (wanted.rows[b] + std::fabs(wanted.loss)));
      }
    }
  }
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
