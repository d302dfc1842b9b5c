// mlp_forward_sm90.h - the folded network's forward pass in bf16 by wgmma, hidden widths above 128 up to 512.   Reference:
// kernels/reference/mlp_forward.h
//
//   out = scale_l (h W^T + b),  h = silu(... silu(x W_0^T + b_{0,l}) ...)       x (B, D)   W (out, in)   l the row's level
//
// A cluster of two blocks takes 256 rows: a block 128, each of its two consumer warpgroups 64. The block's third warpgroup
// streams the hidden weights, packed once by MlpPackSm90, through a ring in shared memory; each block fetches one half of every
// panel and sends it to both. First layer (small D) by FMA, hidden layers by wgmma (fp32 sums), last layer by FMA and two
// shuffles.
//   width 256: activations never leave registers: the sums of a layer, through silu, are the A operand of the next (128 sums + 64
//     registers of 2 bf16 a thread); ring of 6 panels of 32 kB. A layer is 4 panels, so one warpgroup can be a layer ahead: they
//     take turns at the tensor cores, and one's silu hides under the other's products.
//   width 384, 512: 64 rows of A do not fit beside the sums. Activations in swizzled shared memory (96 or 128 kB), a layer in two
//     halves of its outputs, the first half kept in 48 or 64 registers until the second is done; ring of 5 or 3 panels.
// Weights and biases of silu's layers are packed as halves, so that the sums are x/2 and silu(x) = x/2 + x/2 tanh(x/2): one
// special-function result and one FMA. Sums start at the bias.
//
// Precision: w and h rounded to bf16's 7 bits, 2^-7 of sum |w| |h| a hidden layer; the tensor core truncates its sums of 16
// products; silu within 2^-11 |x/2| by tanh.approx. The first and last layer are fp32. A row's bits depend on the row and its
// level alone.
//
// Predicted on an H200: docs/kernel_ladder.md. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_input.h"
#include "tweedie/kernels/cuda/ptx_sm90.h"

namespace tweedie::kernels::cuda {

template <int Width>
struct Sm90Tile {
  static_assert(Width == 256 || Width == 384 || Width == 512);
  static constexpr int kCluster = 2, kThreads = 384, kRows = 128, kConsumers = 2;
  static constexpr bool kRegisters = Width == 256;
  static constexpr int kChunks = kRegisters ? 1 : 2, kCols = Width / kChunks;  // outputs of a layer at a time
  static constexpr int kPanels = Width / 64, kPanelBytes = kCols * 128;        // a panel: (kCols, 64) weights
  static constexpr int kStages = Width == 256 ? 6 : Width == 384 ? 5 : 3;
  static constexpr bool kTurns = kStages > kPanels;  // one may be a whole layer ahead
  static constexpr int kActivationBytes = kRegisters ? 0 : kRows * Width * 2;
  static constexpr int kSharedBytes = kActivationBytes + kStages * kPanelBytes + 128;  // and the barriers
  static_assert(8 * (2 * kStages + kConsumers + 2) <= 128);
};

/// Where pack_mlp_sm90 puts what: the panels, layers 1 .. L - 2, chunk by chunk, panel by panel, w / 2 in bf16, swizzled; then
/// floats.
template <int Width>
struct Sm90Weights {
  TWEEDIE_MATH std::ptrdiff_t panel_bytes(const Mlp& net) { return std::ptrdiff_t{2} * Width * Width * (net.layers - 2); }
  TWEEDIE_MATH std::ptrdiff_t bytes(const Mlp& net) { return panel_bytes(net) + std::ptrdiff_t{4} * Width * rows(net); }
  TWEEDIE_MATH Index rows(const Mlp& net) {
    return Index{net.layer[0].in} + net.layers - 2 + net.layer[net.layers - 1].out + net.levels;
  }
  const unsigned char* packed;
  TWEEDIE_KERNEL const float* row(const Mlp& net, int i) const {
    return reinterpret_cast<const float*>(packed + panel_bytes(net)) + Index{i} * Width;
  }
  TWEEDIE_KERNEL const float* first(const Mlp& net, int input) const { return row(net, input); }                       // w / 2
  TWEEDIE_KERNEL const float* bias(const Mlp& net, int layer) const { return row(net, net.layer[0].in + layer - 1); }  // b / 2
  TWEEDIE_KERNEL const float* last(const Mlp& net, int output) const {
    return row(net, net.layer[0].in + net.layers - 2 + output);
  }
  TWEEDIE_KERNEL const float* level(const Mlp& net, int level) const {  // b_0 / 2
    return row(net, net.layer[0].in + net.layers - 2 + net.layer[net.layers - 1].out + level);
  }
};

template <int Width>
struct MlpPackSm90 {
  Mlp net;
  unsigned char* packed;  // Sm90Weights<Width>::bytes(net), at a multiple of 16 bytes

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    using Tile = Sm90Tile<Width>;
    const Index stride = Index{ctx.grid_size()} * ctx.block_size();
    const Index first = Index{ctx.block()} * ctx.block_size() + ctx.thread();
    const int hidden = net.layers - 2;
    auto* const panels = reinterpret_cast<std::uint16_t*>(packed);
    for (Index i = first; i < Index{Width} * Width * hidden; i += stride) {
      const MlpLayer& layer = net.layer[1 + i / (Width * Width)];
      const int in_layer = static_cast<int>(i % (Width * Width)), panel = in_layer / (Tile::kCols * 64);
      const int row = in_layer % (Tile::kCols * 64) / 64, k = in_layer % 64;
      const int n = panel / Tile::kPanels * Tile::kCols + row, from = panel % Tile::kPanels * 64 + k;
      const float w = n < layer.out && from < layer.in ? layer.weight[Index{n} * layer.in + from] : 0.0f;
      panels[i - k + ((k / 8) ^ (row % 8)) * 8 + k % 8] = static_cast<std::uint16_t>(ctx.to_bf16x2(0.5f * w, 0.0f));
    }
    const MlpLayer &inputs = net.layer[0], &outputs = net.layer[net.layers - 1];
    auto* const floats = reinterpret_cast<float*>(packed + Sm90Weights<Width>::panel_bytes(net));
    for (Index i = first; i < Width * Sm90Weights<Width>::rows(net); i += stride) {
      const int column = static_cast<int>(i % Width), row = static_cast<int>(i / Width);
      const int output = row - inputs.in - hidden, level = output - outputs.out;
      float value = 0;
      if (row < inputs.in) {
        if (column < inputs.out) value = 0.5f * inputs.weight[Index{column} * inputs.in + row];
      } else if (output < 0) {
        const MlpLayer& layer = net.layer[1 + row - inputs.in];
        if (column < layer.out) value = 0.5f * layer.bias[column];
      } else if (level < 0) {
        if (column < outputs.in) value = outputs.weight[Index{output} * outputs.in + column];
      } else if (column < inputs.out) {
        value = 0.5f * inputs.bias[Index{level} * inputs.out + column];
      }
      floats[i] = value;
    }
  }
};

struct alignas(8) FloatPair {
  float x, y;
};
TWEEDIE_MATH FloatPair pair_at(const float* p) { return *reinterpret_cast<const FloatPair*>(p); }

/// A place in the ring and the parity of its lap.
struct RingPlace {
  int slot = 0;
  unsigned parity = 0;
  template <int Stages>
  TWEEDIE_KERNEL void next() {
    if (++slot == Stages) slot = 0, parity ^= 1U;
  }
};

/// One thread's part of a block's evaluations: set_up(), then produce() or evaluate() as often as the others, then tear_down().
template <int Width>
struct Sm90Block {
  using Tile = Sm90Tile<Width>;
  unsigned char* memory;  // activations, swizzled panels of (64, 64), Width / 64 for each consumer; the ring; the barriers
  RingPlace place;
  unsigned my_turn;

  TWEEDIE_KERNEL unsigned char* panel(int slot) const { return memory + Tile::kActivationBytes + slot * Tile::kPanelBytes; }
  TWEEDIE_KERNEL std::uint64_t* full(int slot) const { return reinterpret_cast<std::uint64_t*>(panel(Tile::kStages)) + slot; }
  TWEEDIE_KERNEL std::uint64_t* empty(int slot) const { return full(Tile::kStages + slot); }
  TWEEDIE_KERNEL std::uint64_t* turn(int consumer) const { return full(2 * Tile::kStages + consumer); }
  /// For what the producer's other three warps prepare, and for the consumers' thanks.
  TWEEDIE_KERNEL std::uint64_t* prepared() const { return turn(Tile::kConsumers); }
  TWEEDIE_KERNEL std::uint64_t* taken() const { return prepared() + 1; }

  template <class Ctx>
  TWEEDIE_KERNEL void set_up(Ctx& ctx) {
    memory = ctx.template dynamic_shared<unsigned char>();
    my_turn = ctx.thread() < 128 ? 1 : 0;  // the first consumer's first turn is the phase before the first
    if (ctx.thread() == 0) {
      for (int i = 0; i < Tile::kStages; ++i) {
        ctx.barrier_init(full(i), 1);
        ctx.barrier_init(empty(i), 4 * Tile::kConsumers * Tile::kCluster);  // the warps of both blocks
      }
      for (int i = 0; i < Tile::kConsumers; ++i) ctx.barrier_init(turn(i), 4);
      ctx.barrier_init(prepared(), 3);
      ctx.barrier_init(taken(), 4 * Tile::kConsumers);
      ctx.fence_barrier_init();
    }
    ctx.cluster_sync();
  }

  /// A block's memory stays until no peer sends to it.
  template <class Ctx>
  TWEEDIE_KERNEL void tear_down(Ctx& ctx) {
    ctx.sync_warp();  // one thread of the producer's warp comes late
    ctx.cluster_sync();
  }

  /// The panels of `evaluations` passes; one thread.
  template <class Ctx>
  TWEEDIE_KERNEL void produce(Ctx& ctx, const Mlp& net, const unsigned char* packed, int evaluations) {
    constexpr int kHalf = Tile::kPanelBytes / Tile::kCluster;
    const int rank = ctx.cluster_rank(), panels = (net.layers - 2) * Tile::kChunks * Tile::kPanels;
    for (int i = 0; i < evaluations; ++i) {
      for (int p = 0; p < panels; ++p) {
        ctx.barrier_wait(empty(place.slot), place.parity ^ 1U);
        ctx.barrier_expect(full(place.slot), Tile::kPanelBytes);
        ctx.copy_bulk(panel(place.slot) + rank * kHalf, packed + Index{p} * Tile::kPanelBytes + rank * kHalf, kHalf,
                      full(place.slot), (1U << Tile::kCluster) - 1);
        place.next<Tile::kStages>();
      }
    }
  }

  /// This warp is done with a panel, here and for the peer that fills half of it.
  template <class Ctx>
  TWEEDIE_KERNEL void give_back(Ctx& ctx, int slot) {
    if (ctx.lane() == 0) {
      for (int rank = 0; rank < Tile::kCluster; ++rank) ctx.barrier_arrive(empty(slot), rank);
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL unsigned char* my_activations(Ctx& ctx) const {
    return memory + ctx.thread() / 128 * (Tile::kActivationBytes / Tile::kConsumers);
  }

  /// sum += h W^T of one chunk of a hidden layer: h from `a` or from shared memory.
  template <class Ctx>
  TWEEDIE_KERNEL void multiply(Ctx& ctx, float (&sum)[Tile::kCols / 2], std::uint32_t (&a)[Tile::kCols / 16][4]) {
    const int consumer = ctx.thread() / 128;
    if constexpr (Tile::kTurns) {
      ctx.barrier_wait(turn(consumer), my_turn);
      my_turn ^= 1U;
    }
    int before = 0;
    ctx.pin(sum);
    const auto with_panel = [&](int p) {
      ctx.barrier_wait(full(place.slot), place.parity);
      ctx.wgmma_fence();
      const std::uint32_t b = ctx.shared_address(panel(place.slot));
      TWEEDIE_UNROLL
      for (int k = 0; k < 4; ++k) {
        if constexpr (Tile::kRegisters) {
          ctx.template wgmma<Tile::kCols>(sum, a[4 * p + k], swizzled_matrix(b + 32 * static_cast<std::uint32_t>(k)));
        } else {
          const std::uint32_t left = ctx.shared_address(my_activations(ctx)) + static_cast<std::uint32_t>(p * 8192 + 32 * k);
          ctx.template wgmma<Tile::kCols>(sum, swizzled_matrix(left), swizzled_matrix(b + 32 * static_cast<std::uint32_t>(k)));
        }
      }
      ctx.wgmma_commit();
      if (p > 0) {
        ctx.template wgmma_wait<1>();
        give_back(ctx, before);
      }
      before = place.slot;
      place.next<Tile::kStages>();
    };
    if constexpr (Tile::kRegisters) {  // registers have no index at run time
      TWEEDIE_UNROLL
      for (int p = 0; p < Tile::kPanels; ++p) with_panel(p);
    } else {
      for (int p = 0; p < Tile::kPanels; ++p) with_panel(p);
    }
    if constexpr (Tile::kTurns) {
      if (ctx.lane() == 0) ctx.barrier_arrive(turn(1 - consumer));
    }
    ctx.template wgmma_wait<0>();
    ctx.pin(sum);
    if constexpr (Tile::kRegisters) ctx.pin(a);
    give_back(ctx, before);
  }

  /// x/2 to silu(x), in place.
  template <class Ctx>
  TWEEDIE_KERNEL static void activate(Ctx& ctx, float (&sum)[Tile::kCols / 2]) {
    TWEEDIE_UNROLL
    for (int i = 0; i < Tile::kCols / 2; ++i) sum[i] = math::fma(sum[i], ctx.tanh_approx(sum[i]), sum[i]);
  }

  /// The sums' places are those of A's registers: columns 16 k + 8 (e / 2) + 2 t of rows g and g + 8 are d[8 k + 2 e].
  template <class Ctx>
  TWEEDIE_KERNEL static void pack(Ctx& ctx, const float (&sum)[Tile::kCols / 2], std::uint32_t (&a)[Tile::kCols / 16][4]) {
    TWEEDIE_UNROLL
    for (int k = 0; k < Tile::kCols / 16; ++k) {
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) a[k][e] = ctx.to_bf16x2(sum[8 * k + 2 * e], sum[8 * k + 2 * e + 1]);
    }
  }

  /// A chunk's activations to this consumer's panels; rows g and g + 8 lie in other banks for each g.
  template <class Ctx>
  TWEEDIE_KERNEL void store_activations(Ctx& ctx, int chunk, const std::uint32_t (&a)[Tile::kCols / 16][4]) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4, row = ctx.thread() % 128 / 32 * 16 + g;
    TWEEDIE_UNROLL
    for (int i = 0; i < Tile::kCols / 4; ++i) {
      const int column = chunk * Tile::kCols + i / 2 * 8;
      unsigned char* const at = my_activations(ctx) + column / 64 * 8192 + (row + 8 * (i % 2)) * 128;
      *reinterpret_cast<std::uint32_t*>(at + ((column % 64 / 8) ^ g) * 16 + 4 * t) = a[i / 4][i % 4];
    }
  }
  template <class Ctx>
  TWEEDIE_KERNEL static void show_activations(Ctx& ctx) {
    if constexpr (!Tile::kRegisters) {
      ctx.fence_async_proxy();
      ctx.sync_warpgroup();
    }
  }

  /// The network for rows g and g + 8 of this warp's 16 (mlp_row): input(i, x0, x1) gives their column i; level0 and level1 are
  /// their levels, OneLevel: the same; store(i, chunk == 0, y0, y1) takes h W^T of output i in kChunks parts, from one thread of
  /// a row.
  template <bool OneLevel, class Ctx, class Input, class Store>
  TWEEDIE_KERNEL void evaluate(Ctx& ctx, const Mlp& net, const Sm90Weights<Width>& weights, int level0, int level1, Input input,
                               Store store) {
    const int t = ctx.lane() % 4;
    float sum[Tile::kCols / 2];
    std::uint32_t a[Tile::kCols / 16][4];
    if constexpr (!Tile::kRegisters) ctx.sync_warpgroup();  // all have read what the last evaluation left
    for (int chunk = 0; chunk < Tile::kChunks; ++chunk) {
      first_layer<OneLevel>(net, weights, chunk * Tile::kCols + 2 * t, level0, level1, input, sum);
      activate(ctx, sum);
      pack(ctx, sum, a);
      if constexpr (!Tile::kRegisters) store_activations(ctx, chunk, a);
    }
    show_activations(ctx);
    for (int layer = 1; layer < net.layers - 1; ++layer) {
      for (int chunk = 0; chunk < Tile::kChunks; ++chunk) {
        const float* bias = weights.bias(net, layer) + chunk * Tile::kCols + 2 * t;
        ctx.pin(bias);
        TWEEDIE_UNROLL
        for (int j = 0; j < Tile::kCols / 8; ++j) {
          const FloatPair b = pair_at(bias + 8 * j);
          sum[4 * j] = sum[4 * j + 2] = b.x, sum[4 * j + 1] = sum[4 * j + 3] = b.y;
        }
        multiply(ctx, sum, a);
        activate(ctx, sum);
        if (layer == net.layers - 2) {
          last_layer(ctx, net, weights, chunk, sum, store);
        } else if (chunk == 0) {
          pack(ctx, sum, a);
        } else {  // all have read the layer's input
          ctx.sync_warpgroup();
          store_activations(ctx, 0, a);
          pack(ctx, sum, a);
          store_activations(ctx, 1, a);
          show_activations(ctx);
        }
      }
    }
  }

 private:
  template <bool OneLevel, class Input>
  TWEEDIE_KERNEL static void first_layer(const Mlp& net, const Sm90Weights<Width>& weights, int column, int level0, int level1,
                                         Input input, float (&sum)[Tile::kCols / 2]) {
    const float* const bias0 = weights.level(net, level0) + column;
    const float* const bias1 = OneLevel ? bias0 : weights.level(net, level1) + column;
    TWEEDIE_UNROLL
    for (int j = 0; j < Tile::kCols / 8; ++j) {
      const FloatPair b0 = pair_at(bias0 + 8 * j), b1 = OneLevel ? b0 : pair_at(bias1 + 8 * j);
      sum[4 * j] = b0.x, sum[4 * j + 1] = b0.y, sum[4 * j + 2] = b1.x, sum[4 * j + 3] = b1.y;
    }
    TWEEDIE_NO_UNROLL  // registers
        for (int i = 0; i < net.layer[0].in; ++i) {
      float x0, x1;
      input(i, x0, x1);
      const float* const w = weights.first(net, i) + column;
      TWEEDIE_UNROLL
      for (int j = 0; j < Tile::kCols / 8; ++j) {
        const FloatPair pair = pair_at(w + 8 * j);
        sum[4 * j] = math::fma(x0, pair.x, sum[4 * j]);
        sum[4 * j + 1] = math::fma(x0, pair.y, sum[4 * j + 1]);
        sum[4 * j + 2] = math::fma(x1, pair.x, sum[4 * j + 2]);
        sum[4 * j + 3] = math::fma(x1, pair.y, sum[4 * j + 3]);
      }
    }
  }

  template <class Ctx, class Store>
  TWEEDIE_KERNEL static void last_layer(Ctx& ctx, const Mlp& net, const Sm90Weights<Width>& weights, int chunk,
                                        const float (&h)[Tile::kCols / 2], Store store) {
    TWEEDIE_NO_UNROLL
    for (int i = 0; i < net.layer[net.layers - 1].out; ++i) {
      const float* w = weights.last(net, i) + chunk * Tile::kCols + 2 * (ctx.lane() % 4);
      ctx.pin(w);
      float y0 = 0, y1 = 0;
      TWEEDIE_UNROLL
      for (int j = 0; j < Tile::kCols / 8; ++j) {
        const FloatPair pair = pair_at(w + 8 * j);
        // The even column first: gcc 12 vectorises the other order wrongly where fma is a multiplication and an addition.
        y0 = math::fma(h[4 * j + 1], pair.y, math::fma(h[4 * j], pair.x, y0));
        y1 = math::fma(h[4 * j + 3], pair.y, math::fma(h[4 * j + 2], pair.x, y1));
      }
      for (int bits = 1; bits < 4; bits *= 2) {
        y0 += ctx.shuffle_xor(~0U, y0, bits);
        y1 += ctx.shuffle_xor(~0U, y1, bits);
      }
      if (ctx.lane() % 4 == 0) store(i, chunk == 0, y0, y1);
    }
  }
};

/// The first of this thread's two rows in the block's 128; the other is 8 below.
template <class Ctx>
TWEEDIE_KERNEL int sm90_row(Ctx& ctx) {
  return ctx.thread() / 32 * 16 + ctx.lane() / 4;
}

template <int Width>
struct MlpForwardSm90 : MlpForwardInput {
  using Tile = Sm90Tile<Width>;
  static constexpr int kCluster = Tile::kCluster, kThreads = Tile::kThreads;
  const unsigned char* packed;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    Sm90Block<Width> block;
    block.set_up(ctx);
    const int cluster = ctx.block() / kCluster, clusters = ctx.grid_size() / kCluster;
    const int tiles = static_cast<int>((batch + kCluster * Tile::kRows - 1) / (kCluster * Tile::kRows));
    if (ctx.thread() >= 128 * Tile::kConsumers) {
      ctx.template decrease_registers<40>();
      if (ctx.thread() == 128 * Tile::kConsumers) block.produce(ctx, net, packed, (tiles - cluster + clusters - 1) / clusters);
    } else {
      ctx.template increase_registers<232>();
      for (int tile = cluster; tile < tiles; tile += clusters) {
        forward(ctx, block, (Index{tile} * kCluster + ctx.cluster_rank()) * Tile::kRows + sm90_row(ctx));
      }
    }
    block.tear_down(ctx);
  }

 private:
  template <class Ctx>
  TWEEDIE_KERNEL void forward(Ctx& ctx, Sm90Block<Width>& block, Index row) const {
    const int dim = net.layer[0].in, outputs = net.layer[net.layers - 1].out;
    const float* const last_bias = net.layer[net.layers - 1].bias;
    block.template evaluate<false>(
        ctx, net, Sm90Weights<Width>{packed}, level_of(row), level_of(row + 8),
        [&](int i, float& x0, float& x1) {
          x0 = row < batch ? x[row * dim + i] : 0.0f;
          x1 = row + 8 < batch ? x[(row + 8) * dim + i] : 0.0f;
        },
        [&](int i, bool first, float y0, float y1) {  // the same thread for every part of an output
          if (row < batch) put(row, out[row * outputs + i], first, y0, last_bias[i]);
          if (row + 8 < batch) put(row + 8, out[(row + 8) * outputs + i], first, y1, last_bias[i]);
        });
  }
  TWEEDIE_KERNEL void put(Index row, float& to, bool first, float y, float last_bias) const {
    to = first ? scale_of(row) * (y + last_bias) : math::fma(scale_of(row), y, to);
  }
};

// ---- launchers ----

struct Sm90Probe {
  static constexpr int kCluster = 1, kThreads = 32;
  int* found;
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    if (ctx.thread() == 0) *found = 1;
  }
};

/// Whether this build's kernels for sm_90a run on the device of `runtime`: everywhere else run_cluster_kernel is empty.
template <class Runtime>
bool has_sm90(Runtime& runtime) {
  int* const found = static_cast<int*>(runtime.allocate(sizeof(int)));
  int answer = 0;
  try {
    runtime.zero(found, sizeof(int));
    runtime.launch("sm90_probe", 1, Sm90Probe::kThreads, 0, Sm90Probe{found});
    runtime.download(&answer, found, sizeof(int));
  } catch (...) {
    runtime.release(found);
    throw;
  }
  runtime.release(found);
  return answer == 1;
}

inline constexpr int kSm90Clusters = 66;  // fills an H200; tiles are strided over them

/// visit(constant) with the width that the hidden layers of `net` are padded to.
template <class Visit>
void with_sm90_width(const Mlp& net, Visit visit) {
  int width = 0;
  for (int i = 0; i + 1 < net.layers; ++i) width = width < net.layer[i].out ? net.layer[i].out : width;
  if (width <= 256) {
    visit(std::integral_constant<int, 256>{});
  } else if (width <= 384) {
    visit(std::integral_constant<int, 384>{});
  } else {
    visit(std::integral_constant<int, 512>{});
  }
}

/// Whether the sm_90a kernels take the network: 3 to 16 layers, all hidden ones 129 to 512 wide, at most 16 inputs and outputs.
/// Narrower ones would be padding, and more inputs or outputs belong on tensor cores: mlp_forward takes those.
inline bool mlp_forward_sm90_serves(const Mlp& net) {
  if (net.layers < 3 || net.layers > Mlp::kMaxLayers || net.layer[0].in > 16 || net.layer[net.layers - 1].out > 16) return false;
  for (int i = 0; i + 1 < net.layers; ++i) {
    if (net.layer[i].out <= 128 || net.layer[i].out > 512) return false;
  }
  return true;
}

inline Index mlp_sm90_packed_bytes(const Mlp& net) {
  check_mlp("cuda::mlp_sm90_packed_bytes", net);
  check(mlp_forward_sm90_serves(net), "cuda::mlp_sm90_packed_bytes: this network is not for sm_90a's kernel; use mlp_forward");
  Index bytes = 0;
  with_sm90_width(net, [&](auto width) { bytes = Sm90Weights<width()>::bytes(net); });
  return bytes;
}

/// `packed`: mlp_sm90_packed_bytes(net) bytes of the device at a multiple of 16; to be packed again when a weight or a
/// bias changes.
template <class Launch>
void pack_mlp_sm90(Launch&& launch, const Mlp& net, unsigned char* packed) {
  mlp_sm90_packed_bytes(net);
  check(packed != nullptr && reinterpret_cast<std::uintptr_t>(packed) % 16 == 0,
        "cuda::pack_mlp_sm90: packed is null or no multiple of 16");
  with_sm90_width(net, [&](auto width) { launch("pack_mlp_sm90", 132, 256, 0, MlpPackSm90<width()>{net, packed}); });
}

/// The forward pass in bf16; `packed` by pack_mlp_sm90. Launches nothing for no rows.
template <class Launch>
void mlp_forward_sm90(Launch&& launch, const MlpForwardInput& k, const unsigned char* packed) {
  check_mlp_forward("cuda::mlp_forward_sm90", k);
  check(mlp_forward_sm90_serves(k.net), "cuda::mlp_forward_sm90: this network is not for sm_90a's kernel; use mlp_forward");
  check(packed != nullptr, "cuda::mlp_forward_sm90: packed is a null pointer; pack_mlp_sm90 fills it");
  with_sm90_width(k.net, [&](auto width) {
    using Tile = Sm90Tile<width()>;
    constexpr int kRows = Tile::kRows * Tile::kCluster;
    const Index tiles = (k.batch + kRows - 1) / kRows;
    const int clusters = static_cast<int>(tiles < kSm90Clusters ? tiles : kSm90Clusters);
    if (clusters > 0) {
      launch("mlp_forward_sm90", clusters * Tile::kCluster, Tile::kThreads, Tile::kSharedBytes,
             MlpForwardSm90<width()>{k, packed});
    }
  });
}

}  // namespace tweedie::kernels::cuda
