// ema.cpp - tweedie ema MODEL --sigma-rel W -o OUT: the model with the weights' average of another length, after training.
// SPDX-License-Identifier: MIT
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/core/files/json.h"
#include "tweedie/models/post_hoc_ema.h"

namespace tweedie::cli {

namespace {

struct Arguments {
  Common common;
  std::string model, output;
  double sigma_rel = .1;
};

bool starts_with(const std::string& text, std::initializer_list<const char*> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const char* p) { return text.starts_with(p); });
}

// The network alone with what its table needs: neither the optimiser's state nor the averages it was made from.
Checkpoint model_with(const Checkpoint& trained, const Network& network) {
  Checkpoint file = make_checkpoint(network);
  for (const auto& [name, tensor] : trained.tensors) {
    if (starts_with(name, {"data.", "conditions.", "covariates."})) file.tensors.emplace(name, tensor);
  }
  for (const auto& [key, value] : trained.metadata) {
    if (!starts_with(key, {"best.", "post_hoc."})) file.metadata.emplace(key, value);
  }
  file.step = trained.step;
  return file;
}

int run_ema(const Arguments& a) {
  const Checkpoint trained = read_checkpoint(a.model);
  check(PostHocEma::stored_in(trained), a.model,
        " holds no averages to choose from; train it with --ema-snapshots 16 (or more for a closer fit)");
  PostHocEma::Reconstruction average;
  Checkpoint file;
  try {
    const std::unique_ptr<Network> network = make_network(trained, Weights::raw);
    average = PostHocEma::load(trained, network->layout()).reconstruct(a.sigma_rel);
    std::copy(average.parameters.begin(), average.parameters.end(), network->parameters().begin());
    network->parameters_changed();
    file = model_with(trained, *network);
  } catch (const ModelFileError& error) {
    fail<ModelFileError>(a.model, ": ", error.what());
  }
  file.metadata["ema.sigma_rel"] = join(a.sigma_rel);
  file.metadata["ema.profile_error"] = join(average.error);
  write_checkpoint(a.output, file);
  if (average.error > .1) {
    a.common.console.warn(join("the profile is ", number(100 * average.error, 2), " % off the one asked for; a run with more ",
                               "--ema-snapshots, or a --sigma-rel nearer to .05 to .1, comes closer"));
  }
  if (a.common.json) {
    JsonWriter json;
    json.begin_object().key("file").value(a.output).key("model").value(a.model).key("sigma_rel").value(a.sigma_rel);
    json.key("step").value(file.step).key("profile_error").value(average.error).end_object();
    print(json.text() + "\n");
  } else {
    print(join(a.output, ": the weights' average of sigma_rel ", a.sigma_rel, " over ", file.step, " steps, its profile ",
               number(100 * average.error, 2), " % off\n"));
  }
  return 0;
}

}  // namespace

Command ema_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand("ema", "Choose the length of the weights' average after training");
  app->add_option("model", a->model, "A model file that `tweedie train --ema-snapshots K` wrote")->required();
  app->add_option("-o,--output", a->output, "The model file with that average for its weights")->required();
  app->add_option("--sigma-rel", a->sigma_rel,
                  "Width of the average's profile over the length of the run: .05 to .2 are usual, .2887 is the plain mean")
      ->check(CLI::PositiveNumber);
  app->add_flag("--json", a->common.json, "The result as one JSON object on standard output");
  app->footer(
      "The best length differs from run to run (Karras et al. 2024): compare some by `tweedie eval`.\n"
      "Example: tweedie train t.csv --ema-snapshots 16 -o m.safetensors && tweedie ema m.safetensors --sigma-rel .13 -o "
      "m13.safetensors");
  return {app, [a] { return run_ema(*a); }};
}

}  // namespace tweedie::cli
