// sample_chain.h - annealed Langevin dynamics of a network in one launch: a tile of particles stays in shared memory for all
// levels and steps.
//
//   for level l, for each of its T steps:   x += drift_l s(x, l) + noise_l z,   at the end   x += denoise s(x, last)
//   x (B, D)   drift, noise (levels)   s the network's output (mlp_forward.h)     [Song & Ermon 2019, Algorithm 1]
//
// z of step t, row i is the draw (purpose langevin, step first_step + t, row first_row + i) of the stream `key`: the host's bits,
// whatever the tile and the cut into batches. So a row's result has the bits of the same steps taken by mlp_forward, normals and
// langevin_update one after the other.
//
// Ladder: those three launches a step; SampleChain.
// Predicted on an H200 (never measured), width 256, D = 2, 10 levels x 100 steps, 2^20 particles: per step mlp_forward.h's times
// (L2's weights 1.6 ms, products 0.56 ms in tf32 or 1.68 ms in tf32x3), so 1.6 to 1.7 s the chain; normals some 110 instructions
// a particle and step, 4 us. DRAM: x once in, once out, 17 MB (against 17 MB + 34 MB a step for three launches). Few particles: a
// tile's latency counts, 64 rows an SM; 8448 particles fill the card. SPDX-License-Identifier: MIT
#pragma once

#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"
#include "tweedie/kernels/cuda/mlp_forward.h"

namespace tweedie::kernels::cuda {

struct SampleChainInput {
  Mlp net;  // outputs = D
  Index batch;
  int steps;                   // T, of each level
  const float *drift, *noise;  // (levels)
  float denoise;               // sigma^2 of the last level for Tweedie's step at the end, 0 for none
  std::uint64_t key;
  std::uint32_t first_step;
  std::uint64_t first_row;
  float* x;  // (B, D), in place
};

template <class Tile, Products P>
struct SampleChain : SampleChainInput {
  int ld;

  /// One evaluation, then x (rows, dim) and the network's next input take the step.
  template <class Ctx>
  TWEEDIE_KERNEL void advance(Ctx& ctx, const MlpShared& shared, float* state, int level, float a, float b,
                              std::uint32_t step) const {
    const int dim = net.layer[0].in, quads = round_up8(dim) / 4;
    // The last layer reads one buffer of activations; the other is free to take the score.
    float* const score = net.layers % 2 == 1 ? shared.odd : shared.even;
    const float scale = net.scale == nullptr ? 1.0f : net.scale[level];
    forward_tile<Tile, P>(
        ctx, net, shared, [&](int) { return level; },
        [&](int row, int column, float y) { score[row * ld + column] = scale * y; });
    for (int i = ctx.thread(); i < Tile::kRows * quads; i += Tile::kThreads) {  // state and input belong to this thread alone
      const int row = i / quads, first = i % quads * 4;
      const Index at = Index{ctx.block()} * Tile::kRows + row;
      float z[4] = {};
      if (b != 0 && at < batch && first < dim) {
        const PhiloxWords w = philox4x32(philox_counter(Purpose::langevin, step, first_row + static_cast<std::uint64_t>(at),
                                                        static_cast<std::uint32_t>(first / 4), 0),
                                         key);
        tweedie::detail::normal_pair(w.v[0], w.v[1], z[0], z[1]);
        tweedie::detail::normal_pair(w.v[2], w.v[3], z[2], z[3]);
      }
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int column = first + e;
        float value = 0;
        if (column < dim) {
          value = math::fma(b, z[e], math::fma(a, score[row * ld + column], state[row * dim + column]));
          state[row * dim + column] = value;
        }
        shared.even[row * ld + column] = value;
      }
    }
  }

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    float* const memory = ctx.template dynamic_shared<float>();
    const MlpShared shared = {memory, memory + Tile::kRows * ld, memory + 2 * Tile::kRows * ld, ld};
    float* const state = shared.weights + 2 * Tile::kStage;  // (rows, dim)
    const Index first = Index{ctx.block()} * Tile::kRows;
    const int dim = net.layer[0].in, padded = round_up8(dim);
    const auto over_tile = [&](auto visit) {  // by quads, as in advance: an element is always the same thread's
      for (int i = ctx.thread(); i < Tile::kRows * padded / 4; i += Tile::kThreads) {
        for (int e = 0; e < 4; ++e) visit(i / (padded / 4), i % (padded / 4) * 4 + e);
      }
    };
    over_tile([&](int row, int column) {
      const float value = first + row < batch && column < dim ? x[(first + row) * dim + column] : 0.0f;
      if (column < dim) state[row * dim + column] = value;
      shared.even[row * ld + column] = value;
    });
    std::uint32_t step = first_step;
    for (int level = 0; level < net.levels; ++level) {
      for (int i = 0; i < steps; ++i) advance(ctx, shared, state, level, drift[level], noise[level], step++);
    }
    if (denoise != 0) advance(ctx, shared, state, net.levels - 1, denoise, 0, step);
    over_tile([&](int row, int column) {
      if (first + row < batch && column < dim) x[(first + row) * dim + column] = state[row * dim + column];
    });
  }
};

template <class Tile, Products P, class Launch>
void sample_chain_tiled(Launch&& launch, const SampleChainInput& k) {
  const char* const name = "cuda::sample_chain";
  const int width = check_mlp(name, k.net), dim = k.net.layer[0].in;
  check(k.net.layer[k.net.layers - 1].out == dim, name, ": the network gives ", k.net.layer[k.net.layers - 1].out,
        " columns for rows of ", dim, "; a score has the data's");
  check(k.batch >= 0 && k.batch < Index{1} << 31, name, ": B = ", k.batch, " rows; it lies in [0, 2^31), cut the batch");
  check(k.steps >= 0, name, ": steps = ", k.steps, " is negative");
  const std::uint64_t total = static_cast<std::uint64_t>(k.steps) * static_cast<std::uint64_t>(k.net.levels);
  check(total <= ~std::uint32_t{0} - k.first_step, name, ": ", total, " steps from ", k.first_step,
        " on leave the counter's 2^32");
  constexpr std::uint64_t kRows = std::uint64_t{1} << 44;
  check(k.first_row < kRows && static_cast<std::uint64_t>(k.batch) <= kRows - k.first_row, name, ": rows from ", k.first_row,
        " on leave [0, 2^44); start at row 0 with another first_step");
  check(k.batch == 0 || (k.x != nullptr && k.drift != nullptr && k.noise != nullptr), name,
        ": x, drift or noise is a null pointer");
  const Index bytes = mlp_shared_bytes<Tile>(width, dim);
  check(bytes <= kMaxSharedBytes, name, ": width ", width, " with D = ", dim, " needs ", bytes,
        " bytes of shared memory, a block has 232448; step with mlp_forward, normals and langevin_update instead");
  const int grid = static_cast<int>((k.batch + Tile::kRows - 1) / Tile::kRows);
  if (grid > 0) launch("sample_chain", grid, Tile::kThreads, static_cast<int>(bytes), SampleChain<Tile, P>{k, mlp_ld(width)});
}

template <class Launch>
void sample_chain(Launch&& launch, const SampleChainInput& k, Products products) {
  with_mlp_tile(check_mlp("cuda::sample_chain", k.net), k.net.layer[0].in, [&](auto tile) {
    using Tile = decltype(tile);
    if (products == Products::tf32) {
      sample_chain_tiled<Tile, Products::tf32>(launch, k);
    } else {
      sample_chain_tiled<Tile, Products::tf32x3>(launch, k);
    }
  });
}

}  // namespace tweedie::kernels::cuda
