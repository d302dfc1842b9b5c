// demo.cpp - tweedie demo: the tutorial end to end in under a minute, learned values beside the exact ones.
//
// The tutorial's 300 points and its mixture; the chapter's network trained on fresh draws of the mixture and on the 300 points;
// its score against the exact one, level by level; Langevin, annealed Langevin, temperature, trajectories; every sampler from the
// exact score and from EDM's network, and that network's density; figures and a table.
// SPDX-License-Identifier: MIT
#include "tweedie/cli/demo.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>

#include "tweedie/cli/sampling.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/empirical_mixture.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/langevin.h"

namespace tweedie::cli {

void stop_if_interrupted() {
  if (interrupted()) throw CancelledError("the demo was interrupted; what was written so far is in its folder");
}

namespace {

const NoiseLevels& demo_levels() {
  static const NoiseLevels levels = NoiseLevels::geometric(10, .05, 22);
  return levels;
}

// The chapter's network with its levels.
std::unique_ptr<Network> chapter_network(Rng rng) {
  return std::make_unique<NoiseConditionalScoreNetwork>(ScoreNetworkOptions{.data_dim = 2}, demo_levels(), rng);
}

// EDM's, for any noise.
std::unique_ptr<Network> edm_network(ConstRows<float> data, Rng rng) {
  const ContinuousNetworkOptions options{
      .data_dim = 2, .hidden_dim = 128, .sigma_min = .01, .sigma_max = 20, .sigma_data = data_deviation(data)};
  return std::make_unique<ContinuousScoreNetwork>(options, rng);
}

DemoNetwork train_network(const DemoArguments& a, const std::string& name, std::unique_ptr<Network> net, const Matrix* table,
                          Rng rng) {
  Stage stage(a.common.console, name);
  DemoNetwork result{.net = std::move(net)};
  TrainOptions options{.steps = a.steps,
                       .batch = table != nullptr ? 256 : 512,
                       .learning_rate = 2e-3,
                       .schedule = {.kind = LearningRate::cosine, .warmup_steps = 50},
                       .clip_norm = 1,
                       .ema = .995,
                       .ema_warmup = true,
                       .log_every = std::max<std::int64_t>(1, a.steps / 1000),
                       .device = "cpu",
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

DemoSamples annealed(const DemoArguments& a, const std::string& name, const std::string& key, const ScoreModel& model,
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
  return {.name = name, .key = key, .x = std::move(s.x), .evaluations = s.evaluations, .seconds = stage.seconds()};
}

// Langevin at the smallest useful noise alone, from starts spread widely: no annealing, so the modes get the shares of the
// starts.
DemoSamples plain_langevin(const DemoArguments& a, const ScoreModel& model, Rng rng) {
  const std::string name = "Langevin at sigma = .1 alone, network";
  Stage stage(a.common.console, name);
  Matrix start(a.samples, 2);
  rng.normals<float>(Purpose::prior, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= 3;
  LangevinOptions options{.step_size = .005, .num_steps = 600, .chunk_rows = 250};
  options.progress = stage.progress();
  Samples s = langevin_dynamics(model, .1, start, options, rng);
  return {.name = name, .key = "langevin", .x = std::move(s.x), .evaluations = s.evaluations, .seconds = stage.seconds()};
}

void measure_errors(const DemoArguments& a, Demo& demo, Rng rng) {
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

Demo compute(const DemoArguments& a) {
  Rng rng = a.common.rng();
  Demo demo;
  demo.data = datasets::three_gaussians(300, Rng{42});
  Rng training = rng.split(), sampling = rng.split(), judging = rng.split(), errors = rng.split();
  const Rng gallery = rng.split(), density = rng.split();
  const auto add_network = [&](const char* name, auto make, const Matrix* table) {
    Rng stream = training.split();
    std::unique_ptr<Network> net = make(stream.split());
    demo.networks.push_back(train_network(a, name, std::move(net), table, stream));
  };
  add_network("training on fresh draws", chapter_network, nullptr);
  add_network("training on the 300 points", chapter_network, &demo.data);
  add_network(
      "training EDM's network on fresh draws", [&](Rng r) { return edm_network(demo.data, r); }, nullptr);
  measure_errors(a, demo, errors);

  for (DemoNetwork& network : demo.networks) use_precision(a.common, *network.net);
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

  demo.samplers = run_demo_samplers(a, demo.truth, *demo.networks[2].net, gallery);
  demo.density = measure_density(a, demo.truth, *demo.networks[2].net, density);

  const Stage stage(a.common.console, "comparing samples");
  Judge judge(demo.truth, judging);
  for (DemoSamples& s : demo.samples) judge(s);
  for (DemoSampler& s : demo.samplers) {
    judge(s.exact);
    if (s.network) judge(*s.network);
  }
  const Matrix held_out = demo.truth.sample(300, judging.split());
  demo.true_samples = demo.truth.sample(a.samples, judging.split());
  demo.fresh_copies = copy_check(demo.samples[1].x, demo.data, held_out);
  demo.point_copies = copy_check(demo.samples[2].x, demo.data, held_out);
  return demo;
}

int run_demo(const DemoArguments& a) {
  catch_signals("\ninterrupted\n");
  begin(a.common, "the tutorial: three Gaussians, 300 points, a score network", true);
  const auto start = std::chrono::steady_clock::now();
  std::error_code error;
  std::filesystem::create_directories(a.folder, error);
  check<IoError>(!error, "cannot make the folder '", a.folder, "': ", error.message());
  const auto path = [&](const std::string& name) { return a.folder + "/" + name; };

  const Demo demo = compute(a);
  std::vector<std::string> files = {"data.csv", "fresh.safetensors", "points.safetensors", "edm.safetensors", "samples.csv"};
  const std::vector<std::string> names = {"x1", "x2"};
  write_csv(path("data.csv"), names, demo.data.view());
  write_csv(path("samples.csv"), names, demo.samples[1].x.view());
  save(path("fresh.safetensors"), *demo.networks[0].net);
  save(path("points.safetensors"), *demo.networks[1].net);
  save(path("edm.safetensors"), *demo.networks[2].net);
#ifdef TWEEDIE_HAVE_PLOTS
  {
    const Stage stage(a.common.console, "figures");
    for (std::string& figure : draw_demo_figures(demo, a.folder)) files.push_back(std::move(figure));
  }
#endif
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_file(path("summary.json"), demo_json(a, demo, files, seconds));
  files.emplace_back("summary.json");
  if (a.common.json) {
    print(demo_json(a, demo, files, seconds));
  } else {
    print(join(demo_summary(demo, seconds), a.folder, "/: ", listed(files), "\n"));
  }
  return 0;
}

}  // namespace

Command demo_command(CLI::App& program) {
  auto a = std::make_shared<DemoArguments>();
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
