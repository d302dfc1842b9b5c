// simt_testing.h - what the tests of device kernels share: launching on the host, networks of random weights.
// SPDX-License-Identifier: MIT
#pragma once

#include "kernels_testing.h"
#include "tweedie/kernels/cuda/mlp_forward.h"
#include "tweedie/kernels/simt/executor.h"

namespace tweedie::kernels::testing {

inline constexpr double kU = kUnit<float>;

inline auto host(simt::Order order) {
  return [order](const char* name, int grid, int block, int shared, const auto& body) {
    simt::launch(name, {grid, block, shared}, order, body);
  };
}

/// sizes: D, widths, outputs. skew > 0: weights start at addresses that are no multiple of 16 bytes.
struct TestNet {
  explicit TestNet(const std::vector<int>& sizes, int levels, int skew = 0) : scale(uniform<float>(levels, 99)) {
    net.layers = static_cast<int>(sizes.size()) - 1;
    net.levels = levels;
    net.scale = scale.data();
    for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
      const int in = sizes[i], out = sizes[i + 1];
      weights.push_back(uniform<float>(Index{in} * out + skew, 2 * i + 1));
      for (float& w : weights.back()) w *= 2 / std::sqrt(static_cast<float>(in));
      biases.push_back(uniform<float>(Index{out} * (i == 0 ? levels : 1), 2 * i + 2));
      net.layer[i] = {weights.back().data() + skew, biases.back().data(), in, out};
    }
  }

  std::vector<float> scale;
  std::vector<std::vector<float>> weights, biases;
  Mlp net;
};

}  // namespace tweedie::kernels::testing
