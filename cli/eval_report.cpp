// eval_report.cpp - an evaluation as JSON and as tables.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/cli/eval.h"
#include "tweedie/core/files/json.h"

namespace tweedie::cli {

namespace {

void write_distances(JsonWriter& json, const Distances& d) {
  json.begin_object().key("energy_distance").value(d.energy).key("sliced_wasserstein").value(d.sliced_wasserstein);
  json.key("mmd_squared").value(d.mmd_squared).key("kolmogorov_smirnov").begin_array();
  for (const double statistic : d.ks) json.value(statistic);
  json.end_array().end_object();
}

void write_transport(JsonWriter& json, const Evaluation& e) {
  json.key("wasserstein_2").begin_object().key("value").value(e.transport->distance).key("rows").value(e.transport->rows);
  if (e.training_transport) {
    json.key("train").value(e.training_transport->distance).key("train_rows").value(e.training_transport->rows);
  }
  json.end_object();
}

void write_stein(JsonWriter& json, double sigma, const Evaluation& e) {
  json.key("stein").begin_object().key("sigma").value(sigma).key("rows").value(e.stein->rows);
  json.key("samples").value(e.stein->discrepancy).key("samples_p_value").value(e.stein->p_value);
  json.key("held_out").value(e.held_out_stein->discrepancy).key("held_out_p_value").value(e.held_out_stein->p_value);
  json.end_object();
}

void write_likelihood(JsonWriter& json, double sigma, const Likelihood& l) {
  json.key("likelihood").begin_object().key("mean_log_density").value(l.density.mean);
  if (std::isfinite(l.density.standard_error)) json.key("standard_error").value(l.density.standard_error);
  json.key("median")
      .value(l.median)
      .key("bits_per_dim")
      .value(l.density.bits_per_dim)
      .key("rows")
      .value(l.rows)
      .key("sigma_min")
      .value(sigma);
  json.key("divergence").value(to_string(l.divergence)).key("evaluations").value(l.evaluations).end_object();
}

void write_conditions(JsonWriter& json, const EvalArguments& a, const ConditionCode& c) {
  json.key("conditions").begin_object();
  if (c.num_classes() > 0) json.key("class").value(c.label_column()).key("classes").value(c.num_classes());
  if (!a.condition.value.empty()) json.key("only_class").value(a.condition.value);
  json.key("targets").begin_array();
  for (const ColumnCode& column : c.covariate_code().columns()) json.value(column.name);
  json.end_array();
  if (!a.condition.given.empty()) json.key("only_given").value(a.condition.given);
  if (a.samples.empty()) json.key("guidance").value(a.condition.guidance);
  json.end_object();
}

void write_errors(JsonWriter& json, const FisherDivergence& errors) {
  json.key("score_error").begin_object().key("mean").value(errors.mean_error);
  json.key("mean_standard_error").value(errors.mean_standard_error).key("zero_network").value(errors.mean_zero_error);
  json.key("levels").begin_array();
  for (const LevelError& level : errors.levels) {
    json.begin_object().key("sigma").value(level.sigma).key("error").value(level.error);
    json.key("standard_error").value(level.standard_error).key("relative").value(level.relative);
    json.key("zero_network").value(level.zero_error).end_object();
  }
  json.end_array().end_object();
}

std::string row(std::string_view name, double ours, std::optional<double> training) {
  return join("  ", pad(name, 28), pad(number(ours), 12, true), training ? pad(number(*training), 14, true) : std::string(),
              training && *training > 0 ? pad(number(ours / *training, 3), 9, true) : std::string(), "\n");
}

std::string distance_rows(const ModelFile& model, const Evaluation& e) {
  const auto of_training = [&](auto part) { return e.training ? std::optional<double>(part(*e.training)) : std::nullopt; };
  std::string out = row("energy distance", e.ours->energy, of_training([](const Distances& d) { return d.energy; }));
  out += row("sliced Wasserstein-1", e.ours->sliced_wasserstein,
             of_training([](const Distances& d) { return d.sliced_wasserstein; }));
  out += row("MMD^2", e.ours->mmd_squared, of_training([](const Distances& d) { return d.mmd_squared; }));
  const std::size_t shown = std::min<std::size_t>(e.ours->ks.size(), 20);
  for (std::size_t c = 0; c < shown; ++c) {
    out += row(join("KS of ", model.code.columns()[c].name), e.ours->ks[c],
               of_training([c](const Distances& d) { return d.ks[c]; }));
  }
  if (shown < e.ours->ks.size()) out += join("  (", e.ours->ks.size() - shown, " more columns: --json)\n");
  return out;
}

std::string distance_table(const ModelFile& model, const Evaluation& e) {
  const bool beside = e.training || e.training_transport;
  std::string out = join("  ", pad("distance to held-out rows", 28), pad("samples", 12, true),
                         beside ? pad("training rows", 14, true) + pad("ratio", 9, true) : std::string(), "\n");
  if (e.ours) out += distance_rows(model, e);
  if (e.transport) {
    std::string of = join(e.transport->rows);
    if (e.training_transport && e.training_transport->rows != e.transport->rows) of += join(", ", e.training_transport->rows);
    out += row(join("Wasserstein-2 of ", of, " rows"), e.transport->distance,
               e.training_transport ? std::optional<double>(e.training_transport->distance) : std::nullopt);
  }
  return out + "\n";
}

std::string classifier_lines(const ClassifierTest& c, Index dim) {
  std::string out = join("  C2ST accuracy ", number(c.accuracy, 3), " +- ", number(c.standard_error, 2), " (", c.rows,
                         " samples and ", c.rows, " held-out rows; .5: a classifier cannot tell them apart, 1: it always can)\n");
  if (c.columns < dim) out += join("    without ", dim - c.columns, " columns that do not vary among the held-out rows\n");
  return out;
}

std::string stein_lines(double sigma, const Evaluation& e) {
  const auto cell = [](const SteinFit& s) { return join(number(s.discrepancy, 3), " (p = ", number(s.p_value, 2), ")"); };
  return join("  kernel Stein discrepancy^2 under the model's score at sigma = ", number(sigma), ": samples ", cell(*e.stein),
              ", held-out rows ", cell(*e.held_out_stein), "; ", e.stein->rows,
              " of each,\n    noise of that sigma added (0 on average for rows that follow the model's score, a small p where "
              "they do not; blind to the weights of far modes)\n");
}

std::string likelihood_lines(double sigma, const Likelihood& l) {
  return join("  log-density of held-out rows ", number(l.density.mean, 5),
              std::isfinite(l.density.standard_error) ? join(" +- ", number(l.density.standard_error, 2)) : std::string(),
              " nats in the data's units (", number(l.density.bits_per_dim, 4), " bits/dim; median ", number(l.median, 5),
              " nats) at sigma = ", number(sigma), "; ", l.rows, " rows, ",
              l.divergence == Divergence::exact ? "exact trace" : "Hutchinson's trace", "\n");
}

// "  conditional on kind (2 classes) and dose, ..."
std::string condition_lines(const EvalArguments& a, const ConditionCode& c) {
  std::vector<std::string> targets;
  for (const ColumnCode& column : c.covariate_code().columns()) targets.push_back(column.name);
  std::string out = "  conditional on ";
  if (c.num_classes() > 0) out += join(c.label_column(), " (", c.num_classes(), " classes)", targets.empty() ? "" : " and ");
  if (!targets.empty())
    out += join(listed(targets), targets.size() > 1 ? join(" (", targets.size(), " columns)") : std::string());
  out += ": each row under its own condition";
  if (!a.condition.value.empty()) out += join(", rows of class ", a.condition.value, " alone");
  if (!a.condition.given.empty()) out += join(", rows with ", a.condition.given, " alone");
  if (a.samples.empty()) {
    out += "; samples drawn for the held-out rows' conditions";
    if (a.condition.guidance != 1) out += join(", guidance ", number(a.condition.guidance));
  }
  return out + "\n\n";
}

std::string copy_lines(const CopyCheck& c) {
  return join("\n  nearest training row: median distance of samples / of held-out rows ", number(c.closest, 3),
              "  (1: no copying, 0: copies)\n  nearest rows of equal numbers: training / held-out ", number(c.ratio, 3),
              "\n  equal to a training row: ", number(100 * c.identical, 3), " % of samples, ",
              number(100 * c.identical_held_out, 3), " % of held-out rows\n");
}

std::string error_table(const FisherDivergence& errors, const std::string& oracle) {
  std::string out =
      join("\n  score error against ", oracle, " per noise level\n  ", pad("sigma", 12, true), pad("error", 14, true),
           pad("+-", 12, true), pad("relative", 12, true), pad("zero network", 14, true), "\n");
  for (const LevelError& level : errors.levels) {
    out += join("  ", pad(number(level.sigma), 12, true), pad(number(level.error), 14, true),
                pad(number(level.standard_error, 2), 12, true), pad(number(level.relative), 12, true),
                pad(number(level.zero_error), 14, true), "\n");
  }
  return out + join("  ", pad("mean", 12, true), pad(number(errors.mean_error), 14, true),
                    pad(number(errors.mean_standard_error, 2), 12, true), pad("", 12),
                    pad(number(errors.mean_zero_error), 14, true),
                    "\n  error = E sigma^2 |s - s*|^2 / D, relative = E|s - s*|^2 / E|s*|^2 (the zero network has 1)\n");
}

}  // namespace

std::string eval_json(const EvalArguments& a, const ModelFile& model, const Evaluation& e) {
  const double sigma = model.network->sigma_min();
  JsonWriter json;
  json.begin_object().key("model").value(a.model).key("data").value(a.data).key("weights").value(model.weights);
  json.key("seed").value(a.common.seed).key("rows").value(e.rows).key("samples").value(e.sampled);
  json.key("evaluations").value(e.evaluations).key("columns").begin_array();
  for (const ColumnCode& column : model.code.columns()) json.value(column.name);
  json.end_array();
  if (!model.conditions.empty()) write_conditions(json, a, model.conditions);
  if (e.loss) json.key("denoising_loss").value(*e.loss);
  if (e.ours) write_distances(json.key("model_to_data"), *e.ours);
  if (e.training) {
    write_distances(json.key("train_to_data"), *e.training);
    json.key("energy_ratio").value(e.ours->energy / e.training->energy);
  }
  if (e.transport) write_transport(json, e);
  if (e.classifier) {
    json.key("c2st").begin_object().key("accuracy").value(e.classifier->accuracy);
    json.key("standard_error").value(e.classifier->standard_error).key("rows").value(e.classifier->rows);
    json.key("columns").value(e.classifier->columns).end_object();
  }
  if (e.stein) write_stein(json, sigma, e);
  if (e.likelihood) write_likelihood(json, sigma, *e.likelihood);
  if (e.copies) {
    json.key("copies").begin_object().key("closest_row_ratio").value(e.copies->closest);
    json.key("nearest_neighbour_ratio").value(e.copies->ratio).key("identical").value(e.copies->identical);
    json.key("identical_held_out").value(e.copies->identical_held_out).key("warning").value(e.copies->copied()).end_object();
  }
  if (e.errors) write_errors(json, *e.errors);
  json.key("left_out").begin_array();
  for (const std::string& reason : e.left_out) json.value(reason);
  json.end_array().key("seconds").value(e.seconds).end_object();
  return json.text() + "\n";
}

std::string eval_text(const EvalArguments& a, const ModelFile& model, const Evaluation& e) {
  const double sigma = model.network->sigma_min();
  std::string out = join(a.model, " (", model.weights, " weights) on ", a.data, ": ", e.rows, " rows, ", e.sampled, " samples");
  if (e.evaluations > 0) out += join(", ", e.evaluations, " evaluations a row");
  out += join(", seed ", a.common.seed, ", ", duration(e.seconds),
              "\n  in scaled units (a column's deviation in the training table is 1) unless said otherwise\n",
              model.conditions.empty() ? "\n" : "");
  if (!model.conditions.empty()) out += condition_lines(a, model.conditions);
  if (e.ours || e.transport) out += distance_table(model, e);
  if (e.classifier) out += classifier_lines(*e.classifier, model.code.dim());
  if (e.stein) out += stein_lines(sigma, e);
  if (e.likelihood) out += likelihood_lines(sigma, *e.likelihood);
  if (e.loss) out += join("  denoising loss of held-out rows ", number(*e.loss), "\n");
  for (const std::string& reason : e.left_out) out += join("  left out: ", reason, "\n");
  if (e.copies) out += copy_lines(*e.copies);
  if (e.errors) out += error_table(*e.errors, a.oracle);
  return out;
}

}  // namespace tweedie::cli
