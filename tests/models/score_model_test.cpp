// SPDX-License-Identifier: MIT
#include "tweedie/models/score_model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

using namespace tweedie;

namespace {
// The score of N(0, 1 + sigma^2).
void gaussian(ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
  for (Index r = 0; r < y.rows(); ++r) {
    const double s = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(r)];
    for (Index c = 0; c < y.cols(); ++c) out(r, c) = -y(r, c) / (1 + s * s);
  }
}

// Answers for sigma in [.01, 10] only, as a trained network does.
class Ranged final : public ScoreModel {
 public:
  Index dim() const override { return 1; }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const override {
    check_arguments(y, sigma, condition, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> out) const override {
    check_arguments(y, sigma, condition, out);
  }
  double sigma_min() const override { return .01; }
  double sigma_max() const override { return 10; }
  const char* name() const override { return "ranged"; }
};
}  // namespace

TEST_CASE("a lambda is a model, in float and double, in place or not, one sigma or one per row") {
  const FunctionScore model(2, gaussian);
  CHECK(model.dim() == 2);
  CHECK(std::string(model.name()) == "function");
  const MatrixD y{{1, 2}, {-3, .5}, {0, 4}};
  MatrixD out(3, 2);
  const double one[] = {2.};
  model.score(y, one, nullptr, out);
  CHECK(out(1, 0) == 3. / 5);
  const double each[] = {0., 1., 2.};
  MatrixD in_place = y;
  model.score(in_place, each, nullptr, in_place);
  CHECK(in_place(0, 1) == -2);
  CHECK(in_place(1, 0) == 1.5);
  CHECK(in_place(2, 1) == -4. / 5);

  const Matrix narrow{{1, 2}, {-3, .5f}, {0, 4}};
  Matrix narrow_out(3, 2);
  const float narrow_sigma[] = {2.f};
  model.score(narrow, narrow_sigma, nullptr, narrow_out);
  CHECK(narrow_out(1, 0) == .6f);
}

TEST_CASE("wrong shapes, conditions and functions are refused with the model's name") {
  const FunctionScore model(2, gaussian);
  MatrixD y(3, 2), out(3, 2);
  const double one[] = {1.}, two[] = {1., 2.}, three[] = {1., 2., 3.};
  CHECK_NOTHROW(model.score(y, three, nullptr, out));
  CHECK_THROWS_AS(model.score(y, two, nullptr, out), UsageError);
  CHECK_THROWS_AS(model.score(y, std::span<const double>{}, nullptr, out), UsageError);
  MatrixD wide(3, 3), tall(4, 2);
  CHECK_THROWS_AS(model.score(wide, one, nullptr, wide), UsageError);
  CHECK_THROWS_AS(model.score(y, one, nullptr, tall), UsageError);
  const std::int32_t label[] = {1};
  const Condition condition{label, {}}, nothing{};
  CHECK_NOTHROW(model.score(y, one, &nothing, out));
  CHECK_THROWS_WITH_AS(model.score(y, one, &condition, out), "function: this model takes no condition; pass nullptr", UsageError);
  const double negative[] = {-1.}, nan[] = {std::nan("")};
  CHECK_THROWS_AS(model.score(y, negative, nullptr, out), UsageError);
  CHECK_THROWS_AS(model.score(y, nan, nullptr, out), UsageError);
  CHECK_THROWS_AS(FunctionScore(0, gaussian), UsageError);
  CHECK_THROWS_AS(FunctionScore(2, nullptr), UsageError);
  CHECK_FALSE(model.has_log_density());
  double log_p[3];
  CHECK_THROWS_AS(model.log_density(y, one, nullptr, log_p), UsageError);
}

TEST_CASE("a range given in double admits its ends rounded to float") {
  const Ranged model;
  Matrix y(1, 1), out(1, 1);
  for (const float sigma : {.01f, 1.f, 10.f}) CHECK_NOTHROW(model.score(y, std::span(&sigma, 1), nullptr, out));
  for (const float sigma : {0.f, .009999f, 10.00001f})
    CHECK_THROWS_AS(model.score(y, std::span(&sigma, 1), nullptr, out), UsageError);
  MatrixD yd(1, 1), outd(1, 1);
  const double below = std::nextafter(.01, 0.), at = .01;
  CHECK_NOTHROW(model.score(yd, std::span(&at, 1), nullptr, outd));
  CHECK_THROWS_AS(model.score(yd, std::span(&below, 1), nullptr, outd), UsageError);
}
