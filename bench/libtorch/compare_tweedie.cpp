// compare_tweedie.cpp - our side of the comparison with LibTorch: the public interface, as users call it (race.h).
// SPDX-License-Identifier: MIT
#include "machine_peak.h"
#include "race.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/heun.h"

namespace tweedie::race {
namespace {

std::string how() { return std::string("tweedie, cpu ") + kernels::name(kernels::target()); }

// ---- The model files

ContinuousNetworkOptions plane_options(Index width) {
  const double deviation = data_deviation(GaussianMixture::tutorial().sample(100'000, Rng{7}));
  return {.data_dim = 2, .hidden_dim = width, .num_layers = 4, .sigma_data = deviation};
}

// What Q1 trains with; both sides take these numbers.
TrainOptions quality_options(double deviation, long steps) {
  return {.objective = Denoising{.weighting = Weighting::edm, .sigma_data = deviation},
          .steps = steps,
          .batch = kQualityBatch,
          .learning_rate = kQualityRate,
          .schedule = {.kind = LearningRate::cosine},
          .ema = kQualityEma,
          .log_every = steps};
}

void write_models(const std::string& folder) {
  const Matrix table = GaussianMixture::tutorial().sample(kTableRows, Rng{42});
  for (const Index width : {64, 128, 256}) {
    ScoreNetwork net({.data_dim = 2, .hidden_dim = width}, Rng{1});
    if (width == 256) train(net, table, {.steps = 500, .batch = 512}, Rng{3});  // so that chains stay where data are
    save(join(folder, "/chapter_", width, ".safetensors"), net);
  }
  save(folder + "/q1.safetensors", ContinuousScoreNetwork(plane_options(kQualityWidth), Rng{1}));
  ContinuousScoreNetwork plane(plane_options(256), Rng{1});
  train(plane, table, quality_options(plane.options().sigma_data, 500), Rng{3});
  save(folder + "/edm_2.safetensors", plane);
  for (const Index dim : {64, 784}) {
    ContinuousScoreNetwork net({.data_dim = dim, .hidden_dim = 512, .num_layers = 6}, Rng{1});
    // The last layer of a new network is 0 and would hide every error before it.
    const ParameterTensor& last = net.layout()[net.layout().count() - 2];
    const Rows<float> weight = view(last, net.parameters().data());
    Rng{6}.normals<float>(Purpose::initialise, 0, 0, weight);
    for (Index i = 0; i < weight.size(); ++i) weight.data()[i] /= std::sqrt(static_cast<float>(last.cols));
    net.parameters_changed();
    save(join(folder, "/edm_", dim, ".safetensors"), net);
  }
}

// ---- Timed runs

void time_training(const Workload& w, Network& net, long repeats) {
  const Matrix data = standard_rows(4 * w.rows, w.dim);
  Trainer trainer(net, data, {.steps = std::int64_t{1} << 31, .batch = w.rows, .ema = 0}, Rng{4});
  time_and_print(w, repeats, 1, std::string(trainer.engine()), [&] {
    for (Index i = 0; i < w.steps; ++i) trainer.step();
    return w.steps;
  });
}

void time_langevin(const Workload& w, const Network& net, long repeats) {
  const Index steps = net.levels()->size() * w.steps;
  time_and_print(w, repeats, static_cast<double>(steps), how(), [&] {
    annealed_langevin(net, *net.levels(), {.samples = w.rows, .steps_per_level = w.steps}, Rng{3});
    return steps;
  });
}

void time_heun(const Workload& w, const Network& net, long repeats) {
  const std::vector<double> sigmas = heun_schedule(w);
  const Index evaluations = 2 * w.steps - 1;
  time_and_print(w, repeats, static_cast<double>(evaluations), how(), [&] {
    check(heun(net, sigmas, {.samples = w.rows}, Rng{3}).evaluations == evaluations, "S4: another number of evaluations");
    return evaluations;
  });
}

// Rows in chunks that give every thread its share (speed only).
LogDensityOptions likelihood_options(Index rows) {
  return {.rtol = kLikelihoodTolerance, .atol = kLikelihoodTolerance, .chunk_rows = std::max<Index>(1, rows / threads())};
}

void time_likelihood(const Workload& w, const Network& net, long repeats) {
  const MatrixD x = likelihood_rows(w.rows);
  const double nfe = log_density(net, x, likelihood_options(w.rows)).mean_evaluations;
  time_and_print(w, repeats, nfe, how(), [&] {
    log_density(net, x, likelihood_options(w.rows));
    return w.rows;
  });
}

void time_normals(const Workload& w, long repeats) {
  Matrix z(w.rows, w.dim);
  const Rng rng{3};
  time_and_print(w, repeats, 0, how(), [&] {
    for (Index i = 0; i < w.steps; ++i) rng.normals<float>(Purpose::langevin, static_cast<std::uint32_t>(i), 0, z);
    return w.steps * z.size();
  });
}

// ---- Errors

double training_error(const Workload& w, const Network& net) {
  const Batch batch = training_batch(net, w.rows);
  std::vector<float> gradient(static_cast<std::size_t>(net.layout().size())), losses(static_cast<std::size_t>(w.rows));
  make_training_step(net, Denoising{})->loss_and_gradient(net.parameters(), batch, gradient, losses);
  return relative_error(gradient, exact_gradient(net, batch));
}

double score_error(const Workload& w, const Network& net) {
  const Matrix x = standard_rows(kErrorRows, w.dim);
  Matrix out(x.rows(), x.cols());
  double worst = 0;
  for (const double sigma : error_sigmas(w, net)) {
    const float level = static_cast<float>(sigma);
    net.score(x, {&level, 1}, nullptr, out);
    worst = std::max(worst, relative_error(flat(out), flat(exact_scores(net, x, sigma))));
  }
  return worst;
}

double likelihood_error(const Network& net) {
  return largest_difference(
      log_density(net, likelihood_rows(kLikelihoodErrorRows), likelihood_options(kLikelihoodErrorRows)).nats,
      exact_log_density(net, kLikelihoodErrorRows));
}

// ---- Time to quality

void train_to_quality(const Arguments& a) {
  const Matrix table = GaussianMixture::tutorial().sample(kTableRows, Rng{42});
  const auto seed = static_cast<std::uint64_t>(a.number("seed"));
  const long steps = a.number("steps");
  const std::unique_ptr<Network> owner = load_network(a.text("models") + "/q1.safetensors");
  const double begin = wall_now(), cpu = cpu_now();
  Network& net = *owner;
  net.initialise(Rng{seed});  // the fixed frequencies of the noise's features stay, as on the other side
  const TrainingStep last = train(net, table, quality_options(edm(net).options().sigma_data, steps), Rng{seed + 1000});
  const double seconds = wall_now() - begin, cpu_seconds = cpu_now() - cpu;
  save(a.text("out"), net);
  std::printf("{\"seconds\": %.4g, \"cpu\": %.4g, \"steps\": %ld, \"how\": \"%s\"}\n", seconds, cpu_seconds, steps,
              last.engine.c_str());
}

// KL(truth || model) over fresh draws: the mean of log p - log q, whose standard error is small where q is near p.
void print_kl(const Arguments& a) {
  const std::unique_ptr<Network> net = load_network(a.text("model"));
  const GaussianMixture truth = GaussianMixture::tutorial();
  const MatrixD x(truth.sample(a.number("rows"), Rng{99}).view());
  const LogDensity q = log_density(*net, x, {.rtol = 1e-4, .atol = 1e-4});
  const std::vector<double> p = truth.log_density(x, net->sigma_min());
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i] - q.nats[i];
    squares += (p[i] - q.nats[i]) * (p[i] - q.nats[i]);
  }
  const double mean = sum / n;
  std::printf("{\"kl\": %.4g, \"standard_error\": %.2g}\n", mean, std::sqrt((squares / n - mean * mean) / n));
}

void print_info() {
  std::printf("{\"target\": \"%s\", \"peak_gflops_of_a_core\": %.1f}\n", kernels::name(kernels::target()),
              bench::peak(kernels::target()));
}

int run(const Arguments& a) {
  if (a.command() == "info") return print_info(), 0;
  set_threads(static_cast<int>(a.number("threads")));
  if (a.command() == "models") return write_models(a.text("models")), 0;
  if (a.command() == "q1") return train_to_quality(a), 0;
  if (a.command() == "kl") return print_kl(a), 0;
  const bool timed = a.command() == "time";
  check(timed || a.command() == "error", "command '", a.command(), "' is unknown; race.h lists them");
  const Workload& w = a.workload();
  const long repeats = timed ? a.number("repeats") : 0;
  const std::unique_ptr<Network> net = w.kind == Kind::normals ? nullptr : load_network(a.model(w));
  if (w.bf16) net->set_precision(kernels::Precision::bf16);
  switch (w.kind) {
    case Kind::training:
      return timed ? time_training(w, *net, repeats) : print_error(w, training_error(w, *net)), 0;
    case Kind::langevin:
      return timed ? time_langevin(w, *net, repeats) : print_error(w, score_error(w, *net)), 0;
    case Kind::heun:
      return timed ? time_heun(w, *net, repeats) : print_error(w, score_error(w, *net)), 0;
    case Kind::likelihood:
      return timed ? time_likelihood(w, *net, repeats) : print_error(w, likelihood_error(*net)), 0;
    case Kind::normals:
      check(timed, "normals have no error in double; they are held against their law by the tests");
      return time_normals(w, repeats), 0;
  }
  return 0;
}

}  // namespace
}  // namespace tweedie::race

int main(int argc, char** argv) { return tweedie::race::main_with(argc, argv, tweedie::race::run); }
