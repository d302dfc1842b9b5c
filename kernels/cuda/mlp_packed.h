// mlp_packed.h - weights in the order in which mma.sync takes them, and what the precisions differ in.
//
// A block is 16 outputs x kStep inputs: 512 bytes, of which lane (g, t) = (lane / 4, lane % 4) has 16, the four words of an A
// fragment with the outputs as rows (executor.h):
//   bf16 (kStep 16)   word r: W(g + 8 (r % 2), 2t + 8 (r / 2)) in the low half, its right neighbour in the high one
//   tf32 (kStep 8)    word r: W(g + 8 (r % 2), t + 4 (r / 2)), in fp32
// Words 0, 2 and words 1, 3 are the B fragments of its outputs 0..7 and 8..15 as well, so the same block serves outputs as
// columns. One 16-byte load a lane, no bank conflict, no padding. Order: layer, outputs / 16, inputs / kStep, part; bf16x3 has
// two parts, W rounded and what that leaves, rounded. Zeros beyond the layer. Bytes: sum over layers of up16(out) upK(in) times 2
// (bf16) or 4. Activations lie in shared memory as the unit takes them, (rows, ld) for each part, ld an odd number of 16 bytes,
// so that the eight rows of an ldmatrix lie in 32 banks.
//
// Why packed: bf16 halves the bytes that every tile reads from L2 (278 kB instead of 530 at width 256), and packing reads 530 kB
// once, 2 us with its launch. Converting while staging would read fp32 for every tile. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_input.h"

namespace tweedie::kernels::cuda {

TWEEDIE_MATH float as_float(std::uint32_t word) { return __builtin_bit_cast(float, word); }
TWEEDIE_MATH std::uint32_t as_word(float x) { return __builtin_bit_cast(std::uint32_t, x); }

struct alignas(16) Words4 {
  std::uint32_t v[4];
};

/// kParts: numbers that stand for a weight or an activation in memory; kSplit: for one in the products.
template <Precision P>
struct MlpUnit {
  static constexpr bool kBf16 = P == Precision::bf16 || P == Precision::bf16x3;
  static constexpr bool kSplit = P == Precision::fp32 || P == Precision::bf16x3;
  static constexpr int kParts = P == Precision::bf16x3 ? 2 : 1, kStep = kBf16 ? 16 : 8, kElement = kBf16 ? 2 : 4;

  /// A block of weights or a tile of activations, as the products take it; low where kSplit.
  struct Fragment {
    std::uint32_t high[4], low[4];
  };

  static int ld(int width) { return round_up(width, kStep) + 16 / kElement; }
  /// Bytes of one part of `rows` rows.
  TWEEDIE_MATH Index plane(int rows, int ld) { return Index{rows} * ld * kElement; }

  /// x, y as neighbours along k, in the parts' words (two of fp32 where the unit is tf32).
  template <class Ctx>
  TWEEDIE_KERNEL static void split(Ctx& ctx, float x, float y, std::uint32_t& high, std::uint32_t& low) {
    high = ctx.to_bf16x2(x, y);
    if constexpr (kSplit) {
      low = ctx.to_bf16x2(x - as_float(high << 16), y - as_float(high & 0xFFFF0000U));
    }
  }
  /// Puts x, y at (row, column) and (row, column + 1) of activations; column is even.
  template <class Ctx>
  TWEEDIE_KERNEL static void store(Ctx& ctx, unsigned char* h, int rows, int ld, int row, int column, float x, float y) {
    if constexpr (kBf16) {
      std::uint32_t high = 0, low = 0;
      split(ctx, x, y, high, low);
      unsigned char* const at = h + (row * ld + column) * kElement;
      *reinterpret_cast<std::uint32_t*>(at) = high;
      if constexpr (kSplit) *reinterpret_cast<std::uint32_t*>(at + rows * ld * kElement) = low;
    } else {
      float* const at = reinterpret_cast<float*>(h) + row * ld + column;
      at[0] = x, at[1] = y;
    }
  }
  /// The same of one number.
  template <class Ctx>
  TWEEDIE_KERNEL static void store(Ctx& ctx, unsigned char* h, int rows, int ld, int row, int column, float x) {
    if constexpr (kBf16) {
      std::uint32_t high = 0, low = 0;
      split(ctx, x, 0.0f, high, low);
      std::uint16_t* const at = reinterpret_cast<std::uint16_t*>(h) + row * ld + column;
      *at = static_cast<std::uint16_t>(high);
      if constexpr (kSplit) at[rows * ld] = static_cast<std::uint16_t>(low);
    } else {
      reinterpret_cast<float*>(h)[row * ld + column] = x;
    }
  }

  /// fp32 words as tf32; bf16 ones are what they are.
  template <class Ctx>
  TWEEDIE_KERNEL static void convert(Ctx& ctx, Fragment& f) {
    if constexpr (!kBf16) {
      TWEEDIE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float x = as_float(f.high[i]);
        if constexpr (kSplit) {
          split_tf32(ctx, x, f.high[i], f.low[i]);
        } else {
          f.high[i] = ctx.to_tf32(x);
        }
      }
    }
  }
  /// This lane's words of a block; convert() makes them operands.
  template <class Ctx>
  TWEEDIE_KERNEL static Fragment weights(Ctx& ctx, const unsigned char* block) {
    Fragment f;
    const Words4 first = reinterpret_cast<const Words4*>(block)[ctx.lane()];
    TWEEDIE_UNROLL
    for (int i = 0; i < 4; ++i) f.high[i] = first.v[i];
    if constexpr (kParts == 2) {
      const Words4 second = reinterpret_cast<const Words4*>(block + 512)[ctx.lane()];
      TWEEDIE_UNROLL
      for (int i = 0; i < 4; ++i) f.low[i] = second.v[i];
    }
    return f;
  }
  /// Four matrices of activations: this lane's row address is row `row`, 16 bytes number `chunk` from column k on.
  template <class Ctx>
  TWEEDIE_KERNEL static Fragment activations(Ctx& ctx, const unsigned char* h, int rows, int ld, int row, int k, int chunk) {
    Fragment f;
    const unsigned char* const at = h + (row * ld + k) * kElement + 16 * chunk;
    ctx.load_matrix_x4(f.high, at);
    if constexpr (kParts == 2) ctx.load_matrix_x4(f.low, at + rows * ld * kElement);
    return f;
  }

  template <class Ctx>
  TWEEDIE_KERNEL static void multiply(Ctx& ctx, float (&sum)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    if constexpr (kBf16) {
      ctx.mma_bf16(sum, a, b);
    } else {
      ctx.mma_tf32(sum, a, b);
    }
  }
  template <class Ctx>
  TWEEDIE_KERNEL static float silu(Ctx& ctx, float x) {
    return P == Precision::bf16 ? silu_tanh(ctx, x) : silu_approx(ctx, x);
  }
};

/// Where each layer's blocks begin, in blocks of 512 bytes.
struct PackedMlp {
  const unsigned char* words = nullptr;
  int first[Mlp::kMaxLayers + 1] = {};
};

template <Precision P>
PackedMlp packed_layout(const Mlp& net, const void* words) {
  PackedMlp packed;
  packed.words = static_cast<const unsigned char*>(words);
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    const Index blocks =
        Index{(layer.out + 15) / 16} * ((layer.in + MlpUnit<P>::kStep - 1) / MlpUnit<P>::kStep) * MlpUnit<P>::kParts;
    check(blocks <= (Index{1} << 30) - packed.first[i], "cuda::pack_mlp: layer ", i, " (", layer.out, ", ", layer.in,
          ") does not fit: packed weights have at most 2^39 bytes");
    packed.first[i + 1] = packed.first[i] + static_cast<int>(blocks);
  }
  return packed;
}

/// A thread a word (bf16x3: two).
template <Precision P>
struct PackMlp {
  using Unit = MlpUnit<P>;
  static constexpr int kThreads = 256;
  Mlp net;
  PackedMlp packed;
  std::uint32_t* words;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index i = Index{ctx.block()} * kThreads + ctx.thread();
    const int block = static_cast<int>(i / 128) * Unit::kParts;  // of all layers' blocks
    if (block >= packed.first[net.layers]) return;
    int l = 0;
    while (block >= packed.first[l + 1]) ++l;
    const MlpLayer& layer = net.layer[l];
    const int steps = (layer.in + Unit::kStep - 1) / Unit::kStep, mine = (block - packed.first[l]) / Unit::kParts;
    const int lane = static_cast<int>(i % 128) / 4, r = static_cast<int>(i % 4), g = lane / 4, t = lane % 4;
    const int out = mine / steps * 16 + g + 8 * (r % 2);
    const int in = mine % steps * Unit::kStep + (Unit::kBf16 ? 2 * t + 8 * (r / 2) : t + 4 * (r / 2));
    const auto weight = [&](int k) { return out < layer.out && k < layer.in ? layer.weight[Index{out} * layer.in + k] : 0.0f; };
    std::uint32_t* const to = words + Index{block} * 128 + i % 128;
    if constexpr (Unit::kBf16) {
      std::uint32_t high = 0, low = 0;
      Unit::split(ctx, weight(in), weight(in + 1), high, low);
      to[0] = high;
      if constexpr (Unit::kParts == 2) to[128] = low;
    } else {
      to[0] = as_word(weight(in));
    }
  }
};

/// Bytes of a network's packed weights.
template <Precision P>
Index packed_mlp_bytes(const Mlp& net) {
  return Index{packed_layout<P>(net, nullptr).first[net.layers]} * 512;
}

/// The packed weights of `net`, in resources.scratch. Throws UsageError where that is too small.
template <Precision P, class Launch>
PackedMlp pack_mlp(const char* function, Launch&& launch, const Mlp& net, const Resources& resources) {
  const PackedMlp packed = packed_layout<P>(net, resources.scratch);
  const Index bytes = Index{packed.first[net.layers]} * 512;
  check(resources.scratch != nullptr && resources.scratch_bytes >= bytes, function, ": ", resources.scratch_bytes,
        " bytes of scratch memory, the packed weights need ", bytes, "; scratch_bytes() tells before the call");
  const Index grid = (bytes / 4 / MlpUnit<P>::kParts + PackMlp<P>::kThreads - 1) / PackMlp<P>::kThreads;
  launch("pack_mlp", static_cast<int>(grid), PackMlp<P>::kThreads, 0,
         PackMlp<P>{net, packed, static_cast<std::uint32_t*>(resources.scratch)});
  return packed;
}

}  // namespace tweedie::kernels::cuda
