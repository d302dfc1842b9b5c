// SPDX-License-Identifier: MIT
#include "tweedie/samplers/score_based_generative_model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/models/datasets.h"
#include "tweedie/samplers/annealed_langevin.h"

using namespace tweedie;

namespace {

bool same(ConstRows<float> a, ConstRows<float> b) {
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index r = 0; r < a.rows(); ++r) {
    for (Index c = 0; c < a.cols(); ++c) {
      if (a(r, c) != b(r, c)) return false;
    }
  }
  return true;
}

std::vector<float> weights_of(const Network& net) { return {net.parameters().begin(), net.parameters().end()}; }

}  // namespace

TEST_CASE("the chapter's defaults") {
  const ScoreBasedGenerativeModel model({.data_dim = 2}, Rng{1});
  const ScoreNetworkOptions& o = model.network().options();
  CHECK(o.hidden_dim == 256);
  CHECK(o.num_layers == 4);
  CHECK(o.num_noise_levels == 10);
  CHECK(o.sigma_min == .01);
  CHECK(o.sigma_max == 10);
}

TEST_CASE("train_step is the weighted denoising loss and one Adam update") {
  const Matrix data = datasets::three_gaussians(64, Rng{42});
  ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 32}, Rng{1});
  const std::vector<float> before = weights_of(model.network());
  const double loss = model.train_step(data);
  CHECK(loss > 0);
  CHECK(loss < 10);
  const std::vector<float> after = weights_of(model.network());
  // Adam's first step moves every parameter by the learning rate times g / (|g| + 1e-8): at most 1e-3, most of them nearly so.
  std::size_t moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double step = std::abs(double(after[i]) - before[i]);
    CHECK(step <= 1e-3 * (1 + 1e-5) + 0x1p-23 * std::abs(double(before[i])));
    moved += step > .9e-3;
  }
  CHECK(moved > before.size() / 2);
}

TEST_CASE("training lowers the loss, reports instead of printing, and stops when told") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 64}, Rng{1});
  std::vector<double> averages;
  std::vector<std::int64_t> steps, epochs;
  const auto callback = [&](const ModelTrainingLog& log) {
    if (log.epoch_ended) {
      epochs.push_back(log.epoch);
      averages.push_back(log.average_loss);
    } else {
      steps.push_back(log.step);
    }
    return log.epoch < 150;
  };
  model.train(data, 200, {.log_every = 100, .callback = callback});
  REQUIRE(averages.size() == 151);
  CHECK(epochs.back() == 150);
  CHECK(steps == std::vector<std::int64_t>{100, 200, 300});
  // The ratio is .8, known to .023: a row's loss scatters by 1, and the means are of 3,000 and 15,000 rows.
  const auto mean_of = [&](std::size_t first, std::size_t count) {
    double sum = 0;
    for (std::size_t i = first; i < first + count; ++i) sum += averages[i] / static_cast<double>(count);
    return sum;
  };
  CHECK(mean_of(101, 50) < .92 * mean_of(0, 10));

  // A table smaller than the batch: one step an epoch.
  int ended = 0, logged = 0;
  model.train(data.middle_rows(0, 20), 3, {.log_every = 1, .callback = [&](const ModelTrainingLog& log) {
                                             (log.epoch_ended ? ended : logged) += 1;
                                             return true;
                                           }});
  CHECK(ended == 3);
  CHECK(logged == 3);
}

TEST_CASE("the same seed gives the same model and the same samples, whatever the threads") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  std::vector<std::vector<float>> weights;
  std::vector<Matrix> samples;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 64}, Rng{7});
    model.train(data, 5);
    weights.push_back(weights_of(model.network()));
    samples.push_back(model.sample(100, 2).x);
    CHECK_FALSE(same(samples.back(), model.sample(100, 2).x));  // every call draws afresh
  }
  set_threads(0);
  CHECK(weights[0] == weights[1]);
  CHECK(weights[0] == weights[2]);
  CHECK(same(samples[0], samples[1]));
  CHECK(same(samples[0], samples[2]));
}

TEST_CASE("sample is annealed Langevin with the chapter's constants") {
  ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 16}, Rng{7});
  const Samples s = model.sample(50, 3, true);
  REQUIRE(s.trajectory.size() == 11);  // the start and ten levels
  CHECK(s.evaluations == 30);
  CHECK(same(s.trajectory.back(), s.x));
  // The model's streams in order: network, noise, order, sampling.
  Rng rng{7};
  for (int i = 0; i < 3; ++i) rng.split();
  Rng sampling = rng.split();
  const Matrix expected = annealed_langevin_dynamics(model.network(), *model.network().levels(), 50, sampling.split(), 3);
  CHECK(same(s.x, expected));
  CHECK(model.sample(5, 1).trajectory.empty());
}

TEST_CASE("the log-likelihood estimate is the chapter's sum over the levels") {
  ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 16}, Rng{7});
  const Matrix x = datasets::three_gaussians(9, Rng{3});
  const std::vector<double> estimate = model.log_likelihood_estimate(x);
  const NoiseLevels& levels = *model.network().levels();
  std::vector<double> expected(9);
  for (Index i = 0; i + 1 < levels.size(); ++i) {
    MatrixD score(9, 2);
    const double sigma = levels[i];
    model.network().score(MatrixD(x.view()), {&sigma, 1}, nullptr, score);
    for (Index b = 0; b < 9; ++b) {
      const double square = score(b, 0) * score(b, 0) + score(b, 1) * score(b, 1);
      expected[static_cast<std::size_t>(b)] -= .5 * square * (levels[i] - levels[i + 1]);
    }
  }
  for (std::size_t b = 0; b < 9; ++b) CHECK(estimate[b] == doctest::Approx(expected[b]).epsilon(1e-4));  // fp32 network

  // As many steps as the levels have are the levels; more of them converge.
  const std::vector<double> nine = model.log_likelihood_estimate(x, 9);
  const std::vector<double> fine = model.log_likelihood_estimate(x, 2000), finer = model.log_likelihood_estimate(x, 4000);
  for (std::size_t b = 0; b < 9; ++b) {
    CHECK(nine[b] == doctest::Approx(estimate[b]).epsilon(1e-4));
    CHECK(fine[b] == doctest::Approx(finer[b]).epsilon(1e-2));
    CHECK(std::abs(finer[b] - fine[b]) < std::abs(fine[b] - estimate[b]));
  }
  CHECK_THROWS_AS(model.log_likelihood_estimate(x, 0), UsageError);
  CHECK_THROWS_AS(model.log_likelihood_estimate(Matrix(3, 3)), UsageError);
}

TEST_CASE("what cannot be trained on is refused") {
  ScoreBasedGenerativeModel model({.data_dim = 2, .hidden_dim = 16}, Rng{7});
  CHECK_THROWS_AS(model.train_step(Matrix(0, 2)), UsageError);
  CHECK_THROWS_AS(model.train_step(Matrix(4, 3)), UsageError);
  CHECK_THROWS_AS(model.train(Matrix(4, 2), 0), UsageError);
  CHECK_THROWS_AS(model.train(Matrix(0, 2), 1), DataError);
  Matrix bad(4, 2);
  bad(2, 1) = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> before = weights_of(model.network());
  CHECK_THROWS_AS(model.train_step(bad), DivergedError);
  CHECK(weights_of(model.network()) == before);
}
