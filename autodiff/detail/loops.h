// loops.h - element-wise loops over the values of one call, in the thread pool when they are long.
//
// Every element is computed by the same scalar code wherever it stands, so results depend neither on the number of threads nor
// on how rows are cut into batches.
// SPDX-License-Identifier: MIT
#pragma once

#include <complex>

#include "tweedie/autodiff/operation.h"
#include "tweedie/core/parallel.h"

namespace tweedie::detail {

inline constexpr Index kGrain = Index{1} << 14;  // elements worth a task

/// body(begin, end) over [0, n) items of `width` elements each.
template <class Body>
void for_range(Index n, Index width, Body&& body) {
  const Index grain = width >= kGrain ? 1 : kGrain / (width > 0 ? width : 1);
  if (n <= grain) {
    if (n > 0) body(Index{0}, n);
  } else {
    tweedie::parallel_for(n, grain, body);
  }
}

/// y_i = function(x_i).
template <class S, class Function>
void map(const Call<S>& f, Function function) {
  const S* x = f.value().data();
  S* y = f.out().data();
  for_range(f.out().size(), 1, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = function(x[i]);
  });
}

/// y(r, c) = function(a(r, c), b(r, c)), where a dimension of size 1 is repeated.
template <class S, class Function>
void zip(const Call<S>& f, Function function) {
  const ConstRows<S> a = f.value(0), b = f.value(1);
  const Rows<S> y = f.out();
  if (a.rows() == b.rows() && a.cols() == b.cols()) {
    for_range(y.size(), 1, [=](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) y.data()[i] = function(a.data()[i], b.data()[i]);
    });
    return;
  }
  for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
    const Index n = y.cols();
    for (Index r = begin; r < end; ++r) {
      const S* u = a.row(a.rows() == 1 ? 0 : r).data();
      const S* v = b.row(b.rows() == 1 ? 0 : r).data();
      S* to = y.row(r).data();
      // Four loops with constant strides, so that the compiler vectorises each.
      if (a.cols() == n && b.cols() == n) {
        for (Index c = 0; c < n; ++c) to[c] = function(u[c], v[c]);
      } else if (a.cols() == n) {
        for (Index c = 0; c < n; ++c) to[c] = function(u[c], v[0]);
      } else if (b.cols() == n) {
        for (Index c = 0; c < n; ++c) to[c] = function(u[0], v[c]);
      } else {
        for (Index c = 0; c < n; ++c) to[c] = function(u[0], v[0]);
      }
    }
  });
}

/// The real part, by which complex-step checks choose branches.
template <class S>
S real(S x) {
  return x;
}
inline double real(std::complex<double> x) { return x.real(); }

}  // namespace tweedie::detail
