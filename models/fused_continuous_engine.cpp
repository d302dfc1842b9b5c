// fused_continuous_engine.cpp - the mlp for any noise level trained by one kernel for the whole forward and backward pass.
//
// With u = a x + b F(c_in x) (continuous_network.h) the denoising loss of a row is
//   w/2 |u + eps|^2 = w/2 |b F + (a x + eps)|^2,
// which is kernels::mlp_gradient's at the inputs c_in x, the targets a x + eps and the scale b. F's first bias is a code of the
// row:
//   e = silu(f W_s^T + c),  c = b_s + label_embedding[label] + (covariates W_c^T + b_c, or null),   first bias = e W_e^T + b_0
// The kernel takes the features f and c and returns dc, which is summed up to what c is made of.
// A learned log-variance v = f W_v^T + b_v makes w e^-v of the weight and adds D v / 2:  dv = (D / 2 - loss of the kernel) / B.
// Shapes: f (B, 2 num_frequencies), c (B, E), or (1, E) without a condition. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/core/parallel.h"
#include "tweedie/models/detail/fused_engine.h"
#include "tweedie/models/detail/parametrisation.h"
#include "tweedie/models/detail/trunk.h"

namespace tweedie::detail {

namespace {

class ContinuousEngine final : public FusedEngine {
 public:
  ContinuousEngine(const ContinuousScoreNetwork& network, const Objective& objective)
      : FusedEngine(network),
        options_(network.options()),
        objective_(objective),
        trunk_(network.name(), options_, network.buffers().at("sigma_embedding.frequencies")),
        parts_(trunk_.parts()) {
    check_objective(objective);
    net_.layers = static_cast<int>(options_.num_layers);
    code_.layers = 2;
  }

 private:
  Index embedding() const { return options_.embedding_dim; }
  Index features() const { return 2 * options_.num_frequencies; }
  bool conditional() const { return parts_.label >= 0 || parts_.covariate >= 0; }
  bool varies() const { return parts_.log_variance >= 0; }
  static bool dropped(const Batch& batch, Index b) { return batch.dropped.size() > 0 && batch.dropped[b] != 0; }

  kernels::MlpBatch prepare(const float* flat, const Batch& batch) override {
    const Index rows = batch.rows();
    trunk_.check_noise(rows, batch.noise());
    for (Buffer<float>* column : {&scale_, &weight_, &variance_}) grow(*column, rows);
    for (Buffer<float>* block : {&x_, &target_}) grow(*block, rows * dim_);
    grow(features_, rows * features());
    tweedie::parallel_for(rows, kLeafRows, [&](Index begin, Index end) {
      trunk_.write_features(batch.sigma.span().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
                            features_.data() + begin * features());
      for (Index b = begin; b < end; ++b) prepare_row(flat, batch, b);
    });
    if (conditional()) first_bias_of_code(flat, batch);
    set_networks(flat, rows);
    return {.rows = rows,
            .x = x_.data(),
            .eps = target_.data(),
            .scale = scale_.data(),
            .weight = weight_.data(),
            .code = &code_,
            .features = features_.data()};
  }

  void prepare_row(const float* flat, const Batch& batch, Index b) {
    const double sigma = static_cast<double>(batch.sigma[b]), c_in = trunk_.c_in(sigma);
    const Coefficients c = coefficients(options_, sigma);
    for (Index i = b * dim_; i < (b + 1) * dim_; ++i) {
      const double x = static_cast<double>(batch.x.data()[i]);
      x_[i] = static_cast<float>(c_in * x);
      target_[i] = static_cast<float>(c.a * x + static_cast<double>(batch.eps.data()[i]));
    }
    scale_[b] = static_cast<float>(c.b);
    double weight = loss_weight(objective_, sigma);
    if (varies()) {
      const float *f = features_.data() + b * features(), *w = flat + layout_[parts_.log_variance].offset;
      double v = static_cast<double>(flat[layout_[parts_.log_variance + 1].offset]);
      for (Index k = 0; k < features(); ++k) v += static_cast<double>(f[k]) * static_cast<double>(w[k]);
      variance_[b] = static_cast<float>(v);
      weight *= std::exp(-v);
    }
    weight_[b] = static_cast<float>(weight);
  }

  // c of each row; the covariates of rows that go without are zero.
  void first_bias_of_code(const float* flat, const Batch& batch) {
    const Index rows = batch.rows(), size = embedding(), width = options_.covariate_dim;
    const bool covariates = batch.covariates.rows() > 0;
    const auto tensor = [&](Index t) { return flat + layout_[t].offset; };
    grow(code_bias_, rows * size), grow(code_bias_gradient_, rows * size);
    grow(covariates_, rows * width), grow(label_, rows);
    for (Index b = 0; b < rows; ++b) {
      float* const c = code_bias_.data() + b * size;
      const auto add = [&](const float* from) {
        for (Index i = 0; i < size; ++i) c[i] += from[i];
      };
      std::copy_n(tensor(1), size, c);
      const bool without = dropped(batch, b);
      if (parts_.label >= 0) {
        label_[b] = static_cast<std::int32_t>(options_.num_classes);  // the null row
        if (!without && batch.labels.size() > 0) {
          label_[b] = batch.labels[b];
          check(label_[b] >= 0 && label_[b] < options_.num_classes, "training step: row ", b, " has label ", label_[b],
                ", expected 0 to ", options_.num_classes - 1);
        }
        add(tensor(parts_.label) + label_[b] * size);
      }
      if (parts_.covariate >= 0) {
        const bool null = without || !covariates;
        add(tensor(parts_.covariate + (null ? 2 : 1)));
        float* const to = covariates_.data() + b * width;
        null ? std::fill_n(to, width, 0.f) : std::copy_n(batch.covariates.row(b).data(), width, to);
      }
    }
    if (covariates) {
      kernels::gemm({.m = rows, .n = size, .k = width, .transpose_b = true, .beta = 1}, covariates_.data(), width,
                    tensor(parts_.covariate), width, code_bias_.data(), size);
    }
  }

  void set_networks(const float* flat, Index rows) {
    const auto tensor = [&](Index t) { return flat + layout_[t].offset; };
    const auto hidden = static_cast<int>(options_.hidden_dim), size = static_cast<int>(embedding());
    code_.levels = conditional() ? static_cast<int>(rows) : 1;
    code_.layer[0] = {tensor(0), conditional() ? code_bias_.data() : tensor(1), static_cast<int>(features()), size};
    code_.layer[1] = {tensor(parts_.body), tensor(parts_.body + 2), size, hidden};
    for (int i = 0; i < net_.layers; ++i) {
      const ParameterTensor& w = layout_[parts_.body + 1 + 2 * i];
      net_.layer[i] = {flat + w.offset, i == 0 ? nullptr : tensor(parts_.body + 2 + 2 * i), static_cast<int>(w.cols),
                       static_cast<int>(w.rows)};
    }
  }

  Gradients gradients(float* gradient) override {
    const auto tensor = [&](Index t) { return gradient + layout_[t].offset; };
    Gradients to;
    to.code.weight[0] = tensor(0), to.code.stride[0] = features();
    to.code.bias[0] = conditional() ? code_bias_gradient_.data() : tensor(1);
    to.code.weight[1] = tensor(parts_.body), to.code.stride[1] = embedding();
    to.code.bias[1] = tensor(parts_.body + 2);
    for (int i = 0; i < net_.layers; ++i) {
      to.body.weight[i] = tensor(parts_.body + 1 + 2 * i);
      to.body.stride[i] = layout_[parts_.body + 1 + 2 * i].cols;
      to.body.bias[i] = i == 0 ? nullptr : tensor(parts_.body + 2 + 2 * i);
    }
    return to;
  }

  void finish_losses(std::span<float> row_losses) override {
    if (!varies()) return;
    for (std::size_t b = 0; b < row_losses.size(); ++b) {
      row_losses[b] += .5f * static_cast<float>(dim_) * variance_[static_cast<Index>(b)];
    }
  }

  void finish_gradient(const float*, const Batch& batch, std::span<const float> row_losses, float* gradient) override {
    if (conditional()) condition_gradient(batch, gradient);
    if (varies()) variance_gradient(row_losses, gradient);
  }

  // From dc to b_s, the labels' embedding, W_c, b_c and the null, row after row.
  void condition_gradient(const Batch& batch, float* gradient) const {
    const Index rows = batch.rows(), size = embedding(), width = options_.covariate_dim;
    const bool covariates = batch.covariates.rows() > 0;
    const auto tensor = [&](Index t) { return gradient + layout_[t].offset; };
    const auto zero = [&](Index t) { std::fill_n(tensor(t), layout_[t].size(), 0.f); };
    zero(1);
    if (parts_.label >= 0) zero(parts_.label);
    if (parts_.covariate >= 0) zero(parts_.covariate), zero(parts_.covariate + 1), zero(parts_.covariate + 2);
    for (Index b = 0; b < rows; ++b) {
      const float* const dc = code_bias_gradient_.data() + b * size;
      const auto add = [&](float* to) {
        for (Index i = 0; i < size; ++i) to[i] += dc[i];
      };
      add(tensor(1));
      if (parts_.label >= 0) add(tensor(parts_.label) + label_[b] * size);
      if (parts_.covariate >= 0) add(tensor(parts_.covariate + (dropped(batch, b) || !covariates ? 2 : 1)));
    }
    if (covariates) {
      kernels::gemm({.m = size, .n = width, .k = rows, .transpose_a = true}, code_bias_gradient_.data(), size, covariates_.data(),
                    width, tensor(parts_.covariate), width);
    }
  }

  // row_losses: the kernel's, w e^-v/2 |u + eps|^2.
  void variance_gradient(std::span<const float> row_losses, float* gradient) {
    grow(sums_, features());
    std::fill_n(sums_.data(), features(), 0.);
    double bias = 0;
    for (std::size_t b = 0; b < row_losses.size(); ++b) {
      const double dv = .5 * static_cast<double>(dim_) - static_cast<double>(row_losses[b]);
      const float* const f = features_.data() + static_cast<Index>(b) * features();
      for (Index k = 0; k < features(); ++k) sums_[k] += dv * static_cast<double>(f[k]);
      bias += dv;
    }
    const double rows = static_cast<double>(row_losses.size());
    float* const to = gradient + layout_[parts_.log_variance].offset;
    for (Index k = 0; k < features(); ++k) to[k] = static_cast<float>(sums_[k] / rows);
    gradient[layout_[parts_.log_variance + 1].offset] = static_cast<float>(bias / rows);
  }

  const ContinuousNetworkOptions options_;
  const Objective objective_;
  const Trunk trunk_;
  const Trunk::Parts parts_;
  kernels::Mlp code_;
  Buffer<float> x_, target_, features_;           // (B, D) c_in x and a x + eps, (B, 2 num_frequencies)
  Buffer<float> scale_, weight_, variance_;       // (B)
  Buffer<float> code_bias_, code_bias_gradient_;  // (B, E), of a network with conditions
  Buffer<float> covariates_;                      // (B, C)
  Buffer<std::int32_t> label_;                    // (B) rows of the labels' embedding
  Buffer<double> sums_;                           // (2 num_frequencies)
};

}  // namespace

std::unique_ptr<TrainingEngine> make_fused_continuous_engine(const ContinuousScoreNetwork& network, const Objective& objective) {
  return std::make_unique<ContinuousEngine>(network, objective);
}

}  // namespace tweedie::detail
