// precision_test.cpp - networks whose score in float is computed in bf16 or bf16x3: how far it is off, what stays, who refuses.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/energy_network.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/training_engine.h"

using namespace tweedie;
using kernels::Precision;

namespace {

constexpr Index kRows = 150;

Matrix rows_of(Index dim) {
  Matrix x(kRows, dim);
  Rng{5}.normals<float>(Purpose::prior, 0, 0, x);
  return x;
}

// A network of each kind with weights that are nowhere zero.
std::vector<std::unique_ptr<Network>> perceptrons() {
  std::vector<std::unique_ptr<Network>> nets;
  nets.push_back(std::make_unique<ScoreNetwork>(ScoreNetworkOptions{.data_dim = 2, .hidden_dim = 64}, Rng{1}));
  nets.push_back(std::make_unique<ContinuousScoreNetwork>(
      ContinuousNetworkOptions{.data_dim = 3, .hidden_dim = 64, .sigma_min = .01, .sigma_max = 10}, Rng{1}));
  for (const auto& net : nets) {
    Index i = 0;
    for (float& w : net->parameters()) w += ++i % 2 == 0 ? .01f : -.02f;
    net->parameters_changed();
  }
  return nets;
}

template <class S>
MatrixX<S> scores(const Network& net, const std::vector<S>& sigma) {
  const Matrix x = rows_of(net.dim());
  MatrixX<S> wide(kRows, net.dim()), out(kRows, net.dim());
  for (Index i = 0; i < x.size(); ++i) wide.data()[i] = static_cast<S>(x.data()[i]);
  net.score(wide, sigma, nullptr, out);
  return out;
}

template <class S>
bool same_bits(const MatrixX<S>& a, const MatrixX<S>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), sizeof(S) * static_cast<std::size_t>(a.size())) == 0;
}

double relative_error(const Matrix& found, const MatrixD& expected) {
  double error = 0, size = 0;
  for (Index i = 0; i < found.size(); ++i) {
    const double e = static_cast<double>(found.data()[i]) - expected.data()[i];
    error += e * e;
    size += expected.data()[i] * expected.data()[i];
  }
  return std::sqrt(error / size);
}

}  // namespace

TEST_CASE("a perceptron's float scores have the precision that is set; scores in double do not change") {
  for (const auto& net : perceptrons()) {
    CAPTURE(net->name());
    std::vector<float> each(kRows);  // levels, what lies between them, and the ends
    for (std::size_t r = 0; r < each.size(); ++r) each[r] = .05f + .04f * static_cast<float>(r);
    for (const std::vector<float>& sigma : {std::vector<float>{1.0f}, each}) {
      const std::vector<double> sigma_wide(sigma.begin(), sigma.end());
      const MatrixD exact = scores<double>(*net, sigma_wide);
      const Matrix fp32 = scores<float>(*net, sigma);
      net->set_precision(Precision::bf16);
      const Matrix bf16 = scores<float>(*net, sigma);
      CHECK(same_bits(scores<double>(*net, sigma_wide), exact));
      CHECK(same_bits(scores<float>(*net->clone(), sigma), bf16));
      net->set_precision(Precision::bf16x3);
      const Matrix bf16x3 = scores<float>(*net, sigma);
      net->set_precision(Precision::fp32);
      CHECK(same_bits(scores<float>(*net, sigma), fp32));
      // Operands err by 2^-8 at most; of EDM's score the network is only a part.
      CHECK(relative_error(bf16, exact) > 0x1p-17);
      CHECK(relative_error(bf16, exact) < 0x1p-7);
      CHECK(relative_error(bf16x3, exact) < relative_error(bf16, exact) / 32);
      CHECK(relative_error(fp32, exact) < 0x1p-18);
    }
  }
}

TEST_CASE("bf16 scores have the same bits for any threads and cut of the rows, and follow the target in use") {
  const int threads_before = threads();
  const kernels::Target target = kernels::target();
  for (const auto& net : perceptrons()) {
    net->set_precision(Precision::bf16);
    const float sigma = 1;
    set_threads(1);
    const Matrix whole = scores<float>(*net, {sigma});
    set_threads(3);
    CHECK(same_bits(scores<float>(*net, {sigma}), whole));
    const Matrix x = rows_of(net->dim());
    Matrix pieces(kRows, net->dim());
    for (Index first = 0; first < kRows; first += 7) {
      const Index rows = std::min<Index>(7, kRows - first);
      net->score(x.view().middle_rows(first, rows), {&sigma, 1}, nullptr, pieces.view().middle_rows(first, rows));
    }
    CHECK(same_bits(pieces, whole));
    kernels::set_target(kernels::Target::portable);
    CHECK(relative_error(scores<float>(*net, {sigma}), MatrixD(whole.view())) < 0x1p-7);
    kernels::set_target(target);
    CHECK(same_bits(scores<float>(*net, {sigma}), whole));
  }
  set_threads(threads_before);
}

TEST_CASE("networks that have fp32 alone say so, with the remedy; nothing trains in bf16") {
  ContinuousScoreNetwork residual({.data_dim = 2, .hidden_dim = 8, .num_layers = 2, .architecture = Architecture::residual},
                                  Rng{1});
  EnergyNetwork energy({.data_dim = 2, .hidden_dim = 8}, Rng{1});
  ScoreNetwork deep({.data_dim = 2, .hidden_dim = 4, .num_layers = kernels::Mlp::kMaxLayers + 1}, Rng{1});
  for (Network* net : std::initializer_list<Network*>{&residual, &energy, &deep}) {
    CAPTURE(net->name());
    for (const Precision precision : {Precision::bf16, Precision::bf16x3}) {
      CHECK_THROWS_WITH_AS(net->set_precision(precision), doctest::Contains("--net mlp"), UsageError);
    }
    net->set_precision(Precision::fp32);
    CHECK(net->precision() == Precision::fp32);
  }
  ScoreNetwork net({.data_dim = 2, .hidden_dim = 8}, Rng{1});
  CHECK_THROWS_WITH_AS(net.set_precision(Precision::tf32), doctest::Contains("choose fp32, bf16x3 or bf16"), UsageError);
  for (const char* precision : {"bf16", "bf16x3"}) {
    CHECK_THROWS_WITH_AS(make_training_step(net, {}, "cpu", precision), doctest::Contains("runs in fp32: give that"), UsageError);
  }
}
