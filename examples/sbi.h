// sbi.h - simulation-based inference with a conditional score network: what the programs sbi_*.cpp share.
//
//   theta ~ prior, x ~ simulator(theta), N pairs  ->  a network of the score of p(theta + sigma eps | x)  ->  draws of p(theta |
//   x_o)
//
// The pairs alone are used, never the prior's or the simulator's density:
//   1. theta = B [1, x] + r by least squares, r = L z with z of unit covariance; the network learns z given the standardised x.
//   2. Denoising score matching with EDM's preconditioning and weights [Karras et al. 2022]; a tenth of the pairs is kept apart,
//      and the averaged weights with the lowest validation loss are taken.
//   3. Heun's method on the probability flow from noise to z; theta = B [1, x_o] + L z; draws outside the prior are rejected.
// Judged as in sbibm [Lueckmann et al. 2021]: accuracy of a classifier two-sample test (c2st.h) against reference draws, .5 at
// best. With --data DIR (sbibm's task directories: num_observation_1 ... 10, each observation.csv and
// reference_posterior_samples.csv.bz2) observations and references are the benchmark's; without, they are simulated here, the
// references by the exact posterior, which these three tasks have.
// SPDX-License-Identifier: MIT
#pragma once

#include <tweedie/tweedie.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sbi {

using namespace tweedie;

/// A benchmark task. Every draw is a function of the stream and the row.
struct Task {
  const char* name;
  std::function<Matrix(Index n, Rng rng)> prior;                            // (n, D)
  std::function<Matrix(ConstRows<float> theta, Rng rng)> simulate;          // (n, D) -> (n, C)
  std::function<bool(std::span<const float> theta)> inside;                 // the prior's support
  std::function<Matrix(std::span<const float> x, Index n, Rng rng)> exact;  // draws of the posterior given x: (n, D)
};

struct Settings {
  Index simulations = 10'000;
  std::int64_t steps = 20'000;
  Index batch = 256;
  double learning_rate = 1e-3;
  double weight_decay = 0;
  double ema = .999;
  Architecture architecture = Architecture::residual;
  Index width = 128;
  Index layers = 3;
  double sigma_min = .002, sigma_max = 80;
  double p_mean = -1.2, p_std = 1.6;  // of ln sigma in training
  int ensemble = 1;                   // networks, each with a split and start of its own, whose scores are averaged
  Index intervals = 40;               // of Heun's method
  Index draws = 10'000;               // per observation
  int observations = 10;              // the first so many ...
  int skip = 0;                       // ... less the first of these, which a run that was cut has judged already
  std::uint64_t seed = 1;
  int threads = 1;
  double at_most = 1;  // mean accuracy above which the program fails
  bool exact = false;  // judge the exact posterior's draws in place of the network's: the best that can be had
  std::string data;
};

/// theta = B [1, x] + L z, and the columns of x standardised.
struct Whitening {
  Eigen::MatrixXd regression;          // B, (D, C + 1)
  Eigen::MatrixXd factor;              // L, (D, D) lower triangular
  Eigen::RowVectorXd mean, deviation;  // of x, (C)

  static Whitening fit(ConstRows<float> theta, ConstRows<float> x) {
    const Eigen::MatrixXd t = theta.eigen().cast<double>(), v = x.eigen().cast<double>();
    const double n = static_cast<double>(t.rows());
    Eigen::MatrixXd ones(v.rows(), v.cols() + 1);
    ones << Eigen::VectorXd::Ones(v.rows()), v;
    Whitening w;
    w.regression = (ones.transpose() * ones).ldlt().solve(ones.transpose() * t).transpose();
    const Eigen::MatrixXd residual = t - ones * w.regression.transpose();
    w.factor = (residual.transpose() * residual / n).llt().matrixL();
    w.mean = v.colwise().mean();
    w.deviation = ((v.rowwise() - w.mean).array().square().colwise().sum() / n).sqrt();
    return w;
  }
  Eigen::VectorXd centre(std::span<const float> x) const {
    Eigen::VectorXd ones(static_cast<Index>(x.size()) + 1);
    ones(0) = 1;
    for (std::size_t c = 0; c < x.size(); ++c) ones(static_cast<Index>(c) + 1) = static_cast<double>(x[c]);
    return regression * ones;
  }
  /// z of the pairs, (n, D).
  Matrix whiten(ConstRows<float> theta, ConstRows<float> x) const {
    Matrix z(theta.rows(), theta.cols());
    for (Index r = 0; r < theta.rows(); ++r) {
      Eigen::VectorXd row = theta.eigen().row(r).cast<double>().transpose() - centre(x.row(r));
      factor.triangularView<Eigen::Lower>().solveInPlace(row);
      z.eigen().row(r) = row.transpose().cast<float>();
    }
    return z;
  }
  /// theta of z (n, D) at one x.
  Matrix colour(ConstRows<float> z, std::span<const float> x) const {
    Matrix theta(z.rows(), z.cols());
    const Eigen::RowVectorXd at = centre(x).transpose();
    theta.eigen() = ((z.eigen().cast<double>() * factor.transpose()).rowwise() + at).cast<float>();
    return theta;
  }
  Matrix standardise(ConstRows<float> x) const {
    Matrix out(x.rows(), x.cols());
    out.eigen() = ((x.eigen().cast<double>().rowwise() - mean).array().rowwise() / deviation.array()).cast<float>();
    return out;
  }
};

/// Networks that answer with their mean score.
class Ensemble final : public ScoreModel {
 public:
  void add(std::unique_ptr<Network> network) { networks_.push_back(std::move(network)); }

  Index dim() const override { return networks_[0]->dim(); }
  double sigma_min() const override { return networks_[0]->sigma_min(); }
  double sigma_max() const override { return networks_[0]->sigma_max(); }
  Index covariate_dim() const override { return networks_[0]->covariate_dim(); }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override {
    mean(y, sigma, condition, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override {
    mean(y, sigma, condition, out);
  }
  const char* name() const override { return "ensemble"; }

 private:
  template <class S>
  void mean(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
    MatrixX<S> sum(y.rows(), y.cols()), one(y.rows(), y.cols());
    for (const auto& network : networks_) {
      network->score(y, sigma, condition, one);
      sum.eigen() += one.eigen() / static_cast<S>(networks_.size());
    }
    out.eigen() = sum.eigen();
  }

  std::vector<std::unique_ptr<Network>> networks_;
};

/// One network on the pairs (z, c), with the averaged weights of its lowest validation loss.
inline std::unique_ptr<Network> train_network(ConstRows<float> z, ConstRows<float> c, const Settings& s, Rng rng) {
  auto network = std::make_unique<ContinuousScoreNetwork>(ContinuousNetworkOptions{.data_dim = z.cols(),
                                                                                   .hidden_dim = s.width,
                                                                                   .num_layers = s.layers,
                                                                                   .architecture = s.architecture,
                                                                                   .embedding_dim = s.width,
                                                                                   .sigma_min = s.sigma_min,
                                                                                   .sigma_max = s.sigma_max,
                                                                                   .sigma_data = 1,
                                                                                   .covariate_dim = c.cols()},
                                                          rng.split());
  const TrainingData data{.rows = z, .covariates = c};
  Trainer trainer(*network, data,
                  {.objective = Denoising{.weighting = Weighting::edm, .sigma_data = 1},
                   .steps = s.steps,
                   .batch = std::min(s.batch, z.rows()),
                   .learning_rate = s.learning_rate,
                   .schedule = {.kind = LearningRate::cosine, .warmup_steps = std::min<std::int64_t>(s.steps / 10, 500)},
                   .adam = {.weight_decay = s.weight_decay},
                   .ema = s.ema,
                   .sigma_sampling = SigmaSampling::lognormal(s.p_mean, s.p_std),
                   .valid_fraction = .1},
                  rng.split());
  const std::int64_t every = std::max<std::int64_t>(s.steps / 40, 1);
  double lowest = std::numeric_limits<double>::infinity(), train_loss = 0;
  std::int64_t best_step = 0;
  std::vector<float> best;
  while (!trainer.done()) {
    trainer.step();
    if (trainer.steps_done() % every != 0 && !trainer.done()) continue;
    const TrainingStep report = trainer.report();
    train_loss = report.smoothed_loss;
    if (report.valid_loss >= lowest) continue;
    lowest = report.valid_loss;
    best_step = report.step;
    best.assign(trainer.ema_parameters().begin(), trainer.ema_parameters().end());
  }
  std::copy(best.begin(), best.end(), network->parameters().begin());
  network->parameters_changed();
  std::printf("network: %td parameters, validation loss %.4f at step %lld of %lld (last training loss %.4f)\n",
              network->layout().size(), lowest, static_cast<long long>(best_step), static_cast<long long>(s.steps), train_loss);
  return network;
}

/// The first n draws of theta given x that lie inside the prior.
inline Matrix draw_posterior(const Task& task, const Ensemble& networks, const Whitening& whitening, std::span<const float> x,
                             const Settings& s, Rng rng) {
  const ConstRows<float> row(x.data(), 1, static_cast<Index>(x.size()));
  const Conditioned model(networks, whitening.standardise(row).row(0));
  const std::vector<double> sigmas = karras(s.intervals, s.sigma_min, s.sigma_max);
  Matrix accepted(s.draws, model.dim());
  Index count = 0;
  for (int round = 0; round < 50 && count < s.draws; ++round) {
    const Index wanted = (s.draws - count) * 11 / 10 + 16;
    const Matrix theta = whitening.colour(heun(model, sigmas, {.samples = wanted}, rng.split()).x, x);
    for (Index r = 0; r < theta.rows() && count < s.draws; ++r) {
      if (!task.inside(theta.row(r))) continue;
      std::copy_n(theta.row(r).data(), theta.cols(), accepted.row(count++).data());
    }
  }
  check<DivergedError>(count == s.draws, task.name, ": only ", count, " of ", s.draws,
                       " draws lie inside the prior after 50 rounds; train for more steps");
  return accepted;
}

struct Observation {
  Matrix x;          // (1, C)
  Matrix reference;  // (draws, D)
};

inline std::string read_command(const std::string& command) {
  std::string text;
  std::FILE* const pipe = popen(command.c_str(), "r");
  check<IoError>(pipe != nullptr, "cannot run ", command);
  char buffer[1 << 16];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  check<IoError>(pclose(pipe) == 0 && !text.empty(), command, " failed; --data needs sbibm's files and the program bzip2");
  return text;
}

/// Observation `number`, from 1.
inline Observation observe(const Task& task, int number, const Settings& s, Rng rng) {
  if (s.data.empty()) {
    const Matrix x = task.simulate(task.prior(1, rng.split()), rng.split());
    return {x, task.exact(x.row(0), s.draws, rng.split())};
  }
  const std::string folder = join(s.data, "/", task.name, "/num_observation_", number);
  const std::string packed = folder + "/reference_posterior_samples.csv.bz2";
  const std::string text = read_command("bzip2 -dc '" + packed + "'");
  const Matrix all(to_matrix(parse_csv(std::as_bytes(std::span(text)), packed)).view());
  return {Matrix(to_matrix(read_csv(folder + "/observation.csv")).view()),
          Matrix(all.view().middle_rows(0, std::min(s.draws, all.rows())))};
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline int run(const Task& task, const Settings& s) {
  set_threads(s.threads);
  const auto start = std::chrono::steady_clock::now();
  Rng rng{s.seed};
  Rng simulation = rng.split(), training = rng.split(), sampling = rng.split(), judging = rng.split(), observing = rng.split();
  Ensemble networks;
  Whitening whitening;
  if (!s.exact) {
    const Matrix theta = task.prior(s.simulations, simulation.split());
    const Matrix x = task.simulate(theta, simulation.split());
    whitening = Whitening::fit(theta, x);
    const Matrix z = whitening.whiten(theta, x), c = whitening.standardise(x);
    for (int member = 0; member < s.ensemble; ++member) networks.add(train_network(z, c, s, training.split()));
  }
  const double trained = seconds_since(start);
  std::printf("%s: %td simulations, %d x %lld steps of %td, width %td, %td layers; trained in %.0f s\n", task.name, s.simulations,
              s.ensemble, static_cast<long long>(s.steps), s.batch, s.width, s.layers, trained);
  std::fflush(stdout);

  double sum = 0, squares = 0, lowest = 1, highest = 0;
  for (int number = 1; number <= s.observations; ++number) {
    const Rng seen = observing.split(), stream = sampling.split(), folds = judging.split();
    if (number <= s.skip) continue;
    const Observation o = observe(task, number, s, seen);
    const Matrix draws =
        s.exact ? task.exact(o.x.row(0), s.draws, stream) : draw_posterior(task, networks, whitening, o.x.row(0), s, stream);
    const C2st c = c2st(o.reference, draws, {}, folds);
    std::printf("observation %2d: C2ST %.4f +- %.4f\n", number, c.accuracy, c.standard_error);
    std::fflush(stdout);
    sum += c.accuracy;
    squares += c.accuracy * c.accuracy;
    lowest = std::min(lowest, c.accuracy);
    highest = std::max(highest, c.accuracy);
  }
  const int judged = s.observations - s.skip;
  const double n = judged, mean = sum / n;
  const double error = n > 1 ? std::sqrt(std::max(0.0, squares / n - mean * mean) / (n - 1)) : 0;
  std::printf("mean C2ST %.4f +- %.4f over %d observations (%.4f to %.4f); %.0f s in all\n", mean, error, judged, lowest, highest,
              seconds_since(start));
  if (mean <= s.at_most) return 0;
  std::printf("above the bound of %.3f\n", s.at_most);
  return 1;
}

/// The settings with the command line's changes; throws UsageError for an option it does not know.
inline Settings parse(Settings s, int argc, char** argv) {
  const std::vector<std::pair<std::string, std::function<void(const std::string&)>>> options = {
      {"--simulations", [&](const std::string& v) { s.simulations = std::stoll(v); }},
      {"--steps", [&](const std::string& v) { s.steps = std::stoll(v); }},
      {"--batch", [&](const std::string& v) { s.batch = std::stoll(v); }},
      {"--learning-rate", [&](const std::string& v) { s.learning_rate = std::stod(v); }},
      {"--weight-decay", [&](const std::string& v) { s.weight_decay = std::stod(v); }},
      {"--ema", [&](const std::string& v) { s.ema = std::stod(v); }},
      {"--net", [&](const std::string& v) { s.architecture = architecture(v); }},
      {"--width", [&](const std::string& v) { s.width = std::stoll(v); }},
      {"--layers", [&](const std::string& v) { s.layers = std::stoll(v); }},
      {"--p-mean", [&](const std::string& v) { s.p_mean = std::stod(v); }},
      {"--p-std", [&](const std::string& v) { s.p_std = std::stod(v); }},
      {"--ensemble", [&](const std::string& v) { s.ensemble = std::stoi(v); }},
      {"--intervals", [&](const std::string& v) { s.intervals = std::stoll(v); }},
      {"--draws", [&](const std::string& v) { s.draws = std::stoll(v); }},
      {"--observations", [&](const std::string& v) { s.observations = std::stoi(v); }},
      {"--skip", [&](const std::string& v) { s.skip = std::stoi(v); }},
      {"--data", [&](const std::string& v) { s.data = v; }},
      {"--seed", [&](const std::string& v) { s.seed = std::stoull(v); }},
      {"--threads", [&](const std::string& v) { s.threads = std::stoi(v); }},
      {"--at-most", [&](const std::string& v) { s.at_most = std::stod(v); }},
      {"--exact", [&](const std::string& v) { s.exact = v == "yes"; }},
  };
  for (int i = 1; i < argc; i += 2) {
    const auto found = std::find_if(options.begin(), options.end(), [&](const auto& option) { return option.first == argv[i]; });
    std::string names;
    for (const auto& option : options) names += " " + option.first;
    check(found != options.end() && i + 1 < argc, argv[i], ": options come with a value each:", names);
    found->second(argv[i + 1]);
  }
  check(s.skip >= 0 && s.skip < s.observations, "--skip ", s.skip, " leaves none of --observations ", s.observations);
  check(s.ensemble >= 1 && s.observations >= 1 && s.draws >= 10, "--ensemble ", s.ensemble, ", --observations ", s.observations,
        ", --draws ", s.draws, ": give at least 1, 1 and 10");
  return s;
}

/// main() of the three programs. `settings` gives the defaults for the number of simulations.
inline int program(const Task& task, const Settings& settings, int argc, char** argv) {
  try {
    return run(task, parse(settings, argc, argv));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s: %s\n", task.name, e.what());
    return e.exit_code();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s (an option's value is no number?)\n", task.name, e.what());
    return 2;
  }
}

/// (n, cols) uniform in (low, high].
inline Matrix uniform(Index n, Index cols, double low, double high, const Rng& rng) {
  Matrix u(n, cols);
  rng.uniforms<float>(Purpose::user, 0, 0, u);
  for (Index i = 0; i < u.size(); ++i) u.data()[i] = static_cast<float>(low + (high - low) * static_cast<double>(u.data()[i]));
  return u;
}
/// (n, cols) of N(0, deviation^2).
inline Matrix normal(Index n, Index cols, double deviation, const Rng& rng) {
  Matrix z(n, cols);
  rng.normals<float>(Purpose::user, 0, 0, z);
  for (Index i = 0; i < z.size(); ++i) z.data()[i] *= static_cast<float>(deviation);
  return z;
}

/// n rows of candidates(m, stream) -> (m, D), those with keep(row), in order.
inline Matrix reject(Index n, Rng rng, const std::function<Matrix(Index m, Rng stream)>& candidates,
                     const std::function<bool(std::span<const float>)>& keep) {
  Matrix kept;
  Index count = 0;
  for (int round = 0; round < 10'000 && count < n; ++round) {
    const Matrix proposed = candidates(n, rng.split());
    if (kept.empty()) kept = Matrix(n, proposed.cols());
    for (Index r = 0; r < proposed.rows() && count < n; ++r) {
      if (keep(proposed.row(r))) std::copy_n(proposed.row(r).data(), proposed.cols(), kept.row(count++).data());
    }
  }
  check<DataError>(count == n, "the exact posterior has almost no mass inside the prior; is this observation one of the task's?");
  return kept;
}

}  // namespace sbi
