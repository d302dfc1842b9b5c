// data.cpp - tweedie data NAME: a built-in distribution as a table.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>

#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/datasets.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  std::string name;
  Index n = 300;
  std::string output = "-";
};

// The float's shortest decimal as a double, so that a file shows what a float holds and no more.
MatrixD shortest(ConstRows<float> rows) {
  MatrixD out(rows.rows(), rows.cols());
  for (Index r = 0; r < rows.rows(); ++r) {
    for (Index c = 0; c < rows.cols(); ++c) {
      char text[32];
      const char* end = std::to_chars(text, text + sizeof text, rows(r, c)).ptr;
      std::from_chars(text, end, out(r, c));
    }
  }
  return out;
}

int run_data(const Arguments& a) {
  const Common& common = a.common;
  check_output_name(a.output);
  check(!common.json || !is_stdout(a.output), "--json and -o - would both write to standard output; name a file with -o");
  begin(common, join("drawing ", a.n, " rows of ", a.name));
  const Matrix x = datasets::make(a.name, a.n, common.rng());
  const std::unique_ptr<RowWriter> writer = open_writer(a.output, {"x1", "x2"}, x.rows(), x.cols());
  writer->append(shortest(x));
  writer->close();
  if (common.json) {
    JsonWriter json;
    json.begin_object().key("distribution").value(a.name).key("rows").value(x.rows()).key("columns").value(x.cols());
    json.key("seed").value(common.seed).key("file").value(a.output).end_object();
    print(json.text() + "\n");
  } else if (!is_stdout(a.output)) {
    print(join(a.output, ": ", size_text(x.rows(), x.cols()), " of ", a.name, ", seed ", common.seed, "\n"));
  }
  return 0;
}

}  // namespace

Command data_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("data", "Write rows of a built-in distribution");
  CLI::Option* name = app->add_option("name", a->name, "One of: " + listed(datasets::names()))->required();
  std::vector<std::string> names = datasets::names();
  names.insert(names.end(), {"tutorial", "two_moons"});
  choose_from(name, "distribution", names);
  app->add_option("-n,--num-samples", a->n, "Rows")->check(CLI::Range(Index{1}, Index{1} << 40));
  app->add_option("-o,--output", a->output, "File: .csv, .npy or .npz; - is csv on standard output");
  add_common(*app, a->common);
  app->footer("Example: tweedie data three_gaussians -n 300 --seed 42 -o mixture.csv");
  return {app, [a] { return run_data(*a); }};
}

}  // namespace tweedie::cli
