// torch_networks.h - our two networks as LibTorch modules, written as its users write them, and weights both ways.
//
//   ChapterNet    s(x, level) = network(cat(x, noise_embedding(level))) / sigmas[level]         models/score_network.h
//   EdmNet        u = sigma s = a x + b F(c_in x, sigma)                                         models/continuous_network.h, mlp
// Tensor names are the checkpoint's own: a named parameter is looked up in the file under its name. x (B, D), level, sigma (B).
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "race.h"

namespace tweedie::race {

inline std::vector<std::int64_t> sizes_of(const std::vector<Index>& shape) { return {shape.begin(), shape.end()}; }

/// Our values as a new tensor.
template <class S>
torch::Tensor tensor(const S* data, std::vector<std::int64_t> sizes) {
  return torch::from_blob(const_cast<S*>(data), sizes, torch::CppTypeToScalarType<S>::value).clone();
}
template <class S>
torch::Tensor tensor(const MatrixX<S>& m) {
  return tensor(m.data(), {m.rows(), m.cols()});
}
inline torch::Tensor levels_tensor(const Batch& batch) { return tensor(batch.level.data(), {batch.rows()}).to(torch::kInt64); }
inline std::vector<double> to_vector(const torch::Tensor& t) {
  const torch::Tensor wide = t.detach().to(torch::kFloat64).contiguous();
  return {wide.data_ptr<double>(), wide.data_ptr<double>() + wide.numel()};
}

/// Weights of our network into a module with the same tensor names, and back.
inline void load_weights(torch::nn::Module& module, const Network& net) {
  const torch::NoGradGuard no_grad;
  const Checkpoint checkpoint = make_checkpoint(net);
  Index loaded = 0;
  for (auto& named : module.named_parameters()) {
    const std::vector<Index> shape(named.value().sizes().begin(), named.value().sizes().end());
    named.value().copy_(tensor(checkpoint.get(named.key(), shape).data(), sizes_of(shape)));
    loaded += named.value().numel();
  }
  check(loaded == net.layout().size(), "load_weights: the module has ", loaded, " weights, the network ", net.layout().size());
}
inline Checkpoint checkpoint_of(const torch::nn::Module& module, const Network& like) {
  Checkpoint checkpoint = make_checkpoint(like);
  for (const auto& named : module.named_parameters()) {
    const torch::Tensor values = named.value().detach().to(torch::kFloat32).contiguous();
    checkpoint.set(named.key(), {values.sizes().begin(), values.sizes().end()},
                   std::span<const float>(values.data_ptr<float>(), static_cast<std::size_t>(values.numel())));
  }
  return checkpoint;
}

struct ChapterNetImpl : torch::nn::Module {
  explicit ChapterNetImpl(const ScoreNetwork& net) {
    const ScoreNetworkOptions& o = net.options();
    const std::vector<double> values(net.levels()->values().begin(), net.levels()->values().end());
    sigmas = register_buffer("sigmas", torch::tensor(values, torch::kFloat64).to(torch::kFloat32));
    noise_embedding = register_module("noise_embedding", torch::nn::Embedding(net.levels()->size(), o.hidden_dim));
    network = register_module("network", torch::nn::Sequential());
    network->push_back(torch::nn::Linear(o.data_dim + o.hidden_dim, o.hidden_dim));
    network->push_back(torch::nn::SiLU());
    for (Index i = 0; i < o.num_layers - 2; ++i) {
      network->push_back(torch::nn::Linear(o.hidden_dim, o.hidden_dim));
      network->push_back(torch::nn::SiLU());
    }
    network->push_back(torch::nn::Linear(o.hidden_dim, o.data_dim));
  }
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& level) {
    const torch::Tensor score = network->forward(torch::cat({x, noise_embedding->forward(level)}, -1));
    return score / sigmas.index({level}).unsqueeze(-1);
  }
  torch::Tensor sigmas;
  torch::nn::Embedding noise_embedding{nullptr};
  torch::nn::Sequential network{nullptr};
};
TORCH_MODULE(ChapterNet);

struct EdmNetImpl : torch::nn::Module {
  explicit EdmNetImpl(const ContinuousScoreNetwork& net) : sigma_data(net.options().sigma_data) {
    const ContinuousNetworkOptions& o = net.options();
    frequencies = register_buffer("frequencies", torch::tensor(net.buffers().at("sigma_embedding.frequencies"), torch::kFloat64));
    sigma_embedding = register_module("sigma_embedding", torch::nn::Linear(2 * o.num_frequencies, o.embedding_dim));
    embedding =
        register_module("embedding", torch::nn::Linear(torch::nn::LinearOptions(o.embedding_dim, o.hidden_dim).bias(false)));
    const auto network = register_module("network", std::make_shared<torch::nn::Module>());
    for (Index i = 0; i < o.num_layers; ++i) {
      const Index in = i == 0 ? o.data_dim : o.hidden_dim, out = i + 1 == o.num_layers ? o.data_dim : o.hidden_dim;
      layers.push_back(network->register_module(std::to_string(2 * i), torch::nn::Linear(in, out)));
    }
    torch::nn::init::zeros_(layers.back()->weight);
    torch::nn::init::zeros_(layers.back()->bias);
  }
  /// The noise's features in the precision of the weights; their phases in double, as ours.
  torch::Tensor features(const torch::Tensor& sigma) const {
    const torch::Tensor phase = sigma.to(torch::kFloat64).log().unsqueeze(-1) * frequencies;
    return torch::cat({phase.cos(), phase.sin()}, -1).to(sigma.scalar_type());
  }
  torch::Tensor scaled_score(const torch::Tensor& x, const torch::Tensor& sigma) {
    const torch::Tensor s = sigma.unsqueeze(-1), inverse = (s * s + sigma_data * sigma_data).rsqrt();
    const torch::Tensor e = torch::silu(sigma_embedding->forward(features(sigma)));
    torch::Tensor h = layers[0]->forward(x * inverse) + embedding->forward(e);
    for (std::size_t i = 1; i < layers.size(); ++i) h = layers[i]->forward(torch::silu(h));
    return sigma_data * inverse * h - s * inverse * inverse * x;
  }
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& sigma) {
    return scaled_score(x, sigma) / sigma.unsqueeze(-1);
  }
  double sigma_data;
  torch::Tensor frequencies;  // stays in double
  torch::nn::Linear sigma_embedding{nullptr}, embedding{nullptr};
  std::vector<torch::nn::Linear> layers;
};
TORCH_MODULE(EdmNet);

/// A module with our network's weights.
inline ChapterNet chapter_module(const Network& net) {
  ChapterNet module(chapter(net));
  load_weights(*module, net);
  return module;
}
inline EdmNet edm_module(const Network& net) {
  EdmNet module(edm(net));
  load_weights(*module, net);
  return module;
}

/// sigma of each row (B, 1).
inline torch::Tensor sigma_of(const ChapterNet& module, const torch::Tensor& level) {
  return module->sigmas.index({level}).unsqueeze(-1);
}
/// The chapter's denoising loss at noisy rows x = x0 + sigma eps, lambda = sigma^2; sigma (B, 1).
inline torch::Tensor chapter_loss(ChapterNet& module, const torch::Tensor& x, const torch::Tensor& level,
                                  const torch::Tensor& sigma, const torch::Tensor& eps) {
  const torch::Tensor score = module->forward(x, level), truth = -eps / sigma;
  return (.5 * ((score - truth).pow(2) * sigma.pow(2)).sum(-1)).mean();
}
/// The module's gradients in the order of our layout.
inline std::vector<double> gradient_of(torch::nn::Module& module, const ParameterLayout& layout) {
  std::vector<double> all;
  for (const ParameterTensor& t : layout) {
    const std::vector<double> part = to_vector(module.named_parameters()[t.name].grad());
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

/// The levels of EDM's training, ln sigma ~ N(-1.2, 1.2^2) within the network's range, and its weights.
inline torch::Tensor draw_sigmas(const ContinuousScoreNetwork& net, std::int64_t rows) {
  return torch::randn({rows}).mul_(1.2).sub_(1.2).exp_().clamp_(net.sigma_min(), net.sigma_max());
}
inline double quality_rate(long step, long steps) {
  return kQualityRate * schedule_factor({.kind = LearningRate::cosine}, step, steps);
}

}  // namespace tweedie::race
