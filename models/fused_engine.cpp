// fused_engine.cpp - the chapter's network trained by one kernel for the whole forward and backward pass.
//
//   level bias = E W_e^T + b_0  ->  kernels::mlp_gradient  ->  dW_x, d(level bias), dW_i, db_i
//   dE = d(level bias) W_e,   dW_e = d(level bias)^T E,   db_0 = sum over levels of d(level bias)
// Threads share its leaves of rows and its panels of weights; the order of every sum is fixed by the batch's size, so a step has
// the same bits on any number of threads. It agrees with the tape within rounding, not bit by bit. SPDX-License-Identifier: MIT
#include <algorithm>

#include "tweedie/kernels/kernels.h"
#include "tweedie/models/detail/fused_engine.h"
#include "tweedie/models/detail/linear_rows.h"
#include "tweedie/models/score_network.h"

namespace tweedie::detail {

namespace {

class FusedEngine final : public TrainingEngine {
 public:
  FusedEngine(const NoiseConditionalScoreNetwork& network, const Objective& objective)
      : layout_(network.layout()),
        dim_(network.dim()),
        hidden_dim_(network.options().hidden_dim),
        levels_(network.levels()->size()),
        name_(join("fused, cpu ", kernels::name(kernels::target()), ", fp32")),
        from_x_(hidden_dim_, dim_),
        level_bias_(levels_, hidden_dim_),
        level_bias_gradient_(levels_, hidden_dim_),
        level_weights_(levels_) {
    for (Index l = 0; l < levels_; ++l) {
      level_weights_[l] = static_cast<float>(loss_weight(objective, (*network.levels())[l]));
      weighted_ = weighted_ || level_weights_[l] != 1;
    }
    net_.layers = static_cast<int>((layout_.count() - 1) / 2);
    net_.levels = static_cast<int>(levels_);
  }

  double loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient,
                           std::span<float> row_losses) override {
    check(gradient.size() == static_cast<std::size_t>(layout_.size()), "loss_and_gradient: the gradient has ", gradient.size(),
          " values, the network ", layout_.size(), " parameters");
    prepare(parameters, batch, row_losses);
    kernels::MlpGradient to;
    for (int i = 0; i < net_.layers; ++i) {
      const ParameterTensor& w = layout_[2 * i + 1];
      to.weight[i] = gradient.data() + w.offset;
      to.stride[i] = w.cols;
      to.bias[i] = i == 0 ? level_bias_gradient_.data() : gradient.data() + layout_[2 * i + 2].offset;
    }
    const kernels::MlpBatch rows = rows_of(batch);
    grow(workspace_, kernels::mlp_gradient_workspace(net_, rows));
    kernels::mlp_gradient(net_, rows, workspace_.data(), row_losses.data(), to);
    embedding_gradient(parameters.data(), gradient.data());
    return mean(row_losses);
  }

  double loss(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) override {
    prepare(parameters, batch, row_losses);
    grow(workspace_, kernels::packed_mlp_size(net_));
    kernels::pack_mlp(net_, workspace_.data());
    grow(output_, batch.rows() * dim_);
    kernels::mlp_forward(net_, workspace_.data(), batch.rows(), batch.x.data(), dim_, batch.level.data(), output_.data(), dim_);
    for (Index b = 0; b < batch.rows(); ++b) {
      double sum = 0;
      for (Index i = b * dim_; i < (b + 1) * dim_; ++i) {
        const float residual = output_[i] + batch.eps.data()[i];
        sum += static_cast<double>(residual) * static_cast<double>(residual);
      }
      row_losses[static_cast<std::size_t>(b)] =
          static_cast<float>(.5 * static_cast<double>(level_weights_[batch.level[b]]) * sum);
    }
    return mean(row_losses);
  }

  std::string_view name() const override { return name_; }

 private:
  template <class T>
  static void grow(Buffer<T>& buffer, Index size) {
    if (buffer.size() < size) buffer = Buffer<T>(size);
  }

  static double mean(std::span<const float> row_losses) {
    double sum = 0;
    for (const float loss : row_losses) sum += static_cast<double>(loss);
    return sum / static_cast<double>(row_losses.size());
  }

  kernels::MlpBatch rows_of(const Batch& batch) {
    if (weighted_) {
      grow(weights_, batch.rows());
      for (Index b = 0; b < batch.rows(); ++b) weights_[b] = level_weights_[batch.level[b]];
    }
    return {.rows = batch.rows(),
            .x = batch.x.data(),
            .eps = batch.eps.data(),
            .level = batch.level.data(),
            .scale = nullptr,
            .weight = weighted_ ? weights_.data() : nullptr};
  }

  // Checks, the network at these parameters, its level biases.
  void prepare(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) {
    check(parameters.size() == static_cast<std::size_t>(layout_.size()), "training step: ", parameters.size(),
          " parameters, the network has ", layout_.size());
    check(batch.x.cols() == dim_ && batch.eps.rows() == batch.rows() && batch.eps.cols() == dim_, "training step: the batch is ",
          shape(batch.x), ", its noise ", shape(batch.eps), ", the network's dimension is ", dim_);
    check(row_losses.size() == static_cast<std::size_t>(batch.rows()), "training step: room for ", row_losses.size(),
          " row losses, the batch has ", batch.rows(), " rows");
    check(batch.level.size() == batch.rows(), "training step: the batch of ", batch.rows(), " rows has ", batch.level.size(),
          " levels; the fused engine trains on the network's levels: use SigmaSampling::levels, or engine tape for any sigma");
    for (const std::int32_t level : batch.level) {
      check(level >= 0 && level < levels_, "training step: level ", level, ", the network has ", levels_);
    }
    const float* flat = parameters.data();
    const ParameterTensor& first = layout_[1];
    for (Index r = 0; r < hidden_dim_; ++r) std::copy_n(flat + first.offset + r * first.cols, dim_, from_x_.row(r).data());
    linear_rows(
        levels_, hidden_dim_, hidden_dim_, flat + layout_[0].offset, hidden_dim_, flat + first.offset + dim_, first.cols,
        [&](Index) { return flat + layout_[2].offset; }, level_bias_.data());
    for (int i = 0; i < net_.layers; ++i) {
      const ParameterTensor& w = layout_[2 * i + 1];
      net_.layer[i] = {i == 0 ? from_x_.data() : flat + w.offset, i == 0 ? level_bias_.data() : flat + layout_[2 * i + 2].offset,
                       static_cast<int>(i == 0 ? dim_ : w.cols), static_cast<int>(w.rows)};
    }
  }

  void embedding_gradient(const float* flat, float* gradient) const {
    const Index h = hidden_dim_, ld = dim_ + h;
    const float *embedding = flat + layout_[0].offset, *d = level_bias_gradient_.data();
    kernels::gemm({.m = levels_, .n = h, .k = h}, d, h, flat + layout_[1].offset + dim_, ld, gradient + layout_[0].offset, h);
    kernels::gemm({.m = h, .n = h, .k = levels_, .transpose_a = true}, d, h, embedding, h, gradient + layout_[1].offset + dim_,
                  ld);
    float* const bias = gradient + layout_[2].offset;
    std::copy_n(d, h, bias);
    for (Index l = 1; l < levels_; ++l) {
      for (Index i = 0; i < h; ++i) bias[i] += d[l * h + i];
    }
  }

  const ParameterLayout& layout_;
  const Index dim_, hidden_dim_, levels_;
  std::string name_;
  kernels::Mlp net_;
  Matrix from_x_;                            // (H, D) W_x, the first layer's part for x
  Matrix level_bias_, level_bias_gradient_;  // (L, H)
  Buffer<float> level_weights_;              // (L) w(sigma_l)
  bool weighted_ = false;                    // a weight is not 1
  Buffer<float> weights_;                    // (B)
  Buffer<float> workspace_, output_;
};

}  // namespace

std::unique_ptr<TrainingEngine> make_fused_engine(const Network& model, const Objective& objective) {
  const auto* network = dynamic_cast<const NoiseConditionalScoreNetwork*>(&model);
  const bool denoising = std::holds_alternative<Denoising>(objective) || std::holds_alternative<FlowMatching>(objective);
  if (network == nullptr || !denoising || network->options().num_layers > kernels::Mlp::kMaxLayers) return nullptr;
  return std::make_unique<FusedEngine>(*network, objective);
}

}  // namespace tweedie::detail
