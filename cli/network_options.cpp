// SPDX-License-Identifier: MIT
#include "tweedie/cli/network_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "tweedie/cli/evaluation.h"
#include "tweedie/core/detail/parse_number.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/score_network.h"

namespace tweedie::cli {

namespace {

Index level_count(const std::string& text) {
  const std::optional<Index> count = detail::parse_number<Index>(text);
  check(count && *count >= 1 && *count <= 100000, "--levels '", text, "' is neither a count of levels (1 to 100000) nor ncsnv2");
  return *count;
}

ContinuousNetworkOptions continuous_options(const NetworkArguments& a, Index dim, const ConditionSizes& sizes) {
  return {.data_dim = dim,
          .hidden_dim = a.width,
          .num_layers = a.depth,
          .architecture = a.net == "residual" ? Architecture::residual : Architecture::mlp,
          .embedding = noise_embedding(a.embedding),
          .parametrisation = parametrisation(a.prediction),
          .sigma_min = a.sigma_min,
          .sigma_max = a.sigma_max,
          .sigma_data = a.sigma_data,
          .num_classes = sizes.classes,
          .covariate_dim = sizes.covariates,
          .learned_variance = a.learned_variance};
}

}  // namespace

void add_network_options(CLI::App& app, NetworkArguments& a) {
  const char* group = "Network";
  app.add_option("--width,--hidden-dim", a.width, "Units of a hidden layer")->check(CLI::Range(1, 65536))->group(group);
  app.add_option("--depth,--num-layers", a.depth, "Linear layers (residual: blocks)")->check(CLI::Range(2, 1000))->group(group);
  app.add_option("--levels,--num-noise-levels", a.levels,
                 "ncsn: noise levels, geometric from sigma-max to sigma-min (the chapter: 10), or ncsnv2: sigma-max is the "
                 "largest distance between two rows, their number and the sampler's step follow")
      ->group(group);
  app.add_option(
         "--sigma-min", a.sigma_min,
         "Smallest noise level, in deviations of the scaled data (default: ncsn .05, others .01; the chapter: .01, much below "
         "the width of a small table's gaps)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
  app.add_option("--sigma-max", a.sigma_max,
                 "Largest noise level (default: ncsn 4 for scaled columns, else the chapter's 10; other networks 20 and 50)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
  choose_from(
      app.add_option(
             "--net,--network", a.net,
             "ncsn (the chapter's, discrete levels) | mlp | residual (any sigma, EDM's preconditioning) | energy "
             "(the same, a score that is a gradient: --sampler mala works). Default: ncsn where --levels is given, else mlp")
          ->group(group)
          ->default_str(""),
      "network", {"ncsn", "mlp", "residual", "energy"});
  choose_from(
      app.add_option("--prediction", a.prediction, "mlp, residual: what the network's output is: edm | score | epsilon | x0 | v")
          ->group(group),
      "prediction", {"edm", "score", "epsilon", "x0", "v"});
  choose_from(app.add_option("--embedding", a.embedding,
                             "mlp, residual, energy: of ln sigma: fourier (random frequencies) | log_sigma (geometric ones)")
                  ->group(group),
              "embedding", {"fourier", "log_sigma"});
  app.add_flag("--learned-variance", a.learned_variance,
               "mlp, residual, energy: learn each noise level's loss as well, and weigh all levels alike (EDM2)")
      ->group(group);
  app.add_option("--sigma-data", a.sigma_data,
                 "Deviation of the data for EDM's preconditioning and weighting (default: measured)")
      ->check(CLI::PositiveNumber)
      ->group(group)
      ->default_str("");
}

void check_network_options(const CLI::App& app, NetworkArguments& a) {
  const auto given = [&](const char* option) { return app.get_option(option)->count() > 0; };
  if (a.net.empty()) a.net = given("--levels") ? "ncsn" : "mlp";
  check(a.net == "mlp" || a.net == "residual" || !given("--prediction"), "--prediction belongs to --net mlp and residual");
  check(a.ncsn() || !given("--levels"), "--levels belongs to --net ncsn; ", a.net, " takes any sigma");
  for (const char* option : {"--embedding", "--learned-variance"}) {
    check(!a.ncsn() || !given(option), option, " belongs to --net mlp, residual and energy");
  }
  if (!a.ncsnv2()) level_count(a.levels);
}

void settle(NetworkArguments& a, ConstRows<float> rows, bool unscaled) {
  if (a.sigma_min == 0) a.sigma_min = a.ncsn() ? .05 : .01;
  if (a.sigma_max == 0 && !a.ncsnv2()) a.sigma_max = a.ncsn() ? (unscaled ? 10 : 4) : (unscaled ? 50 : 20);
  if (a.sigma_data == 0) a.sigma_data = data_deviation(rows);
  if (a.sigma_max > 0) return;
  // All pairs of a large table would take hours; its largest distance is an order of magnitude that any 20,000 rows show.
  constexpr Index kRows = 20000;
  a.sigma_max = (rows.rows() > kRows ? ncsnv2_levels(spread(rows, kRows), a.sigma_min) : ncsnv2_levels(rows, a.sigma_min)).max();
}

std::unique_ptr<Network> build_network(const NetworkArguments& a, ConstRows<float> rows, const ConditionSizes& sizes,
                                       const Rng& rng) {
  const Index dim = rows.cols();
  if (a.ncsn()) {
    const NoiseLevels levels = a.ncsnv2() ? ncsnv2_levels(dim, a.sigma_max, a.sigma_min)
                                          : NoiseLevels::geometric(a.sigma_max, a.sigma_min, level_count(a.levels));
    return std::make_unique<NoiseConditionalScoreNetwork>(
        ScoreNetworkOptions{.data_dim = dim, .hidden_dim = a.width, .num_layers = a.depth}, levels, rng);
  }
  const ContinuousNetworkOptions options = continuous_options(a, dim, sizes);
  if (a.net == "energy") return std::make_unique<EnergyNetwork>(options, rng);
  return std::make_unique<ContinuousScoreNetwork>(options, rng);
}

}  // namespace tweedie::cli
