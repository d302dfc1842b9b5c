// sample.cpp - tweedie sample MODEL: new rows with the names, order and types of the table that the model was trained on.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/core/files/npy.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  SamplingArguments sampling;
  ConditionArguments condition;
  std::string model, output = "-", trajectory;
  Index n = 1000, save_every = 10, trajectory_rows = 100;
  bool raw_weights = false;
  std::vector<CLI::Option*> trajectory_options;
};

// All states as rows step, row, columns...; or as an array (T, rows, D).
void write_trajectory(const std::string& path, const ModelFile& model, const Drawn& drawn) {
  const Index frames = static_cast<Index>(drawn.trajectory.size());
  const Index rows = drawn.trajectory.front().rows(), cols = model.code.dim();
  if (ends_with(path, ".npy")) {
    MatrixD all(frames * rows, cols);
    for (Index t = 0; t < frames; ++t) {
      const MatrixD frame = model.code.decode(drawn.trajectory[static_cast<std::size_t>(t)]);
      std::copy_n(frame.data(), frame.size(), all.row(t * rows).data());
    }
    const Index shape[] = {frames, rows, cols};
    write_npy(path, all, shape);
    return;
  }
  std::vector<std::string> names = {"step", "row"};
  for (const ColumnCode& column : model.code.columns()) names.push_back(column.name);
  CsvWriter writer(path, names);
  for (Index t = 0; t < frames; ++t) {
    const MatrixD frame = model.code.decode(drawn.trajectory[static_cast<std::size_t>(t)]);
    MatrixD block(rows, cols + 2);
    for (Index r = 0; r < rows; ++r) {
      block(r, 0) = static_cast<double>(drawn.trajectory_steps[static_cast<std::size_t>(t)]);
      block(r, 1) = static_cast<double>(r);
      std::copy_n(frame.row(r).data(), cols, block.row(r).data() + 2);
    }
    writer.append(block);
  }
  writer.close();
}

int run_sample(const Arguments& a) {
  const Common& common = a.common;
  check_output_name(a.output);
  const bool wants_paths = !a.trajectory.empty();
  check(!common.json || !is_stdout(a.output), "--json and -o - would both write to standard output; name a file with -o");
  check(!wants_paths || ends_with(a.trajectory, ".csv") || ends_with(a.trajectory, ".npy"), "--trajectory '", a.trajectory,
        "' must be named .csv or .npy");
  for (const CLI::Option* option : a.trajectory_options) {
    check(wants_paths || option->count() == 0, option->get_name(), " needs --trajectory FILE");
  }
  catch_signals("\ninterrupted: nothing is written\n");
  begin(common, join("sampling ", a.n, a.n == 1 ? " row from " : " rows from ", a.model), true);
  const auto start = std::chrono::steady_clock::now();
  ModelFile model = load_model(a.model, a.raw_weights);
  place(model, common);
  const bool conditional = !model.conditions.empty();
  check_holds_classes(model, a.output);
  const std::vector<double> given = asked_condition(model, a.condition).values;
  const std::unique_ptr<RowWriter> writer = open_writer(a.output, full_header(model), a.n, full_width(model));
  const TrajectoryRequest request = wants_paths ? TrajectoryRequest{a.save_every, a.trajectory_rows} : TrajectoryRequest{};
  const Drawn drawn = draw(model, a.condition, a.n, a.sampling, request, common.rng(), common.console,
                           [&](ConstRows<float> rows, std::span<const std::int32_t> labels) {
                             const MatrixD values = model.code.decode(rows);
                             if (conditional) {
                               writer->append(full_table(model, values, labels, given));
                             } else {
                               writer->append(values);
                             }
                           });
  if (wants_paths) write_trajectory(a.trajectory, model, drawn);
  writer->close();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (common.json) {
    JsonWriter json;
    json.begin_object().key("file").value(a.output).key("rows").value(a.n).key("columns").value(full_width(model));
    json.key("sampler").value(drawn.sampler).key("weights").value(model.weights).key("evaluations").value(drawn.evaluations);
    if (wants_paths) json.key("trajectory").value(a.trajectory).key("frames").value(drawn.trajectory.size());
    json.key("precision").value(common.precision).key("seconds").value(seconds).key("seed").value(common.seed).end_object();
    print(json.text() + "\n");
    return 0;
  }
  const std::string line = join(a.output, ": ", size_text(a.n, full_width(model)), ", ", drawn.sampler, " sampler, ",
                                drawn.evaluations, " evaluations a row, ", common.precision, ", ", model.weights, " weights, ",
                                duration(seconds), ", seed ", common.seed);
  if (is_stdout(a.output)) {
    common.console.note(line);
  } else {
    print(line + "\n");
  }
  return 0;
}

}  // namespace

Command sample_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("sample", "Draw new rows from a model");
  app->add_option("model", a->model, "A model file that `tweedie train` wrote")->required();
  app->add_option("-n,--num-samples", a->n, "Rows")->check(CLI::Range(Index{1}, Index{1} << 40));
  app->add_option("-o,--output", a->output, "File: .csv, .npy or .npz (all in memory); - is csv on standard output");
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  add_sampling_options(*app, a->sampling);
  add_condition_options(*app, a->condition);
  const char* group = "Trajectories";
  app->add_option("--trajectory", a->trajectory,
                  "The path of the first rows: .csv (step, row, columns) or .npy (steps, rows, columns)")
      ->group(group)
      ->default_str("");
  a->trajectory_options = {
      app->add_option("--save-every", a->save_every, "Steps between its states")->check(CLI::Range(Index{1}, Index{1} << 40)),
      app->add_option("--trajectory-rows", a->trajectory_rows, "Rows in it")->check(CLI::Range(Index{1}, kBlockRows))};
  for (CLI::Option* option : a->trajectory_options) option->group(group);
  a->common.devices = true;
  add_common(*app, a->common);
  app->footer(
      "The first k rows are the same for every n >= k.\n"
      "Examples:\n"
      "  tweedie sample model.safetensors -n 1000 -o new.csv\n"
      "  tweedie sample flowers.safetensors --class virginica --guidance 2 -n 50 -o virginica.csv\n"
      "  tweedie sample model.safetensors -n 20 | column -s, -t\n"
      "  tweedie sample model.safetensors --sampler langevin --sigma .1 --num-steps 5000 -o langevin.npy");
  return {app, [a] { return run_sample(*a); }};
}

}  // namespace tweedie::cli
