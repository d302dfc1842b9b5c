// demo_report.cpp - the demo's table and its summary.json.
// SPDX-License-Identifier: MIT
#include <cstdio>

#include "tweedie/cli/demo.h"
#include "tweedie/core/files/json.h"

namespace tweedie::cli {

namespace {

// The largest noise level at which the network stands nearer to its data's own score than to the truth: from there downwards it
// reproduces the points rather than the distribution. 0 where there is none.
double memorised_below(const Demo& demo) {
  const std::vector<LevelError>&truth = demo.networks[1].to_truth.levels, &own = demo.points_to_empirical.levels;
  double sigma = 0;
  for (std::size_t l = truth.size(); l-- > 0 && own[l].error < truth[l].error;) sigma = truth[l].sigma;
  return sigma;
}

std::string error_rows(const Demo& demo) {
  std::string out =
      join("Score error E sigma^2|s - s*|^2 / D per noise level (relative to E|s*|^2 in brackets; the zero network has 1)\n  ",
           pad("sigma", 9, true), pad("zero network", 14, true), pad("fresh draws", 20, true), pad("300 points", 20, true),
           pad("300 points to their own score", 32, true), pad("EDM, fresh draws", 20, true), "\n");
  const auto cell = [](const LevelError& e) { return join(number(e.error, 2), " (", number(e.relative, 2), ")"); };
  const std::vector<LevelError>&fresh = demo.networks[0].to_truth.levels, &points = demo.networks[1].to_truth.levels;
  const std::vector<LevelError>&own = demo.points_to_empirical.levels, &edm = demo.networks[2].to_truth.levels;
  for (std::size_t l = 0; l < fresh.size(); l += 3) {
    out += join("  ", pad(number(fresh[l].sigma, 3), 9, true), pad(number(fresh[l].zero_error, 3), 14, true),
                pad(cell(fresh[l]), 20, true), pad(cell(points[l]), 20, true), pad(cell(own[l]), 32, true),
                pad(cell(edm[l]), 20, true), "\n");
  }
  return out + join("  ", pad("mean", 9, true), pad(number(demo.networks[0].to_truth.mean_zero_error, 3), 14, true),
                    pad(number(demo.networks[0].to_truth.mean_error, 2), 20, true),
                    pad(number(demo.networks[1].to_truth.mean_error, 2), 20, true),
                    pad(number(demo.points_to_empirical.mean_error, 2), 32, true),
                    pad(number(demo.networks[2].to_truth.mean_error, 2), 20, true), "\n");
}

std::string sample_rows(const Demo& demo) {
  std::string out = join("Samples (", demo.samples[0].x.rows(), " each)\n  ", pad("", 42), pad("mode weights", 20),
                         pad("mean", 18), pad("energy distance", 17, true), pad("evaluations", 13, true), "\n");
  out += join("  ", pad("truth", 42), pad("0.333 0.333 0.333", 20), pad("(0, 0)", 18),
              pad(join("< ", number(demo.samples[0].null_99, 3)), 17, true), pad("", 13), " (99 % of true samples)\n");
  for (const DemoSamples& s : demo.samples) {
    std::string weights;
    for (const double w : s.weights) {
      char text[16];
      std::snprintf(text, sizeof text, "%.3f ", w);
      weights += text;
    }
    char mean[40];
    std::snprintf(mean, sizeof mean, "(%.2f, %.2f)", s.mean[0], s.mean[1]);
    out += join("  ", pad(s.name, 42), pad(weights, 20), pad(mean, 18), pad(number(s.energy, 3), 17, true),
                pad(join(s.evaluations), 13, true), s.energy > s.null_99 ? "  differs" : "", "\n");
  }
  return out;
}

std::string sampler_rows(const Demo& demo) {
  std::string out = join(
      "Every sampler, from the exact score (its own error) and from the EDM network: energy distance to true samples, seconds\n "
      " ",
      pad("", 42), pad("evaluations", 13, true), pad("exact score", 14, true), pad("time", 9, true), pad("network", 14, true),
      pad("time", 9, true), "\n");
  const auto distance = [](const DemoSamples& s) { return number(s.energy, 3) + (s.energy > s.null_99 ? "*" : " "); };
  for (const DemoSampler& s : demo.samplers) {
    std::string evaluations = join(s.exact.evaluations);
    if (s.network && s.network->evaluations != s.exact.evaluations) evaluations += join(", ", s.network->evaluations);
    out += join("  ", pad(s.name, 42), pad(evaluations, 13, true), pad(distance(s.exact), 14, true),
                pad(number(s.exact.seconds, 2), 9, true));
    out += s.network ? join(pad(distance(*s.network), 14, true), pad(number(s.network->seconds, 2), 9, true), "\n")
                     : std::string("    needs a density, which the network has not\n");
  }
  return out + join("  * above ", number(demo.samples[0].null_99, 3), ", which 99 % of true samples stay below\n");
}

std::string density_rows(const DensityGap& d) {
  return join("Log-density of ", d.rows, " true draws: exact ", number(d.exact, 4), ", EDM network ", number(d.network, 4),
              " nats on average; KL(truth || network) = ", number(d.kl, 2), " +- ", number(d.standard_error, 2), " nats\n");
}

void write_errors(JsonWriter& json, const FisherDivergence& errors) {
  json.begin_object()
      .key("mean")
      .value(errors.mean_error)
      .key("mean_zero_network")
      .value(errors.mean_zero_error)
      .key("levels")
      .begin_array();
  for (const LevelError& level : errors.levels) {
    json.begin_object()
        .key("sigma")
        .value(level.sigma)
        .key("error")
        .value(level.error)
        .key("standard_error")
        .value(level.standard_error);
    json.key("relative").value(level.relative).key("zero_network").value(level.zero_error).end_object();
  }
  json.end_array().end_object();
}

void write_samples(JsonWriter& json, const DemoSamples& s) {
  json.begin_object().key("rows").value(s.x.rows()).key("mode_weights").begin_array();
  for (const double w : s.weights) json.value(w);
  json.end_array().key("mean").begin_array().value(s.mean[0]).value(s.mean[1]).end_array();
  json.key("energy_distance").value(s.energy).key("null_99").value(s.null_99).key("evaluations").value(s.evaluations);
  json.key("seconds").value(s.seconds).end_object();
}

void write_copies(JsonWriter& json, const CopyCheck& c) {
  json.begin_object().key("closest_row_ratio").value(c.closest).key("nearest_neighbour_ratio").value(c.ratio).end_object();
}

void write_samplers(JsonWriter& json, const std::vector<DemoSampler>& samplers) {
  json.key("samplers").begin_object();
  for (const DemoSampler& s : samplers) {
    json.key(s.key).begin_object().key("name").value(s.name);
    write_samples(json.key("exact"), s.exact);
    if (s.network) write_samples(json.key("network"), *s.network);
    json.end_object();
  }
  json.end_object();
}

void write_density(JsonWriter& json, const DensityGap& d) {
  json.key("log_density").begin_object().key("rows").value(d.rows).key("exact").value(d.exact).key("network").value(d.network);
  json.key("kl").value(d.kl).key("standard_error").value(d.standard_error).end_object();
}

}  // namespace

std::string demo_summary(const Demo& demo, double seconds) {
  std::string out =
      "\n" + error_rows(demo) + "\n" + sample_rows(demo) + "\n" + sampler_rows(demo) + "\n" + density_rows(demo.density);
  const double sigma = memorised_below(demo);
  out += join("\nMemorisation: the network of the 300 points ",
              sigma > 0 ? join("is nearer to those points' own score than to the true one at sigma <= ", number(sigma, 2),
                               ": below that noise it has begun to learn the points by heart.\n")
                        : std::string("is nowhere nearer to those points' own score than to the true one.\n"));
  out += join("  distance to the nearest of the 300 points, samples / new true points: ", number(demo.point_copies.closest, 3),
              " (network of fresh draws: ", number(demo.fresh_copies.closest, 3), "; 1: no copies)\n");
  return out + join("\n", duration(seconds), " in all\n");
}

std::string demo_json(const DemoArguments& a, const Demo& demo, const std::vector<std::string>& files, double seconds) {
  JsonWriter json;
  json.begin_object().key("seed").value(a.common.seed).key("folder").value(a.folder).key("steps").value(a.steps);
  json.key("precision").value(a.common.precision);
  json.key("mode_weights").begin_array();
  for (const double w : demo.truth.weights()) json.value(w);
  json.end_array().key("score_error").begin_object();
  write_errors(json.key("fresh_draws"), demo.networks[0].to_truth);
  write_errors(json.key("points"), demo.networks[1].to_truth);
  write_errors(json.key("points_to_their_own_score"), demo.points_to_empirical);
  write_errors(json.key("own_score_to_truth"), demo.empirical_to_truth);
  write_errors(json.key("edm"), demo.networks[2].to_truth);
  json.end_object().key("memorised_below_sigma").value(memorised_below(demo)).key("samples").begin_object();
  for (const DemoSamples& s : demo.samples) write_samples(json.key(s.key), s);
  json.end_object();
  write_samplers(json, demo.samplers);
  write_density(json, demo.density);
  json.key("copies").begin_object();
  write_copies(json.key("fresh_draws"), demo.fresh_copies);
  write_copies(json.key("points"), demo.point_copies);
  json.end_object().key("training_seconds").begin_array();
  for (const DemoNetwork& network : demo.networks) json.value(network.seconds);
  json.end_array().key("files").begin_array();
  for (const std::string& file : files) json.value(file);
  json.end_array().key("seconds").value(seconds).end_object();
  return json.text() + "\n";
}

}  // namespace tweedie::cli
