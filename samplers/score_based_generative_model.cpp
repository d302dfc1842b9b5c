// SPDX-License-Identifier: MIT
#include "tweedie/samplers/score_based_generative_model.h"

#include <algorithm>
#include <cmath>

#include "tweedie/samplers/annealed_langevin.h"

namespace tweedie {

struct ScoreBasedGenerativeModel::State {
  State(const ScoreNetworkOptions& options, Rng rng)
      : net(options, rng.split()),
        noise(rng.split()),
        order(rng.split()),
        sampling(rng.split()),
        engine(make_training_step(net, Denoising{})),
        adam(net.layout().size()),
        gradient(net.layout().size()) {}

  NoiseConditionalScoreNetwork net;
  Rng noise, order, sampling;
  std::unique_ptr<TrainingEngine> engine;
  Adam adam;
  Buffer<float> gradient, row_losses;
  Batch batch;
  std::int64_t steps = 0;
};

ScoreBasedGenerativeModel::ScoreBasedGenerativeModel(const ScoreNetworkOptions& options, Rng rng)
    : state_(std::make_unique<State>(options, rng)) {}
ScoreBasedGenerativeModel::ScoreBasedGenerativeModel(ScoreBasedGenerativeModel&&) noexcept = default;
ScoreBasedGenerativeModel::~ScoreBasedGenerativeModel() = default;

NoiseConditionalScoreNetwork& ScoreBasedGenerativeModel::network() { return state_->net; }
const NoiseConditionalScoreNetwork& ScoreBasedGenerativeModel::network() const { return state_->net; }

double ScoreBasedGenerativeModel::train_step(ConstRows<float> x) {
  State& s = *state_;
  check(x.rows() >= 1 && x.cols() == s.net.dim(), "train_step: x is ", shape(x), ", expected (B, ", s.net.dim(), ") with B >= 1");
  check(s.steps < std::int64_t{1} << 32, "train_step: the random stream holds 2^32 steps");
  perturb<float>(x, *s.net.levels(), s.noise, {.step = static_cast<std::uint32_t>(s.steps)}, s.batch);
  if (s.row_losses.size() != x.rows()) s.row_losses = Buffer<float>(x.rows());
  const double loss = s.engine->loss_and_gradient(s.net.parameters(), s.batch, s.gradient.span(), s.row_losses.span());
  const double norm = s.adam.norm(s.gradient.span());
  check<DivergedError>(std::isfinite(loss) && std::isfinite(norm), "train_step: diverged at step ", s.steps, ", loss ", loss,
                       ", gradient norm ", norm, "; are all of x's values finite and of moderate size?");
  s.adam.update({.learning_rate = 1e-3}, s.gradient.span(), s.net.parameters());
  s.net.parameters_changed();
  ++s.steps;
  return loss;
}

void ScoreBasedGenerativeModel::train(ConstRows<float> data, std::int64_t num_epochs, const ModelTrainOptions& options) {
  State& s = *state_;
  check(num_epochs >= 1 && num_epochs < std::int64_t{1} << 32, "train: num_epochs is ", num_epochs, "; give 1 to 2^32 - 1");
  check(options.batch >= 1 && options.log_every >= 1, "train: batch is ", options.batch, " and log_every ", options.log_every,
        "; give at least 1");
  check<DataError>(data.rows() >= 1, "train: the data has no rows");
  const Index rows = data.rows(), size = std::min(options.batch, rows);
  const Rng stream = s.order.split();
  Matrix x(size, data.cols());
  Permutation order(stream, 0, static_cast<std::uint64_t>(rows));
  std::int64_t order_epoch = 0, step = 0;
  ModelTrainingLog log;
  const auto report = [&] { return !options.callback || options.callback(log); };
  for (log.epoch = 0; log.epoch < num_epochs; ++log.epoch) {
    const std::int64_t first = step, end = ((log.epoch + 1) * rows + size - 1) / size;
    double sum = 0;
    while (step < end) {
      for (Index b = 0; b < size; ++b) {
        const std::int64_t place = step * size + b;
        if (place / rows != order_epoch) {
          order_epoch = place / rows;
          order = Permutation(stream, static_cast<std::uint32_t>(order_epoch), static_cast<std::uint64_t>(rows));
        }
        const auto row = data.row(static_cast<Index>(order(static_cast<std::uint64_t>(place % rows))));
        std::copy(row.begin(), row.end(), x.row(b).begin());
      }
      log.loss = train_step(x);
      sum += log.loss;
      log.step = ++step;
      log.epoch_ended = false;
      if (step % options.log_every == 0 && !report()) return;
    }
    log.epoch_ended = true;
    log.average_loss = sum / static_cast<double>(end - first);
    if (!report()) return;
  }
}

Samples ScoreBasedGenerativeModel::sample(Index num_samples, Index steps_per_level, bool return_trajectory) {
  return annealed_langevin(
      state_->net, *state_->net.levels(),
      {.samples = num_samples, .steps_per_level = steps_per_level, .save_every = return_trajectory ? steps_per_level : 0},
      state_->sampling.split());
}

std::vector<double> ScoreBasedGenerativeModel::log_likelihood_estimate(ConstRows<float> x,
                                                                       std::optional<Index> num_integration_steps) const {
  const NoiseConditionalScoreNetwork& net = state_->net;
  check(x.cols() == net.dim(), "log_likelihood_estimate: x is ", shape(x), ", the network expects ", net.dim(), " columns");
  check(!num_integration_steps || *num_integration_steps >= 1, "log_likelihood_estimate: num_integration_steps is ",
        num_integration_steps.value_or(0), "; give at least 1, or none for the chapter's sum");
  const NoiseLevels levels = !num_integration_steps || net.levels()->size() == 1
                                 ? *net.levels()
                                 : NoiseLevels::geometric(net.sigma_max(), net.sigma_min(), *num_integration_steps + 1);
  std::vector<double> estimate(static_cast<std::size_t>(x.rows()));
  Matrix score(x.rows(), x.cols());
  for (Index i = 0; i + 1 < levels.size(); ++i) {
    const auto sigma = static_cast<float>(levels[i]);
    net.score(x, {&sigma, 1}, nullptr, score);
    for (Index b = 0; b < x.rows(); ++b) {
      double square = 0;
      for (const float v : score.row(b)) square += static_cast<double>(v) * static_cast<double>(v);
      check<DivergedError>(std::isfinite(square), "log_likelihood_estimate: the score of row ", b,
                           " is not finite at sigma = ", levels[i], "; check the row, or train the model further");
      estimate[static_cast<std::size_t>(b)] -= .5 * square * (levels[i] - levels[i + 1]);
    }
  }
  return estimate;
}

}  // namespace tweedie
