// information.cpp - tweedie information MODEL DATA: Fisher information across noise levels, entropy, mutual information.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/core/files/json.h"
#include "tweedie/samplers/information.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  TableArguments table;
  std::string model, data;
  std::vector<std::string> parts;  // two model files, of the columns on either side
  Index levels = 8, nodes = 48;
  bool raw_weights = false;
};

struct Level {
  double sigma = 0, fisher = 0, error = 0, mmse = 0;
};

struct Findings {
  Index rows = 0;
  std::vector<Level> levels;
  Information entropy;  // in the data's own units
  std::optional<Information> mutual;
};

ModelFile load_unconditional(const std::string& path, const Arguments& a) {
  ModelFile model = load_model(path, a.raw_weights);
  check(model.network->num_classes() == 0 && model.network->covariate_dim() == 0, path,
        " is conditioned on columns, and information is that of one law; train a model without --class and --target");
  place(model, a.common);
  return model;
}

std::vector<Level> fisher_levels(const Arguments& a, const ScoreModel& model, ConstRows<float> x, Rng& rng) {
  const NoiseLevels levels = NoiseLevels::geometric(model.sigma_max(), model.sigma_min(), a.levels);
  std::vector<Level> found;
  for (Index i = 0; i < levels.size(); ++i) {
    const double sigma = levels[i], square = sigma * sigma;
    const FisherInformation j = fisher_information(model, x, sigma, rng.split());
    found.push_back({sigma, j.value, j.error, static_cast<double>(x.cols()) * square - square * square * j.value});
  }
  return found;
}

// Whether the columns of `part` stand in `whole` from `first` on, scaled alike.
bool stands_at(const TableCode& part, const TableCode& whole, Index first) {
  if (first + part.dim() > whole.dim()) return false;
  for (Index c = 0; c < part.dim(); ++c) {
    const ColumnCode &p = part.columns()[static_cast<std::size_t>(c)], &w = whole.columns()[static_cast<std::size_t>(first + c)];
    if (p.name != w.name || p.mean != w.mean || p.std != w.std || p.values != w.values || p.scores != w.scores) return false;
  }
  return true;
}

Information between(const Arguments& a, const ModelFile& joint, ConstRows<float> x, const Rng& rng) {
  ModelFile first = load_unconditional(a.parts[0], a), second = load_unconditional(a.parts[1], a);
  if (!stands_at(first.code, joint.code, 0)) std::swap(first, second);
  const Index cut = first.code.dim();
  check(cut + second.code.dim() == joint.code.dim() && stands_at(first.code, joint.code, 0) &&
            stands_at(second.code, joint.code, cut),
        "--between: the columns of ", a.parts[0], " and ", a.parts[1], " are not those of ", a.model,
        ", one part after the other and scaled alike; train all three on the same rows: --columns a,b,c for the model, then ",
        "--columns a and --columns b,c for its parts");
  std::vector<Index> columns(static_cast<std::size_t>(joint.code.dim()));
  std::iota(columns.begin(), columns.end(), Index{0});
  const std::span<const Index> all(columns);
  return mutual_information(first.score(), second.score(), joint.score(), MatrixD(x), all.first(static_cast<std::size_t>(cut)),
                            all.subspan(static_cast<std::size_t>(cut)), {.nodes = a.nodes}, rng);
}

Findings find(const Arguments& a, const ModelFile& model) {
  Rng rng = a.common.rng();
  const Matrix x = model.code.encode(load_table(a.data, a.table, a.common.console));
  Findings f;
  f.rows = x.rows();
  f.levels = fisher_levels(a, model.score(), x, rng);
  f.entropy = entropy(model.score(), x, {.nodes = a.nodes}, rng.split());
  const std::vector<double> jacobian = model.code.log_jacobian(x);
  f.entropy.nats -= std::accumulate(jacobian.begin(), jacobian.end(), 0.) / static_cast<double>(jacobian.size());
  if (!a.parts.empty()) f.mutual = between(a, model, x, rng.split());
  return f;
}

void write(JsonWriter& json, const char* key, const Information& information) {
  json.key(key).begin_object().key("nats").value(information.nats).key("standard_error").value(information.standard_error);
  json.key("evaluations").value(information.evaluations).end_object();
}

std::string json_of(const Arguments& a, const Findings& f) {
  JsonWriter json;
  json.begin_object().key("model").value(a.model).key("data").value(a.data).key("rows").value(f.rows);
  json.key("seed").value(a.common.seed).key("levels").begin_array();
  for (const Level& level : f.levels) {
    json.begin_object().key("sigma").value(level.sigma).key("fisher_information").value(level.fisher);
    json.key("standard_error").value(level.error).key("mmse").value(level.mmse).end_object();
  }
  json.end_array();
  write(json, "entropy", f.entropy);
  if (f.mutual) write(json, "mutual_information", *f.mutual);
  json.end_object();
  return json.text() + "\n";
}

std::string text_of(const Arguments& a, const Findings& f) {
  std::string out = join(a.model, " on ", a.data, ": ", f.rows, " rows, seed ", a.common.seed, "\n  ", pad("sigma", 10, true),
                         pad("E|s|^2", 13, true), pad("+-", 11, true), pad("mmse", 13, true), "\n");
  for (const Level& level : f.levels) {
    out += join("  ", pad(number(level.sigma), 10, true), pad(number(level.fisher), 13, true),
                pad(number(level.error, 2), 11, true), pad(number(level.mmse), 13, true), "\n");
  }
  out += join("  sigma in scaled units; mmse = E|x0 - Tweedie(x)|^2 = D sigma^2 - sigma^4 E|s|^2\n  entropy ",
              number(f.entropy.nats, 5), " +- ", number(f.entropy.standard_error, 2), " nats in the data's units, ",
              f.entropy.evaluations, " evaluations a row\n");
  if (f.mutual) {
    out += join("  mutual information of the two parts ", number(f.mutual->nats, 5), " +- ", number(f.mutual->standard_error, 2),
                " nats\n");
  }
  return out;
}

int run_information(const Arguments& a) {
  begin(a.common, join("information of ", a.model));
  const Findings f = find(a, load_unconditional(a.model, a));
  print(a.common.json ? json_of(a, f) : text_of(a, f));
  return 0;
}

}  // namespace

Command information_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("information", "Fisher information, entropy and mutual information by the score");
  app->add_option("model", a->model, "A model file")->required();
  app->add_option("data", a->data, "Rows of the same law, better not those that the model was trained on")->required();
  app->add_option("--between", a->parts,
                  "Two model files, A B, of the first and of the other columns: the mutual information between these parts too")
      ->expected(2)
      ->default_str("");
  app->add_option("--levels", a->levels, "Noise levels of the table, geometric over the model's range")
      ->check(CLI::Range(2, 1000));
  app->add_option("--nodes", a->nodes, "Noise levels of the integrals over ln sigma")->check(CLI::Range(2, 10000));
  app->add_flag("--raw-weights", a->raw_weights, "The last weights as they are, not the averaged or best ones");
  add_table_options(*app, a->table);
  add_common(*app, a->common);
  a->common.devices = true;
  app->footer(
      "De Bruijn: dh / d(sigma^2) = E|s|^2 / 2, integrated over sigma against the Gaussian of the rows' covariance.\n"
      "Example: tweedie information both.safetensors held_out.csv --between left.safetensors right.safetensors");
  return {app, [a] { return run_information(*a); }};
}

}  // namespace tweedie::cli
