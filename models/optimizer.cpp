// SPDX-License-Identifier: MIT
#include "tweedie/models/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {

double schedule_factor(const ScheduleOptions& schedule, std::int64_t step, std::int64_t total) {
  check(step >= 0 && step < total, "schedule_factor: step ", step, " of ", total, " steps");
  check(schedule.warmup_steps >= 0, "schedule_factor: warmup_steps is ", schedule.warmup_steps, "; give 0 or more");
  check(schedule.final_fraction >= 0 && schedule.final_fraction <= 1, "schedule_factor: final_fraction is ",
        schedule.final_fraction, "; give a part of the learning rate in [0, 1]");
  if (step < schedule.warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.kind == LearningRate::constant) return 1;
  const double r = static_cast<double>(step - schedule.warmup_steps) / static_cast<double>(total - schedule.warmup_steps);
  return schedule.final_fraction + (1 - schedule.final_fraction) * .5 * (1 + std::cos(std::numbers::pi * r));
}

double ema_decay(double decay, bool warmup, std::int64_t step) {
  check(decay >= 0 && decay < 1, "ema: the decay is ", decay, "; give a number in [0, 1), 0 for no average");
  if (!warmup) return decay;
  return std::min(decay, (1 + static_cast<double>(step)) / (10 + static_cast<double>(step)));
}

double clip_scale(double norm, double max_norm) {
  check(max_norm >= 0, "clip_scale: the largest norm is ", max_norm, "; give 0 (no clipping) or more");
  return max_norm == 0 ? 1 : std::min(1.0, max_norm / (norm + 1e-6));
}

namespace {
// Elements of one partial sum, and of one piece of work: fixed, so that no thread count changes a rounding.
constexpr Index kLeaf = 4096;
}  // namespace

template <class S>
AdamX<S>::AdamX(Index size, const AdamOptions& options)
    : options_(options), m_(size), v_(size), leaf_sums_((size + kLeaf - 1) / kLeaf) {
  for (const double beta : {options.beta1, options.beta2}) {
    check(beta >= 0 && beta < 1, "Adam: a beta is ", beta, "; give a number in [0, 1)");
  }
  check(options.epsilon > 0, "Adam: epsilon is ", options.epsilon, "; give a positive number");
  check(options.weight_decay >= 0, "Adam: weight_decay is ", options.weight_decay, "; give 0 or more");
}

template <class S>
void AdamX<S>::update(const Step& step, std::span<const S> gradient, std::span<S> parameters, std::span<S> ema) {
  const auto n = static_cast<std::size_t>(m_.size());
  check(gradient.size() == n && parameters.size() == n && (ema.empty() || ema.size() == n), "Adam::update: ", gradient.size(),
        " gradients, ", parameters.size(), " parameters and ", ema.size(), " averages; made for ", n);
  ++steps_;
  const kernels::AdamStep kernel{.learning_rate = step.learning_rate,
                                 .beta1 = options_.beta1,
                                 .beta2 = options_.beta2,
                                 .epsilon = options_.epsilon,
                                 .weight_decay = options_.weight_decay,
                                 .ema_decay = step.ema_decay,
                                 .gradient_scale = step.gradient_scale,
                                 .step = steps_};
  parallel_for(m_.size(), kLeaf, [&](Index begin, Index end) {
    kernels::adam_ema(kernel, end - begin, gradient.data() + begin, parameters.data() + begin, m_.data() + begin,
                      v_.data() + begin, ema.empty() ? nullptr : ema.data() + begin);
  });
}

template <class S>
double AdamX<S>::norm(std::span<const S> gradient) {
  check(gradient.size() == static_cast<std::size_t>(m_.size()), "Adam::norm: ", gradient.size(), " gradients; made for ",
        m_.size());
  const auto n = static_cast<Index>(gradient.size());
  parallel_for(leaf_sums_.size(), 1, [&](Index begin, Index end) {
    for (Index leaf = begin; leaf < end; ++leaf) {
      leaf_sums_[leaf] = kernels::sum_squares(std::min(kLeaf, n - leaf * kLeaf), gradient.data() + leaf * kLeaf);
    }
  });
  double sum = 0;
  for (const double leaf : leaf_sums_) sum += leaf;
  return std::sqrt(sum);
}

template <class S>
void AdamX<S>::restore(std::int64_t steps, std::span<const S> exp_avg, std::span<const S> exp_avg_sq) {
  const auto n = static_cast<std::size_t>(m_.size());
  check(steps >= 0 && exp_avg.size() == n && exp_avg_sq.size() == n, "Adam::restore: step ", steps, ", moments of ",
        exp_avg.size(), " and ", exp_avg_sq.size(), " values; made for ", n);
  std::copy(exp_avg.begin(), exp_avg.end(), m_.begin());
  std::copy(exp_avg_sq.begin(), exp_avg_sq.end(), v_.begin());
  steps_ = steps;
}

template class AdamX<float>;
template class AdamX<double>;

}  // namespace tweedie
