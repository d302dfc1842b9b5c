// Processes: closed forms against their differential equations, inverses, conversions.
// SPDX-License-Identifier: MIT
#include "tweedie/models/process.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tweedie/models/gaussian_mixture.h"

using namespace tweedie;

namespace {

const Process kAll[] = {ve(), ve(.05, 10), vp(), vp(0, 5), sub_vp(), edm()};

// Times inside the process's range.
std::vector<double> times(const Process& p) {
  std::vector<double> t;
  for (const double u : {.01, .1, .3, .7, .95}) t.push_back(p.t_min() + u * (p.t_max() - p.t_min()));
  return t;
}

}  // namespace

TEST_CASE("alpha and sigma solve d alpha = f alpha dt, d sigma^2 = (2 f sigma^2 + g^2) dt") {
  for (const Process& p : kAll) {
    for (const double t : times(p)) {
      const double h = 1e-5 * t;
      const double alpha_slope = (p.alpha(t + h) - p.alpha(t - h)) / (2 * h);
      CHECK(alpha_slope == doctest::Approx(p.f(t) * p.alpha(t)).epsilon(1e-7));
      const double s2_slope = (std::pow(p.sigma(t + h), 2) - std::pow(p.sigma(t - h), 2)) / (2 * h);
      CHECK(s2_slope == doctest::Approx(2 * p.f(t) * p.sigma(t) * p.sigma(t) + p.g_squared(t)).epsilon(1e-7));
    }
  }
}

TEST_CASE("published values, limits and the inverse of the ratio") {
  CHECK(ve().sigma(0) == doctest::Approx(.01));
  CHECK(ve().sigma(1) == doctest::Approx(50));
  CHECK(vp().alpha(1) == doctest::Approx(std::exp(-5.025)));  // -(20 - .1)/4 - .1/2
  CHECK(sub_vp().sigma(.5) == doctest::Approx(vp().sigma(.5) * vp().sigma(.5)));
  CHECK(vp().prior_std() == 1);
  CHECK(ve(.01, 7).prior_std() == 7);
  CHECK(edm().t_max() == 80);
  CHECK(vp().t_min_sampling() == 1e-3);
  for (const Process& p : kAll) {
    for (const double t : times(p)) CHECK(p.time_of(p.ratio(t)) == doctest::Approx(t).epsilon(1e-11));
    CHECK_THROWS_AS(p.time_of(0), UsageError);
    CHECK_THROWS_AS(p.time_of(-1), UsageError);
    CHECK(process(p.name()).kind() == p.kind());
  }
  // Near t = 0, where sigma^2 = -expm1 must not cancel.
  CHECK(vp().time_of(vp().ratio(1e-9)) == doctest::Approx(1e-9).epsilon(1e-9));
  CHECK_THROWS_WITH_AS(process("vpp"), "process 'vpp' is unknown; choose one of: ve, vp, sub_vp, edm", UsageError);
  CHECK_THROWS_AS(ve(1, 1), UsageError);
  CHECK_THROWS_AS(ve(0, 1), UsageError);
  CHECK_THROWS_AS(vp(2, 1), UsageError);
  CHECK_THROWS_AS(edm(1, INFINITY), UsageError);
}

TEST_CASE("a process's score is that of the noised mixture in its own coordinates") {
  const GaussianMixture data = GaussianMixture::three_gaussians();
  for (const Process& p : kAll) {
    for (const double t : times(p)) {
      MatrixD x(50, 2);
      Rng{3}.normals<double>(Purpose::user, 0, 0, x);
      MatrixD out(50, 2);
      process_score<double>(data, p, t, x, out);
      const MatrixD exact = data.noised(p.alpha(t), p.sigma(t)).score(x, 0.);
      for (Index i = 0; i < x.size(); ++i) CHECK(out.data()[i] == doctest::Approx(exact.data()[i]).epsilon(1e-9));
    }
  }
}

TEST_CASE("predictions convert into one another at every pair") {
  const double alpha = .8, sigma = .6;
  MatrixD x0(20, 3), eps(20, 3), x(20, 3), out(20, 3);
  Rng{5}.normals<double>(Purpose::user, 0, 0, x0);
  Rng{6}.normals<double>(Purpose::user, 0, 0, eps);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = alpha * x0.data()[i] + sigma * eps.data()[i];
  const auto value = [&](Prediction p, Index i) {
    switch (p) {
      case Prediction::score:
        return -eps.data()[i] / sigma;
      case Prediction::epsilon:
        return eps.data()[i];
      case Prediction::x0:
        return x0.data()[i];
      default:
        return alpha * eps.data()[i] - sigma * x0.data()[i];
    }
  };
  for (const char* from : {"score", "epsilon", "x0", "v"}) {
    for (const char* to : {"score", "epsilon", "x0", "v"}) {
      MatrixD in(20, 3);
      for (Index i = 0; i < x.size(); ++i) in.data()[i] = value(prediction(from), i);
      convert<double>(prediction(from), prediction(to), alpha, sigma, x, in, out);
      for (Index i = 0; i < x.size(); ++i) {
        CHECK(out.data()[i] == doctest::Approx(value(prediction(to), i)).epsilon(1e-12));
      }
    }
  }
  CHECK_THROWS_AS(prediction("noise"), UsageError);
  CHECK_THROWS_AS((convert<double>(Prediction::x0, Prediction::v, 1, 0, x, x0, out)), UsageError);
}

namespace {

enum class Fault {
  none,
  drift_sign,
  drift_without_half,     // f = -beta
  integral_without_half,  // ln alpha = -t^2 (b1 - b0) / 2 - t b0 / 2
  std_for_variance,       // vp: sigma = 1 - alpha^2
  ve_without_two,         // g^2 = sigma^2 ln(smax / smin)
  ve_without_log,         // g^2 = 2 sigma^2
  ve_linear,              // sigma = smin + t (smax - smin)
  sub_vp_std_of_vp,
  sub_vp_g_of_vp
};

// The formulas written out for t in (0, 1], with one thing wrong.
struct Written {
  Fault fault;
  ProcessKind kind;
  double first, second;  // smin, smax or b0, b1
  double beta(double t) const { return first + t * (second - first); }
  double alpha(double t) const {
    if (kind == ProcessKind::ve) return 1;
    return std::exp(-t * t * (second - first) / (fault == Fault::integral_without_half ? 2 : 4) - t * first / 2);
  }
  double sigma(double t) const {
    if (kind == ProcessKind::ve) {
      return fault == Fault::ve_linear ? first + t * (second - first) : first * std::pow(second / first, t);
    }
    const double variance = 1 - alpha(t) * alpha(t);
    const bool whole = (kind == ProcessKind::sub_vp) != (fault == Fault::sub_vp_std_of_vp || fault == Fault::std_for_variance);
    return whole ? variance : std::sqrt(variance);
  }
  double f(double t) const {
    if (kind == ProcessKind::ve) return 0;
    const double half = -beta(t) / 2;
    return fault == Fault::drift_sign ? -half : fault == Fault::drift_without_half ? 2 * half : half;
  }
  double g_squared(double t) const {
    if (kind == ProcessKind::ve) {
      const double logarithm = fault == Fault::ve_without_log ? 1 : std::log(second / first);
      return (fault == Fault::ve_without_two ? 1 : 2) * std::pow(sigma(t), 2) * logarithm;
    }
    if (kind == ProcessKind::vp || fault == Fault::sub_vp_g_of_vp) return beta(t);
    return beta(t) * (1 - std::exp(-2 * first * t - (second - first) * t * t));
  }
};

// The check of the first test.
template <class P>
bool alarm(const P& p, double t) {
  const double h = 1e-5 * t, alpha_slope = (p.alpha(t + h) - p.alpha(t - h)) / (2 * h);
  const double s2_slope = (std::pow(p.sigma(t + h), 2) - std::pow(p.sigma(t - h), 2)) / (2 * h);
  return alpha_slope != doctest::Approx(p.f(t) * p.alpha(t)).epsilon(1e-7) ||
         s2_slope != doctest::Approx(2 * p.f(t) * p.sigma(t) * p.sigma(t) + p.g_squared(t)).epsilon(1e-7);
}

}  // namespace

TEST_CASE("planted faults of the processes are found in 99 of 100 draws of their constants, and none is seen where none is") {
  using enum Fault;
  struct Case {
    ProcessKind kind;
    std::vector<Fault> faults;
  };
  for (const Case& c : {Case{ProcessKind::ve, {none, ve_without_two, ve_without_log, ve_linear}},
                        Case{ProcessKind::vp, {none, drift_sign, drift_without_half, integral_without_half, std_for_variance}},
                        Case{ProcessKind::sub_vp, {none, drift_sign, sub_vp_std_of_vp, sub_vp_g_of_vp}}}) {
    for (const Fault fault : c.faults) {
      int found = 0;
      for (std::uint64_t seed = 1; seed <= 100; ++seed) {
        const double u = Rng{seed}.uniform(Purpose::user, 0, 0), w = Rng{seed}.uniform(Purpose::user, 0, 1);
        const bool exploding = c.kind == ProcessKind::ve;
        const double first = exploding ? .001 + .1 * u : .05 + u, second = exploding ? 5 + 100 * w : 5 + 20 * w;
        const Written written{fault, c.kind, first, second};
        const Process exact = exploding                   ? ve(first, second)
                              : c.kind == ProcessKind::vp ? vp(first, second)
                                                          : sub_vp(first, second);
        bool seen = false;
        for (const double t : {.1, .3, .7, .95}) {
          seen = seen || alarm(written, t);
          if (fault == none) CHECK(written.g_squared(t) == doctest::Approx(exact.g_squared(t)).epsilon(1e-12));
          if (fault == none) CHECK(written.sigma(t) == doctest::Approx(exact.sigma(t)).epsilon(1e-12));
        }
        found += seen;
      }
      CAPTURE(found);
      CAPTURE(static_cast<int>(c.kind));
      CAPTURE(static_cast<int>(fault));
      CHECK((fault == none ? found == 0 : found >= 99));
    }
  }
}
