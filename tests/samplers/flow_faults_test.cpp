// Planted faults: would the checks of likelihood_test.cpp and probability_flow_test.cpp see the mistakes one fears?
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "samplers/flow_support.h"
#include "tweedie/samplers/likelihood.h"
#include "tweedie/samplers/probability_flow.h"

using namespace tweedie;

namespace {

enum class Fault {
  none,
  missing_half,         // dx = f x - g^2 s, the drift doubled, its divergence with it
  half_in_state_alone,  // the drift doubled, its divergence not
  divergence_sign,
  divergence_missing,
  divergence_one_axis,  // the trace of a minor
  sigma_not_squared,    // the divergence weighted by sigma instead of sigma^2
  terminal_variance,    // 2 sigma_max^2
  terminal_sigma_min,   // p_sigma_min stands at the end
  start_level,          // the flow starts at 1.01 sigma_min
  stale_score,          // the divergence of the point an instant before
};

// What the fault makes of the score, its trace and the end, as a model. The solver multiplies both by -sigma^2.
class Faulty final : public ScoreModel {
 public:
  Faulty(const GaussianMixture& exact, Fault fault, double low) : exact_(exact), fault_(fault), low_(low) {}
  Index dim() const override { return exact_.dim(); }
  void score(ConstRows<float> y, std::span<const float> sigma, const Condition*, Rows<float> out) const override {
    exact_.score(y, sigma, nullptr, out);
  }
  void score(ConstRows<double> y, std::span<const double> sigma, const Condition*, Rows<double> out) const override {
    exact_.score(y, sigma, nullptr, out);
    if (fault_ != Fault::missing_half && fault_ != Fault::half_in_state_alone) return;
    for (Index r = 0; r < out.rows(); ++r) {
      for (double& v : out.row(r)) v *= 2;
    }
  }
  bool has_log_density() const override { return true; }
  void log_density(ConstRows<double> y, std::span<const double> sigma, const Condition*, std::span<double> out) const override {
    const double end = fault_ == Fault::terminal_variance    ? std::numbers::sqrt2 * sigma[0]
                       : fault_ == Fault::terminal_sigma_min ? low_
                                                             : sigma[0];
    exact_.log_density(y, std::span<const double>(&end, 1), nullptr, out);
  }
  void divergence(ConstRows<double> y, std::span<const double> sigma, const Condition*, Rows<double> score_out,
                  std::span<double> out) const override {
    MatrixD at(y);
    if (fault_ == Fault::stale_score) {
      for (Index r = 0; r < at.rows(); ++r) {
        for (double& v : at.row(r)) v *= 1 + 1e-3;
      }
    }
    exact_.divergence(at, sigma, nullptr, score_out, out);
    MatrixD v(y.rows(), y.cols()), product(y.rows(), y.cols());
    for (Index r = 0; r < v.rows(); ++r) v(r, 0) = 1;
    if (fault_ == Fault::divergence_one_axis) exact_.jvp(y, sigma, nullptr, v, score_out, product);
    for (Index r = 0; r < y.rows(); ++r) {
      double& trace = out[static_cast<std::size_t>(r)];
      if (fault_ == Fault::missing_half) trace *= 2;
      if (fault_ == Fault::divergence_sign) trace = -trace;
      if (fault_ == Fault::divergence_missing) trace = 0;
      if (fault_ == Fault::divergence_one_axis) trace = product(r, 0);
      if (fault_ == Fault::sigma_not_squared) trace /= sigma[static_cast<std::size_t>(r)];
    }
    score(y, sigma, nullptr, score_out);
  }
  const char* name() const override { return "faulty"; }

 private:
  const GaussianMixture& exact_;
  Fault fault_;
  double low_;
};

// A mixture of two or three components in the plane, of its own for every seed.
GaussianMixture random_mixture(std::uint64_t seed) {
  const Index k = 2 + static_cast<Index>(seed % 2);
  MatrixD means(k, 2), shape(k, 3);
  Rng{seed}.normals<double>(Purpose::user, 0, 0, means);
  Rng{seed}.uniforms<double>(Purpose::user, 1, 0, shape);
  std::vector<MatrixD> covariances;
  std::vector<double> weights;
  for (Index i = 0; i < k; ++i) {
    const double a = .1 + shape(i, 0), b = .1 + shape(i, 1), c = .8 * (2 * shape(i, 2) - 1) * std::sqrt(a * b);
    covariances.push_back({{a, c}, {c, b}});
    weights.push_back(.3 + shape(i, 0));
    for (double& m : means.row(i)) m *= 2;
  }
  return GaussianMixture(std::move(weights), std::move(means), std::move(covariances));
}

// The check of likelihood_test.cpp on two rows.
bool likelihood_alarm(Fault fault, std::uint64_t seed) {
  const GaussianMixture exact = random_mixture(seed);
  const double low = .1, high = 10;
  const Faulty model(exact, fault, low);
  const MatrixD x = test::draws(exact, 2, low, 1000 + seed);
  const double start = fault == Fault::start_level ? 1.01 * low : low;
  const LogDensity p =
      log_density(model, x, {.terminal = Terminal::exact, .sigma_min = start, .sigma_max = high, .rtol = 1e-9, .atol = 1e-9});
  const std::vector<double> truth = exact.log_density(x, low);
  bool alarm = false;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    alarm |= !(std::abs(p.nats[i] - truth[i]) <= 1e-6 * std::max(1., std::abs(truth[i])));
  }
  return alarm;
}

enum class FlowFault { none, missing_half, alpha_ignored, score_at_x, start_std, stops_early, sign };

// The check of probability_flow_test.cpp: a Gaussian's exact stretching under vp, here written with the fault in the equation
// that is solved.
bool flow_alarm(FlowFault fault, std::uint64_t seed) {
  const MatrixD widths = test::normals(1, 2, .5, static_cast<std::uint32_t>(seed));
  const std::vector<double> deviations{.2 + std::abs(widths(0, 0)), .2 + std::abs(widths(0, 1))};
  const GaussianMixture exact = test::diagonal_gaussian(deviations);
  const Process process = vp();
  const double high = process.ratio(1), low = process.ratio(process.t_min_sampling()), alpha = process.alpha(1);
  const double alpha_low = process.alpha(process.t_min_sampling());
  const FunctionScore model(2, [&](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    MatrixD at(y);
    if (fault == FlowFault::score_at_x) {  // score(x, sigma_t) instead of score(x / alpha, sigma_t / alpha) / alpha
      for (Index r = 0; r < at.rows(); ++r) {
        const double t_alpha = process.alpha(process.time_of(sigma[static_cast<std::size_t>(r)]));
        for (double& v : at.row(r)) v *= t_alpha;
      }
    }
    exact.score(at, sigma, nullptr, out);
    const double factor = fault == FlowFault::missing_half ? 2 : fault == FlowFault::sign ? -1 : 1;
    for (Index r = 0; r < out.rows(); ++r) {
      for (double& v : out.row(r)) v *= factor;
    }
  });
  const MatrixD x = test::normals(3, 2, 1, static_cast<std::uint32_t>(100 + seed));
  MatrixD y = x;
  for (Index i = 0; i < y.size(); ++i) y.data()[i] /= alpha;
  MatrixD expected = test::diagonal_flow(y, deviations, high, low);
  for (Index i = 0; i < y.size(); ++i) expected.data()[i] *= alpha_low;
  MatrixD start = x;
  for (Index i = 0; i < start.size(); ++i) {
    if (fault == FlowFault::alpha_ignored) start.data()[i] *= alpha;  // y = x instead of y = x / alpha
    if (fault == FlowFault::start_std) start.data()[i] *= std::sqrt(1 - alpha * alpha);
  }
  MatrixD result = probability_flow(model, process, start, {.rtol = 1e-10, .atol = 1e-10}).x;
  if (fault == FlowFault::stops_early) {  // at 1.1 of the last noise level
    result = test::diagonal_flow(result, deviations, low, 1.1 * low);
  }
  bool alarm = false;
  for (const double e : test::row_errors(result, expected)) alarm |= !(e <= 1e-7);
  return alarm;
}

}  // namespace

TEST_CASE("planted faults of the likelihood are found in 99 of 100 mixtures, and none is seen where none is") {
  for (const auto& [fault, name] :
       {std::pair{Fault::none, "none"}, std::pair{Fault::missing_half, "missing 1/2"},
        std::pair{Fault::half_in_state_alone, "missing 1/2 in the state alone"},
        std::pair{Fault::divergence_sign, "sign of the divergence"}, std::pair{Fault::divergence_missing, "no divergence"},
        std::pair{Fault::divergence_one_axis, "trace of one axis"},
        std::pair{Fault::sigma_not_squared, "sigma instead of sigma^2"},
        std::pair{Fault::terminal_variance, "terminal variance doubled"},
        std::pair{Fault::terminal_sigma_min, "terminal density at sigma_min"},
        std::pair{Fault::start_level, "start at 1.01 sigma_min"},
        std::pair{Fault::stale_score, "divergence at a point .1% off"}}) {
    int found = 0;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) found += likelihood_alarm(fault, seed);
    MESSAGE(std::string(name), ": ", found, " of 100");
    CHECK((fault == Fault::none ? found == 0 : found >= 99));
  }
}

TEST_CASE("planted faults of the flow are found in 99 of 100 Gaussians, and none is seen where none is") {
  for (const auto& [fault, name] :
       {std::pair{FlowFault::none, "none"}, std::pair{FlowFault::missing_half, "missing 1/2"},
        std::pair{FlowFault::alpha_ignored, "alpha ignored at the start"},
        std::pair{FlowFault::score_at_x, "score at x, not x / alpha"},
        std::pair{FlowFault::start_std, "prior sigma(1) instead of 1"},
        std::pair{FlowFault::stops_early, "stops at 1.1 of the last level"}, std::pair{FlowFault::sign, "sign of the score"}}) {
    int found = 0;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) found += flow_alarm(fault, seed);
    MESSAGE(std::string(name), ": ", found, " of 100");
    CHECK((fault == FlowFault::none ? found == 0 : found >= 99));
  }
}
