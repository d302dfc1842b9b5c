// c2st.cpp - the classifier by hand: units are rows and a batch's samples columns, so that the products are wide.
//
//   A0 (D + 1, B) = standardised rows, transposed, under a row of ones     W1 (H, D + 1), W2 (H, H + 1), W3 (1, H + 1)
//   A1 = relu(W1 A0), A2 = relu(W2 A1), each over a row of ones; logit = W3 A2; p = sigmoid(logit)
//   dlogit = (p - label) / B;  dW = dZ A^T + alpha W / B (biases, the last columns, are not decayed);  dA = W^T dZ;  dZ = dA [A >
//   0]
// SPDX-License-Identifier: MIT
#include "tweedie/samplers/c2st.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {
namespace {

// scikit-learn's defaults (sklearn.neural_network.MLPClassifier, version 1.9).
constexpr Index kBatch = 200;
constexpr double kLearningRate = 1e-3;
constexpr float kAlpha = 1e-4F;
constexpr double kTolerance = 1e-4;
constexpr int kPatience = 10;

/// Rows of both sets, standardised; label 1 marks the samples.
struct Labelled {
  Matrix rows;                // (N, D)
  std::vector<float> labels;  // (N)
};

Labelled standardise(ConstRows<float> reference, ConstRows<float> samples) {
  const Index n = reference.rows(), dim = reference.cols();
  const MatrixD mean = column_mean(reference), moments = column_moments(reference);
  Labelled all{Matrix(n + samples.rows(), dim), std::vector<float>(static_cast<std::size_t>(n + samples.rows()))};
  for (Index c = 0; c < dim; ++c) {
    const double deviation = std::sqrt(moments(1, c) * static_cast<double>(n) / static_cast<double>(n - 1));
    check<DataError>(deviation > 0, "c2st: column ", c, " of the reference is constant; leave it out of both sets");
    for (Index r = 0; r < all.rows.rows(); ++r) {
      const float value = r < n ? reference(r, c) : samples(r - n, c);
      check<DataError>(std::isfinite(value), "c2st: the samples hold ", value, " at row ", r - n, ", column ", c,
                       "; remove such rows first");
      all.rows(r, c) = static_cast<float>((static_cast<double>(value) - mean(0, c)) / deviation);
    }
  }
  std::fill(all.labels.begin() + n, all.labels.end(), 1.0F);
  return all;
}

/// A uniform shuffle in place by Fisher and Yates; position i takes one of i + 1 by the high half of word * (i + 1), whose bias
/// is below (i + 1) 2^-32.
void shuffle(std::vector<Index>& order, const Rng& rng, std::uint32_t step) {
  std::uint32_t words[4] = {};
  for (std::size_t i = order.size() - 1, drawn = 0; i > 0; --i, ++drawn) {
    if (drawn % 4 == 0) rng.words(Purpose::permutation, step, drawn / 4, 0, 0, words);
    std::swap(order[i], order[static_cast<std::size_t>((std::uint64_t{words[drawn % 4]} * (i + 1)) >> 32)]);
  }
}

class Classifier {
 public:
  Classifier(Index dim, Index hidden, const Rng& rng) : inputs_{dim, hidden, hidden}, outputs_{hidden, hidden, 1} {
    Index size = 0;
    for (std::size_t l = 0; l < kLayers; ++l) {
      offset_[l] = size;
      size += outputs_[l] * (inputs_[l] + 1);
      activations_[l] = Matrix(inputs_[l] + 1, kBatch);
      std::fill_n(activations_[l].data() + inputs_[l] * kBatch, kBatch, 1.0F);
    }
    gradient_ = Buffer<float>(size);
    first_ = Buffer<float>(size);
    second_ = Buffer<float>(size);
    dz_ = Matrix(hidden, kBatch);
    da_ = Matrix(hidden, kBatch);
    Matrix uniform(1, size);
    rng.uniforms(Purpose::initialise, 0, 0, uniform.view());
    weights_ = Buffer<float>(size);
    for (std::size_t l = 0; l < kLayers; ++l) {
      const double bound = std::sqrt(6.0 / static_cast<double>(inputs_[l] + outputs_[l]));
      for (Index i = offset_[l]; i < offset_[l] + outputs_[l] * (inputs_[l] + 1); ++i) {
        weights_[i] = static_cast<float>(bound * (2 * static_cast<double>(uniform(0, i)) - 1));
      }
    }
  }

  /// One update from the given rows (at most kBatch); returns their mean loss, decay included, times their number.
  double train(const Labelled& data, const Index* rows, Index count, std::int64_t step) {
    forward(data, rows, count);
    const float scale = 1 / static_cast<float>(count);
    double loss = 0;
    for (Index b = 0; b < count; ++b) {
      const float z = logits_[static_cast<std::size_t>(b)], y = data.labels[static_cast<std::size_t>(rows[b])];
      // log(1 + e^z) - y z, without overflow.
      loss += static_cast<double>(std::max(z, 0.0F) + std::log1p(std::exp(-std::abs(z))) - y * z);
      logits_[static_cast<std::size_t>(b)] = (1 / (1 + std::exp(-z)) - y) * scale;
    }
    const double decay = backward(count, scale);
    kernels::adam_ema({.learning_rate = kLearningRate, .step = step}, weights_.size(), gradient_.data(), weights_.data(),
                      first_.data(), second_.data(), nullptr);
    return loss + decay / 2;
  }

  /// How many of the rows the network puts into their set.
  Index correct(const Labelled& data, const std::vector<Index>& rows) {
    Index right = 0;
    const auto n = static_cast<Index>(rows.size());
    for (Index begin = 0; begin < n; begin += kBatch) {
      const Index count = std::min(kBatch, n - begin);
      const Index* const batch = rows.data() + begin;
      forward(data, batch, count);
      for (Index b = 0; b < count; ++b) {
        right += (logits_[static_cast<std::size_t>(b)] > 0) == (data.labels[static_cast<std::size_t>(batch[b])] > 0) ? 1 : 0;
      }
    }
    return right;
  }

 private:
  static constexpr std::size_t kLayers = 3;

  void forward(const Labelled& data, const Index* rows, Index count) {
    for (Index b = 0; b < count; ++b) {
      const std::span<const float> row = data.rows.row(rows[b]);
      for (Index d = 0; d < inputs_[0]; ++d) activations_[0](d, b) = row[static_cast<std::size_t>(d)];
    }
    for (std::size_t l = 0; l < kLayers; ++l) {
      float* const z = l + 1 < kLayers ? activations_[l + 1].data() : logits_.data();
      kernels::gemm({.m = outputs_[l], .n = count, .k = inputs_[l] + 1}, weights_.data() + offset_[l], inputs_[l] + 1,
                    activations_[l].data(), kBatch, z, kBatch);
      if (l + 1 == kLayers) break;
      for (Index i = 0; i < outputs_[l] * kBatch; ++i) z[i] = std::max(z[i], 0.0F);
    }
  }

  /// The gradient of the batch's loss from dlogit in logits_; returns alpha |weights|^2.
  double backward(Index count, float scale) {
    const float* dz = logits_.data();
    double squares = 0;
    for (std::size_t l = kLayers; l-- > 0;) {
      const Index in = inputs_[l], out = outputs_[l];
      const float* const w = weights_.data() + offset_[l];
      float* const dw = gradient_.data() + offset_[l];
      kernels::gemm({.m = out, .n = in + 1, .k = count, .transpose_b = true}, dz, kBatch, activations_[l].data(), kBatch, dw,
                    in + 1);
      for (Index o = 0; o < out; ++o) {
        for (Index i = 0; i < in; ++i) {
          const float weight = w[o * (in + 1) + i];
          squares += static_cast<double>(weight) * static_cast<double>(weight);
          dw[o * (in + 1) + i] += kAlpha * scale * weight;
        }
      }
      if (l == 0) break;
      kernels::gemm({.m = in, .n = count, .k = out, .transpose_a = true}, w, in + 1, dz, kBatch, da_.data(), kBatch);
      const float* const a = activations_[l].data();
      for (Index i = 0; i < in * kBatch; ++i) dz_.data()[i] = a[i] > 0 ? da_.data()[i] : 0.0F;
      dz = dz_.data();
    }
    return static_cast<double>(kAlpha) * squares;
  }

  std::array<Index, kLayers> inputs_, outputs_, offset_{};
  Buffer<float> weights_, gradient_, first_, second_;  // layers one after the other, each (outputs, inputs + 1)
  std::array<Matrix, kLayers> activations_;            // (inputs + 1, kBatch), the last row ones
  Matrix dz_, da_;                                     // (hidden, kBatch)
  std::array<float, kBatch> logits_{};
};

struct Fold {
  double accuracy = 0;
  int epochs = 0;
};

Fold run_fold(const Labelled& data, std::vector<Index> train, const std::vector<Index>& held_out, const C2stOptions& options,
              const Rng& rng) {
  const Index dim = data.rows.cols(), n = static_cast<Index>(train.size());
  Classifier network(dim, options.hidden > 0 ? options.hidden : 10 * dim, rng);
  double best = std::numeric_limits<double>::infinity();
  std::int64_t step = 0;
  int epoch = 0, stale = 0;
  while (epoch < options.max_epochs && stale <= kPatience) {
    shuffle(train, rng, static_cast<std::uint32_t>(epoch++));
    double loss = 0;
    for (Index begin = 0; begin < n; begin += kBatch) {
      loss += network.train(data, train.data() + begin, std::min(kBatch, n - begin), ++step);
    }
    loss /= static_cast<double>(n);
    stale = loss > best - kTolerance ? stale + 1 : 0;
    best = std::min(best, loss);
  }
  return {static_cast<double>(network.correct(data, held_out)) / static_cast<double>(held_out.size()), epoch};
}

}  // namespace

C2st c2st(ConstRows<float> reference, ConstRows<float> samples, const C2stOptions& options, const Rng& rng) {
  check(reference.cols() == samples.cols() && reference.cols() >= 1, "c2st: the reference has shape ", shape(reference),
        ", the samples ", shape(samples), "; they need the same number of columns, at least 1");
  check(reference.rows() >= 2 && samples.rows() >= 1, "c2st: ", reference.rows(), " reference rows and ", samples.rows(),
        " samples; at least 2 and 1 are needed");
  const Index n = reference.rows() + samples.rows();
  check(options.folds >= 2 && options.folds <= n, "c2st: folds = ", options.folds, "; it must lie between 2 and the ", n,
        " rows");
  check(options.hidden >= 0 && options.max_epochs >= 1, "c2st: hidden = ", options.hidden, ", max_epochs = ", options.max_epochs,
        "; they must be at least 0 (for 10 D) and 1");
  const Labelled data = standardise(reference, samples);

  Rng stream = rng;
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  shuffle(order, stream.split(), 0);
  std::vector<Rng> streams;
  for (int k = 0; k < options.folds; ++k) streams.push_back(stream.split());

  std::vector<Fold> folds(static_cast<std::size_t>(options.folds));
  parallel_for(options.folds, 1, [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      // The first n mod folds folds hold one row more.
      const auto cut = [&](Index fold) { return fold * (n / options.folds) + std::min(fold, n % options.folds); };
      const auto first = order.begin() + cut(k), last = order.begin() + cut(k + 1);
      std::vector<Index> train(order.begin(), first);
      train.insert(train.end(), last, order.end());
      const auto fold = static_cast<std::size_t>(k);
      folds[fold] = run_fold(data, std::move(train), std::vector<Index>(first, last), options, streams[fold]);
    }
  });

  C2st result;
  for (const Fold& fold : folds) {
    result.accuracies.push_back(fold.accuracy);
    result.epochs.push_back(fold.epochs);
    result.accuracy += fold.accuracy / options.folds;
  }
  result.standard_error = std::sqrt(2 * result.accuracy * (1 - result.accuracy) / static_cast<double>(n));
  return result;
}

}  // namespace tweedie
