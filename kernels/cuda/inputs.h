// inputs.h - what the device's larger kernels are given: plain structs of device pointers and sizes.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "tweedie/core/philox.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels::cuda {

/// One evaluation of a perceptron F and what becomes of the state x and of the memory m, both (B, D), F (B, D):
///   f = F(input_scale x, level);   x' = x_x x + x_f f + x_m m + x_z z;   m' = m_x x + m_f f + m_m m     (old x on the right)
/// Every sampler whose steps are linear in x, the score, an earlier score and a normal is a list of these: Langevin, ancestral
/// and reverse-SDE steps need no memory, Heun keeps x and half a slope there, DPM-Solver++ 2M the last denoiser.
struct ChainStep {
  int level;  // of the perceptron's first bias
  float input_scale;
  float x_x, x_f, x_m, x_z;
  float m_x, m_f, m_m;
  std::uint32_t draw;  // z is draw (purpose, draw, row) of the stream; not drawn where x_z = 0
};

struct ChainInput {
  Mlp net;  // outputs = D; its scale is not read: it stands in the steps
  Index batch;
  int steps;
  const ChainStep* step;  // (steps)
  Purpose purpose;
  std::uint64_t key;
  std::uint64_t first_row;
  float* x;       // (B, D), in place
  float* m;       // (B, D), in place; nullptr: starts at 0 and is not kept
  float bound;    // |x| beyond it, or NaN, has diverged
  int* diverged;  // (B): the first step, counted from 0, at which the row had diverged, `steps` where it never did
};

/// A perceptron in double, as Mlp is in float.
struct MlpLayerD {
  const double* weight;  // (out, in)
  const double* bias;    // (out); of the first layer (levels, out)
  int in, out;
};
struct MlpD {
  int layers = 0, levels = 1;
  MlpLayerD layer[Mlp::kMaxLayers] = {};
};

/// out (B, D) = F(x), and of its Jacobian J(b) = dF(x_b)/dx_b, all in double: with `probe` (B, D) jvp (B, D) = J probe; without
/// divergence (B) = tr J, exact, by D tangents.
struct MlpDivergenceInput {
  MlpD net;
  Index batch;
  const double* x;      // (B, D)
  const int* level;     // (B), or nullptr: row b has the first bias min(b, levels - 1)
  const double* probe;  // (B, D), or nullptr
  double* out;          // (B, D)
  double* jvp;          // (B, D) with a probe
  double* divergence;   // (B) without
};

}  // namespace tweedie::kernels::cuda
