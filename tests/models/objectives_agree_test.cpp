// Trained at one fixed sigma, every objective comes to the same score (bench/study_objectives.cpp has the same for networks).
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "tweedie/autodiff/ops.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

constexpr double kSigma = .5;

// u = x W^T at one level, D = 2.
class Linear final : public Network {
 public:
  Linear() : Network(layout_of()) {}
  Index dim() const override { return 2; }
  double sigma_min() const override { return kSigma; }
  double sigma_max() const override { return kSigma; }
  const NoiseLevels* levels() const override { return &level_; }
  void score(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const override { fail("not used"); }
  void score(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const override { fail("not used"); }
  const char* name() const override { return "linear"; }
  void parameters_changed() override {}
  void initialise(Rng) override {}
  Var scaled_score(Tape&, std::span<const Var> p, Var x, const NoiseInput<float>&) const override { return matmul_nt(x, p[0]); }
  VarD scaled_score(TapeD&, std::span<const VarD> p, VarD x, const NoiseInput<double>&) const override {
    return matmul_nt(x, p[0]);
  }
  Strings config() const override { return {}; }
  std::unique_ptr<Network> clone() const override { return std::make_unique<Linear>(); }

 private:
  static ParameterLayout layout_of() {
    ParameterLayout layout;
    layout.add("w", {2, 2});
    return layout;
  }
  NoiseLevels level_{{kSigma}};
};

}  // namespace

TEST_CASE("explicit, sliced and denoising score matching train to the same score of a Gaussian") {
  // x0 = (z0, .5 z0 + .7 z1): C + sigma^2 I = [1.25 .5; .5 .99], and u = -sigma (C + sigma^2 I)^-1 x.
  const FreshRows draw = [](std::uint64_t first_row, Rows<float> out) {
    Rng{6}.normals(Purpose::user, 0, first_row, out);
    for (Index r = 0; r < out.rows(); ++r) out(r, 1) = .5F * out(r, 0) + .7F * out(r, 1);
  };
  const double determinant = 1.25 * .99 - .25;
  const double expected[] = {-kSigma * .99 / determinant, kSigma * .5 / determinant, kSigma * .5 / determinant,
                             -kSigma * 1.25 / determinant};
  std::vector<Objective> objectives = {Denoising{}, Explicit{}, Denoising{Weighting::v}};
  for (const bool reduced : {false, true}) {
    for (const Projection p : {Projection::unit, Projection::gaussian, Projection::rademacher}) {
      objectives.push_back(Sliced{p, reduced});
    }
  }
  for (const Objective& objective : objectives) {
    CAPTURE(describe(objective));
    Linear net;
    train(net, draw,
          {.objective = objective, .steps = 800, .batch = 256, .learning_rate = .02, .schedule = {.kind = LearningRate::cosine}},
          Rng{2});
    // Some 400 steps of 256 rows count in the end: a standard error of .003 times the deviation of a row's gradient, which is
    // below 4 here: .075 is six of them. s/D, what a wrong normalisation gives, is .25 off and more.
    for (std::size_t i = 0; i < 4; ++i) {
      CAPTURE(i);
      CHECK(std::abs(static_cast<double>(net.parameters()[i]) - expected[i]) < .075);
    }
  }
}
