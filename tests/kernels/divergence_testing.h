// divergence_testing.h - how far a perceptron's Jacobian, computed in double, may be from the reference in long double.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "kernels_testing.h"
#include "tweedie/kernels/reference/mlp_divergence.h"

namespace tweedie::kernels::testing {

/// sizes: D, widths, D. skew > 0: weights start at addresses that are no multiple of 16 bytes.
struct TestNetD {
  explicit TestNetD(const std::vector<int>& sizes, int levels, int skew = 0) {
    net.layers = static_cast<int>(sizes.size()) - 1;
    net.levels = levels;
    for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
      const int in = sizes[i], out = sizes[i + 1];
      weights.push_back(uniform<double>(Index{in} * out + skew, 2 * i + 1));
      for (double& w : weights.back()) w *= 2 / std::sqrt(static_cast<double>(in));
      biases.push_back(uniform<double>(Index{out} * (i == 0 ? levels : 1), 2 * i + 2));
      net.layer[i] = {weights.back().data() + skew, biases.back().data(), in, out};
    }
  }

  std::vector<std::vector<double>> weights, biases;
  cuda::MlpD net;
};

/// A number and how far a computed one may be from it.
struct Bounded {
  double value, error;
};

/// F(x)_d and (J v)_d with the errors that the layers hand on. Of a sum of K products and a bias: (K + 2) u of the magnitudes;
/// of silu 8 u |silu| and the input's error by |silu'| <= 1.1; of silu' 8 u (s + |z s (1 - s)|) <= 8 u 1.3 and by |silu''| <=
/// 1/2.
inline void bounded_tangent(const cuda::MlpD& net, int level, const double* x, const double* v, std::vector<Bounded>& out,
                            std::vector<Bounded>& jv) {
  constexpr double u = 1.01 * kUnit<double>;
  out.clear(), jv.clear();
  for (int k = 0; k < net.layer[0].in; ++k) out.push_back({x[k], 0}), jv.push_back({v[k], 0});
  for (int l = 0; l < net.layers; ++l) {
    const cuda::MlpLayerD& layer = net.layer[l];
    std::vector<Bounded> h(static_cast<std::size_t>(layer.out)), t(h.size());
    for (std::size_t n = 0; n < h.size(); ++n) {
      double z = layer.bias[(l == 0 ? static_cast<std::size_t>(level) * h.size() : 0) + n], dz = 0;
      double z_error = 0, dz_error = 0, size = std::fabs(z), dz_size = 0;
      for (std::size_t k = 0; k < out.size(); ++k) {
        const double w = layer.weight[n * out.size() + k], magnitude = std::fabs(w);
        z += w * out[k].value, z_error += magnitude * out[k].error, size += magnitude * (std::fabs(out[k].value) + out[k].error);
        dz += w * jv[k].value, dz_error += magnitude * jv[k].error;
        dz_size += magnitude * (std::fabs(jv[k].value) + jv[k].error);
      }
      z_error += (layer.in + 2) * u * size, dz_error += (layer.in + 2) * u * dz_size;
      h[n] = {z, z_error}, t[n] = {dz, dz_error};
      if (l + 1 == net.layers) continue;
      const double s = 1 / (1 + std::exp(-z)), slope = s + z * s * (1 - s), slope_error = z_error / 2 + 8 * u * 1.3;
      h[n] = {z * s, 1.1 * z_error + 8 * u * std::fabs(z * s)};
      t[n] = {slope * dz, std::fabs(slope) * dz_error + slope_error * (std::fabs(dz) + dz_error) + 2 * u * std::fabs(slope * dz)};
    }
    out = h, jv = t;
  }
}

/// The results for k, in its order, of the reference in long double and with their bounds: out (B, D), then jvp (B, D) or
/// divergence (B). A trace adds D numbers: (D + 1) u of their magnitudes.
struct DivergenceReference {
  explicit DivergenceReference(const cuda::MlpDivergenceInput& k) {
    const Index dim = k.net.layer[0].in;
    const auto count = static_cast<std::size_t>(k.batch * dim);
    std::vector<int> level;
    for (Index b = 0; b < k.batch; ++b) {
      level.push_back(k.level != nullptr ? k.level[b] : static_cast<int>(std::min<Index>(b, k.net.levels - 1)));
    }
    const std::vector<long double> x(k.x, k.x + k.batch * dim);
    std::vector<long double> probe, out(count), jvp(count), divergence(level.size());
    if (k.probe != nullptr) probe.assign(k.probe, k.probe + k.batch * dim);
    reference::mlp_divergence<long double>(k.net, k.batch, x.data(), level.data(), k.probe == nullptr ? nullptr : probe.data(),
                                           out.data(), jvp.data(), divergence.data());
    expected = out;
    const std::vector<long double>& second = k.probe != nullptr ? jvp : divergence;
    expected.insert(expected.end(), second.begin(), second.end());

    std::vector<double> second_bound;
    for (std::size_t b = 0; b < level.size(); ++b) {
      std::vector<Bounded> value, column;
      double error = 0, size = 0;
      for (Index d = 0; d < (k.probe != nullptr ? 1 : dim); ++d) {
        std::vector<double> v(static_cast<std::size_t>(dim));
        v[static_cast<std::size_t>(d)] = 1;
        const double* const row = k.x + static_cast<Index>(b) * dim;
        bounded_tangent(k.net, level[b], row, k.probe != nullptr ? k.probe + static_cast<Index>(b) * dim : v.data(), value,
                        column);
        error += column[static_cast<std::size_t>(d)].error;
        size += std::fabs(column[static_cast<std::size_t>(d)].value) + column[static_cast<std::size_t>(d)].error;
      }
      for (const Bounded& y : value) bound.push_back(y.error);
      if (k.probe == nullptr) {
        second_bound.push_back(error + 1.01 * kUnit<double> * static_cast<double>(dim + 1) * size);
      } else {
        for (const Bounded& y : column) second_bound.push_back(y.error);
      }
    }
    bound.insert(bound.end(), second_bound.begin(), second_bound.end());
  }

  /// The greatest error as a share of its bound; infinity for NaN.
  double worst(const std::vector<double>& out, const std::vector<double>& second) const {
    std::vector<double> all = out;
    all.insert(all.end(), second.begin(), second.end());
    double share = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double miss = static_cast<double>(std::fabs(static_cast<long double>(all[i]) - expected[i]));
      if (!(miss <= 0)) share = std::max(share, std::isnan(miss) ? HUGE_VAL : miss / bound[i]);
    }
    return share;
  }

  std::vector<long double> expected;
  std::vector<double> bound;
};

}  // namespace tweedie::kernels::testing
