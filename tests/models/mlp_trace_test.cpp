// The trace of the Jacobian by forward mode against reverse mode on the tape, and its bits.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

struct Found {
  MatrixD score;
  std::vector<double> trace;
};

MatrixD rows_of(Index rows, Index dim) {
  MatrixD y(rows, dim);
  Rng{3}.normals<double>(Purpose::dataset, 0, 0, y.view());
  return y;
}

std::vector<double> sigmas(const Network& net, Index rows) {
  std::vector<double> sigma;
  for (Index r = 0; r < rows; ++r) {
    const double part = static_cast<double>(r) / static_cast<double>(rows);
    sigma.push_back(net.sigma_max() * std::pow(net.sigma_min() / net.sigma_max(), part));  // the ends, levels and between
  }
  return sigma;
}

// The largest difference of scores and traces to those on the tape, as parts of what a row's terms amount to.
double worst(const Network& net, const MatrixD& y, std::span<const double> sigma, const Condition* condition) {
  const Index rows = y.rows(), dim = y.cols();
  Found fast{MatrixD(rows, dim), std::vector<double>(static_cast<std::size_t>(rows))}, tape = fast;
  net.divergence(y, sigma, condition, fast.score, fast.trace);
  net.Network::divergence(y, sigma, condition, tape.score, tape.trace);
  double error = 0, largest = 0;
  for (Index r = 0; r < rows; ++r) {
    const double s = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(r)];
    for (Index d = 0; d < dim; ++d) error = std::max(error, s * std::abs(fast.score(r, d) - tape.score(r, d)));
    const auto i = static_cast<std::size_t>(r);
    error = std::max(error, s * std::abs(fast.trace[i] - tape.trace[i]) / static_cast<double>(dim));
    largest = std::max(largest, s * std::abs(tape.trace[i]));
  }
  CHECK(largest > 1e-3);  // there is a trace to find
  return error;
}

}  // namespace

// sigma s and sigma tr(ds/dy) / D are of order one; sums of up to 530 products of order one, through six layers, in double.
constexpr double kRounding = 1e-12;

TEST_CASE("forward mode gives the tape's divergence: the chapter's network, at its levels and between") {
  for (const Index dim : {1, 2, 7, 40, 400}) {
    for (const Index layers : {2, 3, 5}) {
      const NoiseConditionalScoreNetwork net({.data_dim = dim, .hidden_dim = 37, .num_layers = layers, .num_noise_levels = 6},
                                             Rng(1));
      const Index rows = dim > 100 ? 5 : 150;
      const MatrixD y = rows_of(rows, dim);
      CAPTURE(dim);
      CAPTURE(layers);
      CHECK(worst(net, y, sigmas(net, rows), nullptr) < kRounding);
      const double level = (*net.levels())[3];
      CHECK(worst(net, y, std::span(&level, 1), nullptr) < kRounding);
    }
  }
}

TEST_CASE("forward mode gives the tape's divergence: an mlp for any sigma, conditions and all, and a residual network") {
  for (const Architecture architecture : {Architecture::mlp, Architecture::residual}) {
    for (const Parametrisation parametrisation : {Parametrisation::edm, Parametrisation::epsilon, Parametrisation::v}) {
      ContinuousScoreNetwork net({.data_dim = 3,
                                  .hidden_dim = 29,
                                  .architecture = architecture,
                                  .parametrisation = parametrisation,
                                  .sigma_min = .02,
                                  .sigma_max = 5,
                                  .num_classes = 2,
                                  .covariate_dim = 1},
                                 Rng(2));
      Matrix weights(1, net.layout().size());  // a new network's last layer is zero
      Rng{4}.normals<float>(Purpose::dataset, 0, 0, weights.view());
      for (Index i = 0; i < weights.size(); ++i) net.parameters()[static_cast<std::size_t>(i)] += .1f * weights.data()[i];
      net.parameters_changed();
      const Index rows = 140;
      const MatrixD y = rows_of(rows, 3);
      std::vector<std::int32_t> labels;
      for (Index r = 0; r < rows; ++r) labels.push_back(static_cast<std::int32_t>(r % 2));
      Matrix covariates(rows, 1);
      for (Index r = 0; r < rows; ++r) covariates(r, 0) = .01f * static_cast<float>(r);
      const Condition each{labels, covariates}, one{std::span(labels).first(1), covariates.view().middle_rows(0, 1)};
      const double level = .3;
      CHECK(worst(net, y, sigmas(net, rows), &each) < kRounding);
      CHECK(worst(net, y, std::span(&level, 1), &one) < kRounding);
      CHECK(worst(net, y, std::span(&level, 1), nullptr) < kRounding);
    }
  }
}

TEST_CASE("forward mode's bits depend neither on threads nor on where the rows are cut") {
  const ContinuousScoreNetwork any({.data_dim = 2, .hidden_dim = 24}, Rng(5));
  const NoiseConditionalScoreNetwork chapter({.data_dim = 2, .hidden_dim = 24}, Rng(6));
  const Index rows = 300;
  const MatrixD y = rows_of(rows, 2);
  const int before = threads();
  for (const Network* net : {static_cast<const Network*>(&any), static_cast<const Network*>(&chapter)}) {
    const std::vector<double> sigma = sigmas(*net, rows);
    const auto divergence = [&](Index first, Index count) {
      Found found{MatrixD(count, 2), std::vector<double>(static_cast<std::size_t>(count))};
      net->divergence(y.view().middle_rows(first, count),
                      std::span(sigma).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)), nullptr,
                      found.score, found.trace);
      return found;
    };
    set_threads(1);
    const Found whole = divergence(0, rows);
    for (const int n : {2, 4}) {
      set_threads(n);
      CHECK(divergence(0, rows).trace == whole.trace);
    }
    for (const Index first : {Index{1}, Index{127}, Index{128}, Index{200}}) {
      const Found part = divergence(first, 90);
      for (Index r = 0; r < 90; ++r) {
        CHECK(part.trace[static_cast<std::size_t>(r)] == whole.trace[static_cast<std::size_t>(first + r)]);
        for (Index d = 0; d < 2; ++d) CHECK(part.score(r, d) == whole.score(first + r, d));
      }
    }
  }
  set_threads(before);
}
