// A score that drives its rows away, or is not a number, is an error of every sampler: its name, the step, sigma and a remedy.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "samplers/flow_support.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/ddim.h"
#include "tweedie/samplers/ddpm.h"
#include "tweedie/samplers/dpm_solver_pp.h"
#include "tweedie/samplers/guidance.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/langevin.h"
#include "tweedie/samplers/likelihood.h"
#include "tweedie/samplers/mala.h"
#include "tweedie/samplers/posterior.h"
#include "tweedie/samplers/predictor_corrector.h"
#include "tweedie/samplers/probability_flow.h"
#include "tweedie/samplers/repaint.h"
#include "tweedie/samplers/reverse_sde.h"
#include "tweedie/samplers/schedule.h"

using namespace tweedie;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

// The score of N(0, 1 + sigma^2) times `factor`; below sigma = .5 with `below` added, to the derivative `below_jacobian`.
class Broken final : public ScoreModel {
 public:
  Broken(double factor, double below, double below_jacobian) : factor_(factor), below_(below), jacobian_(below_jacobian) {}
  Index dim() const override { return 2; }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition*, Rows<float> out) const override {
    fill(y, sigma, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition*, Rows<double> out) const override {
    fill(y, sigma, out);
  }
  bool has_energy() const override { return true; }
  void energy(ConstRows<double> y, std::span<const double> sigma, const Condition*, std::span<double> out) const override {
    for (Index r = 0; r < y.rows(); ++r) {
      const double s = at(sigma, r), square = y(r, 0) * y(r, 0) + y(r, 1) * y(r, 1);
      out[static_cast<std::size_t>(r)] = -.5 * factor_ * square / (1 + s * s);
    }
  }
  bool has_jvp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition*, ConstRows<double> v, Rows<double> s,
           Rows<double> out) const override {
    fill(y, sigma, s);
    for (Index r = 0; r < y.rows(); ++r) {
      const double level = at(sigma, r);
      for (Index c = 0; c < 2; ++c) out(r, c) = -factor_ / (1 + level * level) * v(r, c) + (level < .5 ? jacobian_ : 0);
    }
  }
  bool has_vjp() const override { return true; }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition*, ConstRows<double> v, Rows<double> s,
           Rows<double> out) const override {
    jvp(y, sigma, nullptr, v, s, out);
  }
  const char* name() const override { return "broken"; }

 private:
  template <class S>
  static double at(std::span<const S> sigma, Index r) {
    return static_cast<double>(sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(r)]);
  }
  template <class S>
  void fill(ConstRows<S> y, std::span<const S> sigma, Rows<S> out) const {
    for (Index r = 0; r < y.rows(); ++r) {
      const double s = at(sigma, r);
      for (Index c = 0; c < 2; ++c) {
        out(r, c) = static_cast<S>(-factor_ * static_cast<double>(y(r, c)) / (1 + s * s) + (s < .5 ? below_ : 0));
      }
    }
  }

  double factor_, below_, jacobian_;
};

enum class Way { down, up, one_step };  // through the noise levels
struct Sampler {
  const char* name;  // as the message begins
  std::function<void(const ScoreModel&)> run;
  Way way = Way::down;
};

const std::vector<double>& sigmas() {
  static const std::vector<double> list = karras(20, .05, 10);
  return list;
}
const NoiseLevels& levels() {
  static const NoiseLevels list = NoiseLevels::geometric(10, .05, 10);
  return list;
}

Matrix start() { return Matrix(test::normals(5, 2, 1).view()); }
MatrixD start_double() { return test::normals(5, 2, 1); }

// Every function that walks rows along a score. Each in float and in double where it has both.
std::vector<Sampler> samplers() {
  static const LinearObservation observed = LinearObservation::coordinates(2, std::vector<Index>{0}, .01);
  static const Matrix gaps{{1, std::nanf("")}, {std::nanf(""), 2}, {.5f, std::nanf("")}};
  const auto posterior = [](PosteriorOptions options) {
    return [options](const ScoreModel& m) { posterior_sample(m, observed, MatrixD{{1}, {2}}, sigmas(), options, Rng{1}); };
  };
  const auto flow = [](Process process, ProbabilityFlowOptions options) {
    return [process, options](const ScoreModel& m) { probability_flow(m, process, options, Rng{1}); };
  };
  const Process narrow = ve(.05, 10);
  return {
      {"annealed_langevin", [](const ScoreModel& m) { annealed_langevin(m, levels(), {.samples = 5}, Rng{1}); }},
      {"annealed_langevin", [](const ScoreModel& m) { annealed_langevin(m, levels(), start_double(), {}, Rng{1}); }},
      {"annealed_langevin",
       [](const ScoreModel& m) { annealed_langevin(m, levels(), {.samples = 5, .steps_per_level = 0, .denoise = true}, Rng{1}); },
       Way::one_step},
      {"langevin_dynamics", [](const ScoreModel& m) { langevin_dynamics(m, .1, start(), {.step_size = .5}, Rng{1}); }},
      {"langevin_dynamics", [](const ScoreModel& m) { langevin_dynamics(m, .1, start_double(), {.step_size = .5}, Rng{1}); }},
      {"mala", [](const ScoreModel& m) { mala(m, levels(), {.samples = 5}, Rng{1}); }},
      {"mala", [](const ScoreModel& m) { mala(m, levels(), start_double(), {}, Rng{1}); }},
      {"mala", [](const ScoreModel& m) { mala(m, levels(), {.samples = 5, .steps_per_level = 0, .denoise = true}, Rng{1}); },
       Way::one_step},
      {"heun", [](const ScoreModel& m) { heun(m, sigmas(), {.samples = 5}, Rng{1}); }},
      {"heun", [](const ScoreModel& m) { heun(m, sigmas(), start_double(), {.s_churn = 5}, Rng{1}); }},
      {"ddim", [](const ScoreModel& m) { ddim(m, sigmas(), {.samples = 5}, Rng{1}); }},
      {"ddim", [](const ScoreModel& m) { ddim(m, sigmas(), start_double(), {.eta = 1}, Rng{1}); }},
      {"dpm_solver_pp", [](const ScoreModel& m) { dpm_solver_pp(m, sigmas(), {.samples = 5}, Rng{1}); }},
      {"dpm_solver_pp", [](const ScoreModel& m) { dpm_solver_pp(m, sigmas(), start_double(), {.eta = 1}, Rng{1}); }},
      {"reverse_sde", [](const ScoreModel& m) { reverse_sde(m, ve(.05, 10), {.samples = 5}, Rng{1}); }},
      {"reverse_sde", [](const ScoreModel& m) { reverse_sde(m, vp(), start_double(), {}, Rng{1}); }},
      {"predictor_corrector", [](const ScoreModel& m) { predictor_corrector(m, sigmas(), {.samples = 5}, Rng{1}); }},
      {"predictor_corrector",
       [](const ScoreModel& m) { predictor_corrector(m, sigmas(), start_double(), {.norms = CorrectorNorms::batch}, Rng{1}); }},
      {"ddpm", [](const ScoreModel& m) { ddpm(m, vp(), {.samples = 5}, Rng{1}); }},
      {"ddpm", [](const ScoreModel& m) { ddpm(m, vp(), start_double(), {}, Rng{1}); }},
      {"probability_flow", flow(narrow, {.samples = 5})},
      {"probability_flow", flow(narrow, {.samples = 5, .method = FlowMethod::euler, .steps = 50})},
      {"probability_flow", flow(vp(), {.samples = 5, .method = FlowMethod::heun, .steps = 50})},
      {"probability_flow", flow(narrow, {.samples = 5, .steps = 50})},
      {"probability_flow", [](const ScoreModel& m) { encode(m, ve(.05, 10), start_double(), {}); }, Way::up},
      {"log_density", [](const ScoreModel& m) { log_density(m, start_double(), {.sigma_min = .05, .sigma_max = 10}); }, Way::up},
      {"log_density",
       [](const ScoreModel& m) {
         log_density(m, start(), {.divergence = Divergence::hutchinson, .sigma_min = .05, .sigma_max = 10}, Rng{1});
       },
       Way::up},
      {"repaint", [](const ScoreModel& m) { repaint(m, sigmas(), gaps, {}, Rng{1}); }},
      {"repaint", [](const ScoreModel& m) { repaint(m, sigmas(), MatrixD(gaps.view()), {.resample = 2}, Rng{1}); }},
      {"posterior_sample", posterior({.method = PosteriorMethod::dps})},
      {"posterior_sample", posterior({.method = PosteriorMethod::pigdm})},
      {"posterior_sample", posterior({.method = PosteriorMethod::pigdm, .solver = PosteriorSolver::heun})},
      {"posterior_sample", posterior({.method = PosteriorMethod::mmps})},
      {"posterior_sample", posterior({.method = PosteriorMethod::mmps, .conjugate_gradients = 2})},
  };
}

void check_message(const Sampler& sampler, const ScoreModel& model) {
  const std::string text = test::message_of<DivergedError>([&] { sampler.run(model); });
  INFO(std::string(sampler.name), " says: ", text);
  const auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
  CHECK(text.rfind(sampler.name, 0) == 0);
  CHECK(says("sigma = "));
  CHECK((says("step ") || says("iteration ")));
  CHECK((says("use ") || says("train the model") || says("check the model")));
}

}  // namespace

TEST_CASE("no sampler finds fault with the sound model") {
  for (const Sampler& sampler : samplers()) CHECK_NOTHROW(sampler.run(Broken(1, 0, 0)));
}

TEST_CASE("a score that is not a number below some noise level") {
  for (const Sampler& sampler : samplers()) check_message(sampler, Broken(1, kNan, kNan));
}

TEST_CASE("a score that is infinite below some noise level") {
  for (const Sampler& sampler : samplers()) check_message(sampler, Broken(1, kInf, kInf));
}

TEST_CASE("a derivative that is not a number, of a score that is") {
  for (const Sampler& sampler : samplers()) {
    const std::string name = sampler.name;
    if (name == "posterior_sample" || name == "log_density") check_message(sampler, Broken(1, 0, kNan));
  }
}

TEST_CASE("a finite score that drives the rows away") {
  // 60 times too strong and of the wrong sign where the way leads down the noise levels: dy / d ln sigma = -60 y sigma^2 /
  // (1 + sigma^2). MALA refuses such steps and stays where it is.
  for (const Sampler& sampler : samplers()) {
    const std::string name = sampler.name;
    if (name == "mala" || sampler.way == Way::one_step) continue;
    check_message(sampler, Broken(sampler.way == Way::up ? 60 : -60, 0, 0));
  }
}

TEST_CASE("guidance so strong that the chain blows up") {
  class Conditional final : public ScoreModel {
   public:
    Index dim() const override { return 2; }
    Index num_classes() const override { return 2; }
    void score(ConstRows<float> y, std::span<const float> sigma, const Condition* c, Rows<float> out) const override {
      const float mean = c == nullptr ? 0.F : c->labels[0] == 0 ? -1.F : 1.F, pull = c == nullptr ? 1.F : 1.5F;
      for (Index r = 0; r < y.rows(); ++r) {
        for (Index j = 0; j < 2; ++j) out(r, j) = pull * (mean - y(r, j)) / (1 + sigma[0] * sigma[0]);
      }
    }
    void score(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const override { FAIL("float alone"); }
    const char* name() const override { return "conditional"; }
  };
  const Conditional model;
  CHECK_NOTHROW(annealed_langevin(Guided(model, 1.5, 0), levels(), {.samples = 5}, Rng{1}));
  check_message({"annealed_langevin", [](const ScoreModel& m) { annealed_langevin(m, levels(), {.samples = 5}, Rng{1}); }},
                Guided(model, 1e4, 0));
}
