// guidance_test.cpp - fixed conditions and classifier-free guidance on an exact conditional mixture.
// SPDX-License-Identifier: MIT
#include "tweedie/samplers/guidance.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tweedie/models/continuous_network.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/score_network.h"
#include "tweedie/samplers/annealed_langevin.h"

using namespace tweedie;

namespace {

// Two classes, N(m_k, .25 I), equally frequent: p(x | k) given a label, their mixture without. Derivatives by differences.
class TwoClasses final : public ScoreModel {
 public:
  Index dim() const override { return 2; }
  Index num_classes() const override { return 2; }
  double sigma_min() const override { return .01; }
  double sigma_max() const override { return 50; }
  const char* name() const override { return "two classes"; }

  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* c, Rows<float> out) const override {
    model(c).score(y, sigma, nullptr, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* c, Rows<double> out) const override {
    model(c).score(y, sigma, nullptr, out);
  }
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* c, std::span<double> out) const override {
    model(c).log_density(y, sigma, nullptr, out);
  }
  bool has_jvp() const override { return true; }
  bool has_vjp() const override { return true; }
  void jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* c, ConstRows<double> v, Rows<double> s,
           Rows<double> out) const override {
    score(y, sigma, c, s);
    MatrixD moved(y), at(y.rows(), 2);
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = out(r, 1) = 0;
    for (const double step : {-1e-4, 1e-4}) {
      for (Index r = 0; r < y.rows(); ++r) {
        for (Index d = 0; d < 2; ++d) moved(r, d) = y(r, d) + step * v(r, d);
      }
      score(moved, sigma, c, at);
      for (Index r = 0; r < y.rows(); ++r) {
        for (Index d = 0; d < 2; ++d) out(r, d) += at(r, d) / (2 * step);
      }
    }
  }
  void vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* c, ConstRows<double> v, Rows<double> s,
           Rows<double> out) const override {
    jvp(y, sigma, c, v, s, out);  // a gradient's Jacobian is symmetric
  }

 private:
  const GaussianMixture& model(const Condition* c) const {
    return c == nullptr || c->labels.empty() ? both_ : classes_[static_cast<std::size_t>(c->labels[0])];
  }
  GaussianMixture both_ = GaussianMixture::isotropic({.5, .5}, MatrixD{{-2, 0}, {2, 1}}, .5);
  GaussianMixture classes_[2] = {GaussianMixture::isotropic({1}, MatrixD{{-2, 0}}, .5),
                                 GaussianMixture::isotropic({1}, MatrixD{{2, 1}}, .5)};
};

MatrixD points() {
  MatrixD y(20, 2);
  Rng(3).normals(Purpose::user, 0, 0, y.view());
  return y;
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a conditioned model answers as the class's own law; guidance with weight 0 and 1 is the model without and with it") {
  const TwoClasses model;
  const GaussianMixture second = GaussianMixture::isotropic({1}, MatrixD{{2, 1}}, .5);
  const MatrixD y = points();
  const double sigma = .7;
  const std::span<const double> at(&sigma, 1);
  const Conditioned conditioned(model, 1);
  MatrixD out(20, 2), expected(20, 2), null(20, 2);
  conditioned.score(y, at, nullptr, out);
  second.score(y, at, nullptr, expected);
  model.score(y, at, nullptr, null);
  for (Index i = 0; i < out.size(); ++i) CHECK(out.data()[i] == expected.data()[i]);
  for (const double w : {0., 1., 2.5, -1.}) {
    const Guided guided(model, w, 1);
    guided.score(y, at, nullptr, out);
    MatrixD in_place = y;
    guided.score(in_place, at, nullptr, in_place);
    const Matrix y_f(y.view());
    Matrix out_f(20, 2);
    const float sigma_f = .7f;
    guided.score(y_f, std::span(&sigma_f, 1), nullptr, out_f);
    for (Index i = 0; i < out.size(); ++i) {
      const double s = (1 - w) * null.data()[i] + w * expected.data()[i];
      CHECK(out.data()[i] == doctest::Approx(s).epsilon(1e-13).scale(10));
      CHECK(in_place.data()[i] == out.data()[i]);
      CHECK(static_cast<double>(out_f.data()[i]) == doctest::Approx(s).epsilon(1e-5).scale(10));
    }
  }
  std::vector<double> log_p(20);
  conditioned.log_density(y, at, nullptr, log_p);
  CHECK(log_p == second.log_density(y, sigma));
  CHECK(conditioned.dim() == 2);
  CHECK(conditioned.sigma_min() == .01);
  CHECK(conditioned.sigma_max() == 50);
  CHECK(conditioned.num_classes() == 0);
  CHECK(std::string(conditioned.name()) == "conditioned two classes");
}

TEST_CASE("guided energies and Jacobians are those of the guided score") {
  const TwoClasses model;
  const MatrixD y = points();
  MatrixD v(20, 2);
  Rng(4).normals(Purpose::user, 0, 0, v.view());
  const double sigma = .7;
  const std::span<const double> at(&sigma, 1);
  const Conditioned conditioned(model, 0);
  const Guided guided(model, 3, 0);
  CHECK(guided.weight() == 3);
  CHECK_FALSE(guided.has_log_density());
  for (const ScoreModel* m : {static_cast<const ScoreModel*>(&conditioned), static_cast<const ScoreModel*>(&guided)}) {
    CHECK((m->has_energy() && m->has_jvp() && m->has_vjp()));
    MatrixD score(20, 2), s(20, 2), jv(20, 2), vj(20, 2), moved(y.view()), ahead(20, 2), behind(20, 2);
    std::vector<double> trace(20), e_ahead(20), e_behind(20);
    m->score(y, at, nullptr, score);
    m->jvp(y, at, nullptr, v, s, jv);
    for (Index i = 0; i < s.size(); ++i) CHECK(s.data()[i] == score.data()[i]);
    m->vjp(y, at, nullptr, v, s, vj);
    m->divergence(y, at, nullptr, s, trace);
    for (Index i = 0; i < s.size(); ++i) CHECK(s.data()[i] == score.data()[i]);
    const double h = 1e-4;  // central differences: h^2/6 of a third derivative (some 10), rounding 1e-16 10 / h
    for (Index i = 0; i < y.size(); ++i) moved.data()[i] = y.data()[i] + h * v.data()[i];
    m->score(moved, at, nullptr, ahead);
    m->energy(moved, at, nullptr, e_ahead);
    for (Index i = 0; i < y.size(); ++i) moved.data()[i] = y.data()[i] - h * v.data()[i];
    m->score(moved, at, nullptr, behind);
    m->energy(moved, at, nullptr, e_behind);
    std::vector<double> expected(20, 0.);
    for (Index d = 0; d < 2; ++d) {
      MatrixD up(y.view()), down(y.view()), a(20, 2), b(20, 2);
      for (Index r = 0; r < 20; ++r) up(r, d) += h, down(r, d) -= h;
      m->score(up, at, nullptr, a);
      m->score(down, at, nullptr, b);
      for (Index r = 0; r < 20; ++r) expected[static_cast<std::size_t>(r)] += (a(r, d) - b(r, d)) / (2 * h);
    }
    for (Index r = 0; r < 20; ++r) {
      double slope = 0;
      for (Index d = 0; d < 2; ++d) {
        CHECK(std::abs(jv(r, d) - (ahead(r, d) - behind(r, d)) / (2 * h)) < 1e-6);
        CHECK(std::abs(vj(r, d) - jv(r, d)) < 1e-9);
        slope += score(r, d) * v(r, d);
      }
      const auto b = static_cast<std::size_t>(r);
      CHECK(std::abs((e_ahead[b] - e_behind[b]) / (2 * h) - slope) < 1e-6);
      CHECK(std::abs(trace[b] - expected[b]) < 1e-6);
    }
  }
}

TEST_CASE("a sampler draws from the class, and further away from the other with more guidance") {
  const TwoClasses model;
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 20);
  const auto mean = [&](const ScoreModel& m) {
    const Samples s = annealed_langevin(m, levels, {.samples = 400, .steps_per_level = 20, .step_size_factor = .5}, Rng(1));
    double sum = 0;
    for (Index r = 0; r < 400; ++r) sum += static_cast<double>(s.x(r, 0));
    return sum / 400;
  };
  // Class 1 lies at x = 2, deviation .5: the mean of 400 has a standard error of .025; the chain's own bias is below .05.
  const double conditioned = mean(Conditioned(model, 1)), guided = mean(Guided(model, 3, 1));
  CHECK(std::abs(conditioned - 2) < .2);
  CHECK(guided > conditioned);
}

TEST_CASE("networks by label and covariates; what cannot be conditioned says what to train") {
  const ContinuousScoreNetwork net({.data_dim = 2, .hidden_dim = 8, .num_classes = 3, .covariate_dim = 2}, Rng(1));
  const std::vector<float> row = {.5f, -1}, longer = {1, 2, 3};
  const Conditioned conditioned(net, OwnedCondition(2, row));
  MatrixD y = points(), a(20, 2), b(20, 2);
  const double sigma = .7;
  const std::int32_t label = 2;
  const Condition condition{std::span(&label, 1), ConstRows<float>(row.data(), 1, 2)};
  conditioned.score(y, std::span(&sigma, 1), nullptr, a);
  net.score(y, std::span(&sigma, 1), &condition, b);
  for (Index i = 0; i < a.size(); ++i) CHECK(a.data()[i] == b.data()[i]);
  CHECK(refusal([&] { conditioned.score(y, std::span(&sigma, 1), &condition, a); }) != "accepted");
  CHECK(refusal([&] { Conditioned(net, OwnedCondition(3, row)); }).find("label 3") != std::string::npos);
  CHECK(refusal([&] { Conditioned(net, OwnedCondition(0, longer)); }).find("3 covariates") != std::string::npos);
  CHECK(refusal([&] { Conditioned(net, 1); }) != "accepted");
  CHECK(refusal([&] { Guided(net, 2, row); }) != "accepted");
  CHECK(refusal([&] { Guided(net, std::nan(""), OwnedCondition(0, row)); }) != "accepted");

  const NoiseConditionalScoreNetwork plain({.data_dim = 2, .hidden_dim = 4}, Rng(1));
  CHECK(refusal([&] { Guided(plain, 2, 1); }).find("--target") != std::string::npos);
  CHECK(refusal([&] { Conditioned(plain, row); }).find("covariate_dim") != std::string::npos);
}
