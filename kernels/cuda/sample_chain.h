// sample_chain.h - a sampler's whole chain in one launch: a tile of particles stays on its SM for all steps.
//
//   for each step:   f = F(input_scale x, level);   x' = x_x x + x_f f + x_m m + x_z z;   m' = m_x x + m_f f + m_m m
//   x, m (B, D)   F the network (mlp_forward.h)   steps: inputs.h, for Langevin [Song & Ermon 2019, Algorithm 1], Heun, ...
//
// Order of roundings, each line one fma a term, the first one a product:
//   before F: p = x_x x + x_m m + x_z z,  q = m_x x + m_m m;    after F: x = p + x_f f,  m = q + m_f f
// so that nothing but f has to be kept for the second half. z of row i is the draw (purpose, step.draw, first_row + i) of the
// stream `key`: the host's bits. A row has the bits of the same steps taken by mlp_forward, normals and chain_update one after
// the other, whatever the tile, the cut into batches and the other rows. A row that has diverged goes on, and disturbs no other.
//
// Ladder: three launches a step; SampleChain over WarpForward (few particles, latency) or BlockForward (many).
// Predicted on an H200, never measured: docs/kernel_ladder.md. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"
#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/cuda/mlp_block.h"
#include "tweedie/kernels/cuda/mlp_warp.h"

namespace tweedie::kernels::cuda {

/// Forward: see mlp_block.h.
template <class Forward>
struct SampleChain : ChainInput {
  static constexpr int kRows = Forward::kRows, kThreads = Forward::kThreads;
  static constexpr int kWindow = 32;  // steps that lie in shared memory at once, and one more
  Forward forward;
  int lanes;  // of a warp, that share a row: a power of two

  /// Bytes of the particles and the window of steps.
  static Index state_bytes(int dim) {
    return (Index{kRows} * (2 * dim + 1) * 4 + (kWindow + 1) * static_cast<Index>(sizeof(ChainStep)) + 15) / 16 * 16;
  }
  Index shared_bytes() const { return forward.shared_bytes() + state_bytes(net.layer[0].in); }

  struct Particles {
    float *x, *m;      // (kRows, D)
    int* diverged;     // (kRows)
    ChainStep* steps;  // (kWindow + 1)
  };

  /// visit(row, lane of the row, whether it is the thread's first) for the rows in turn, by whole warps: an element is always the
  /// same thread's. Rows may lie beyond the tile. The last warp comes first: it has the least to do in the last layer.
  template <class Ctx, class Visit>
  TWEEDIE_KERNEL void over_rows(Ctx& ctx, Visit visit) const {
    const int groups = 32 / lanes, start = (kThreads / 32 - 1 - ctx.thread() / 32) * groups;
    for (int base = start; base < kRows; base += kThreads / 32 * groups) {
      visit(base + ctx.lane() / lanes, ctx.lane() % lanes, base == start);
    }
  }

  /// z of a tile's row, columns first to first + 3.
  template <class Ctx>
  TWEEDIE_KERNEL void draw(Ctx& ctx, std::uint32_t number, int row, int first, float (&z)[4]) const {
    const std::uint64_t at = first_row + static_cast<std::uint64_t>(Index{ctx.block()} * kRows + row);
    const PhiloxWords w = philox4x32(philox_counter(purpose, number, at, static_cast<std::uint32_t>(first / 4), 0), key);
    tweedie::detail::normal_pair(w.v[0], w.v[1], z[0], z[1]);
    tweedie::detail::normal_pair(w.v[2], w.v[3], z[2], z[3]);
  }
  /// The thread's first four columns' z of a step, ahead of time.
  template <class Ctx>
  TWEEDIE_KERNEL void draw_ahead(Ctx& ctx, const ChainStep& next, float (&z)[4]) const {
    const int row = (kThreads / 32 - 1 - ctx.thread() / 32) * (32 / lanes) + ctx.lane() / lanes, first = 4 * (ctx.lane() % lanes);
    if (next.x_z != 0 && row < kRows && first < net.layer[0].in) draw(ctx, next.draw, row, first, z);
  }

  /// Notes rows that left the bound at step s; `bad` is what this thread saw of its row.
  template <class Ctx>
  TWEEDIE_KERNEL void note(Ctx& ctx, const Particles& p, int row, int at, bool bad, int s) const {
    const unsigned row_lanes = (lanes == 32 ? ~0U : (1U << lanes) - 1) << (ctx.lane() / lanes * lanes);
    const unsigned votes = ctx.ballot(~0U, bad);
    if (at == 0 && row < kRows && (votes & row_lanes) != 0 && p.diverged[row] == steps) p.diverged[row] = s;
  }
  TWEEDIE_KERNEL bool outside(float value) const { return !(value <= bound && value >= -bound); }

  /// The half of step s before the network: its input, p and q; and whether the step before left the bound.
  template <class Ctx>
  TWEEDIE_KERNEL void prepare(Ctx& ctx, typename Forward::State& state, const Particles& p, int s,
                              const float (&drawn)[4]) const {
    const int dim = net.layer[0].in, padded = forward.padded_inputs();
    const ChainStep now = p.steps[s % kWindow];
    over_rows(ctx, [&](int row, int at, bool first_row_of_thread) {
      bool bad = false;
      for (int first = 4 * at; row < kRows && first < padded; first += 4 * lanes) {
        float input[4] = {}, z[4] = {drawn[0], drawn[1], drawn[2], drawn[3]};
        if (now.x_z != 0 && first < dim && !(first_row_of_thread && first == 4 * at)) draw(ctx, now.draw, row, first, z);
        TWEEDIE_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (first + e < dim) {
            float& xe = p.x[row * dim + first + e];
            float& me = p.m[row * dim + first + e];
            bad = bad || outside(xe);
            input[e] = now.input_scale * xe;
            float next = math::fma(now.x_m, me, now.x_x * xe);
            if (now.x_z != 0) next = math::fma(now.x_z, z[e], next);
            me = math::fma(now.m_m, me, now.m_x * xe);
            xe = next;
          }
        }
        forward.input(ctx, state, row, first, input);
      }
      if (s > 0) note(ctx, p, row, at, bad, s - 1);
    });
  }

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    unsigned char* const memory = ctx.template dynamic_shared<unsigned char>();
    const int dim = net.layer[0].in;
    const Index first = Index{ctx.block()} * kRows;
    Particles p;
    p.x = reinterpret_cast<float*>(memory + forward.shared_bytes());
    p.m = p.x + kRows * dim;
    p.diverged = reinterpret_cast<int*>(p.m + kRows * dim);
    p.steps = reinterpret_cast<ChainStep*>(p.diverged + kRows);
    typename Forward::State state = forward.begin(ctx, memory, steps);
    over_rows(ctx, [&](int row, int at, bool) {
      for (int column = 4 * at; row < kRows && column < dim; column += 4 * lanes) {
        for (int e = 0; e < 4 && column + e < dim; ++e) {
          const bool there = first + row < batch;
          const Index from = (first + row) * dim + column + e;
          p.x[row * dim + column + e] = there ? x[from] : 0.0f;
          p.m[row * dim + column + e] = there && m != nullptr ? m[from] : 0.0f;
        }
      }
      if (at == 0 && row < kRows) p.diverged[row] = steps;
    });
    float z[4] = {};
    for (int s = 0; s < steps; ++s) {
      if (s % kWindow == 0) {  // every thread has left the window's last step behind it: a step ends with a barrier
        const int count = steps - s < kWindow + 1 ? steps - s : kWindow + 1;
        for (int i = ctx.thread(); i < count; i += kThreads) p.steps[i] = step[s + i];
        ctx.sync();
        if (s == 0) draw_ahead(ctx, p.steps[0], z);
      }
      prepare(ctx, state, p, s, z);
      const ChainStep& now = p.steps[s % kWindow];
      const int level = now.level;
      const float x_f = now.x_f, m_f = now.m_f;
      forward.run(
          ctx, state, [&](int) { return level; },
          [&](int row, int column, float f) {
            float& x_next = p.x[row * dim + column];
            float& m_next = p.m[row * dim + column];
            x_next = math::fma(x_f, f, x_next);
            m_next = math::fma(m_f, f, m_next);
          },
          [&] {
            if (s + 1 < steps) draw_ahead(ctx, p.steps[s % kWindow + 1], z);
          });
      ctx.sync();
    }
    over_rows(ctx, [&](int row, int at, bool) {
      bool bad = false;
      for (int column = 4 * at; row < kRows && column < dim; column += 4 * lanes) {
        for (int e = 0; e < 4 && column + e < dim; ++e) {
          const float value = p.x[row * dim + column + e];
          const Index to = (first + row) * dim + column + e;
          bad = bad || outside(value);
          if (first + row < batch) {
            x[to] = value;
            if (m != nullptr) m[to] = p.m[row * dim + column + e];
          }
        }
      }
      if (steps > 0) note(ctx, p, row, at, bad, steps - 1);
      if (at == 0 && first + row < batch && row < kRows) diverged[first + row] = p.diverged[row];
    });
  }
};

// ---- launchers ----

inline void check_sample_chain(const char* name, const ChainInput& k) {
  check_mlp(name, k.net);
  const int dim = k.net.layer[0].in;
  check(k.net.layer[k.net.layers - 1].out == dim, name, ": the network gives ", k.net.layer[k.net.layers - 1].out,
        " columns for rows of ", dim, "; a score has the data's");
  check(dim <= 1 << 22, name, ": D = ", dim, " leaves the counter's 2^22 columns");
  check(k.batch >= 0 && k.batch < Index{1} << 31, name, ": B = ", k.batch, " rows; it lies in [0, 2^31), cut the batch");
  check(k.steps >= 0, name, ": steps = ", k.steps, " is negative");
  constexpr std::uint64_t kRows = std::uint64_t{1} << 44;
  check(k.first_row < kRows && static_cast<std::uint64_t>(k.batch) <= kRows - k.first_row, name, ": rows from ", k.first_row,
        " on leave [0, 2^44); start at row 0 with other draws");
  check(k.bound >= 0, name, ": bound = ", k.bound, "; pass infinity for none");
  check(k.batch == 0 || (k.x != nullptr && k.diverged != nullptr && (k.steps == 0 || k.step != nullptr)), name,
        ": x, diverged or step is a null pointer; only m may be one");
}

/// The chain by one forward; `forward` has been sized to fit.
template <class Forward, class Launch>
void launch_chain(Launch&& launch, const ChainInput& k, const Forward& forward) {
  int lanes = 1;
  while (lanes < 32 && lanes * 4 < k.net.layer[0].in) lanes *= 2;
  const SampleChain<Forward> body{k, forward, lanes};
  const Index grid = (k.batch + Forward::kRows - 1) / Forward::kRows;
  if (grid > 0) launch("sample_chain", static_cast<int>(grid), Forward::kThreads, static_cast<int>(body.shared_bytes()), body);
}

/// One tile; false, and nothing launched, where it does not fit. sample_chain chooses.
template <class Tile, Precision P, class Launch>
bool sample_chain_blocks(Launch&& launch, const ChainInput& k, const PackedMlp& packed, const Resources& resources) {
  using Forward = BlockForward<Tile, P>;
  const Forward forward = Forward::make(k.net, packed);
  if (forward.shared_bytes() + SampleChain<Forward>::state_bytes(k.net.layer[0].in) > resources.shared_bytes) return false;
  launch_chain(launch, k, forward);
  return true;
}
template <int Tiles, Precision P, class Launch>
bool sample_chain_warps(Launch&& launch, const ChainInput& k, const PackedMlp& packed, const Resources& resources) {
  using Forward = WarpForward<Tiles, P>;
  const int width = check_mlp("cuda::sample_chain", k.net);
  const Index state = SampleChain<Forward>::state_bytes(k.net.layer[0].in);
  const int slots = Forward::slots_in(k.net, width, resources.shared_bytes - state);
  if (slots < Forward::kRing) return false;
  launch_chain(launch, k, Forward{k.net, packed, MlpUnit<P>::ld(width), slots});
  return true;
}

template <Precision P, class Launch>
void sample_chain(Launch&& launch, const ChainInput& k, const Resources& resources) {
  const int width = check_mlp("cuda::sample_chain", k.net), sms = resources.multiprocessors;
  if (k.batch == 0) return;
  const PackedMlp packed = pack_mlp<P>("cuda::sample_chain", launch, k.net, resources);
  const bool narrow = width <= 64;  // several blocks share an SM
  // Few particles: few a block, so that all SMs have some (docs/kernel_ladder.md); then the largest tile that fits.
  if (k.batch <= Index{P == Precision::bf16 ? 8 : 4} * sms && sample_chain_warps<1, P>(launch, k, packed, resources)) return;
  if (k.batch <= Index{narrow ? 64 : 16} * sms && sample_chain_warps<2, P>(launch, k, packed, resources)) return;
  if (narrow && sample_chain_blocks<BlockTileNarrow, P>(launch, k, packed, resources)) return;
  if (k.batch > Index{64} * sms && sample_chain_blocks<BlockTile128, P>(launch, k, packed, resources)) return;
  if (sample_chain_blocks<BlockTile64, P>(launch, k, packed, resources)) return;
  if (sample_chain_blocks<BlockTile32, P>(launch, k, packed, resources)) return;
  if (sample_chain_warps<2, P>(launch, k, packed, resources)) return;
  if (sample_chain_warps<1, P>(launch, k, packed, resources)) return;
  fail<UsageError>("cuda::sample_chain: width ", width, " with D = ", k.net.layer[0].in, " in ", name(P), " does not fit ",
                   resources.shared_bytes, " bytes of shared memory; step with mlp_forward and normals instead, or in bf16");
}

/// Bytes of scratch memory that sample_chain needs.
inline Index sample_chain_scratch_bytes(const Mlp& net, Precision precision) {
  check_mlp("cuda::sample_chain_scratch_bytes", net);
  return with_precision(precision, [&](auto p) { return packed_mlp_bytes<p.value>(net); });
}

/// Whether sample_chain takes a network of these layers where a block has `shared_bytes` of shared memory.
inline bool takes_sample_chain(const Mlp& net, Precision precision, int shared_bytes = kMaxSharedBytes) {
  const int width = check_mlp("cuda::takes_sample_chain", net), dim = net.layer[0].in;
  if (net.layer[net.layers - 1].out != dim || dim > 1 << 22) return false;
  return with_precision(precision, [&](auto p) {
    using Warps = WarpForward<1, p.value>;
    using Blocks = BlockForward<BlockTile32, p.value>;
    return Warps::slots_in(net, width, shared_bytes - SampleChain<Warps>::state_bytes(dim)) >= Warps::kRing ||
           Blocks::make(net, {}).shared_bytes() + SampleChain<Blocks>::state_bytes(dim) <= shared_bytes;
  });
}

/// All steps for all rows in one launch, after one that packs the weights; fp32 means three tf32 products of split operands.
/// Errors of F by precision: mlp_forward.h. Throws UsageError for shapes, pointers, scratch memory that do not fit.
template <class Launch>
void sample_chain(Launch&& launch, const ChainInput& k, Precision precision, const Resources& resources) {
  check_sample_chain("cuda::sample_chain", k);
  with_precision(precision, [&](auto p) { sample_chain<p.value>(launch, k, resources); });
}

}  // namespace tweedie::kernels::cuda
