// logp.cpp - tweedie logp MODEL DATA: each row's log-density in the data's own units, by the probability flow.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <mutex>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/diagnostics.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/core/parallel.h"
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

// One set of rows under one condition.
LogDensity evaluate_group(const Arguments& a, const ModelFile& model, const ModelRows& rows, const RowGroup& group,
                          const SamplingCallback& progress) {
  LogDensityOptions options{.divergence = divergence(a.divergence), .probes = a.probes, .probe = probe(a.probe)};
  options.rtol = a.rtol;
  options.atol = a.atol;
  options.progress = progress;
  // A stream for each condition, by its first row; a model without has the whole stream.
  Rng rng = model.conditions.empty() ? a.common.rng() : Rng(a.common.rng().key(), static_cast<std::uint64_t>(group.rows.front()));
  return log_density(*group.model, take_rows(rows.x, group.rows), options, model.conditions.empty() ? rng : rng.split());
}

// Each row under its own condition. Few conditions: each one's rows on all threads; many: the conditions themselves.
std::vector<LogDensity> evaluate_groups(const Arguments& a, const ModelFile& model, const ModelRows& rows,
                                        const std::vector<RowGroup>& groups) {
  constexpr Index kFew = 64;
  const auto count = static_cast<Index>(groups.size());
  std::vector<LogDensity> found(groups.size());
  Progress bar(a.common.console, "log-density");
  Index arrived = 0;
  if (count <= kFew) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      found[g] = evaluate_group(a, model, rows, groups[g], [&](const SamplingProgress& p) {
        bar.update(arrived + p.done, rows.x.rows());
        return !interrupted();
      });
      arrived += static_cast<Index>(groups[g].rows.size());
    }
    return found;
  }
  std::mutex mutex;
  parallel_for(count, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const auto g = static_cast<std::size_t>(i);
      found[g] = evaluate_group(a, model, rows, groups[g], [](const SamplingProgress&) { return !interrupted(); });
      const std::lock_guard lock(mutex);
      arrived += static_cast<Index>(groups[g].rows.size());
      bar.update(arrived, rows.x.rows());
    }
  });
  return found;
}

LogDensity evaluate(const Arguments& a, const ModelFile& model, const ModelRows& rows) {
  const auto n = static_cast<std::size_t>(rows.x.rows());
  const std::vector<RowGroup> groups = group_rows(model, rows);
  const std::vector<LogDensity> found = evaluate_groups(a, model, rows, groups);
  const std::vector<double> jacobian = model.code.log_jacobian(rows.x);
  LogDensity all;
  all.nats.resize(n);
  all.standard_error.resize(n);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::vector<Index>& members = groups[g].rows;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const auto row = static_cast<std::size_t>(members[i]);
      all.nats[row] = found[g].nats[i] + jacobian[row];
      all.standard_error[row] = found[g].standard_error[i];
    }
    all.evaluations = std::max(all.evaluations, found[g].evaluations);
    all.mean_evaluations += found[g].mean_evaluations * static_cast<double>(members.size()) / static_cast<double>(n);
  }
  return all;
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
  const ModelFile model = load_model(a.model, a.raw_weights);
  warn_of_whole_numbers(common.console, model.code, model.network->sigma_min());
  const ModelRows rows = load_rows(model, a.data, a.table, common.console);
  const Matrix& x = rows.x;
  const LogDensity p = evaluate(a, model, rows);
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
