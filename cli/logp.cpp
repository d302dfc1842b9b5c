// logp.cpp - tweedie logp MODEL DATA: each row's log-density in the data's own units, by the probability flow.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/diagnostics.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/samplers/likelihood.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  TableArguments table;
  std::string model, data, output, divergence = "exact", probe = "rademacher";
  Index probes = 8;
  double rtol = 1e-5, atol = 1e-5;
  bool raw_weights = false;
  std::function<void()> check_given;
};

// Percentage of the rows that are less likely than this one: small for anomalies. Equal rows share their middle place.
std::vector<double> percentiles(const std::vector<double>& nats) {
  std::vector<double> sorted = nats, out;
  std::sort(sorted.begin(), sorted.end());
  for (const double v : nats) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), v);
    const double place = .5 * static_cast<double>((low - sorted.begin()) + (high - sorted.begin()));
    out.push_back(100 * place / static_cast<double>(sorted.size()));
  }
  return out;
}

void write_rows(const Arguments& a, const LogDensity& p, Index dim) {
  const std::vector<double> percentile = percentiles(p.nats);
  const std::vector<std::string> header = {"log_density", "standard_error", "bits_per_dim", "percentile"};
  const Index n = static_cast<Index>(p.nats.size());
  MatrixD out(n, 4);
  for (Index r = 0; r < n; ++r) {
    const auto i = static_cast<std::size_t>(r);
    out(r, 0) = p.nats[i];
    out(r, 1) = p.standard_error[i];
    out(r, 2) = -p.nats[i] / (static_cast<double>(dim) * std::log(2.));
    out(r, 3) = percentile[i];
  }
  const std::unique_ptr<RowWriter> writer = open_writer(a.output, header, n, 4);
  writer->append(out);
  writer->close();
}

int run_logp(const Arguments& a) {
  const Common& common = a.common;
  a.check_given();
  if (!a.output.empty()) check_output_name(a.output);
  check(!common.json || a.output.empty() || !is_stdout(a.output),
        "--json and -o - would both write to standard output; name a file with -o");
  catch_signals("\ninterrupted: nothing is written\n");
  begin(common, join("log-density of ", a.data));
  const auto start = std::chrono::steady_clock::now();
  ModelFile model = load_model(a.model, a.raw_weights);
  place(model, common);
  warn_of_whole_numbers(common.console, model.code, model.network->sigma_min());
  const ModelRows rows = load_rows(model, a.data, a.table, common.console);
  const Matrix& x = rows.x;
  LogDensityOptions options{.divergence = divergence(a.divergence), .probes = a.probes, .probe = probe(a.probe)};
  options.rtol = a.rtol;
  options.atol = a.atol;
  const LogDensity p = density_of_rows(model, rows, options, common.rng(), common.console);
  if (!a.output.empty()) write_rows(a, p, x.cols());
  const MeanLogDensity s = mean_log_density(p.nats, x.cols());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (common.json) {
    JsonWriter json;
    json.begin_object().key("model").value(a.model).key("data").value(a.data).key("rows").value(x.rows());
    json.key("mean_log_density").value(s.mean);
    if (x.rows() > 1) json.key("standard_error").value(s.standard_error);
    json.key("bits_per_dim").value(s.bits_per_dim).key("sigma_min").value(model.network->sigma_min());
    json.key("divergence").value(a.divergence).key("evaluations").value(p.evaluations);
    json.key("mean_evaluations").value(p.mean_evaluations).key("weights").value(model.weights);
    json.key("seconds").value(seconds).key("seed").value(common.seed).end_object();
    print(json.text() + "\n");
    return 0;
  }
  const std::string line =
      join(a.data, ": ", x.rows(), " rows, mean log-density ", number(s.mean, 5),
           x.rows() > 1 ? join(" +- ", number(s.standard_error, 2)) : std::string(), " nats in the data's units (",
           number(s.bits_per_dim, 4), " bits/dim) at sigma = ", number(model.network->sigma_min()), ", ",
           number(p.mean_evaluations, 3), " evaluations a row, ", duration(seconds), ", seed ", common.seed);
  if (!a.output.empty() && is_stdout(a.output)) {
    common.console.note(line);
  } else {
    print(line + "\n");
  }
  return 0;
}

}  // namespace

Command logp_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("logp", "Log-density of each row, in nats and the data's own units");
  app->add_option("model", a->model, "A model file of the same columns")->required();
  app->add_option("data", a->data, "Rows to be scored")->required();
  app->add_option(
         "-o,--output", a->output,
         "Per row: log_density, standard_error (of hutchinson), bits_per_dim, percentile (small: anomalous); .csv, .npy or .npz, "
         "- is csv on standard output (default: the summary alone)")
      ->default_str("");
  choose_from(app->add_option("--divergence", a->divergence, "exact (the trace, D derivatives) | hutchinson (random probes)"),
              "divergence", {"exact", "hutchinson"});
  CLI::Option* probes = app->add_option("--probes", a->probes, "hutchinson: probes a row")->check(CLI::Range(1, 1000000));
  CLI::Option* kind = app->add_option("--probe", a->probe, "hutchinson: rademacher | gaussian");
  choose_from(kind, "probe", {"rademacher", "gaussian"});
  app->add_option("--rtol", a->rtol, "Relative tolerance")->check(CLI::PositiveNumber);
  app->add_option("--atol", a->atol, "Absolute tolerance")->check(CLI::PositiveNumber);
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  add_table_options(*app, a->table);
  a->common.devices = true;
  add_common(*app, a->common);
  app->footer(
      "The density is that of the data noised to the model's smallest sigma; the flow ends in N(0, sigma_max^2), so train with "
      "a\n"
      "--sigma-max well above the data's width (10 or more for scaled columns).\n"
      "A model trained with --class or --target gives log p(row | condition), the condition from the table's own columns.\n"
      "Example: tweedie logp model.safetensors rows.csv -o scores.csv");
  a->check_given = [arguments = a.get(), probes, kind] {
    check(arguments->divergence == "hutchinson" || (probes->count() == 0 && kind->count() == 0),
          "--probes and --probe belong to --divergence hutchinson");
  };
  return {app, [a] { return run_logp(*a); }};
}

}  // namespace tweedie::cli
