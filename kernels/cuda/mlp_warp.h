// mlp_warp.h - the network for few rows (8 or 16 a block), so that few particles spread over many SMs: latency, not throughput.
//
//   h^T = silu(W h^T + b)    the weights are mma's rows (16 outputs), the particles its columns (8)    a forward as in
//   mlp_block.h
//
// A warp owns its outputs of every layer, blocks warp, warp + kWarps, ..., so nobody else reads its weights: they lie in slots of
// its own and need no barrier of the block, of which there is one a layer. A slot holds a piece: kBlocks blocks of outputs x
// kGroup of inputs. All slots but kRing keep their piece for the whole chain; the other pieces, spread evenly between them,
// stream from L2 through the ring, kRing ahead. If all fit, nothing streams.
// Sums run over the inputs in mlp_block.h's order and products: the same bits. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/kernels/cuda/mlp_packed.h"

namespace tweedie::kernels::cuda {

template <int Tiles, Precision P>
struct WarpForward {
  using Unit = MlpUnit<P>;
  static constexpr int kWarps = 8, kRows = 8 * Tiles, kThreads = 32 * kWarps;
  static constexpr int kBlocks = 2, kGroup = 2, kRing = 3, kBlockBytes = 512 * Unit::kParts;
  static constexpr int kPiece = kBlocks * kGroup * kBlockBytes;

  Mlp net;
  PackedMlp packed;
  int ld, slots;  // of each warp

  /// A place in the warp's sequence of pieces: how many before it stay in their slots, and its share of the next one to stream,
  /// in 1 / pieces.
  struct Cursor {
    int layer = 0, block = 0, step = 0, kept = 0, share = 0;
  };
  struct State {
    unsigned char *even, *odd, *slots;  // slots: this warp's
    int pieces, streamed;               // of this warp, in one evaluation
    Cursor next;                        // the first piece that may have to be fetched
    int runs, fetched, used;            // evaluations left to fetch; streamed pieces fetched and used, modulo kRing
  };

  static Index activation_bytes(int width) { return 2 * Unit::kParts * Unit::plane(kRows, Unit::ld(width)); }
  /// The most pieces that a warp (the first) has.
  static int most_pieces(const Mlp& net) {
    Index pieces = 0;
    for (int l = 0; l < net.layers; ++l) {
      pieces += Index{(net.layer[l].out + 16 * kWarps * kBlocks - 1) / (16 * kWarps * kBlocks)} *
                ((net.layer[l].in + kGroup * Unit::kStep - 1) / (kGroup * Unit::kStep));
    }
    return static_cast<int>(pieces < 1 << 20 ? pieces : 1 << 20);
  }
  /// Slots for a warp in `bytes` of shared memory: enough for all its pieces, or what there is; below kRing the kernel cannot
  /// run.
  static int slots_in(const Mlp& net, int width, Index bytes) {
    const Index room = (bytes - activation_bytes(width)) / (Index{kWarps} * kPiece);
    const int most = most_pieces(net) > kRing ? most_pieces(net) : kRing;
    return room < most ? static_cast<int>(room) : most;
  }
  TWEEDIE_HOST_DEVICE Index shared_bytes() const {
    return 2 * Unit::kParts * Unit::plane(kRows, ld) + Index{kWarps} * slots * kPiece;
  }
  TWEEDIE_KERNEL int padded_inputs() const { return round_up(net.layer[0].in, Unit::kStep); }

  TWEEDIE_KERNEL int blocks(int layer) const { return (net.layer[layer].out + 15) / 16; }
  TWEEDIE_KERNEL int steps(int layer) const { return (net.layer[layer].in + Unit::kStep - 1) / Unit::kStep; }

  /// Whether a piece streams: of every `pieces` in turn `streamed` do, evenly spread.
  TWEEDIE_KERNEL static bool streams(const State& state, const Cursor& c) { return c.share + state.streamed >= state.pieces; }
  TWEEDIE_KERNEL static void pass(const State& state, Cursor& c) {
    if (streams(state, c)) {
      c.share += state.streamed - state.pieces;
    } else {
      c.share += state.streamed, ++c.kept;
    }
    c.step += kGroup;
  }
  /// To the next piece; past the last one the cursor is at the first again and the result is true.
  TWEEDIE_KERNEL bool advance(const State& state, Cursor& c, int warp) const {
    pass(state, c);
    if (c.step < steps(c.layer)) return false;
    c.step = 0, c.block += kWarps * kBlocks;
    while (c.block >= blocks(c.layer)) {
      if (++c.layer == net.layers) {
        c = Cursor{};
        seek(c, warp);
        return true;
      }
      c.block = warp;
    }
    return false;
  }
  /// The warp's first piece, of the first layer that has one for it.
  TWEEDIE_KERNEL void seek(Cursor& c, int warp) const {
    c.block = warp;
    while (c.layer < net.layers && c.block >= blocks(c.layer)) ++c.layer;
  }

  /// A lane copies the 16 bytes of each block that it alone reads (MlpUnit::weights), so its own wait is all that it needs.
  template <class Ctx>
  TWEEDIE_KERNEL void copy(Ctx& ctx, const Cursor& c, unsigned char* to) const {
    const int all = steps(c.layer), wanted = all - c.step < kGroup ? all - c.step : kGroup;
    TWEEDIE_UNROLL
    for (int j = 0; j < kBlocks; ++j) {
      const int block = c.block + j * kWarps;
      if (block >= blocks(c.layer)) continue;
      const unsigned char* const from =
          packed.words + (packed.first[c.layer] + (Index{block} * all + c.step) * Unit::kParts) * 512;
      for (int i = 16 * ctx.lane(); i < wanted * kBlockBytes; i += 16 * 32) {
        ctx.template copy_async<16>(to + j * kGroup * kBlockBytes + i, from + i);
      }
    }
  }
  /// The next streamed piece into the ring, as one group; an empty one where none is left.
  template <class Ctx>
  TWEEDIE_KERNEL void fetch(Ctx& ctx, State& state) const {
    const int warp = ctx.thread() / 32;
    while (state.runs > 0 && !streams(state, state.next)) state.runs -= advance(state, state.next, warp);
    if (state.runs > 0) {
      copy(ctx, state.next, state.slots + state.fetched * kPiece);
      state.fetched = (state.fetched + 1) % kRing;
      state.runs -= advance(state, state.next, warp);
    }
    ctx.commit_async();
  }

  template <class Ctx>
  TWEEDIE_KERNEL State begin(Ctx& ctx, unsigned char* memory, int runs) const {
    const int warp = ctx.thread() / 32;
    const Index buffer = Unit::kParts * Unit::plane(kRows, ld);
    State state{memory, memory + buffer, memory + 2 * buffer + Index{warp} * slots * kPiece, 0, 0, {}, 0, 0, 0};
    for (int l = 0; l < net.layers; ++l) {
      const int mine = warp < blocks(l) ? (blocks(l) - warp + kWarps * kBlocks - 1) / (kWarps * kBlocks) : 0;
      state.pieces += mine * ((steps(l) + kGroup - 1) / kGroup);
    }
    if (state.pieces == 0) return state;
    state.streamed = state.pieces <= slots ? 0 : state.pieces - (slots - kRing);
    seek(state.next, warp);
    unsigned char* to = state.slots + (state.streamed == 0 ? 0 : kRing * kPiece);
    do {
      if (!streams(state, state.next)) {
        copy(ctx, state.next, to);
        to += kPiece;
      }
    } while (!advance(state, state.next, warp));
    ctx.commit_async();
    ctx.template wait_async<0>();
    if (state.streamed > 0) {
      state.runs = runs;
      for (int i = 0; i < kRing; ++i) fetch(ctx, state);
    }
    return state;
  }

  template <class Ctx>
  TWEEDIE_KERNEL void input(Ctx& ctx, State& state, int row, int column, const float (&x)[4]) const {
    Unit::store(ctx, state.even, kRows, ld, row, column, x[0], x[1]);
    Unit::store(ctx, state.even, kRows, ld, row, column + 2, x[2], x[3]);
  }

  /// The operands of a piece and its activations in registers, of two steps for each 8 particles: what lies beyond the last step
  /// is read and not used.
  struct Operands {
    typename Unit::Fragment w[kBlocks][kGroup], rows[Tiles];
  };
  template <class Ctx>
  TWEEDIE_KERNEL void load(Ctx& ctx, State& state, const unsigned char* h, const Cursor& c, Operands& to) const {
    const bool stream = streams(state, c);
    if (stream) ctx.template wait_async<kRing - 1>();
    const int slot = stream ? state.used : c.kept + (state.streamed == 0 ? 0 : kRing);
    TWEEDIE_UNROLL
    for (int j = 0; j < kBlocks; ++j) {
      TWEEDIE_UNROLL
      for (int s = 0; s < kGroup; ++s) {
        if (c.block + j * kWarps < blocks(c.layer) && c.step + s < steps(c.layer)) {
          to.w[j][s] = Unit::weights(ctx, state.slots + slot * kPiece + (j * kGroup + s) * kBlockBytes);
        }
      }
    }
    if (stream) {
      state.used = (state.used + 1) % kRing;
      fetch(ctx, state);
    }
    TWEEDIE_UNROLL
    for (int i = 0; i < Tiles; ++i) {
      to.rows[i] = Unit::activations(ctx, h, kRows, ld, 8 * i + ctx.lane() % 8, c.step * Unit::kStep, ctx.lane() / 8);
    }
  }
  /// sum += W h^T over a piece's inputs.
  template <class Ctx>
  TWEEDIE_KERNEL void multiply(Ctx& ctx, Operands& of, const Cursor& c, float (&sum)[kBlocks][Tiles][4]) const {
    TWEEDIE_UNROLL
    for (int i = 0; i < Tiles; ++i) Unit::convert(ctx, of.rows[i]);
    TWEEDIE_UNROLL
    for (int s = 0; s < kGroup; ++s) {
      if (c.step + s >= steps(c.layer)) continue;
      TWEEDIE_UNROLL
      for (int j = 0; j < kBlocks; ++j) {
        if (c.block + j * kWarps >= blocks(c.layer)) continue;
        typename Unit::Fragment& w = of.w[j][s];
        Unit::convert(ctx, w);
        TWEEDIE_UNROLL
        for (int i = 0; i < Tiles; ++i) {
          const typename Unit::Fragment& rows = of.rows[i];
          const std::uint32_t b[2] = {rows.high[2 * s], rows.high[2 * s + 1]};
          if constexpr (Unit::kSplit) {  // small terms first
            const std::uint32_t b_low[2] = {rows.low[2 * s], rows.low[2 * s + 1]};
            Unit::multiply(ctx, sum[j][i], w.high, b_low);
            Unit::multiply(ctx, sum[j][i], w.low, b);
          }
          Unit::multiply(ctx, sum[j][i], w.high, b);
        }
      }
    }
  }

  template <class Ctx, class LevelOf, class Emit, class Idle>
  TWEEDIE_KERNEL void run(Ctx& ctx, State& state, LevelOf level_of, Emit emit, Idle idle) const {
    const int g = ctx.lane() / 4, t = ctx.lane() % 4, warp = ctx.thread() / 32;
    Cursor c{};
    for (c.layer = 0; c.layer < net.layers; ++c.layer) {
      const MlpLayer& layer = net.layer[c.layer];
      const bool output = c.layer + 1 == net.layers;
      const unsigned char* const h = c.layer % 2 == 0 ? state.even : state.odd;
      unsigned char* const next = c.layer % 2 == 0 ? state.odd : state.even;
      ctx.sync();  // the layer before is written, and the one before that read
      if (output) idle();
      for (c.block = warp; c.block < blocks(c.layer); c.block += kWarps * kBlocks) {
        float sum[kBlocks][Tiles][4] = {};
        Operands now, ahead;  // the next piece is on its way to registers while this one is multiplied
        c.step = 0;
        load(ctx, state, h, c, now);
        for (bool more = true; more;) {
          Cursor following = c;
          pass(state, following);
          more = following.step < steps(c.layer);
          if (more) load(ctx, state, h, following, ahead);
          multiply(ctx, now, c, sum);
          now = ahead;
          c = following;
        }
        TWEEDIE_UNROLL
        for (int j = 0; j < kBlocks; ++j) {
          TWEEDIE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int at = 16 * (c.block + j * kWarps) + g + 8 * (e / 2);
            if (at >= round_up(layer.out, Unit::kStep)) continue;
            TWEEDIE_UNROLL
            for (int i = 0; i < Tiles; ++i) {
              const int row = 8 * i + 2 * t + e % 2;
              const Index from = c.layer == 0 ? Index{level_of(row)} * layer.out + at : Index{at};
              const float y = at < layer.out ? sum[j][i][e] + layer.bias[from] : 0.0f;
              if (!output) {
                Unit::store(ctx, next, kRows, ld, row, at, Unit::silu(ctx, y));
              } else if (at < layer.out) {
                emit(row, at, y);
              }
            }
          }
        }
      }
    }
  }
};

}  // namespace tweedie::kernels::cuda
