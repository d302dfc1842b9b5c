// SPDX-License-Identifier: MIT
#include "tweedie/models/process.h"

#include <cmath>

namespace tweedie {

namespace {

// ln alpha of vp and sub_vp at t.
double log_alpha(double b0, double b1, double t) { return -t * t * (b1 - b0) / 4 - t * b0 / 2; }

// The t >= 0 with log_alpha = value <= 0: the positive root of (b1 - b0) t^2 / 4 + b0 t / 2 + value = 0, without cancellation.
double time_of_log_alpha(double b0, double b1, double value) {
  return -2 * value / (b0 / 2 + std::sqrt(b0 * b0 / 4 - (b1 - b0) * value));
}

Process checked(ProcessKind kind, double first, double second, Process made) {
  const bool betas = kind == ProcessKind::vp || kind == ProcessKind::sub_vp;
  check(std::isfinite(second) && first < second && (betas ? first >= 0 : first > 0), made.name(), ": (", first, ", ", second,
        ") is no range; give two rising ", betas ? "numbers, beta_min >= 0" : "positive numbers, sigma_min and sigma_max");
  return made;
}

}  // namespace

Process ve(double sigma_min, double sigma_max) {
  return checked(ProcessKind::ve, sigma_min, sigma_max, Process(ProcessKind::ve, sigma_min, sigma_max));
}
Process vp(double beta_min, double beta_max) {
  return checked(ProcessKind::vp, beta_min, beta_max, Process(ProcessKind::vp, beta_min, beta_max));
}
Process sub_vp(double beta_min, double beta_max) {
  return checked(ProcessKind::sub_vp, beta_min, beta_max, Process(ProcessKind::sub_vp, beta_min, beta_max));
}
Process edm(double sigma_min, double sigma_max) {
  return checked(ProcessKind::edm, sigma_min, sigma_max, Process(ProcessKind::edm, sigma_min, sigma_max));
}

Process process(std::string_view name) {
  if (name == "ve") return ve();
  if (name == "vp") return vp();
  if (name == "sub_vp") return sub_vp();
  if (name == "edm") return edm();
  fail("process '", name, "' is unknown; choose one of: ve, vp, sub_vp, edm");
}

const char* Process::name() const {
  switch (kind_) {
    case ProcessKind::ve:
      return "ve";
    case ProcessKind::vp:
      return "vp";
    case ProcessKind::sub_vp:
      return "sub_vp";
    case ProcessKind::edm:
      return "edm";
  }
  fail("Process: unknown kind");
}

double Process::t_min() const { return kind_ == ProcessKind::edm ? first_ : 1e-5; }

double Process::t_min_sampling() const { return kind_ == ProcessKind::vp || kind_ == ProcessKind::sub_vp ? 1e-3 : t_min(); }

double Process::t_max() const { return kind_ == ProcessKind::edm ? second_ : 1; }

double Process::alpha(double t) const {
  if (kind_ == ProcessKind::ve || kind_ == ProcessKind::edm) return 1;
  return std::exp(log_alpha(first_, second_, t));
}

double Process::sigma(double t) const {
  switch (kind_) {
    case ProcessKind::ve:
      return first_ * std::pow(second_ / first_, t);
    case ProcessKind::vp:
      return std::sqrt(-std::expm1(2 * log_alpha(first_, second_, t)));
    case ProcessKind::sub_vp:
      return -std::expm1(2 * log_alpha(first_, second_, t));
    case ProcessKind::edm:
      return t;
  }
  fail("Process: unknown kind");
}

double Process::f(double t) const {
  if (kind_ == ProcessKind::ve || kind_ == ProcessKind::edm) return 0;
  return -.5 * (first_ + t * (second_ - first_));
}

double Process::g_squared(double t) const {
  const double beta = first_ + t * (second_ - first_);
  switch (kind_) {
    case ProcessKind::ve: {
      const double s = sigma(t);
      return 2 * s * s * std::log(second_ / first_);
    }
    case ProcessKind::vp:
      return beta;
    case ProcessKind::sub_vp:
      return -beta * std::expm1(4 * log_alpha(first_, second_, t));
    case ProcessKind::edm:
      return 2 * t;
  }
  fail("Process: unknown kind");
}

double Process::time_of(double s) const {
  check(std::isfinite(s) && s > 0, name(), "::time_of: the ratio ", s, " is not positive and finite");
  switch (kind_) {
    case ProcessKind::ve:
      return std::log(s / first_) / std::log(second_ / first_);
    case ProcessKind::vp:  // alpha^2 = 1 / (1 + s^2)
      return time_of_log_alpha(first_, second_, -.5 * std::log1p(s * s));
    case ProcessKind::sub_vp: {  // (1 - alpha^2) / alpha = s, so alpha = 2 / (s + sqrt(s^2 + 4)): asinh(s / 2) = -ln alpha
      return time_of_log_alpha(first_, second_, -std::asinh(s / 2));
    }
    case ProcessKind::edm:
      return s;
  }
  fail("Process: unknown kind");
}

double Process::prior_std() const { return kind_ == ProcessKind::ve || kind_ == ProcessKind::edm ? second_ : 1; }

template <class S>
void process_score(const ScoreModel& model, const Process& process, double t, ConstRows<S> x, Rows<S> out) {
  check(out.rows() == x.rows() && out.cols() == x.cols(), "process_score: out is ", shape(out), ", x is ", shape(x),
        "; give them the same shape");
  const S inverse = static_cast<S>(1 / process.alpha(t)), ratio = static_cast<S>(process.ratio(t));
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) out(r, c) = x(r, c) * inverse;
  }
  model.score(ConstRows<S>(out), std::span(&ratio, 1), nullptr, out);
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) out(r, c) *= inverse;
  }
}

const char* to_string(Prediction prediction) {
  switch (prediction) {
    case Prediction::score:
      return "score";
    case Prediction::epsilon:
      return "epsilon";
    case Prediction::x0:
      return "x0";
    case Prediction::v:
      return "v";
  }
  fail("prediction: unknown kind");
}

Prediction prediction(std::string_view name) {
  for (const Prediction p : {Prediction::score, Prediction::epsilon, Prediction::x0, Prediction::v}) {
    if (name == to_string(p)) return p;
  }
  fail("prediction '", name, "' is unknown; choose one of: score, epsilon, x0, v");
}

namespace {

double to_x0(Prediction from, double alpha, double sigma, double x, double value) {
  switch (from) {
    case Prediction::score:
      return (x + sigma * sigma * value) / alpha;
    case Prediction::epsilon:
      return (x - sigma * value) / alpha;
    case Prediction::x0:
      return value;
    case Prediction::v:
      return (alpha * x - sigma * value) / (alpha * alpha + sigma * sigma);
  }
  fail("prediction: unknown kind");
}

double from_x0(Prediction to, double alpha, double sigma, double x, double x0) {
  const double eps = (x - alpha * x0) / sigma;
  switch (to) {
    case Prediction::score:
      return -eps / sigma;
    case Prediction::epsilon:
      return eps;
    case Prediction::x0:
      return x0;
    case Prediction::v:
      return alpha * eps - sigma * x0;
  }
  fail("prediction: unknown kind");
}

}  // namespace

template <class S>
void convert(Prediction from, Prediction to, double alpha, double sigma, ConstRows<S> x, ConstRows<S> value, Rows<S> out) {
  check(value.rows() == x.rows() && value.cols() == x.cols() && out.rows() == x.rows() && out.cols() == x.cols(),
        "convert: x is ", shape(x), ", the value ", shape(value), ", out ", shape(out), "; give them the same shape");
  check(alpha > 0 && sigma > 0, "convert: alpha = ", alpha, " and sigma = ", sigma, " must be positive");
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c) {
      const double at = static_cast<double>(x(r, c)), v = static_cast<double>(value(r, c));
      double result;
      if (from == to) {
        result = v;
      } else if (from == Prediction::score && to == Prediction::epsilon) {
        result = -sigma * v;  // directly: through x0 it would cancel where sigma is small
      } else if (from == Prediction::epsilon && to == Prediction::score) {
        result = -v / sigma;
      } else {
        result = from_x0(to, alpha, sigma, at, to_x0(from, alpha, sigma, at, v));
      }
      out(r, c) = static_cast<S>(result);
    }
  }
}

template void process_score(const ScoreModel&, const Process&, double, ConstRows<float>, Rows<float>);
template void process_score(const ScoreModel&, const Process&, double, ConstRows<double>, Rows<double>);
template void convert(Prediction, Prediction, double, double, ConstRows<float>, ConstRows<float>, Rows<float>);
template void convert(Prediction, Prediction, double, double, ConstRows<double>, ConstRows<double>, Rows<double>);

}  // namespace tweedie
