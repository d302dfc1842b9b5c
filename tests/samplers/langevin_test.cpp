// SPDX-License-Identifier: MIT
#include "tweedie/samplers/langevin.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "samplers/variance_law.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/gaussian_mixture.h"

using namespace tweedie;
using test::kZ;
using test::variance_after;
using test::variance_z;

namespace {
Matrix normal_rows(Index n, Index dim, double scale) {
  Matrix x(n, dim);
  Rng{17}.normals<float>(Purpose::user, 0, 0, x);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] *= static_cast<float>(scale);
  return x;
}

bool same(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

// s = slope x: repels for slope > 0.
FunctionScore linear(double slope) {
  return FunctionScore(1, [slope](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = slope * y(r, 0);
  });
}

std::string message_of(const auto& f) {
  try {
    f();
  } catch (const DivergedError& e) {
    return e.what();
  }
  return "nothing thrown";
}
}  // namespace

TEST_CASE("on a Gaussian the chain has its discrete law: transient and limit, both conventions, any noise scale") {
  const Index n = 100000;  // 2 columns: relative standard error of a variance .3%
  const GaussianMixture model = GaussianMixture::gaussian(2, .8);
  struct Case {
    double sigma, step_size, noise_scale;
    StepConvention convention;
    Index steps;
  };
  for (const Case& c : {Case{0, .64, 1, StepConvention::half, 40}, Case{0, .32, 1, StepConvention::full, 40},
                        Case{.6, 1.5, 1, StepConvention::half, 3}, Case{.6, 1.5, 1, StepConvention::full, 40},
                        Case{0, .1, .5, StepConvention::half, 30}, Case{.6, .4, 2, StepConvention::full, 7}}) {
    const double v = .64 + c.sigma * c.sigma, h = c.convention == StepConvention::half ? c.step_size / 2 : c.step_size;
    const double noise = std::sqrt(2 * h) * c.noise_scale;
    const Matrix start = normal_rows(n, 2, 3);
    const Samples s = langevin_dynamics(
        model, c.sigma, start,
        {.step_size = c.step_size, .num_steps = c.steps, .noise_scale = c.noise_scale, .convention = c.convention}, Rng{5});
    // The start's own sample variance is known, but its normals are fresh: the law of the end is Gaussian all the same.
    CHECK(std::abs(variance_z(s.x, variance_after(9, v, h, noise, c.steps))) <= kZ);
    if (c.steps == 40 && c.noise_scale == 1) {
      const double limit = v / (1 - h / (2 * v));  // [reliability.md's discrete law]
      CHECK(std::abs(variance_z(s.x, limit)) <= kZ);
      CHECK(std::abs(variance_z(s.x, v)) > 50);  // the test would see the continuous law's variance
    }
    CHECK(s.evaluations == c.steps);
  }
}

TEST_CASE("without noise the chain is the contraction (1 - h/v)^t, and climbs to a mode") {
  const GaussianMixture model = GaussianMixture::gaussian(1, 1);
  const Matrix start{{1}, {-2}, {8}};
  const Samples s = langevin_dynamics(model, 0, start, {.step_size = .5, .num_steps = 10, .noise_scale = 0}, Rng{1});
  for (Index r = 0; r < 3; ++r) CHECK(s.x(r, 0) == doctest::Approx(start(r, 0) * std::pow(.75, 10)).epsilon(1e-5));
  const Samples mode = langevin_dynamics(GaussianMixture::two_mode(), 0, Matrix{{.4f, .7f}, {-3, 1}},
                                         {.step_size = .1, .num_steps = 500, .noise_scale = 0}, Rng{1});
  // The modes of two_mode lie where m = tanh(m / .25): within 1e-3 of the centres.
  CHECK(std::abs(mode.x(0, 0) - 1) <= 2e-3);
  CHECK(std::abs(mode.x(1, 0) + 1) <= 2e-3);
  CHECK(std::abs(mode.x(0, 1)) <= 1e-5);
}

TEST_CASE("in double the chain equals the formula written out") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const MatrixD start(normal_rows(40, 2, 2).view());
  for (const StepConvention convention : {StepConvention::half, StepConvention::full}) {
    const LangevinOptions options{.step_size = .05, .num_steps = 25, .noise_scale = .7, .convention = convention};
    const SamplesD s = langevin_dynamics(model, .3, start, options, Rng{9});
    MatrixD x = start, z(40, 2);
    for (std::uint32_t t = 0; t < 25; ++t) {
      const MatrixD score = model.score(x, .3);
      Rng{9}.normals<double>(Purpose::langevin, t, 0, z);
      for (Index i = 0; i < x.size(); ++i) {
        x.data()[i] += convention == StepConvention::half ? .025 * score.data()[i] + std::sqrt(.05) * .7 * z.data()[i]
                                                          : .05 * score.data()[i] + std::sqrt(.1) * .7 * z.data()[i];
      }
    }
    double worst = 0;
    for (Index i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x.data()[i] - s.x.data()[i]));
    // 25 steps of a few roundings each of |x| < 10, stretched by at most 1 + .05 / .09 a step where the score repels: < 1e-10.
    CHECK(worst <= 1e-10);
  }
}

TEST_CASE("the trajectory holds the start and every save_every-th state") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const Matrix start = normal_rows(9, 2, 1);
  const Samples s = langevin_dynamics_with_trajectory(model, 0, start, {.num_steps = 100}, Rng{3});
  REQUIRE(s.trajectory.size() == 11);
  CHECK(s.trajectory_steps.front() == 0);
  CHECK(s.trajectory_steps[4] == 40);
  CHECK(same(s.trajectory.front(), start));
  CHECK(same(s.trajectory.back(), s.x));
  for (const std::size_t frame : {1, 6}) {
    const Samples until = langevin_dynamics(model, 0, start, {.num_steps = static_cast<Index>(10 * frame)}, Rng{3});
    CHECK(until.trajectory.empty());
    CHECK(same(s.trajectory[frame], until.x));
  }
  const Samples sparse =
      langevin_dynamics(model, 0, start, {.num_steps = 25, .save_every = 7, .trajectory_rows = 4, .chunk_rows = 3}, Rng{3});
  REQUIRE(sparse.trajectory.size() == 4);
  CHECK(sparse.trajectory_steps == std::vector<std::int64_t>{0, 7, 14, 21});
  CHECK(sparse.trajectory[1].rows() == 4);
  const Samples seven = langevin_dynamics(model, 0, start, {.num_steps = 7}, Rng{3});
  CHECK(same(sparse.trajectory[1], Matrix(seven.x.middle_rows(0, 4))));
  CHECK(langevin_dynamics(model, 0, start, {.num_steps = 5, .save_every = 2, .trajectory_rows = 100}, Rng{3})
            .trajectory[0]
            .rows() == 9);
}

TEST_CASE("threads, chunks and the number of rows leave the bits alone") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const Matrix start = normal_rows(1500, 2, 2);
  const LangevinOptions options{.step_size = .02, .num_steps = 30};
  const Samples reference = langevin_dynamics(model, .1, start, options, Rng{3});
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    for (const Index chunk : {1, 7, 64, 5000}) {
      LangevinOptions cut = options;
      cut.chunk_rows = chunk;
      CHECK(same(langevin_dynamics(model, .1, start, cut, Rng{3}).x, reference.x));
    }
  }
  set_threads(0);
  const Samples head = langevin_dynamics(model, .1, start.middle_rows(0, 77), options, Rng{3});
  CHECK(same(head.x, Matrix(reference.x.middle_rows(0, 77))));
  CHECK_FALSE(same(langevin_dynamics(model, .1, start, options, Rng{4}).x, reference.x));
}

TEST_CASE("a user's lambda samples too") {
  const FunctionScore model(1, [](ConstRows<double> y, std::span<const double>, Rows<double> out) {
    for (Index r = 0; r < y.rows(); ++r) out(r, 0) = -y(r, 0);
  });
  const Samples s = langevin_dynamics(model, 0, Matrix(50000, 1), {.step_size = .2, .num_steps = 200}, Rng{3});
  CHECK(std::abs(variance_z(s.x, 1 / (1 - .05))) <= kZ);
}

TEST_CASE("a run that diverges says where and what to do, and gives no numbers") {
  // Repulsion: x' = 1.5 x + z. 1e6 is passed around step ln(1e6) / ln(1.5) = 34.
  const std::string message = message_of([] {
    langevin_dynamics(linear(1), 0, Matrix{{1}, {2}}, {.step_size = 1, .num_steps = 500}, Rng{3});
  });
  CHECK(message.find("langevin_dynamics: diverged at level 0 (sigma = 0), step 3") != std::string::npos);
  CHECK(message.find(" of 500, step size 1: |x| is beyond 2e+06") != std::string::npos);
  CHECK(message.find("use a smaller step_size") != std::string::npos);
  // A step beyond 2 v on a Gaussian.
  CHECK_THROWS_AS(langevin_dynamics(GaussianMixture::gaussian(1), 0, Matrix{{1}}, {.step_size = 4.5}, Rng{3}), DivergedError);
  CHECK_NOTHROW(langevin_dynamics(GaussianMixture::gaussian(1), 0, Matrix{{1}}, {.step_size = 3.5}, Rng{3}));
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    CHECK_THROWS_AS(langevin_dynamics(linear(bad), 0, Matrix{{1}}, {}, Rng{3}), DivergedError);
    CHECK_THROWS_AS(langevin_dynamics(linear(bad), 0, MatrixD{{1}}, {}, Rng{3}), DivergedError);
  }
}

TEST_CASE("empty runs and wrong options") {
  const GaussianMixture model = GaussianMixture::two_mode();
  const Matrix start = normal_rows(3, 2, 1);
  CHECK(langevin_dynamics(model, 0, Matrix(0, 2), {}, Rng{1}).x.rows() == 0);
  const Samples none = langevin_dynamics(model, 0, start, {.num_steps = 0, .save_every = 1}, Rng{1});
  CHECK(same(none.x, start));
  CHECK(none.trajectory.size() == 1);
  CHECK(none.evaluations == 0);
  const auto run = [&](const LangevinOptions& options) { langevin_dynamics(model, 0, start, options, Rng{1}); };
  CHECK_THROWS_AS(run({.step_size = 0}), UsageError);
  CHECK_THROWS_AS(run({.step_size = -1}), UsageError);
  CHECK_THROWS_AS(run({.step_size = std::nan("")}), UsageError);
  CHECK_THROWS_AS(run({.step_size = std::numeric_limits<double>::infinity()}), UsageError);
  CHECK_THROWS_AS(run({.num_steps = -1}), UsageError);
  CHECK_THROWS_AS(run({.num_steps = Index{1} << 33}), UsageError);
  CHECK_THROWS_AS(run({.noise_scale = -1}), UsageError);
  CHECK_THROWS_AS(run({.save_every = -1}), UsageError);
  CHECK_THROWS_AS(run({.trajectory_rows = -1}), UsageError);
  CHECK_THROWS_AS(run({.chunk_rows = 0}), UsageError);
  CHECK_THROWS_AS(langevin_dynamics(model, 0, Matrix(3, 3), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(langevin_dynamics(model, -1, start, {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(langevin_dynamics(model, 0, Matrix{{1, std::nanf("")}}, {}, Rng{1}), UsageError);
}

TEST_CASE("step conventions by name") {
  CHECK(step_convention("half") == StepConvention::half);
  CHECK(step_convention("full") == StepConvention::full);
  CHECK(std::string(to_string(StepConvention::full)) == "full");
  CHECK(step_convention(to_string(StepConvention::half)) == StepConvention::half);
  CHECK_THROWS_AS(step_convention("Half"), UsageError);
}
