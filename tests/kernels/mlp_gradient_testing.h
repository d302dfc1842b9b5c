// mlp_gradient_testing.h - random training batches, and how far a perceptron's gradient may be from the reference in double.
// SPDX-License-Identifier: MIT
#pragma once

#include "mlp_testing.h"
#include "tweedie/kernels/reference/mlp_gradient.h"

namespace tweedie::kernels::testing {

struct Problem {
  TestNet t;
  Index batch;
  std::vector<float> x, eps, scale, weight;
  std::vector<int> level;

  Problem(Index rows, const std::vector<int>& sizes, int levels, bool extras)
      : t(sizes, levels), batch(rows), x(uniform<float>(rows * sizes.front(), 5)), eps(uniform<float>(rows * sizes.back(), 6)) {
    t.net.scale = nullptr;
    for (Index b = 0; b < rows; ++b) level.push_back(levels == rows ? static_cast<int>(b) : static_cast<int>(b * 5 % levels));
    if (!extras) return;
    scale = uniform<float>(rows, 7), weight = uniform<float>(rows, 8);
    for (float& w : weight) w = 1 + w * w;
  }
  const float* pointer(const std::vector<float>& v) const { return v.empty() ? nullptr : v.data(); }
  MlpBatch rows(bool own_bias) const {
    return {batch, x.data(), eps.data(), own_bias ? nullptr : level.data(), pointer(scale), pointer(weight)};
  }
};

/// losses (B), then every layer's dW and db, one after another: what the reference says, and how far a kernel may be from it.
struct Expected {
  std::vector<double> value, allowed;
};

/// Errors of products, sums and silu; as they stand, those of kernels.h's contract.
struct GradientPrecision {
  double product = 0;           // relative error of one product
  double roundings = 1;         // per product, of sums
  double silu = 0, slope = 12;  // u: silu's error beside 8 u |silu|; of silu'

  double sums(int count) const { return product + (roundings * (roundings == 1 ? count : (count + 7) / 8 * 8) + 2) * kU; }
};

inline Expected expected(const Problem& p, const GradientPrecision& precision = {}) {
  const Mlp& net = p.t.net;
  const auto layers = static_cast<std::size_t>(net.layers);
  const double sums_over_rows = (static_cast<double>(p.batch) + 10) * kU;
  const std::vector<double> x(p.x.begin(), p.x.end()), eps(p.eps.begin(), p.eps.end()), scale(p.scale.begin(), p.scale.end()),
      weight(p.weight.begin(), p.weight.end());
  std::vector<double> losses(static_cast<std::size_t>(p.batch)), loss_error;
  std::vector<std::vector<double>> dw, db, dw_error, db_error;
  for (int i = 0; i < net.layers; ++i) {
    dw.emplace_back(static_cast<std::size_t>(net.layer[i].out * net.layer[i].in));
    db.emplace_back(static_cast<std::size_t>(net.layer[i].out * (i == 0 ? net.levels : 1)));
  }
  dw_error = dw, db_error = db;
  reference::mlp_gradient<double>(net, p.batch, x.data(), p.level.data(), scale.empty() ? nullptr : scale.data(), eps.data(),
                                  weight.empty() ? nullptr : weight.data(), losses.data(), dw.data(), db.data());
  // Running errors, row by row.
  for (Index b = 0; b < p.batch; ++b) {
    const auto row = static_cast<std::size_t>(b);
    std::vector<std::vector<double>> h(layers), h_error(layers), slope(layers), slope_error(layers);
    h[0].assign(x.begin() + b * net.layer[0].in, x.begin() + (b + 1) * net.layer[0].in), h_error[0].resize(h[0].size());
    std::vector<double> dz, dz_error;
    for (std::size_t i = 0; i < layers; ++i) {
      const MlpLayer& layer = net.layer[i];
      const auto width = static_cast<std::size_t>(layer.out);
      for (std::size_t n = 0; n < width; ++n) {
        double z = layer.bias[(i == 0 ? static_cast<std::size_t>(p.level[row]) * width : 0) + n], magnitude = std::fabs(z),
               carried = 0;
        for (std::size_t k = 0; k < h[i].size(); ++k) {
          const double w = layer.weight[n * h[i].size() + k];
          z += w * h[i][k], magnitude += std::fabs(w * h[i][k]), carried += std::fabs(w) * h_error[i][k];
        }
        const double z_error = carried + precision.sums(layer.in) * (magnitude + carried), s = 1 / (1 + std::exp(-z));
        if (i + 1 < layers) {  // |silu'| <= 1.1, |silu''| <= .5
          h[i + 1].push_back(z * s),
              h_error[i + 1].push_back(1.1 * z_error + (8 * std::fabs(z * s) + precision.silu) * kU + 0x1p-119);
          slope[i].push_back(s + z * s * (1 - s)), slope_error[i].push_back(.5 * z_error + precision.slope * kU);
        } else {
          const double c = scale.empty() ? 1 : scale[row], w = weight.empty() ? 1 : weight[row];
          const double e = eps[row * width + n], residual = c * z + e;
          const double error = std::fabs(c) * z_error + 2 * kU * (std::fabs(c * z) + std::fabs(e));
          if (n == 0) loss_error.push_back(4 * kU * losses[row]);
          loss_error.back() += w * error * (std::fabs(residual) + error);
          const double factor = w * c / static_cast<double>(p.batch);
          dz.push_back(factor * residual), dz_error.push_back(std::fabs(factor) * (error + 4 * kU * std::fabs(residual)));
        }
      }
    }
    for (std::size_t i = layers; i-- > 0;) {
      const MlpLayer& layer = net.layer[i];
      const std::size_t in = h[i].size(), bias = i == 0 ? static_cast<std::size_t>(p.level[row]) * dz.size() : 0;
      std::vector<double> next(in), error(in), magnitude(in);
      for (std::size_t n = 0; n < dz.size(); ++n) {
        db_error[i][bias + n] += dz_error[n] + sums_over_rows * std::fabs(dz[n]);
        for (std::size_t k = 0; k < in; ++k) {
          const double w = layer.weight[n * in + k];
          dw_error[i][n * in + k] += (std::fabs(dz[n]) + dz_error[n]) * h_error[i][k] + dz_error[n] * std::fabs(h[i][k]) +
                                     (sums_over_rows + precision.product) * std::fabs(dz[n] * h[i][k]);
          next[k] += dz[n] * w, error[k] += dz_error[n] * std::fabs(w), magnitude[k] += std::fabs(dz[n] * w);
        }
      }
      for (std::size_t k = 0; i > 0 && k < in; ++k) {
        error[k] += precision.sums(layer.out) * magnitude[k];
        error[k] = error[k] * 1.1 + (std::fabs(next[k]) + error[k]) * slope_error[i - 1][k];
        next[k] *= slope[i - 1][k];
        error[k] += kU * std::fabs(next[k]);
      }
      dz = next, dz_error = error;
    }
  }
  Expected result{losses, loss_error};
  for (std::size_t i = 0; i < layers; ++i) {
    result.value.insert(result.value.end(), dw[i].begin(), dw[i].end());
    result.value.insert(result.value.end(), db[i].begin(), db[i].end());
    result.allowed.insert(result.allowed.end(), dw_error[i].begin(), dw_error[i].end());
    result.allowed.insert(result.allowed.end(), db_error[i].begin(), db_error[i].end());
  }
  return result;
}

/// The largest error as a multiple of what is allowed (second order: 1.01 of it).
inline double worst(const std::vector<float>& found, const Expected& e) {
  REQUIRE(found.size() == e.value.size());
  double most = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double miss = std::fabs(found[i] - e.value[i]);
    most = std::max(most, std::isnan(miss) ? HUGE_VAL : miss / (1.01 * e.allowed[i] + 0x1p-140));
  }
  return most;
}

}  // namespace tweedie::kernels::testing
