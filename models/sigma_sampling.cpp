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

// Ratios of polynomials in (p - 1/2)^2, and in sqrt(-ln p) towards the tail  [Wichura 1988, Algorithm AS 241, PPND16].
double normal_quantile_lower(double p) {
  check(p >= 0 && p <= .5, "normal_quantile_lower: p is ", p, "; give a number in [0, 1/2]");
  if (p == 0) return -std::numeric_limits<double>::infinity();
  struct Ratio {
    double above[8], below[8];
    double at(double x) const {
      double a = above[7], b = below[7];
      for (int i = 6; i >= 0; --i) a = a * x + above[i], b = b * x + below[i];
      return a / b;
    }
  };
  static constexpr Ratio kMiddle = {{3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
                                     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727},
                                    {1, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
                                     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610}};
  static constexpr Ratio kSide = {
      {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504, 1.27045825245236838258,
       .241780725177450611770, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
      {1, 2.05319162663775882187, 1.67638483018380384940, .689767334985100004550, .148103976427480074590,
       1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
  static constexpr Ratio kTail = {
      {6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, .296560571828504891230, 2.65321895265761230930e-2,
       1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
      {1, .599832206555887937690, .136929880922735805310, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
       1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
  const double h = p - .5;
  if (h >= -.425) return h * kMiddle.at(.180625 - h * h);
  const double r = std::sqrt(-std::log(p));
  return r <= 5 ? -kSide.at(r - 1.6) : -kTail.at(r - 5);
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
