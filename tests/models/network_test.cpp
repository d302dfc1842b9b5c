// network_test.cpp - what every network can do: its score's derivatives against differences; rows, threads, errors.
// SPDX-License-Identifier: MIT
#include "tweedie/models/network.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

MatrixD normal_matrix(Index rows, Index cols, std::uint64_t seed) {
  MatrixD m(rows, cols);
  Rng(seed).normals(Purpose::user, 0, 0, m.view());
  return m;
}

bool same_bits(const MatrixD& a, const MatrixD& b) {
  return std::memcmp(a.data(), b.data(), sizeof(double) * static_cast<std::size_t>(a.size())) == 0;
}

// Jacobians (B, D, D) of the score by the five-point difference, whose error is h^4/30 of the fifth derivative and u/h of s.
std::vector<MatrixD> jacobians(const ScoreModel& model, const MatrixD& y, std::span<const double> sigma) {
  const Index rows = y.rows(), dim = y.cols();
  std::vector<MatrixD> result(static_cast<std::size_t>(rows), MatrixD(dim, dim));
  MatrixD moved = y, out(rows, dim);
  for (Index d = 0; d < dim; ++d) {
    for (const auto& [step, weight] : {std::pair(1., 8.), {-1., -8.}, {2., -1.}, {-2., 1.}}) {
      const double at = step, w = weight;
      const auto h = [&](Index b) { return 1e-3 * std::min(1., sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(b)]); };
      for (Index b = 0; b < rows; ++b) moved(b, d) = y(b, d) + at * h(b);
      model.score(moved, sigma, nullptr, out);
      for (Index b = 0; b < rows; ++b) {
        for (Index i = 0; i < dim; ++i) result[static_cast<std::size_t>(b)](i, d) += w * out(b, i) / (12 * h(b));
      }
    }
    for (Index b = 0; b < rows; ++b) moved(b, d) = y(b, d);
  }
  return result;
}

struct Derivatives {
  MatrixD jvp, vjp;
  std::vector<double> trace;
};

Derivatives derivatives(const ScoreModel& model, const MatrixD& y, std::span<const double> sigma, const MatrixD& v) {
  Derivatives d{MatrixD(y.rows(), y.cols()), MatrixD(y.rows(), y.cols()),
                std::vector<double>(static_cast<std::size_t>(y.rows()))};
  MatrixD s(y.rows(), y.cols()), score(y.rows(), y.cols());
  model.score(y, sigma, nullptr, score);
  const auto near_score = [&] {
    for (Index b = 0; b < y.rows(); ++b) {
      const double scale = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(b)];
      for (Index i = 0; i < y.cols(); ++i) CHECK(std::abs(s(b, i) - score(b, i)) * scale < 1e-12);
    }
  };
  model.jvp(y, sigma, nullptr, v, s, d.jvp);
  near_score();
  model.vjp(y, sigma, nullptr, v, s, d.vjp);
  near_score();
  model.divergence(y, sigma, nullptr, s, d.trace);
  near_score();
  return d;
}

}  // namespace

TEST_CASE("jvp, vjp and divergence against differences, at the levels and between them") {
  const NoiseConditionalScoreNetwork net({.data_dim = 3, .hidden_dim = 20, .num_noise_levels = 5}, Rng(1));
  const Index rows = 70;  // more than one block
  const MatrixD y = normal_matrix(rows, 3, 2), v = normal_matrix(rows, 3, 3);
  std::vector<double> sigma;
  for (Index b = 0; b < rows; ++b) {
    const double between = .01 * std::pow(1000., Rng(4).uniform(Purpose::user, 0, static_cast<std::uint64_t>(b)));
    sigma.push_back(b % 2 == 0 ? (*net.levels())[b / 2 % 5] : between);
  }
  const std::vector<MatrixD> expected = jacobians(net, y, sigma);
  const Derivatives found = derivatives(net, y, sigma, v);
  double traces = 0;
  for (Index b = 0; b < rows; ++b) {
    const MatrixD& j = expected[static_cast<std::size_t>(b)];
    // u = sigma s is a smooth function of order 1 over the scale of 1; steps of 1e-3 sigma (at sigma < 1) cost it
    // u / (1e-3 sigma) = 1e-13 / sigma by rounding, and (1e-3)^4 / 30 by truncation: sigma J is good to 1e-10 at sigma >= .01.
    const double s = sigma[static_cast<std::size_t>(b)], allowed = 1e-9;
    double trace = 0;
    for (Index i = 0; i < 3; ++i) {
      double jv = 0, vj = 0;
      for (Index k = 0; k < 3; ++k) jv += j(i, k) * v(b, k), vj += j(k, i) * v(b, k);
      CHECK(std::abs(found.jvp(b, i) - jv) * s < allowed);
      CHECK(std::abs(found.vjp(b, i) - vj) * s < allowed);
      trace += j(i, i);
    }
    CHECK(std::abs(found.trace[static_cast<std::size_t>(b)] - trace) * s < allowed);
    traces += std::abs(trace) * s / static_cast<double>(rows);
  }
  CHECK(traces > 1e-3);  // there was something to find
}

TEST_CASE("derivatives of a row depend on that row alone, whatever the threads, cuts and strides") {
  const NoiseConditionalScoreNetwork net({.data_dim = 2, .hidden_dim = 16, .num_noise_levels = 5}, Rng(1));
  const Index rows = 200;
  const MatrixD y = normal_matrix(rows, 2, 2), v = normal_matrix(rows, 2, 3);
  const double sigma = .3;
  const Derivatives whole = derivatives(net, y, std::span(&sigma, 1), v);
  const int before = threads();
  for (const int n : {1, 3}) {
    set_threads(n);
    const Derivatives again = derivatives(net, y, std::span(&sigma, 1), v);
    CHECK(same_bits(again.jvp, whole.jvp));
    CHECK(same_bits(again.vjp, whole.vjp));
    CHECK(again.trace == whole.trace);
  }
  set_threads(before);
  MatrixD score(1, 2), jv(1, 2), wide(rows, 5);
  for (const Index b : {Index{0}, Index{63}, Index{64}, Index{199}}) {
    for (Index c = 0; c < 2; ++c) wide(b, 3 + c) = y(b, c);
    double trace = 0;
    net.jvp(wide.view().middle_cols(3, 2).middle_rows(b, 1), std::span(&sigma, 1), nullptr, v.middle_rows(b, 1), score, jv);
    CHECK(std::memcmp(jv.data(), whole.jvp.row(b).data(), 2 * sizeof(double)) == 0);
    net.divergence(y.middle_rows(b, 1), std::span(&sigma, 1), nullptr, score, std::span(&trace, 1));
    CHECK(trace == whole.trace[static_cast<std::size_t>(b)]);
  }
}

TEST_CASE("derivatives follow the parameters") {
  NoiseConditionalScoreNetwork net({.data_dim = 2, .hidden_dim = 8}, Rng(1));
  const MatrixD y = normal_matrix(3, 2, 2);
  const double sigma = .3;
  const Derivatives first = derivatives(net, y, std::span(&sigma, 1), y);
  for (float& p : net.parameters()) p *= .5f;
  net.parameters_changed();
  CHECK_FALSE(same_bits(derivatives(net, y, std::span(&sigma, 1), y).jvp, first.jvp));
}

TEST_CASE("derivatives refuse what does not fit, by name") {
  const NoiseConditionalScoreNetwork net({.data_dim = 2, .hidden_dim = 8}, Rng(1));
  CHECK(net.has_jvp());
  CHECK(net.has_vjp());
  MatrixD y(3, 2), score(3, 2), out(3, 2), narrow(3, 1);
  const double one = 1, beyond = 11;
  std::vector<double> trace(3), few(2);
  const std::span<const double> sigma(&one, 1);
  CHECK_THROWS_AS(net.jvp(y, sigma, nullptr, narrow, score, out), UsageError);
  CHECK_THROWS_AS(net.jvp(y, sigma, nullptr, y, narrow, out), UsageError);
  CHECK_THROWS_AS(net.jvp(y, sigma, nullptr, y, score, narrow), UsageError);
  CHECK_THROWS_AS(net.vjp(y, sigma, nullptr, narrow, score, out), UsageError);
  CHECK_THROWS_AS(net.vjp(y, std::span(&beyond, 1), nullptr, y, score, out), UsageError);
  CHECK_THROWS_AS(net.divergence(y, sigma, nullptr, score, few), UsageError);
  const std::int32_t label = 0;
  const Condition condition{std::span(&label, 1), {}};
  CHECK_THROWS_AS(net.divergence(y, sigma, &condition, score, trace), UsageError);
  net.divergence(y, sigma, nullptr, score, trace);  // usable after the errors
  MatrixD none(0, 2);
  net.jvp(none, sigma, nullptr, none, none, none);
}

TEST_CASE("an exact mixture's energy is its log-density; a network without one says what to use") {
  const GaussianMixture mixture = GaussianMixture::two_mode();
  const MatrixD y = normal_matrix(5, 2, 2);
  const double sigma = .3;
  std::vector<double> energy(5);
  CHECK(mixture.has_energy());
  mixture.energy(y, std::span(&sigma, 1), nullptr, energy);
  CHECK(energy == mixture.log_density(y, sigma));
  const NoiseConditionalScoreNetwork net({.data_dim = 2, .hidden_dim = 8}, Rng(1));
  CHECK_FALSE(net.has_energy());
  try {
    net.energy(y, std::span(&sigma, 1), nullptr, energy);
    FAIL("accepted");
  } catch (const UsageError& error) {
    CHECK(std::string(error.what()).find("EnergyNetwork") != std::string::npos);
  }
}
