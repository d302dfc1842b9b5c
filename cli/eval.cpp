// eval.cpp - tweedie eval MODEL DATA: distances between samples and held-out rows, the loss there, copies, exact score errors.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "tweedie/cli/evaluation.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/trainer.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  SamplingArguments sampling;
  TableArguments table;
  std::string model, data, train, samples, oracle;
  Index n = 0;
  bool raw_weights = false;
};

struct Evaluation {
  Index rows = 0, sampled = 0;
  double loss = 0;
  std::int64_t evaluations = 0;  // 0: the samples came from a file
  Distances ours;
  std::optional<Distances> training;
  std::optional<CopyCheck> copies;
  std::optional<FisherDivergence> errors;
};

// 1/2 E |sigma s + eps|^2 over the rows, 16 draws of noise for each.
double held_out_loss(const Network& network, const NoiseLevels& levels, ConstRows<float> rows, const Rng& rng) {
  const std::unique_ptr<TrainingEngine> engine = make_training_step(network, Denoising{});
  const std::span<const float> parameters = network.parameters();
  constexpr Index kChunk = 1024;
  double sum = 0;
  for (std::uint32_t draw = 0; draw < 16; ++draw) {
    for (Index first = 0; first < rows.rows(); first += kChunk) {
      const ConstRows<float> chunk = rows.middle_rows(first, std::min(kChunk, rows.rows() - first));
      Batch batch = perturb(chunk, levels, rng, {.step = draw, .first_row = static_cast<std::uint64_t>(first)});
      if (network.levels() == nullptr) batch.level = Buffer<std::int32_t>();  // it goes by sigma alone
      std::vector<float> losses(static_cast<std::size_t>(chunk.rows()));
      sum += engine->loss(parameters, batch, losses) * static_cast<double>(chunk.rows());
    }
  }
  return sum / 16 / static_cast<double>(rows.rows());
}

// What a user gets: rounded to whole numbers where the table's columns are.
Matrix as_written(const TableCode& code, ConstRows<float> scaled) {
  const MatrixD values = code.decode(scaled);
  return code.encode(to_table(code.header(), values));
}

Evaluation evaluate(const Arguments& a, const ModelFile& model) {
  const Console& console = a.common.console;
  Rng rng = a.common.rng();
  const Rng sampling = rng.split(), noise = rng.split(), directions = rng.split(), oracle_draws = rng.split();
  const Matrix held_out = model.code.encode(load_table(a.data, a.table, console));
  std::optional<Matrix> train;
  if (!a.train.empty()) train = model.code.encode(load_table(a.train, a.table, console));

  Evaluation e;
  e.rows = held_out.rows();
  Matrix samples;
  if (!a.samples.empty()) {
    samples = model.code.encode(load_table(a.samples, a.table, console));
  } else {
    const Index n = a.n > 0 ? a.n : train ? train->rows() : held_out.rows();
    samples = as_written(model.code, draw_all(*model.network, *model.levels, n, a.sampling, sampling, console, &e.evaluations));
  }
  e.sampled = samples.rows();
  e.loss = held_out_loss(*model.network, *model.levels, held_out, noise);
  e.ours = distances(samples, held_out, directions);
  if (train) {
    e.training = distances(*train, held_out, directions);
    e.copies = copy_check(samples, *train, held_out);
  }
  if (!a.oracle.empty()) {
    e.errors = fisher_divergence(*model.network, scaled_oracle(a.oracle, model.code), *model.levels, {}, oracle_draws);
  }
  return e;
}

void write_distances(JsonWriter& json, const Distances& d) {
  json.begin_object().key("energy_distance").value(d.energy).key("sliced_wasserstein").value(d.sliced_wasserstein);
  json.key("mmd_squared").value(d.mmd_squared).key("kolmogorov_smirnov").begin_array();
  for (const double statistic : d.ks) json.value(statistic);
  json.end_array().end_object();
}

void print_json(const Arguments& a, const ModelFile& model, const Evaluation& e) {
  JsonWriter json;
  json.begin_object().key("model").value(a.model).key("data").value(a.data).key("weights").value(model.weights);
  json.key("seed").value(a.common.seed).key("rows").value(e.rows).key("samples").value(e.sampled);
  json.key("evaluations").value(e.evaluations).key("denoising_loss").value(e.loss).key("columns").begin_array();
  for (const ColumnCode& column : model.code.columns()) json.value(column.name);
  json.end_array().key("model_to_data");
  write_distances(json, e.ours);
  if (e.training) {
    json.key("train_to_data");
    write_distances(json, *e.training);
    json.key("energy_ratio").value(e.ours.energy / e.training->energy);
    json.key("copies").begin_object().key("closest_row_ratio").value(e.copies->closest);
    json.key("nearest_neighbour_ratio").value(e.copies->ratio).key("identical").value(e.copies->identical);
    json.key("identical_held_out").value(e.copies->identical_held_out).key("warning").value(e.copies->copied()).end_object();
  }
  if (e.errors) {
    json.key("score_error").begin_object().key("mean").value(e.errors->mean_error);
    json.key("mean_standard_error").value(e.errors->mean_standard_error).key("zero_network").value(e.errors->mean_zero_error);
    json.key("levels").begin_array();
    for (const LevelError& level : e.errors->levels) {
      json.begin_object().key("sigma").value(level.sigma).key("error").value(level.error);
      json.key("standard_error").value(level.standard_error).key("relative").value(level.relative);
      json.key("zero_network").value(level.zero_error).end_object();
    }
    json.end_array().end_object();
  }
  json.end_object();
  print(json.text() + "\n");
}

std::string row(std::string_view name, double ours, std::optional<double> training) {
  return join("  ", pad(name, 28), pad(number(ours), 12, true), training ? pad(number(*training), 14, true) : std::string(),
              training && *training > 0 ? pad(number(ours / *training, 3), 9, true) : std::string(), "\n");
}

std::string distance_table(const ModelFile& model, const Evaluation& e) {
  const auto of_training = [&](auto part) { return e.training ? std::optional<double>(part(*e.training)) : std::nullopt; };
  std::string out = join("  ", pad("distance to held-out rows", 28), pad("samples", 12, true),
                         e.training ? pad("training rows", 14, true) + pad("ratio", 9, true) : std::string(), "\n");
  out += row("energy distance", e.ours.energy, of_training([](const Distances& d) { return d.energy; }));
  out += row("sliced Wasserstein-1", e.ours.sliced_wasserstein,
             of_training([](const Distances& d) { return d.sliced_wasserstein; }));
  out += row("MMD^2", e.ours.mmd_squared, of_training([](const Distances& d) { return d.mmd_squared; }));
  const std::size_t shown = std::min<std::size_t>(e.ours.ks.size(), 20);
  for (std::size_t c = 0; c < shown; ++c) {
    out +=
        row(join("KS of ", model.code.columns()[c].name), e.ours.ks[c], of_training([c](const Distances& d) { return d.ks[c]; }));
  }
  if (shown < e.ours.ks.size()) out += join("  (", e.ours.ks.size() - shown, " more columns: --json)\n");
  return out;
}

std::string error_table(const FisherDivergence& errors, const std::string& oracle) {
  std::string out =
      join("\n  score error against ", oracle, " per noise level\n  ", pad("sigma", 12, true), pad("error", 14, true),
           pad("+-", 12, true), pad("relative", 12, true), pad("zero network", 14, true), "\n");
  for (const LevelError& level : errors.levels) {
    out += join("  ", pad(number(level.sigma), 12, true), pad(number(level.error), 14, true),
                pad(number(level.standard_error, 2), 12, true), pad(number(level.relative), 12, true),
                pad(number(level.zero_error), 14, true), "\n");
  }
  return out + join("  ", pad("mean", 12, true), pad(number(errors.mean_error), 14, true),
                    pad(number(errors.mean_standard_error, 2), 12, true), pad("", 12),
                    pad(number(errors.mean_zero_error), 14, true),
                    "\n  error = E sigma^2 |s - s*|^2 / D, relative = E|s - s*|^2 / E|s*|^2 (the zero network has 1)\n");
}

void print_text(const Arguments& a, const ModelFile& model, const Evaluation& e) {
  std::string out = join(a.model, " (", model.weights, " weights) on ", a.data, ": ", e.rows, " rows, ", e.sampled, " samples");
  if (e.evaluations > 0) out += join(", ", e.evaluations, " evaluations a row");
  out += join(", seed ", a.common.seed, "\n  all in scaled units (a column's deviation in the training table is 1)\n\n");
  out += distance_table(model, e) + row("denoising loss", e.loss, std::nullopt);
  if (e.copies) {
    out += join("\n  nearest training row: median distance of samples / of held-out rows ", number(e.copies->closest, 3),
                "  (1: no copying, 0: copies)\n  nearest rows of equal numbers: training / held-out ", number(e.copies->ratio, 3),
                "\n  equal to a training row: ", number(100 * e.copies->identical, 3), " % of samples, ",
                number(100 * e.copies->identical_held_out, 3), " % of held-out rows\n");
  }
  if (e.errors) out += error_table(*e.errors, a.oracle);
  print(out);
}

int run_eval(const Arguments& a) {
  catch_signals("\ninterrupted\n");
  begin(a.common, join("evaluating ", a.model));
  const ModelFile model = load_model(a.model, a.raw_weights);
  const Evaluation e = evaluate(a, model);
  if (a.common.json) {
    print_json(a, model, e);
  } else {
    print_text(a, model, e);
  }
  if (e.copies && e.copies->copied()) {
    a.common.console.warn(
        "the samples stand much nearer to training rows than held-out rows do: the model copies its training data");
  }
  return 0;
}

}  // namespace

Command eval_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("eval", "Compare a model's samples with held-out rows");
  app->add_option("model", a->model, "A model file")->required();
  app->add_option("data", a->data, "Rows that the model was not trained on")->required();
  app->add_option("--train", a->train,
                  "The training table: its own distance to the held-out rows beside the samples', and copies")
      ->default_str("");
  CLI::Option* samples = app->add_option("--samples", a->samples, "Samples from a file in place of new ones")->default_str("");
  CLI::Option* n =
      app->add_option("-n,--num-samples", a->n, "Samples to draw (default: as many as training rows, else held-out rows)")
          ->check(CLI::Range(Index{1}, Index{1} << 40))
          ->default_str("");
  app->add_option("--oracle", a->oracle,
                  "The exact distribution, for the score's error per noise level: " + listed(oracle_names()))
      ->default_str("");
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  samples->excludes(n);
  add_sampling_options(*app, a->sampling);
  add_table_options(*app, a->table);
  add_common(*app, a->common);
  app->footer("Example: tweedie eval model.safetensors held_out.csv --train train.csv");
  return {app, [a] { return run_eval(*a); }};
}

}  // namespace tweedie::cli
