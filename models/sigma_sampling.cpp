// SPDX-License-Identifier: MIT
#include "tweedie/models/sigma_sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace tweedie {

namespace {

constexpr double kLeastMass = 1e-9;

// Phi(z), relatively exact in the lower tail.
double lower_tail(double z) { return .5 * std::erfc(-z / std::numbers::sqrt2); }

}  // namespace

double normal_quantile_lower(double p) {
  check(p >= 0 && p <= .5, "normal_quantile_lower: p is ", p, "; give a number in [0, 1/2]");
  if (p == 0) return -std::numeric_limits<double>::infinity();
  // Abramowitz & Stegun 26.2.23, |error| < 4.5e-4; then Halley's steps on Phi(z) - p, which cube the error.
  const double t = std::sqrt(-2 * std::log(p));
  double z = (2.515517 + t * (.802853 + t * .010328)) / (1 + t * (1.432788 + t * (.189269 + t * .001308))) - t;
  for (int step = 0; step < 2; ++step) {
    const double e = (lower_tail(z) - p) * std::sqrt(2 * std::numbers::pi) * std::exp(.5 * z * z);
    z -= e / (1 + .5 * z * e);
  }
  return z;
}

SigmaSampling SigmaSampling::lognormal(double p_mean, double p_std) {
  check(std::isfinite(p_mean) && std::isfinite(p_std) && p_std > 0, "SigmaSampling::lognormal: (", p_mean, ", ", p_std,
        "); give a finite mean of ln sigma and a positive standard deviation");
  SigmaSampling s(Kind::lognormal);
  s.mean_ = p_mean;
  s.std_ = p_std;
  return s;
}

SigmaSampling SigmaSampling::process(const Process& process) {
  SigmaSampling s(Kind::process);
  s.process_ = process;
  return s;
}

SigmaSampling SigmaSampling::flow() { return SigmaSampling(Kind::flow); }

SigmaSampling::Truncated SigmaSampling::truncated(double low, double high) const { return {*this, low, high}; }

SigmaSampling::Truncated::Truncated(const SigmaSampling& sampling, double low, double high)
    : sampling_(sampling), low_(low), high_(high) {
  check(low > 0 && low <= high && std::isfinite(high), "sigma sampling: the range [", low, ", ", high,
        "] is not positive and finite");
  switch (sampling_.kind_) {
    case Kind::continuous:
      first_ = std::log(low);
      range_ = std::log(high) - first_;
      return;
    case Kind::lognormal: {
      const double z_low = (std::log(low) - sampling_.mean_) / sampling_.std_;
      const double z_high = (std::log(high) - sampling_.mean_) / sampling_.std_;
      first_ = lower_tail(z_low);
      upper_tail_ = lower_tail(-z_high);
      range_ = z_low > 0 ? lower_tail(-z_low) - upper_tail_ : lower_tail(z_high) - first_;
      if (low < high && range_ < kLeastMass) {
        fail("sigma sampling: ", describe(sampling_), " has the part ", range_, " between sigma ", low, " and ", high,
             "; give a mean of ln sigma that lies between their logarithms");
      }
      return;
    }
    case Kind::process: {
      const Process& p = *sampling_.process_;
      first_ = std::max(p.t_min(), p.time_of(low));
      range_ = std::min(p.t_max(), p.time_of(high)) - first_;
      if (range_ < 0) {
        fail("sigma sampling: ", describe(sampling_), " runs from sigma ", p.ratio(p.t_min()), " to ", p.ratio(p.t_max()),
             ", which misses the network's range [", low, ", ", high, "]; give a process that meets it");
      }
      return;
    }
    case Kind::flow:
      first_ = low / (1 + low);
      range_ = high / (1 + high) - first_;
      return;
    case Kind::automatic:
    case Kind::levels:
      break;
  }
  fail("sigma sampling: ", describe(sampling_), " is no distribution over a range; give continuous, lognormal, process or flow");
}

double SigmaSampling::Truncated::operator()(double u) const {
  double sigma = low_;
  switch (sampling_.kind_) {
    case Kind::continuous:  // not clamped: one rounding beyond an end is within every network's slack
      return std::exp(first_ + range_ * u);
    case Kind::lognormal: {
      const double p = first_ + u * range_;
      const double z = p <= .5 ? normal_quantile_lower(p) : -normal_quantile_lower(std::min(.5, upper_tail_ + (1 - u) * range_));
      sigma = std::exp(sampling_.mean_ + sampling_.std_ * z);
      break;
    }
    case Kind::process:
      sigma = sampling_.process_->ratio(first_ + range_ * u);
      break;
    case Kind::flow: {
      const double t = first_ + range_ * u;
      sigma = t / (1 - t);
      break;
    }
    case Kind::automatic:
    case Kind::levels:
      break;
  }
  return std::clamp(sigma, low_, high_);
}

std::string describe(const Process& process) { return join(process.name(), ", ", process.first(), ", ", process.second()); }

std::string describe(const SigmaSampling& sampling) {
  switch (sampling.kind_) {
    case SigmaSampling::Kind::automatic:
      return "automatic";
    case SigmaSampling::Kind::levels:
      return "levels";
    case SigmaSampling::Kind::continuous:
      return "continuous";
    case SigmaSampling::Kind::lognormal:
      return join("lognormal(", sampling.mean_, ", ", sampling.std_, ")");
    case SigmaSampling::Kind::process:
      return join("process(", describe(*sampling.process_), ")");
    case SigmaSampling::Kind::flow:
      return "flow";
  }
  fail("sigma sampling: unknown kind");
}

}  // namespace tweedie
