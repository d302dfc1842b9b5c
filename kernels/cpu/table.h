// table.h - what one dispatch target offers: plain function pointers over plain arguments, one table per target.
//
// The tables are constants (no start-up code of a target ever runs on a machine that lacks its instructions).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace tweedie::kernels::cpu {

using Index = std::ptrdiff_t;

inline constexpr Index round_up(Index x, Index unit) { return (x + unit - 1) / unit * unit; }

/// A left operand as the tile kernel reads it: element (i, k) of row panel p is at data + p * panel + i * row + k * depth.
template <class T>
struct LeftPanels {
  const T* data;
  Index panel, row, depth;
};
/// A right operand: element (k, j) of column panel p is at data + p * panel + k * depth + j.
template <class T>
struct RightPanels {
  const T* data;
  Index panel, depth;
};
/// Element (i, j) is at data + i * row + j * column.
template <class T>
struct Output {
  T* data;
  Index row, column;
};

/// AdamW's constants for one step, rounded once to T (see adam_ema in kernels.h).
template <class T>
struct AdamFactors {
  T gradient_scale;
  T one_minus_beta1, one_minus_beta2;
  T decay;            // learning rate * weight decay
  T step_size;        // learning rate / c1
  T inverse_root_c2;  // 1 / sqrt(c2)
  T epsilon;
  T one_minus_ema_decay;
};

/// One target's kernels for one scalar, single-threaded.
template <class T>
struct Kernels {
  int tile_rows, tile_cols;  // the register tile of gemm

  /// to[p][k][i] = from[(p * width + i) * stride + k * depth], panels of `width` = tile_rows or tile_cols; zero beyond count.
  /// stride or depth is 1.
  void (*pack_left)(Index count, Index k, const T* from, Index stride, Index depth, T* to);
  void (*pack_right)(Index count, Index k, const T* from, Index stride, Index depth, T* to);
  /// c = a b (+ c where add), rows x cols: each element is one chain of k fused multiply-adds from 0, then one addition.
  void (*multiply)(Index rows, Index cols, Index k, LeftPanels<T> a, RightPanels<T> b, Output<T> c, bool add);

  void (*silu)(Index n, const T* x, T* y);
  void (*silu_gradient)(Index n, const T* x, const T* dy, T* dx);
  void (*dsm_perturb)(Index batch, Index dim, const T* x0, const T* sigma, const T* eps, T* x);
  void (*langevin_update)(Index n, T drift, T noise, const T* score, const T* z, T* x);
  void (*adam_ema)(const AdamFactors<T>& factors, Index n, const T* gradient, T* p, T* m, T* v, T* ema);
  double (*sum_squares)(Index n, const T* x);
};

/// What a dense layer does with its sums z = a W^T.
enum class Finish {
  silu,        // y = silu(z + bias)
  silu_slope,  // the same, and slope = silu'(z + bias)
  affine,      // y = z + bias
  times        // y = z slope: the way back through a silu
};
/// One layer over a block of rows. Columns come in whole panels of the float kernels' tile_cols; y may not be a.
struct Dense {
  Index rows, in, out;  // out a multiple of tile_cols
  const float* a;       // (rows, in)
  Index lda;
  const float* panels;  // (out / tile_cols, in, tile_cols)
  const float* bias;    // row i's at bias + i * bias_stride, (out)
  Index bias_stride;    // 0: one for all rows
  float* y;             // (rows, out)
  float* slope;         // (rows, out), with y's leading dimension
  Index ldy;
};
/// The perceptron's kernels of one target, single-threaded.
struct MlpKernels {
  int lanes;  // numbers in a vector
  void (*dense)(const Dense& layer, Finish finish);
  /// to (cols) = sum of the rows of from (rows, cols), added row by row to what `to` holds where add.
  void (*add_rows)(Index rows, Index cols, const float* from, Index ld, float* to, bool add);
  /// y (rows, out) = a W^T + bias, w (out, in), in a multiple of `lanes`: for outputs that are too few to fill vectors.
  void (*thin)(Index rows, Index in, Index out, const float* a, Index lda, const float* w, const float* bias, float* y,
               Index ldy);
  /// out (batch, 2 n) = cos, then sin of w_i t_b; |w t| <= 2^20.
  void (*fourier)(Index batch, Index n, const double* t, const double* w, float* out);
};

/// A layer of bf16 operands over a block of rows. They lie in words of 4 bytes, `group` numbers each: the float of one number's
/// value, or a pair of bf16 for a unit that multiplies pairs.
struct Bf16Dense {
  Index rows, depth, out;  // depth: words of a row that count; out a multiple of cols
  int products;            // 1: high high; 2: low high before; 3: high low before that
  const float* a;          // (rows, depth), the low parts at a + a_low
  Index lda, a_low;
  const float* panels;  // (out / cols, parts, depth, cols): the high parts, then of 3 products the low ones
  const float* bias;    // row i's at bias + i * bias_stride, (out)
  Index bias_stride;    // 0: one for all rows
  float* y;             // silu: words (rows, out / group); affine: numbers (rows, out)
  Index ldy, y_low;     // silu: y's low parts at y + y_low; 0: none are wanted
};
/// The perceptron's kernels of one target for bf16 operands, single-threaded.
struct Bf16Kernels {
  int cols, group;   // numbers in a panel and in a word
  int lanes, depth;  // words in a vector; a layer's depth is a multiple of `depth`
  /// words (rows, depth) and their low parts at words + low, of x (rows, in); zeros beyond.
  void (*operands)(Index rows, Index in, const float* x, Index ldx, Index depth, float* words, Index ld, Index low);
  void (*dense)(const Bf16Dense& layer, Finish finish);  // silu or affine
  /// y (rows, out) = a W^T + bias for a few outputs: panels (out, parts, depth), depth a multiple of `lanes`. Without y_low.
  void (*thin)(const Bf16Dense& layer);
};

struct TargetTable {
  Kernels<float> single;
  Kernels<double> twice;
  MlpKernels mlp;
  Bf16Kernels bf16;
};

// nullptr where this build lacks the target.
extern const TargetTable* const kPortable;
extern const TargetTable* const kAvx2;
extern const TargetTable* const kAvx512;
extern const TargetTable* const kAvx512Bf16;
extern const TargetTable* const kAmx;

/// The table of the target in use.
const TargetTable& table();

}  // namespace tweedie::kernels::cpu
