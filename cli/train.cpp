// train.cpp - tweedie train DATA -o MODEL: a score network from a table or from a built-in distribution's fresh draws.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "tweedie/cli/network_options.h"
#include "tweedie/cli/objective_options.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/cli/validation.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/condition_code.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/table.h"
#include "tweedie/models/trainer.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  TableArguments table;
  NetworkArguments network;
  ObjectiveArguments objective;
  std::string data, output, resume, history;
  std::string scaling = "standardise";
  // the conditions
  std::string label, target;
  double condition_dropout = .1;
  // the optimiser
  std::int64_t steps = 0, epochs = 0, warmup = 0, log_every = 0, checkpoint_every = 0, ema_snapshots = 0;
  Index batch = 0;
  double lr = 2e-3, weight_decay = 0, clip_norm = 1, ema = .999, valid_fraction = .1;
  std::string schedule = "cosine", keep;
  std::function<void()> check_given;
  std::function<bool()> valid_fraction_given;

  bool conditional() const { return !label.empty() || !target.empty(); }
};

constexpr double kFewestKept = 3;  // rows: fewer tell nothing, and a small table cannot spare them

constexpr std::int64_t kDefaultSteps = 6000;

// What is trained on: a table's scaled rows with their conditions, or fresh draws.
struct Source {
  std::string builtin;  // empty for a table
  TableCode code;
  ConditionCode conditions;
  Matrix rows;                       // (N, D) of a table; of fresh draws as many as its scale is measured by
  std::vector<std::int32_t> labels;  // (N) or empty
  Matrix covariates;                 // (N, C) or empty

  bool fresh() const { return !builtin.empty(); }
  TrainingData data() const { return {rows, labels, covariates}; }
};

// Columns by name or number, as names.
std::vector<std::string> target_columns(const Table& table, const std::string& list) {
  std::vector<std::string> names;
  for (const std::string& wanted : list.empty() ? std::vector<std::string>() : split_list(list)) {
    names.push_back(column_name(table, wanted));
  }
  return names;
}

void take_conditions(const Arguments& a, const Table& table, const std::vector<std::string>& targets, const std::string& label,
                     Source& source) {
  for (const std::string& name : targets) {
    check<DataError>(table.columns[static_cast<std::size_t>(table.index(name))].numeric, a.data, ": column '", name,
                     "' holds text, and --target takes numbers; --class ", name, " takes texts");
  }
  source.conditions = ConditionCode::fit(table, {.label = label, .covariates = targets, .standardise = a.scaling != "none"});
  source.labels = source.conditions.labels(table);
  source.covariates = source.conditions.covariates(table);
}

Scaling scaling_of(const Arguments& a) {
  return a.scaling == "none" ? Scaling::none : a.scaling == "quantile" ? Scaling::quantile : Scaling::standardise;
}

Source open_table(const Arguments& a) {
  Source source;
  Table table = read_table(a.data, a.table);
  const std::vector<std::string> targets = target_columns(table, a.target);
  const std::string label = a.label.empty() ? std::string() : column_name(table, a.label);
  std::vector<std::string> conditions = targets;
  if (!label.empty()) conditions.push_back(label);
  TableArguments arguments = a.table;
  if (!arguments.columns.empty()) {  // they come besides
    const std::vector<std::string> chosen = target_columns(table, arguments.columns);
    for (const std::string& name : conditions) {
      if (std::find(chosen.begin(), chosen.end(), name) == chosen.end()) arguments.columns += "," + name;
    }
  }
  table = prepare_table(std::move(table), a.data, arguments, a.common.console, conditions);
  if (a.conditional()) take_conditions(a, table, targets, label, source);
  std::erase_if(table.columns, [&](const Table::Column& column) {
    return std::find(conditions.begin(), conditions.end(), column.name) != conditions.end();
  });
  check(table.cols() > 0, "--class and --target take every column of ", a.data, "; leave some to be modelled");
  source.code = TableCode::fit(table, scaling_of(a));
  source.rows = source.code.encode(table);
  check<DataError>(source.rows.rows() >= 2, a.data, " has one row; a distribution needs more to be learned");
  for (const ColumnCode& column : source.code.columns()) {
    if (column.constant() && a.scaling != "none") {
      a.common.console.warn(
          join("column '", column.name, "' is constant (", column.low, "); it is scaled by 1 and samples repeat it"));
    }
  }
  return source;
}

Source open_source(const Arguments& a) {
  const std::string builtin = builtin_name(a.data);
  if (builtin.empty()) return open_table(a);
  const std::vector<std::string>& names = datasets::names();
  check(std::find(names.begin(), names.end(), builtin) != names.end() || builtin == "tutorial",
        unknown("distribution", builtin, names));
  constexpr Index kDraws = 20000;
  Source source;
  source.builtin = builtin;
  source.code = TableCode::identity(2);
  source.rows = datasets::make(builtin, kDraws, Rng{1});
  return source;
}

// Batch after batch from a stream of its own each.
FreshRows fresh_rows(const std::string& name, Rng rng) {
  return [name, key = rng.key()](std::uint64_t first_row, Rows<float> out) {
    const Matrix x = datasets::make(name, out.rows(), Rng(key, first_row).split());
    for (Index r = 0; r < out.rows(); ++r) std::copy_n(x.row(r).data(), x.cols(), out.row(r).data());
  };
}

TrainOptions train_options(const Arguments& a, const Source& source) {
  TrainOptions o;
  o.objective = objective_of(a.objective, a.network);
  o.epochs = a.epochs;
  o.steps = a.epochs > 0 ? 0 : a.steps > 0 ? a.steps : kDefaultSteps;
  o.batch = a.batch > 0 ? a.batch : source.fresh() ? 512 : std::min<Index>(256, source.rows.rows());
  o.learning_rate = a.lr;
  o.schedule.kind = a.schedule == "cosine" ? LearningRate::cosine : LearningRate::constant;
  o.schedule.warmup_steps = a.warmup;
  o.adam.weight_decay = a.weight_decay;
  o.clip_norm = a.clip_norm;
  o.ema = a.ema;
  o.ema_warmup = a.ema > 0;
  o.ema_snapshots = a.ema_snapshots;
  o.sigma_sampling = sampling_of(a.objective, a.network);
  o.condition_dropout = a.conditional() ? a.condition_dropout : 0;
  o.valid_fraction = source.fresh() ? 0 : a.valid_fraction;
  if (!a.valid_fraction_given() && static_cast<double>(source.rows.rows()) * o.valid_fraction < kFewestKept) o.valid_fraction = 0;
  const std::int64_t updates = a.epochs > 0 ? std::max<std::int64_t>(1, a.epochs * source.rows.rows() / o.batch) : o.steps;
  o.log_every = a.log_every > 0 ? a.log_every : std::max<std::int64_t>(1, updates / 100);
  o.checkpoint_path = a.output;
  o.checkpoint_every = a.checkpoint_every;
  o.device = a.common.device;
  o.precision = a.common.precision;
  o.cancel = &interrupted();
  return o;
}

// A path that cannot be written is said before hours of training, not after.
void check_writable(const std::string& path) {
  check(!is_stdout(path), "a model cannot be written to standard output; name a file with -o model.safetensors");
  const AtomicFile probe(path);
}

void report(const Arguments& a, const Trainer& trainer, const TrainingStep& last, const Best& best, Index parameters,
            bool finished) {
  const Common& common = a.common;
  if (common.json) {
    JsonWriter json;
    json.begin_object().key("file").value(a.output).key("finished").value(finished).key("steps").value(trainer.steps_done());
    json.key("total_steps").value(trainer.total_steps()).key("loss").value(last.smoothed_loss);
    if (last.has_valid_loss) json.key("valid_loss").value(last.valid_loss);
    if (!best.weights.empty()) json.key("best_valid_loss").value(best.valid_loss).key("best_step").value(best.step);
    json.key("parameters").value(parameters).key("seconds").value(last.seconds).key("engine").value(last.engine);
    json.key("seed").value(common.seed).end_object();
    print(json.text() + "\n");
    return;
  }
  std::string text = join(a.output, ": step ", trainer.steps_done(), ", loss ", number(last.smoothed_loss));
  if (!best.weights.empty()) {
    text += join(", validation ", number(best.valid_loss), " at step ", best.step, " (kept)");
  } else if (last.has_valid_loss) {
    text += join(", validation ", number(last.valid_loss));
  }
  print(join(text, ", ", duration(last.seconds), ", ", last.engine, ", seed ", common.seed, "\n"));
}

int run_train(Arguments a) {
  const Common& common = a.common;
  catch_signals("\ninterrupted: saving the checkpoint (again to quit at once)\n");
  begin(common, join("training on ", a.data), find_device(common) != "cpu");
  check_writable(a.output);
  const Source source = open_source(a);
  settle(a.network, source.rows, source.fresh() || a.scaling == "none");
  const TrainOptions base = train_options(a, source);
  Rng rng = common.rng();
  const std::unique_ptr<Network> network =
      build_network(a.network, source.rows, {source.conditions.num_classes(), source.conditions.covariate_dim()}, rng.split());
  Network& net = *network;
  const Rng stream = rng.split(), draws = rng.split(), validation_noise = rng.split();

  Best best;
  TrainOptions options = base;
  options.annotate = [&](Checkpoint& file) {
    if (!source.fresh()) source.code.store(file);
    file.metadata["train.source"] = a.data;
    file.metadata["train.seed"] = join(common.seed);
    if (a.network.ncsnv2()) file.metadata["train.levels"] = "ncsnv2";
    if (a.conditional()) file.metadata["train.condition_dropout"] = join(base.condition_dropout);
    source.conditions.store(file);
    best.store(file, net.layout());
  };
  Trainer trainer = source.fresh() ? Trainer(net, fresh_rows(source.builtin, draws), options, stream)
                                   : Trainer(net, source.data(), options, stream);
  const bool on_device = trainer.engine().find("cuda:") != std::string_view::npos;
  const std::string device = find_device(common);
  note_device(common, on_device ? device : "cpu", on_device || device == "cpu" ? "" : "CUDA devices do not train this");
  const bool validated = !trainer.validation_rows().empty();
  check(a.keep != "best" || validated, "--keep best needs rows kept apart: a table and --valid-fraction above 0");
  const bool keep_best = validated && a.keep != "last";
  if (!a.resume.empty()) {
    trainer.resume(a.resume);
    if (keep_best) best.load(read_checkpoint(a.resume), net.layout());
    common.console.note(join("resumed at step ", trainer.steps_done()));
  }
  common.console.note(join(source.fresh() ? std::string("fresh draws") : size_text(source.rows.rows(), source.rows.cols()),
                           validated ? join(" (", trainer.validation_rows().size(), " kept apart)") : std::string(), ", ",
                           net.layout().size(), " parameters, ", trainer.total_steps(), " steps of ", base.batch, ", ",
                           trainer.engine()));

  Validation validation(trainer, source.data(), net, options, validation_noise);
  Progress bar(common.console, "training");
  History history;
  TrainingStep last;
  const auto on_report = [&](TrainingStep s) {
    if (validated) s.valid_loss = validation.loss();
    last = s;
    history.add(s);
    bar.update(
        s.step, s.total_steps,
        join("loss ", number(s.smoothed_loss), s.has_valid_loss ? join("  validation ", number(s.valid_loss)) : std::string()));
    if (keep_best && s.valid_loss < best.valid_loss) {
      const std::span<const float> weights = trainer.ema_parameters();
      best = {{weights.begin(), weights.end()}, s.valid_loss, s.step};
    }
  };
  // A last report comes after the last checkpoint; so the trainer is run to its end by us and saved once more.
  bool finished = trainer.done();
  try {
    if (!finished) finished = trainer.run(on_report);
  } catch (...) {
    bar.finish();
    history.write(a.history);
    throw;
  }
  bar.finish();
  if (last.step != trainer.steps_done()) {
    last = trainer.report();
    if (validated) last.valid_loss = validation.loss();
  }
  trainer.save(a.output);
  history.write(a.history);
  report(a, trainer, last, best, net.layout().size(), finished);
  if (!finished) common.console.note(join("go on with the same command and --resume ", a.output));
  return finished ? 0 : 130;
}

std::vector<CLI::Option*> add_condition_options(CLI::App& app, Arguments& a) {
  const char* group = "Conditions (--net mlp, residual or energy)";
  std::vector<CLI::Option*> options = {
      app.add_option("--class", a.label,
                     "A column of classes, texts or numbers: the other columns are learned given each class, and `sample --class "
                     "VALUE` draws from one"),
      app.add_option("--target", a.target,
                     "Columns of numbers that the others are learned given (by name or number, separated by commas): `sample "
                     "--given name=value`"),
      app.add_option("--condition-dropout", a.condition_dropout,
                     "Part of the rows that train without their condition, so that `sample --guidance` has the score without")
          ->check(CLI::Range(0., 1.))};
  for (CLI::Option* option : {options[0], options[1]}) option->default_str("");
  for (CLI::Option* option : options) option->group(group);
  return options;
}

std::vector<CLI::Option*> add_run_options(CLI::App& app, Arguments& a) {
  const char* group = "Training";
  CLI::Option* steps = app.add_option("--steps", a.steps, join("Optimiser updates (default: ", kDefaultSteps, ")"))
                           ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  CLI::Option* epochs = app.add_option("--epochs,--num-epochs", a.epochs, "Instead of steps: passes over the table")
                            ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  steps->excludes(epochs);
  CLI::Option* batch = app.add_option("--batch,--batch-size", a.batch,
                                      "Rows per update (default: 256, all rows of a smaller table; fresh draws 512)")
                           ->check(CLI::Range(Index{1}, Index{1} << 32));
  CLI::Option* log =
      app.add_option("--log-every", a.log_every, "Updates between reports and validations (default: a hundredth of the run)")
          ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  CLI::Option* keep =
      app.add_option("--keep", a.keep,
                     "Weights that sampling takes: best (averaged weights at the lowest validation loss) | last (default: "
                     "best where rows are kept apart)");
  choose_from(keep, "choice of weights", {"best", "last"});
  for (CLI::Option* option : {steps, epochs, batch, log, keep}) option->group(group)->default_str("");
  app.add_option("--lr,--learning-rate", a.lr, "Adam's learning rate")->check(CLI::PositiveNumber)->group(group);
  choose_from(app.add_option("--schedule", a.schedule, "Learning rate over the run: constant | cosine (to 0)")->group(group),
              "schedule", {"constant", "cosine"});
  app.add_option("--warmup", a.warmup, "Updates over which the rate climbs from 0")->check(CLI::NonNegativeNumber)->group(group);
  app.add_option("--weight-decay", a.weight_decay, "AdamW's decay")->check(CLI::NonNegativeNumber)->group(group);
  app.add_option("--clip-norm", a.clip_norm, "Largest norm of a gradient; 0: no clipping")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
  app.add_option("--ema", a.ema, "Decay of the weights' average, min(ema, (1 + t) / (10 + t)); 0: none")
      ->check(CLI::Range(0., 1.))
      ->group(group);
  app.add_option("--ema-snapshots", a.ema_snapshots,
                 "Put so many copies of two more averages by, over the run, from which `tweedie ema` makes one of any length "
                 "afterwards (16 are good; each makes the file two networks larger); 0: none")
      ->check(CLI::Range(0, 10000))
      ->group(group);
  CLI::Option* valid =
      app.add_option("--valid-fraction", a.valid_fraction,
                     "Part of the table kept apart for the validation loss; a table of less than 30 rows keeps none unless told")
          ->check(CLI::Range(0., .9))
          ->group(group);
  app.add_option("--checkpoint-every,--save-every", a.checkpoint_every,
                 "Updates between checkpoints; 0: only at the end and on Ctrl-C")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
  app.add_option("--resume", a.resume, "Go on from this checkpoint, with the same options as then")
      ->group(group)
      ->default_str("");
  app.add_option("--history", a.history, "Losses over the run as .csv, for `tweedie plot --kind loss`")
      ->group(group)
      ->default_str("");
  return {epochs, valid};
}

}  // namespace

Command train_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("train", "Train a score network on a table");
  app->add_option("data", a->data,
                  "A table (.csv, .csv.gz, .tsv, .npy, .npz), or builtin:NAME for fresh draws of a built-in distribution (" +
                      listed(datasets::names()) + ")")
      ->required();
  app->add_option("-o,--output", a->output, "The model file, MODEL.safetensors")->required();
  add_network_options(*app, a->network);
  add_objective_options(*app, a->objective);
  const std::vector<CLI::Option*> conditions = add_condition_options(*app, *a);
  const std::vector<CLI::Option*> table_only = add_run_options(*app, *a);
  add_table_options(*app, a->table);
  choose_from(
      app->add_option("--scaling", a->scaling,
                      "What the network sees of a column: standardise (mean 0, deviation 1) | quantile (normal scores of the "
                      "values' ranks: for skewed, heavy-tailed or whole-number columns) | none (sigmas are then in its units)")
          ->group("Reading data"),
      "scaling", {"standardise", "quantile", "none"});
  a->common.devices = true;
  add_common(*app, a->common);
  app->footer(
      "Columns are scaled to mean 0 and deviation 1 (or, with far outliers, a tenth of their range), and back when sampling; "
      "sigmas apply to the scaled data. builtin: data are\n"
      "taken as they are. Ctrl-C saves a checkpoint that --resume goes on from.\n"
      "Examples:\n"
      "  tweedie train faithful.csv --columns eruptions,waiting -o faithful.safetensors\n"
      "  tweedie train iris.csv --class species -o flowers.safetensors\n"
      "  tweedie train builtin:three_gaussians --width 256 --sigma-max 10 --sigma-min .01 --levels 30 -o mixture.safetensors");
  a->check_given = [app, arguments = a.get(), conditions, table_only] {
    arguments->objective.p_mean_given = app->get_option("--p-mean")->count() > 0;
    check_network_options(*app, arguments->network);
    check_objective_options(*app, arguments->objective, arguments->network);
    for (const CLI::Option* option : conditions) {
      check(option->count() == 0 || !arguments->network.ncsn(), option->get_name(),
            " needs a network that can be conditioned; take --net mlp, residual or energy");
      check(option->count() == 0 || arguments->conditional(), option->get_name(), " belongs to --class or --target");
    }
    if (builtin_name(arguments->data).empty()) return;
    std::vector<const CLI::Option*> refused(table_only.begin(), table_only.end());
    refused.insert(refused.end(), conditions.begin(), conditions.end());
    for (const char* name : {"--columns", "--missing", "--delimiter", "--array", "--scaling"}) {
      refused.push_back(app->get_option(name));
    }
    for (const CLI::Option* option : refused) {
      check(option->count() == 0, option->get_name(), " has no meaning for fresh draws (", arguments->data, "); leave it out");
    }
  };
  a->valid_fraction_given = [valid = table_only.back()] { return valid->count() > 0; };
  return {app, [a] {
            a->check_given();
            return run_train(*a);
          }};
}

}  // namespace tweedie::cli
