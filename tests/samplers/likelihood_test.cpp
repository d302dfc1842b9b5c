// SPDX-License-Identifier: MIT
#include "tweedie/samplers/likelihood.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "samplers/flow_support.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

// max |error| / max(1, |log p|) against log p at sigma = low.
double worst_error(const GaussianMixture& model, const MatrixD& x, double low, const LogDensity& result) {
  const std::vector<double> exact = model.log_density(x, low);
  double worst = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    worst = std::max(worst, std::abs(result.nats[i] - exact[i]) / std::max(1., std::abs(exact[i])));
  }
  return worst;
}

const LogDensityOptions kTight{.terminal = Terminal::exact, .rtol = 1e-9, .atol = 1e-9};

}  // namespace

TEST_CASE("on exact scores log p within 1e-6 max(1, |log p|) of the exact one at rtol = atol = 1e-9") {
  for (const GaussianMixture& model : {GaussianMixture::three_gaussians(), GaussianMixture::three_gaussians_unequal(),
                                       test::correlated_gaussian(3), test::correlated_gaussian(10)}) {
    MatrixD x = test::draws(model, 20, .01, 5);
    for (Index j = 0; j < x.cols(); ++j) x(0, j) += 8;  // far outside
    const LogDensity result = log_density(model, x, kTight);
    CHECK(worst_error(model, x, .01, result) <= 1e-6);
    CHECK(result.standard_error == std::vector<double>(20, 0.));
    CHECK(result.bits_per_dim[3] == doctest::Approx(-result.nats[3] / (static_cast<double>(x.cols()) * std::numbers::ln2)));
    // Looser tolerances give what math.md states: 7e-4 at 1e-5.
    CHECK(worst_error(model, x, .01, log_density(model, x, {.terminal = Terminal::exact})) <= 1e-3);
  }
}

TEST_CASE("other ends, and processes in their own coordinates") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  LogDensityOptions options = kTight;
  options.sigma_min = .3;
  options.sigma_max = 7;
  const MatrixD x = test::draws(model, 10, .3, 6);
  CHECK(worst_error(model, x, .3, log_density(model, x, options)) <= 1e-6);
  for (const Process& process : {ve(.02, 20), vp(), sub_vp(), vp(3, 25), edm()}) {
    LogDensityOptions with = kTight;
    with.process = process;
    const double t = process.t_min();
    const GaussianMixture noised = model.noised(process.alpha(t), process.sigma(t));
    const MatrixD at_t = test::draws(noised, 10, 0, 8);
    CHECK(worst_error(noised, at_t, 0, log_density(model, at_t, with)) <= 1e-6);
    // The prior instead of p at t_max errs by its own misfit: for the data's second moment M, ve and edm by about |M| /
    // sigma_max^2 times the latent's square, vp and sub_vp likewise with alpha^2 = e^-10.
    with.terminal = Terminal::prior;
    CHECK(worst_error(noised, at_t, 0, log_density(model, at_t, with)) <= (process.kind() == ProcessKind::ve ? .2 : .02));
  }
}

TEST_CASE("the prior N(0, sigma_max^2 I) stands for p at sigma_max: exact for a Gaussian that is one") {
  // Data N(0, I): p at sigma_max is N(0, (1 + sigma_max^2) I), so the prior's error is known in closed form.
  const GaussianMixture model = GaussianMixture::gaussian(3);
  const double high = 4, low = .1;
  const MatrixD x = test::draws(model, 10, low, 9);
  const LogDensity exact =
      log_density(model, x, {.terminal = Terminal::exact, .sigma_min = low, .sigma_max = high, .rtol = 1e-10, .atol = 1e-10});
  const LogDensity prior = log_density(model, x, {.sigma_min = low, .sigma_max = high, .rtol = 1e-10, .atol = 1e-10});
  const double v = 1 + high * high, p = high * high, stretch = v / (1 + low * low);
  for (Index r = 0; r < 10; ++r) {
    double square = 0;
    for (const double e : x.row(r)) square += e * e * stretch;
    const double difference = -.5 * square * (1 / p - 1 / v) - 1.5 * std::log(p / v);
    const auto i = static_cast<std::size_t>(r);
    CHECK(std::abs(prior.nats[i] - exact.nats[i] - difference) <= 1e-7);
  }
}

TEST_CASE("the density integrates to one") {
  const LogDensityOptions options{.terminal = Terminal::exact, .sigma_min = .1, .rtol = 1e-6, .atol = 1e-6};
  // Narrowest scale .51: at a spacing of .4 the midpoint rule errs by 2 exp(-32).
  CHECK(std::abs(integrate_density(GaussianMixture::two_mode(), {-6, 6, -6, 6}, 30, options) - 1) <= 1e-4);
  // Without half of the plane, half.
  CHECK(std::abs(integrate_density(GaussianMixture::two_mode(), {0, 6, -6, 6}, 30, options) - .5) <= 1e-3);
}

TEST_CASE("hutchinson: z-scores against the exact trace") {
  // An estimate's own standard error from 64 probes makes z like Student's t, with a variance of 63/61 = 1.03 and, for probes
  // whose quadratic form has the skewness g <= 1, (7/4) g^2 / 64 more [Hall 1987]: 1.03 to 1.06. Over 600 rows it is known to .06
  // (one sigma). |z| > 4 has probability 1.7e-4 under that t and more for a skewed form: .1 to .5 rows, and more than five with
  // 1.4e-5 at most. The slow test has the rows for 1 +- .1.
  const GaussianMixture model = test::correlated_gaussian(10);
  const Index n = 600;
  const MatrixD x = test::draws(model, n, .1, 12);
  LogDensityOptions options{.terminal = Terminal::exact, .sigma_min = .1, .sigma_max = 3};
  const LogDensity exact = log_density(model, x, options);
  options.divergence = Divergence::hutchinson;
  options.probes = 64;
  double errors[2] = {};
  for (const Probe kind : {Probe::rademacher, Probe::gaussian}) {
    options.probe = kind;
    const LogDensity estimate = log_density(model, x, options, Rng{21});
    double square = 0;
    int beyond = 0;
    for (std::size_t i = 0; i < exact.nats.size(); ++i) {
      const double z = (estimate.nats[i] - exact.nats[i]) / estimate.standard_error[i];
      square += z * z / static_cast<double>(n);
      beyond += std::abs(z) > 4;
      errors[kind == Probe::gaussian] += estimate.standard_error[i] / static_cast<double>(n);
    }
    INFO(std::string(to_string(kind)), ": variance of z ", square, ", beyond 4: ", beyond);
    CHECK(beyond <= 5);
    CHECK(std::abs(square - 1.045) <= 5 * .06);
  }
  CHECK(errors[0] < .9 * errors[1]);  // Rademacher's variance lacks the diagonal's part
  options.probes = 1;
  CHECK(std::isnan(log_density(model, x.view().middle_rows(0, 1), options, Rng{21}).standard_error[0]));
}

TEST_CASE("threads, chunks and the number of rows leave the bits alone, with probes too") {
  const GaussianMixture model = GaussianMixture::three_gaussians();
  const MatrixD x = test::draws(model, 70, .01, 3);
  for (const Divergence divergence : {Divergence::exact, Divergence::hutchinson}) {
    LogDensityOptions options{.divergence = divergence, .probes = 3, .sigma_min = .01, .sigma_max = 20};
    const LogDensity all = log_density(model, x, options, Rng{5});
    for (const int count : {1, 4}) {
      set_threads(count);
      for (const Index chunk : {1, 7, 256}) {
        options.chunk_rows = chunk;
        const LogDensity cut = log_density(model, x, options, Rng{5});
        CHECK(cut.nats == all.nats);
        CHECK(cut.standard_error == all.standard_error);
        CHECK(cut.evaluations == all.evaluations);
      }
    }
    set_threads(0);
    const LogDensity fewer = log_density(model, x.view().middle_rows(0, 20), options, Rng{5});
    CHECK(std::equal(fewer.nats.begin(), fewer.nats.end(), all.nats.begin()));
    CHECK(log_density(model, MatrixD(0, 2), options, Rng{5}).nats.empty());
  }
  // Float rows are the double ones.
  const Matrix single(x.view());
  CHECK(log_density(model, single, {}).nats == log_density(model, MatrixD(single.view()), {}).nats);
}

TEST_CASE("evaluations are what the model was asked for; a model without a derivative, bad options and rows are refused") {
  const GaussianMixture exact = GaussianMixture::gaussian(2);
  std::atomic<std::int64_t> asked = 0;
  const auto score = [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    exact.score(y, sigma, nullptr, out);
  };
  const FunctionScore model(2, score,
                            [&](ConstRows<double> y, std::span<const double> sigma, ConstRows<double> v, Rows<double> out) {
                              asked += y.rows();
                              MatrixD unused(y.rows(), 2);
                              exact.jvp(y, sigma, nullptr, v, unused, out);
                            });
  const MatrixD x = test::normals(9, 2, 1);
  const LogDensity result = log_density(model, x, {});
  CHECK(result.mean_evaluations * 9 * 2 == doctest::Approx(static_cast<double>(asked)));  // two products each
  const LogDensity direct = log_density(exact, x, {});
  for (std::size_t i = 0; i < 9; ++i) CHECK(result.nats[i] == doctest::Approx(direct.nats[i]).epsilon(1e-9));

  const auto refused = [&](const ScoreModel& m, const LogDensityOptions& o) {
    CHECK_THROWS_AS(log_density(m, x, o), UsageError);
  };
  refused(FunctionScore(2, score), {});
  refused(model, {.terminal = Terminal::exact});
  refused(exact, {.divergence = Divergence::hutchinson});
  refused(exact, {.sigma_min = 5, .sigma_max = 2});
  refused(exact, {.sigma_max = -1});
  refused(exact, {.sigma_min = .1, .process = ve()});
  refused(exact, {.rtol = 0, .atol = 0});
  CHECK_THROWS_AS(log_density(exact, x, {.divergence = Divergence::hutchinson, .probes = 0}, Rng{1}), UsageError);
  CHECK_THROWS_AS(log_density(exact, MatrixD(3, 3), {}), UsageError);
  CHECK_THROWS_AS(log_density(exact, MatrixD{{1, std::nan("")}}, {}), UsageError);
  CHECK_THROWS_AS(integrate_density(GaussianMixture::gaussian(1), {0, 1, 0, 1}, 3, {}), UsageError);
  CHECK_THROWS_AS(integrate_density(exact, {1, 0, 0, 1}, 3, {}), UsageError);
  CHECK_THROWS_AS(integrate_density(exact, {0, 1, 0, 1}, 0, {}), UsageError);
  CHECK(divergence("hutchinson") == Divergence::hutchinson);
  CHECK(probe("gaussian") == Probe::gaussian);
  CHECK(terminal("exact") == Terminal::exact);
  CHECK_THROWS_AS(divergence("trace"), UsageError);
  CHECK_THROWS_AS(probe("unit"), UsageError);
  CHECK_THROWS_AS(terminal("none"), UsageError);
  const std::string message = test::message_of<DivergedError>([&] { log_density(exact, x, {.max_steps = 3}); });
  CHECK(message.find("log_density: row ") != std::string::npos);
  CHECK(message.find("used up max_steps = 3 at sigma = ") != std::string::npos);
}
