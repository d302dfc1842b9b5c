// Every weighting against its loss as it is written in its paper, in that paper's own coordinates.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/models/objectives.h"

using namespace tweedie;

namespace {

constexpr Index kRows = 25, kDim = 3;

MatrixD normals(std::uint32_t step) {
  MatrixD z(kRows, kDim);
  Rng{31}.normals(Purpose::user, step, 0, z.view());
  return z;
}

// u = x w, and u_v the same at all noise.
class Linear final : public Network {
 public:
  explicit Linear(bool with_variance = true) : Network(layout_of()), with_variance_(with_variance) {}
  Index dim() const override { return kDim; }
  void score(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const override { fail("not used"); }
  void score(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const override { fail("not used"); }
  const char* name() const override { return "linear"; }
  void parameters_changed() override {}
  void initialise(Rng) override {}
  Var scaled_score(Tape&, std::span<const Var> p, Var x, const NoiseInput<float>&) const override { return x * p[0]; }
  VarD scaled_score(TapeD&, std::span<const VarD> p, VarD x, const NoiseInput<double>&) const override { return x * p[0]; }
  Var log_variance(Tape&, std::span<const Var> p, const NoiseInput<float>& noise) const override {
    return with_variance_ ? broadcast_to(p[1], static_cast<Index>(noise.sigma.size()), 1) : Var{};
  }
  VarD log_variance(TapeD&, std::span<const VarD> p, const NoiseInput<double>& noise) const override {
    return with_variance_ ? broadcast_to(p[1], static_cast<Index>(noise.sigma.size()), 1) : VarD{};
  }
  Strings config() const override { return {}; }
  std::unique_ptr<Network> clone() const override { return std::make_unique<Linear>(with_variance_); }

 private:
  static ParameterLayout layout_of() {
    ParameterLayout layout;
    layout.add("w", {kDim});
    layout.add("log_variance", {1});
    return layout;
  }
  bool with_variance_;
};

struct Fixture {
  MatrixD x0 = normals(0), u = normals(1);
  BatchD batch = perturb(x0, NoiseLevels({30, .02}), Rng{7}, {.sampling = SigmaSampling::continuous});

  // Row losses by the library; `literal(b)` has the paper's summed square for row b.
  template <class Literal>
  void check_rows(const Objective& objective, Literal&& literal) const {
    CAPTURE(describe(objective));
    TapeD tape;
    for (Index b = 0; b < kRows; ++b) {
      double square = 0;
      for (Index d = 0; d < kDim; ++d) square += std::pow(u(b, d) + batch.eps(b, d), 2);
      const double expected = literal(b);
      CAPTURE(batch.sigma[b]);
      // Errors of x0 and of the velocity come out of cancellation with terms up to sigma: 30^2 roundings.
      CHECK(loss_weight(objective, batch.sigma[b]) * .5 * square == doctest::Approx(.5 * expected).epsilon(1e-11));
    }
    if (const auto* denoising = std::get_if<Denoising>(&objective)) {
      const LossD loss = denoising_score_matching_loss(tape.variable(u), batch, *denoising);
      double mean = 0;
      for (Index b = 0; b < kRows; ++b) {
        CHECK(loss.rows.value()(b, 0) == doctest::Approx(.5 * literal(b)).epsilon(1e-11));
        mean += .5 * literal(b) / kRows;
      }
      CHECK(loss.mean.item() == doctest::Approx(mean).epsilon(1e-11));
    }
  }
};

template <class Term>
double sum_of_squares(Term&& term) {
  double sum = 0;
  for (Index d = 0; d < kDim; ++d) sum += std::pow(term(d), 2);
  return sum;
}

}  // namespace

TEST_CASE("edm: (sigma^2 + sd^2) / (sigma sd)^2 |D(x) - x0|^2") {
  const Fixture f;
  const double sd = .7;
  f.check_rows(Denoising{.weighting = Weighting::edm, .sigma_data = sd}, [&](Index b) {
    const double s = f.batch.sigma[b];
    const double lambda = (s * s + sd * sd) / std::pow(s * sd, 2);
    return lambda * sum_of_squares([&](Index d) { return f.batch.x(b, d) + s * f.u(b, d) - f.x0(b, d); });
  });
}

TEST_CASE("v: the error of v = alpha eps - sigma x0 on the variance-preserving circle") {
  const Fixture f;
  f.check_rows(Denoising{.weighting = Weighting::v}, [&](Index b) {
    const double s = f.batch.sigma[b], alpha = 1 / std::sqrt(1 + s * s), sigma = s * alpha;
    return sum_of_squares([&](Index d) {
      const double x = alpha * f.x0(b, d) + sigma * f.batch.eps(b, d), score = f.u(b, d) / s / alpha;
      const double v_model = alpha * -sigma * score - sigma * (x + sigma * sigma * score) / alpha;
      return v_model - (alpha * f.batch.eps(b, d) - sigma * f.x0(b, d));
    });
  });
}

TEST_CASE("likelihood: g(t)^2 |s_t(x_t) + eps / sigma_t|^2") {
  const Fixture f;
  for (const Process& p : {ve(), vp(), sub_vp(), edm()}) {
    f.check_rows(Denoising{.weighting = Weighting::likelihood, .process = p}, [&](Index b) {
      const double t = p.time_of(f.batch.sigma[b]);
      const double score = 1 / (f.batch.sigma[b] * p.alpha(t));
      return p.g_squared(t) * sum_of_squares([&](Index d) { return score * f.u(b, d) + f.batch.eps(b, d) / p.sigma(t); });
    });
  }
  const Denoising exploding{.weighting = Weighting::likelihood, .process = ve(.01, 50)};
  CHECK(loss_weight(exploding, .3) == doctest::Approx(2 * std::log(5000.)).epsilon(1e-12));
  const Denoising karras{.weighting = Weighting::likelihood, .process = edm()};
  CHECK(loss_weight(karras, .3) == doctest::Approx(2 / .3).epsilon(1e-12));
}

TEST_CASE("flow matching: |v(x_t, t) - (eps - x0)|^2 at x_t = (1 - t) x0 + t eps") {
  const Fixture f;
  f.check_rows(FlowMatching{}, [&](Index b) {
    const double t = f.batch.sigma[b] / (1 + f.batch.sigma[b]);
    return sum_of_squares([&](Index d) {
      const double eps = f.batch.eps(b, d), x_t = (1 - t) * f.x0(b, d) + t * eps;
      // The model: eps is -u, x0 what is left of x_t.
      const double velocity = -f.u(b, d) - (x_t + t * f.u(b, d)) / (1 - t);
      return velocity - (eps - f.x0(b, d));
    });
  });
}

TEST_CASE("a network's loss has the weight, in both precisions") {
  const Fixture f;
  const Linear net(false);
  Batch single = perturb(Matrix(f.x0.view()), NoiseLevels({30, .02}), Rng{7}, {.sampling = SigmaSampling::continuous});
  for (const Objective& objective : {Objective(FlowMatching{}), Objective(Denoising{.weighting = Weighting::edm}),
                                     Objective(Denoising{.weighting = Weighting::v}),
                                     Objective(Denoising{.weighting = Weighting::likelihood, .process = vp()})}) {
    CAPTURE(describe(objective));
    TapeD tape;
    const std::vector<VarD> vars = {tape.variable(MatrixD{{-.3, .2, -.5}}), tape.variable(MatrixD{{0}})};
    const LossD loss = objective_loss<double>(objective, net, tape, vars, f.batch);
    Tape tape32;
    const std::vector<Var> vars32 = {tape32.variable(Matrix{{-.3F, .2F, -.5F}}), tape32.variable(Matrix{{0}})};
    const Loss loss32 = objective_loss<float>(objective, net, tape32, vars32, single);
    for (Index b = 0; b < kRows; ++b) {
      double square = 0;
      for (Index d = 0; d < kDim; ++d) {
        square += std::pow(vars[0].value()(0, d) * f.batch.x(b, d) + f.batch.eps(b, d), 2);
      }
      const double expected = loss_weight(objective, f.batch.sigma[b]) * .5 * square;
      CHECK(loss.rows.value()(b, 0) == doctest::Approx(expected).epsilon(1e-12));
      // A sum of three squares of sums that may cancel by a factor of 30: some 100 roundings of 2^-24.
      CHECK(double(loss32.rows.value()(b, 0)) == doctest::Approx(expected).epsilon(1e-5));
    }
  }
}

TEST_CASE("a learned log-variance: its row loss, and its optimum at the mean square") {
  const Fixture f;
  const Linear net;
  const Denoising objective{.weighting = Weighting::edm};
  const MatrixD w{{-.3, .2, -.5}};
  double mean = 0;
  for (Index b = 0; b < kRows; ++b) {
    mean += loss_weight(objective, f.batch.sigma[b]) / kRows *
            sum_of_squares([&](Index d) { return w(0, d) * f.batch.x(b, d) + f.batch.eps(b, d); });
  }
  const auto loss_and_gradient = [&](double log_variance) {
    TapeD tape;
    const std::vector<VarD> vars = {tape.variable(w), tape.variable(MatrixD{{log_variance}})};
    const LossD loss = objective_loss<double>(objective, net, tape, vars, f.batch);
    return std::pair(loss.mean.item(), grad(loss.mean, {vars[1]}).front().item());
  };
  const double best = std::log(mean / kDim);
  CHECK(loss_and_gradient(best).first == doctest::Approx(.5 * kDim * (1 + best)).epsilon(1e-12));
  CHECK(std::abs(loss_and_gradient(best).second) < 1e-11);
  CHECK(loss_and_gradient(.4).first == doctest::Approx(std::exp(-.4) * .5 * mean + .5 * kDim * .4).epsilon(1e-12));
  TapeD tape;
  const std::vector<VarD> vars = {tape.variable(w), tape.variable(MatrixD{{0}})};
  CHECK_THROWS_AS(objective_loss<double>(Explicit{}, net, tape, vars, f.batch), UsageError);
}

TEST_CASE("options that contradict, and descriptions") {
  CHECK_THROWS_AS(check_objective(Denoising{.weighting = Weighting::edm, .sigma_data = 0}), UsageError);
  CHECK_THROWS_AS(check_objective(Denoising{.weighting = Weighting::likelihood}), UsageError);
  CHECK_THROWS_AS(check_objective(Denoising{.process = vp()}), UsageError);
  CHECK_THROWS_AS(check_objective(Explicit{Weighting::v}), UsageError);
  CHECK_THROWS_AS(check_objective(Sliced{.weighting = Weighting::edm}), UsageError);
  CHECK_THROWS_AS(loss_weight(Denoising{}, 0), UsageError);
  CHECK(describe(Denoising{.weighting = Weighting::edm, .sigma_data = .25}) == "denoising, edm(0.25)");
  CHECK(describe(Denoising{.weighting = Weighting::likelihood, .process = ve()}) == "denoising, likelihood(ve, 0.01, 50)");
  CHECK(describe(FlowMatching{}) == "flow matching");
}
