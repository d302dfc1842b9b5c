// mala_ratio.h - the logarithm of the Metropolis-Hastings ratio of a Langevin proposal.
//
//   ln p(x') q(x | x') / (p(x) q(x' | x)) = ln p(x') - ln p(x) - (|x - x' - h s(x')|^2 - |x' - x - h s(x)|^2) / (4 h)
//
// for q(x' | x) = N(x'; x + h s(x), 2 h I)                                               [Roberts & Tweedie 1996, Eq. 1.4]
// Both distances are taken between the states as stored, so that rounding them to float enters the two ways alike.
// SPDX-License-Identifier: MIT
#pragma once

#include <span>

namespace tweedie::detail {

/// A state of the chain with what is known about it.
template <class S>
struct LangevinState {
  std::span<const S> x, score;
  double log_p;
};

template <class S>
double mala_log_ratio(double h, const LangevinState<S>& from, const LangevinState<S>& to) {
  double back = 0, forth = 0;
  for (std::size_t j = 0; j < from.x.size(); ++j) {
    const double move = static_cast<double>(to.x[j]) - static_cast<double>(from.x[j]);
    const double b = -move - h * static_cast<double>(to.score[j]), f = move - h * static_cast<double>(from.score[j]);
    back += b * b;
    forth += f * f;
  }
  return to.log_p - from.log_p - (back - forth) / (4 * h);
}

}  // namespace tweedie::detail
