// sample_chain_sm90.h - a sampler's whole chain in one launch by wgmma: 128 particles stay in a block for all steps.
//
//   for each step:   f = F(input_scale x, level);   x' = x_x x + x_f f + x_m m + x_z z;   m' = m_x x + m_f f + m_m m
//   x, m (B, D)   F the network in bf16 (mlp_forward_sm90.h)       steps: inputs.h, for Langevin [Song & Ermon 2019, Algorithm 1]
//
// Before F  x becomes x_x x + x_m m + x_z z and m becomes m_x x + m_m m, a product and an fma a term in this order; after F both
// take their term of f by one fma more. z of row i is the draw (purpose, step.draw, first_row + i) of the stream `key`: the
// host's bits. A row has the bits of the same steps taken by mlp_forward_sm90 and normals one after the other,
// whatever the cut into batches. A row that has diverged goes on, and disturbs no other. A warp owns its 16 rows from the first
// step to the last, so that warps meet at the ring and the turns alone; the producer's other three warps draw the next step's
// normals. Predicted times: docs/kernel_ladder.md. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"
#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"
#include "tweedie/kernels/cuda/sample_chain.h"

namespace tweedie::kernels::cuda {

template <int Width>
struct SampleChainSm90 : ChainInput {
  using Tile = Sm90Tile<Width>;
  static constexpr int kCluster = Tile::kCluster, kThreads = Tile::kThreads;
  const unsigned char* packed;

  static Index shared_bytes(int dim) { return Tile::kSharedBytes + Index{4} * Tile::kRows * (4 * dim + 1); }

  /// Of the block's rows; a warp touches its own.
  struct Particles {
    float* first;
    int dim;
    TWEEDIE_KERNEL float& x(int row, int i) const { return first[row * dim + i]; }
    TWEEDIE_KERNEL float& m(int row, int i) const { return first[(Tile::kRows + row) * dim + i]; }
    TWEEDIE_KERNEL float& input(int row, int i) const { return first[(2 * Tile::kRows + row) * dim + i]; }
    TWEEDIE_KERNEL float& z(int row, int i) const { return first[(3 * Tile::kRows + row) * dim + i]; }
    TWEEDIE_KERNEL int& diverged(int row) const { return reinterpret_cast<int*>(first + 4 * Tile::kRows * dim)[row]; }
  };

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    Sm90Block<Width> block;
    block.set_up(ctx);
    if (ctx.thread() >= 128 * Tile::kConsumers) {
      ctx.template decrease_registers<48>();
      if (ctx.thread() == 128 * Tile::kConsumers) block.produce(ctx, net, packed, steps);
      if (ctx.thread() >= 128 * Tile::kConsumers + 32) draw(ctx, block);
    } else {
      ctx.template increase_registers<224>();
      run(ctx, block);
    }
    block.tear_down(ctx);
  }

 private:
  /// visit(row, first) for this warp's rows by 4 columns from `first` on: an element is always the same thread's.
  template <class Ctx, class Visit>
  TWEEDIE_KERNEL void over_rows(Ctx& ctx, Visit visit) const {
    const int quads = (net.layer[0].in + 3) / 4;
    for (int i = ctx.lane(); i < 16 * quads; i += 32) visit(ctx.thread() / 32 * 16 + i / quads, i % quads * 4);
  }
  TWEEDIE_KERNEL void note(const Particles& p, int row, float value, int at) const {
    if (!(value <= bound && value >= -bound) && p.diverged(row) == steps) p.diverged(row) = at;  // several threads, one value
  }

  TWEEDIE_KERNEL Particles particles(const Sm90Block<Width>& block) const {
    return {reinterpret_cast<float*>(block.memory + Tile::kSharedBytes), net.layer[0].in};
  }

  /// The normals of each step that takes any, by the producer's other three warps, as soon as the last ones have been taken.
  template <class Ctx>
  TWEEDIE_KERNEL void draw(Ctx& ctx, const Sm90Block<Width>& block) const {
    const Particles p = particles(block);
    const int quads = (p.dim + 3) / 4;
    unsigned parity = 1;
    for (int s = 0; s < steps; ++s) {
      if (step[s].x_z == 0) continue;
      ctx.barrier_wait(block.taken(), parity);
      parity ^= 1U;
      for (int i = ctx.thread() - 128 * Tile::kConsumers - 32; i < Tile::kRows * quads; i += 96) {
        const int row = i / quads, first = i % quads * 4;
        const std::uint64_t at =
            first_row + static_cast<std::uint64_t>(ctx.block()) * Tile::kRows + static_cast<std::uint64_t>(row);
        const PhiloxWords w =
            philox4x32(philox_counter(purpose, step[s].draw, at, static_cast<std::uint32_t>(first / 4), 0), key);
        float z[4];
        tweedie::detail::normal_pair(w.v[0], w.v[1], z[0], z[1]);
        tweedie::detail::normal_pair(w.v[2], w.v[3], z[2], z[3]);
        TWEEDIE_UNROLL
        for (int e = 0; e < 4; ++e) {
          if (first + e < p.dim) p.z(row, first + e) = z[e];
        }
      }
      ctx.sync_warp();
      if (ctx.lane() == 0) ctx.barrier_arrive(block.prepared());
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL void run(Ctx& ctx, Sm90Block<Width>& block) const {
    const int dim = net.layer[0].in;
    const Particles p = particles(block);
    const Index first_of_block = Index{ctx.block()} * Tile::kRows;
    over_rows(ctx, [&](int row, int first) {
      for (int i = first; i < first + 4 && i < dim; ++i) {
        const bool there = first_of_block + row < batch;
        p.x(row, i) = there ? x[(first_of_block + row) * dim + i] : 0.0f;
        p.m(row, i) = there && m != nullptr ? m[(first_of_block + row) * dim + i] : 0.0f;
      }
      if (first == 0) p.diverged(row) = steps;
    });
    ctx.sync_warp();
    unsigned parity = 0;
    for (int s = 0; s < steps; ++s) {
      const bool noisy = step[s].x_z != 0;
      if (noisy) ctx.barrier_wait(block.prepared(), parity);
      prepare(ctx, p, s);
      ctx.sync_warp();
      if (noisy) {
        if (ctx.lane() == 0) ctx.barrier_arrive(block.taken());
        parity ^= 1U;
      }
      advance(ctx, block, p, step[s]);
      ctx.sync_warp();
    }
    over_rows(ctx, [&](int row, int first) {
      for (int i = first; i < first + 4 && i < dim; ++i) {
        if (steps > 0) note(p, row, p.x(row, i), steps - 1);
        if (first_of_block + row >= batch) continue;
        x[(first_of_block + row) * dim + i] = p.x(row, i);
        if (m != nullptr) m[(first_of_block + row) * dim + i] = p.m(row, i);
      }
    });
    ctx.sync_warp();
    over_rows(ctx, [&](int row, int first) {
      if (first == 0 && first_of_block + row < batch) diverged[first_of_block + row] = p.diverged(row);
    });
  }

  /// The half of step s before the network, and whether the step before left the bound.
  template <class Ctx>
  TWEEDIE_KERNEL void prepare(Ctx& ctx, const Particles& p, int s) const {
    const ChainStep& now = step[s];
    const int dim = net.layer[0].in;
    over_rows(ctx, [&](int row, int first) {
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) {
        if (first + e >= dim) continue;
        float& x_at = p.x(row, first + e);
        float& m_at = p.m(row, first + e);
        if (s > 0) note(p, row, x_at, s - 1);
        p.input(row, first + e) = now.input_scale * x_at;
        const float z = now.x_z != 0 ? p.z(row, first + e) : 0.0f;
        const float next = math::fma(now.x_z, z, math::fma(now.x_m, m_at, now.x_x * x_at));
        m_at = math::fma(now.m_m, m_at, now.m_x * x_at);
        x_at = next;
      }
    });
  }

  template <class Ctx>
  TWEEDIE_KERNEL void advance(Ctx& ctx, Sm90Block<Width>& block, const Particles& p, const ChainStep& now) const {
    const int row = sm90_row(ctx);
    const float* const last_bias = net.layer[net.layers - 1].bias;
    block.template evaluate<true>(
        ctx, net, Sm90Weights<Width>{packed}, now.level, now.level,
        [&](int i, float& x0, float& x1) { x0 = p.input(row, i), x1 = p.input(row + 8, i); },
        [&](int i, bool first, float y0, float y1) {
          take(p, now, row, i, first, first ? y0 + last_bias[i] : y0);
          take(p, now, row + 8, i, first, first ? y1 + last_bias[i] : y1);
        });
  }
  /// A part of f; the network has read its input, which holds the first of two.
  TWEEDIE_KERNEL void take(const Particles& p, const ChainStep& now, int row, int i, bool first, float f) const {
    if constexpr (Tile::kChunks == 2) {
      if (first) {
        p.input(row, i) = f;
        return;
      }
      f += p.input(row, i);
    }
    p.x(row, i) = math::fma(now.x_f, f, p.x(row, i));
    p.m(row, i) = math::fma(now.m_f, f, p.m(row, i));
  }
};

// ---- launcher ----

/// Whether the kernel takes the chain's network: as mlp_forward_sm90_serves, and the particles fit beside the ring (width 256: D
/// to 16; 384: 5; 512: 1).
inline bool sample_chain_sm90_serves(const Mlp& net) {
  if (!mlp_forward_sm90_serves(net)) return false;
  Index bytes = 0;
  with_sm90_width(net, [&](auto width) { bytes = SampleChainSm90<width()>::shared_bytes(net.layer[0].in); });
  return bytes <= kMaxSharedBytes;
}

/// All steps for all rows in one launch; `packed` by pack_mlp_sm90. Launches nothing for no rows.
template <class Launch>
void sample_chain_sm90(Launch&& launch, const ChainInput& k, const unsigned char* packed) {
  const char* const name = "cuda::sample_chain_sm90";
  check_sample_chain(name, k);
  check(sample_chain_sm90_serves(k.net), name, ": this network is not for sm_90a's kernel; use sample_chain");
  check(packed != nullptr, name, ": packed is a null pointer; pack_mlp_sm90 fills it");
  with_sm90_width(k.net, [&](auto width) {
    using Tile = Sm90Tile<width()>;
    constexpr int kClusterRows = Tile::kRows * Tile::kCluster;
    const int clusters = static_cast<int>((k.batch + kClusterRows - 1) / kClusterRows);
    if (clusters > 0) {
      launch("sample_chain_sm90", clusters * Tile::kCluster, Tile::kThreads,
             static_cast<int>(SampleChainSm90<width()>::shared_bytes(k.net.layer[0].in)), SampleChainSm90<width()>{k, packed});
    }
  });
}

}  // namespace tweedie::kernels::cuda
