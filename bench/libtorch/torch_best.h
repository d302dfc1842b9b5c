// torch_best.h - the same computations in LibTorch as fast as its operations go: what the second of its two rows times.
//
//   inference mode, outputs into preallocated tensors, the embedding folded into one bias per level, rows cut so that a chunk
//   stays in the cache, one flat parameter with the fused Adam, gradients by hand (no graph), forward mode by hand for traces.
//   A linear layer goes through BLAS (addmm_out) or oneDNN with packed weights and fused SiLU, whichever is faster at its shape:
//   both are timed when it is built. Every such choice falls before the clock starts.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>

#include "torch_networks.h"

namespace tweedie::race {

/// Seconds of the fastest of a few calls.
template <class Run>
double quickest(const Run& run, int calls = 12) {
  double best = HUGE_VAL;
  for (int i = 0; i < calls; ++i) {
    const double begin = wall_now();
    run();
    best = std::min(best, wall_now() - begin);
  }
  return best;
}

/// act(x W^T + b) for a fixed number of rows; act is SiLU or nothing. oneDNN has float and bf16 alone.
class Layer {
 public:
  Layer(const torch::Tensor& weight, const torch::Tensor& bias, bool silu, std::int64_t rows)
      : weight_(weight.t()), bias_(bias), silu_(silu), out_(torch::empty({rows, weight.size(0)}, weight.options())) {
    if (weight.scalar_type() != torch::kFloat32 && weight.scalar_type() != torch::kBFloat16) return;
    const torch::Tensor x = torch::randn({rows, weight.size(1)}, weight.options());
    const double blas = quickest([&] { (*this)(x); });
    static const auto reorder = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "");
    std::vector<c10::IValue> stack{weight.contiguous(), c10::IValue(rows)};
    reorder.callBoxed(&stack);
    packed_ = stack[0].toTensor();
    if (quickest([&] { (*this)(x); }) > blas) packed_.reset();
  }
  /// The result; of BLAS it lives until the next call.
  torch::Tensor operator()(const torch::Tensor& x) { return (*this)(x, bias_); }
  torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& bias) {
    if (packed_) return pointwise(x, *packed_, bias, silu_ ? "swish" : "none");
    at::addmm_out(out_, bias, x, weight_);
    return silu_ ? at::silu_(out_) : out_;
  }
  bool onednn() const { return packed_.has_value(); }

  static torch::Tensor pointwise(const torch::Tensor& x, const torch::Tensor& weight, const std::optional<torch::Tensor>& bias,
                                 const char* act) {
    using Call = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Call>();
    static const c10::List<std::optional<at::Scalar>> none;
    return op.call(x, weight, bias, act, none, std::nullopt);
  }

 private:
  torch::Tensor weight_, bias_;  // weight (in, out) as a view
  bool silu_;
  torch::Tensor out_;
  std::optional<torch::Tensor> packed_;
};

/// A perceptron whose first bias is given with each call.
class FoldedMlp {
 public:
  FoldedMlp(const std::vector<std::pair<torch::Tensor, torch::Tensor>>& layers, std::int64_t rows) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers_.emplace_back(layers[i].first, layers[i].second, i + 1 < layers.size(), rows);
    }
  }
  torch::Tensor operator()(const torch::Tensor& x, const torch::Tensor& first_bias) {
    torch::Tensor h = layers_[0](x, first_bias);
    for (std::size_t i = 1; i < layers_.size(); ++i) h = layers_[i](h);
    return h;
  }
  std::string how() const {
    std::string text;
    for (const Layer& l : layers_) text += l.onednn() ? 'd' : 'b';
    return text;
  }

 private:
  std::vector<Layer> layers_;
};

/// The chapter's network folded: F(x, level) = sigma s, a bias (L, H) for all levels.
struct FoldedChapter {
  explicit FoldedChapter(ChapterNet& net) {
    const c10::InferenceMode guard;
    std::vector<torch::nn::Linear> linears;
    for (std::size_t i = 0; i < net->network->size(); i += 2) {
      linears.emplace_back(net->network->ptr<torch::nn::LinearImpl>(i));
    }
    const torch::Tensor first = linears[0]->weight.detach();
    const std::int64_t dim = first.size(1) - net->noise_embedding->weight.size(1);
    bias = torch::addmm(linears[0]->bias, net->noise_embedding->weight, first.slice(1, dim).t());
    layers.emplace_back(first.slice(1, 0, dim).contiguous(), linears[0]->bias.detach());
    for (std::size_t i = 1; i < linears.size(); ++i) {
      layers.emplace_back(linears[i]->weight.detach(), linears[i]->bias.detach());
    }
  }
  /// Weights and biases rounded to another type.
  void to(torch::ScalarType type) {
    for (auto& [weight, b] : layers) weight = weight.to(type), b = b.to(type);
    bias = bias.to(type);
  }
  std::vector<std::pair<torch::Tensor, torch::Tensor>> layers;
  torch::Tensor bias;
};

/// EDM's network folded: for one sigma, u = a x + b F(c_in x; bias(sigma)).
struct FoldedEdm {
  struct Level {
    double c_in, a, b;
    torch::Tensor bias;  // (H)
  };
  explicit FoldedEdm(EdmNet& net) : net_(net) {
    for (const torch::nn::Linear& l : net->layers) layers.emplace_back(l->weight.detach(), l->bias.detach());
  }
  Level level(double sigma) {
    const double sd = net_->sigma_data, r = std::hypot(sigma, sd);
    const torch::Tensor s = torch::full({1}, sigma, layers[0].first.options());
    const torch::Tensor e = torch::silu(net_->sigma_embedding->forward(net_->features(s)));
    return {1 / r, -sigma / r / r, sd / r, torch::addmm(layers[0].second, e, net_->embedding->weight.t()).squeeze(0)};
  }
  std::vector<std::pair<torch::Tensor, torch::Tensor>> layers;

 private:
  EdmNet net_;
};

/// Chunks of rows on the threads, each with a network and a generator of its own.
struct Slots {
  Slots(const std::vector<std::pair<torch::Tensor, torch::Tensor>>& layers, std::int64_t all, std::int64_t one)
      : rows(all), chunk(one) {
    for (int i = 0; i < at::get_num_threads(); ++i) {
      nets.emplace_back(layers, chunk);
      generators.push_back(at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(i + 1)));
      noise.push_back(torch::empty({chunk, layers[0].first.size(1)}));
      inputs.push_back(torch::empty({chunk, layers[0].first.size(1)}, layers[0].first.options()));
    }
  }
  /// body(rows of x, slot) for every chunk; `chunk` divides the rows.
  template <class Body>
  void run(const torch::Tensor& x, const Body& body) {
    at::parallel_for(0, rows / chunk, 1, [&](std::int64_t begin, std::int64_t end) {
      const c10::InferenceMode guard;
      for (std::int64_t i = begin; i < end; ++i) {
        body(x.narrow(0, i * chunk, chunk), static_cast<std::size_t>(at::get_thread_num()));
      }
    });
  }
  std::int64_t rows, chunk;
  std::vector<FoldedMlp> nets;
  std::vector<at::Generator> generators;
  std::vector<torch::Tensor> noise, inputs;  // inputs: rows in the network's own type
};

/// The chunk size, among powers of two from 128 to 4096 that divide `rows` and leave every thread its share, with which
/// run(slots) is fastest; all rows where they are few.
template <class Run>
std::unique_ptr<Slots> fastest_slots(const std::vector<std::pair<torch::Tensor, torch::Tensor>>& layers, std::int64_t rows,
                                     const Run& run) {
  const std::int64_t share = rows / at::get_num_threads();
  std::vector<std::int64_t> candidates;
  for (std::int64_t chunk = 128; chunk <= std::min<std::int64_t>(share, 4096); chunk *= 2) {
    if (rows % chunk == 0) candidates.push_back(chunk);
  }
  if (candidates.empty()) candidates.push_back(rows);
  std::unique_ptr<Slots> best;
  double best_time = HUGE_VAL;
  for (const std::int64_t chunk : candidates) {
    auto slots = std::make_unique<Slots>(layers, rows, chunk);
    const double time = candidates.size() == 1 ? 0 : quickest([&] { run(*slots); }, 3);
    if (time < best_time) {
      best_time = time;
      best = std::move(slots);
    }
  }
  return best;
}

/// x <- the annealed chain of samplers/annealed_langevin.h, half convention, a = 2 sigma^2.
inline void langevin_best(const FoldedChapter& net, const std::vector<double>& sigmas, Index steps, Slots& slots,
                          const torch::Tensor& x) {
  slots.run(x, [&](torch::Tensor part, std::size_t slot) {
    torch::Tensor &z = slots.noise[slot], &rounded = slots.inputs[slot];
    const bool same = rounded.scalar_type() == part.scalar_type();
    part.normal_(0, sigmas[0], slots.generators[slot]);
    for (std::size_t l = 0; l < sigmas.size(); ++l) {
      const torch::Tensor bias = net.bias[static_cast<std::int64_t>(l)];
      const double step = 2 * sigmas[l] * sigmas[l];
      for (Index t = 0; t < steps; ++t) {
        part.add_(slots.nets[slot](same ? part : rounded.copy_(part), bias), step / 2 / sigmas[l]);
        part.add_(z.normal_(0, 1, slots.generators[slot]), std::sqrt(step));
      }
    }
  });
}

/// x <- Heun's steps of samplers/heun.h without churn; levels[i] belongs to sigmas[i], the last sigma is 0.
inline void heun_best(const std::vector<FoldedEdm::Level>& levels, const std::vector<double>& sigmas, Slots& slots,
                      const torch::Tensor& x) {
  slots.run(x, [&](torch::Tensor part, std::size_t slot) {
    torch::Tensor &scaled = slots.noise[slot], slope = torch::empty_like(part), end = torch::empty_like(part);
    // out = dx/dsigma = -sigma s = -u
    const auto derivative = [&](const torch::Tensor& y, const FoldedEdm::Level& l, torch::Tensor& out) {
      at::mul_out(scaled, y, torch::scalar_tensor(l.c_in));
      at::mul_out(out, y, torch::scalar_tensor(-l.a));
      out.sub_(slots.nets[slot](scaled, l.bias), l.b);
    };
    part.normal_(0, sigmas[0], slots.generators[slot]);
    for (std::size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const double h = sigmas[i + 1] - sigmas[i];
      derivative(part, levels[i], slope);
      if (sigmas[i + 1] == 0) {
        part.add_(slope, h);
        continue;
      }
      at::add_out(end, part, slope, h);
      part.add_(slope, h / 2);
      derivative(end, levels[i + 1], slope);
      part.add_(slope, h / 2);
    }
  });
}

}  // namespace tweedie::race
