// information.h - Fisher information, entropy and mutual information from a score and draws of the data.
//
//   y = x + sigma eps,  J(sigma) = E|s(y, sigma)|^2
//   de Bruijn:  dh / d(sigma^2) = J / 2                                     [Stam 1959; Cover & Thomas 2006, Th. 17.7.2]
//   the same as I-MMSE, d I(x0; y) / d snr = mmse / 2, since mmse = D sigma^2 - sigma^4 J         [Guo, Shamai & Verdu 2005, Eq.
//   22]
//
// Against the Gaussian of the data's own covariance C, whose J_G = sum_d 1 / (c_d + sigma^2) is known and which p_sigma tends to:
//   h(p_lo) = 1/2 ln det 2 pi e (C + lo^2 I) - int_{ln lo}^{ln hi} sigma^2 (J - J_G) d ln sigma
//   h(p)    = h(p_lo) - 1/2 lo^2 J(lo)                                     (J is all but constant below lo)
// The integrand is estimated as the mean of sigma^2 (|s|^2 - |s_G|^2) over the draws: where p_sigma is nearly Gaussian it has no
// variance left, at small sigma both parts vanish. Gauss-Legendre in ln sigma. Everything in nats. SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "tweedie/core/random.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/score_model.h"

namespace tweedie {

/// E|s(y, sigma)|^2 at y = x + sigma eps, x the rows of data (N, D), N >= 2; `error` is the standard error over rows. Row i's eps
/// depends on the stream and i alone (Purpose::perturb). A learned score gives the Fisher information of what it has learned, up
/// to its error. Throws UsageError for wrong shapes, DivergedError where the score is not finite.
TWEEDIE_API FisherInformation fisher_information(const ScoreModel& model, ConstRows<double> data, double sigma, const Rng& rng);
TWEEDIE_API FisherInformation fisher_information(const ScoreModel& model, ConstRows<float> data, double sigma, const Rng& rng);

struct InformationOptions {
  // Ends of the integral; 0 stands for the model's own, where it has none for .01 and for max(50, 20 deviations of the widest
  // column). Beyond sigma_max p_sigma is taken for Gaussian, which errs by (deviation / sigma_max)^6; below sigma_min J for
  // constant, which errs by (sigma_min / narrowest scale)^4 / 4 per narrow dimension.
  double sigma_min = 0;
  double sigma_max = 0;
  Index nodes = 48;  // of the quadrature; the integrand varies over about one unit of ln sigma
};

struct Information {
  double nats = 0;
  double standard_error = 0;     // over rows of the data, their own finite number included
  std::int64_t evaluations = 0;  // of scores per row, all models together
};

/// Differential entropy h(p) of the law that data (N, D) are drawn from and model knows the scores of; N > D. The draws should
/// not be those a network was trained on. Throws UsageError for wrong shapes, too few rows, a range the model does not answer
/// for; DivergedError naming row and sigma where the score is not finite.
TWEEDIE_API Information entropy(const ScoreModel& model, ConstRows<double> data, const InformationOptions& options,
                                const Rng& rng);
TWEEDIE_API Information entropy(const ScoreModel& model, ConstRows<float> data, const InformationOptions& options,
                                const Rng& rng);

/// I(a; b) = h(a) + h(b) - h(a, b) between the columns `a` and `b` of data, with one model for each law: `joint` takes the
/// columns of a, then those of b. All three see the same draws and noise, so that most of their errors cancel; the standard error
/// is the difference's.
TWEEDIE_API Information mutual_information(const ScoreModel& model_a, const ScoreModel& model_b, const ScoreModel& joint,
                                           ConstRows<double> data, std::span<const Index> a, std::span<const Index> b,
                                           const InformationOptions& options, const Rng& rng);
/// The same on an exact mixture, whose marginals are exact too; data are (N, mixture.dim()).
TWEEDIE_API Information mutual_information(const GaussianMixture& mixture, ConstRows<double> data, std::span<const Index> a,
                                           std::span<const Index> b, const InformationOptions& options, const Rng& rng);

}  // namespace tweedie
