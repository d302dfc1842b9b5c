// device_score_test.cpp - a network on a device that computes by the definitions is the network.
// SPDX-License-Identifier: MIT
#include "tweedie/models/device_score.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "support/device_networks.h"
#include "support/reference_device.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/detail/device_score.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;
using kernels::Precision;
using testing::filled;
using testing::ReferenceDevice;

namespace {

constexpr double kU = 0x1p-24;  // of float
constexpr Index kDim = 3, kRows = 17, kWidth = 16;

std::unique_ptr<NoiseConditionalScoreNetwork> chapter() {
  return filled(
      std::make_unique<NoiseConditionalScoreNetwork>(
          ScoreNetworkOptions{
              .data_dim = kDim, .hidden_dim = kWidth, .num_layers = 3, .num_noise_levels = 4, .sigma_min = .1, .sigma_max = 2},
          Rng(1)),
      .3f);
}

std::unique_ptr<ContinuousScoreNetwork> continuous(Parametrisation parametrisation, Index classes = 0, Index covariates = 0,
                                                   Architecture architecture = Architecture::mlp) {
  return filled(std::make_unique<ContinuousScoreNetwork>(ContinuousNetworkOptions{.data_dim = kDim,
                                                                                  .hidden_dim = kWidth,
                                                                                  .num_layers = 3,
                                                                                  .architecture = architecture,
                                                                                  .num_frequencies = 4,
                                                                                  .embedding_dim = 8,
                                                                                  .parametrisation = parametrisation,
                                                                                  .sigma_min = .1,
                                                                                  .sigma_max = 2,
                                                                                  .num_classes = classes,
                                                                                  .covariate_dim = covariates},
                                                         Rng(2)),
                .3f);
}

template <class S>
MatrixX<S> draw(Index rows, std::uint32_t step) {
  MatrixX<S> x(rows, kDim);
  Rng(9).normals<S>(Purpose::user, step, 0, x);
  return x;
}

// sigmas of kRows rows: levels of chapter() and places between them.
template <class S>
std::vector<S> mixed_sigmas() {
  std::vector<S> sigma;
  for (Index r = 0; r < kRows; ++r) {
    sigma.push_back(static_cast<S>(r % 4 == 0 ? 2 : r % 4 == 1 ? .1 : .1 + .11 * static_cast<double>(r)));
  }
  return sigma;
}

double largest(ConstRows<double> x) {
  double most = 0;
  for (Index r = 0; r < x.rows(); ++r) {
    for (const double v : x.row(r)) most = std::max(most, std::abs(v));
  }
  return most;
}

template <class S>
double difference(ConstRows<S> a, ConstRows<double> b) {
  double most = 0;
  for (Index r = 0; r < a.rows(); ++r) {
    for (Index c = 0; c < a.cols(); ++c) most = std::max(most, std::abs(static_cast<double>(a(r, c)) - b(r, c)));
  }
  return most;
}

// Float: the input and the bias rounded once, F once, three operations around it. The weights have standard deviation .3 in
// layers of 16, so that each layer multiplies a difference by about |W| <= .3 (4 + 4) = 2.4 [largest singular value of a 16 x 16
// normal matrix] and the last by 1.8: 2u (1 + 2.4 + 2.4^2) 1.8 + 4u < 40 u of the largest numbers on the way.
constexpr double kFloat = 40 * kU;
// Double: 53 bits, the sums of 16 terms in other orders.
constexpr double kDouble = 1e-13;

struct Call {
  const char* what;
  std::vector<double> sigma;
  const Condition* condition = nullptr;
};

void agree(const Network& net, const ScoreModel& there, const Call& call) {
  CAPTURE(net.name());
  CAPTURE(call.what);
  const MatrixD y = draw<double>(kRows, 0), v = draw<double>(kRows, 1);
  const Matrix narrow{ConstRows<double>(y.view())};
  const MatrixD y_narrow{ConstRows<float>(narrow.view())};
  const std::vector<float> sigma(call.sigma.begin(), call.sigma.end());
  const std::vector<double> sigma_narrow(sigma.begin(), sigma.end());

  MatrixD expected(kRows, kDim), found(kRows, kDim);
  Matrix single(kRows, kDim);
  net.score(y_narrow, sigma_narrow, call.condition, expected);
  there.score(narrow, sigma, call.condition, single);
  const double scale = std::max(1., largest(expected));
  CHECK(difference<float>(single, expected) <= kFloat * scale);
  Matrix in_place(narrow);
  there.score(in_place, sigma, call.condition, in_place);
  CHECK(std::equal(in_place.data(), in_place.data() + in_place.size(), single.data()));

  net.score(y, call.sigma, call.condition, expected);
  there.score(y, call.sigma, call.condition, found);
  CHECK(difference<double>(found, expected) <= kDouble * scale);

  MatrixD product(kRows, kDim), found_product(kRows, kDim);
  net.jvp(y, call.sigma, call.condition, v, expected, product);
  there.jvp(y, call.sigma, call.condition, v, found, found_product);
  CHECK(difference<double>(found, expected) <= kDouble * scale);
  CHECK(difference<double>(found_product, product) <= 10 * kDouble * std::max(scale, largest(product)));

  std::vector<double> trace(kRows), found_trace(kRows);
  net.divergence(y, call.sigma, call.condition, expected, trace);
  there.divergence(y, call.sigma, call.condition, found, found_trace);
  CHECK(difference<double>(found, expected) <= kDouble * scale);
  for (std::size_t r = 0; r < trace.size(); ++r) {
    CHECK(found_trace[r] == doctest::Approx(trace[r]).epsilon(10 * kDouble * std::max(1., scale)));
  }
}

// The network there, the calls counted from now on.
std::unique_ptr<ScoreModel> placed(const Network& net, const std::shared_ptr<ReferenceDevice>& device) {
  std::unique_ptr<ScoreModel> there = detail::on_device(net, device, kernels::Precision::fp32);
  device->forwards = 0;
  return there;
}

}  // namespace

TEST_CASE("device score: values and derivatives are the network's") {
  const auto device = std::make_shared<ReferenceDevice>();
  {
    const auto net = chapter();
    const auto there = placed(*net, device);
    CHECK(there->dim() == kDim);
    CHECK(there->sigma_min() == net->sigma_min());
    CHECK(there->sigma_max() == net->sigma_max());
    agree(*net, *there, {"a level", {(*net->levels())[1]}});
    agree(*net, *there, {"between two levels", {.7}});
    agree(*net, *there, {"every row its own", mixed_sigmas<double>()});
  }
  for (const Parametrisation p :
       {Parametrisation::edm, Parametrisation::score, Parametrisation::epsilon, Parametrisation::x0, Parametrisation::v}) {
    const auto net = continuous(p);
    const auto there = placed(*net, device);
    agree(*net, *there, {"one sigma", {.5}});
    agree(*net, *there, {"every row its own", mixed_sigmas<double>()});
  }
  CHECK(device->blocks == 0);
}

TEST_CASE("device score: conditions, one for all rows or one a row") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = continuous(Parametrisation::edm, 3, 2);
  const auto there = placed(*net, device);
  CHECK(there->num_classes() == 3);
  CHECK(there->covariate_dim() == 2);
  std::vector<std::int32_t> labels;
  for (Index r = 0; r < kRows; ++r) labels.push_back(static_cast<std::int32_t>(r % 3));
  Matrix covariates(kRows, 2);
  Rng(3).normals<float>(Purpose::user, 0, 0, covariates);
  const Condition each{labels, covariates},
      one{std::span(labels).subspan(1, 1), ConstRows<float>(covariates.view()).middle_rows(4, 1)};
  agree(*net, *there, {"none", {.5}});
  agree(*net, *there, {"one for all", {.5}, &one});
  agree(*net, *there, {"one a row", {.5}, &each});
  agree(*net, *there, {"one a row, noise too", mixed_sigmas<double>(), &each});
  Matrix x(kRows, kDim);
  std::vector<std::int32_t> diverged(kRows);
  const LinearStep step{.sigma = .5, .x_s = .1};
  CHECK_NOTHROW(there->run_chain({.steps = {&step, 1}, .bound = 1e6}, &one, x, {}, diverged));
  CHECK_THROWS_AS(there->run_chain({.steps = {&step, 1}, .bound = 1e6}, &each, x, {}, diverged), UsageError);
}

TEST_CASE("device score: rows beyond a block, and from many threads") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = continuous(Parametrisation::edm);
  const auto there = placed(*net, device);
  const Index many = 2 * 4096 + 3;  // blocks of rows with noise of their own
  const Matrix y = draw<float>(many, 0);
  std::vector<float> sigma;
  for (Index r = 0; r < many; ++r) sigma.push_back(.1f + 1.9f * static_cast<float>(r) / static_cast<float>(many));
  Matrix whole(many, kDim), parts(many, kDim);
  there->score(y, sigma, nullptr, whole);
  CHECK(device->forwards == 3);
  set_threads(4);
  parallel_for(many, 1000, [&](Index begin, Index end) {
    const auto first = static_cast<std::size_t>(begin), count = static_cast<std::size_t>(end - begin);
    there->score(y.middle_rows(begin, end - begin), std::span<const float>(sigma).subspan(first, count), nullptr,
                 parts.middle_rows(begin, end - begin));
  });
  set_threads(0);
  CHECK(std::equal(whole.data(), whole.data() + whole.size(), parts.data()));
}

TEST_CASE("device score: a chain is its steps one by one") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto net = continuous(Parametrisation::edm);
  const auto there = placed(*net, device);
  const std::vector<LinearStep> steps = {
      {.sigma = 1.5, .x_s = .4, .x_z = .3, .draw = 7},
      {.sigma = 1.5, .input = .5, .x_x = .9, .x_s = .2, .m_x = 1, .m_s = .3, .draw = 8},
      {.sigma = .4, .x_z = .2, .m_m = 1, .draw = 9},
      {.sigma = .4, .x_x = .2, .x_s = .05, .x_m = .7, .x_z = .1, .m_x = -.2, .m_s = .1, .m_m = .5, .draw = 10}};
  const std::vector<double> sigmas = {1.5, .4};
  REQUIRE(there->has_chain(sigmas));
  const Rng rng(77);
  constexpr std::uint64_t kFirst = 1000;
  MatrixD x = draw<double>(kRows, 3), m(kRows, kDim), s(kRows, kDim), z(kRows, kDim);
  Matrix at{ConstRows<double>(x.view())}, memory(kRows, kDim);
  for (const LinearStep& step : steps) {
    MatrixD input = x;
    for (Index i = 0; i < x.size(); ++i) input.data()[i] *= step.input;
    net->score(input, std::span(&step.sigma, 1), nullptr, s);
    rng.normals<double>(Purpose::sde, step.draw, kFirst, z);
    for (Index i = 0; i < x.size(); ++i) {
      const double old = x.data()[i], before = m.data()[i];
      x.data()[i] = step.x_x * old + step.x_s * s.data()[i] + step.x_m * before + step.x_z * z.data()[i];
      m.data()[i] = step.m_x * old + step.m_s * s.data()[i] + step.m_m * before;
    }
  }
  std::vector<std::int32_t> diverged(kRows);
  there->run_chain({steps, Purpose::sde, rng.key(), kFirst, 1e6}, nullptr, at, memory, diverged);
  // The four steps' roundings of the state, and the scores'.
  const double tolerance = 4 * (kFloat + 4 * kU) * std::max({1., largest(s), largest(x)});
  CHECK(difference<float>(at, x) <= tolerance);
  CHECK(difference<float>(memory, m) <= tolerance);
  CHECK(std::all_of(diverged.begin(), diverged.end(), [](std::int32_t t) { return t == 4; }));
  CHECK(device->chain_runs == 1);

  // In two pieces with the memory between.
  Matrix again = draw<float>(kRows, 3), kept(kRows, kDim);
  const std::span<const LinearStep> all(steps);
  there->run_chain({all.first(3), Purpose::sde, rng.key(), kFirst, 1e6}, nullptr, again, kept, diverged);
  there->run_chain({all.subspan(3), Purpose::sde, rng.key(), kFirst, 1e6}, nullptr, again, kept, diverged);
  CHECK(std::equal(again.data(), again.data() + again.size(), at.data()));
  CHECK(std::equal(kept.data(), kept.data() + kept.size(), memory.data()));

  // Rows that leave the bound say when.
  const LinearStep grow{.sigma = .4, .x_x = 10, .x_s = .01};
  const std::vector<LinearStep> growing(3, grow);
  Matrix three(3, kDim);
  three(1, 0) = 50;
  three(2, 0) = 5000;
  std::vector<std::int32_t> when(3);
  there->run_chain({growing, Purpose::sde, 0, 0, 1e4}, nullptr, three, {}, when);
  CHECK(when == std::vector<std::int32_t>{3, 2, 0});
}

TEST_CASE("device score: what it refuses") {
  const auto device = std::make_shared<ReferenceDevice>();
  const auto residual = continuous(Parametrisation::edm, 0, 0, Architecture::residual);
  CHECK_THROWS_WITH_AS(detail::on_device(*residual, device, Precision::fp32), doctest::Contains("--net mlp"), UsageError);
  const EnergyNetwork energy({.data_dim = kDim, .hidden_dim = 8}, Rng(1));
  CHECK_THROWS_AS(detail::on_device(energy, device, Precision::fp32), UsageError);
  const NoiseConditionalScoreNetwork deep({.data_dim = kDim, .hidden_dim = 4, .num_layers = 17}, Rng(1));
  CHECK_THROWS_AS(detail::on_device(deep, device, Precision::fp32), UsageError);

  const auto net = chapter();
  const auto there = placed(*net, device);
  Matrix y(4, kDim), out(4, kDim);
  MatrixD yd(4, kDim), outd(4, kDim);
  std::vector<std::int32_t> diverged(4);
  const float level = .1f, outside = 3.f;
  const double wide = .1;
  CHECK_THROWS_AS(there->score(Matrix(4, 2), std::span(&level, 1), nullptr, out), UsageError);
  CHECK_THROWS_AS(there->score(y, std::span(&outside, 1), nullptr, out), UsageError);
  CHECK_THROWS_AS(there->jvp(yd, std::span(&wide, 1), nullptr, MatrixD(3, kDim), outd, outd), UsageError);
  CHECK_FALSE(there->has_vjp());
  CHECK_THROWS_WITH_AS(there->vjp(yd, std::span(&wide, 1), nullptr, yd, outd, outd), doctest::Contains("--device cpu"),
                       UsageError);
  const std::vector<double> levels(net->levels()->values().begin(), net->levels()->values().end()), between = {.7};
  CHECK(there->has_chain(levels));
  CHECK_FALSE(there->has_chain(between));
  const LinearStep step{.sigma = .7, .x_s = .1};
  CHECK_THROWS_AS(there->run_chain({.steps = {&step, 1}, .bound = 1}, nullptr, y, {}, diverged), UsageError);
  CHECK_THROWS_AS(there->run_chain({.steps = {}, .bound = 1}, nullptr, y, Matrix(3, kDim), diverged), UsageError);
  CHECK_THROWS_AS(net->run_chain({.steps = {}, .bound = 1}, nullptr, y, {}, diverged), UsageError);
  device->chains = false;
  CHECK_FALSE(there->has_chain(levels));
  Matrix none(0, kDim);
  CHECK_NOTHROW(there->score(none, std::span(&level, 1), nullptr, none));
}

TEST_CASE("device score: devices by name") {
  const auto net = chapter();
  for (const char* name : {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CUDA", ""}) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(on_device(*net, name), doctest::Contains("cuda:N"), UsageError);
  }
  CHECK_THROWS_AS(on_device(*net, "cuda:99"), ResourceError);
  const auto residual = continuous(Parametrisation::edm, 0, 0, Architecture::residual);
  CHECK_THROWS_AS(on_device(*residual, "cuda:99"), UsageError);
}
