// SPDX-License-Identifier: MIT
#include "tweedie/models/sigma_sampling.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tweedie/models/objectives.h"

using namespace tweedie;

namespace {

double normal_below(double z) { return .5 * std::erfc(-z / std::sqrt(2.)); }

}  // namespace

TEST_CASE("the normal quantile inverts the distribution function") {
  for (const double p : {1e-300, 1e-100, 1e-20, 1e-9, .001, .02, .1, .3, .4999, .5}) {
    CAPTURE(p);
    // z's rounding moves ln p by about z^2 units.
    const double z = normal_quantile_lower(p);
    CHECK(std::abs(normal_below(z) / p - 1) < 1e-13 + 4 * 0x1p-52 * z * z);
  }
  for (int k = 1; k < 1000; ++k) {
    const double p = k / 2000., tail = std::exp(-.7 * k);
    CHECK(std::abs(normal_below(normal_quantile_lower(p)) / p - 1) < 1e-13);
    const double z = normal_quantile_lower(tail);
    CHECK(std::abs(normal_below(z) / tail - 1) < 1e-13 + 4 * 0x1p-52 * z * z);
  }
  CHECK(std::isinf(normal_quantile_lower(0)));
  CHECK_THROWS_AS(normal_quantile_lower(.6), UsageError);
}

TEST_CASE("each distribution's function at its draw is the uniform it was drawn from") {
  const double low = .02, high = 40;
  const auto lognormal = [](double sigma) { return normal_below((std::log(sigma) + 1.2) / 1.2); };
  const auto flow = [](double sigma) { return sigma / (1 + sigma); };
  for (const double u : {1e-6, .01, .2, .5, .7, .99, 1.}) {
    CAPTURE(u);
    const auto part = [&](auto&& f, double sigma) { return (f(sigma) - f(low)) / (f(high) - f(low)); };
    CHECK(part(lognormal, SigmaSampling::lognormal().truncated(low, high)(u)) == doctest::Approx(u).epsilon(1e-9));
    CHECK(part(flow, SigmaSampling::flow().truncated(low, high)(u)) == doctest::Approx(u).epsilon(1e-9));
    const auto logarithm = [](double sigma) { return std::log(sigma); };
    CHECK(part(logarithm, SigmaSampling::continuous.truncated(low, high)(u)) == doctest::Approx(u).epsilon(1e-9));
    for (const Process& p : {ve(), vp(), sub_vp(), edm()}) {
      CAPTURE(p.name());
      const auto time = [&](double sigma) { return p.time_of(sigma); };
      CHECK(part(time, SigmaSampling::process(p).truncated(low, high)(u)) == doctest::Approx(u).epsilon(1e-9));
    }
  }
}

TEST_CASE("a distribution far in a tail, a range wider than the process, a range of one sigma") {
  // 7 and more standard deviations above the mean: the upper tail 1e-12 must not be lost against 1.
  CHECK_THROWS_AS(SigmaSampling::lognormal(-1.2, .5).truncated(std::exp(2.5), 100), UsageError);  // 7.4: 7e-14
  const auto tail = SigmaSampling::lognormal(0, 1).truncated(std::exp(5.), std::exp(9.));
  const auto above = [](double sigma) { return normal_below(-std::log(sigma)); };
  for (const double u : {.1, .5, .9}) {
    const double part = (above(std::exp(5.)) - above(tail(u))) / (above(std::exp(5.)) - above(std::exp(9.)));
    CHECK(part == doctest::Approx(u).epsilon(1e-7));
  }
  const Process p = ve(.1, 10);
  const auto whole = SigmaSampling::process(p).truncated(.001, 1000);
  CHECK(whole(1) == doctest::Approx(10));
  CHECK(whole(1e-12) == doctest::Approx(p.ratio(p.t_min())));
  CHECK(whole(.5) == doctest::Approx(p.ratio(.5 * (1 + p.t_min()))));
  CHECK_THROWS_AS(SigmaSampling::process(p).truncated(20, 30), UsageError);
  for (const SigmaSampling& s : {SigmaSampling::continuous, SigmaSampling::lognormal(), SigmaSampling::flow()}) {
    CHECK(s.truncated(.3, .3)(.7) == doctest::Approx(.3).epsilon(1e-15));
  }
}

TEST_CASE("what is no distribution over a range is refused") {
  CHECK_THROWS_AS(SigmaSampling::levels.truncated(.1, 1), UsageError);
  CHECK_THROWS_AS(SigmaSampling::automatic.truncated(.1, 1), UsageError);
  CHECK_THROWS_AS(SigmaSampling::flow().truncated(1, .1), UsageError);
  CHECK_THROWS_AS(SigmaSampling::flow().truncated(0, 1), UsageError);
  CHECK_THROWS_AS(SigmaSampling::lognormal(0, 0), UsageError);
  CHECK_THROWS_AS(SigmaSampling::lognormal(std::nan(""), 1), UsageError);
  CHECK(describe(SigmaSampling::lognormal()) == "lognormal(-1.2, 1.2)");
  CHECK(describe(SigmaSampling::process(vp())) == "process(vp, 0.1, 20)");
}

TEST_CASE("perturb takes one uniform of the distribution for each row and step") {
  const NoiseLevels ends({40, .02});
  const Rng rng{11};
  for (const SigmaSampling& s : {SigmaSampling::lognormal(), SigmaSampling::process(vp()), SigmaSampling::flow()}) {
    const BatchD batch = perturb(MatrixD(30, 1), ends, rng, {.sampling = s, .step = 4, .first_row = 1000});
    CHECK(batch.level.size() == 0);
    const auto sigma = s.truncated(.02, 40);
    for (Index b = 0; b < 30; ++b) {
      CHECK(batch.sigma[b] == sigma(rng.uniform(Purpose::level, 4, 1000 + static_cast<std::uint64_t>(b))));
      CHECK(batch.x(b, 0) == batch.sigma[b] * batch.eps(b, 0));
    }
  }
}
