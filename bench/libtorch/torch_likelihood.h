// torch_likelihood.h - log-densities along the probability flow in LibTorch, in double: dy / d ln sigma = -sigma u, u = sigma s,
// log p(y) = log N(y_end; 0, sigma_max^2) + int tr(d(-sigma u)/dy) d ln sigma (samplers/likelihood.h).
//
//   eager   all rows in one state, the trace by one backward pass a dimension, an error norm over the batch (as scipy's RK45,
//           which score_sde's code calls)
//   best    chunks of 256 rows with their own steps, the trace by forward mode: value and D tangents run through one product
// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <functional>
#include <numbers>

#include "torch_best.h"

namespace tweedie::race {

/// Dormand-Prince 5(4) with scipy's step control (safety .9, factors .2 to 10, root mean square over the whole state), from t to
/// end > t in place. Returns the evaluations.
inline std::int64_t dormand_prince(const std::function<torch::Tensor(double, const torch::Tensor&)>& f, double t, double end,
                                   torch::Tensor& y, double rtol, double atol) {
  static constexpr double c[] = {0, .2, .3, .8, 8. / 9, 1, 1};
  static constexpr double a[7][6] = {{},
                                     {.2},
                                     {3. / 40, 9. / 40},
                                     {44. / 45, -56. / 15, 32. / 9},
                                     {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},
                                     {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},
                                     {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84}};
  static constexpr double e[] = {71. / 57600, 0, -71. / 16695, 71. / 1920, -17253. / 339200, 22. / 525, -1. / 40};
  const auto norm = [](const torch::Tensor& v) { return std::sqrt(v.square().mean().item<double>()); };
  std::array<torch::Tensor, 7> k;
  k[0] = f(t, y);
  std::int64_t evaluations = 2;
  // The first step [Hairer, Norsett & Wanner 1993, Sec. II.4].
  const torch::Tensor scale = y.abs() * rtol + atol;
  const double d0 = norm(y / scale), d1 = norm(k[0] / scale), h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : .01 * d0 / d1;
  const double d2 = norm((f(t + h0, y + h0 * k[0]) - k[0]) / scale) / h0;
  double h = std::min(100 * h0, std::pow(.01 / std::max(d1, d2), .2));
  bool rejected = false;
  while (t < end) {
    h = std::min(h, end - t);
    torch::Tensor next;
    for (std::size_t s = 1; s < 7; ++s) {
      next = y.clone();
      for (std::size_t j = 0; j < s; ++j) {
        if (a[s][j] != 0) next.add_(k[j], h * a[s][j]);
      }
      k[s] = f(t + c[s] * h, next);
    }
    evaluations += 6;
    torch::Tensor error = k[0] * (h * e[0]);
    for (std::size_t j = 2; j < 7; ++j) error.add_(k[j], h * e[j]);
    const double size = norm(error.div_(at::maximum(y.abs(), next.abs()).mul_(rtol).add_(atol)));
    const double factor = size == 0 ? 10 : std::clamp(.9 * std::pow(size, -.2), .2, 10.);
    if (size < 1) {
      t = t + h >= end ? end : t + h;
      y = next;
      k[0] = k[6];
      h *= rejected ? std::min(1., factor) : factor;
      rejected = false;
    } else {
      h *= std::min(1., factor);
      rejected = true;
    }
  }
  return evaluations;
}

/// The state (y, integral of the trace) (B, D + 1) at sigma_max as log-densities (B).
inline torch::Tensor with_terminal(const torch::Tensor& state, double sigma_max) {
  const std::int64_t dim = state.size(1) - 1;
  const torch::Tensor y = state.slice(1, 0, dim);
  const double constant = static_cast<double>(dim) * std::log(sigma_max * std::sqrt(2 * std::numbers::pi));
  return state.select(1, dim) - y.square().sum(1) / (2 * sigma_max * sigma_max) - constant;
}

struct Densities {
  torch::Tensor nats;  // (B)
  double evaluations = 0;
};

inline torch::Tensor start_state(const torch::Tensor& x) { return torch::cat({x, torch::zeros({x.size(0), 1}, x.options())}, 1); }

/// `net` in double.
inline Densities likelihood_eager(EdmNet& net, const ContinuousScoreNetwork& ours, const torch::Tensor& x, double tolerance) {
  const std::int64_t dim = x.size(1);
  const auto flow = [&](double t, const torch::Tensor& state) {
    const double sigma = std::clamp(std::exp(t), ours.sigma_min(), ours.sigma_max());
    const torch::Tensor y = state.slice(1, 0, dim).detach().requires_grad_(true);
    const torch::Tensor velocity = -sigma * net->scaled_score(y, torch::full({y.size(0)}, sigma, y.options()));
    torch::Tensor trace = torch::zeros({y.size(0)}, y.options());
    for (std::int64_t d = 0; d < dim; ++d) {
      trace = trace + torch::autograd::grad({velocity.select(1, d).sum()}, {y}, {}, d + 1 < dim)[0].select(1, d);
    }
    return torch::cat({velocity.detach(), trace.unsqueeze(1)}, 1);
  };
  torch::Tensor state = start_state(x);
  const std::int64_t evaluations =
      dormand_prince(flow, std::log(ours.sigma_min()), std::log(ours.sigma_max()), state, tolerance, tolerance);
  return {with_terminal(state, ours.sigma_max()), static_cast<double>(evaluations)};
}

/// u and tr(du/dy) at one sigma by forward mode. Buffers for a fixed number of rows.
class ForwardTrace {
 public:
  ForwardTrace(EdmNet& net, std::int64_t rows) : folded_(net), rows_(rows), dim_(folded_.layers[0].first.size(1)) {
    const torch::TensorOptions options = folded_.layers[0].first.options();
    for (const auto& [weight, bias] : folded_.layers) z_.push_back(torch::empty({(1 + dim_) * rows, weight.size(0)}, options));
    slope_ = torch::empty({rows, folded_.layers[0].first.size(0)}, options);
    sigmoid_ = torch::empty_like(slope_);
  }
  /// out (B, D + 1) = (-sigma u, -sigma tr du/dy).
  torch::Tensor operator()(double sigma, const torch::Tensor& y) {
    const FoldedEdm::Level l = folded_.level(sigma);
    const auto& first = folded_.layers[0].first;
    torch::Tensor z = value(0);
    at::addmm_out(z, l.bias, y * l.c_in, first.t());
    for (std::int64_t d = 0; d < dim_; ++d) tangent(0, d).copy_((first.select(1, d) * l.c_in).expand({rows_, first.size(0)}));
    for (std::size_t i = 1; i < z_.size(); ++i) {
      // h = z s(z), dh = dz (s + h (1 - s)): in place
      torch::Tensor h = value(i - 1);
      at::sigmoid_out(sigmoid_, h);
      h.mul_(sigmoid_);
      at::rsub_out(slope_, sigmoid_, 1);
      slope_.mul_(h).add_(sigmoid_);
      z_[i - 1].narrow(0, rows_, dim_ * rows_).view({dim_, rows_, -1}).mul_(slope_);
      at::mm_out(z_[i], z_[i - 1], folded_.layers[i].first.t());
      value(i).add_(folded_.layers[i].second);
    }
    torch::Tensor out = torch::empty({rows_, dim_ + 1}, y.options());
    out.slice(1, 0, dim_).copy_(value(z_.size() - 1).mul(-sigma * l.b).sub_(y, sigma * l.a));
    torch::Tensor trace = out.select(1, dim_).fill_(-sigma * l.a * static_cast<double>(dim_));
    for (std::int64_t d = 0; d < dim_; ++d) trace.sub_(tangent(z_.size() - 1, d).select(1, d), sigma * l.b);
    return out;
  }

 private:
  torch::Tensor value(std::size_t i) { return z_[i].narrow(0, 0, rows_); }
  torch::Tensor tangent(std::size_t i, std::int64_t d) { return z_[i].narrow(0, (1 + d) * rows_, rows_); }
  FoldedEdm folded_;
  std::int64_t rows_, dim_;
  std::vector<torch::Tensor> z_;   // ((1 + D) B, width): values, then the tangents of each dimension
  torch::Tensor slope_, sigmoid_;  // (B, H)
};

inline constexpr std::int64_t kLikelihoodChunk = 256;

/// One chunk after the other, on as many threads as there are.
inline Densities likelihood_best(EdmNet& net, const ContinuousScoreNetwork& ours, const torch::Tensor& x, double tolerance) {
  const std::int64_t rows = x.size(0), threads = at::get_num_threads();
  const std::int64_t chunk = std::min(kLikelihoodChunk, (rows + threads - 1) / threads), chunks = (rows + chunk - 1) / chunk;
  std::vector<torch::Tensor> parts(static_cast<std::size_t>(chunks));
  std::vector<double> weighted(static_cast<std::size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    const c10::InferenceMode guard;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t count = std::min(chunk, rows - i * chunk);
      ForwardTrace trace(net, count);
      torch::Tensor state = start_state(x.narrow(0, i * chunk, count));
      const auto flow = [&](double t, const torch::Tensor& s) {
        return trace(std::clamp(std::exp(t), ours.sigma_min(), ours.sigma_max()), s.slice(1, 0, s.size(1) - 1));
      };
      const auto evaluations =
          dormand_prince(flow, std::log(ours.sigma_min()), std::log(ours.sigma_max()), state, tolerance, tolerance);
      parts[static_cast<std::size_t>(i)] = with_terminal(state, ours.sigma_max());
      weighted[static_cast<std::size_t>(i)] = static_cast<double>(evaluations * count) / static_cast<double>(rows);
    }
  });
  double evaluations = 0;
  for (const double w : weighted) evaluations += w;
  const c10::InferenceMode guard;
  return {torch::cat(parts), evaluations};
}

}  // namespace tweedie::race
