// SPDX-License-Identifier: MIT
#include "tweedie/samplers/information.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "tweedie/core/eigen_solvers.h"
#include "tweedie/samplers/detail/chunks.h"
#include "tweedie/samplers/detail/sigma_range.h"

namespace tweedie {

namespace {

struct MeanAndError {
  double mean, error;
};

MeanAndError mean_and_error(std::span<const double> values) {
  const double n = static_cast<double>(values.size());
  double mean = 0, square = 0;
  for (const double v : values) mean += v / n;
  for (const double v : values) square += (v - mean) * (v - mean);
  return {mean, std::sqrt(square / (n - 1) / n)};
}

// y = x + sigma eps, eps the draw `step` of each row.
MatrixD noised(const MatrixD& x, double sigma, const Rng& rng, std::uint32_t step) {
  MatrixD y(x.rows(), x.cols());
  rng.normals<double>(Purpose::perturb, step, 0, y);
  for (Index i = 0; i < y.size(); ++i) y.data()[i] = x.data()[i] + sigma * y.data()[i];
  return y;
}

// |s(y, sigma)|^2 of every row.
std::vector<double> squared_scores(const ScoreModel& model, const MatrixD& y, double sigma, const char* name) {
  MatrixD s(y.rows(), y.cols());
  model.score(y, std::span<const double>(&sigma, 1), nullptr, s);
  std::vector<double> out(static_cast<std::size_t>(y.rows()));
  for (Index r = 0; r < y.rows(); ++r) {
    double& square = out[static_cast<std::size_t>(r)];
    for (const double v : s.row(r)) square += v * v;
    check<DivergedError>(std::isfinite(square), name, ": the score of row ", r, " is not finite at sigma = ", sigma,
                         "; check the model and the row");
  }
  return out;
}

// Mean, and covariance as U diag(c) U^T.
class GaussianFit {
 public:
  explicit GaussianFit(const MatrixD& x) : mean_(static_cast<std::size_t>(x.cols())) {
    const Index n = x.rows(), d = x.cols();
    for (Index r = 0; r < n; ++r) {
      for (Index j = 0; j < d; ++j) mean_[static_cast<std::size_t>(j)] += x(r, j) / static_cast<double>(n);
    }
    MatrixD c(d, d);
    for (Index r = 0; r < n; ++r) {
      for (Index i = 0; i < d; ++i) {
        for (Index j = 0; j < d; ++j) {
          c(i, j) += (x(r, i) - mean_[static_cast<std::size_t>(i)]) * (x(r, j) - mean_[static_cast<std::size_t>(j)]) /
                     static_cast<double>(n);
        }
      }
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(c.eigen());
    for (const double v : solver.eigenvalues()) variances_.push_back(std::max(0., v));
    axes_ = MatrixD(d, d);
    axes_.eigen() = solver.eigenvectors().transpose();
  }

  double widest() const { return std::sqrt(*std::max_element(variances_.begin(), variances_.end())); }

  double entropy(double sigma) const {
    double h = 0;
    for (const double v : variances_) h += .5 * std::log(2 * std::numbers::pi * std::numbers::e * (v + sigma * sigma));
    return h;
  }

  /// sum_d z_d^2 / (c_d + sigma^2)^power, z = U^T (y - mean): power 1 the quadratic form, power 2 |s_G|^2.
  double form(std::span<const double> y, double sigma, int power) const {
    double sum = 0;
    for (std::size_t a = 0; a < variances_.size(); ++a) {
      double z = 0;
      for (std::size_t j = 0; j < variances_.size(); ++j) {
        z += axes_(static_cast<Index>(a), static_cast<Index>(j)) * (y[j] - mean_[j]);
      }
      const double v = variances_[a] + sigma * sigma;
      sum += z * z / (power == 1 ? v : v * v);
    }
    return sum;
  }

 private:
  std::vector<double> mean_, variances_;
  MatrixD axes_;  // (D, D), row a is axis a
};

// Nodes and weights of Gauss-Legendre on [-1, 1] by Newton's method on the Legendre polynomial [Press et al. 2007, Sec. 4.6.1].
struct Quadrature {
  std::vector<double> nodes, weights;
};

Quadrature gauss_legendre(Index n) {
  Quadrature q{std::vector<double>(static_cast<std::size_t>(n)), std::vector<double>(static_cast<std::size_t>(n))};
  for (Index i = 0; i < n; ++i) {
    double x = std::cos(std::numbers::pi * (static_cast<double>(i) + .75) / (static_cast<double>(n) + .5)), slope = 1;
    for (int iteration = 0; iteration < 20; ++iteration) {
      double p = 1, before = 0;  // Legendre's recurrence
      for (Index k = 1; k <= n; ++k) {
        const double order = static_cast<double>(k), next = ((2 * order - 1) * x * p - (order - 1) * before) / order;
        before = p;
        p = next;
      }
      slope = static_cast<double>(n) * (x * p - before) / (x * x - 1);
      const double step = p / slope;
      x -= step;
      if (std::abs(step) <= 1e-15) break;
    }
    q.nodes[static_cast<std::size_t>(i)] = x;
    q.weights[static_cast<std::size_t>(i)] = 2 / ((1 - x * x) * slope * slope);
  }
  return q;
}

// One entropy of a sum: some columns, who knows their score, and the sign they enter with.
struct Part {
  const ScoreModel* model;
  Index first, count;
  double sign;
};

detail::SigmaRange integration_range(std::span<const Part> parts, double widest, const InformationOptions& o, const char* name) {
  double low = o.sigma_min, high = o.sigma_max;
  if (low == 0) {
    for (const Part& part : parts) low = std::max(low, part.model->sigma_min());
    if (low == 0) low = .01;
  }
  if (high == 0) {
    high = std::max(50., 20 * widest);
    for (const Part& part : parts) {
      if (std::isfinite(part.model->sigma_max())) high = std::min(high, part.model->sigma_max());
    }
  }
  detail::SigmaRange range{low, high};
  for (const Part& part : parts) range = detail::flow_range(*part.model, range.low, range.high, name);
  return range;
}

// sum_parts sign h(columns).
Information integrate(std::span<const Part> parts, const MatrixD& x, const InformationOptions& options, const Rng& rng,
                      const char* name) {
  check(options.nodes >= 2 && options.nodes <= 10000, name, ": nodes = ", options.nodes, "; give 2 to 10000");
  check(x.rows() > x.cols(), name, ": data are ", shape(x), "; a covariance needs more rows than columns");
  detail::largest_entry<double>(x, name);
  const auto columns = [](const MatrixD& m, const Part& part) { return MatrixD(m.view().middle_cols(part.first, part.count)); };
  std::vector<GaussianFit> fits;
  double widest = 0;
  for (const Part& part : parts) {
    fits.emplace_back(columns(x, part));
    widest = std::max(widest, fits.back().widest());
  }
  const detail::SigmaRange range = integration_range(parts, widest, options, name);
  const double middle = .5 * std::log(range.low * range.high), half = .5 * std::log(range.high / range.low);
  const Quadrature quadrature = gauss_legendre(options.nodes);

  // What a row subtracts from the entropy of the Gaussian: its share of the integral and of the tail below sigma_min.
  std::vector<double> share(static_cast<std::size_t>(x.rows()));
  const auto add = [&](double sigma, double weight, double gaussian_weight, std::uint32_t step) {
    const MatrixD y = noised(x, sigma, rng, step);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const MatrixD mine = columns(y, parts[p]);
      const std::vector<double> square = squared_scores(*parts[p].model, mine, sigma, name);
      for (Index r = 0; r < x.rows(); ++r) {
        const double gaussian = gaussian_weight == 0 ? 0 : gaussian_weight * fits[p].form(mine.row(r), sigma, 2);
        share[static_cast<std::size_t>(r)] +=
            parts[p].sign * sigma * sigma * (weight * square[static_cast<std::size_t>(r)] - gaussian);
      }
    }
  };
  for (Index k = 0; k < options.nodes; ++k) {
    const auto i = static_cast<std::size_t>(k);
    const double weight = half * quadrature.weights[i];
    add(std::exp(middle + half * quadrature.nodes[i]), weight, weight, static_cast<std::uint32_t>(k));
  }
  add(range.low, .5, 0, static_cast<std::uint32_t>(options.nodes));

  Information result;
  result.nats = -mean_and_error(share).mean;
  result.evaluations = (options.nodes + 1) * static_cast<Index>(parts.size());
  // The covariance is estimated from the same rows. To first order C enters h_G by 1/2 q(lo) and the mean of |s_G|^2 by -q(lo) +
  // q(hi), q the row's quadratic form: the error of the whole is that of -(share + q(lo) / 2 - q(hi)).
  for (std::size_t p = 0; p < parts.size(); ++p) {
    result.nats += parts[p].sign * fits[p].entropy(range.low);
    const MatrixD mine = columns(x, parts[p]);
    for (Index r = 0; r < x.rows(); ++r) {
      share[static_cast<std::size_t>(r)] +=
          parts[p].sign * (.5 * fits[p].form(mine.row(r), range.low, 1) - fits[p].form(mine.row(r), range.high, 1));
    }
  }
  result.standard_error = mean_and_error(share).error;
  return result;
}

// The named columns of x, a's then b's.
MatrixD gather(ConstRows<double> x, std::span<const Index> a, std::span<const Index> b) {
  std::vector<Index> from(a.begin(), a.end());
  from.insert(from.end(), b.begin(), b.end());
  std::vector<bool> taken(static_cast<std::size_t>(x.cols()));
  MatrixD out(x.rows(), static_cast<Index>(from.size()));
  for (std::size_t j = 0; j < from.size(); ++j) {
    check(from[j] >= 0 && from[j] < x.cols(), "mutual_information: column ", from[j], " of data ", shape(x));
    const auto column = static_cast<std::size_t>(from[j]);
    check(!taken[column], "mutual_information: column ", from[j], " is named twice; the two groups share no column");
    taken[column] = true;
    for (Index r = 0; r < x.rows(); ++r) out(r, static_cast<Index>(j)) = x(r, from[j]);
  }
  return out;
}

}  // namespace

FisherInformation fisher_information(const ScoreModel& model, ConstRows<double> data, double sigma, const Rng& rng) {
  check(data.cols() == model.dim() && data.rows() >= 2, "fisher_information: data are ", shape(data),
        ", the model's dimension is ", model.dim(), "; give at least two rows of it");
  detail::largest_entry<double>(data, "fisher_information");
  const std::vector<double> square = squared_scores(model, noised(MatrixD(data), sigma, rng, 0), sigma, "fisher_information");
  const MeanAndError j = mean_and_error(square);
  return {j.mean, j.error};
}

FisherInformation fisher_information(const ScoreModel& model, ConstRows<float> data, double sigma, const Rng& rng) {
  return fisher_information(model, MatrixD(data), sigma, rng);
}

Information entropy(const ScoreModel& model, ConstRows<double> data, const InformationOptions& options, const Rng& rng) {
  check(data.cols() == model.dim(), "entropy: data are ", shape(data), ", the model's dimension is ", model.dim());
  const Part part{&model, 0, data.cols(), 1};
  return integrate(std::span(&part, 1), MatrixD(data), options, rng, "entropy");
}

Information entropy(const ScoreModel& model, ConstRows<float> data, const InformationOptions& options, const Rng& rng) {
  return entropy(model, MatrixD(data), options, rng);
}

Information mutual_information(const ScoreModel& model_a, const ScoreModel& model_b, const ScoreModel& joint,
                               ConstRows<double> data, std::span<const Index> a, std::span<const Index> b,
                               const InformationOptions& options, const Rng& rng) {
  const Index da = static_cast<Index>(a.size()), db = static_cast<Index>(b.size());
  check(da >= 1 && db >= 1, "mutual_information: groups of ", da, " and ", db, " columns; give at least one each");
  check(model_a.dim() == da && model_b.dim() == db && joint.dim() == da + db, "mutual_information: models of dimension ",
        model_a.dim(), ", ", model_b.dim(), " and ", joint.dim(), " for groups of ", da, " and ", db, " columns");
  const Part parts[] = {{&model_a, 0, da, 1}, {&model_b, da, db, 1}, {&joint, 0, da + db, -1}};
  return integrate(parts, gather(data, a, b), options, rng, "mutual_information");
}

Information mutual_information(const GaussianMixture& mixture, ConstRows<double> data, std::span<const Index> a,
                               std::span<const Index> b, const InformationOptions& options, const Rng& rng) {
  check(data.cols() == mixture.dim(), "mutual_information: data are ", shape(data), ", the mixture's dimension is ",
        mixture.dim());
  std::vector<Index> both(a.begin(), a.end());
  both.insert(both.end(), b.begin(), b.end());
  return mutual_information(mixture.marginal(a), mixture.marginal(b), mixture.marginal(both), data, a, b, options, rng);
}

}  // namespace tweedie
