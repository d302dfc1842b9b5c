// kernels.h - the one contract of the numerical kernels: plain pointers, shapes, strides; no Eigen, of the STL only string_view.
//
// Every operation states its equation, its preconditions and its tolerance against kernels/reference in double. Backends:
// reference/ (naive loops, float and double, the oracle), cpu/ (SIMD with run-time dispatch; this header's functions).
// u = 2^-24 for float, 2^-53 for double. Matrices are row-major with a leading dimension ld >= columns, in elements.
// For a fixed dispatch target every result is bit-identical for any number of threads and any cut of the rows into batches.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tweedie/core/export.h"

namespace tweedie::kernels {

using Index = std::ptrdiff_t;

/// Instruction sets that the kernels are compiled for; each has what those before it have. avx512_bf16 and amx multiply bf16
/// numbers in units of their own (vdpbf16ps; tdpbf16ps); the others expand them to fp32, which is no faster than fp32.
enum class Target { portable, avx2, avx512, avx512_bf16, amx };

/// Arithmetic of a perceptron's products, a run-time value; all else (state, time, sums, random numbers) is fp32 or better.
///   fp32    the device's fp32 class: fp32 itself on the CPU, three tf32 products of split operands on a GPU
///   tf32    operands rounded to 10 bits (GPU);   bf16x3   operands split in two bf16 numbers, three products: near fp32
///   bf16    operands rounded to 7 bits: for sampling
enum class Precision { fp32, tf32, bf16x3, bf16 };
TWEEDIE_API const char* name(Precision precision);
/// The precision of that name. Throws UsageError naming the known ones.
TWEEDIE_API Precision precision_named(std::string_view name);

/// The target in use: the best the machine can run, or the one named in the environment variable TWEEDIE_TARGET
/// (portable | avx2 | avx512 | avx512_bf16 | amx). Throws UsageError for an unknown name, ResourceError for one this machine
/// cannot run.
TWEEDIE_API Target target();
TWEEDIE_API const char* name(Target target);
/// Whether this machine (and this build) can run it. The first question about amx asks the kernel to let this process use tiles.
TWEEDIE_API bool available(Target target);
/// Overrides the choice for this process (tests, benchmarks). Same errors as target().
TWEEDIE_API void set_target(Target target);

/// C = op(A) op(B) + beta C,  op(A) (M, K), op(B) (K, N), C (M, N); op is the transpose where asked for.
/// beta is 0 (C is written, never read: NaN there does not spread) or 1. M, N, K >= 0; K = 0 gives beta C.
/// C overlaps neither A nor B. Each element of C sums its K products in one order, fixed by K alone; so a row's bits depend
/// neither on the other rows nor on threads. Error <= (K + 2) u (sum_k |a| |b| + |beta C|). Throws UsageError for a negative
/// size, another beta, or a leading dimension below its columns. Steady-state calls allocate nothing.
struct GemmShape {
  Index m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;  // stored as (K, M) / (N, K) when set
  float beta = 0;
};
TWEEDIE_API void gemm(const GemmShape& shape, const float* a, Index lda, const float* b, Index ldb, float* c, Index ldc);
TWEEDIE_API void gemm(const GemmShape& shape, const double* a, Index lda, const double* b, Index ldb, double* c, Index ldc);

/// y = silu(x) = x sigmoid(x), n contiguous elements; y may be x. Error <= 4 ULP of y, absolute 2^-126 where y underflows
/// (2^-1022 in double). silu(-infinity) = -0, the limit; NaN stays NaN.
TWEEDIE_API void silu(Index n, const float* x, float* y);
TWEEDIE_API void silu(Index n, const double* x, double* y);
/// dx = dy * (s + x s (1 - s)), s = sigmoid(x); dx may be dy. Error <= 8 u (|s| + |x s (1 - s)|) |dy|, absolute
/// 2^-126 max(1, |dy|) where s underflows (2^-1022 in double). 0 and dy at x = -+infinity, the limits.
TWEEDIE_API void silu_gradient(Index n, const float* x, const float* dy, float* dx);
TWEEDIE_API void silu_gradient(Index n, const double* x, const double* dy, double* dx);

/// x(b, :) = x0(b, :) + sigma(b) eps(b, :); all (B, D) contiguous, sigma (B). x may be x0 or eps.
/// Error <= 2 u (|x0| + |sigma eps|).
TWEEDIE_API void dsm_perturb(Index batch, Index dim, const float* x0, const float* sigma, const float* eps, float* x);
TWEEDIE_API void dsm_perturb(Index batch, Index dim, const double* x0, const double* sigma, const double* eps, double* x);

/// x += drift * score + noise * z, n contiguous elements. Langevin, half convention: drift = a/2, noise = sqrt(a) noise_scale.
/// [Song & Ermon 2019, Algorithm 1]. Error <= 4 u (|x| + |drift score| + |noise z|).
TWEEDIE_API void langevin_update(Index n, float drift, float noise, const float* score, const float* z, float* x);
TWEEDIE_API void langevin_update(Index n, double drift, double noise, const double* score, const double* z, double* x);

/// out(b, :) = [cos(w_i t_b) over i, sin(w_i t_b) over i], t (B), w (n), out (B, 2 n). The phase is a double: error <= 1.01 u (1
/// + 2^-28 |w t|), NaN of one that is not finite.
TWEEDIE_API void fourier_features(Index batch, Index n, const double* t, const double* w, float* out);

/// sum of x^2 over n numbers, in double, in one thread and in one order whatever the target. Error <= (n / 32 + 6) 2^-53 of it.
TWEEDIE_API double sum_squares(Index n, const float* x);
TWEEDIE_API double sum_squares(Index n, const double* x);

/// One AdamW update of n parameters and their exponential moving average, in place [Kingma & Ba 2015; Loshchilov & Hutter 2019]:
///   g' = scale g;  m += (1 - b1)(g' - m);  v += (1 - b2)(g'^2 - v);
///   p -= lr weight_decay p;  p -= lr (m / c1) / (sqrt(v / c2) + eps),  c1 = 1 - b1^t, c2 = 1 - b2^t;
///   ema += (1 - ema_decay)(p - ema)
/// PyTorch's order of operations. ema may be nullptr. Error of m, v, p, ema <= 8 u of the magnitudes of their equations' terms
/// (p's and ema's given the m, v and p that were stored). Throws UsageError for step < 1 or a beta outside [0, 1).
struct AdamStep {
  double learning_rate = 1e-3, beta1 = .9, beta2 = .999, epsilon = 1e-8, weight_decay = 0, ema_decay = 0, gradient_scale = 1;
  std::int64_t step = 1;  // t, counted from 1
};
TWEEDIE_API void adam_ema(const AdamStep& options, Index n, const float* gradient, float* p, float* m, float* v, float* ema);
TWEEDIE_API void adam_ema(const AdamStep& options, Index n, const double* gradient, double* p, double* m, double* v, double* ema);

struct MlpLayer {
  const float* weight;  // (out, in), PyTorch's order
  const float* bias;    // (out); of the first layer (levels, out)
  int in, out;
};

/// A multilayer perceptron as kernels see it: pointers and sizes, nothing owned.
///   h_0 = x(b, :),   h_{i+1} = silu(h_i W_i^T + b_i) for the hidden layers,   out(b, :) = scale_l (h W^T + b)
/// b_0 is row l = level(b) of (levels, out): a network's noise level, folded into its first bias.
struct Mlp {
  static constexpr int kMaxLayers = 16;
  int layers = 0, levels = 1;
  const float* scale = nullptr;  // (levels), of the output; nullptr: 1
  MlpLayer layer[kMaxLayers] = {};
};

/// The weights of `net` and its biases, but the first, in the layout of the target in use: packed_mlp_size(net) numbers. To be
/// packed again when a weight, the target or the precision changes. Throw UsageError for tf32, which no CPU has.
TWEEDIE_API Index packed_mlp_size(const Mlp& net, Precision precision = Precision::fp32);
TWEEDIE_API void pack_mlp(const Mlp& net, float* packed, Precision precision = Precision::fp32);
/// out (batch, outputs) of x (batch, inputs), `packed` by pack_mlp; level (batch), or nullptr: all rows are at level 0. Reads the
/// first bias and the scale from `net`, so that one packing serves any levels; its other pointers are not read. out may be x
/// where ldo = ldx. A layer's error, its input given: (K + 2) u (sum_k |w| |h| + |b|) of the sums, then 8 u |silu|, absolute
/// 2^-119, of silu. A row with a number that is not finite on its way may come out as NaN; other rows do not see it. A row's bits
/// depend on the row and its level alone. Throws UsageError for sizes that do not fit or a level out of bounds. Steady-state
/// calls allocate nothing.
///
/// bf16 (8 bits with the leading one, to nearest even) and bf16x3 add to each layer's error this part of sum_k |w| |h|, 2^-5 K u
/// of it for their longer sums, and 2^-124 (|w| + |h| + 1) a product, because the units take denormal numbers as zero:
///   bf16      2^-7 + 2^-16: both operands err by 2^-8
///   bf16x3    2^-15 + 2^-30: x = high + low + rest, |low| <= 2^-8 |x|, |rest| <= 2^-17 |x|; of w h the product low low (2^-16)
///   and
///             those with a rest (2 x 2^-17) are missing
/// In bf16 the first layer takes the state as high + low, with a second product: 2^-8 + 2^-16 there. Rounded to 8 bits x would be
/// coarser than small noise (docs/notes/step3.md has the figures). Sums, biases, silu and scale are fp32's. Numbers from
/// 2^127 (2 - 2^-8) on round to infinity.
TWEEDIE_API void mlp_forward(const Mlp& net, const float* packed, Index batch, const float* x, Index ldx, const int* level,
                             float* out, Index ldo, Precision precision = Precision::fp32);

/// Noised rows of which a perceptron predicts -eps. All contiguous.
struct MlpBatch {
  Index rows = 0;                   // B >= 1
  const float* x = nullptr;         // (B, inputs)
  const float* eps = nullptr;       // (B, outputs)
  const int* level = nullptr;       // (B); nullptr: row b has the first bias b and net.levels = B, or all the only one
  const float* scale = nullptr;     // (B), of the outputs; nullptr: 1
  const float* weight = nullptr;    // (B), of the losses; nullptr: 1
  const Mlp* code = nullptr;        // its outputs at a row's features are the row's first bias; levels as without `level`
  const float* features = nullptr;  // (B, the code's inputs)
};
/// Where the gradient goes, layer by layer.
struct MlpGradient {
  float* weight[Mlp::kMaxLayers];  // (out, in), rows `stride` apart
  Index stride[Mlp::kMaxLayers];
  float* bias[Mlp::kMaxLayers];  // (out); of the first layer (levels, out)
};
/// losses(b) = w_b/2 |scale_b F(x_b) + eps_b|^2 of the perceptron F, and the gradient of their mean in all weights and biases,
/// both written. Without net.scale. `workspace`: mlp_gradient_workspace() numbers, which need no values. The forward pass errs as
/// mlp_forward; then of each layer, its inputs given: dz by (K + 2) u sum_k |w| |dz| + 12 u of it for silu', dW and db by (B +
/// 10) u of the sum of their terms' magnitudes, losses by 4 u and twice the error of the output times the residual. Sums over
/// rows run in an order that B alone fixes. With a code the network's first bias is neither read nor given a gradient, and the
/// code's own goes to `code`; its errors are those of more layers. Throws UsageError as mlp_forward, and for no rows.
TWEEDIE_API Index mlp_gradient_workspace(const Mlp& net, const MlpBatch& batch);
TWEEDIE_API void mlp_gradient(const Mlp& net, const MlpBatch& batch, float* workspace, float* losses, const MlpGradient& gradient,
                              const MlpGradient* code = nullptr);

}  // namespace tweedie::kernels
