// plot.cpp - tweedie plot MODEL|DATA: score fields, samples, densities, trajectories, losses, errors, tables.
// SPDX-License-Identifier: MIT
#ifdef TWEEDIE_HAVE_PLOTS
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/core/files/npy.h"
#include "tweedie/models/empirical_mixture.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/plots/visualize.h"

namespace tweedie::cli {

namespace {

using plots::Figure;
using plots::Limits;

struct Arguments {
  Common common;
  SamplingArguments sampling;  // its defaults; `tweedie sample` has the options
  ConditionArguments condition;
  TableArguments table;
  std::string input, output, kind, xlim, ylim, oracle, data, title;
  Index resolution = 20, n = 2000;
  double sigma = 0;
  bool raw_weights = false;
};

const std::vector<std::string> kKinds = {"field", "samples", "density", "trajectories", "loss", "sigma-error", "pairs"};

bool is_model(const std::string& path) { return ends_with(path, ".safetensors"); }

// What is drawn: rows in the data's own units, from a table or a model.
struct Input {
  std::optional<ModelFile> model;
  std::optional<Table> table;
  std::vector<Matrix> frames;  // of a trajectory file

  std::vector<std::string> names() const {
    std::vector<std::string> list;
    if (table) return table->names();
    for (const ColumnCode& column : model->code.columns()) list.push_back(column.name);
    return list;
  }
};

Matrix to_float(const MatrixD& values) { return Matrix(values.view()); }

// x1 as x_{1}; other names as they are.
std::string axis_name(const std::string& name) {
  const bool numbered = name.size() > 1 && name[0] == 'x' && name.find_first_not_of("0123456789", 1) == std::string::npos;
  return numbered ? join("x_{", name.substr(1), "}") : name;
}

// A trajectory table: step, row, columns...; sorted by step as `tweedie sample` writes it.
std::vector<Matrix> frames_of(const Table& table) {
  const std::vector<double>& steps = table.columns[0].numbers;
  std::vector<Matrix> frames;
  for (std::size_t begin = 0; begin < steps.size();) {
    std::size_t end = begin;
    while (end < steps.size() && steps[end] == steps[begin]) ++end;
    Matrix frame(static_cast<Index>(end - begin), table.cols() - 2);
    for (Index r = 0; r < frame.rows(); ++r) {
      for (Index c = 0; c < frame.cols(); ++c) {
        frame(r, c) =
            static_cast<float>(table.columns[static_cast<std::size_t>(c) + 2].numbers[begin + static_cast<std::size_t>(r)]);
      }
    }
    check<DataError>(frames.empty() || frames.front().rows() == frame.rows(),
                     "the trajectory's steps hold different numbers of rows");
    frames.push_back(std::move(frame));
    begin = end;
  }
  return frames;
}

std::vector<Matrix> frames_of(const NpyArray<float>& array) {
  const Index rows = array.shape[1], cols = array.shape[2];
  std::vector<Matrix> frames;
  for (Index t = 0; t < array.shape[0]; ++t) frames.emplace_back(ConstRows<float>(array.values.row(t).data(), rows, cols));
  return frames;
}

bool has_columns(const Table& table, std::initializer_list<const char*> names) {
  const std::vector<std::string> all = table.header();
  return std::all_of(names.begin(), names.end(),
                     [&](const char* name) { return std::find(all.begin(), all.end(), name) != all.end(); });
}

Input read_input(const Arguments& a) {
  Input input;
  if (is_model(a.input)) {
    input.model = load_model(a.input, a.raw_weights);
    place(*input.model, a.common);
    return input;
  }
  check(a.condition.value.empty() && a.condition.given.empty() && a.condition.guidance == 1, a.input,
        " is no model; --class, --given and --guidance belong to one");
  if (ends_with(a.input, ".npy")) {
    const NpyArray<float> array = read_npy_array<float>(a.input);
    if (array.shape.size() == 3) {
      input.frames = frames_of(array);
      return input;
    }
  }
  Table table = read_table(a.input, a.table);
  if (has_columns(table, {"step", "loss"})) {  // a loss history, whose validation column may be empty
    input.table = std::move(table);
    return input;
  }
  input.table = prepare_table(std::move(table), a.input, a.table, a.common.console);
  if (has_columns(*input.table, {"step", "row"}) && input.table->cols() > 2) input.frames = frames_of(*input.table);
  return input;
}

Index dim_of(const Input& input) {
  if (!input.frames.empty()) return input.frames.front().cols();
  return input.model ? input.model->code.dim() : input.table->cols();
}

std::string default_kind(const Input& input) {
  if (!input.frames.empty()) return "trajectories";
  if (input.table && has_columns(*input.table, {"step", "loss"})) return "loss";
  if (input.model) return dim_of(input) == 2 ? "field" : "pairs";
  return dim_of(input) == 2 ? "samples" : "pairs";
}

Matrix rows_of(const Arguments& a, const Input& input) {
  if (input.table) return to_float(to_matrix(*input.table));
  const Matrix scaled = draw_all(*input.model, a.condition, a.n, a.sampling, a.common.rng(), a.common.console);
  return to_float(input.model->code.decode(scaled));
}

struct Window {
  Limits x, y;
};

// Given limits, else those of the data with a margin.
Window window_of(const Arguments& a, ConstRows<float> rows) {
  Window w;
  for (Index c = 0; c < 2; ++c) {
    const std::string& text = c == 0 ? a.xlim : a.ylim;
    Limits& limits = c == 0 ? w.x : w.y;
    if (!text.empty()) {
      std::tie(limits.lo, limits.hi) = parse_limits(text, c == 0 ? "--xlim" : "--ylim");
      continue;
    }
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    for (Index r = 0; r < rows.rows(); ++r) {
      lo = std::min(lo, static_cast<double>(rows(r, c)));
      hi = std::max(hi, static_cast<double>(rows(r, c)));
    }
    const double margin = hi > lo ? .1 * (hi - lo) : 1;
    limits = {lo - margin, hi + margin};
  }
  return w;
}

// The columns' scaling gives a model's window without drawing from it: what was seen, and a margin.
Window window_of(const Arguments& a, const TableCode& code) {
  Matrix corners(2, 2);
  for (Index c = 0; c < 2; ++c) {
    const ColumnCode& column = code.columns()[static_cast<std::size_t>(c)];
    const bool seen = std::isfinite(column.low);
    corners(0, c) = static_cast<float>(seen ? column.low : -4);
    corners(1, c) = static_cast<float>(seen ? column.high : 4);
  }
  return window_of(a, corners);
}

std::optional<plots::ScalarFunction> oracle_density(const std::string& name, double sigma, std::optional<GaussianMixture>& keep) {
  if (name.empty()) return std::nullopt;
  keep = find_oracle(name);
  return plots::density_at(*keep, sigma);
}

void need_two(const Input& input, const std::string& kind) {
  check(dim_of(input) == 2, "--kind ", kind, " draws two columns, ", dim_of(input), " are there; select two with --columns",
        input.model ? std::string(" (of a table), or take --kind pairs") : std::string(", or take --kind pairs"));
}

Figure plot_field(const Arguments& a, const Input& input) {
  need_two(input, "field");
  check(input.model.has_value() || !a.oracle.empty(), "--kind field draws a model's score; give a .safetensors file");
  const ModelFile& model = *input.model;
  const double sigma = std::max(a.sigma > 0 ? a.sigma : .1, model.network->sigma_min());
  const Window window = window_of(a, model.code);
  std::optional<GaussianMixture> exact;
  const auto density = oracle_density(a.oracle, sigma, exact);
  plots::ScoreFieldOptions options;
  options.xlim = window.x;
  options.ylim = window.y;
  options.resolution = a.resolution;
  if (density) options.log_density = *density;
  options.title = a.title.empty() ? join("Learned score, \u03C3 = ", number(sigma, 3)) : a.title;
  const std::vector<std::string> names = input.names();
  options.x_label = axis_name(names[0]);
  options.y_label = axis_name(names[1]);
  const std::unique_ptr<ScoreModel> given = one_condition(model, a.condition, "a score field");
  const ScoreModel& score = given ? *given : model.score();
  return plots::visualize_score_field(*unscaled_score(model.code, score), sigma, options);
}

Figure plot_samples(const Arguments& a, const Input& input) {
  need_two(input, "samples");
  const Matrix rows = rows_of(a, input);
  std::optional<GaussianMixture> exact;
  const auto density = oracle_density(a.oracle, a.sigma, exact);
  plots::SamplesOptions options;
  if (density) options.log_density = *density;
  std::optional<Matrix> reference;
  if (!a.data.empty()) {
    reference = to_float(to_matrix(load_table(a.data, a.table, a.common.console)));
    options.reference = *reference;
  }
  const Window window = window_of(a, rows);
  if (!a.xlim.empty()) options.xlim = window.x;
  if (!a.ylim.empty()) options.ylim = window.y;
  options.title = a.title;
  options.name = input.model ? "samples" : "data";
  if (reference && !input.model) options.name = "these";
  const std::vector<std::string> names = input.names();
  options.x_label = axis_name(names[0]);
  options.y_label = axis_name(names[1]);
  return plots::visualize_samples(rows, options);
}

// The exact density of --oracle, or a kernel estimate of the rows: normal kernels, in units of each column's deviation.
Figure plot_density(const Arguments& a, const Input& input) {
  need_two(input, "density");
  std::optional<GaussianMixture> exact;
  plots::DensityOptions options;
  options.title = a.title;
  const std::vector<std::string> names = input.names();
  options.x_label = axis_name(names[0]);
  options.y_label = axis_name(names[1]);
  const Matrix rows = rows_of(a, input);
  const Window window = window_of(a, rows);
  options.xlim = window.x;
  options.ylim = window.y;
  if (const auto density = oracle_density(a.oracle, a.sigma, exact)) return plots::visualize_density(*density, options);
  const TableCode code = TableCode::fit(to_table({}, MatrixD(rows.view())));
  const EmpiricalMixture kernels(code.encode(to_table({}, MatrixD(rows.view()))));
  // Scott's rule: n^(-1/(D + 4)) deviations.
  const double bandwidth = a.sigma > 0 ? a.sigma : std::pow(static_cast<double>(rows.rows()), -1. / 6);
  const plots::ScalarFunction scaled = plots::density_at(kernels, bandwidth);
  const plots::ScalarFunction density = [&](ConstRows<double> x, std::span<double> out) {
    MatrixD z(x);
    for (Index r = 0; r < z.rows(); ++r) {
      for (Index c = 0; c < 2; ++c) z(r, c) = code.columns()[static_cast<std::size_t>(c)].scaled(z(r, c));
    }
    scaled(z, out);
    for (double& value : out) value -= std::log(code.columns()[0].std * code.columns()[1].std);
  };
  return plots::visualize_density(density, options);
}

// Of a model's trajectories: more of them than this are a blot.
constexpr std::size_t kShownStates = 40;
constexpr Index kShownPaths = 20;

Figure plot_trajectories(const Arguments& a, Input& input) {
  if (input.frames.empty()) {
    check(input.model.has_value(), "--kind trajectories takes a model, or a file that `tweedie sample --trajectory` wrote");
    need_two(input, "trajectories");
    const Index rows = std::min(a.n, kShownPaths);
    SamplingArguments sampling = a.sampling;
    if (sampling.sampler.empty()) sampling.sampler = default_sampler(*input.model->network);
    const Drawn drawn = draw(input.model->score(), *input.model->levels, rows, sampling, {.save_every = 1, .rows = rows},
                             a.common.rng(), a.common.console, [](ConstRows<float>) {});
    // Evenly spaced states, the start and the end among them.
    const std::size_t states = drawn.trajectory.size(), shown = std::min<std::size_t>(states, kShownStates);
    for (std::size_t t = 0; t < shown; ++t) {
      const Matrix& frame = drawn.trajectory[shown > 1 ? t * (states - 1) / (shown - 1) : 0];
      input.frames.push_back(to_float(input.model->code.decode(frame)));
    }
  }
  need_two(input, "trajectories");
  std::optional<GaussianMixture> exact;
  const auto density = oracle_density(a.oracle, a.sigma, exact);
  plots::TrajectoriesOptions options;
  if (density) options.log_density = *density;
  const Window window = window_of(a, input.frames.back());
  options.xlim = window.x;
  options.ylim = window.y;
  options.title = a.title;
  return plots::visualize_trajectories(input.frames, options);
}

Figure plot_loss(const Arguments& a, const Input& input) {
  check(input.table && has_columns(*input.table, {"step", "loss"}),
        "--kind loss takes the .csv that `tweedie train --history` writes, with the columns step and loss");
  const Table& t = *input.table;
  plots::LossOptions options;
  options.steps = t.columns[static_cast<std::size_t>(t.index("step"))].numbers;
  if (has_columns(t, {"valid_loss"})) {
    const std::vector<double>& valid = t.columns[static_cast<std::size_t>(t.index("valid_loss"))].numbers;
    for (std::size_t i = 0; i < valid.size(); ++i) {
      if (std::isnan(valid[i])) continue;
      options.validation_steps.push_back(options.steps[i]);
      options.validation_loss.push_back(valid[i]);
    }
  }
  if (!a.title.empty()) options.title = a.title;
  return plots::visualize_loss(t.columns[static_cast<std::size_t>(t.index("loss"))].numbers, options);
}

Figure plot_sigma_error(const Arguments& a, const Input& input) {
  check(input.model && !a.oracle.empty(), "--kind sigma-error compares a model with an exact score: give a model and --oracle (",
        listed(oracle_names()), ")");
  const FisherDivergence errors =
      fisher_divergence(input.model->score(), scaled_oracle(a.oracle, *input.model), *input.model->levels, {}, a.common.rng());
  std::vector<double> sigma, error;
  plots::SigmaErrorOptions options;
  for (const LevelError& level : errors.levels) {
    sigma.push_back(level.sigma);
    error.push_back(level.relative);
    options.zero_network.push_back(1);
  }
  options.title = a.title;
  return plots::visualize_sigma_error(sigma, error, options);
}

Figure plot_pairs(const Arguments& a, const Input& input) {
  check(input.frames.empty(), "--kind pairs draws a table, and ", a.input, " holds trajectories");
  plots::TableOptions options;
  for (const std::string& name : input.names()) options.columns.push_back(axis_name(name));
  options.title = a.title;
  const Matrix rows = rows_of(a, input);
  if (a.data.empty()) {
    options.name = input.model ? "samples" : "data";
    return plots::visualize_pairs(rows, options);
  }
  const Matrix data = to_float(to_matrix(load_table(a.data, a.table, a.common.console)));
  options.samples = rows;
  options.samples_name = input.model ? "samples" : "these";
  return plots::visualize_pairs(data, options);
}

int run_plot(const Arguments& a) {
  const bool known = ends_with(a.output, ".png") || ends_with(a.output, ".svg") || ends_with(a.output, ".pdf");
  check(known, "'", a.output, "' is no figure's name; end it in .png, .svg or .pdf");
  catch_signals("\ninterrupted: nothing is written\n");
  begin(a.common, join("plotting ", a.input));
  Input input = read_input(a);
  const std::string kind = a.kind.empty() ? default_kind(input) : a.kind;
  const Figure figure = kind == "field"          ? plot_field(a, input)
                        : kind == "samples"      ? plot_samples(a, input)
                        : kind == "density"      ? plot_density(a, input)
                        : kind == "trajectories" ? plot_trajectories(a, input)
                        : kind == "loss"         ? plot_loss(a, input)
                        : kind == "sigma-error"  ? plot_sigma_error(a, input)
                                                 : plot_pairs(a, input);
  figure.save(a.output);
  if (a.common.json) {
    JsonWriter json;
    json.begin_object().key("file").value(a.output).key("kind").value(kind).key("drawn").value(figure.drawn());
    json.key("skipped").value(figure.skipped()).key("seed").value(a.common.seed).end_object();
    print(json.text() + "\n");
  } else {
    const std::string skipped = figure.skipped() > 0 ? join(" (", figure.skipped(), " points outside what can be drawn)") : "";
    print(join(a.output, ": ", kind, skipped, "\n"));
  }
  return 0;
}

}  // namespace

Command plot_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("plot", "Draw a model or a table");
  app->add_option("input", a->input, "A model (.safetensors), a table, a trajectory or a loss history")->required();
  app->add_option("-o,--output", a->output, "The figure: .png, .svg or .pdf")->required();
  choose_from(app->add_option("--kind", a->kind, listed(kKinds) + " (default: by the input)")->default_str(""), "kind of figure",
              kKinds);
  app->add_option("--xlim", a->xlim, "Horizontal range: --xlim=-3,3 (default: from the data)")->default_str("");
  app->add_option("--ylim", a->ylim, "Vertical range")->default_str("");
  app->add_option("--resolution", a->resolution, "Arrows along each side of a field")->check(CLI::Range(2, 500));
  app->add_option("--sigma", a->sigma,
                  "Noise level of a field (default .1), of the oracle's density (default 0), or bandwidth of a density estimate, "
                  "in scaled "
                  "units")
      ->check(CLI::PositiveNumber)
      ->default_str("");
  app->add_option("--oracle", a->oracle, "An exact distribution drawn behind, or compared with: " + listed(oracle_names()))
      ->default_str("");
  app->add_option("--data", a->data, "A table drawn beside (samples, pairs)")->default_str("");
  app->add_option("--title", a->title, "Title")->default_str("");
  app->add_option("-n,--num-samples", a->n,
                  join("Rows to draw from a model; trajectories: ", kShownPaths, " at most, at ", kShownStates,
                       " evenly spaced states (others: a file of `tweedie sample --trajectory`)"))
      ->check(CLI::Range(Index{1}, Index{1} << 40));
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  add_condition_options(*app, a->condition);
  add_table_options(*app, a->table);
  add_common(*app, a->common);
  a->common.devices = true;
  app->footer(
      "Examples:\n"
      "  tweedie plot model.safetensors -o field.png --sigma .1 --xlim=-4,4 --ylim=-3,4\n"
      "  tweedie plot model.safetensors -o samples.pdf --kind samples --data train.csv\n"
      "  tweedie plot history.csv -o loss.svg");
  return {app, [a] { return run_plot(*a); }};
}

}  // namespace tweedie::cli
#endif
