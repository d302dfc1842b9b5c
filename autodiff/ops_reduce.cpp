// ops_reduce.cpp - sums, broadcasting (their adjoint), softmax and log-sum-exp.
//
// A sum over rows is cut into leaves of 64 rows, which may run in parallel, and the leaves are added in a fixed binary tree; a
// sum over columns keeps eight running sums. So results have the same bits for any number of threads, and errors grow with the
// logarithm of the number of leaves.
// SPDX-License-Identifier: MIT
#include <cmath>
#include <limits>

#include "tweedie/autodiff/detail/loops.h"
#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"

namespace tweedie {
namespace detail {
namespace {

template <class S>
S row_sum(const S* x, Index n) {
  constexpr Index kLanes = 8;
  S lane[kLanes] = {};
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (Index l = 0; l < kLanes; ++l) lane[l] += x[i + l];
  }
  for (Index l = 0; i < n; ++i, ++l) lane[l] += x[i];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/// out[0 .. width) = the sum over [0, rows) of what leaf(begin, end, partial) writes for each 64-row leaf.
template <class S, class Leaf>
void reduce_leaves(Pool& pool, Index rows, Index cols, Index width, S* out, Leaf&& leaf) {
  const Index leaves = (rows + kLeafRows - 1) / kLeafRows;
  if (leaves <= 1) {
    leaf(Index{0}, rows, out);
    return;
  }
  const Pool::Block block = pool.take(static_cast<Index>(sizeof(S)) * leaves * width);
  S* partial = pool.template data<S>(block);  // (leaves, width)
  for_range(leaves, kLeafRows * cols, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) leaf(i * kLeafRows, std::min(rows, (i + 1) * kLeafRows), partial + i * width);
  });
  for (Index step = 1; step < leaves; step *= 2) {
    for (Index i = 0; i + step < leaves; i += 2 * step) {
      for (Index c = 0; c < width; ++c) partial[i * width + c] += partial[(i + step) * width + c];
    }
  }
  std::copy_n(partial, width, out);
  pool.give(block);
}

template <class S>
void sum_forward(const Call<S>& f) {
  const ConstRows<S> x = f.value();
  const Rows<S> y = f.out();
  Pool& pool = f.tape().state().pool;
  if (y.cols() == x.cols() && y.rows() == 1) {  // over the rows
    reduce_leaves(pool, x.rows(), x.cols(), x.cols(), y.data(), [=](Index begin, Index end, S* sums) {
      std::fill_n(sums, x.cols(), S(0));
      for (Index r = begin; r < end; ++r) {
        const S* from = x.row(r).data();
        for (Index c = 0; c < x.cols(); ++c) sums[c] += from[c];
      }
    });
  } else if (y.rows() == x.rows()) {  // over the columns
    for_range(x.rows(), x.cols(), [=](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) y.data()[r] = row_sum(x.row(r).data(), x.cols());
    });
  } else {  // over both
    reduce_leaves(pool, x.rows(), x.cols(), 1, y.data(), [=](Index begin, Index end, S* total) {
      *total = S(0);
      for (Index r = begin; r < end; ++r) *total += row_sum(x.row(r).data(), x.cols());
    });
  }
}

// y = the sum of x over the dimensions that are 1 in y;  dy = the same of dx;  dx += dy, repeated
template <class S>
constexpr Operation<S> kSumTo = {
    "sum_to", sum_forward<S>,
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return sum_to(dx[0], f.out().rows(), f.out().cols()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = broadcast_to(dy, f.value().rows(), f.value().cols()); }};

// y = x repeated along the dimensions that are 1 in x;  dy = dx repeated;  dx += dy summed over them
template <class S>
constexpr Operation<S> kBroadcastTo = {
    "broadcast_to",
    [](const Call<S>& f) {
      const ConstRows<S> x = f.value();
      const Rows<S> y = f.out();
      for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
        for (Index r = begin; r < end; ++r) {
          const S* from = x.row(x.rows() == 1 ? 0 : r).data();
          if (x.cols() == y.cols()) {
            std::copy_n(from, y.cols(), y.row(r).data());
          } else {
            std::fill_n(y.row(r).data(), y.cols(), *from);
          }
        }
      });
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return broadcast_to(dx[0], f.out().rows(), f.out().cols()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = sum_to(dy, f.value().rows(), f.value().cols()); }};

/// The element of the row with the largest real part; -infinity of an empty row.
template <class S>
S row_max(const S* x, Index n) {
  S most = S(-std::numeric_limits<double>::infinity());
  for (Index i = 0; i < n; ++i) {
    if (!(real(x[i]) <= real(most))) most = x[i];  // a NaN becomes the maximum, and stays
    if (real(most) != real(most)) break;
  }
  return most;
}

// y = e^x / sum_cols(e^x);  dy = y (dx - sum_cols(y dx));  dx += y (dy - sum_cols(y dy)): the Jacobian is symmetric
template <class S>
VarX<S> softmax_derivative(VarX<S> y, VarX<S> v) {
  return y * (v - dot_cols(y, v));
}
template <class S>
constexpr Operation<S> kSoftmax = {
    "softmax_rows",
    [](const Call<S>& f) {
      const ConstRows<S> x = f.value();
      const Rows<S> y = f.out();
      for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
        for (Index r = begin; r < end; ++r) {
          S* row = y.row(r).data();
          const S most = row_max(x.row(r).data(), x.cols());
          for (Index c = 0; c < x.cols(); ++c) row[c] = std::exp(x(r, c) - most);
          const S total = row_sum(row, x.cols());
          for (Index c = 0; c < x.cols(); ++c) row[c] /= total;
        }
      });
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return softmax_derivative(f.y(), dx[0]); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = softmax_derivative(f.y(), dy); }};

// y = log sum_cols(e^x) = m + log sum_cols(e^(x - m)), m = max x;  dy = sum_cols(softmax(x) dx);  dx += softmax(x) dy
template <class S>
constexpr Operation<S> kLogSumExp = {
    "log_sum_exp_rows",
    [](const Call<S>& f) {
      const ConstRows<S> x = f.value();
      S* y = f.out().data();
      for_range(x.rows(), x.cols(), [=](Index begin, Index end) {
        for (Index r = begin; r < end; ++r) {
          const S most = row_max(x.row(r).data(), x.cols());
          S total(0);
          for (Index c = 0; c < x.cols(); ++c) total += std::exp(x(r, c) - most);
          y[r] = std::isinf(real(most)) ? most : most + std::log(total);
        }
      });
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return dot_cols(softmax_rows(f.x()), dx[0]); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = softmax_rows(f.x()) * dy; }};

}  // namespace
}  // namespace detail

template <class S>
VarX<S> sum_to(VarX<S> x, Index rows, Index cols) {
  if (x.rows() == rows && x.cols() == cols) return x;
  if ((rows != x.rows() && rows != 1) || (cols != x.cols() && cols != 1)) {
    fail("sum_to: a value of shape ", shape(x), " cannot be summed to (", rows, ", ", cols, "): each is the same or 1");
  }
  return detail::apply(detail::kSumTo<S>, {x}, rows, cols);
}
template <class S>
VarX<S> sum(VarX<S> x) {
  return sum_to(x, 1, 1);
}
template <class S>
VarX<S> mean(VarX<S> x) {
  const Index n = x.rows() * x.cols();
  if (n == 0) fail("mean: a value of shape ", shape(x), " has no elements");
  return sum(x) * (1. / static_cast<double>(n));
}
template <class S>
VarX<S> sum_rows(VarX<S> x) {
  return sum_to(x, 1, x.cols());
}
template <class S>
VarX<S> sum_cols(VarX<S> x) {
  return sum_to(x, x.rows(), 1);
}
template <class S>
VarX<S> broadcast_to(VarX<S> x, Index rows, Index cols) {
  if (x.rows() == rows && x.cols() == cols) return x;
  if ((x.rows() != rows && x.rows() != 1) || (x.cols() != cols && x.cols() != 1)) {
    fail("broadcast_to: a value of shape ", shape(x), " cannot become (", rows, ", ", cols, "): its rows and columns must be ",
         "those or 1");
  }
  return detail::apply(detail::kBroadcastTo<S>, {x}, rows, cols);
}
template <class S>
VarX<S> softmax_rows(VarX<S> x) {
  return detail::apply(detail::kSoftmax<S>, {x}, x.rows(), x.cols());
}
template <class S>
VarX<S> log_sum_exp_rows(VarX<S> x) {
  return detail::apply(detail::kLogSumExp<S>, {x}, x.rows(), 1);
}

#define TWEEDIE_INSTANTIATE(S)                          \
  template VarX<S> sum_to(VarX<S>, Index, Index);       \
  template VarX<S> sum(VarX<S>);                        \
  template VarX<S> mean(VarX<S>);                       \
  template VarX<S> sum_rows(VarX<S>);                   \
  template VarX<S> sum_cols(VarX<S>);                   \
  template VarX<S> broadcast_to(VarX<S>, Index, Index); \
  template VarX<S> softmax_rows(VarX<S>);               \
  template VarX<S> log_sum_exp_rows(VarX<S>);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
TWEEDIE_INSTANTIATE(std::complex<double>)

}  // namespace tweedie
