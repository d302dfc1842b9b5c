// simt_gradient_testing.h - a device gradient on the host, for the bounds of mlp_gradient_testing.h.
// SPDX-License-Identifier: MIT
#pragma once

#include "mlp_gradient_testing.h"
#include "simt_testing.h"
#include "tweedie/kernels/cuda/mlp_gradient_naive.h"

namespace tweedie::kernels::testing {
namespace device_gradient {

// silu' = s + y (1 - s): s by ex2 and rcp, within 6 u and x^2 s (1 - s) <= .44 u of its argument's rounding; y three more.
inline constexpr GradientPrecision kFp32{0, 1, .5, 20}, kTf32{0x1p-10 + 0x1p-22, .125, .5, 20}, kTf32x3{0x3.01p-22, .375, .5, 20},
    kBf16{0x1p-7 + 0x1p-15, .125, .5, 20};

}  // namespace device_gradient

/// losses (B), then every layer's dW and db; rows of dW with a gap of one number that stays as it was.
/// right: whether that and the losses by level are.
template <class Launch, class Gradient>
std::vector<float> gradient_of(const Problem& p, Launch launch, Gradient gradient, Index floats, bool& right) {
  const Mlp& net = p.t.net;
  std::vector<float> losses(static_cast<std::size_t>(p.batch), kNaN<float>);
  std::vector<std::vector<float>> dw, db;
  MlpGradient to;
  for (int i = 0; i < net.layers; ++i) {
    const MlpLayer& layer = net.layer[i];
    dw.emplace_back(static_cast<std::size_t>(layer.out * (layer.in + 1)), 5.f);
    db.emplace_back(static_cast<std::size_t>(layer.out * (i == 0 ? net.levels : 1)), kNaN<float>);
    to.weight[i] = dw.back().data(), to.stride[i] = layer.in + 1, to.bias[i] = db.back().data();
  }
  std::vector<double> level_losses(static_cast<std::size_t>(2 * net.levels), kNaN<double>);
  std::vector<float> workspace(static_cast<std::size_t>(floats) + 4, kNaN<float>);
  float* aligned = workspace.data();
  while (reinterpret_cast<std::uintptr_t>(aligned) % 16 != 0) ++aligned;
  gradient(launch, cuda::MlpGradientInput{net, p.rows(false), losses.data(), to, level_losses.data(), aligned});
  for (int l = 0; l < net.levels; ++l) {
    double sum = 0, count = 0;
    for (std::size_t b = 0; b < losses.size(); ++b) {
      if (p.level[b] == l) sum += static_cast<double>(losses[b]), ++count;
    }
    right = right && std::fabs(level_losses[static_cast<std::size_t>(2 * l)] - sum) <= 0x1p-40 * sum;
    right = right && level_losses[static_cast<std::size_t>(2 * l + 1)] == count;
  }
  std::vector<float> all = losses;
  for (std::size_t i = 0; i < dw.size(); ++i) {
    const auto in = static_cast<std::size_t>(net.layer[i].in);
    for (std::size_t n = 0; n < dw[i].size(); n += in + 1) {
      all.insert(all.end(), dw[i].begin() + static_cast<Index>(n), dw[i].begin() + static_cast<Index>(n + in));
      right = right && dw[i][n + in] == 5.f;
    }
    all.insert(all.end(), db[i].begin(), db[i].end());
  }
  return all;
}

}  // namespace tweedie::kernels::testing
