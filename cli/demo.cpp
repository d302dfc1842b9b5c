// demo.cpp - tweedie demo: the tutorial end to end in under a minute, learned values beside the exact ones.
//
// The tutorial's 300 points and its mixture; the chapter's network trained on fresh draws of the mixture and on the 300 points;
// its score against the exact one, level by level; Langevin, annealed Langevin, temperature, trajectories; figures and a table.
// SPDX-License-Identifier: MIT
#include "tweedie/cli/demo.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>

#include "tweedie/cli/program.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/files/json.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/empirical_mixture.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/langevin.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  std::string folder = "demo";
  std::int64_t steps = 3000;
  Index samples = 1000;
};

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// A stage's line, with the time it took when it is over.
class Stage {
 public:
  Stage(const Console& console, std::string name) : console_(console), name_(std::move(name)), bar_(console, name_) {}
  ~Stage() {
    bar_.finish();
    console_.note(join("  ", pad(name_, 46), duration(since(begin_))));
  }
  Progress& bar() { return bar_; }
  double seconds() const { return since(begin_); }
  SamplingCallback progress() {
    return [this](const SamplingProgress& p) {
      bar_.update(p.done, p.total);
      return !interrupted();
    };
  }

 private:
  const Console& console_;
  std::string name_;
  Progress bar_;
  Clock::time_point begin_ = Clock::now();
};

void stop_if_interrupted() {
  if (interrupted()) throw CancelledError("the demo was interrupted; what was written so far is in its folder");
}

const NoiseLevels& demo_levels() {
  static const NoiseLevels levels = NoiseLevels::geometric(10, .05, 22);
  return levels;
}

DemoNetwork train_network(const Arguments& a, const std::string& name, const Matrix* table, std::int64_t steps, Rng rng) {
  Stage stage(a.common.console, name);
  DemoNetwork result;
  result.net = std::make_unique<NoiseConditionalScoreNetwork>(ScoreNetworkOptions{.data_dim = 2}, demo_levels(), rng.split());
  TrainOptions options{.steps = steps,
                       .batch = table != nullptr ? 256 : 512,
                       .learning_rate = 2e-3,
                       .schedule = {.kind = LearningRate::cosine, .warmup_steps = 50},
                       .clip_norm = 1,
                       .ema = .995,
                       .ema_warmup = true,
                       .log_every = std::max<std::int64_t>(1, steps / 1000),
                       .device = a.common.device,
                       .cancel = &interrupted()};
  const auto on_report = [&](const TrainingStep& s) {
    result.steps.push_back(static_cast<double>(s.step));
    result.losses.push_back(s.loss);
    stage.bar().update(s.step, s.total_steps, join("loss ", number(s.smoothed_loss, 3)));
  };
  const Rng draws = rng.split(), stream = rng.split();
  if (table != nullptr) {
    train(*result.net, *table, options, stream, on_report);
  } else {
    const FreshRows fresh = [key = draws.key()](std::uint64_t first, Rows<float> out) {
      const Matrix x = datasets::three_gaussians(out.rows(), Rng(key, first).split());
      std::copy_n(x.data(), x.size(), out.data());
    };
    train(*result.net, fresh, options, stream, on_report);
  }
  stop_if_interrupted();
  result.seconds = stage.seconds();
  return result;
}

// Mode weights, mean and energy distance of samples; the null distribution comes from pairs of true samples.
class Judge {
 public:
  Judge(const GaussianMixture& truth, Rng rng) : truth_(truth), rng_(rng) {}

  void operator()(DemoSamples& s) {
    const MatrixD members = truth_.responsibilities(MatrixD(s.x.view()), .01);
    s.weights.assign(static_cast<std::size_t>(truth_.components()), 0);
    const double share = 1 / static_cast<double>(s.x.rows());
    for (Index r = 0; r < s.x.rows(); ++r) {
      const auto row = members.row(r);
      s.weights[static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin())] += share;
      for (Index c = 0; c < 2; ++c) s.mean[c] += share * static_cast<double>(s.x(r, c));
    }
    s.energy = energy_distance(s.x, truth_.sample(s.x.rows(), rng_.split()));
    s.null_99 = null_99(s.x.rows());
  }

 private:
  double null_99(Index n) {
    if (n != null_rows_) {
      constexpr std::size_t kPairs = 300;
      std::vector<double> values;
      for (std::size_t i = 0; i < kPairs; ++i) {
        stop_if_interrupted();
        const Matrix x = truth_.sample(n, rng_.split()), y = truth_.sample(n, rng_.split());
        values.push_back(energy_distance(x, y));
      }
      std::sort(values.begin(), values.end());
      null_99_ = values[kPairs * 99 / 100 - 1];
      null_rows_ = n;
    }
    return null_99_;
  }

  const GaussianMixture& truth_;
  Rng rng_;
  Index null_rows_ = 0;
  double null_99_ = 0;
};

DemoSamples annealed(const Arguments& a, const std::string& name, const std::string& key, const ScoreModel& model,
                     double temperature, Index n, Rng rng, std::vector<Matrix>* trajectory = nullptr) {
  Stage stage(a.common.console, name);
  AnnealedLangevinOptions options{.samples = n, .steps_per_level = 100, .step_size_factor = .5, .temperature = temperature};
  options.progress = stage.progress();
  options.chunk_rows = 250;
  if (trajectory != nullptr) {
    options.save_every = options.steps_per_level;
    options.trajectory_rows = 12;
  }
  Samples s = annealed_langevin(model, demo_levels(), options, rng);
  if (trajectory != nullptr) *trajectory = std::move(s.trajectory);
  return {.name = name, .key = key, .x = std::move(s.x), .weights = {}, .evaluations = s.evaluations, .seconds = stage.seconds()};
}

// Langevin at the smallest useful noise alone, from starts spread widely: no annealing, so the modes get the shares of the
// starts.
DemoSamples plain_langevin(const Arguments& a, const ScoreModel& model, Rng rng) {
  const std::string name = "Langevin at sigma = .1 alone, network";
  Stage stage(a.common.console, name);
  Matrix start(a.samples, 2);
  rng.normals<float>(Purpose::prior, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= 3;
  LangevinOptions options{.step_size = .005, .num_steps = 600, .chunk_rows = 250};
  options.progress = stage.progress();
  Samples s = langevin_dynamics(model, .1, start, options, rng);
  return {.name = name,
          .key = "langevin",
          .x = std::move(s.x),
          .weights = {},
          .evaluations = s.evaluations,
          .seconds = stage.seconds()};
}

void measure_errors(const Arguments& a, Demo& demo, Rng rng) {
  const Stage stage(a.common.console, "score errors against the exact scores");
  const EmpiricalMixture empirical(demo.data);
  for (DemoNetwork& network : demo.networks) {
    network.to_truth = fisher_divergence(*network.net, demo.truth, demo_levels(), {.draws = 4000}, rng.split());
    stop_if_interrupted();
  }
  demo.points_to_empirical =
      fisher_divergence(*demo.networks[1].net, empirical, demo.data, demo_levels(), {.draws = 4000}, rng.split());
  demo.empirical_to_truth = fisher_divergence(empirical, demo.truth, demo_levels(), {.draws = 4000}, rng.split());
}

Demo compute(const Arguments& a) {
  Rng rng = a.common.rng();
  Demo demo;
  demo.data = datasets::three_gaussians(300, Rng{42});
  Rng training = rng.split(), sampling = rng.split(), judging = rng.split(), errors = rng.split();
  demo.networks.push_back(train_network(a, "training on fresh draws", nullptr, a.steps, training.split()));
  demo.networks.push_back(train_network(a, "training on the 300 points", &demo.data, a.steps, training.split()));
  measure_errors(a, demo, errors);

  const ScoreModel& fresh = *demo.networks[0].net;
  demo.samples.push_back(annealed(a, "annealed Langevin, exact score", "exact", demo.truth, 1, a.samples, sampling.split()));
  demo.samples.push_back(
      annealed(a, "annealed Langevin, network", "network", fresh, 1, a.samples, sampling.split(), &demo.trajectory));
  demo.samples.push_back(
      annealed(a, "annealed Langevin, network of 300 points", "points", *demo.networks[1].net, 1, a.samples, sampling.split()));
  demo.samples.push_back(plain_langevin(a, fresh, sampling.split()));
  for (const double temperature : {.5, 2.}) {
    demo.temperatures.push_back(annealed(a, join("annealed Langevin, temperature ", temperature),
                                         join("temperature_", temperature), fresh, temperature, std::max<Index>(1, a.samples / 2),
                                         sampling.split()));
  }

  const Stage stage(a.common.console, "comparing samples");
  Judge judge(demo.truth, judging);
  for (DemoSamples& s : demo.samples) judge(s);
  const Matrix held_out = demo.truth.sample(300, judging.split());
  demo.fresh_copies = copy_check(demo.samples[1].x, demo.data, held_out);
  demo.point_copies = copy_check(demo.samples[2].x, demo.data, held_out);
  return demo;
}

// The largest noise level at which the network stands nearer to its data's own score than to the truth: from there downwards it
// reproduces the points rather than the distribution. 0 where there is none.
double memorised_below(const Demo& demo) {
  const std::vector<LevelError>&truth = demo.networks[1].to_truth.levels, &own = demo.points_to_empirical.levels;
  double sigma = 0;
  for (std::size_t l = truth.size(); l-- > 0 && own[l].error < truth[l].error;) sigma = truth[l].sigma;
  return sigma;
}

std::string error_rows(const Demo& demo) {
  std::string out =
      join("Score error E sigma^2|s - s*|^2 / D per noise level (relative to E|s*|^2 in brackets; the zero network has 1)\n  ",
           pad("sigma", 9, true), pad("zero network", 14, true), pad("fresh draws", 20, true), pad("300 points", 20, true),
           pad("300 points to their own score", 32, true), "\n");
  const auto cell = [](const LevelError& e) { return join(number(e.error, 2), " (", number(e.relative, 2), ")"); };
  const std::vector<LevelError>&fresh = demo.networks[0].to_truth.levels, &points = demo.networks[1].to_truth.levels;
  const std::vector<LevelError>& own = demo.points_to_empirical.levels;
  for (std::size_t l = 0; l < fresh.size(); l += 3) {
    out += join("  ", pad(number(fresh[l].sigma, 3), 9, true), pad(number(fresh[l].zero_error, 3), 14, true),
                pad(cell(fresh[l]), 20, true), pad(cell(points[l]), 20, true), pad(cell(own[l]), 32, true), "\n");
  }
  return out + join("  ", pad("mean", 9, true), pad(number(demo.networks[0].to_truth.mean_zero_error, 3), 14, true),
                    pad(number(demo.networks[0].to_truth.mean_error, 2), 20, true),
                    pad(number(demo.networks[1].to_truth.mean_error, 2), 20, true),
                    pad(number(demo.points_to_empirical.mean_error, 2), 32, true), "\n");
}

std::string sample_rows(const Demo& demo) {
  std::string out = join("Samples (", demo.samples[0].x.rows(), " each)\n  ", pad("", 42), pad("mode weights", 20),
                         pad("mean", 18), pad("energy distance", 17, true), pad("evaluations", 13, true), "\n");
  out += join("  ", pad("truth", 42), pad("0.333 0.333 0.333", 20), pad("(0, 0)", 18),
              pad(join("< ", number(demo.samples[0].null_99, 3)), 17, true), pad("", 13), " (99 % of true samples)\n");
  for (const DemoSamples& s : demo.samples) {
    std::string weights;
    for (const double w : s.weights) {
      char text[16];
      std::snprintf(text, sizeof text, "%.3f ", w);
      weights += text;
    }
    char mean[40];
    std::snprintf(mean, sizeof mean, "(%.2f, %.2f)", s.mean[0], s.mean[1]);
    out += join("  ", pad(s.name, 42), pad(weights, 20), pad(mean, 18), pad(number(s.energy, 3), 17, true),
                pad(join(s.evaluations), 13, true), s.energy > s.null_99 ? "  differs" : "", "\n");
  }
  return out;
}

std::string summary(const Demo& demo, double seconds) {
  std::string out = "\n" + error_rows(demo) + "\n" + sample_rows(demo);
  const double sigma = memorised_below(demo);
  out += join("\nMemorisation: the network of the 300 points ",
              sigma > 0 ? join("is nearer to those points' own score than to the true one at sigma <= ", number(sigma, 2),
                               ": below that noise it has begun to learn the points by heart.\n")
                        : std::string("is nowhere nearer to those points' own score than to the true one.\n"));
  out += join("  distance to the nearest of the 300 points, samples / new true points: ", number(demo.point_copies.closest, 3),
              " (network of fresh draws: ", number(demo.fresh_copies.closest, 3), "; 1: no copies)\n");
  return out + join("\n", duration(seconds), " in all\n");
}

void write_errors(JsonWriter& json, const FisherDivergence& errors) {
  json.begin_object()
      .key("mean")
      .value(errors.mean_error)
      .key("mean_zero_network")
      .value(errors.mean_zero_error)
      .key("levels")
      .begin_array();
  for (const LevelError& level : errors.levels) {
    json.begin_object()
        .key("sigma")
        .value(level.sigma)
        .key("error")
        .value(level.error)
        .key("standard_error")
        .value(level.standard_error);
    json.key("relative").value(level.relative).key("zero_network").value(level.zero_error).end_object();
  }
  json.end_array().end_object();
}

void write_samples(JsonWriter& json, const DemoSamples& s) {
  json.begin_object().key("rows").value(s.x.rows()).key("mode_weights").begin_array();
  for (const double w : s.weights) json.value(w);
  json.end_array().key("mean").begin_array().value(s.mean[0]).value(s.mean[1]).end_array();
  json.key("energy_distance").value(s.energy).key("null_99").value(s.null_99).key("evaluations").value(s.evaluations);
  json.key("seconds").value(s.seconds).end_object();
}

void write_copies(JsonWriter& json, const CopyCheck& c) {
  json.begin_object().key("closest_row_ratio").value(c.closest).key("nearest_neighbour_ratio").value(c.ratio).end_object();
}

std::string to_json(const Arguments& a, const Demo& demo, const std::vector<std::string>& files, double seconds) {
  JsonWriter json;
  json.begin_object().key("seed").value(a.common.seed).key("folder").value(a.folder).key("steps").value(a.steps);
  json.key("mode_weights").begin_array();
  for (const double w : demo.truth.weights()) json.value(w);
  json.end_array().key("score_error").begin_object();
  write_errors(json.key("fresh_draws"), demo.networks[0].to_truth);
  write_errors(json.key("points"), demo.networks[1].to_truth);
  write_errors(json.key("points_to_their_own_score"), demo.points_to_empirical);
  write_errors(json.key("own_score_to_truth"), demo.empirical_to_truth);
  json.end_object().key("memorised_below_sigma").value(memorised_below(demo)).key("samples").begin_object();
  for (const DemoSamples& s : demo.samples) write_samples(json.key(s.key), s);
  json.end_object().key("copies").begin_object();
  write_copies(json.key("fresh_draws"), demo.fresh_copies);
  write_copies(json.key("points"), demo.point_copies);
  json.end_object().key("training_seconds").begin_array();
  for (const DemoNetwork& network : demo.networks) json.value(network.seconds);
  json.end_array().key("files").begin_array();
  for (const std::string& file : files) json.value(file);
  json.end_array().key("seconds").value(seconds).end_object();
  return json.text() + "\n";
}

int run_demo(const Arguments& a) {
  catch_signals("\ninterrupted\n");
  begin(a.common, "the tutorial: three Gaussians, 300 points, a score network");
  const auto start = Clock::now();
  std::error_code error;
  std::filesystem::create_directories(a.folder, error);
  check<IoError>(!error, "cannot make the folder '", a.folder, "': ", error.message());
  const auto path = [&](const std::string& name) { return a.folder + "/" + name; };

  const Demo demo = compute(a);
  std::vector<std::string> files = {"data.csv", "fresh.safetensors", "points.safetensors", "samples.csv"};
  const std::vector<std::string> names = {"x1", "x2"};
  write_csv(path("data.csv"), names, demo.data.view());
  write_csv(path("samples.csv"), names, demo.samples[1].x.view());
  save(path("fresh.safetensors"), *demo.networks[0].net);
  save(path("points.safetensors"), *demo.networks[1].net);
#ifdef TWEEDIE_HAVE_PLOTS
  {
    const Stage stage(a.common.console, "figures");
    for (std::string& figure : draw_demo_figures(demo, a.folder)) files.push_back(std::move(figure));
  }
#endif
  const double seconds = since(start);
  write_file(path("summary.json"), to_json(a, demo, files, seconds));
  files.emplace_back("summary.json");
  if (a.common.json) {
    print(to_json(a, demo, files, seconds));
  } else {
    print(join(summary(demo, seconds), a.folder, "/: ", listed(files), "\n"));
  }
  return 0;
}

}  // namespace

Command demo_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app =
      program.add_subcommand("demo", "Run the tutorial end to end: train, sample, compare with the exact answers, draw");
  app->add_option("-o,--output", a->folder, "Folder for figures, models and summary.json");
  app->add_option("--steps", a->steps, "Training updates of each network")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 31));
  app->add_option("-n,--num-samples", a->samples, "Samples of each sampler")->check(CLI::Range(Index{10}, Index{100000}));
  add_common(*app, a->common);
  app->footer("Example: tweedie demo -o demo");
  return {app, [a] { return run_demo(*a); }};
}

}  // namespace tweedie::cli
