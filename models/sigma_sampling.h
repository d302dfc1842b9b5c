// sigma_sampling.h - the distribution of the noise levels that a network is trained on.
//
//   levels             each of the discrete levels alike                                       [Song & Ermon 2019]
//   continuous         ln sigma uniform
//   lognormal(m, s)    ln sigma ~ N(m, s^2)                                                     [Karras et al. 2022, Tab. 1]
//   process(p)         sigma = ratio(t), t uniform                                              [Song et al. 2021, Eq. 7]
//   flow()             sigma = t / (1 - t), t uniform: the flow's x_t = (1 - t) x0 + t eps is (1 - t) (x0 + sigma eps)
// All but `levels` are truncated to [sigma_min, sigma_max] of the network and drawn by their inverse distribution function from
// one uniform a row.
// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "tweedie/models/process.h"

namespace tweedie {

class SigmaSampling;
/// "levels", "lognormal(-1.2, 1.2)", "process(vp, 0.1, 20)": as checkpoints record it.
TWEEDIE_API std::string describe(const SigmaSampling& sampling);

/// A small value, cheap to copy.
class TWEEDIE_API SigmaSampling {
 public:
  enum class Kind { automatic, levels, continuous, lognormal, process, flow };

  /// What goes with the network and the objective: the trainer's choice (TrainOptions::sigma_sampling), and it alone takes this.
  static const SigmaSampling automatic;
  static const SigmaSampling levels;
  static const SigmaSampling continuous;
  /// Throws UsageError unless p_mean is finite and p_std positive and finite.
  static SigmaSampling lognormal(double p_mean = -1.2, double p_std = 1.2);
  static SigmaSampling process(const Process& process);
  static SigmaSampling flow();

  Kind kind() const { return kind_; }

  /// The distribution between two noise levels: sigma at the uniform u in (0, 1], rising in u.
  class Truncated;
  /// Throws UsageError unless 0 < low <= high < infinity, for automatic and levels, and for a distribution that has less than
  /// 1e-9 of its mass there.
  Truncated truncated(double low, double high) const;

 private:
  constexpr explicit SigmaSampling(Kind kind) : kind_(kind) {}
  Kind kind_;
  double mean_ = 0, std_ = 1;       // lognormal
  std::optional<Process> process_;  // process

  friend std::string describe(const SigmaSampling& sampling);
};

inline const SigmaSampling SigmaSampling::automatic{Kind::automatic};
inline const SigmaSampling SigmaSampling::levels{Kind::levels};
inline const SigmaSampling SigmaSampling::continuous{Kind::continuous};

class TWEEDIE_API SigmaSampling::Truncated {
 public:
  double operator()(double u) const;

 private:
  friend class SigmaSampling;
  Truncated(const SigmaSampling& sampling, double low, double high);
  SigmaSampling sampling_;
  double low_, high_;             // sigma
  double first_ = 0, range_ = 0;  // of ln sigma (continuous), of t (process, flow), of the lower tail (lognormal)
  double upper_tail_ = 0;         // lognormal: the mass above high
};

/// "vp, 0.1, 20": a process with its parameters.
TWEEDIE_API std::string describe(const Process& process);

/// The z with Phi(z) = p, p in [0, 1/2]; -infinity at 0. Relative error of p below 1e-13.
TWEEDIE_API double normal_quantile_lower(double p);

}  // namespace tweedie
