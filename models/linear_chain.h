// linear_chain.h - a sampler whose steps are linear, as the list that a device runs in one go (ScoreModel::run_chain).
//
//   s = s(input x, sigma);   x' = x_x x + x_s s + x_m m + x_z z;   m' = m_x x + m_s s + m_m m         (old x and m on the right)
//
// x, m, z (n, D); m is a memory beside the state: half a slope in Heun's method, the last denoiser in DPM-Solver++ 2M. z is draw
// (purpose, draw, row) of a stream, the same bits wherever it is drawn. SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <span>

#include "tweedie/core/philox.h"

namespace tweedie {

struct LinearStep {
  double sigma = 0;  // of the evaluation
  double input = 1;  // 1 / alpha in a process's own coordinates
  double x_x = 1, x_s = 0, x_m = 0, x_z = 0;
  double m_x = 0, m_s = 0, m_m = 0;
  std::uint32_t draw = 0;

  /// Whether the score counts in it.
  bool evaluates() const { return x_s != 0 || m_s != 0; }
};

struct LinearChain {
  std::span<const LinearStep> steps;
  Purpose purpose = Purpose::sde;  // of all draws
  std::uint64_t key = 0;           // of the stream
  std::uint64_t first_row = 0;     // among all rows of the stream
  double bound = 0;                // |x| beyond it, or NaN, has diverged
};

}  // namespace tweedie
