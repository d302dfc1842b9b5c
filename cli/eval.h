// eval.h - what tweedie eval measures and how it is told.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tweedie/cli/conditions.h"
#include "tweedie/cli/diagnostics.h"
#include "tweedie/cli/evaluation.h"
#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/cli/tables.h"
#include "tweedie/models/fisher_divergence.h"

namespace tweedie::cli {

struct EvalArguments {
  Common common;
  SamplingArguments sampling;
  ConditionArguments condition;  // rows that are looked at; guidance
  TableArguments table;
  std::string model, data, train, samples, oracle, metrics = "all";
  Index n = 0;
  bool raw_weights = false;
};

/// What was not asked for, or could not be measured (left_out then says why), is absent.
struct Evaluation {
  Index rows = 0, sampled = 0;
  std::int64_t evaluations = 0;  // per sample; 0: the samples came from a file
  std::optional<double> loss;
  std::optional<Distances> ours, training;
  std::optional<Transport> transport, training_transport;
  std::optional<ClassifierTest> classifier;
  std::optional<SteinFit> stein, held_out_stein;
  std::optional<Likelihood> likelihood;
  std::optional<CopyCheck> copies;
  std::optional<FisherDivergence> errors;
  std::vector<std::string> left_out;
  double seconds = 0;
};

std::string eval_json(const EvalArguments& a, const ModelFile& model, const Evaluation& e);
std::string eval_text(const EvalArguments& a, const ModelFile& model, const Evaluation& e);

}  // namespace tweedie::cli
