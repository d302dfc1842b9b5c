// ops_matrix.cpp - matrix products, all through kernels::gemm.
// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/detail/loops.h"
#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {
namespace detail {
namespace {

/// c = op(a) op(b) + beta c.
template <class S>
void multiply(ConstRows<S> a, bool transpose_a, ConstRows<S> b, bool transpose_b, float beta, Rows<S> c) {
  const Index k = transpose_a ? a.rows() : a.cols();
  if constexpr (std::is_floating_point_v<S>) {
    kernels::gemm({.m = c.rows(), .n = c.cols(), .k = k, .transpose_a = transpose_a, .transpose_b = transpose_b, .beta = beta},
                  a.data(), a.cols(), b.data(), b.cols(), c.data(), c.cols());
  } else {
    for (Index i = 0; i < c.rows(); ++i) {
      for (Index j = 0; j < c.cols(); ++j) {
        S sum = beta == 0 ? S(0) : c(i, j);
        for (Index l = 0; l < k; ++l) sum += (transpose_a ? a(l, i) : a(i, l)) * (transpose_b ? b(j, l) : b(l, j));
        c(i, j) = sum;
      }
    }
  }
}

// The three products. Their gradients are products of the same family:
//   y = a b      da += dy b^T    db += a^T dy
//   y = a b^T    da += dy b      db += dy^T a
//   y = a^T b    da += b dy^T    db += a dy
// and dy is always the product with one factor replaced by its tangent, once for each.
template <class S, VarX<S> (*Product)(VarX<S>, VarX<S>)>
VarX<S> product_jvp(const Call<S>& f, std::span<const VarX<S>> dx) {
  return plus(dx[0] ? Product(dx[0], f.x(1)) : dx[0], dx[1] ? Product(f.x(0), dx[1]) : dx[1]);
}

template <class S>
constexpr Operation<S> kMatmul = {"matmul", [](const Call<S>& f) { multiply(f.value(0), false, f.value(1), false, 0, f.out()); },
                                  product_jvp<S, matmul<S>>,
                                  [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                    if (f.wants(0)) dx[0] = matmul_nt(dy, f.x(1));
                                    if (f.wants(1)) dx[1] = matmul_tn(f.x(0), dy);
                                  }};

template <class S>
constexpr Operation<S> kMatmulNt = {"matmul_nt",
                                    [](const Call<S>& f) { multiply(f.value(0), false, f.value(1), true, 0, f.out()); },
                                    product_jvp<S, matmul_nt<S>>,
                                    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                      if (f.wants(0)) dx[0] = matmul(dy, f.x(1));
                                      if (f.wants(1)) dx[1] = matmul_tn(dy, f.x(0));
                                    }};

template <class S>
constexpr Operation<S> kMatmulTn = {"matmul_tn",
                                    [](const Call<S>& f) { multiply(f.value(0), true, f.value(1), false, 0, f.out()); },
                                    product_jvp<S, matmul_tn<S>>,
                                    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                      if (f.wants(0)) dx[0] = matmul_nt(f.x(1), dy);
                                      if (f.wants(1)) dx[1] = matmul(f.x(0), dy);
                                    }};

// y = x w^T + bias;  dy = dx w^T + x dw^T + dbias;  dx += dy w, dw += dy^T x, dbias += sum_b dy
template <class S>
constexpr Operation<S> kLinear = {"linear",
                                  [](const Call<S>& f) {
                                    const Rows<S> y = f.out();
                                    const S* bias = f.value(2).data();
                                    for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
                                      for (Index r = begin; r < end; ++r) std::copy_n(bias, y.cols(), y.row(r).data());
                                    });
                                    multiply(f.value(0), false, f.value(1), true, 1, y);
                                  },
                                  [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                    return plus(product_jvp<S, matmul_nt<S>>(f, dx),
                                                dx[2] ? broadcast_to(dx[2], f.out().rows(), f.out().cols()) : dx[2]);
                                  },
                                  [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                    if (f.wants(0)) dx[0] = matmul(dy, f.x(1));
                                    if (f.wants(1)) dx[1] = matmul_tn(dy, f.x(0));
                                    if (f.wants(2)) dx[2] = sum_rows(dy);
                                  }};

// y = x^T;  dy = dx^T;  dx += dy^T
template <class S>
constexpr Operation<S> kTranspose = {"transpose",
                                     [](const Call<S>& f) {
                                       const ConstRows<S> x = f.value();
                                       const Rows<S> y = f.out();
                                       for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
                                         for (Index r = begin; r < end; ++r) {
                                           for (Index c = 0; c < y.cols(); ++c) y(r, c) = x(c, r);
                                         }
                                       });
                                     },
                                     [](const Call<S>&, std::span<const VarX<S>> dx) { return transpose(dx[0]); },
                                     [](const Call<S>&, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = transpose(dy); }};

}  // namespace
}  // namespace detail

using detail::shape_error;

template <class S>
VarX<S> matmul(VarX<S> a, VarX<S> b) {
  if (a.cols() != b.rows()) shape_error("matmul", a, b, "the columns of the first must be the rows of the second");
  return detail::apply(detail::kMatmul<S>, {a, b}, a.rows(), b.cols());
}
template <class S>
VarX<S> matmul_nt(VarX<S> a, VarX<S> b) {
  if (a.cols() != b.cols()) shape_error("matmul_nt", a, b, "both must have the same number of columns");
  return detail::apply(detail::kMatmulNt<S>, {a, b}, a.rows(), b.rows());
}
template <class S>
VarX<S> matmul_tn(VarX<S> a, VarX<S> b) {
  if (a.rows() != b.rows()) shape_error("matmul_tn", a, b, "both must have the same number of rows");
  return detail::apply(detail::kMatmulTn<S>, {a, b}, a.cols(), b.cols());
}
template <class S>
VarX<S> linear(VarX<S> x, VarX<S> w, VarX<S> bias) {
  if (x.cols() != w.cols()) shape_error("linear", x, w, "x (B, in) and w (out, in) must have the same number of columns");
  if (bias.rows() != 1 || bias.cols() != w.rows()) shape_error("linear", w, bias, "with w (out, in) the bias is (1, out)");
  return detail::apply(detail::kLinear<S>, {x, w, bias}, x.rows(), w.rows());
}
template <class S>
VarX<S> transpose(VarX<S> x) {
  return detail::apply(detail::kTranspose<S>, {x}, x.cols(), x.rows());
}

#define TWEEDIE_INSTANTIATE(S)                        \
  template VarX<S> matmul(VarX<S>, VarX<S>);          \
  template VarX<S> matmul_nt(VarX<S>, VarX<S>);       \
  template VarX<S> matmul_tn(VarX<S>, VarX<S>);       \
  template VarX<S> linear(VarX<S>, VarX<S>, VarX<S>); \
  template VarX<S> transpose(VarX<S>);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
TWEEDIE_INSTANTIATE(std::complex<double>)

}  // namespace tweedie
