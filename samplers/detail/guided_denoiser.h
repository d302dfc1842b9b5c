// guided_denoiser.h - E[x0 | x] pulled towards a linear observation; the formulas are in posterior.h.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/posterior.h"

namespace tweedie::detail {

/// The guidance of one chunk of rows. Every product is summed row by row, so that a row's bits do not depend on its chunk.
class GuidedDenoiser {
 public:
  GuidedDenoiser(Chunk<double>& chunk, const LinearObservation& observation, ConstRows<double> y,
                 const PosteriorOptions& options);

  /// x0 (n, D) for the chunk's rows at x; pigdm and mmps guide it. x0 overlaps nothing.
  void denoise(ConstRows<double> x, double sigma, Rows<double> x0);
  /// dps: shift = -zeta grad_x |y - A x0|, x0 what denoise gave at x; 0 where x0 fits exactly.
  void dps_shift(ConstRows<double> x, double sigma, ConstRows<double> x0, Rows<double> shift);

 private:
  void mean(ConstRows<double> x, double sigma, ConstRows<double> score, Rows<double> x0) const;
  void residual(ConstRows<double> x0);                                                       // residual_ = y - A x0
  void adjoint(ConstRows<double> u, Rows<double> v) const;                                   // v = A^T u, row by row
  void pull_back(ConstRows<double> x, double sigma, ConstRows<double> v, Rows<double> out);  // out = J^T v
  void pigdm(ConstRows<double> x, double sigma, Rows<double> x0);
  void mmps_direct(ConstRows<double> x, double sigma, Rows<double> x0);
  void mmps_conjugate_gradients(ConstRows<double> x, double sigma, Rows<double> x0);

  Chunk<double>& chunk_;
  const LinearObservation& observation_;
  ConstRows<double> y_;  // (n / draws, M) of the whole run
  const PosteriorOptions& options_;
  MatrixD residual_, solution_;    // (rows, M)
  MatrixD direction_, image_;      // (rows, D) what J^T is applied to, and the result
  std::vector<MatrixD> jacobian_;  // M times (rows, D): J^T A_m^T
};

}  // namespace tweedie::detail
