// mlp_testing.h - networks of random weights, and how far a forward pass may be from the reference in double.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "kernels_testing.h"
#include "tweedie/kernels/reference/mlp_forward.h"

namespace tweedie::kernels::testing {

inline constexpr double kU = kUnit<float>;

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

struct Accuracy {
  double product;    // relative error of one product
  double roundings;  // per product, of sums: the executor rounds once per mma, that is once per eight products
  double silu = .5;  // u: silu's error beside 8 u |silu|
  double tiny = 0x1p-120;
  double argument = 0;  // silu's error relative to its argument
  double first = -1;    // relative error of a product of the first layer; below 0: as the others
};
/// How far beyond the bound `out` is, as a multiple; the bound carries each layer's errors (kernels.h; for devices
/// cuda/mlp_forward.h) to the next.
inline double beyond_bound(const TestNet& t, Index batch, const float* x, const std::vector<int>& level,
                           const std::vector<float>& out, Accuracy accuracy) {
  const Mlp& net = t.net;
  const Index outputs = net.layer[net.layers - 1].out;
  std::vector<double> expected(out.size());
  const std::vector<double> wide(x, x + batch * net.layer[0].in);
  reference::mlp_forward<double>(net, batch, wide.data(), level.data(), expected.data());
  double worst = 0;
  for (Index b = 0; b < batch; ++b) {
    const auto row = static_cast<std::size_t>(b);
    std::vector<double> h(wide.begin() + b * net.layer[0].in, wide.begin() + (b + 1) * net.layer[0].in), error(h.size());
    for (int l = 0; l < net.layers; ++l) {
      const MlpLayer& layer = net.layer[l];
      const double sums = (l == 0 && accuracy.first >= 0 ? accuracy.first : accuracy.product) +
                          (accuracy.roundings * ((layer.in + 7) / 8 * 8) + 1) * kU;
      std::vector<double> next(static_cast<std::size_t>(layer.out)), next_error(next.size());
      for (std::size_t n = 0; n < next.size(); ++n) {
        double y = layer.bias[(l == 0 ? static_cast<std::size_t>(level[row]) * next.size() : 0) + n], magnitude = 0, carried = 0;
        const double bias = std::fabs(y);
        for (std::size_t k = 0; k < h.size(); ++k) {
          const double w = layer.weight[n * h.size() + k];
          y += w * h[k], magnitude += std::fabs(w) * (std::fabs(h[k]) + error[k]), carried += std::fabs(w) * error[k];
        }
        next[n] = y, next_error[n] = carried + sums * magnitude + kU * (magnitude + bias);
        if (l + 1 < net.layers) {
          next[n] = y / (1 + std::exp(-y));
          next_error[n] = 1.1 * next_error[n] + accuracy.argument * (std::fabs(y) + next_error[n]) +
                          (8 * std::fabs(next[n]) + accuracy.silu) * 1.01 * kU + accuracy.tiny;
        }
      }
      h = next, error = next_error;
    }
    const double scale = net.scale == nullptr ? 1 : net.scale[level[row]];
    for (std::size_t n = 0; n < h.size(); ++n) {
      const std::size_t at = row * static_cast<std::size_t>(outputs) + n;
      const double miss = std::fabs(out[at] - expected[at]);
      const double allowed = std::fabs(scale) * error[n] + kU * std::fabs(expected[at]);
      if (!(miss <= allowed)) worst = std::max(worst, std::isnan(miss) ? HUGE_VAL : miss / allowed);
    }
  }
  return worst;
}

struct MlpCase {
  Index batch;
  std::vector<int> sizes;
};
/// Sizes about the tiles, one to many rows, thin and wide ends.
inline std::vector<MlpCase> mlp_cases() {
  return {{0, {2, 16, 2}},
          {1, {2, 256, 256, 256, 2}},
          {1, {1, 3, 1}},
          {1, {7, 33, 65, 130, 9}},
          {2, {2, 40, 300, 8}},
          {3, {3, 72, 72, 3}},
          {4, {2, 264, 136, 2}},
          {5, {2, 31, 32, 33, 2}},
          {6, {1, 15, 16, 17, 1}},
          {7, {5, 1, 5}},
          {8, {4, 8, 4}},
          {9, {2, 64, 64, 10}},
          {17, {100, 20, 100}},
          {63, {2, 17, 2}},
          {64, {3, 47, 12}},
          {65, {6, 24, 24, 6}},
          {131, {2, 33, 2}},
          {3, {1024, 40, 1024}},
          {2, {3, 1030, 2}},
          {5, {17, 70}},
          {1, {4, 4}},
          {70, {1, 1}},
          {1, {300, 513, 1}}};
}

/// The pass over `batch` rows of x, which have `padding` columns of NaN between them, as out has.
inline std::vector<float> forward(const TestNet& t, Index batch, const std::vector<float>& x, const int* level, Index padding = 0,
                                  Precision precision = Precision::fp32) {
  const Index in = t.net.layer[0].in, outputs = t.net.layer[t.net.layers - 1].out, ldx = in + padding, ldo = outputs + padding;
  std::vector<float> packed(static_cast<std::size_t>(packed_mlp_size(t.net, precision)), kNaN<float>);
  pack_mlp(t.net, packed.data(), precision);
  std::vector<float> spread(static_cast<std::size_t>(batch * ldx), kNaN<float>),
      wide(static_cast<std::size_t>(batch * ldo), 77.f);
  for (Index b = 0; b < batch; ++b) std::copy_n(x.begin() + b * in, in, spread.begin() + b * ldx);
  mlp_forward(t.net, packed.data(), batch, spread.data(), ldx, level, wide.data(), ldo, precision);
  std::vector<float> out(static_cast<std::size_t>(batch * outputs));
  for (Index b = 0; b < batch; ++b) {
    std::copy_n(wide.begin() + b * ldo, outputs, out.begin() + b * outputs);
    for (Index i = outputs; i < ldo; ++i) CHECK(wide[static_cast<std::size_t>(b * ldo + i)] == 77.f);
  }
  return out;
}

inline std::vector<int> levels_of(Index batch, int levels) {
  std::vector<int> level(static_cast<std::size_t>(batch));
  for (std::size_t b = 0; b < level.size(); ++b) level[b] = static_cast<int>(b * 7) % levels;
  return level;
}

}  // namespace tweedie::kernels::testing
