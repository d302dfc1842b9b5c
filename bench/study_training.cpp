// study_training.cpp - how near a network trained on fresh draws comes to the exact score, noise level by noise level.
//
//   study_training --steps 20000 --batch 512 --oracle three_gaussians
//   study_training --steps 20000 --batch 512 --oracle three_gaussians_unequal --levels 40 --sigma-max 50 --json
//   study_training --sample 30                                 also: 10,000 samples from 30 levels x 100 steps, a = .5 sigma^2
//   study_training --data 300 --batch 128                      on a table of 300 rows: nearer to the truth or to the table?
//   study_training --net mlp|residual|energy --sigma-min .01 --sigma-max 10    the networks for any noise level, ln sigma uniform
//   study_training --net mlp --edm                              the same with EDM's weighting and ln sigma ~ N(-1.2, 1.2^2)
//   study_training --net mlp --edm --p-mean -.5 --p-std 1.8 --sigma-min .002 --sigma-max 80 --kl 50000
//                                                              also KL(data || model), from fresh draws by the probability flow
//   study_training --time 200 --batch 128 --threads 1          only times training steps
//
// Prints, for the averaged weights, per level: sigma, error = E sigma^2 |ds|^2 / D, relative = E|ds|^2 / E|s|^2 and the zero
// network's error, then the means. Adam 1e-3 with cosine decay, EMA .999, as in the tables that this is compared with.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/empirical_mixture.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/likelihood.h"

using namespace tweedie;

namespace {

struct Arguments {
  std::int64_t steps = 20'000;
  Index batch = 512, levels = 10, width = 256, draws = 50'000;
  double sigma_min = .01, sigma_max = 10, learning_rate = 1e-3, ema = .999;
  std::string oracle = "three_gaussians", net = "chapter";
  double sigma_data = 0;  // 0: the data's deviation
  std::uint64_t seed = 1;
  int threads = 0;
  std::int64_t time = 0;              // steps to time; 0: train and compare
  Index data = 0;                     // rows of the table trained on; 0: fresh draws
  Index sample = 0;                   // levels of the chain that samples the network; 0: no sampling
  Index kl = 0;                       // draws of the estimate of KL(data || model); 0: none
  double p_mean = -1.2, p_std = 1.2;  // of ln sigma with --edm
  bool from_oracle = false;           // the flow of --kl starts from the oracle's own p_T
  bool json = false;
  bool edm = false;  // EDM's weighting and ln sigma ~ N(p_mean, p_std^2)
};

template <class T>
void read(const char* name, const char* text, T& value) {
  const auto result = std::from_chars(text, text + std::strlen(text), value);
  check(result.ec == std::errc() && *result.ptr == '\0', name, ": '", text, "' is no number");
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--json" || name == "--edm" || name == "--from-p_T") {
      (name == "--json" ? a.json : name == "--edm" ? a.edm : a.from_oracle) = true;
      continue;
    }
    check(i + 1 < argc, name, " needs a value");
    const char* value = argv[++i];
    if (name == "--steps")
      read(argv[i - 1], value, a.steps);
    else if (name == "--batch")
      read(argv[i - 1], value, a.batch);
    else if (name == "--levels")
      read(argv[i - 1], value, a.levels);
    else if (name == "--width")
      read(argv[i - 1], value, a.width);
    else if (name == "--draws")
      read(argv[i - 1], value, a.draws);
    else if (name == "--sigma-min")
      read(argv[i - 1], value, a.sigma_min);
    else if (name == "--sigma-max")
      read(argv[i - 1], value, a.sigma_max);
    else if (name == "--lr")
      read(argv[i - 1], value, a.learning_rate);
    else if (name == "--ema")
      read(argv[i - 1], value, a.ema);
    else if (name == "--seed")
      read(argv[i - 1], value, a.seed);
    else if (name == "--threads")
      read(argv[i - 1], value, a.threads);
    else if (name == "--time")
      read(argv[i - 1], value, a.time);
    else if (name == "--data")
      read(argv[i - 1], value, a.data);
    else if (name == "--sample")
      read(argv[i - 1], value, a.sample);
    else if (name == "--kl")
      read(argv[i - 1], value, a.kl);
    else if (name == "--p-mean")
      read(argv[i - 1], value, a.p_mean);
    else if (name == "--p-std")
      read(argv[i - 1], value, a.p_std);
    else if (name == "--sigma-data")
      read(argv[i - 1], value, a.sigma_data);
    else if (name == "--net")
      a.net = value;
    else if (name == "--oracle")
      a.oracle = value;
    else
      fail("unknown option ", name);
  }
  return a;
}

// Draws numbered by the step that uses them.
FreshRows fresh_draws(const GaussianMixture& mixture, const Rng& rng, Index batch) {
  return [&mixture, rng, batch](std::uint64_t first_row, Rows<float> out) {
    Rng stream(rng.key(), first_row / static_cast<std::uint64_t>(batch));
    const Matrix rows = mixture.sample(out.rows(), stream.split());
    for (Index r = 0; r < out.rows(); ++r) std::copy(rows.row(r).begin(), rows.row(r).end(), out.row(r).begin());
  };
}

void time_steps(Trainer& trainer, const Arguments& a) {
  for (int i = 0; i < 20; ++i) trainer.step();
  std::vector<double> times;
  const std::clock_t cpu = std::clock();
  for (std::int64_t i = 0; i < a.time; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    trainer.step();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  const double cpu_ms = 1e3 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / static_cast<double>(a.time);
  std::sort(times.begin(), times.end());
  const auto quantile = [&](double q) { return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))]; };
  std::printf(
      "%s, width %td, batch %td, %d threads, %s: median %.3f ms a step (10%% %.3f, 90%% %.3f, %zu steps), of CPU %.3f ms\n",
      a.net.c_str(), a.width, a.batch, threads(), std::string(trainer.engine()).c_str(), quantile(.5), quantile(.1), quantile(.9),
      times.size(), cpu_ms);
}

// A sampler's call: all rows at one sigma.
void time_score(const Network& net, const Arguments& a) {
  const Matrix x(10'000, net.dim());
  Matrix out(10'000, net.dim());
  const auto sigma = static_cast<float>(a.sigma_min);
  std::vector<double> times;
  for (int i = 0; i < 12; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    net.score(x, std::span(&sigma, 1), nullptr, out);
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(times.begin() + 2, times.end());
  std::printf("score of 10,000 rows at one sigma: median %.3f us a row\n", times[7] / 1e4);
}

double deviation_of(const Arguments& a, const GaussianMixture& oracle) {
  return a.sigma_data > 0 ? a.sigma_data : data_deviation(oracle.sample(100'000, Rng{7}));
}

std::unique_ptr<Network> make_net(const Arguments& a, const GaussianMixture& oracle, Rng rng) {
  if (a.net == "chapter") {
    return std::make_unique<ScoreNetwork>(ScoreNetworkOptions{.data_dim = oracle.dim(),
                                                              .hidden_dim = a.width,
                                                              .num_noise_levels = a.levels,
                                                              .sigma_min = a.sigma_min,
                                                              .sigma_max = a.sigma_max},
                                          rng);
  }
  const bool energy = a.net == "energy";
  const ContinuousNetworkOptions options{.data_dim = oracle.dim(),
                                         .hidden_dim = a.width,
                                         .architecture = energy ? Architecture::mlp : architecture(a.net),
                                         .sigma_min = a.sigma_min,
                                         .sigma_max = a.sigma_max,
                                         .sigma_data = deviation_of(a, oracle)};
  if (energy) return std::make_unique<EnergyNetwork>(options, rng);
  return std::make_unique<ContinuousScoreNetwork>(options, rng);
}

void print(const FisherDivergence& d, const Arguments& a, double seconds) {
  if (a.json) {
    std::printf("{\"oracle\": \"%s\", \"steps\": %lld, \"batch\": %td, \"seed\": %llu, \"seconds\": %.1f, \"levels\": [",
                a.oracle.c_str(), static_cast<long long>(a.steps), a.batch, static_cast<unsigned long long>(a.seed), seconds);
    for (const LevelError& l : d.levels) {
      std::printf("%s\n  {\"sigma\": %.9g, \"error\": %.6g, \"standard_error\": %.3g, \"relative\": %.6g, \"zero\": %.6g}",
                  &l == d.levels.data() ? "" : ",", l.sigma, l.error, l.standard_error, l.relative, l.zero_error);
    }
    std::printf("],\n \"mean_error\": %.6g, \"mean_zero\": %.6g}\n", d.mean_error, d.mean_zero_error);
    return;
  }
  std::printf("%s network, %s, %lld steps of %td %s, %.0f s\n\n", a.net.c_str(), a.oracle.c_str(),
              static_cast<long long>(a.steps), a.batch, a.data == 0 ? "fresh draws" : "rows of a table", seconds);
  std::printf("%10s %12s %10s %12s %12s\n", "sigma", "error", "+-", "relative", "zero's error");
  for (const LevelError& l : d.levels) {
    std::printf("%10.4g %12.3e %10.1e %12.3e %12.3e\n", l.sigma, l.error, l.standard_error, l.relative, l.zero_error);
  }
  std::printf("%10s %12.3e %10.1e %12s %12.3e\n", "mean", d.mean_error, d.mean_standard_error, "", d.mean_zero_error);
}

// The 99th percentile of the energy distance between two sets of n true draws, over 100 pairs.
double null_percentile(const GaussianMixture& oracle, Index n, Rng rng) {
  std::vector<double> null;
  for (int i = 0; i < 100; ++i) {
    const Matrix x = oracle.sample(n, rng.split());
    null.push_back(energy_distance(x, oracle.sample(n, rng.split())));
  }
  std::sort(null.begin(), null.end());
  return null[98];
}

void sample(const Network& net, const GaussianMixture& oracle, const Arguments& a, Rng rng) {
  constexpr Index n = 10'000;
  const NoiseLevels levels = NoiseLevels::geometric(a.sigma_max, a.sigma_min, a.sample);
  const double percentile = null_percentile(oracle, n, rng.split());
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const Samples s = annealed_langevin(net, levels, {.samples = n, .step_size_factor = .5}, rng.split());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const double distance = energy_distance(s.x, oracle.sample(n, rng.split()));
    std::printf(
        "%td samples, %td levels x 100 steps, a = .5 sigma^2, %.0f s: energy distance to true draws %.3e, "
        "%.2f x the null's 99th percentile %.3e\n",
        n, a.sample, seconds, distance, distance / percentile, percentile);
  }
}

// A network's score with the exact density at the end.
class FromOracle final : public ScoreModel {
 public:
  FromOracle(const Network& net, const GaussianMixture& oracle) : net_(net), oracle_(oracle) {}
  Index dim() const override { return net_.dim(); }
  double sigma_min() const override { return net_.sigma_min(); }
  double sigma_max() const override { return net_.sigma_max(); }
  void score(ConstRows<float> y, std::span<const float> s, const Condition* c, Rows<float> out) const override {
    net_.score(y, s, c, out);
  }
  void score(ConstRows<double> y, std::span<const double> s, const Condition* c, Rows<double> out) const override {
    net_.score(y, s, c, out);
  }
  void divergence(ConstRows<double> y, std::span<const double> s, const Condition* c, Rows<double> score_out,
                  std::span<double> out) const override {
    net_.divergence(y, s, c, score_out, out);
  }
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> s, const Condition*, std::span<double> out) const override {
    oracle_.log_density(y, s, nullptr, out);
  }
  const char* name() const override { return "network with the oracle's end"; }

 private:
  const Network& net_;
  const GaussianMixture& oracle_;
};

// KL(data || model) = E ln p_data - ln p_model in nats over fresh draws. The model is the law at sigma_min of the probability
// flow from N(0, sigma_max^2 I), or with --from-p_T from the oracle's law at sigma_max, by the exact trace; p_data is exact.
// Prints the mean, its standard error, and the largest differences.
void divergence_from_data(const Network& net, const GaussianMixture& oracle, const Arguments& a, Rng rng) {
  const auto begin = std::chrono::steady_clock::now();
  const MatrixD x(oracle.sample(a.kl, rng.split()).view());
  const std::vector<double> exact = oracle.log_density(x, 0);
  const FromOracle from_oracle(net, oracle);
  const LogDensityOptions options{
      .terminal = a.from_oracle ? Terminal::exact : Terminal::prior, .sigma_min = a.sigma_min, .sigma_max = a.sigma_max};
  const LogDensity model = log_density(from_oracle, x, options);
  std::vector<double> difference;
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    difference.push_back(exact[i] - model.nats[i]);
    sum += difference.back();
    squares += difference.back() * difference.back();
  }
  std::sort(difference.begin(), difference.end());
  const double n = static_cast<double>(a.kl), mean = sum / n;
  std::printf(
      "KL(data || model) %.5f +- %.5f nats, %td draws, sigma %g to %g, %s terminal; ln p_data - ln p_model from %.2f to %.2f; "
      "%.0f evaluations a row, %.0f s\n",
      mean, std::sqrt((squares / n - mean * mean) / (n - 1)), a.kl, a.sigma_min, a.sigma_max, to_string(options.terminal),
      difference.front(), difference.back(), model.mean_evaluations,
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

// What a table's network learned: the law the rows came from, or the rows.
void memorisation(const Network& net, const NoiseLevels& levels, const GaussianMixture& oracle, const Matrix& table,
                  const Arguments& a, Rng rng) {
  const EmpiricalMixture empirical(table);
  const FisherDivergenceOptions options{.draws = a.draws};
  const FisherDivergence to_table = fisher_divergence(net, empirical, table, levels, options, rng.split());
  const FisherDivergence to_truth = fisher_divergence(net, oracle, table, levels, options, rng.split());
  std::printf("\nat the table's rows + noise:\n%10s %18s %18s %12s\n", "sigma", "error to the rows'", "error to the truth",
              "zero's error");
  for (std::size_t i = 0; i < to_table.levels.size(); ++i) {
    std::printf("%10.4g %18.3e %18.3e %12.3e\n", to_table.levels[i].sigma, to_table.levels[i].error, to_truth.levels[i].error,
                to_table.levels[i].zero_error);
  }
  std::printf("%10s %18.3e %18.3e\n", "mean", to_table.mean_error, to_truth.mean_error);
  const Samples s = annealed_langevin(net, NoiseLevels::geometric(a.sigma_max, a.sigma_min, 30),
                                      {.samples = 2000, .step_size_factor = .5}, rng.split());
  const Matrix held_out = oracle.sample(table.rows(), rng.split());
  std::printf("nearest-neighbour ratio of 2000 samples (1: new rows, towards 0: copies): %.3f\n",
              nearest_neighbour_ratio(s.x, table, held_out));
}

int run(const Arguments& a) {
  set_threads(a.threads);
  const std::optional<GaussianMixture> oracle = datasets::oracle(a.oracle);
  check(oracle.has_value(), "--oracle ", a.oracle, ": no exact score is known; try three_gaussians");
  Rng rng{a.seed};
  const std::unique_ptr<Network> owner = make_net(a, *oracle, rng.split());
  Network& net = *owner;
  const NoiseLevels levels = NoiseLevels::geometric(a.sigma_max, a.sigma_min, a.levels);
  const FreshRows draw = fresh_draws(*oracle, rng.split(), a.batch);
  const double deviation = deviation_of(a, *oracle);
  const Objective objective = a.edm ? Denoising{.weighting = Weighting::edm, .sigma_data = deviation} : Denoising{};
  const TrainOptions options{.objective = objective,
                             .steps = a.time > 0 ? a.time + 20 : a.steps,
                             .batch = a.batch,
                             .learning_rate = a.learning_rate,
                             .schedule = {.kind = LearningRate::cosine},
                             .ema = a.ema,
                             .sigma_sampling = a.edm ? SigmaSampling::lognormal(a.p_mean, a.p_std) : SigmaSampling::automatic,
                             .log_every = 1000};
  if (a.time > 0) {
    Trainer trainer(net, draw, options, rng.split());
    time_steps(trainer, a);
    time_score(net, a);
    return 0;
  }
  const auto report = [](const TrainingStep& s) {
    std::fprintf(stderr, "step %lld of %lld, loss %.4f, %.0f s\n", static_cast<long long>(s.step),
                 static_cast<long long>(s.total_steps), s.smoothed_loss, s.seconds);
  };
  const Matrix table = datasets::make(a.oracle, a.data, Rng{42});
  const TrainingStep last =
      a.data > 0 ? train(net, table, options, rng.split(), report) : train(net, draw, options, rng.split(), report);
  print(fisher_divergence(net, *oracle, levels, {.draws = a.draws}, rng.split()), a, last.seconds);
  if (a.data > 0) memorisation(net, levels, *oracle, table, a, rng.split());
  if (a.sample > 0) sample(net, *oracle, a, rng.split());
  if (a.kl > 0) divergence_from_data(net, *oracle, a, Rng{a.seed + 1000});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
