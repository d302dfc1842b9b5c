// impute.cpp - tweedie impute MODEL DATA: the missing cells of a table filled in by conditional sampling.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/samplers/posterior.h"
#include "tweedie/samplers/repaint.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  TableArguments table;
  std::string model, data, output = "-", method = "repaint", schedule = "geometric";
  Index draws = 1, steps = 100, resample = 10;
  double noise = 1e-4;
  bool raw_weights = false;
  std::function<void()> check_given;
};

Index missing_cells(ConstRows<float> x) {
  Index count = 0;
  for (Index r = 0; r < x.rows(); ++r)
    count += std::count_if(x.row(r).begin(), x.row(r).end(), [](float v) { return std::isnan(v); });
  return count;
}

// One row at a time by its own observed cells: rows differ in what they miss. places: theirs in the table.
MatrixD by_posterior(const Arguments& a, const ScoreModel& score, std::span<const double> sigmas, ConstRows<float> x,
                     const std::vector<Index>& places, Rng rng, const std::function<void(double)>& progress) {
  MatrixD all(x.rows() * a.draws, x.cols());
  PosteriorOptions options{.method = posterior_method(a.method), .draws = a.draws};
  options.progress = [](const SamplingProgress&) { return !interrupted(); };
  for (Index r = 0; r < x.rows(); ++r) {
    std::vector<Index> seen;
    for (Index c = 0; c < x.cols(); ++c) {
      if (!std::isnan(x(r, c))) seen.push_back(c);
    }
    const Rng stream = rng.split();
    check<DataError>(!seen.empty(), "row ", places[static_cast<std::size_t>(r)] + 1,
                     " has no cell to go by; --method repaint draws it freely");
    MatrixD y(1, static_cast<Index>(seen.size()));
    for (std::size_t i = 0; i < seen.size(); ++i) y(0, static_cast<Index>(i)) = static_cast<double>(x(r, seen[i]));
    const LinearObservation observation = LinearObservation::coordinates(x.cols(), seen, a.noise);
    const SamplesD drawn = posterior_sample(score, observation, y, sigmas, options, stream);
    for (Index d = 0; d < a.draws; ++d) std::copy_n(drawn.x.row(d).data(), x.cols(), all.row(r * a.draws + d).data());
    progress(static_cast<double>(r + 1) / static_cast<double>(x.rows()));
  }
  return all;
}

MatrixD by_repaint(const Arguments& a, const ScoreModel& score, std::span<const double> sigmas, ConstRows<float> x,
                   const Rng& rng, const std::function<void(double)>& progress) {
  RepaintOptions options{.draws = a.draws, .resample = a.resample};
  options.progress = [&](const SamplingProgress& p) {
    if (p.total > 0) progress(static_cast<double>(p.done) / static_cast<double>(p.total));
    return !interrupted();
  };
  return MatrixD(repaint(score, sigmas, MatrixD(x), options, rng).x);
}

// All draws of all rows (N draws, D), the rows of each condition together.
MatrixD complete(const Arguments& a, const ModelFile& model, const ModelRows& rows) {
  Progress bar(a.common.console, "imputing");
  const std::vector<double> sigmas = schedule(a.schedule, a.steps, model.levels->min(), model.levels->max());
  MatrixD all(rows.x.rows() * a.draws, rows.x.cols());
  Index done = 0;
  for (const RowGroup& group : group_rows(model, rows)) {
    const auto progress = [&](double part) {
      bar.update(done * 1000 + static_cast<std::int64_t>(part * 1000 * static_cast<double>(group.rows.size())),
                 rows.x.rows() * 1000);
    };
    // A stream for each condition, by its first row; a model without has the whole stream.
    Rng rng = a.common.rng();
    if (!model.conditions.empty()) rng = Rng(rng.key(), static_cast<std::uint64_t>(group.rows.front())).split();
    const Matrix x = take_rows(rows.x, group.rows);
    const MatrixD filled = a.method == "repaint" ? by_repaint(a, *group.model, sigmas, x, rng, progress)
                                                 : by_posterior(a, *group.model, sigmas, x, group.rows, rng, progress);
    for (std::size_t i = 0; i < group.rows.size(); ++i) {
      std::copy_n(filled.row(static_cast<Index>(i) * a.draws).data(), a.draws * x.cols(),
                  all.row(group.rows[i] * a.draws).data());
    }
    done += static_cast<Index>(group.rows.size());
  }
  return all;
}

// Cell `row` of a column of the file, or what the model drew for it.
void append_cell(const Table::Column& from, Index row, double drawn, Table::Column& to) {
  if (from.numeric) {
    const double value = from.numbers[static_cast<std::size_t>(row)];
    to.numbers.push_back(std::isnan(value) ? drawn : value);
  } else {
    to.text.push_back(from.text[row]);
  }
}

// The draws in the data's own units, known cells and conditions exactly as the file has them; with several draws a first column
// says which.
void write(const Arguments& a, const ModelFile& model, const ModelRows& rows, ConstRows<double> filled) {
  Matrix scaled(filled.rows(), filled.cols());
  for (Index i = 0; i < filled.size(); ++i) scaled.data()[i] = static_cast<float>(filled.data()[i]);
  const MatrixD values = model.code.decode(scaled);
  const std::vector<ColumnCode>& modelled = model.code.columns();
  const bool by_name = model.code.has_header() && rows.table.has_header;
  Table out;
  out.rows = values.rows();
  if (a.draws > 1) {
    out.columns.emplace_back().name = "draw";
    for (Index r = 0; r < out.rows; ++r) out.columns[0].numbers.push_back(static_cast<double>(r % a.draws + 1));
  }
  const std::vector<std::string> names = known_columns(model);
  for (std::size_t n = 0; n < names.size(); ++n) {
    const auto place = static_cast<std::size_t>(by_name ? rows.table.index(names[n]) : static_cast<Index>(n));
    const Table::Column& from = rows.table.columns[place];
    Table::Column to;
    to.name = names[n];
    to.numeric = from.numeric;
    const auto found = std::find_if(modelled.begin(), modelled.end(), [&](const ColumnCode& c) { return c.name == names[n]; });
    for (Index r = 0; r < out.rows; ++r) {
      append_cell(from, r / a.draws, found == modelled.end() ? 0 : values(r, found - modelled.begin()), to);
    }
    out.columns.push_back(std::move(to));
  }
  std::vector<std::string> header = full_header(model);
  if (a.draws > 1 && !header.empty()) header.insert(header.begin(), "draw");
  const std::unique_ptr<RowWriter> writer = open_writer(a.output, header, out.rows, out.cols());
  writer->append(out);
  writer->close();
}

int run_impute(Arguments& a) {
  a.common.devices = a.method == "repaint";  // the others need derivatives that devices do not have
  const Common& common = a.common;
  a.check_given();
  check_output_name(a.output);
  check(!common.json || !is_stdout(a.output), "--json and -o - would both write to standard output; name a file with -o");
  catch_signals("\ninterrupted: nothing is written\n");
  begin(common, join("imputing ", a.data));
  const auto start = std::chrono::steady_clock::now();
  ModelFile model = load_model(a.model, a.raw_weights);
  place(model, common);
  check_holds_classes(model, a.output);
  TableArguments arguments = a.table;
  arguments.missing = "keep";
  const ModelRows rows = load_rows(model, a.data, arguments, common.console);
  const Matrix& x = rows.x;
  const Index missing = missing_cells(x);
  write(a, model, rows, complete(a, model, rows));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (common.json) {
    JsonWriter json;
    json.begin_object().key("file").value(a.output).key("rows").value(x.rows()).key("missing").value(missing);
    json.key("draws").value(a.draws).key("method").value(a.method).key("weights").value(model.weights);
    json.key("seconds").value(seconds).key("seed").value(common.seed).end_object();
    print(json.text() + "\n");
    return 0;
  }
  const std::string line =
      join(a.output, ": ", missing, missing == 1 ? " cell" : " cells", " of ", x.rows(), " rows filled by ", a.method, ", ",
           a.draws, a.draws == 1 ? " draw each, " : " draws each, ", duration(seconds), ", seed ", common.seed);
  if (is_stdout(a.output)) {
    common.console.note(line);
  } else {
    print(line + "\n");
  }
  return 0;
}

}  // namespace

Command impute_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("impute", "Fill a table's missing cells by conditional sampling");
  app->add_option("model", a->model, "A model file of the same columns")->required();
  app->add_option("data", a->data, "A table with missing cells (empty, NA or NaN)")->required();
  app->add_option("-o,--output", a->output, "File: .csv, .npy or .npz; - is csv on standard output");
  app->add_option("--draws", a->draws, "Imputations of each row (more than one: a column `draw` in front)")
      ->check(CLI::Range(Index{1}, Index{1} << 20));
  choose_from(app->add_option("--method", a->method,
                              "repaint (nearest to calibrated) | mmps | pigdm | dps (guided by the denoiser's derivative)"),
              "method", {"repaint", "mmps", "pigdm", "dps"});
  app->add_option("--steps", a->steps, "Levels, the last followed by 0")->check(CLI::Range(2, 1000000));
  choose_from(app->add_option("--schedule", a->schedule, "Spacing of the levels: geometric | karras | linear | cosine"),
              "schedule", {"geometric", "karras", "linear", "cosine"});
  CLI::Option* resample =
      app->add_option("--resample", a->resample, "repaint: steps at each level")->check(CLI::Range(1, 100000));
  CLI::Option* noise = app->add_option("--noise", a->noise, "Others: variance of the known cells' noise, scaled units")
                           ->check(CLI::NonNegativeNumber);
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  add_table_options(*app, a->table);
  app->remove_option(app->get_option("--missing"));
  add_common(*app, a->common);
  app->footer(
      "A model trained with --class or --target takes each row's condition from the table: those cells must be there.\n"
      "Example: tweedie impute model.safetensors gaps.csv --draws 5 -o filled.csv");
  a->check_given = [arguments = a.get(), resample, noise] {
    const bool repaint = arguments->method == "repaint";
    check(repaint || resample->count() == 0, "--resample belongs to --method repaint");
    check(!repaint || noise->count() == 0,
          "--noise belongs to --method mmps, pigdm or dps; repaint takes the known cells as they are");
  };
  return {app, [a] { return run_impute(*a); }};
}

}  // namespace tweedie::cli
