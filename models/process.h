// process.h - noising processes: x_t = alpha(t) x_0 + sigma(t) eps,  dx = f(t) x dt + g(t) dw, t from 0 (data) to 1 (noise).
//
//   name      alpha(t)                                     sigma(t)                f(t)        g(t)^2
//   ve        1                                            smin (smax/smin)^t      0           2 sigma^2 ln(smax/smin)
//   vp        exp(-t^2 (b1 - b0)/4 - t b0/2)               sqrt(1 - alpha^2)       -beta/2     beta = b0 + t (b1 - b0)
//   sub_vp    as vp                                        1 - alpha^2             -beta/2     beta (1 - exp(-2 t b0 - t^2 (b1 -
//   b0))) edm       1                                            t                       0           2 t
// [Song et al. 2021, Sec. 3.4 and App. C (score_sde); Karras et al. 2022 for edm, whose t runs from sigma_min to sigma_max.]
//
// A score model lives in unit-alpha coordinates y = x_t / alpha, s = sigma / alpha (score_model.h); a Process converts:
//   grad log p_t(x) = score(x / alpha, sigma / alpha) / alpha.
// So one model serves every process whose ratio sigma / alpha stays in the model's range.
// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "tweedie/core/matrix.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

enum class ProcessKind { ve, vp, sub_vp, edm };

class Process;
// Each throws UsageError unless 0 < first < second (vp, sub_vp: 0 <= beta_min < beta_max) and both are finite.
TWEEDIE_API Process ve(double sigma_min = .01, double sigma_max = 50);
TWEEDIE_API Process vp(double beta_min = .1, double beta_max = 20);
TWEEDIE_API Process sub_vp(double beta_min = .1, double beta_max = 20);
TWEEDIE_API Process edm(double sigma_min = .002, double sigma_max = 80);
/// By name with its defaults; throws UsageError listing the names.
TWEEDIE_API Process process(std::string_view name);

/// A noising process: a small value, cheap to copy.
class TWEEDIE_API Process {
 public:
  ProcessKind kind() const { return kind_; }
  /// "ve", "vp", "sub_vp" or "edm".
  const char* name() const;
  /// Smallest time of training and likelihood (1e-5; edm: sigma_min), and of sampling (1e-5, vp and sub_vp 1e-3; edm: sigma_min).
  double t_min() const;
  double t_min_sampling() const;
  /// Time of the prior: 1 (edm: sigma_max).
  double t_max() const;

  double alpha(double t) const;
  double sigma(double t) const;      // standard deviation of x_t given x_0
  double f(double t) const;          // drift coefficient
  double g_squared(double t) const;  // g(t)^2
  /// s(t) = sigma(t) / alpha(t), rising in t: the noise level that a model is asked for.
  double ratio(double t) const { return sigma(t) / alpha(t); }
  /// The t with ratio(t) = s, in closed form. Throws UsageError unless s is positive and finite.
  double time_of(double s) const;
  /// Standard deviation of the prior N(0, std^2 I) at t_max: ve and edm sigma(t_max), vp and sub_vp 1 [score_sde].
  double prior_std() const;

  /// The two parameters as given: (sigma_min, sigma_max) or (beta_min, beta_max).
  double first() const { return first_; }
  double second() const { return second_; }

 private:
  friend Process ve(double, double);
  friend Process vp(double, double);
  friend Process sub_vp(double, double);
  friend Process edm(double, double);
  Process(ProcessKind kind, double first, double second) : kind_(kind), first_(first), second_(second) {}
  ProcessKind kind_;
  double first_, second_;
};

/// grad log p_t(x), out (B, D) from x (B, D): model.score at x / alpha and ratio(t), divided by alpha. `out` may be x.
template <class S>
TWEEDIE_API void process_score(const ScoreModel& model, const Process& process, double t, ConstRows<S> x, Rows<S> out);

// Conversions at one noise level in (alpha, sigma) coordinates, element by element, n values [math: Tweedie's formula]:
//   eps = -sigma s;   x0 = (x + sigma^2 s) / alpha;   v = alpha eps - sigma x0.
/// What a model's output is taken for.
enum class Prediction { score, epsilon, x0, v };
TWEEDIE_API const char* to_string(Prediction prediction);
/// "score", "epsilon", "x0" or "v"; throws UsageError listing them.
TWEEDIE_API Prediction prediction(std::string_view name);
/// out = what `to` names, from `value` = what `from` names, at x; out may be x or value.
template <class S>
TWEEDIE_API void convert(Prediction from, Prediction to, double alpha, double sigma, ConstRows<S> x, ConstRows<S> value,
                         Rows<S> out);

extern template void process_score(const ScoreModel&, const Process&, double, ConstRows<float>, Rows<float>);
extern template void process_score(const ScoreModel&, const Process&, double, ConstRows<double>, Rows<double>);
extern template void convert(Prediction, Prediction, double, double, ConstRows<float>, ConstRows<float>, Rows<float>);
extern template void convert(Prediction, Prediction, double, double, ConstRows<double>, ConstRows<double>, Rows<double>);

}  // namespace tweedie
