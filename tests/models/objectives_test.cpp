// SPDX-License-Identifier: MIT
#include "tweedie/models/objectives.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

const std::vector<Objective>& all_objectives() {
  static const std::vector<Objective> all = {
      Denoising{},
      Denoising{Weighting::plain},
      Explicit{},
      Explicit{Weighting::plain},
      Sliced{},
      Sliced{Projection::gaussian, false, 2},
      Sliced{Projection::rademacher, true, 1},
      Sliced{Projection::unit, true, 3, Weighting::plain},
  };
  return all;
}

BatchD batch_of(const Objective& objective, ConstRows<double> data, const NoiseLevels& levels, const Rng& rng,
                SigmaSampling sampling = SigmaSampling::levels, std::uint32_t step = 0) {
  BatchD batch = perturb(data, levels, rng, {.sampling = sampling, .step = step});
  draw_directions(objective, rng, {.step = step}, batch);
  return batch;
}

MatrixD normals(const Rng& rng, Index rows, Index cols, std::uint32_t step = 0) {
  MatrixD z(rows, cols);
  rng.normals(Purpose::user, step, 0, z.view());
  return z;
}

struct MeanAndError {
  double mean = 0, error = 0;  // standard error of the mean
};
MeanAndError mean_and_error(const std::vector<double>& values) {
  double sum = 0, square = 0;
  for (const double v : values) sum += v;
  const auto n = static_cast<double>(values.size());
  const double mean = sum / n;
  for (const double v : values) square += (v - mean) * (v - mean);
  return {mean, std::sqrt(square / (n * (n - 1)))};
}
std::vector<double> values_of(VarD rows) {
  const ConstRows<double> v = rows.value();
  return {v.data(), v.data() + v.size()};
}

}  // namespace

TEST_CASE("a batch is the data plus its own noise at one of the levels") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  const Rng rng{5};
  const Matrix data(normals(Rng{1}, 20000, 3).view());
  const Batch batch = perturb(data, levels, rng);
  REQUIRE(batch.level.size() == 20000);
  std::vector<double> counts(10);
  double eps_square = 0;
  for (Index b = 0; b < batch.rows(); ++b) {
    const Index level = batch.level[b];
    REQUIRE(level >= 0);
    REQUIRE(level < 10);
    counts[static_cast<std::size_t>(level)] += 1;
    CHECK(batch.sigma[b] == static_cast<float>(levels[level]));
    for (Index d = 0; d < 3; ++d) {
      eps_square += double(batch.eps(b, d)) * batch.eps(b, d);
      // Two roundings, or one where the compiler or the kernel fuses.
      const double exact = double(data(b, d)) + double(batch.sigma[b]) * batch.eps(b, d);
      const double size = std::abs(double(data(b, d))) + std::abs(double(batch.sigma[b]) * batch.eps(b, d));
      CHECK(std::abs(batch.x(b, d) - exact) <= 2 * 0x1p-24 * size);
    }
  }
  double chi_square = 0;
  for (const double c : counts) chi_square += (c - 2000) * (c - 2000) / 2000;
  CHECK(chi_square < 45);  // chi^2 with 9 degrees of freedom: 1e-6 at 44.8
  CHECK(std::abs(eps_square / 60000 - 1) < 5 * std::sqrt(2.0 / 60000));
}

TEST_CASE("a row's draws depend on its number and the step alone") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  const Rng rng{5};
  const Matrix data(normals(Rng{1}, 200, 2).view());
  for (const SigmaSampling sampling : {SigmaSampling::levels, SigmaSampling::continuous}) {
    const Batch whole = perturb(data, levels, rng, {.sampling = sampling, .step = 7});
    const Batch part = perturb(data.middle_rows(130, 70), levels, rng, {.sampling = sampling, .step = 7, .first_row = 130});
    const Batch later = perturb(data, levels, rng, {.sampling = sampling, .step = 8});
    Index same = 0;
    for (Index b = 0; b < 70; ++b) {
      CHECK(part.sigma[b] == whole.sigma[130 + b]);
      CHECK(part.x(b, 1) == whole.x(130 + b, 1));
      same += later.eps(b, 0) == whole.eps(b, 0);
    }
    CHECK(same == 0);
  }
}

TEST_CASE("continuous sampling: ln sigma is uniform between the levels' ends") {
  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);
  const Index n = 20000;
  const Batch batch = perturb(Matrix(n, 1), levels, Rng{3}, {.sampling = SigmaSampling::continuous});
  CHECK(batch.level.size() == 0);
  std::vector<double> u;
  for (const float sigma : batch.sigma) u.push_back(std::log(double(sigma) / .01) / std::log(1000));
  std::sort(u.begin(), u.end());
  double distance = 0;
  for (std::size_t i = 0; i < u.size(); ++i) {
    distance = std::max({distance, std::abs(u[i] - double(i) / n), std::abs(u[i] - double(i + 1) / n)});
  }
  CHECK(u.front() > -1e-6);
  CHECK(u.back() < 1 + 1e-6);
  CHECK(distance < 2.7 / std::sqrt(double(n)));  // Kolmogorov: 2 exp(-2 * 2.7^2) = 9.3e-7
}

TEST_CASE("directions of sliced score matching") {
  const Matrix data(50, 3);
  const NoiseLevels levels = NoiseLevels::geometric(1, .1, 2);
  Batch batch = perturb(data, levels, Rng{1});
  const auto norm = [&](Index r) {
    double sum = 0;
    for (const float v : batch.directions.row(r)) sum += double(v) * v;
    return std::sqrt(sum);
  };
  draw_directions(Sliced{.num_projections = 2}, Rng{1}, {}, batch);
  REQUIRE(batch.directions.rows() == 100);
  for (Index r = 0; r < 100; ++r) CHECK(norm(r) == doctest::Approx(1).epsilon(1e-6));
  CHECK(batch.directions(0, 0) != batch.directions(50, 0));
  draw_directions(Sliced{.variance_reduced = true}, Rng{1}, {}, batch);
  for (Index r = 0; r < 50; ++r) CHECK(norm(r) == doctest::Approx(std::sqrt(3.0)).epsilon(1e-6));
  draw_directions(Sliced{.projection = Projection::rademacher}, Rng{1}, {}, batch);
  double sum = 0;
  for (Index i = 0; i < 150; ++i) {
    CHECK(std::abs(batch.directions.data()[i]) == 1);
    sum += double(batch.directions.data()[i]);
  }
  CHECK(std::abs(sum) < 5 * std::sqrt(150.0));
  draw_directions(Denoising{}, Rng{1}, {}, batch);
  CHECK(batch.directions.empty());
  CHECK_THROWS_AS(draw_directions(Sliced{.num_projections = 0}, Rng{1}, {}, batch), UsageError);
}

TEST_CASE("gradients of every objective through the network, by differences in double") {
  const NoiseLevels levels({2.0, 1.0, .4});
  const NoiseConditionalScoreNetwork net({.data_dim = 2, .hidden_dim = 5, .num_layers = 3}, levels, Rng{4});
  MatrixD flat(1, net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), flat.data());
  const MatrixD data = normals(Rng{8}, 4, 2);
  for (const SigmaSampling sampling : {SigmaSampling::levels, SigmaSampling::continuous}) {
    for (const Objective& objective : all_objectives()) {
      CAPTURE(describe(objective));
      const BatchD batch = batch_of(objective, data, levels, Rng{6}, sampling);
      const auto loss = [&](std::span<const VarD> inputs) {
        std::vector<VarD> parameters;
        for (const ParameterTensor& t : net.layout()) {
          parameters.push_back(reshape(slice_cols(inputs[0], t.offset, t.size()), t.rows, t.cols));
        }
        return objective_loss<double>(objective, net, inputs[0].tape(), parameters, batch).mean;
      };
      const GradientReport report = check_gradient(loss, {flat});
      CAPTURE(report.worst);
      CHECK(report.error < 1e-7);
      CHECK(report.entries >= net.layout().size());
    }
  }
}

namespace {

// The toy: x ~ N(0, C) and a linear score s = x A^T. What each objective's gradient by A is on fresh batches, in standard errors
// of its mean: 0 at the exact score A = -C^-1.
double worst_z(const Objective& objective, const MatrixD& a, const MatrixD& root /* C = root root^T */) {
  const Index dim = a.rows(), rows = 400, batches = 60;
  std::vector<std::vector<double>> gradients(static_cast<std::size_t>(a.size()));
  for (std::uint32_t k = 0; k < batches; ++k) {
    // Denoising sees the clean data x0 and sigma, the others x alone: all with p_sigma = N(0, C).
    const double sigma = .6;
    const MatrixD z = normals(Rng{21}, rows, dim, k);
    MatrixD x0(rows, dim);
    for (Index r = 0; r < rows; ++r) {
      for (Index i = 0; i < dim; ++i) {
        for (Index j = 0; j < dim; ++j) x0(r, i) += root(i, j) * z(r, j);
      }
    }
    BatchD batch = batch_of(objective, x0, NoiseLevels({sigma}), Rng{22}, SigmaSampling::levels, k);
    TapeD tape;
    const VarD weight = tape.variable(a), x = tape.variable(batch.x);
    const VarD score = matmul_nt(x, weight);
    VarD loss;
    if (std::holds_alternative<Denoising>(objective)) {
      loss = denoising_score_matching_loss(sigma * score, batch, std::get<Denoising>(objective).weighting).mean;
    } else if (std::holds_alternative<Explicit>(objective)) {
      loss = score_matching_loss(score, x).mean;
    } else {
      loss = sliced_score_matching_loss(score, x, batch.directions.view(), std::get<Sliced>(objective)).mean;
    }
    const VarD gradient = grad(loss, {weight}).front();
    for (Index i = 0; i < a.size(); ++i) gradients[static_cast<std::size_t>(i)].push_back(gradient.value().data()[i]);
  }
  double worst = 0;
  for (const auto& g : gradients) {
    const MeanAndError m = mean_and_error(g);
    worst = std::max(worst, std::abs(m.mean) / m.error);
  }
  return worst;
}

}  // namespace

TEST_CASE("every objective's optimum on a Gaussian is its score, and not a scaled one") {
  // Two-sided Student t, 59 degrees of freedom: 1e-6 at 5.5; at most 4 entries.
  const MatrixD root1{{1.3}}, root2{{1.0, 0}, {.5, .7}};
  for (const Objective& objective : all_objectives()) {
    CAPTURE(describe(objective));
    const double v = 1.3 * 1.3 + .36;
    CHECK(worst_z(objective, MatrixD{{-1 / v}}, root1) < 6);
    CHECK(worst_z(objective, MatrixD{{-.5 / v}}, root1) > 10);
    // C + sigma^2 I and its inverse.
    const double c00 = 1.36, c01 = .5, c11 = .25 + .49 + .36, det = c00 * c11 - c01 * c01;
    const auto inverse = [&](double f) { return MatrixD{{-f * c11 / det, f * c01 / det}, {f * c01 / det, -f * c00 / det}}; };
    CHECK(worst_z(objective, inverse(1), root2) < 6);
    CHECK(worst_z(objective, inverse(.5), root2) > 10);  // s/D, what a wrong normalisation of v would give
  }
}

TEST_CASE("explicit and sliced losses of a linear score are their closed forms") {
  const MatrixD a{{-1.0, .3, 0}, {.2, -.5, .1}, {0, .4, -2}}, x = normals(Rng{2}, 7, 3), v = normals(Rng{3}, 14, 3);
  TapeD tape;
  const VarD xs = tape.variable(x), score = matmul_nt(xs, tape.constant(a));
  const LossD exact = score_matching_loss(score, xs);
  const LossD sliced = sliced_score_matching_loss(score, xs, v.view(), {.num_projections = 2});
  const LossD reduced = sliced_score_matching_loss(score, xs, v.view(), {.variance_reduced = true, .num_projections = 2});
  double mean_exact = 0;
  for (Index b = 0; b < 7; ++b) {
    const auto s = score.value().row(b);
    const double norm = s[0] * s[0] + s[1] * s[1] + s[2] * s[2];
    CHECK(exact.rows.value()(b, 0) == doctest::Approx(.5 * norm - 3.5).epsilon(1e-13));
    mean_exact += exact.rows.value()(b, 0) / 7;
    double plain = 0, low = 0;
    for (const Index r : {b, b + 7}) {
      double vs = 0, curvature = 0;
      for (Index i = 0; i < 3; ++i) {
        vs += v(r, i) * s[static_cast<std::size_t>(i)];
        for (Index j = 0; j < 3; ++j) curvature += v(r, i) * a(i, j) * v(r, j);
      }
      plain += .5 * (.5 * vs * vs + curvature);
      low += .5 * (.5 * norm + curvature);
    }
    CHECK(sliced.rows.value()(b, 0) == doctest::Approx(plain).epsilon(1e-13));
    CHECK(reduced.rows.value()(b, 0) == doctest::Approx(low).epsilon(1e-13));
  }
  CHECK(exact.mean.item() == doctest::Approx(mean_exact).epsilon(1e-13));
}

TEST_CASE("sliced score matching agrees with the explicit one on average, through the network") {
  const NoiseLevels levels({1.5, .5});
  const NoiseConditionalScoreNetwork net({.data_dim = 3, .hidden_dim = 6, .num_layers = 3}, levels, Rng{14});
  Buffer<double> parameters(net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), parameters.begin());
  // One row at one level, many directions.
  const Index n = 20000;
  BatchD batch;
  batch.x = MatrixD(n, 3);
  batch.eps = MatrixD(n, 3);
  batch.sigma = Buffer<double>(n);
  batch.level = Buffer<std::int32_t>(n);
  for (Index b = 0; b < n; ++b) {
    batch.x(b, 0) = .3, batch.x(b, 1) = -1.1, batch.x(b, 2) = .7;
    batch.sigma[b] = .5;
    batch.level[b] = 1;
  }
  const auto rows = [&](const Objective& objective) {
    draw_directions(objective, Rng{31}, {}, batch);
    TapeD tape;
    const std::vector<VarD> vars = parameter_vars<double>(tape, net.layout(), parameters.data());
    return values_of(objective_loss<double>(objective, net, tape, vars, batch).rows);
  };
  const double exact = rows(Explicit{}).front();
  for (const bool reduced : {false, true}) {
    for (const Projection projection : {Projection::unit, Projection::gaussian, Projection::rademacher}) {
      const MeanAndError m = mean_and_error(rows(Sliced{projection, reduced}));
      const double expected = projection == Projection::unit && !reduced ? exact / 3 : exact;
      CAPTURE(describe(Sliced{projection, reduced}));
      CHECK(std::abs(m.mean - expected) < 5 * m.error);  // two-sided normal: 6e-7
      CHECK(std::abs(m.mean - 1.1 * expected) > 5 * m.error);
    }
  }
}

TEST_CASE("the trace by reverse mode is the trace by forward mode") {
  const NoiseLevels levels({1.0, .5});
  const NoiseConditionalScoreNetwork net({.data_dim = 3, .hidden_dim = 6, .num_layers = 3}, levels, Rng{15});
  Buffer<double> parameters(net.layout().size());
  std::copy(net.parameters().begin(), net.parameters().end(), parameters.begin());
  const MatrixD data = normals(Rng{16}, 5, 3);
  const BatchD batch = batch_of(Explicit{}, data, levels, Rng{17});
  TapeD tape;
  const std::vector<VarD> vars = parameter_vars<double>(tape, net.layout(), parameters.data());
  const VarD x = tape.variable(batch.x);
  const VarD score = tape_score<double>(net, tape, vars, x, batch.noise());
  VarD expected = .5 * sum_cols(square(score));
  for (Index i = 0; i < 3; ++i) {
    MatrixD axis(5, 3);
    for (Index b = 0; b < 5; ++b) axis(b, i) = 1;
    expected = expected + slice_cols(jvp(score, {x}, {tape.constant(axis)}), i, 1);
  }
  const LossD loss = score_matching_loss(score, x);
  const LossD plain = objective_loss<double>(Explicit{Weighting::plain}, net, tape, vars, batch);
  const LossD weighted = objective_loss<double>(Explicit{}, net, tape, vars, batch);
  for (Index b = 0; b < 5; ++b) {
    const double e = expected.value()(b, 0);
    CHECK(loss.rows.value()(b, 0) == doctest::Approx(e).epsilon(1e-12));
    CHECK(plain.rows.value()(b, 0) == doctest::Approx(e).epsilon(1e-12));
    CHECK(weighted.rows.value()(b, 0) == doctest::Approx(e * batch.sigma[b] * batch.sigma[b]).epsilon(1e-12));
  }
}

TEST_CASE("denoising losses in their three forms") {
  const MatrixD data = normals(Rng{1}, 6, 2), output = normals(Rng{2}, 6, 2);
  const BatchD batch = perturb(data, NoiseLevels({2.0, .5}), Rng{3});
  TapeD tape;
  const VarD u = tape.variable(output);
  const LossD weighted = denoising_score_matching_loss(u, batch);
  const LossD plain = denoising_score_matching_loss(u, batch, Weighting::plain);
  const LossD epsilon = denoising_score_matching_epsilon(-u, batch);
  double mean = 0;
  for (Index b = 0; b < 6; ++b) {
    const double d0 = output(b, 0) + batch.eps(b, 0), d1 = output(b, 1) + batch.eps(b, 1), e = .5 * (d0 * d0 + d1 * d1);
    mean += e / 6;
    CHECK(weighted.rows.value()(b, 0) == doctest::Approx(e).epsilon(1e-14));
    CHECK(plain.rows.value()(b, 0) == doctest::Approx(e / (batch.sigma[b] * batch.sigma[b])).epsilon(1e-14));
    CHECK(epsilon.rows.value()(b, 0) == doctest::Approx(2 * e).epsilon(1e-14));
  }
  CHECK(weighted.mean.item() == doctest::Approx(mean).epsilon(1e-14));
}

TEST_CASE("what does not fit is refused") {
  const MatrixD data(4, 2);
  const BatchD batch = perturb(data, NoiseLevels({1.0}), Rng{3});
  TapeD tape;
  const VarD x = tape.variable(data), fixed = tape.constant(data), wide = tape.variable(MatrixD(4, 3));
  CHECK_THROWS_AS(denoising_score_matching_loss(wide, batch), UsageError);
  CHECK_THROWS_AS(denoising_score_matching_epsilon(wide, batch), UsageError);
  CHECK_THROWS_AS(score_matching_loss(wide, x), UsageError);
  CHECK_THROWS_AS(score_matching_loss(2.0 * fixed, fixed), UsageError);
  CHECK_THROWS_AS(sliced_score_matching_loss(2.0 * x, x, MatrixD(3, 2).view()), UsageError);
  CHECK_THROWS_AS(sliced_score_matching_loss(2.0 * fixed, fixed, data.view()), UsageError);
}

TEST_CASE("objectives by name") {
  CHECK(describe(Denoising{}) == "denoising");
  CHECK(describe(Explicit{Weighting::plain}) == "explicit, plain");
  CHECK(describe(Sliced{Projection::gaussian, true, 3}) == "sliced(gaussian, variance_reduced, 3)");
}
