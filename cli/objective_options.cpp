// SPDX-License-Identifier: MIT
#include "tweedie/cli/objective_options.h"

#include <CLI/CLI.hpp>
#include <cmath>

namespace tweedie::cli {

namespace {

Weighting weighting_of(const std::string& name) {
  if (name == "plain") return Weighting::plain;
  if (name == "edm") return Weighting::edm;
  if (name == "v") return Weighting::v;
  if (name == "likelihood") return Weighting::likelihood;
  return Weighting::sigma_squared;
}

// The process of --process over the run's range of sigmas: what decides the likelihood weighting and --sigma-sampling process.
Process process_of(const ObjectiveArguments& a, const NetworkArguments& network) {
  if (a.process == "ve") return ve(network.sigma_min, network.sigma_max);
  return a.process == "edm" ? edm(network.sigma_min, network.sigma_max) : process(a.process);
}

}  // namespace

void add_objective_options(CLI::App& app, ObjectiveArguments& a) {
  const char* group = "Objective";
  choose_from(
      app.add_option("--objective", a.objective, "denoising | explicit | sliced score matching | flow_matching")->group(group),
      "objective", {"denoising", "explicit", "sliced", "flow_matching"});
  choose_from(app.add_option("--weighting", a.weighting,
                             "Weight of a row's squared error of sigma s: "
                             "sigma2 (1) | plain (1/sigma^2) | edm | v | likelihood "
                             "(g^2, by --process); explicit and sliced take the first two")
                  ->group(group),
              "weighting", {"sigma2", "plain", "edm", "v", "likelihood"});
  CLI::Option* sampling =
      app.add_option("--sigma-sampling", a.sigma_sampling,
                     "Training draws sigma from: levels | continuous (ln sigma uniform) | lognormal | process (t "
                     "uniform in --process) | flow (default: what goes with network and objective)");
  choose_from(sampling->group(group)->default_str(""), "sigma sampling",
              {"levels", "continuous", "lognormal", "process", "flow"});
  choose_from(
      app.add_option("--process", a.process, "ve | vp | sub_vp | edm, for --weighting likelihood and --sigma-sampling process")
          ->group(group),
      "process", {"ve", "vp", "sub_vp", "edm"});
  app.add_option("--p-mean", a.p_mean,
                 "lognormal: mean of ln sigma (default: EDM's -1.2 for data of deviation .5, moved with it)")
      ->group(group)
      ->default_str("");
  app.add_option("--p-std", a.p_std, "lognormal: deviation of ln sigma")->check(CLI::PositiveNumber)->group(group);
  CLI::Option* projection = app.add_option("--projection", a.projection, "Sliced: directions unit | gaussian | rademacher");
  choose_from(projection, "projection", {"unit", "gaussian", "rademacher"});
  for (CLI::Option* option :
       {projection, app.add_flag("--variance-reduced", a.variance_reduced, "Sliced: 1/2 |s|^2 in place of 1/2 (v.s)^2"),
        app.add_option("--num-projections", a.num_projections, "Sliced: directions per row")->check(CLI::Range(1, 100000))}) {
    option->group(group);
  }
}

void check_objective_options(const CLI::App& app, const ObjectiveArguments& a, const NetworkArguments& network) {
  for (const char* option : {"--projection", "--variance-reduced", "--num-projections"}) {
    check(a.objective == "sliced" || app.get_option(option)->count() == 0, option, " belongs to --objective sliced");
  }
  check(a.objective != "flow_matching" || app.get_option("--weighting")->count() == 0,
        "--weighting: --objective flow_matching has a weight of its own; leave one of the two out");
  check(a.weighting == "likelihood" || a.sigma_sampling == "process" || app.get_option("--process")->count() == 0,
        "--process belongs to --weighting likelihood and --sigma-sampling process");
  for (const char* option : {"--p-mean", "--p-std"}) {
    check(a.sigma_sampling == "lognormal" || app.get_option(option)->count() == 0, option,
          " belongs to --sigma-sampling lognormal");
  }
  check(!network.learned_variance || a.objective == "denoising" || a.objective == "flow_matching",
        "--learned-variance is the variance of a squared error, which --objective ", a.objective,
        " has not; leave it out, or take --objective denoising or flow_matching");
}

Objective objective_of(const ObjectiveArguments& a, const NetworkArguments& network) {
  const Weighting weighting = weighting_of(a.weighting);
  if (a.objective == "flow_matching") return FlowMatching{};
  if (a.objective == "explicit") return Explicit{weighting};
  if (a.objective == "denoising") {
    Denoising denoising{.weighting = weighting, .sigma_data = network.sigma_data};
    if (weighting == Weighting::likelihood) denoising.process = process_of(a, network);
    return denoising;
  }
  const Projection projection = a.projection == "gaussian"     ? Projection::gaussian
                                : a.projection == "rademacher" ? Projection::rademacher
                                                               : Projection::unit;
  return Sliced{projection, a.variance_reduced, a.num_projections, weighting};
}

SigmaSampling sampling_of(const ObjectiveArguments& a, const NetworkArguments& network) {
  const double p_mean = a.p_mean_given ? a.p_mean : -1.2 + std::log(network.sigma_data / .5);
  if (a.sigma_sampling == "continuous") return SigmaSampling::continuous;
  if (a.sigma_sampling == "lognormal") return SigmaSampling::lognormal(p_mean, a.p_std);
  if (a.sigma_sampling == "process") return SigmaSampling::process(process_of(a, network));
  if (a.sigma_sampling == "flow") return SigmaSampling::flow();
  if (a.sigma_sampling == "levels") return SigmaSampling::levels;
  return SigmaSampling::automatic;
}

}  // namespace tweedie::cli
