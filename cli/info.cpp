// info.cpp - tweedie info MODEL: what a model file holds.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/post_hoc_ema.h"
#include "tweedie/version.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  std::string model;
};

// What begins so is told in a form of its own.
bool told(const std::string& key) {
  for (const char* prefix : {"columns.", "conditions.", "covariates.", "post_hoc."}) {
    if (key.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

void write_conditions(JsonWriter& json, const ConditionCode& conditions) {
  json.key("conditions").begin_object();
  if (conditions.num_classes() > 0) {
    json.key("class").value(conditions.label_column()).key("classes").begin_array();
    for (std::size_t k = 0; k < conditions.classes().size(); ++k) {
      json.begin_object().key("name").value(conditions.classes()[k]).key("rows").value(conditions.counts()[k]).end_object();
    }
    json.end_array();
  }
  json.key("targets").begin_array();
  for (const ColumnCode& column : conditions.covariate_code().columns()) {
    json.begin_object().key("name").value(column.name).key("mean").value(column.mean).key("std").value(column.std);
    json.key("low").value(column.low).key("high").value(column.high).end_object();
  }
  json.end_array().end_object();
}

void print_json(const ModelFile& model) {
  const Checkpoint& file = model.checkpoint;
  JsonWriter json;
  json.begin_object().key("file").value(model.path).key("network").value(model.network->name()).key("config").begin_object();
  for (const auto& [name, value] : model.network->config()) json.key(name).value(value);
  json.end_object().key("parameters").value(model.network->layout().size()).key("step").value(file.step);
  json.key("weights").value(model.weights).key("checksum").value(file.state_dict ? "none" : "ok").key("levels").begin_array();
  if (model.network->levels() != nullptr) {
    for (const double sigma : model.levels->values()) json.value(sigma);
  }
  json.end_array().key("sigma_min").value(model.network->sigma_min()).key("sigma_max").value(model.network->sigma_max());
  json.key("columns").begin_array();
  const bool scaled = file.has("data.mean");
  for (const ColumnCode& column : model.code.columns()) {
    json.begin_object().key("name").value(column.name).key("kind");
    json.value(column.kind == ColumnKind::integer ? "integer" : "continuous")
        .key("mean")
        .value(column.mean)
        .key("std")
        .value(column.std);
    if (scaled) json.key("low").value(column.low).key("high").value(column.high);
    json.end_object();
  }
  json.end_array();
  write_conditions(json, model.conditions);
  json.key("metadata").begin_object();
  for (const auto& [name, value] : file.metadata) json.key(name).value(value);
  json.end_object().key("tensors").begin_object();
  for (const auto& [name, tensor] : file.tensors) {
    json.key(name).begin_array();
    for (const Index extent : tensor.shape) json.value(extent);
    json.end_array();
  }
  json.end_object().key("version").value(TWEEDIE_VERSION).end_object();
  print(json.text() + "\n");
}

std::string line(std::string_view name, const std::string& text) { return join("  ", pad(name, 24), text, "\n"); }

std::string condition_lines(const ConditionCode& conditions) {
  std::string out;
  if (conditions.num_classes() > 0) {
    constexpr std::size_t kShown = 20;
    const std::vector<std::string>& classes = conditions.classes();
    std::string text = conditions.label_column() + ":";
    for (std::size_t k = 0; k < std::min(kShown, classes.size()); ++k) {
      text += join(k == 0 ? " " : ", ", classes[k], " (", conditions.counts()[k], ")");
    }
    out += line("classes (rows)", classes.size() > kShown ? join(text, ", ... ", classes.size(), " in all") : text);
  }
  for (const ColumnCode& column : conditions.covariate_code().columns()) {
    out += line("target", join(column.name, ", from ", number(column.low, 6), " to ", number(column.high, 6)));
  }
  return out;
}

void print_text(const ModelFile& model) {
  const Checkpoint& file = model.checkpoint;
  const NoiseLevels& levels = *model.levels;
  std::string out = model.path + "\n";
  out += line("network", model.network->name());
  for (const auto& [name, value] : model.network->config()) {
    if (name != "network") out += line(name, value);
  }
  out += line("parameters", join(model.network->layout().size()));
  const bool discrete = model.network->levels() != nullptr;
  out += line("noise levels", join(discrete ? join(levels.size()) : std::string("any"), " from ", number(levels.max()), " to ",
                                   number(levels.min())));
  out += line("step", join(file.step));
  out += line("weights", model.weights);
  out += line("checksum", file.state_dict ? "none (a plain state dict)" : "ok");
  out += condition_lines(model.conditions);
  if (PostHocEma::stored_in(file)) {
    const std::string& steps = file.metadata.at("post_hoc.steps");
    out += line("averages put by",
                join("2 at ", 1 + std::count(steps.begin(), steps.end(), ' '), " steps; `tweedie ema` takes one"));
  }
  for (const auto& [name, value] : file.metadata) {
    if (!told(name)) out += line(name, value);
  }
  if (file.has("data.mean")) {
    std::size_t width = 4;
    for (const ColumnCode& column : model.code.columns()) width = std::max(width, column.name.size());
    out += join("\n  ", pad("column", width + 2), pad("kind", 12), pad("mean", 12, true), pad("std", 12, true),
                pad("low", 12, true), pad("high", 12, true), "\n");
    for (const ColumnCode& column : model.code.columns()) {
      out += join("  ", pad(column.name, width + 2), pad(column.kind == ColumnKind::integer ? "integer" : "continuous", 12),
                  pad(number(column.mean, 6), 12, true), pad(number(column.std, 6), 12, true),
                  pad(number(column.low, 6), 12, true), pad(number(column.high, 6), 12, true), "\n");
    }
  } else {
    out += line("columns", join(model.code.dim(), ", not scaled"));
  }
  print(out);
}

int run_info(const Arguments& a) {
  const ModelFile model = load_model(a.model);
  if (a.common.json) {
    print_json(model);
  } else {
    print_text(model);
  }
  return 0;
}

}  // namespace

Command info_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("info", "Show what a model file holds");
  app->add_option("model", a->model, "A model file")->required();
  app->add_flag("--json", a->common.json, "The same as one JSON object");
  app->footer("Example: tweedie info model.safetensors");
  return {app, [a] { return run_info(*a); }};
}

}  // namespace tweedie::cli
