// eval.cpp - tweedie eval MODEL DATA: samples beside held-out rows, loss and likelihood there, copies, exact score errors.
// SPDX-License-Identifier: MIT
#include "tweedie/cli/eval.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>

#include "tweedie/models/trainer.h"

namespace tweedie::cli {

namespace {

const std::vector<std::string> kMetrics = {"distances", "wasserstein", "c2st", "stein", "likelihood", "loss"};

// The metrics of --metrics: all, or names separated by commas.
std::vector<std::string> chosen_metrics(const std::string& list) {
  if (list == "all") return kMetrics;
  std::vector<std::string> chosen = split_list(list);
  for (const std::string& name : chosen) {
    check(std::find(kMetrics.begin(), kMetrics.end(), name) != kMetrics.end(), "--metrics: ", unknown("metric", name, kMetrics),
          ", or all");
  }
  return chosen;
}

// The conditions of rows first, first + 1, ... to their batch.
void set_conditions(const ModelRows& rows, Index first, Batch& batch) {
  const Index n = batch.rows();
  if (!rows.labels.empty()) {
    batch.labels = Buffer<std::int32_t>(n);
    std::copy_n(rows.labels.begin() + first, n, batch.labels.data());
  }
  if (rows.covariates.rows() > 0) batch.covariates = Matrix(rows.covariates.view().middle_rows(first, n));
}

// 1/2 E |sigma s + eps|^2 over the rows, each under its condition, 16 draws of noise for each.
double held_out_loss(const Network& network, const NoiseLevels& levels, const ModelRows& rows, const Rng& rng) {
  const std::unique_ptr<TrainingEngine> engine = make_training_step(network, Denoising{});
  const std::span<const float> parameters = network.parameters();
  constexpr Index kChunk = 1024;
  double sum = 0;
  for (std::uint32_t draw = 0; draw < 16; ++draw) {
    for (Index first = 0; first < rows.x.rows(); first += kChunk) {
      const ConstRows<float> chunk = rows.x.view().middle_rows(first, std::min(kChunk, rows.x.rows() - first));
      Batch batch = perturb(chunk, levels, rng, {.step = draw, .first_row = static_cast<std::uint64_t>(first)});
      if (network.levels() == nullptr) batch.level = Buffer<std::int32_t>();  // it goes by sigma alone
      set_conditions(rows, first, batch);
      std::vector<float> losses(static_cast<std::size_t>(chunk.rows()));
      sum += engine->loss(parameters, batch, losses) * static_cast<double>(chunk.rows());
    }
  }
  return sum / 16 / static_cast<double>(rows.x.rows());
}

// Rows as the model sees them, and standardised, which is what distances are measured in whatever the model's scaling.
struct EvalRows {
  ModelRows scaled;
  Matrix standard;
  Index count() const { return standard.rows(); }
  Index dim() const { return standard.cols(); }
};

// One evaluation: every measure has a stream of its own, so that its number does not depend on which others were asked for.
class Evaluator {
 public:
  Evaluator(const EvalArguments& a, const ModelFile& model, std::vector<std::string> metrics)
      : a_(a), model_(model), metrics_(std::move(metrics)), rng_(a.common.rng()), asked_(given_parts(model, a.condition)) {}

  Evaluation run() {
    Rng sampling = rng_.split(), noise = rng_.split(), directions = rng_.split(), oracle_draws = rng_.split();
    Rng folds = rng_.split(), signs = rng_.split(), probes = rng_.split();
    std::optional<GaussianMixture> exact;
    if (!a_.oracle.empty()) exact = scaled_oracle(a_.oracle, model_);
    held_out_ = load(a_.data);
    if (!a_.train.empty()) train_ = load(a_.train);
    e_.rows = held_out_.count();
    draw_samples(sampling);
    if (wants("distances")) {
      e_.ours = distances(samples_.standard, held_out_.standard, directions);
      if (train_) e_.training = distances(train_->standard, held_out_.standard, directions);
    }
    if (wants("wasserstein")) {
      e_.transport = exact_transport(samples_.standard, held_out_.standard);
      if (train_) e_.training_transport = exact_transport(train_->standard, held_out_.standard);
    }
    if (wants("c2st")) classify(folds);
    if (wants("stein")) fit_stein(signs);
    if (wants("loss")) e_.loss = held_out_loss(*model_.network, *model_.levels, held_out_.scaled, noise);
    if (wants("likelihood")) {
      warn_of_whole_numbers(a_.common.console, model_.code, model_.network->sigma_min());
      e_.likelihood = likelihood(model_, held_out_.scaled, a_.common.console, probes);
    }
    if (train_) e_.copies = copy_check(samples_.standard, train_->standard, held_out_.standard);
    if (exact) e_.errors = fisher_divergence(model_.score(), *exact, *model_.levels, {}, oracle_draws);
    return std::move(e_);
  }

 private:
  bool wants(std::string_view metric) const { return std::find(metrics_.begin(), metrics_.end(), metric) != metrics_.end(); }

  // A file's rows, those under the condition alone if one is asked for.
  EvalRows load(const std::string& path) const {
    ModelRows rows = load_rows(model_, path, a_.table, a_.common.console);
    Matrix standard = model_.code.standardised().encode(modelled_columns(model_, rows.table));
    if (!asked_.label && asked_.values.empty()) return {std::move(rows), std::move(standard)};
    const std::vector<Index> places = rows_of(rows, asked_);
    check<DataError>(!places.empty(), path, " has no row under the condition of --class and --given; leave it out: every row is ",
                     "looked at, and drawn for, under its own");
    return {take_rows(rows, places), take_rows(standard, places)};
  }
  // What a user gets: rounded to whole numbers where the table's columns are. Conditions as those of the other rows.
  EvalRows as_written(ConstRows<float> scaled, ModelRows conditions) const {
    const Table table = to_table(model_.code.header(), model_.code.decode(scaled));
    EvalRows rows{std::move(conditions), model_.code.standardised().encode(table)};
    rows.scaled.x = model_.code.encode(table);
    return rows;
  }

  void draw_samples(const Rng& rng) {
    if (!a_.samples.empty()) {
      samples_ = load(a_.samples);
    } else if (train_ || wants("distances") || wants("wasserstein") || wants("c2st") || wants("stein")) {
      const Index n = a_.n > 0 ? a_.n : train_ ? train_->count() : held_out_.count();
      const Matrix drawn =
          draw_like(model_, held_out_.scaled, a_.condition.guidance, n, a_.sampling, rng, a_.common.console, &e_.evaluations);
      samples_ = as_written(drawn, take_rows(held_out_.scaled, spread_places(held_out_.count(), n)));
    }
    e_.sampled = samples_.count();
  }

  void classify(const Rng& rng) {
    if (a_.metrics == "all" && held_out_.dim() > kClassifierDim) {
      e_.left_out.push_back(join("c2st: takes long with ", held_out_.dim(), " columns; ask for it with --metrics c2st"));
      return;
    }
    if (std::min(samples_.count(), held_out_.count()) < kLeastClassifierRows) {
      e_.left_out.push_back(join("c2st: needs at least ", kLeastClassifierRows, " samples and held-out rows, ", samples_.count(),
                                 " and ", held_out_.count(), " are there"));
      return;
    }
    e_.classifier = classifier_test(samples_.standard, held_out_.standard, rng);
    if (!e_.classifier) e_.left_out.push_back("c2st: no column varies among the held-out rows");
  }

  void fit_stein(const Rng& rng) {
    const Index n = std::min({samples_.count(), held_out_.count(), kSteinRows});
    if (n < 2) {
      e_.left_out.push_back("stein: needs two samples and two held-out rows");
      return;
    }
    e_.stein = stein_fit(model_.score(), samples_.scaled, n, rng);
    e_.held_out_stein = stein_fit(model_.score(), held_out_.scaled, n, rng);
  }

  const EvalArguments& a_;
  const ModelFile& model_;
  std::vector<std::string> metrics_;
  Rng rng_;
  Asked asked_;  // what rows are looked at
  EvalRows held_out_, samples_;
  std::optional<EvalRows> train_;
  Evaluation e_;
};

int run_eval(const EvalArguments& a) {
  catch_signals("\ninterrupted\n");
  std::vector<std::string> metrics = chosen_metrics(a.metrics);
  begin(a.common, join("evaluating ", a.model));
  const auto start = std::chrono::steady_clock::now();
  ModelFile model = load_model(a.model, a.raw_weights);
  place(model, a.common);
  Evaluation e = Evaluator(a, model, std::move(metrics)).run();
  e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print(a.common.json ? eval_json(a, model, e) : eval_text(a, model, e));
  if (e.copies && e.copies->copied()) {
    a.common.console.warn(
        "the samples stand much nearer to training rows than held-out rows do: the model copies its training data");
  }
  return 0;
}

void add_eval_conditions(CLI::App& app, ConditionArguments& a, CLI::Option* samples) {
  const char* group = "Conditions (models trained with --class or --target)";
  app.add_option("--class", a.value, "Only rows of this class, of every table (default: all, each under its own)")
      ->group(group)
      ->default_str("");
  app.add_option("--given", a.given, "Only rows with these values of the --target columns: name=value[,name=value]")
      ->group(group)
      ->default_str("");
  app.add_option("--guidance", a.guidance, "Classifier-free guidance of the samples; likelihood, Stein and loss are without")
      ->check(CLI::Number)
      ->group(group)
      ->excludes(samples);
}

}  // namespace

Command eval_command(CLI::App& program) {
  auto a = std::make_shared<EvalArguments>();
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
  app->add_option("--metrics", a->metrics,
                  join("all, or some of these, separated by commas. The slow ones take evenly spaced rows, so many at most:\n",
                       "distances: energy, sliced Wasserstein-1, MMD, Kolmogorov-Smirnov of each column\n",
                       "wasserstein: exact Wasserstein-2, ", kTransportRows, " rows of each\n",
                       "c2st: how often a small network tells samples from ", "held-out rows (.5: never; ", kClassifierRows,
                       " of each; beyond ", kClassifierDim, " columns only if named)\n",
                       "stein: kernel Stein discrepancy under the model's own score at its smallest sigma (", kSteinRows,
                       " of each)\n", "likelihood: mean log-density of held-out rows (", kLikelihoodRows, "; beyond ",
                       kExactTraceDim, " columns by Hutchinson's trace)\n", "loss: denoising loss of held-out rows"));
  app->add_option("--oracle", a->oracle,
                  "The exact distribution, for the score's error per noise level: " + listed(oracle_names()))
      ->default_str("");
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  samples->excludes(n);
  add_eval_conditions(*app, a->condition, samples);
  add_sampling_options(*app, a->sampling);
  add_table_options(*app, a->table);
  a->common.devices = true;
  add_common(*app, a->common);
  app->footer(
      "A model trained with --class or --target is measured in its own columns, each row under its condition from the tables. "
      "Samples are\n"
      "drawn for the held-out rows' conditions, each as often, so that like is compared with like.\n"
      "Examples:\n"
      "  tweedie eval model.safetensors held_out.csv --train train.csv\n"
      "  tweedie eval model.safetensors held_out.csv --metrics distances,c2st --sampler dpmpp_2m --steps 50");
  return {app, [a] { return run_eval(*a); }};
}

}  // namespace tweedie::cli
