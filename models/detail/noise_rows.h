// noise_rows.h - the noise and the condition of some rows of a call, one entry per row, as a network takes them.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "tweedie/models/network.h"

namespace tweedie::detail {

/// Memory for the rows' entries, used again by the next call.
template <class S>
class NoiseRows {
 public:
  /// Entries of rows [first, first + count): sigma and the condition's parts hold one for all rows or one per row.
  NoiseInput<S> take(std::span<const S> sigma, const Condition* condition, Index first, Index count) {
    const auto n = static_cast<std::size_t>(count);
    const auto at = [&](std::size_t entries, std::size_t r) { return entries == 1 ? 0 : static_cast<std::size_t>(first) + r; };
    sigma_.resize(n);
    for (std::size_t r = 0; r < n; ++r) sigma_[r] = sigma[at(sigma.size(), r)];
    NoiseInput<S> noise{sigma_};
    if (condition == nullptr) return noise;
    if (!condition->labels.empty()) {
      labels_.resize(n);
      for (std::size_t r = 0; r < n; ++r) labels_[r] = condition->labels[at(condition->labels.size(), r)];
      noise.labels = labels_;
    }
    if (const ConstRows<float> c = condition->covariates; !c.empty()) {
      covariates_.resize(n * static_cast<std::size_t>(c.cols()));
      S* to = covariates_.data();
      for (std::size_t r = 0; r < n; ++r) {
        const std::size_t row = at(static_cast<std::size_t>(c.rows()), r);
        for (const float value : c.row(static_cast<Index>(row))) *to++ = static_cast<S>(value);
      }
      noise.covariates = {covariates_.data(), count, c.cols()};
    }
    return noise;
  }

 private:
  std::vector<S> sigma_;
  std::vector<std::int32_t> labels_;
  std::vector<S> covariates_;
};

}  // namespace tweedie::detail
