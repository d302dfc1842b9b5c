// gradient_check.h - compares derivatives with differences, in double.
//
//   auto f = [](const auto& x) { return silu(linear(x[0], x[1], x[2])); };     // generic: a span of Vars in, a Var out
//   GradientReport r = check_gradient(f, {x, w, b});                          // r.error < 1e-7
//   GradientReport c = check_complex_step(f, {x, w, b});                      // c.error < 1e-13, where f is analytic
//   GradientReport h = check_second_order(f, {x, w, b});
//
// J is the full Jacobian of all elements of y by all elements of the inputs. Every error is
//   max |J - reference| / max(|J|, (max |J| + max |y|) / 100),
// so entries down to a hundredth of the largest are compared relatively.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "tweedie/autodiff/tape.h"

namespace tweedie {

struct GradientReport {
  double error = 0;   // the largest, as defined above; NaN counts as infinite
  Index entries = 0;  // derivatives compared
  std::string worst;  // "dy(0, 1)/dx1(2, 0): 0.25, expected 0.5"
};

namespace detail {
template <class S>
using CheckedFunction = std::function<VarX<S>(std::span<const VarX<S>>)>;
TWEEDIE_API GradientReport check_gradient(const CheckedFunction<double>& f, std::span<const MatrixD> inputs);
TWEEDIE_API GradientReport check_complex_step(const CheckedFunction<double>& f, const CheckedFunction<std::complex<double>>& g,
                                              std::span<const MatrixD> inputs);
TWEEDIE_API GradientReport check_second_order(const CheckedFunction<double>& f, std::span<const MatrixD> inputs);
}  // namespace detail

/// Reverse mode, and forward mode column by column, against the five-point central difference
///   (8 (y(x + h) - y(x - h)) - (y(x + 2h) - y(x - 2h))) / 12h,  h = 1e-3 max(1, |x|).
template <class F>
GradientReport check_gradient(F&& f, std::initializer_list<MatrixD> inputs) {
  return detail::check_gradient(f, {inputs.begin(), inputs.size()});
}

/// Reverse mode against Im y(x + i h) / h, h = 1e-100: no cancellation, exact to rounding where f is analytic.
template <class F>
GradientReport check_complex_step(F&& f, std::initializer_list<MatrixD> inputs) {
  return detail::check_complex_step(f, f, {inputs.begin(), inputs.size()});
}

/// The gradient of z = sum(c * y), c fixed weights, by the same five-point difference of z's recorded gradient: every second
/// derivative, in reverse over reverse and forward over reverse.
template <class F>
GradientReport check_second_order(F&& f, std::initializer_list<MatrixD> inputs) {
  return detail::check_second_order(f, {inputs.begin(), inputs.size()});
}

}  // namespace tweedie
