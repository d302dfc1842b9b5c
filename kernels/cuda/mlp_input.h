// mlp_input.h - what the network's device kernels share: the input of an evaluation, its checks, SiLU, the device's resources.
// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include "tweedie/core/check.h"
#include "tweedie/core/host_device.h"
#include "tweedie/kernels/cuda/ptx.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/kernels/math.h"

namespace tweedie::kernels::cuda {

TWEEDIE_MATH int round_up(int n, int to) { return (n + to - 1) / to * to; }
TWEEDIE_MATH int round_up8(int n) { return round_up(n, 8); }

/// x / (1 + 2^(-x log2 e)).
template <class Ctx>
TWEEDIE_KERNEL float silu_approx(Ctx& ctx, float x) {
  return x * ctx.reciprocal_approx(1 + ctx.exp2_approx(-1.44269504f * x));
}

/// The same by 0.5 x (1 + tanh(x / 2)), one special-function result instead of two. tanh.approx is 2^-11 off: error 2^-12 |x|.
template <class Ctx>
TWEEDIE_KERNEL float silu_tanh(Ctx& ctx, float x) {
  const float half = .5f * x;
  return math::fma(half, ctx.tanh_approx(half), half);
}

/// A block of RowWarps x ColWarps warps, each computing RowTiles x ColTiles products of 16 x 8; Depth of K in a weight buffer.
template <int RowWarps, int ColWarps, int RowTiles, int ColTiles, int Depth>
struct MlpTile {
  static constexpr int kColWarps = ColWarps, kRowTiles = RowTiles, kColTiles = ColTiles, kDepth = Depth;
  static constexpr int kThreads = 32 * RowWarps * ColWarps, kRows = 16 * RowWarps * RowTiles, kCols = 8 * ColWarps * ColTiles;
  // Leading dimensions are 4 mod 8: the fragments' rows g and columns t then lie in 32 different banks.
  static constexpr int kWeightLd = Depth + 4, kStage = kCols * kWeightLd;
};
using MlpTile64 = MlpTile<2, 4, 2, 8, 32>;     // widths to 304
using MlpTile16 = MlpTile<1, 8, 1, 4, 32>;     // widths to 1232
using MlpTileSmall = MlpTile<2, 2, 1, 2, 16>;  // narrow networks

/// Leading dimension of a tile's activations in fp32, and its bytes: the layer read and the layer written, two weight buffers.
inline int mlp_ld(int width) { return round_up8(width) + 4; }
template <class Tile>
Index mlp_shared_bytes(int width) {
  return 4 * (Index{2} * Tile::kRows * mlp_ld(width) + 2 * Tile::kStage);
}

/// x as tf32 and what that leaves, as tf32.
template <class Ctx>
TWEEDIE_KERNEL void split_tf32(Ctx& ctx, float x, std::uint32_t& high, std::uint32_t& low) {
  high = ctx.to_tf32(x);
  low = ctx.to_tf32(x - __builtin_bit_cast(float, high));
}

struct MlpForwardInput {
  Mlp net;
  Index batch;
  const float* x;    // (B, D)
  const int* level;  // (B), each in [0, levels); nullptr: common_level
  int common_level;
  float* out;  // (B, outputs)

  TWEEDIE_KERNEL int level_of(Index row) const { return level == nullptr ? common_level : row < batch ? level[row] : 0; }
  TWEEDIE_KERNEL float scale_of(Index row) const { return net.scale == nullptr ? 1.0f : net.scale[level_of(row)]; }
};

inline constexpr int kMaxSharedBytes = 227 * 1024;  // sm_90; sm_80 has 163 KiB, sm_86 and sm_89 99

/// What a launcher may use of its device beside the input's memory.
struct Resources {
  void* scratch = nullptr;  // at a 16-byte boundary; overwritten by each call, free again when its kernels have ended
  Index scratch_bytes = 0;
  int shared_bytes = kMaxSharedBytes;  // that a block may have
  int multiprocessors = 132;
};

/// visit(c) with c.value the precision as a constant.
template <class Visit>
auto with_precision(Precision precision, Visit visit) {
  switch (precision) {
    case Precision::tf32:
      return visit(std::integral_constant<Precision, Precision::tf32>{});
    case Precision::bf16x3:
      return visit(std::integral_constant<Precision, Precision::bf16x3>{});
    case Precision::bf16:
      return visit(std::integral_constant<Precision, Precision::bf16>{});
    case Precision::fp32:
      break;
  }
  return visit(std::integral_constant<Precision, Precision::fp32>{});
}

/// The widest layer (input included), after a look at the whole network.
template <class Net>
int check_mlp(const char* function, const Net& net) {
  check(net.layers >= 1 && net.layers <= Mlp::kMaxLayers, function, ": ", net.layers, " layers; this kernel takes 1 to ",
        Mlp::kMaxLayers);
  check(net.levels >= 1, function, ": ", net.levels, " levels; the first bias is (levels, width) with at least 1");
  int width = net.layer[0].in;
  for (int i = 0; i < net.layers; ++i) {
    const auto& layer = net.layer[i];
    check(layer.in >= 1 && layer.out >= 1 && layer.in <= 1 << 20 && layer.out <= 1 << 20, function, ": layer ", i, " is (",
          layer.out, ", ", layer.in, "); both sizes lie in [1, 2^20]");
    check(layer.weight != nullptr && layer.bias != nullptr, function, ": layer ", i, " has no weight or no bias; pass zeros");
    check(i == 0 || layer.in == net.layer[i - 1].out, function, ": layer ", i, " takes ", layer.in, " columns, layer ", i - 1,
          " gives ", net.layer[i - 1].out);
    width = width < layer.out ? layer.out : width;
  }
  return width;
}

inline int check_mlp_forward(const char* function, const MlpForwardInput& k) {
  const int width = check_mlp(function, k.net);
  check(k.batch >= 0 && k.batch < Index{1} << 31, function, ": B = ", k.batch, " rows; it lies in [0, 2^31), cut the batch");
  check(k.level != nullptr || (k.common_level >= 0 && k.common_level < k.net.levels), function,
        ": common_level = ", k.common_level, " of ", k.net.levels, " levels");
  check(k.batch == 0 || (k.x != nullptr && k.out != nullptr), function, ": x or out is a null pointer");
  return width;
}

}  // namespace tweedie::kernels::cuda
