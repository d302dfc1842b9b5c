// train.cpp - tweedie train DATA -o MODEL: a score network from a table or from a built-in distribution's fresh draws.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/atomic_file.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/table.h"
#include "tweedie/models/trainer.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  TableArguments table;
  std::string data, output, resume, history;
  bool no_standardise = false;
  // the network
  std::string net = "ncsn", prediction = "edm";
  Index width = 256, depth = 4, levels = 20;
  double sigma_min = 0, sigma_max = 0;  // 0: by the network and the data's scale
  // the objective
  std::string objective = "denoising", projection = "unit", weighting, sigma_sampling, process = "ve";
  double sigma_data = 0, p_mean = 0, p_std = 1.2;  // 0: by the data
  bool p_mean_given = false;
  bool variance_reduced = false;
  Index num_projections = 1;
  // the optimiser
  std::int64_t steps = 0, epochs = 0, warmup = 0, log_every = 0, checkpoint_every = 0;
  Index batch = 0;
  double lr = 2e-3, weight_decay = 0, clip_norm = 1, ema = .999, valid_fraction = .1;
  std::string schedule = "cosine", keep;
  std::function<void()> check_given;
  std::function<bool()> valid_fraction_given;
};

constexpr double kFewestKept = 3;  // rows: fewer tell nothing, and a small table cannot spare them

constexpr std::int64_t kDefaultSteps = 6000;

Weighting weighting_of(const std::string& name) {
  if (name == "plain") return Weighting::plain;
  if (name == "edm") return Weighting::edm;
  if (name == "v") return Weighting::v;
  if (name == "likelihood") return Weighting::likelihood;
  return Weighting::sigma_squared;
}

// The process of --process over the run's range of sigmas: what decides the likelihood weighting and --sigma-sampling process.
Process process_of(const Arguments& a, double sigma_max) {
  return a.process == "ve" ? ve(a.sigma_min, sigma_max) : a.process == "edm" ? edm(a.sigma_min, sigma_max) : process(a.process);
}

Objective objective_of(const Arguments& a, double sigma_max) {
  const Weighting weighting = weighting_of(a.weighting);
  if (a.objective == "flow_matching") return FlowMatching{};
  if (a.objective == "explicit") return Explicit{weighting};
  if (a.objective == "denoising") {
    Objective denoising;
    std::get<Denoising>(denoising).weighting = weighting;
    std::get<Denoising>(denoising).sigma_data = a.sigma_data;
    if (weighting == Weighting::likelihood) std::get<Denoising>(denoising).process = process_of(a, sigma_max);
    return denoising;
  }
  const Projection projection = a.projection == "gaussian"     ? Projection::gaussian
                                : a.projection == "rademacher" ? Projection::rademacher
                                                               : Projection::unit;
  return Sliced{projection, a.variance_reduced, a.num_projections, weighting};
}

SigmaSampling sampling_of(const Arguments& a, double sigma_max) {
  if (a.sigma_sampling == "continuous") return SigmaSampling::continuous;
  if (a.sigma_sampling == "lognormal") return SigmaSampling::lognormal(a.p_mean, a.p_std);
  if (a.sigma_sampling == "process") return SigmaSampling::process(process_of(a, sigma_max));
  if (a.sigma_sampling == "flow") return SigmaSampling::flow();
  if (a.sigma_sampling == "levels") return SigmaSampling::levels;
  return SigmaSampling::automatic;
}

// What is trained on: a table's scaled rows, or fresh draws.
struct Source {
  std::string builtin;  // empty for a table
  TableCode code;
  Matrix rows;  // (N, D) of a table

  bool fresh() const { return !builtin.empty(); }
};

Source open_source(const Arguments& a) {
  Source source;
  source.builtin = builtin_name(a.data);
  if (!source.fresh()) {
    const Table table = load_table(a.data, a.table, a.common.console);
    source.code = TableCode::fit(table, !a.no_standardise);
    source.rows = source.code.encode(table);
    check<DataError>(source.rows.rows() >= 2, a.data, " has one row; a distribution needs more to be learned");
    for (const ColumnCode& column : source.code.columns()) {
      if (column.constant() && !a.no_standardise) {
        a.common.console.warn(
            join("column '", column.name, "' is constant (", column.low, "); it is scaled by 1 and samples repeat it"));
      }
    }
    return source;
  }
  const std::vector<std::string>& names = datasets::names();
  check(std::find(names.begin(), names.end(), source.builtin) != names.end() || source.builtin == "tutorial",
        unknown("distribution", source.builtin, names));
  source.code = TableCode::identity(2);
  return source;
}

// Batch after batch from a stream of its own each.
FreshRows fresh_rows(const std::string& name, Rng rng) {
  return [name, key = rng.key()](std::uint64_t first_row, Rows<float> out) {
    const Matrix x = datasets::make(name, out.rows(), Rng(key, first_row).split());
    for (Index r = 0; r < out.rows(); ++r) std::copy_n(x.row(r).data(), x.cols(), out.row(r).data());
  };
}

// The values that depend on the network and the data, where none were given.
void settle(Arguments& a, const Source& source) {
  const bool unscaled = source.fresh() || a.no_standardise;
  const bool ncsn = a.net == "ncsn";
  if (a.sigma_min == 0) a.sigma_min = ncsn ? .05 : .01;
  if (a.sigma_max == 0) a.sigma_max = ncsn ? (unscaled ? 10 : 4) : (unscaled ? 50 : 20);
  if (a.sigma_data == 0) {
    constexpr Index kDraws = 20000;
    const Rng fixed{1};
    a.sigma_data = data_deviation(source.fresh() ? datasets::make(source.builtin, kDraws, fixed) : source.rows);
  }
  if (a.weighting.empty()) a.weighting = "sigma2";
  if (!a.p_mean_given) a.p_mean = -1.2 + std::log(a.sigma_data / .5);  // EDM's own are for data of deviation .5
}

std::unique_ptr<Network> make_net(const Arguments& a, Index dim, Rng rng) {
  if (a.net == "ncsn") {
    return std::make_unique<NoiseConditionalScoreNetwork>(
        ScoreNetworkOptions{.data_dim = dim, .hidden_dim = a.width, .num_layers = a.depth},
        NoiseLevels::geometric(a.sigma_max, a.sigma_min, a.levels), rng);
  }
  return std::make_unique<ContinuousScoreNetwork>(ContinuousNetworkOptions{.data_dim = dim,
                                                                           .hidden_dim = a.width,
                                                                           .num_layers = a.depth,
                                                                           .architecture = architecture(a.net),
                                                                           .parametrisation = parametrisation(a.prediction),
                                                                           .sigma_min = a.sigma_min,
                                                                           .sigma_max = a.sigma_max,
                                                                           .sigma_data = a.sigma_data},
                                                  rng);
}

TrainOptions train_options(const Arguments& a, const Source& source, double sigma_max) {
  TrainOptions o;
  o.objective = objective_of(a, sigma_max);
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
  o.sigma_sampling = sampling_of(a, sigma_max);
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

// The averaged weights at the lowest validation loss.
struct Best {
  std::vector<float> weights;
  double valid_loss = std::numeric_limits<double>::infinity();
  std::int64_t step = 0;

  void store(Checkpoint& file, const ParameterLayout& layout) const {
    if (weights.empty()) return;
    file.set_parameters("best.", layout, weights);
    file.metadata["best.valid_loss"] = join(valid_loss);
    file.metadata["best.step"] = join(step);
  }
  void load(const Checkpoint& file, const ParameterLayout& layout) {
    if (!file.has_prefix("best.")) return;
    weights.resize(static_cast<std::size_t>(layout.size()));
    file.get_parameters("best.", layout, weights);
    const auto loss = file.metadata.find("best.valid_loss"), at = file.metadata.find("best.step");
    check<ModelFileError>(loss != file.metadata.end() && at != file.metadata.end(),
                          "the file holds best weights and not their step and loss");
    valid_loss = std::strtod(loss->second.c_str(), nullptr);
    step = std::strtoll(at->second.c_str(), nullptr, 10);
  }
};

// The objective on the rows kept apart, at every noise level and with several draws of the noise: with so few rows a single draw
// each, as the trainer's own validation takes, is too noisy to tell which weights are best.
class Validation {
 public:
  Validation(const Trainer& trainer, const Source& source, const Network& net, const TrainOptions& options, const Rng& rng)
      : trainer_(trainer), source_(source), net_(net), options_(options), rng_(rng) {
    if (trainer.validation_rows().empty()) return;
    engine_ = make_training_step(net, options.objective, options.device, options.precision, options.engine);
  }

  double loss() {
    const std::span<const std::int64_t> kept = trainer_.validation_rows();
    // A network that takes any sigma is looked at in 20 levels over its range.
    const NoiseLevels levels =
        net_.levels() != nullptr ? *net_.levels() : NoiseLevels::geometric(net_.sigma_max(), net_.sigma_min(), 20);
    const Index rows = static_cast<Index>(kept.size()), total = rows * levels.size() * draws(rows);
    double sum = 0;
    for (Index first = 0; first < total; first += kChunk) {
      const Index n = std::min(kChunk, total - first);
      fill(first, n, kept, levels);
      losses_.resize(static_cast<std::size_t>(n));
      sum += engine_->loss(trainer_.ema_parameters(), batch_, losses_) * static_cast<double>(n);
    }
    return sum / static_cast<double>(total);
  }

 private:
  static constexpr Index kChunk = 2048;
  // Enough for about 4000 evaluations over 30 levels.
  static Index draws(Index rows) { return std::clamp<Index>(128 / std::max<Index>(rows, 1), 1, 8); }

  // Entry i is row i mod rows at level (i / rows) mod L.
  void fill(Index first, Index n, std::span<const std::int64_t> kept, const NoiseLevels& levels) {
    const Index dim = source_.rows.cols();
    if (batch_.x.rows() != n) {
      batch_ = Batch();
      batch_.x = Matrix(n, dim);
      batch_.eps = Matrix(n, dim);
      batch_.sigma = Buffer<float>(n);
      if (net_.levels() != nullptr) batch_.level = Buffer<std::int32_t>(n);
    }
    rng_.normals<float>(Purpose::perturb, 0, static_cast<std::uint64_t>(first), batch_.eps);
    for (Index b = 0; b < n; ++b) {
      const Index row = kept[static_cast<std::size_t>((first + b) % static_cast<Index>(kept.size()))];
      const Index level = (first + b) / static_cast<Index>(kept.size()) % levels.size();
      batch_.sigma[b] = static_cast<float>(levels[level]);
      if (net_.levels() != nullptr) batch_.level[b] = static_cast<std::int32_t>(level);
      for (Index c = 0; c < dim; ++c) batch_.x(b, c) = source_.rows(row, c) + batch_.sigma[b] * batch_.eps(b, c);
    }
    draw_directions(options_.objective, rng_, {.first_row = static_cast<std::uint64_t>(first)}, batch_);
  }

  const Trainer& trainer_;
  const Source& source_;
  const Network& net_;
  const TrainOptions& options_;
  Rng rng_;
  std::unique_ptr<TrainingEngine> engine_;
  Batch batch_;
  std::vector<float> losses_;
};

class History {
 public:
  void add(const TrainingStep& s) {
    const double valid = s.has_valid_loss ? s.valid_loss : std::numeric_limits<double>::quiet_NaN();
    for (const double value :
         {static_cast<double>(s.step), s.epoch, s.loss, s.smoothed_loss, valid, s.learning_rate, s.gradient_norm, s.seconds}) {
      values_.push_back(value);
    }
  }
  void write(const std::string& path) const {
    if (path.empty()) return;
    const std::vector<std::string> names = {"step",       "epoch",         "loss",          "smoothed_loss",
                                            "valid_loss", "learning_rate", "gradient_norm", "seconds"};
    const Index cols = static_cast<Index>(names.size());
    write_csv(output_path(path), names, ConstRows<double>(values_.data(), static_cast<Index>(values_.size()) / cols, cols));
  }

 private:
  std::vector<double> values_;
};

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
  begin(common, join("training on ", a.data));
  check_writable(a.output);
  const Source source = open_source(a);
  settle(a, source);
  const TrainOptions base = train_options(a, source, a.sigma_max);
  Rng rng = common.rng();
  const std::unique_ptr<Network> network = make_net(a, source.code.dim(), rng.split());
  Network& net = *network;
  const Rng stream = rng.split(), draws = rng.split(), validation_noise = rng.split();

  Best best;
  TrainOptions options = base;
  options.annotate = [&](Checkpoint& file) {
    if (!source.fresh()) source.code.store(file);
    file.metadata["train.source"] = a.data;
    file.metadata["train.seed"] = join(common.seed);
    best.store(file, net.layout());
  };
  Trainer trainer = source.fresh() ? Trainer(net, fresh_rows(source.builtin, draws), options, stream)
                                   : Trainer(net, source.rows, options, stream);
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

  Validation validation(trainer, source, net, options, validation_noise);
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

void add_network_options(CLI::App& app, Arguments& a) {
  const char* group = "Network";
  app.add_option("--width,--hidden-dim", a.width, "Units of a hidden layer")->check(CLI::Range(1, 65536))->group(group);
  app.add_option("--depth,--num-layers", a.depth, "Linear layers")->check(CLI::Range(2, 1000))->group(group);
  app.add_option("--levels,--num-noise-levels", a.levels, "Noise levels, geometric from sigma-max to sigma-min (the chapter: 10)")
      ->check(CLI::Range(1, 100000))
      ->group(group);
  app.add_option(
         "--sigma-min", a.sigma_min,
         "Smallest noise level, in deviations of the scaled data (default: ncsn .05, others .01; the chapter: .01, much below "
         "the width of a small table's gaps)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
  app.add_option("--sigma-max", a.sigma_max,
                 "Largest noise level (default: ncsn 4 for scaled columns, else the chapter's 10; other networks 20 and 50)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
  choose_from(app.add_option("--net,--network", a.net,
                             "ncsn (the chapter's, discrete levels) | mlp | residual (any sigma, EDM's preconditioning)")
                  ->group(group),
              "network", {"ncsn", "mlp", "residual"});
  choose_from(
      app.add_option("--prediction", a.prediction, "mlp, residual: what the network's output is: edm | score | epsilon | x0 | v")
          ->group(group),
      "prediction", {"edm", "score", "epsilon", "x0", "v"});
}

std::vector<CLI::Option*> add_objective_options(CLI::App& app, Arguments& a) {
  const char* group = "Objective";
  choose_from(
      app.add_option("--objective", a.objective, "denoising | explicit | sliced score matching | flow_matching")->group(group),
      "objective", {"denoising", "explicit", "sliced", "flow_matching"});
  choose_from(app.add_option("--weighting", a.weighting,
                             "Weight of a row's squared error of sigma s (default: sigma2): "
                             "sigma2 (1) | plain (1/sigma^2) | edm | v | likelihood "
                             "(g^2, by --process); explicit and sliced take the first two")
                  ->group(group)
                  ->default_str(""),
              "weighting", {"sigma2", "plain", "edm", "v", "likelihood"});
  CLI::Option* sampling =
      app.add_option("--sigma-sampling", a.sigma_sampling,
                     "Training draws sigma from: levels | continuous (ln sigma uniform) | lognormal | process (t "
                     "uniform in --process) | flow (default: what goes with network and objective)");
  choose_from(sampling->group(group)->default_str(""), "sigma sampling",
              {"levels", "continuous", "lognormal", "process", "flow"});
  choose_from(
      app.add_option("--process", a.process, "ve | vp | sub_vp | edm, for --weighting likelihood and --sigma-sampling process")
          ->group(group),
      "process", {"ve", "vp", "sub_vp", "edm"});
  app.add_option("--sigma-data", a.sigma_data,
                 "Deviation of the data for EDM's preconditioning and weighting (default: measured)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
  app.add_option("--p-mean", a.p_mean,
                 "lognormal: mean of ln sigma (default: EDM's -1.2 for data of deviation .5, moved with it)")
      ->group(group)
      ->default_str("");
  app.add_option("--p-std", a.p_std, "lognormal: deviation of ln sigma")->check(CLI::PositiveNumber)->group(group);
  CLI::Option* projection = app.add_option("--projection", a.projection, "Sliced: directions unit | gaussian | rademacher");
  choose_from(projection, "projection", {"unit", "gaussian", "rademacher"});
  std::vector<CLI::Option*> sliced = {
      projection, app.add_flag("--variance-reduced", a.variance_reduced, "Sliced: 1/2 |s|^2 in place of 1/2 (v.s)^2"),
      app.add_option("--num-projections", a.num_projections, "Sliced: directions per row")->check(CLI::Range(1, 100000))};
  for (CLI::Option* option : sliced) option->group(group);
  return sliced;
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
  const std::vector<CLI::Option*> sliced = (add_network_options(*app, *a), add_objective_options(*app, *a));
  const std::vector<CLI::Option*> table_only = add_run_options(*app, *a);
  add_table_options(*app, a->table);
  app->add_flag("--no-standardise", a->no_standardise, "Take the columns as they are; sigmas are then in their units")
      ->group("Reading data");
  add_common(*app, a->common);
  app->footer(
      "Columns are scaled to mean 0 and deviation 1 (or, with far outliers, a tenth of their range), and back when sampling; "
      "sigmas apply to the scaled data. builtin: data are\n"
      "taken as they are. Ctrl-C saves a checkpoint that --resume goes on from.\n"
      "Examples:\n"
      "  tweedie train faithful.csv --columns eruptions,waiting -o faithful.safetensors\n"
      "  tweedie train builtin:three_gaussians --width 256 --sigma-max 10 --sigma-min .01 --levels 30 -o mixture.safetensors");
  a->check_given = [app, arguments = a.get(), sliced, table_only] {
    const bool ncsn = arguments->net == "ncsn";
    arguments->p_mean_given = app->get_option("--p-mean")->count() > 0;
    check(!ncsn || app->get_option("--prediction")->count() == 0, "--prediction belongs to --net mlp and residual");
    check(ncsn || app->get_option("--levels")->count() == 0, "--levels belongs to --net ncsn; ", arguments->net,
          " takes any sigma");
    for (const CLI::Option* option : sliced) {
      check(arguments->objective == "sliced" || option->count() == 0, option->get_name(), " belongs to --objective sliced");
    }
    if (builtin_name(arguments->data).empty()) return;
    std::vector<const CLI::Option*> refused(table_only.begin(), table_only.end());
    for (const char* name : {"--columns", "--missing", "--delimiter", "--array", "--no-standardise"}) {
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
