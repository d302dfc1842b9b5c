// SPDX-License-Identifier: MIT
#include "tweedie/cli/sampling.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tweedie/models/network.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/langevin.h"
#include "tweedie/samplers/mala.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/probability_flow.h"
#include "tweedie/samplers/reverse_sde.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie::cli {

namespace {

// A block of rows to be drawn.
struct Block {
  const ScoreModel& model;
  const NoiseLevels& levels;
  Index rows;
  const SamplingArguments& a;
  TrajectoryRequest trajectory;
  Rng rng;
  SamplingCallback progress;
};

// One of the program's samplers: what it is, the options it takes, what it does with a block.
struct Sampler {
  const char* name;
  const char* what;
  std::vector<const char*> options;
  Samples (*run)(const Block& block);
};

template <class Options>
Options options_for(const Block& b) {
  Options o;
  o.samples = b.rows;
  o.save_every = b.trajectory.save_every;
  o.trajectory_rows = std::min(b.trajectory.rows, b.rows);
  o.progress = b.progress;
  return o;
}

// The model's own levels, or as many as --levels says over the same range.
NoiseLevels chain_levels(const Block& b) {
  const bool resample = b.a.levels > 0 && b.a.levels != b.levels.size();
  return resample ? NoiseLevels::geometric(b.levels.max(), b.levels.min(), b.a.levels) : b.levels;
}

double sigma_low(const Block& b) { return b.a.sigma_min > 0 ? b.a.sigma_min : b.levels.min(); }
double sigma_high(const Block& b) { return b.a.sigma_max > 0 ? b.a.sigma_max : b.levels.max(); }

// --steps intervals, the last of them to 0.
std::vector<double> step_schedule(const Block& b, Index default_steps) {
  const Index steps = b.a.steps > 0 ? b.a.steps : default_steps;
  if (b.a.schedule == "karras") return karras(steps, sigma_low(b), sigma_high(b), b.a.rho);
  return schedule(b.a.schedule, steps, sigma_low(b), sigma_high(b));
}

Samples run_annealed(const Block& b) {
  AnnealedLangevinOptions o = options_for<AnnealedLangevinOptions>(b);
  o.steps_per_level = b.a.steps_per_level > 0 ? b.a.steps_per_level : 20;
  o.step_size_factor = b.a.step_size_factor > 0 ? b.a.step_size_factor : .2;
  if (b.a.epsilon > 0) o.epsilon = b.a.epsilon;
  if (b.a.ncsnv2 && b.a.epsilon == 0 && b.a.step_size_factor == 0) {
    // That epsilon is of x += a s + sqrt(2 a) z.
    o.epsilon = ncsnv2_epsilon(chain_levels(b), o.steps_per_level) * (b.a.convention == "half" ? 2 : 1);
  }
  o.convention = step_convention(b.a.convention);
  o.temperature = b.a.temperature;
  o.temperature_mode = temperature_mode(b.a.temperature_mode);
  o.denoise = b.a.denoise;
  return annealed_langevin(b.model, chain_levels(b), o, b.rng);
}

Samples run_mala(const Block& b) {
  MalaOptions o = options_for<MalaOptions>(b);
  if (b.a.steps_per_level > 0) o.steps_per_level = b.a.steps_per_level;
  if (b.a.step_size_factor > 0) o.step_size_factor = b.a.step_size_factor;
  o.convention = step_convention(b.a.convention);
  o.denoise = b.a.denoise;
  return mala(b.model, chain_levels(b), o, b.rng);
}

Samples run_langevin(const Block& b) {
  LangevinOptions o;
  o.step_size = b.a.step_size;
  o.num_steps = b.a.num_steps;
  o.noise_scale = b.a.noise_scale;
  o.convention = step_convention(b.a.convention);
  o.save_every = b.trajectory.save_every;
  o.trajectory_rows = std::min(b.trajectory.rows, b.rows);
  o.progress = b.progress;
  Matrix start(b.rows, b.model.dim());
  b.rng.normals<float>(Purpose::prior, 0, 0, start);
  for (Index i = 0; i < start.size(); ++i) start.data()[i] *= static_cast<float>(b.a.init_scale);
  return langevin_dynamics(b.model, b.a.sigma > 0 ? b.a.sigma : b.levels.min(), start, o, b.rng);
}

Samples run_heun(const Block& b) {
  HeunOptions o = options_for<HeunOptions>(b);
  o.s_churn = b.a.s_churn;
  o.s_tmin = b.a.s_tmin;
  if (b.a.s_tmax > 0) o.s_tmax = b.a.s_tmax;
  o.s_noise = b.a.s_noise;
  return heun(b.model, step_schedule(b, 40), o, b.rng);
}

Samples run_ddim(const Block& b) {
  DdimOptions o = options_for<DdimOptions>(b);
  if (b.a.eta >= 0) o.eta = b.a.eta;
  return ddim(b.model, step_schedule(b, 200), o, b.rng);
}

Samples dpm(const Block& b, double eta, Index default_steps) {
  DpmSolverOptions o = options_for<DpmSolverOptions>(b);
  o.eta = eta;
  return dpm_solver_pp(b.model, step_schedule(b, default_steps), o, b.rng);
}
Samples run_dpm(const Block& b) { return dpm(b, 0, 50); }
Samples run_dpm_sde(const Block& b) { return dpm(b, b.a.eta >= 0 ? b.a.eta : 1, 100); }

// The process of --process, ending at the schedule's largest level: vp and sub_vp take the beta_max that does.
Process process_over(const Block& b, const std::string& name) {
  const double low = sigma_low(b), high = sigma_high(b);
  if (name == "ve") return ve(low, high);
  if (name == "edm") return edm(low, high);
  constexpr double kBetaMin = .1;
  // -ln alpha(1) = (beta_max + beta_min) / 4, and alpha = 1 / sqrt(1 + high^2) for vp, by asinh for sub_vp (process.h).
  const double minus_log_alpha = name == "vp" ? .5 * std::log1p(high * high) : std::asinh(high / 2);
  const double beta_max = 4 * minus_log_alpha - kBetaMin;
  return name == "vp" ? vp(kBetaMin, beta_max) : sub_vp(kBetaMin, beta_max);
}

Samples run_reverse_sde(const Block& b) {
  ReverseSdeOptions o = options_for<ReverseSdeOptions>(b);
  o.steps = b.a.steps > 0 ? b.a.steps : 500;
  return reverse_sde(b.model, process_over(b, b.a.process), o, b.rng);
}

Samples run_ddpm(const Block& b) {
  DdpmOptions o = options_for<DdpmOptions>(b);
  o.steps = b.a.steps > 0 ? b.a.steps : 500;
  return ddpm(b.model, process_over(b, "vp"), o, b.rng);
}

Samples run_predictor_corrector(const Block& b) {
  PredictorCorrectorOptions o = options_for<PredictorCorrectorOptions>(b);
  o.snr = b.a.snr;
  o.corrector_steps = b.a.corrector_steps;
  o.norms = corrector_norms(b.a.corrector_norm);
  return predictor_corrector(b.model, step_schedule(b, 200), o, b.rng);
}

Samples run_flow(const Block& b) {
  ProbabilityFlowOptions o = options_for<ProbabilityFlowOptions>(b);
  o.rtol = b.a.rtol;
  o.atol = b.a.atol;
  return probability_flow(b.model, process_over(b, b.a.process), o, b.rng);
}

const std::vector<const char*> kChain = {"--steps-per-level", "--step-size-factor", "--levels", "--denoise", "--step-convention"};
const std::vector<const char*> kSchedule = {"--steps", "--schedule", "--rho", "--sigma-min", "--sigma-max"};

std::vector<const char*> plus(std::vector<const char*> options, std::initializer_list<const char*> more) {
  options.insert(options.end(), more);
  return options;
}

const std::vector<Sampler>& samplers() {
  static const std::vector<Sampler> all = {
      {"annealed", "Langevin down the noise levels", plus(kChain, {"--epsilon", "--temperature", "--temperature-mode"}),
       run_annealed},
      {"mala", "the same, each step accepted or not by the density", kChain, run_mala},
      {"langevin",
       "Langevin at one level",
       {"--num-steps", "--step-size", "--noise-scale", "--sigma", "--init-scale", "--step-convention"},
       run_langevin},
      {"heun", "EDM's second-order method", plus(kSchedule, {"--s-churn", "--s-tmin", "--s-tmax", "--s-noise"}), run_heun},
      {"ddim", "eta 0 Euler on the flow, eta 1 ancestral", plus(kSchedule, {"--eta"}), run_ddim},
      {"dpmpp_2m", "DPM-Solver++ 2M", kSchedule, run_dpm},
      {"dpmpp_2m_sde", "its stochastic form", plus(kSchedule, {"--eta"}), run_dpm_sde},
      {"reverse_sde", "Euler-Maruyama", {"--steps", "--process", "--sigma-min", "--sigma-max"}, run_reverse_sde},
      {"predictor_corrector", "score_sde's, a Langevin step at each level",
       plus(kSchedule, {"--snr", "--corrector-steps", "--corrector-norms"}), run_predictor_corrector},
      {"ddpm", "ancestral steps of the VP process", {"--steps", "--sigma-max"}, run_ddpm},
      {"probability_flow",
       "the ODE by Dormand-Prince, each row with its own step",
       {"--process", "--rtol", "--atol", "--sigma-min", "--sigma-max"},
       run_flow},
  };
  return all;
}

const Sampler& find_sampler(const std::string& name) {
  for (const Sampler& sampler : samplers()) {
    if (name == sampler.name) return sampler;
  }
  fail(unknown("sampler", name, sampler_names()));
}

// Samplers that take an option.
std::string takers(const std::string& option) {
  std::vector<std::string> names;
  for (const Sampler& sampler : samplers()) {
    const bool takes = std::any_of(sampler.options.begin(), sampler.options.end(), [&](const char* o) { return option == o; });
    if (takes) names.push_back(sampler.name);
  }
  return listed(names);
}

void add_langevin_options(CLI::App& app, SamplingArguments& a, std::vector<CLI::Option*>& all) {
  const char* chain = "Langevin dynamics (annealed, mala, langevin; sigmas of the scaled data)";
  CLI::Option* steps =
      app.add_option("--steps-per-level", a.steps_per_level,
                     "Steps at each level (default: annealed 20, mala 10; the chapter: 100). More of them follow "
                     "the learned score to its own law, errors included");
  steps->check(CLI::Range(1, 1000000000))->default_str("");
  CLI::Option* factor = app.add_option(
      "--step-size-factor", a.step_size_factor,
      "a_i = factor sigma_i^2 (default: annealed .2, mala 2; the chapter: 2, which without MALA leaves a bias; with "
      "an exact score .5 and 100 steps at 30 levels leave none)");
  factor->check(CLI::PositiveNumber)->default_str("");
  CLI::Option* epsilon =
      app.add_option("--epsilon", a.epsilon, "Instead: a_i = epsilon sigma_i^2 / sigma_L^2 (NCSN: 2e-5; default: not used)");
  epsilon->check(CLI::PositiveNumber)->default_str("")->excludes(factor);
  CLI::Option* levels = app.add_option("--levels,--num-noise-levels", a.levels,
                                       "So many levels, geometric over the model's range (default: the model's own)");
  levels->check(CLI::Range(2, 100000))->default_str("");
  CLI::Option* convention =
      app.add_option("--step-convention", a.convention,
                     "How a step of size a is written: half (x += a/2 s + sqrt(a) z) | full (x += a s + sqrt(2a) z)");
  choose_from(convention, "step convention", {"half", "full"});
  CLI::Option* temperature = app.add_option("--temperature", a.temperature, "Below 1: nearer to the modes; above: wider");
  temperature->check(CLI::PositiveNumber);
  CLI::Option* mode = app.add_option("--temperature-mode", a.temperature_mode,
                                     "noise (noise times sqrt(T)) | chapter (the step grows with T as well)");
  choose_from(mode, "temperature mode", {"noise", "chapter"});
  CLI::Option* denoise = app.add_flag("--denoise", a.denoise, "A last step to the mean: x + sigma_L^2 s(x, sigma_L)");
  for (CLI::Option* option : {steps, factor, epsilon, levels, convention, temperature, mode, denoise}) {
    all.push_back(option->group(chain));
  }
  const char* single = "Langevin at one level";
  CLI::Option* sigma = app.add_option("--sigma", a.sigma, "Noise level (default: the model's smallest)");
  sigma->check(CLI::PositiveNumber)->default_str("");
  for (CLI::Option* option :
       {app.add_option("--num-steps", a.num_steps, "Steps")->check(CLI::Range(1, 1000000000)),
        app.add_option("--step-size", a.step_size, "a; above 4 times the smallest variance it diverges")
            ->check(CLI::PositiveNumber),
        app.add_option("--noise-scale", a.noise_scale, "Factor on the noise: 1 samples, 0 climbs to a mode")
            ->check(CLI::NonNegativeNumber),
        sigma,
        app.add_option("--init-scale", a.init_scale, "Standard deviation of the normal starts, in scaled units")
            ->check(CLI::PositiveNumber)}) {
    all.push_back(option->group(single));
  }
}

void add_schedule_options(CLI::App& app, SamplingArguments& a, std::vector<CLI::Option*>& all) {
  const char* group = "Down a schedule of noise levels (all other samplers; sigmas of the scaled data)";
  CLI::Option* steps =
      app.add_option("--steps,--num-intervals", a.steps,
                     "Solver intervals, the last to sigma = 0; heun needs two evaluations for each but the last");
  steps->check(CLI::Range(2, 1000000000))->default_str("");
  CLI::Option* schedule = app.add_option("--schedule", a.schedule, "Spacing of the levels: karras | geometric | linear | cosine");
  choose_from(schedule, "schedule", {"karras", "geometric", "linear", "cosine"});
  CLI::Option* low = app.add_option("--sigma-min", a.sigma_min, "Smallest level before 0 (default: the model's)");
  CLI::Option* high = app.add_option("--sigma-max", a.sigma_max, "Level of the start (default: the model's)");
  CLI::Option* s_tmax = app.add_option("--s-tmax", a.s_tmax, "Churn: largest sigma with it (default: none)");
  CLI::Option* eta = app.add_option("--eta", a.eta, "Share of noise: 0 none, 1 ancestral (default: ddim 0, dpmpp_2m_sde 1)");
  for (CLI::Option* option : {low, high, s_tmax}) option->check(CLI::PositiveNumber)->default_str("");
  eta->check(CLI::NonNegativeNumber)->default_str("");
  for (CLI::Option* option :
       {steps, schedule, app.add_option("--rho", a.rho, "Karras's exponent")->check(CLI::PositiveNumber), low, high, eta,
        app.add_option("--s-churn,--churn", a.s_churn, "Heun: EDM's S_churn, noise added at each step")
            ->check(CLI::NonNegativeNumber),
        app.add_option("--s-tmin", a.s_tmin, "Churn: smallest sigma with it")->check(CLI::NonNegativeNumber), s_tmax,
        app.add_option("--s-noise", a.s_noise, "Churn: factor on its noise")->check(CLI::PositiveNumber)}) {
    all.push_back(option->group(group));
  }
  CLI::Option* process = app.add_option("--process", a.process, "reverse_sde, probability_flow: ve | vp | sub_vp | edm");
  choose_from(process, "process", {"ve", "vp", "sub_vp", "edm"});
  CLI::Option* norms = app.add_option("--corrector-norms", a.corrector_norm,
                                      "predictor_corrector: expected | batch (score_sde's; a sample then depends on its batch)");
  choose_from(norms, "kind of norms", {"expected", "batch"});
  for (CLI::Option* option :
       {process, norms,
        app.add_option("--snr", a.snr, "predictor_corrector: signal to noise of the corrector's step")
            ->check(CLI::PositiveNumber),
        app.add_option("--corrector-steps", a.corrector_steps, "predictor_corrector: Langevin steps at each level")
            ->check(CLI::Range(0, 100000)),
        app.add_option("--rtol", a.rtol, "probability_flow: relative tolerance")->check(CLI::PositiveNumber),
        app.add_option("--atol", a.atol, "probability_flow: absolute tolerance")->check(CLI::PositiveNumber)}) {
    all.push_back(option->group(group));
  }
}

}  // namespace

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const Sampler& sampler : samplers()) names.push_back(sampler.name);
  return names;
}

std::string default_sampler(const ScoreModel& model) {
  const auto* network = dynamic_cast<const Network*>(&model);
  return network != nullptr && network->levels() == nullptr ? "heun" : "annealed";
}

void use_precision(const Common& common, Network& network) {
  using kernels::Precision;
  using kernels::Target;
  const Precision precision = kernels::precision_named(common.precision);
  network.set_precision(precision);
  const Target target = kernels::target();
  const bool gains = target == Target::amx || (target == Target::avx512_bf16 && precision == Precision::bf16);
  if (precision == Precision::fp32 || gains) return;
  common.console.note(join("  --precision ", common.precision, " is slower than fp32 here: target ", kernels::name(target),
                           target == Target::avx512_bf16 ? " takes three products for one" : " has no unit for bf16"));
}

void add_sampling_options(CLI::App& app, SamplingArguments& a) {
  std::string help = "(default: annealed for a network of discrete levels, else heun)";
  for (const Sampler& sampler : samplers()) help += join("\n", sampler.name, ": ", sampler.what);
  CLI::Option* which = app.add_option("--sampler", a.sampler, help)->group("Sampling")->default_str("");
  choose_from(which, "sampler", sampler_names());
  std::vector<CLI::Option*> all;
  add_langevin_options(app, a, all);
  add_schedule_options(app, a, all);
  a.check_given = [all](const std::string& name) {
    const Sampler& sampler = find_sampler(name);
    for (const CLI::Option* option : all) {
      const std::string flag = option->get_name().substr(0, option->get_name().find(','));
      const bool takes = std::any_of(sampler.options.begin(), sampler.options.end(), [&](const char* o) { return flag == o; });
      check(takes || option->count() == 0, flag, " has no meaning for --sampler ", name, "; leave it out, or take --sampler ",
            takers(flag));
    }
  };
}

namespace {

// Which model draws which rows.
struct Plan {
  std::string sampler;
  std::vector<const ScoreModel*> models;
  // Of rows first, first + 1, ...: the place of each one's model. Empty: there is one model.
  std::function<std::vector<std::int32_t>(Index first, Index rows)> choose;
};

// The rows of a block that the models draw in turn, each from a stream of its own; progress(part) of the block in [0, 1].
Samples draw_block(const Plan& plan, const NoiseLevels& levels, Index rows, std::span<const std::int32_t> choice,
                   const SamplingArguments& arguments, const TrajectoryRequest& trajectory, Rng rng,
                   const std::function<bool(double)>& progress) {
  const Sampler& sampler = find_sampler(plan.sampler);
  Index done = 0;
  const auto run = [&](const ScoreModel& model, Index count, const Rng& stream) {
    const SamplingCallback callback = [&, count](const SamplingProgress& p) {
      const double part = p.total > 0 ? static_cast<double>(p.done) / static_cast<double>(p.total) : 0;
      return progress((static_cast<double>(done) + part * static_cast<double>(count)) / static_cast<double>(rows));
    };
    return sampler.run({model, levels, count, arguments, trajectory, stream, callback});
  };
  if (choice.empty()) return run(*plan.models.front(), rows, rng);
  Samples all;
  all.x = Matrix(rows, plan.models.front()->dim());
  std::vector<std::vector<Index>> places(plan.models.size());
  for (Index r = 0; r < rows; ++r) places[static_cast<std::size_t>(choice[static_cast<std::size_t>(r)])].push_back(r);
  for (std::size_t k = 0; k < plan.models.size(); ++k) {
    const Rng stream = rng.split();
    const std::vector<Index>& mine = places[k];
    if (mine.empty()) continue;
    const Samples part = run(*plan.models[k], static_cast<Index>(mine.size()), stream);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      std::copy_n(part.x.row(static_cast<Index>(i)).data(), part.x.cols(), all.x.row(mine[i]).data());
    }
    all.evaluations = std::max(all.evaluations, part.evaluations);
    done += static_cast<Index>(mine.size());
  }
  return all;
}

Drawn draw_by(const Plan& plan, const NoiseLevels& levels, Index n, const SamplingArguments& arguments,
              const TrajectoryRequest& trajectory, Rng rng, const Console& console,
              const std::function<void(ConstRows<float>, std::span<const std::int32_t>)>& take) {
  find_sampler(plan.sampler);
  if (arguments.check_given) arguments.check_given(plan.sampler);
  const Index blocks = std::max<Index>(1, (n + kBlockRows - 1) / kBlockRows);
  Drawn drawn;
  Progress bar(console, "sampling");
  for (Index block = 0; block < blocks; ++block) {
    const Index first = block * kBlockRows, rows = std::min(kBlockRows, n - first);
    const auto progress = [&](double part) {
      // In thousandths of a block, so that the bar goes on through all blocks.
      bar.update(block * 1000 + static_cast<std::int64_t>(1000 * part), blocks * 1000);
      return !interrupted();
    };
    const std::vector<std::int32_t> choice = plan.choose ? plan.choose(first, rows) : std::vector<std::int32_t>();
    const TrajectoryRequest request = block == 0 ? trajectory : TrajectoryRequest{};
    Samples samples = draw_block(plan, levels, rows, choice, arguments, request, rng.split(), progress);
    if (block == 0) {
      drawn = {plan.sampler, samples.evaluations, std::move(samples.trajectory), std::move(samples.trajectory_steps)};
    }
    take(samples.x, choice);
  }
  return drawn;
}

// A class for each row, by the classes' frequencies.
std::vector<std::int32_t> draw_classes(const std::vector<double>& counts, const Rng& rng, Index first, Index rows) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.);
  std::vector<std::int32_t> labels;
  for (Index r = 0; r < rows; ++r) {
    double place = rng.uniform(Purpose::row, 0, static_cast<std::uint64_t>(first + r)) * total;  // in (0, total]
    std::size_t k = 0;
    while (k + 1 < counts.size() && place > counts[k]) place -= counts[k++];
    labels.push_back(static_cast<std::int32_t>(k));
  }
  return labels;
}

// A model of NCSNv2's levels gets its step size, unless the user says.
SamplingArguments settled(const ModelFile& model, SamplingArguments arguments) {
  const auto rule = model.checkpoint.metadata.find("train.levels");
  arguments.ncsnv2 = rule != model.checkpoint.metadata.end() && rule->second == "ncsnv2";
  return arguments;
}

std::string chosen_sampler(const ModelFile& model, const SamplingArguments& arguments) {
  return arguments.sampler.empty() ? default_sampler(*model.network) : arguments.sampler;
}

}  // namespace

namespace {
// Copies blocks of rows one beneath the other.
class Collector {
 public:
  Collector(Index rows, Index cols) : all_(rows, cols) {}
  void operator()(ConstRows<float> rows) {
    for (Index r = 0; r < rows.rows(); ++r) std::copy_n(rows.row(r).data(), rows.cols(), all_.row(filled_++).data());
  }
  Matrix take() { return std::move(all_); }

 private:
  Matrix all_;
  Index filled_ = 0;
};
}  // namespace

Drawn draw(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>)>& take) {
  check(model.num_classes() == 0 && model.covariate_dim() == 0,
        "this model is conditioned on columns of its table; draw its rows with `tweedie sample`, and give that file here");
  const Plan plan{arguments.sampler.empty() ? default_sampler(model) : arguments.sampler, {&model}, nullptr};
  return draw_by(plan, levels, n, arguments, trajectory, rng, console,
                 [&](ConstRows<float> rows, std::span<const std::int32_t>) { take(rows); });
}

Drawn draw(const ModelFile& model, const ConditionArguments& condition, Index n, const SamplingArguments& arguments,
           const TrajectoryRequest& trajectory, Rng rng, const Console& console,
           const std::function<void(ConstRows<float>, std::span<const std::int32_t>)>& take) {
  const Asked asked = asked_condition(model, condition);
  Plan plan{chosen_sampler(model, arguments), {}, nullptr};
  std::vector<std::unique_ptr<ScoreModel>> owned;
  const auto add = [&](std::optional<std::int32_t> label) {
    owned.push_back(conditioned(model, label, asked.covariates, condition.guidance));
    plan.models.push_back(owned.back().get());
  };
  std::vector<std::int32_t> fixed;
  if (model.conditions.empty()) {
    plan.models.push_back(&model.score());
  } else if (asked.label || model.conditions.num_classes() == 0) {
    add(asked.label);
    if (asked.label) fixed.assign(static_cast<std::size_t>(std::min(n, kBlockRows)), *asked.label);
  } else {
    check(trajectory.save_every == 0,
          "--trajectory follows rows of one class; choose it with --class: ", listed(model.conditions.classes()));
    for (Index k = 0; k < model.conditions.num_classes(); ++k) add(static_cast<std::int32_t>(k));
    plan.choose = [&counts = model.conditions.counts(), stream = rng.split()](Index first, Index rows) {
      return draw_classes(counts, stream, first, rows);
    };
  }
  return draw_by(plan, *model.levels, n, settled(model, arguments), trajectory, rng, console,
                 [&](ConstRows<float> rows, std::span<const std::int32_t> labels) {
                   take(rows,
                        fixed.empty() ? labels : std::span(std::as_const(fixed)).first(static_cast<std::size_t>(rows.rows())));
                 });
}

Matrix draw_all(const ScoreModel& model, const NoiseLevels& levels, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console, std::int64_t* evaluations) {
  Collector all(n, model.dim());
  const Drawn drawn = draw(model, levels, n, arguments, {}, rng, console, std::ref(all));
  if (evaluations != nullptr) *evaluations = drawn.evaluations;
  return all.take();
}

Matrix draw_all(const ModelFile& model, const ConditionArguments& condition, Index n, const SamplingArguments& arguments, Rng rng,
                const Console& console) {
  Collector all(n, model.code.dim());
  draw(model, condition, n, arguments, {}, rng, console,
       [&](ConstRows<float> rows, std::span<const std::int32_t>) { all(rows); });
  return all.take();
}

Matrix draw_like(const ModelFile& model, const ModelRows& rows, double guidance, Index n, const SamplingArguments& arguments,
                 Rng rng, const Console& console, std::int64_t* evaluations) {
  const std::vector<RowGroup> groups = group_rows(model, rows, guidance);
  std::vector<std::int32_t> group_of(static_cast<std::size_t>(rows.x.rows()));
  Plan plan{chosen_sampler(model, arguments), {}, nullptr};
  for (std::size_t g = 0; g < groups.size(); ++g) {
    plan.models.push_back(groups[g].model);
    for (const Index row : groups[g].rows) group_of[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(g);
  }
  if (!model.conditions.empty()) {
    plan.choose = [&](Index first, Index count) {
      std::vector<std::int32_t> choice;
      for (Index r = first; r < first + count; ++r) choice.push_back(group_of[static_cast<std::size_t>(r * rows.x.rows() / n)]);
      return choice;
    };
  }
  Collector all(n, model.code.dim());
  const auto take = [&](ConstRows<float> drawn, std::span<const std::int32_t>) { all(drawn); };
  *evaluations = draw_by(plan, *model.levels, n, settled(model, arguments), {}, rng, console, take).evaluations;
  return all.take();
}

}  // namespace tweedie::cli
