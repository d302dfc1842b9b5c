// elementwise.h - normals, sampling steps, DSM perturbation and AdamW + EMA: one thread an element (or four), grid-stride loops.
//
//   normals           z(r, 4b .. 4b + 3) = Philox(key, purpose, step, row r, block b) by Box-Muller; bits of core/normals.h
//   langevin_update   x += drift score + noise z                                        [Song & Ermon 2019, Algorithm 1]
//   chain_update      x' = x_x x + x_f f + x_m m + x_z z,  m' = m_x x + m_f f + m_m m: a ChainStep (inputs.h) whose f and z are
//   there dsm_perturb       x(b, :) = x0(b, :) + sigma(b) eps(b, :)                            [Vincent 2011] adam_ema
//   kernels.h's equation                                              Reference: kernels/reference/
//
// Predicted floors on an H200 (4.3 TB/s copy; docs of a measured GPU run do not exist): langevin 16 bytes an element (3 read, 1
// written), 2^20 x 2 elements: 33.6 MB, 7.8 us; chain_update the same without memory, 24 bytes with, 11.7 us; dsm_perturb 12
// bytes, 5.9 us; adam_ema 36 bytes a parameter (5 read, 4 written):
// 200 k parameters 7.2 MB, 1.7 us, less than a launch; normals 4 bytes written, some 60 integer and 40 float instructions a pair.
// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include "tweedie/core/check.h"
#include "tweedie/core/normals.h"
#include "tweedie/core/philox.h"
#include "tweedie/kernels/cuda/inputs.h"
#include "tweedie/kernels/cuda/ptx.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/kernels/math.h"

namespace tweedie::kernels::cuda {

inline constexpr int kThreads = 256;
inline constexpr Index kBlocks = 132 * 8;  // fills an H200; the loops stride over the rest

inline int blocks_for(Index work) {
  return static_cast<int>(work < kThreads * kBlocks ? (work + kThreads - 1) / kThreads : kBlocks);
}

/// visit(i) for this thread's share of [0, n).
template <class Ctx, class Visit>
TWEEDIE_KERNEL void grid_stride(Ctx& ctx, Index n, Visit visit) {
  const Index stride = Index{ctx.grid_size()} * ctx.block_size();
  for (Index i = Index{ctx.block()} * ctx.block_size() + ctx.thread(); i < n; i += stride) visit(i);
}

struct Normals {
  std::uint64_t key;
  Purpose purpose;
  std::uint32_t step, sub_draw;
  std::uint64_t first_row;
  Index rows, dim;
  float* z;  // (rows, dim)

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    const Index blocks = (dim + 3) / 4;
    grid_stride(ctx, rows * blocks, [&](Index i) {
      const Index row = i / blocks, first = i % blocks * 4;
      const PhiloxWords w = philox4x32(philox_counter(purpose, step, first_row + static_cast<std::uint64_t>(row),
                                                      static_cast<std::uint32_t>(i % blocks), sub_draw),
                                       key);
      float draw[4];
      tweedie::detail::normal_pair(w.v[0], w.v[1], draw[0], draw[1]);
      tweedie::detail::normal_pair(w.v[2], w.v[3], draw[2], draw[3]);
      for (Index k = 0; k < 4 && first + k < dim; ++k) z[row * dim + first + k] = draw[k];
    });
  }
};

struct LangevinUpdate {
  Index n;
  float drift, noise;
  const float *score, *z;
  float* x;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    grid_stride(ctx, n, [&](Index i) { x[i] = math::fma(noise, z[i], math::fma(drift, score[i], x[i])); });
  }
};

struct ChainUpdateInput {
  Index n;
  ChainStep step;      // its level, input_scale and draw are not read
  const float *f, *z;  // (n); z nullptr: none
  float *x, *m;        // (n), in place; m nullptr: none
};

/// Error: 4 u of the terms' magnitudes for x, 3 u for m. f comes last: sample_chain has the same bits.
TWEEDIE_MATH void chain_update_one(const ChainStep& s, float f, float z, float& x, float& m) {
  const float before = x;
  x = math::fma(s.x_f, f, math::fma(s.x_z, z, math::fma(s.x_m, m, s.x_x * before)));
  m = math::fma(s.m_f, f, math::fma(s.m_m, m, s.m_x * before));
}

/// A thread an element.
struct ChainUpdateNaive : ChainUpdateInput {
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    grid_stride(ctx, n, [&](Index i) {
      float memory = m == nullptr ? 0 : m[i];
      chain_update_one(step, f[i], z == nullptr ? 0 : z[i], x[i], memory);
      if (m != nullptr) m[i] = memory;
    });
  }
};

/// A thread four elements, by 16 bytes: all pointers are multiples of that. The same bits.
struct ChainUpdate : ChainUpdateInput {
  struct alignas(16) Quad {
    float v[4] = {};
  };

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    grid_stride(ctx, n / 4, [&](Index i) {
      const auto load = [i](const float* from) { return from == nullptr ? Quad{} : reinterpret_cast<const Quad*>(from)[i]; };
      const Quad slope = load(f), noise = load(z);
      Quad state = load(x), memory = load(m);
      TWEEDIE_UNROLL
      for (int e = 0; e < 4; ++e) chain_update_one(step, slope.v[e], noise.v[e], state.v[e], memory.v[e]);
      reinterpret_cast<Quad*>(x)[i] = state;
      if (m != nullptr) reinterpret_cast<Quad*>(m)[i] = memory;
    });
    if (const Index i = n / 4 * 4 + ctx.thread(); ctx.block() == 0 && i < n) {
      float memory = m == nullptr ? 0 : m[i];
      chain_update_one(step, f[i], z == nullptr ? 0 : z[i], x[i], memory);
      if (m != nullptr) m[i] = memory;
    }
  }
};

struct DsmPerturb {
  Index batch, dim;
  const float *x0, *sigma, *eps;
  float* x;

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    grid_stride(ctx, batch * dim, [&](Index i) { x[i] = math::fma(sigma[i / dim], eps[i], x0[i]); });
  }
};

struct AdamEma {
  Index n;
  float gradient_scale, one_minus_beta1, one_minus_beta2, decay, learning_rate, c1, c2, epsilon, one_minus_ema;
  const float* gradient;
  float *p, *m, *v, *ema;  // ema may be nullptr

  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx& ctx) const {
    grid_stride(ctx, n, [&](Index i) {
      const float g = gradient_scale * gradient[i];
      const float mi = math::fma(one_minus_beta1, g - m[i], m[i]);
      const float vi = math::fma(one_minus_beta2, g * g - v[i], v[i]);
      float pi = math::fma(-decay, p[i], p[i]);
      pi -= learning_rate * (mi / c1) / (math::sqrt(vi / c2) + epsilon);
      m[i] = mi, v[i] = vi, p[i] = pi;
      if (ema != nullptr) ema[i] = math::fma(one_minus_ema, pi - ema[i], ema[i]);
    });
  }
};

// ---- launchers: launch(name, grid, block, shared bytes, body); nothing is launched for no elements ----

template <class Launch>
void normals(Launch&& launch, const Normals& k) {
  check(k.rows >= 0 && k.dim >= 0, "cuda::normals: rows = ", k.rows, ", dim = ", k.dim, "; sizes must not be negative");
  check(k.dim <= Index{1} << 22 && k.sub_draw < 1U << 24, "cuda::normals: dim = ", k.dim, " or sub_draw = ", k.sub_draw,
        " does not fit the counter (2^22 columns, sub_draw below 2^24)");
  constexpr std::uint64_t kRows = std::uint64_t{1} << 44;
  check(k.first_row < kRows && static_cast<std::uint64_t>(k.rows) <= kRows - k.first_row, "cuda::normals: rows from ",
        k.first_row, " on leave [0, 2^44); start at row 0 with another step");
  const Index work = k.rows * ((k.dim + 3) / 4);
  if (work > 0) launch("normals", blocks_for(work), kThreads, 0, k);
}

template <class Launch>
void langevin_update(Launch&& launch, const LangevinUpdate& k) {
  check(k.n >= 0, "cuda::langevin_update: n = ", k.n, " is negative");
  if (k.n > 0) launch("langevin_update", blocks_for(k.n), kThreads, 0, k);
}

template <class Launch>
void chain_update(Launch&& launch, const ChainUpdateInput& k) {
  check(k.n >= 0, "cuda::chain_update: n = ", k.n, " is negative");
  check(k.n == 0 || (k.f != nullptr && k.x != nullptr), "cuda::chain_update: f or x is a null pointer; only z and m may be one");
  check(k.n == 0 || k.z != nullptr || k.step.x_z == 0, "cuda::chain_update: x_z = ", k.step.x_z, " without normals; pass z");
  check(k.n == 0 || k.m != nullptr || k.step.x_m == 0, "cuda::chain_update: x_m = ", k.step.x_m, " without a memory; pass m");
  bool vectors = true;
  for (const float* p : {k.f, k.z, static_cast<const float*>(k.x), static_cast<const float*>(k.m)}) {
    vectors = vectors && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
  }
  if (k.n > 0 && vectors) launch("chain_update", blocks_for((k.n + 3) / 4), kThreads, 0, ChainUpdate{k});
  if (k.n > 0 && !vectors) launch("chain_update_naive", blocks_for(k.n), kThreads, 0, ChainUpdateNaive{k});
}

template <class Launch>
void dsm_perturb(Launch&& launch, const DsmPerturb& k) {
  check(k.batch >= 0 && k.dim >= 0, "cuda::dsm_perturb: batch = ", k.batch, ", dim = ", k.dim, "; sizes must not be negative");
  if (k.batch * k.dim > 0) launch("dsm_perturb", blocks_for(k.batch * k.dim), kThreads, 0, k);
}

template <class Launch>
void adam_ema(Launch&& launch, const AdamStep& o, Index n, const float* gradient, float* p, float* m, float* v, float* ema) {
  check(n >= 0, "cuda::adam_ema: n = ", n, " is negative");
  check(o.step >= 1, "cuda::adam_ema: step = ", o.step, "; steps are counted from 1");
  check(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "cuda::adam_ema: beta1 = ", o.beta1, ", beta2 = ", o.beta2,
        "; both lie in [0, 1)");
  const auto narrow = [](double x) { return static_cast<float>(x); };
  const double t = static_cast<double>(o.step);
  const AdamEma k = {n,
                     narrow(o.gradient_scale),
                     narrow(1 - o.beta1),
                     narrow(1 - o.beta2),
                     narrow(o.learning_rate * o.weight_decay),
                     narrow(o.learning_rate),
                     narrow(1 - std::pow(o.beta1, t)),
                     narrow(1 - std::pow(o.beta2, t)),
                     narrow(o.epsilon),
                     narrow(1 - o.ema_decay),
                     gradient,
                     p,
                     m,
                     v,
                     ema};
  if (n > 0) launch("adam_ema", blocks_for(n), kThreads, 0, k);
}

}  // namespace tweedie::kernels::cuda
