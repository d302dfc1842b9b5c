// post_hoc_ema.h - averages of the weights whose length is chosen after training.
//
//   a_g(t) = (g + 1) / t^(g+1) int_0^t tau^g theta(tau) dtau,  a_g(t) = b a_g(t - 1) + (1 - b) theta_t,  b = (1 - 1/t)^(g+1)
//                                                                            [Karras et al. 2024, Eq. 3-4]
// The profile p_g,t(tau) = (g + 1) tau^g / t^(g+1) on [0, t] has the relative width sigma_rel = sqrt(g + 1) / ((g + 2) sqrt(g +
// 3)), its deviation over t. With theta(tau) = theta_s on (s - 1, s] the recursion is the integral exactly. Training keeps two
// such averages, of sigma_rel .05 and .10, and puts copies of them by. Any other is then their combination sum_i x_i a_i: the x
// that brings sum_i x_i p_i nearest to the profile wanted, in int (difference)^2 dtau [ibid., Sec. 3.2 and App. C], here among
// those with sum_i x_i = 1, so that weights that stand still are given back whatever the copies. With the residual r = p - sum_i
// x_i p_i the result is int r (theta - c) dtau off the average wanted, for any constant c. SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "tweedie/core/buffer.h"
#include "tweedie/models/checkpoint.h"

namespace tweedie {

/// p(tau) = (gamma + 1) tau^gamma / time^(gamma + 1) on [0, time].
struct PowerProfile {
  double gamma = 0;
  double time = 1;
};

/// The exponent of the profile with this relative width. Throws UsageError unless 0 < sigma_rel <= 1 / sqrt(12), where gamma = 0:
/// the plain mean of the whole run.
TWEEDIE_API double power_of(double sigma_rel);
TWEEDIE_API double sigma_rel_of(double gamma);
/// int p q dtau.
TWEEDIE_API double inner_product(const PowerProfile& p, const PowerProfile& q);

struct ProfileFit {
  std::vector<double> weights;  // one per profile stored, of sum 1
  double error = 0;             // sqrt(int r^2 / int p^2), of the residual r and the profile wanted p
};
/// The combination of `stored` profiles nearest to `wanted`. Throws UsageError for no profiles, or a time that is not positive.
TWEEDIE_API ProfileFit fit_profile(std::span<const PowerProfile> stored, const PowerProfile& wanted);

/// The averages of a run, and the copies of them that were put by.
class TWEEDIE_API PostHocEma {
 public:
  static constexpr std::array<double, 2> kSigmaRel = {.05, .10};

  /// For `size` parameters.
  explicit PostHocEma(Index size);

  /// Takes the parameters after update number steps() + 1. Allocates nothing; results do not depend on the threads.
  void update(std::span<const float> parameters);
  /// Puts copies of the averages by.
  void snapshot();

  std::int64_t steps() const { return steps_; }
  /// After how many updates copies were put by, rising.
  std::vector<std::int64_t> snapshots() const;
  /// The running average of sigma_rel kSigmaRel[which], (P).
  std::span<const float> average(std::size_t which) const { return averages_[which].span(); }

  struct Reconstruction {
    std::vector<float> parameters;  // (P)
    double error = 0;               // of the fit
  };
  /// The average of this width over the run up to now, from the copies and the running averages. Throws UsageError before the
  /// first update, and as power_of().
  Reconstruction reconstruct(double sigma_rel) const;

  /// Tensors post_hoc.<steps>.<0|1>.<name>, the running averages the last of them, and the metadata post_hoc.steps.
  void store(Checkpoint& checkpoint, const ParameterLayout& layout) const;
  static bool stored_in(const Checkpoint& checkpoint);
  /// Throws ModelFileError for a file without, or one that is damaged.
  static PostHocEma load(const Checkpoint& checkpoint, const ParameterLayout& layout);

 private:
  struct Copy {
    std::int64_t steps;
    std::array<Buffer<float>, 2> averages;
  };

  std::int64_t steps_ = 0;
  std::array<double, 2> gammas_;
  std::array<Buffer<float>, 2> averages_;  // (P)
  std::vector<Copy> copies_;
};

}  // namespace tweedie
