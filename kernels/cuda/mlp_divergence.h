// mlp_divergence.h - a perceptron and the trace of its Jacobian, or one product with it, in double: for likelihoods.
//
//   z = x W_0^T + b_0(l),      t_d = silu'(z) (W_0 v_d)              v_d = e_d for d = 0 .. D - 1, or the probe alone
//   z <- silu(z) W_i^T + b_i,  t_d <- silu'(z) (W_i t_d)             hidden layers
//   out = silu(z) W^T + b,     trace = sum_d W[d, :] . t_d,          with a probe jvp = W t
//   x, out, probe, jvp (B, D)   trace (B)   W_i (out, in)            Reference: kernels/reference/mlp_divergence.h
//
// Ladder: MlpDivergenceNaive  a block is a row, a thread a unit, one tangent after the other (and the value again with each)
//         MlpDivergenceTiled  a row's value and its next T tangents are 1 + T rows of a tile that stays in shared memory through
//                             all layers; products between hidden layers by mma.m8n8k4 in fp64, weights by cp.async into two
//                             buffers. The first layer's tangents are columns of W_0 and the last layer needs of each tangent
//                             one number: both are plain sums. D tangents take ceil(D / T) passes, with the value again in each.
// All in fp64, each sum of K products and a bias within (K + 1) u of its terms' magnitudes, silu and silu' as math.h. A row's
// bits depend on the row and its level alone: not on tile, T or batch.
//
// Predicted on an H200 (never measured; 67 TFLOP/s of fp64 products, 128 FMA a clock and SM), width 256, D = 2, 4096 rows: 16
// rows are the 48 of a tile, so 256 tiles are two waves of 132. Products 2 x 48 x 131,072 FMA at 128 a clock: 98 k clocks, 53 us
// at 1.86 GHz; SiLU 16 x 512 of some 60 fp64 instructions at 64 FMA a clock: 7.7 k clocks a tile, 8 us in two waves; weights from
// L2 1.05 MB a tile, 268 MB: 49 us at 5.5 TB/s; shared memory 7 doubles a lane for 12 products, 14 clocks against 24. So 61 us an
// evaluation if products and L2 overlap, 5.9 ms for 97. Whether mma.m8n8k4 reaches sm_90's rate is not known: its own shapes are
// m16n8k4 and larger. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/cuda/mlp_forward.h"

namespace tweedie::kernels::cuda {

/// A block of RowWarps x ColWarps warps, each computing RowTiles x ColTiles products of 8 x 8; 8 of K in a weight buffer.
template <int RowWarps, int ColWarps, int RowTiles, int ColTiles>
struct DivergenceTile {
  static constexpr int kColWarps = ColWarps, kRowTiles = RowTiles, kColTiles = ColTiles, kDepth = 8;
  static constexpr int kThreads = 32 * RowWarps * ColWarps, kRows = 8 * RowWarps * RowTiles, kCols = 8 * ColWarps * ColTiles;
  // Leading dimensions are 4 mod 8: four rows g and the columns t of a fragment, a half warp's doubles, lie in 32 banks.
  static constexpr int kWeightLd = kDepth + 4, kStage = kCols * kWeightLd;
};
using DivergenceTileSmall = DivergenceTile<2, 2, 3, 4>;  // 48 rows, for widths to 64
using DivergenceTile48 = DivergenceTile<2, 4, 3, 4>;     // widths to 264
using DivergenceTile24 = DivergenceTile<1, 4, 3, 4>;     // widths to 536
using DivergenceTile8 = DivergenceTile<1, 4, 1, 4>;      // widths to 1616

/// silu(z) and silu'(z) from one exponential and one division: 6 u |silu| and math::silu_derivative's error.
TWEEDIE_MATH double silu_and_slope(double z, double& slope) {
  const math::LogisticParts<double> parts = math::logistic_parts(z);
  const double r = 1 / (1 + parts.e), er = parts.e * r;  // sigmoid(|z|), sigmoid(-|z|)
  slope = math::fma(parts.bounded, er * r, z < 0 ? er : r);
  return parts.numerator * r;
}

TWEEDIE_MATH int level_of(const MlpDivergenceInput& k, Index row) {
  return k.level != nullptr ? k.level[row] : static_cast<int>(row < k.net.levels ? row : k.net.levels - 1);
}

/// Weights [column, column + kCols) x [k, k + kDepth) of a layer on their way to `to`; zeros beyond the layer.
template <class Tile, class Ctx>
TWEEDIE_KERNEL void fetch_weights_f64(Ctx& ctx, const MlpLayerD& layer, int column, int k, double* to) {
  const bool vectors = layer.in % 2 == 0 && reinterpret_cast<std::uintptr_t>(layer.weight) % 16 == 0;
  const int rows = round_up8(layer.out - column);
  constexpr int kPairs = Tile::kDepth / 2;
  for (int i = ctx.thread(); i < Tile::kCols * kPairs; i += Tile::kThreads) {
    const int row = i / kPairs, at = i % kPairs * 2;
    if (row >= rows) continue;
    const bool inside = column + row < layer.out;
    const double* const from = inside ? layer.weight + Index{column + row} * layer.in + k + at : layer.weight;
    double* const place = to + row * Tile::kWeightLd + at;
    if (vectors) {
      const bool valid = inside && k + at < layer.in;
      ctx.template copy_async<16>(place, valid ? from : layer.weight, valid);
    } else {
      for (int j = 0; j < 2; ++j) {
        const bool valid = inside && k + at + j < layer.in;
        ctx.template copy_async<8>(place + j, valid ? from + j : layer.weight, valid);
      }
    }
  }
}

/// sum += h (rows, 8) W (cols, 8)^T for this warp's part of the tile. Fragments: executor.h's mma_f64.
template <class Tile, class Ctx>
TWEEDIE_KERNEL void multiply_f64(Ctx& ctx, const double* h, int ld, const double* w, int columns,
                                 double (&sum)[Tile::kRowTiles][Tile::kColTiles][2]) {
  const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
  const int first_row = warp / Tile::kColWarps * Tile::kRowTiles * 8, first = warp % Tile::kColWarps * Tile::kColTiles * 8;
  TWEEDIE_UNROLL
  for (int k = 0; k < Tile::kDepth; k += 4) {
    double a[Tile::kRowTiles];
    TWEEDIE_UNROLL
    for (int i = 0; i < Tile::kRowTiles; ++i) a[i] = h[(first_row + 8 * i + g) * ld + k + t];
    TWEEDIE_UNROLL
    for (int j = 0; j < Tile::kColTiles; ++j) {
      if (first + 8 * j >= columns) continue;  // the same for the whole warp
      const double b = w[(first + 8 * j + g) * Tile::kWeightLd + k + t];
      TWEEDIE_UNROLL
      for (int i = 0; i < Tile::kRowTiles; ++i) ctx.mma_f64(sum[i][j], a[i], b);
    }
  }
}

struct MlpDivergenceNaive : MlpDivergenceInput {
  static constexpr int kThreads = 128;
  int width;  // of the widest layer

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index row = ctx.block();
    const int dim = net.layer[0].in;
    double *h = ctx.template dynamic_shared<double>(), *next = h + 2 * width;  // each the value, then the tangent
    for (int d = 0; d < (probe == nullptr ? dim : 1); ++d) {
      for (int i = ctx.thread(); i < dim; i += kThreads) {
        h[i] = x[row * dim + i];
        h[width + i] = probe != nullptr ? probe[row * dim + i] : i == d ? 1 : 0;
      }
      ctx.sync();
      for (int l = 0; l < net.layers; ++l) {
        const MlpLayerD& layer = net.layer[l];
        for (int n = ctx.thread(); n < layer.out; n += kThreads) {
          double z = 0, tangent = 0, slope;
          for (int k = 0; k < layer.in; ++k) {
            const double w = layer.weight[Index{n} * layer.in + k];
            z = math::fma(h[k], w, z), tangent = math::fma(h[width + k], w, tangent);
          }
          z += layer.bias[l == 0 ? Index{level_of(*this, row)} * layer.out + n : Index{n}];
          if (l + 1 < net.layers) {
            next[n] = silu_and_slope(z, slope);
            next[width + n] = slope * tangent;
          } else {
            if (d == 0) out[row * dim + n] = z;
            if (probe != nullptr) {
              jvp[row * dim + n] = tangent;
            } else if (n == d) {
              divergence[row] = d == 0 ? tangent : divergence[row] + tangent;  // the last writer is a barrier away
            }
          }
        }
        ctx.sync();
        double* const read = h;
        h = next, next = read;
      }
    }
  }
};

template <class Tile>
struct MlpDivergenceTiled : MlpDivergenceInput {
  int ld, tangents;  // T; a particle is the rows [p (1 + T), (p + 1)(1 + T)) of the tile: its value, then its tangents

  /// The first layer of the tangents from `from` on; without hidden layers the rows themselves.
  template <class Ctx>
  TWEEDIE_KERNEL void start(Ctx& ctx, Index first, int particles, int from, double* h) const {
    const MlpLayerD& layer = net.layer[0];
    const int dim = layer.in, width = net.layers == 1 ? dim : layer.out, padded = round_up8(width);
    for (int i = ctx.thread(); i < particles * padded; i += Tile::kThreads) {
      const int p = i / padded, n = i % padded;
      const bool inside = first + p < batch && n < width;
      const Index b = inside ? first + p : 0;
      const double *const w = layer.weight + (inside ? Index{n} * dim : 0), *const row = x + b * dim;
      double value = 0, along = 0, slope = 1;
      if (inside && net.layers == 1) {
        value = row[n], along = probe == nullptr ? 0 : probe[b * dim + n];
      } else if (inside) {
        double z = 0;
        for (int k = 0; k < dim; ++k) z = math::fma(row[k], w[k], z);
        for (int k = 0; k < dim && probe != nullptr; ++k) along = math::fma(probe[b * dim + k], w[k], along);
        value = silu_and_slope(z + layer.bias[Index{level_of(*this, b)} * width + n], slope);
      }
      double* const to = h + p * (1 + tangents) * ld + n;
      to[0] = value;
      for (int j = 0; j < tangents; ++j) {
        double tangent = along;
        if (probe == nullptr && inside && from + j < dim) tangent = net.layers > 1 ? w[from + j] : from + j == n ? 1 : 0;
        to[(1 + j) * ld] = slope * tangent;
      }
    }
  }

  /// Of each particle's product with a hidden layer in h: silu(z + b) in the value's row, the tangents times silu'.
  template <class Ctx>
  TWEEDIE_KERNEL void activate(Ctx& ctx, const MlpLayerD& layer, int particles, double* h) const {
    const int padded = round_up8(layer.out);
    for (int i = ctx.thread(); i < particles * padded; i += Tile::kThreads) {
      const int n = i % padded;
      double* const at = h + i / padded * (1 + tangents) * ld + n;
      double slope = 0;
      at[0] = n < layer.out ? silu_and_slope(at[0] + layer.bias[n], slope) : 0;
      for (int j = 1; j <= tangents; ++j) at[j * ld] = n < layer.out ? slope * at[j * ld] : 0;
    }
  }

  /// The hidden layers from the second on, each behind a barrier of its own; the buffer that holds the last one's activations.
  template <class Ctx>
  TWEEDIE_KERNEL double* hidden(Ctx& ctx, int particles, double* even, double* odd, double* weights) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
    const int first_row = warp / Tile::kColWarps * Tile::kRowTiles * 8, first = warp % Tile::kColWarps * Tile::kColTiles * 8;
    const int last = net.layers - 1;
    double sum[Tile::kRowTiles][Tile::kColTiles][2];
    int l = 1, column = 0, k = 0, stage = 0;
    if (l < last) fetch_weights_f64<Tile>(ctx, net.layer[l], 0, 0, weights);
    ctx.commit_async();
    while (l < last) {
      const MlpLayerD& now = net.layer[l];
      const bool last_k = k + Tile::kDepth >= now.in, last_column = column + Tile::kCols >= now.out;
      const int next_k = last_k ? 0 : k + Tile::kDepth;
      const int next_column = !last_k ? column : last_column ? 0 : column + Tile::kCols;
      const int next_l = last_k && last_column ? l + 1 : l;
      if (next_l < last) {
        fetch_weights_f64<Tile>(ctx, net.layer[next_l], next_column, next_k, weights + (stage ^ 1) * Tile::kStage);
      }
      ctx.commit_async();
      ctx.template wait_async<1>();
      ctx.sync();

      if (k == 0) {
        TWEEDIE_UNROLL
        for (int i = 0; i < Tile::kRowTiles; ++i) {
          TWEEDIE_UNROLL
          for (int j = 0; j < Tile::kColTiles; ++j) sum[i][j][0] = sum[i][j][1] = 0;
        }
      }
      multiply_f64<Tile>(ctx, even + k, ld, weights + stage * Tile::kStage, now.out - column, sum);
      if (last_k) {
        TWEEDIE_UNROLL
        for (int i = 0; i < Tile::kRowTiles; ++i) {
          TWEEDIE_UNROLL
          for (int j = 0; j < Tile::kColTiles; ++j) {
            TWEEDIE_UNROLL
            for (int e = 0; e < 2; ++e) {
              const int at = column + first + 8 * j + 2 * t + e;
              if (at < now.out) odd[(first_row + 8 * i + g) * ld + at] = sum[i][j][e];
            }
          }
        }
      }
      ctx.sync();
      if (next_l > l) {  // the next layer's first barrier stands between this and its readers
        activate(ctx, now, particles, odd);
        double* const read = even;
        even = odd, odd = read;
      }
      l = next_l, column = next_column, k = next_k, stage ^= 1;
    }
    return even;
  }

  /// The last layer of the rows in h, a warp a dot product. terms (particles, T): each tangent's share of the trace.
  template <class Ctx>
  TWEEDIE_KERNEL void finish(Ctx& ctx, Index first, int particles, int from, const double* h, double* terms) const {
    const MlpLayerD& layer = net.layer[net.layers - 1];
    const int dim = layer.out, warp = ctx.thread() / 32, each = 1 + tangents;
    const auto dot = [&](const double* row, int unit) {
      const double* const w = layer.weight + Index{unit} * layer.in;
      double sum = 0;
      for (int k = ctx.lane(); k < layer.in; k += 32) sum = math::fma(row[k], w[k], sum);
      for (int bits = 16; bits > 0; bits /= 2) sum += ctx.shuffle_xor(~0U, sum, bits);
      return sum;
    };
    for (int i = warp; i < particles * dim && from == 0; i += Tile::kThreads / 32) {
      const int p = i / dim, d = i % dim;
      if (first + p >= batch) continue;  // the same for the whole warp
      const Index at = (first + p) * dim + d;
      const Index shift = net.layers == 1 ? Index{level_of(*this, first + p)} * dim : 0;
      const double y = dot(h + p * each * ld, d) + layer.bias[shift + d];
      if (ctx.lane() == 0) out[at] = y;
      if (probe == nullptr) continue;
      const double along = dot(h + (p * each + 1) * ld, d);
      if (ctx.lane() == 0) jvp[at] = along;
    }
    for (int i = warp; i < particles * tangents && probe == nullptr; i += Tile::kThreads / 32) {
      const int p = i / tangents, j = i % tangents;
      const double term = from + j < dim ? dot(h + (p * each + 1 + j) * ld, from + j) : 0;
      if (ctx.lane() == 0) terms[i] = term;
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    double* const even = ctx.template dynamic_shared<double>();
    double *const odd = even + Tile::kRows * ld, *const weights = odd + Tile::kRows * ld;
    double* const terms = weights + 2 * Tile::kStage;
    const int particles = Tile::kRows / (1 + tangents), directions = probe == nullptr ? net.layer[0].in : 1;
    const Index first = Index{ctx.block()} * particles;
    double trace = 0;  // of particle thread()
    for (int from = 0; from < directions; from += tangents) {
      start(ctx, first, particles, from, even);
      const double* const h = hidden(ctx, particles, even, odd, weights);
      ctx.sync();
      finish(ctx, first, particles, from, h, terms);
      ctx.sync();
      for (int j = 0; j < tangents && probe == nullptr && ctx.thread() < particles; ++j) {
        trace += terms[ctx.thread() * tangents + j];
      }
    }
    if (probe == nullptr && ctx.thread() < particles && first + ctx.thread() < batch) {
      divergence[first + ctx.thread()] = trace;
    }
  }
};

// ---- launchers: launch(name, grid, block, shared bytes, body); nothing is launched for no rows ----

/// The widest layer (input included), after a look at everything.
inline int check_mlp_divergence(const char* function, const MlpDivergenceInput& k) {
  const int width = check_mlp(function, k.net), dim = k.net.layer[0].in;
  check(k.net.layer[k.net.layers - 1].out == dim, function, ": the network gives ", k.net.layer[k.net.layers - 1].out,
        " columns for rows of ", dim, "; a Jacobian's trace needs as many");
  check(k.batch >= 0 && k.batch < Index{1} << 31, function, ": B = ", k.batch, " rows; it lies in [0, 2^31), cut the batch");
  check(k.batch == 0 || (k.x != nullptr && k.out != nullptr), function, ": x or out is a null pointer");
  check(k.batch == 0 || (k.probe == nullptr ? k.divergence : k.jvp) != nullptr, function,
        ": the result is a null pointer; with a probe that is jvp, without one divergence");
  return width;
}

template <class Launch>
void mlp_divergence_naive(Launch&& launch, const MlpDivergenceInput& k) {
  const int width = check_mlp_divergence("cuda::mlp_divergence_naive", k);
  check(Index{32} * width <= kMaxSharedBytes, "cuda::mlp_divergence_naive: width ", width, " does not fit shared memory (7264)");
  if (k.batch > 0) {
    launch("mlp_divergence_naive", static_cast<int>(k.batch), MlpDivergenceNaive::kThreads, 32 * width,
           MlpDivergenceNaive{k, width});
  }
}

/// The widest activation that the tiled kernel keeps: the hidden layers, or x where there is none.
inline int divergence_width(const MlpD& net) {
  int width = net.layers == 1 ? net.layer[0].in : 0;
  for (int i = 0; i + 1 < net.layers; ++i) width = width < net.layer[i].out ? net.layer[i].out : width;
  return width;
}
template <class Tile>
Index mlp_divergence_shared_bytes(int width) {
  return 8 * (Index{2} * Tile::kRows * mlp_ld(width) + 2 * Tile::kStage + Tile::kRows);
}
/// Tangents a pass: of those with the fewest passes a particle, ceil(D / T) / floor(rows / (1 + T)), the most.
inline int divergence_tangents(int rows, int directions) {
  int best = 1;
  const auto passes = [&](int t) { return (directions + t - 1) / t; };
  for (int t = 2; t < rows && t <= directions; ++t) {
    if (passes(t) * (rows / (1 + best)) <= passes(best) * (rows / (1 + t))) best = t;
  }
  return best;
}

/// One tile size; mlp_divergence chooses.
template <class Tile, class Launch>
void mlp_divergence_tiled(Launch&& launch, const MlpDivergenceInput& k, int max_shared_bytes = kMaxSharedBytes) {
  check_mlp_divergence("cuda::mlp_divergence", k);
  const int width = divergence_width(k.net);
  const Index bytes = mlp_divergence_shared_bytes<Tile>(width);
  check(bytes <= max_shared_bytes, "cuda::mlp_divergence: width ", width, " needs ", bytes,
        " bytes of shared memory, a block has ", max_shared_bytes, "; use mlp_divergence_naive");
  const int tangents = divergence_tangents(Tile::kRows, k.probe == nullptr ? k.net.layer[0].in : 1);
  const int particles = Tile::kRows / (1 + tangents);
  const int grid = static_cast<int>((k.batch + particles - 1) / particles);
  if (grid > 0) {
    launch("mlp_divergence", grid, Tile::kThreads, static_cast<int>(bytes), MlpDivergenceTiled<Tile>{k, mlp_ld(width), tangents});
  }
}

/// max_shared_bytes: of a block of the device, where that is less than sm_90's.
template <class Launch>
void mlp_divergence(Launch&& launch, const MlpDivergenceInput& k, int max_shared_bytes = kMaxSharedBytes) {
  check_mlp_divergence("cuda::mlp_divergence", k);
  const int width = divergence_width(k.net);
  if (width <= DivergenceTileSmall::kCols) {
    mlp_divergence_tiled<DivergenceTileSmall>(launch, k, max_shared_bytes);
  } else if (mlp_divergence_shared_bytes<DivergenceTile48>(width) <= max_shared_bytes) {
    mlp_divergence_tiled<DivergenceTile48>(launch, k, max_shared_bytes);
  } else if (mlp_divergence_shared_bytes<DivergenceTile24>(width) <= max_shared_bytes) {
    mlp_divergence_tiled<DivergenceTile24>(launch, k, max_shared_bytes);
  } else {
    mlp_divergence_tiled<DivergenceTile8>(launch, k, max_shared_bytes);
  }
}

}  // namespace tweedie::kernels::cuda
