// fused_engine.cpp - networks trained by one kernel for the whole forward and backward pass; the chapter's among them.
//
//   level bias = E W_e^T + b_0  ->  kernels::mlp_gradient  ->  dW_x, d(level bias), dW_i, db_i
//   dE = d(level bias) W_e,   dW_e = d(level bias)^T E,   db_0 = sum over levels of d(level bias)
// Threads share its leaves of rows and its panels of weights; the order of every sum is fixed by the batch's size, so a step has
// the same bits on any number of threads. It agrees with the tape within rounding, not bit by bit. SPDX-License-Identifier: MIT
#include <algorithm>
#include <numeric>

#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/detail/fused_engine.h"
#include "tweedie/models/score_network.h"

namespace tweedie::detail {

// ---- What the engines share

FusedEngine::FusedEngine(const Network& network)
    : layout_(network.layout()), dim_(network.dim()), name_(join("fused, cpu ", kernels::name(kernels::target()), ", fp32")) {}

namespace {

double mean(std::span<const float> row_losses) {
  double sum = 0;
  for (const float loss : row_losses) sum += static_cast<double>(loss);
  return sum / static_cast<double>(row_losses.size());
}

}  // namespace

kernels::MlpBatch FusedEngine::checked(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) {
  check(parameters.size() == static_cast<std::size_t>(layout_.size()), "training step: ", parameters.size(),
        " parameters, the network has ", layout_.size());
  check(batch.x.cols() == dim_ && batch.eps.rows() == batch.rows() && batch.eps.cols() == dim_, "training step: the batch is ",
        shape(batch.x), ", its noise ", shape(batch.eps), ", the network's dimension is ", dim_);
  check(row_losses.size() == static_cast<std::size_t>(batch.rows()), "training step: room for ", row_losses.size(),
        " row losses, the batch has ", batch.rows(), " rows");
  return prepare(parameters.data(), batch);
}

double FusedEngine::loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient,
                                      std::span<float> row_losses) {
  check(gradient.size() == static_cast<std::size_t>(layout_.size()), "loss_and_gradient: the gradient has ", gradient.size(),
        " values, the network ", layout_.size(), " parameters");
  const kernels::MlpBatch rows = checked(parameters, batch, row_losses);
  const Gradients to = gradients(gradient.data());
  grow(workspace_, kernels::mlp_gradient_workspace(net_, rows));
  kernels::mlp_gradient(net_, rows, workspace_.data(), row_losses.data(), to.body, rows.code != nullptr ? &to.code : nullptr);
  finish_gradient(parameters.data(), batch, row_losses, gradient.data());
  finish_losses(row_losses);
  return mean(row_losses);
}

const float* FusedEngine::packed(const kernels::Mlp& net) {
  grow(packed_, kernels::packed_mlp_size(net));
  kernels::pack_mlp(net, packed_.data());
  return packed_.data();
}

const int* FusedEngine::own_levels(Index rows) {
  if (own_levels_.size() < rows) {
    own_levels_ = Buffer<int>(rows);
    std::iota(own_levels_.begin(), own_levels_.end(), 0);
  }
  return own_levels_.data();
}

// The outputs F of a batch.
void FusedEngine::forward(const kernels::MlpBatch& rows) {
  kernels::Mlp net = net_;
  const int* level = rows.level;
  if (rows.code != nullptr) {
    const int width = net.layer[0].out;
    grow(first_bias_, rows.rows * width);
    kernels::mlp_forward(*rows.code, packed(*rows.code), rows.rows, rows.features, rows.code->layer[0].in,
                         rows.code->levels == 1 ? nullptr : own_levels(rows.rows), first_bias_.data(), width);
    net.layer[0].bias = first_bias_.data();
    net.levels = static_cast<int>(rows.rows);
    level = own_levels(rows.rows);
  }
  grow(output_, rows.rows * dim_);
  kernels::mlp_forward(net, packed(net), rows.rows, rows.x, dim_, level, output_.data(), dim_);
}

double FusedEngine::loss(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) {
  const kernels::MlpBatch rows = checked(parameters, batch, row_losses);
  forward(rows);
  for (Index b = 0; b < rows.rows; ++b) {
    const float scale = rows.scale == nullptr ? 1.0f : rows.scale[b], w = rows.weight == nullptr ? 1.0f : rows.weight[b];
    double sum = 0;
    for (Index i = b * dim_; i < (b + 1) * dim_; ++i) {
      const float residual = scale * output_[i] + rows.eps[i];
      sum += static_cast<double>(residual) * static_cast<double>(residual);
    }
    row_losses[static_cast<std::size_t>(b)] = static_cast<float>(.5 * static_cast<double>(w) * sum);
  }
  finish_losses(row_losses);
  return mean(row_losses);
}

// ---- The chapter's network

namespace {

class LevelsEngine final : public FusedEngine {
 public:
  static constexpr Index kColumns = 32;  // of the level biases, a thread's least

  LevelsEngine(const NoiseConditionalScoreNetwork& network, const Objective& objective)
      : FusedEngine(network),
        hidden_dim_(network.options().hidden_dim),
        levels_(network.levels()->size()),
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

 private:
  // The network at these parameters, its level biases; the rows.
  kernels::MlpBatch prepare(const float* flat, const Batch& batch) override {
    check(batch.level.size() == batch.rows(), "training step: the batch of ", batch.rows(), " rows has ", batch.level.size(),
          " levels; the fused engine trains on the network's levels: use SigmaSampling::levels, or engine tape for any sigma");
    const ParameterTensor& first = layout_[1];
    for (Index r = 0; r < hidden_dim_; ++r) std::copy_n(flat + first.offset + r * first.cols, dim_, from_x_.row(r).data());
    const float *embedding = flat + layout_[0].offset, *from_level = flat + first.offset + dim_, *b0 = flat + layout_[2].offset;
    tweedie::parallel_for(hidden_dim_, kColumns, [&](Index begin, Index end) {
      for (Index l = 0; l < levels_; ++l) std::copy(b0 + begin, b0 + end, level_bias_.row(l).data() + begin);
      kernels::gemm({.m = levels_, .n = end - begin, .k = hidden_dim_, .transpose_b = true, .beta = 1}, embedding, hidden_dim_,
                    from_level + begin * first.cols, first.cols, level_bias_.data() + begin, hidden_dim_);
    });
    for (int i = 0; i < net_.layers; ++i) {
      const ParameterTensor& w = layout_[2 * i + 1];
      net_.layer[i] = {i == 0 ? from_x_.data() : flat + w.offset, i == 0 ? level_bias_.data() : flat + layout_[2 * i + 2].offset,
                       static_cast<int>(i == 0 ? dim_ : w.cols), static_cast<int>(w.rows)};
    }
    if (weighted_) {
      grow(weights_, batch.rows());
      for (Index b = 0; b < batch.rows(); ++b) {
        const std::int32_t level = batch.level[b];
        check(level >= 0 && level < levels_, "training step: level ", level, ", the network has ", levels_);
        weights_[b] = level_weights_[level];
      }
    }
    return {.rows = batch.rows(),
            .x = batch.x.data(),
            .eps = batch.eps.data(),
            .level = batch.level.data(),
            .weight = weighted_ ? weights_.data() : nullptr};
  }

  Gradients gradients(float* gradient) override {
    Gradients to;
    for (int i = 0; i < net_.layers; ++i) {
      const ParameterTensor& w = layout_[2 * i + 1];
      to.body.weight[i] = gradient + w.offset;
      to.body.stride[i] = w.cols;
      to.body.bias[i] = i == 0 ? level_bias_gradient_.data() : gradient + layout_[2 * i + 2].offset;
    }
    return to;
  }

  void finish_gradient(const float* flat, const Batch&, std::span<const float>, float* gradient) override {
    const Index h = hidden_dim_, ld = dim_ + h;
    const float *embedding = flat + layout_[0].offset, *from_level = flat + layout_[1].offset + dim_,
                *d = level_bias_gradient_.data();
    float *const to_embedding = gradient + layout_[0].offset, *const to_weight = gradient + layout_[1].offset + dim_,
                 *const to_bias = gradient + layout_[2].offset;
    tweedie::parallel_for(h, kColumns, [&](Index begin, Index end) {
      kernels::gemm({.m = levels_, .n = end - begin, .k = h}, d, h, from_level + begin, ld, to_embedding + begin, h);
      kernels::gemm({.m = end - begin, .n = h, .k = levels_, .transpose_a = true}, d + begin, h, embedding, h,
                    to_weight + begin * ld, ld);
      std::copy(d + begin, d + end, to_bias + begin);
      for (Index l = 1; l < levels_; ++l) {
        for (Index i = begin; i < end; ++i) to_bias[i] += d[l * h + i];
      }
    });
  }

  const Index hidden_dim_, levels_;
  Matrix from_x_;                            // (H, D) W_x, the first layer's part for x
  Matrix level_bias_, level_bias_gradient_;  // (L, H)
  Buffer<float> level_weights_;              // (L) w(sigma_l)
  bool weighted_ = false;                    // a weight is not 1
  Buffer<float> weights_;                    // (B)
};

}  // namespace

std::unique_ptr<TrainingEngine> make_fused_engine(const Network& model, const Objective& objective) {
  const bool denoising = std::holds_alternative<Denoising>(objective) || std::holds_alternative<FlowMatching>(objective);
  if (!denoising) return nullptr;
  if (const auto* levels = dynamic_cast<const NoiseConditionalScoreNetwork*>(&model)) {
    if (levels->options().num_layers > kernels::Mlp::kMaxLayers) return nullptr;
    return std::make_unique<LevelsEngine>(*levels, objective);
  }
  const auto* continuous = dynamic_cast<const ContinuousScoreNetwork*>(&model);
  if (continuous == nullptr || continuous->options().architecture != Architecture::mlp ||
      continuous->options().num_layers > kernels::Mlp::kMaxLayers) {
    return nullptr;
  }
  return make_fused_continuous_engine(*continuous, objective);
}

}  // namespace tweedie::detail
