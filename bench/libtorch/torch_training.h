// torch_training.h - training steps in LibTorch by hand: no graph, one flat parameter, outputs in place, the fused Adam.
//
//   z_0 = x W_0^T + c (c: the folded bias of each row),  h_i = silu(z_i),  z_{i+1} = h_i W^T + b,  F = z_last
//   dz_last = dF;  dW = dz^T h;  db = sum_rows dz;  dh = dz W;  dz_{i} = dh * silu'(z_i);  dc = dz_0
// Each product goes through BLAS or oneDNN, whichever is faster at its shape; both are timed at its first call.
// Parameters and gradients lie as our ParameterLayout says, so that they are comparable as they are.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "torch_best.h"

namespace tweedie::race {

/// Flat parameters, gradient and Adam's state; at() and gradient() are views of one tensor of the layout.
class FlatParameters {
 public:
  explicit FlatParameters(const Network& net) : layout_(net.layout()) {
    flat = tensor(net.parameters().data(), {layout_.size()});
    for (torch::Tensor* t : {&d, &m, &v}) *t = torch::zeros_like(flat);
    for (const ParameterTensor& t : layout_) {
      values_.push_back(part(flat, t));
      gradients_.push_back(part(d, t));
    }
  }
  torch::Tensor& at(const std::string& name) { return values_[static_cast<std::size_t>(layout_.index(name))]; }
  torch::Tensor& gradient(const std::string& name) { return gradients_[static_cast<std::size_t>(layout_.index(name))]; }
  void adam(double rate) {
    step_.add_(1);
    at::_fused_adam_({flat}, {d}, {m}, {v}, {}, {step_}, rate, .9, .999, 0, 1e-8, false, false);
  }
  torch::Tensor flat, d, m, v;

 private:
  static torch::Tensor part(const torch::Tensor& from, const ParameterTensor& t) {
    return from.narrow(0, t.offset, t.size()).view(sizes_of(t.shape));
  }
  ParameterLayout layout_;
  std::vector<torch::Tensor> values_, gradients_;
  torch::Tensor step_ = torch::zeros({});
};

/// out = a b (+ bias) for one shape.
class Product {
 public:
  void operator()(torch::Tensor& out, const torch::Tensor& a, const torch::Tensor& b,
                  const std::optional<torch::Tensor>& bias = {}) {
    if (!onednn_) {
      onednn_ = false;
      const double blas = quickest([&] { (*this)(out, a, b, bias); });
      onednn_ = true;
      onednn_ = quickest([&] { (*this)(out, a, b, bias); }) < blas;
    }
    if (*onednn_) {
      out.copy_(Layer::pointwise(a.contiguous(), b.t().contiguous(), bias, "none"));
    } else if (bias) {
      at::addmm_out(out, *bias, a, b);
    } else {
      at::mm_out(out, a, b);
    }
  }
  char how() const { return *onednn_ ? 'd' : 'b'; }

 private:
  std::optional<bool> onednn_;
};

/// The layers network.0, network.2, ... of a batch of fixed size.
class HandMlp {
 public:
  HandMlp(FlatParameters& p, Index layers, std::int64_t rows) : p_(p) {
    for (Index i = 0; i < layers; ++i) {
      names_.push_back(join("network.", 2 * i));
      const std::int64_t width = p.at(names_.back() + ".weight").size(0);
      z_.push_back(torch::empty({rows, width}));
      h_.push_back(torch::empty({rows, width}));
      dz_.push_back(torch::empty({rows, width}));
    }
    for (std::vector<Product>* all : {&forward_, &weights_, &inputs_}) all->resize(z_.size());
  }
  /// From z() of the first layer, which the caller has filled, to F (B, D).
  torch::Tensor& first() { return z_[0]; }
  const torch::Tensor& forward() {
    for (std::size_t i = 1; i < z_.size(); ++i) {
      at::silu_out(h_[i - 1], z_[i - 1]);
      forward_[i](z_[i], h_[i - 1], p_.at(names_[i] + ".weight").t(), p_.at(names_[i] + ".bias"));
    }
    return z_.back();
  }
  /// dF (B, D) goes into d_output(); returns dz_0 and leaves the other layers' gradients in the flat one.
  torch::Tensor& d_output() { return dz_.back(); }
  const torch::Tensor& backward() {
    for (std::size_t i = z_.size() - 1; i >= 1; --i) {
      weights_[i](p_.gradient(names_[i] + ".weight"), dz_[i].t(), h_[i - 1]);
      at::sum_out(p_.gradient(names_[i] + ".bias"), dz_[i], {0});
      inputs_[i](dz_[i - 1], dz_[i], p_.at(names_[i] + ".weight"));
      at::silu_backward_out(dz_[i - 1], dz_[i - 1], z_[i - 1]);
    }
    return dz_[0];
  }

  /// After a step: b for BLAS, d for oneDNN, of z, dW and dh of each layer but the first.
  std::string how() const {
    std::string text;
    for (std::size_t i = 1; i < z_.size(); ++i) text += {forward_[i].how(), weights_[i].how(), inputs_[i].how()};
    return text;
  }

 private:
  FlatParameters& p_;
  std::vector<std::string> names_;
  std::vector<Product> forward_, weights_, inputs_;
  std::vector<torch::Tensor> z_, h_, dz_;
};

/// Denoising score matching of the chapter's network.
class ChapterTrainer {
 public:
  ChapterTrainer(const ScoreNetwork& net, std::int64_t rows)
      : p(net), mlp_(p, net.options().num_layers, rows), dim_(net.dim()), rows_(rows) {
    const std::int64_t levels = net.levels()->size(), width = net.options().hidden_dim;
    bias_ = torch::empty({levels, width});
    d_bias_ = torch::empty({levels, width});
    weight_ = p.at("network.0.weight");
    d_weight_ = p.gradient("network.0.weight");
    d_data_ = torch::empty({width, dim_});
  }
  /// The mean loss as a tensor; the gradient is in p.d. x is the noisy batch.
  torch::Tensor loss_and_gradient(const torch::Tensor& x, const torch::Tensor& level, const torch::Tensor& eps) {
    const torch::Tensor& embedding = p.at("noise_embedding.weight");
    at::addmm_out(bias_, p.at("network.0.bias"), embedding, weight_.slice(1, dim_).t());
    at::index_select_out(mlp_.first(), bias_, 0, level);
    mlp_.first().addmm_(x, weight_.slice(1, 0, dim_).t());
    torch::Tensor& residual = mlp_.d_output();  // sigma s + eps, then its gradient
    at::add_out(residual, mlp_.forward(), eps);
    const torch::Tensor loss = residual.square().sum().mul_(.5 / static_cast<double>(rows_));
    residual.mul_(1. / static_cast<double>(rows_));
    const torch::Tensor& dz = mlp_.backward();
    d_bias_.zero_().index_add_(0, level, dz);
    at::mm_out(d_data_, dz.t(), x);
    d_weight_.slice(1, 0, dim_).copy_(d_data_);
    d_weight_.slice(1, dim_).copy_(at::mm(d_bias_.t(), embedding));
    at::sum_out(p.gradient("network.0.bias"), d_bias_, {0});
    at::mm_out(p.gradient("noise_embedding.weight"), d_bias_, weight_.slice(1, dim_));
    return loss;
  }
  std::string how() const { return mlp_.how(); }
  FlatParameters p;

 private:
  HandMlp mlp_;
  std::int64_t dim_, rows_;
  torch::Tensor bias_, d_bias_;  // (L, H)
  torch::Tensor weight_, d_weight_, d_data_;
};

/// EDM's weighted denoising loss of the continuous network: mean_b w_b/2 |u + eps|^2, w = (sigma^2 + sd^2) / sd^2.
class EdmTrainer {
 public:
  EdmTrainer(const ContinuousScoreNetwork& net, EdmNet module, std::int64_t rows)
      : p(net), module_(std::move(module)), mlp_(p, net.options().num_layers, rows), rows_(rows) {}
  torch::Tensor loss_and_gradient(const torch::Tensor& x, const torch::Tensor& sigma, const torch::Tensor& eps) {
    const double sd = module_->sigma_data;
    const torch::Tensor s = sigma.unsqueeze(-1), inverse = (s * s + sd * sd).rsqrt_();
    const torch::Tensor features = module_->features(sigma);
    const torch::Tensor ze = at::addmm(p.at("sigma_embedding.bias"), features, p.at("sigma_embedding.weight").t());
    const torch::Tensor e = at::silu(ze), scaled = x * inverse;
    at::addmm_out(mlp_.first(), p.at("network.0.bias"), e, p.at("embedding.weight").t());
    mlp_.first().addmm_(scaled, p.at("network.0.weight").t());
    // u + eps = b F - sigma / (sigma^2 + sd^2) x + eps, b = sd inverse
    const torch::Tensor b = inverse * sd;
    const torch::Tensor residual = at::addcmul(eps, mlp_.forward(), b).sub_(s * inverse * scaled);
    const torch::Tensor weight = b.pow(-2);
    const torch::Tensor weighted = residual * weight;
    const torch::Tensor loss = residual.mul_(weighted).sum().mul_(.5 / static_cast<double>(rows_));
    at::mul_out(mlp_.d_output(), weighted, b.mul_(1. / static_cast<double>(rows_)));
    const torch::Tensor& dz = mlp_.backward();
    at::mm_out(p.gradient("network.0.weight"), dz.t(), scaled);
    at::sum_out(p.gradient("network.0.bias"), dz, {0});
    at::mm_out(p.gradient("embedding.weight"), dz.t(), e);
    const torch::Tensor de = at::silu_backward(at::mm(dz, p.at("embedding.weight")), ze);
    at::mm_out(p.gradient("sigma_embedding.weight"), de.t(), features);
    at::sum_out(p.gradient("sigma_embedding.bias"), de, {0});
    return loss;
  }
  FlatParameters p;

 private:
  EdmNet module_;
  HandMlp mlp_;
  std::int64_t rows_;
};

}  // namespace tweedie::race
