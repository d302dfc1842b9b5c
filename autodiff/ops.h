// ops.h - the differentiable operations on Vars. Values are (B, D): B rows (samples), D columns.
//
// Every function throws UsageError, naming itself and the shapes, for shapes that do not fit, a stale or missing Var, or Vars
// of different tapes. Element-wise operations of two Vars broadcast (1, D), (B, 1) and (1, 1) on either side. Each operation
// can be differentiated any number of times, in reverse (grad) and forward (jvp) mode; where a derivative jumps (relu, abs,
// clamp), its value at the corner is stated. Scalars are double and are rounded to S once.
// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <span>
#include <type_traits>

#include "tweedie/autodiff/tape.h"

namespace tweedie {

// One operation, one line.
// clang-format off

// Arithmetic, broadcasting.
template <class S> TWEEDIE_API VarX<S> operator+(VarX<S> a, VarX<S> b);
template <class S> TWEEDIE_API VarX<S> operator-(VarX<S> a, VarX<S> b);
template <class S> TWEEDIE_API VarX<S> operator*(VarX<S> a, VarX<S> b);
template <class S> TWEEDIE_API VarX<S> operator/(VarX<S> a, VarX<S> b);

/// scale x + offset, element by element: what the operators with a scalar become.
template <class S> TWEEDIE_API VarX<S> affine(VarX<S> x, double scale, double offset);

template <class S> VarX<S> operator-(VarX<S> x) { return affine(x, -1, 0); }
template <class S> VarX<S> operator+(VarX<S> x, double s) { return affine(x, 1, s); }
template <class S> VarX<S> operator+(double s, VarX<S> x) { return affine(x, 1, s); }
template <class S> VarX<S> operator-(VarX<S> x, double s) { return affine(x, 1, -s); }
template <class S> VarX<S> operator-(double s, VarX<S> x) { return affine(x, -1, s); }
template <class S> VarX<S> operator*(VarX<S> x, double s) { return affine(x, s, 0); }
template <class S> VarX<S> operator*(double s, VarX<S> x) { return affine(x, s, 0); }
/// x (1 / s): rounded twice.
template <class S> VarX<S> operator/(VarX<S> x, double s) { return affine(x, 1 / s, 0); }

// Functions of each element.
template <class S> TWEEDIE_API VarX<S> exp(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> log(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> sqrt(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> square(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> reciprocal(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> abs(VarX<S> x);  // derivative 0 at 0
template <class S> TWEEDIE_API VarX<S> pow(VarX<S> x, double p);  // as std::pow
template <class S> TWEEDIE_API VarX<S> sin(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> cos(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> tanh(VarX<S> x);
template <class S> TWEEDIE_API VarX<S> sigmoid(VarX<S> x);  // 1 / (1 + e^-x)
template <class S> TWEEDIE_API VarX<S> silu(VarX<S> x);  // x sigmoid(x)
template <class S> TWEEDIE_API VarX<S> relu(VarX<S> x);  // derivative 0 at 0
template <class S> TWEEDIE_API VarX<S> gelu(VarX<S> x);  // x Phi(x), exact, by erf
template <class S> TWEEDIE_API VarX<S> softplus(VarX<S> x);  // log(1 + e^x)
/// min(max(x, low), high); derivative 1 in [low, high], 0 outside. Throws UsageError unless low <= high.
template <class S> TWEEDIE_API VarX<S> clamp(VarX<S> x, double low, double high);
/// a where condition is not 0, b where it is; all three of one shape. No gradient flows to the condition.
template <class S> TWEEDIE_API VarX<S> where(VarX<S> condition, VarX<S> a, VarX<S> b);
/// dy silu'(x), of one shape: what silu's pullback is made of.
template <class S> TWEEDIE_API VarX<S> silu_gradient(VarX<S> x, VarX<S> dy);
template <class S> VarX<S> operator/(double s, VarX<S> x) { return affine(reciprocal(x), s, 0); }

// Matrix products.
template <class S> TWEEDIE_API VarX<S> matmul(VarX<S> a, VarX<S> b);  // (M, K), (K, N) -> (M, N)
template <class S> TWEEDIE_API VarX<S> matmul_nt(VarX<S> a, VarX<S> b);  // a b^T: (M, K), (N, K) -> (M, N)
template <class S> TWEEDIE_API VarX<S> matmul_tn(VarX<S> a, VarX<S> b);  // a^T b: (K, M), (K, N) -> (M, N)
/// x w^T + bias: x (B, in), w (out, in), bias (1, out) -> (B, out), the layout of PyTorch's nn.Linear.
template <class S> TWEEDIE_API VarX<S> linear(VarX<S> x, VarX<S> w, VarX<S> bias);

// Reductions: sums run over 64-row leaves in a fixed order. Of no rows at all, sums are 0 and the mean throws.
template <class S> TWEEDIE_API VarX<S> sum(VarX<S> x);  // (1, 1)
template <class S> TWEEDIE_API VarX<S> mean(VarX<S> x);  // (1, 1)
template <class S> TWEEDIE_API VarX<S> sum_rows(VarX<S> x);  // (1, D), over the batch
template <class S> TWEEDIE_API VarX<S> sum_cols(VarX<S> x);  // (B, 1)
/// Sums over the dimensions that are 1 in (rows, cols): the adjoint of broadcast_to.
template <class S> TWEEDIE_API VarX<S> sum_to(VarX<S> x, Index rows, Index cols);
/// sum_cols(a * b) -> (B, 1).
template <class S> VarX<S> dot_cols(VarX<S> a, VarX<S> b) { return sum_cols(a * b); }
template <class S> TWEEDIE_API VarX<S> softmax_rows(VarX<S> x);  // (B, D), each row sums to 1
template <class S> TWEEDIE_API VarX<S> log_sum_exp_rows(VarX<S> x);  // (B, 1), log of the sum of each row's exponentials

// Layout.
template <class S> TWEEDIE_API VarX<S> concat_cols(std::span<const VarX<S>> parts);  // (B, D1), (B, D2), ... -> (B, D1 + D2 + ...)
template <class S> VarX<S> concat_cols(std::initializer_list<VarX<S>> parts) {
  return concat_cols(std::span<const VarX<S>>(parts.begin(), parts.size()));
}
template <class S> TWEEDIE_API VarX<S> slice_cols(VarX<S> x, Index first, Index count);  // (B, count)
template <class S> TWEEDIE_API VarX<S> slice_rows(VarX<S> x, Index first, Index count);  // (count, D)
/// Zeros before and after: the adjoints of the slices.
template <class S> TWEEDIE_API VarX<S> pad_cols(VarX<S> x, Index before, Index after);  // (B, before + D + after)
template <class S> TWEEDIE_API VarX<S> pad_rows(VarX<S> x, Index before, Index after);  // (before + B + after, D)
/// y(b, :) = table(indices[b], :): table (N, D) -> (B, D). Throws UsageError for an index outside [0, N). Indices are copied.
template <class S> TWEEDIE_API VarX<S> gather_rows(VarX<S> table, std::span<const std::int32_t> indices);
/// y(n, :) = sum over b with indices[b] = n of x(b, :), in the order of b: x (B, D) -> (rows, D). The adjoint of gather_rows.
template <class S> TWEEDIE_API VarX<S> scatter_add(VarX<S> x, std::span<const std::int32_t> indices, Index rows);
template <class S> TWEEDIE_API VarX<S> broadcast_to(VarX<S> x, Index rows, Index cols);  // x (1, D), (B, 1), (1, 1) or (B, D)
template <class S> TWEEDIE_API VarX<S> transpose(VarX<S> x);  // (D, B)
template <class S> TWEEDIE_API VarX<S> reshape(VarX<S> x, Index rows, Index cols);  // the same elements, row-major
/// The same value, as a constant.
template <class S> TWEEDIE_API VarX<S> stop_gradient(VarX<S> x);

// clang-format on

}  // namespace tweedie
