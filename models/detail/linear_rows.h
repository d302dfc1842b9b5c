// linear_rows.h - a linear layer over a block of rows, for networks' inference paths.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "tweedie/kernels/kernels.h"

namespace tweedie::detail {

inline constexpr std::ptrdiff_t kBlockRows = 128;  // two activations of 128 x 256 floats stay in the second-level cache

/// y = x W^T + bias(r): rows of `bias(r)` (out) beneath; x (rows, in), W (out, in) with leading dimension ldw, y (rows, out).
template <class S, class Bias>
void linear_rows(std::ptrdiff_t rows, std::ptrdiff_t in, std::ptrdiff_t out, const S* x, std::ptrdiff_t ldx, const S* w,
                 std::ptrdiff_t ldw, const Bias& bias, S* y) {
  for (std::ptrdiff_t r = 0; r < rows; ++r) std::copy_n(bias(r), out, y + r * out);
  kernels::gemm({.m = rows, .n = out, .k = in, .transpose_b = true, .beta = 1}, x, ldx, w, ldw, y, out);
}

}  // namespace tweedie::detail
