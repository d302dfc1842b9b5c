// SPDX-License-Identifier: MIT
#include "tweedie/models/gaussian_mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "tweedie/core/parallel.h"
#include "tweedie/models/detail/lanes.h"

namespace tweedie {

using detail::kLanes;
using detail::Lanes;

namespace {

// R(theta) diag(a^2, b^2) R(theta)^T
MatrixD rotated(double a, double b, double theta) {
  const double c = std::cos(theta), s = std::sin(theta), aa = a * a, bb = b * b;
  return {{c * c * aa + s * s * bb, c * s * (aa - bb)}, {c * s * (aa - bb), s * s * aa + c * c * bb}};
}

MatrixD scaled_identity(Index dim, double value) {
  MatrixD m(dim, dim);
  for (Index i = 0; i < dim; ++i) m(i, i) = value;
  return m;
}

void check_covariance(const MatrixD& covariance, Index k, Index dim) {
  check(covariance.rows() == dim && covariance.cols() == dim, "GaussianMixture: covariance ", k, " is ", shape(covariance),
        ", the means have ", dim, " columns");
  double largest = 0;
  for (Index i = 0; i < dim; ++i) {
    for (Index j = 0; j < dim; ++j) {
      check(std::isfinite(covariance(i, j)), "GaussianMixture: covariance ", k, " has a non-finite entry");
      largest = std::max(largest, std::abs(covariance(i, j)));
    }
  }
  for (Index i = 0; i < dim; ++i) {
    for (Index j = 0; j < i; ++j) {
      check(std::abs(covariance(i, j) - covariance(j, i)) <= 1e-12 * largest, "GaussianMixture: covariance ", k,
            " is not symmetric: entry (", i, ", ", j, ") is ", covariance(i, j), ", its mirror image ", covariance(j, i));
    }
  }
}

// Eigenvalues (on a's diagonal) and eigenvectors (rows of `axes`) of a symmetric matrix by cyclic Jacobi rotations
// [Golub & Van Loan 2013, section 8.5]. Converges quadratically; diagonal input is returned as it is.
void diagonalise(MatrixD& a, MatrixD& axes) {
  const Index n = a.rows();
  axes = scaled_identity(n, 1);
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, diagonal = 0;
    for (Index p = 0; p < n; ++p) {
      diagonal += a(p, p) * a(p, p);
      for (Index q = 0; q < p; ++q) off += a(p, q) * a(p, q);
    }
    if (off <= 1e-32 * diagonal) return;
    for (Index p = 0; p < n; ++p) {
      for (Index q = p + 1; q < n; ++q) {
        if (a(p, q) == 0) continue;
        const double theta = (a(q, q) - a(p, p)) / (2 * a(p, q));
        const double t = std::copysign(1 / (std::abs(theta) + std::hypot(theta, 1)), theta);
        const double c = 1 / std::hypot(t, 1), s = t * c;
        const auto rotate = [c, s](double& x, double& y) {
          const double old = x;
          x = c * old - s * y;
          y = s * old + c * y;
        };
        for (Index j = 0; j < n; ++j) rotate(a(j, p), a(j, q));
        for (Index j = 0; j < n; ++j) rotate(a(p, j), a(q, j));
        for (Index j = 0; j < n; ++j) rotate(axes(p, j), axes(q, j));
        a(p, q) = a(q, p) = 0;  // by the rotation's choice; its rounding would stay above the threshold
      }
    }
  }
  fail("GaussianMixture: the eigenvalues of a covariance did not converge");
}

}  // namespace

GaussianMixture::GaussianMixture(std::vector<double> weights, MatrixD means, std::vector<MatrixD> covariances)
    : weights_(std::move(weights)), means_(std::move(means)), covariances_(std::move(covariances)) {
  const Index count = components(), d = dim();
  check(count >= 1 && d >= 1, "GaussianMixture: means are ", shape(means_),
        "; one row per component, at least one row and column");
  check(static_cast<Index>(weights_.size()) == count && static_cast<Index>(covariances_.size()) == count,
        "GaussianMixture: ", weights_.size(), " weights and ", covariances_.size(), " covariances for ", count, " means");
  double total = 0;
  for (const double w : weights_) {
    check(std::isfinite(w) && w > 0, "GaussianMixture: a weight is ", w,
          "; weights must be positive (leave out empty components)");
    total += w;
  }
  for (double& w : weights_) w /= total;
  for (Index k = 0; k < count; ++k) {
    for (Index j = 0; j < d; ++j) check(std::isfinite(means_(k, j)), "GaussianMixture: mean ", k, " has a non-finite entry");
    check_covariance(covariances_[static_cast<std::size_t>(k)], k, d);
    MatrixD eigenvalues = covariances_[static_cast<std::size_t>(k)], axes;
    diagonalise(eigenvalues, axes);
    double largest = 0;
    for (Index axis = 0; axis < d; ++axis) largest = std::max(largest, eigenvalues(axis, axis));
    for (Index axis = 0; axis < d; ++axis) {
      const double variance = eigenvalues(axis, axis);
      check(variance >= -1e-12 * largest, "GaussianMixture: covariance ", k, " has the eigenvalue ", variance,
            "; it must be positive semi-definite");
      variances_.push_back(std::max(0., variance));
    }
    double_shape_.axes.insert(double_shape_.axes.end(), axes.data(), axes.data() + axes.size());
  }
  double_shape_.means.assign(means_.data(), means_.data() + means_.size());
  for (const double m : double_shape_.means) float_shape_.means.push_back(static_cast<float>(m));
  for (const double a : double_shape_.axes) float_shape_.axes.push_back(static_cast<float>(a));
}

GaussianMixture::~GaussianMixture() = default;

GaussianMixture GaussianMixture::gaussian(Index dim, double sigma) {
  check(dim >= 1, "GaussianMixture::gaussian: dimension ", dim, " must be at least 1");
  return isotropic({1}, MatrixD(1, dim), sigma);
}

GaussianMixture GaussianMixture::isotropic(std::vector<double> weights, MatrixD means, double sigma) {
  check(std::isfinite(sigma) && sigma > 0, "GaussianMixture::isotropic: sigma = ", sigma, " must be positive and finite");
  std::vector<MatrixD> covariances(static_cast<std::size_t>(means.rows()), scaled_identity(means.cols(), sigma * sigma));
  return GaussianMixture(std::move(weights), std::move(means), std::move(covariances));
}

GaussianMixture GaussianMixture::two_mode() { return isotropic({.5, .5}, {{-1, 0}, {1, 0}}, .5); }

GaussianMixture GaussianMixture::three_gaussians() {
  return GaussianMixture({1. / 3, 1. / 3, 1. / 3}, {{-2, -1}, {2, -1}, {0, 2}},
                         {rotated(.7, .3, .5), rotated(.6, .25, -.6), rotated(.8, .3, 0)});
}

GaussianMixture GaussianMixture::three_gaussians_unequal() {
  return GaussianMixture({.5, .3, .2}, {{-3, 0}, {3, 1}, {0, 4}},
                         {rotated(.6, .1, .8), rotated(.3, .15, -.4), rotated(.9, .2, 1.3)});
}

GaussianMixture GaussianMixture::eight_gaussians() {
  MatrixD means(8, 2);
  for (Index k = 0; k < 8; ++k) {
    const double angle = std::numbers::pi / 4 * static_cast<double>(k), radius = 4 / std::numbers::sqrt2;
    means(k, 0) = radius * std::cos(angle);
    means(k, 1) = radius * std::sin(angle);
  }
  return isotropic(std::vector<double>(8, 1. / 8), std::move(means), .5 / std::numbers::sqrt2);
}

const MatrixD& GaussianMixture::covariance(Index component) const {
  check(component >= 0 && component < components(), "GaussianMixture::covariance: component ", component, " of ", components());
  return covariances_[static_cast<std::size_t>(component)];
}

// ---- evaluation: kLanes rows at a time ----

template <class S>
struct GaussianMixture::Noised {
  std::vector<S> log_weight;  // (K)    ln w_k - 1/2 sum_d ln 2 pi (l_kd + sigma^2)
  std::vector<S> precision;   // (K, D) 1 / (l_kd + sigma^2)
};

template <>
const GaussianMixture::Shape<float>& GaussianMixture::shape_of() const {
  return float_shape_;
}
template <>
const GaussianMixture::Shape<double>& GaussianMixture::shape_of() const {
  return double_shape_;
}

template <class S>
GaussianMixture::Noised<S> GaussianMixture::noised_at(S sigma) const {
  Noised<S> noised;
  const Index d = dim();
  noised.precision.reserve(variances_.size());
  for (Index k = 0; k < components(); ++k) {
    double log_weight = std::log(weights_[static_cast<std::size_t>(k)]);
    for (Index axis = 0; axis < d; ++axis) {
      const double variance = variances_[static_cast<std::size_t>(k * d + axis)] + static_cast<double>(sigma) * sigma;
      check(variance > 0, "GaussianMixture: component ", k, " has no density at sigma = ", sigma,
            ", its covariance is singular; use a larger sigma");
      noised.precision.push_back(static_cast<S>(1 / variance));
      log_weight -= .5 * std::log(2 * std::numbers::pi * variance);
    }
    noised.log_weight.push_back(static_cast<S>(log_weight));
  }
  return noised;
}

namespace {

// Scratch of one group of lanes; after evaluate_group: term[k] = w_k N_k / max, their sum, top = ln of that maximum, score.
template <class S>
struct Group {
  Group(Index count, Index dim)
      : y(static_cast<std::size_t>(dim)),
        difference(y.size()),
        score(y.size()),
        term(static_cast<std::size_t>(count)),
        gradient(static_cast<std::size_t>(count * dim)) {}
  std::vector<Lanes<S>> y, difference, score, term, gradient;
  Lanes<S> top, sum;
  const S* precision = nullptr;  // (K, D) at the group's sigma
};

// kDim is the dimension where the compiler shall unroll it, 0 otherwise.
template <class S, Index kDim>
void evaluate_group(Index count, Index runtime_dim, const S* log_weight, const S* precision, const S* means, const S* axes,
                    Group<S>& group) {
  const Index dim = kDim > 0 ? kDim : runtime_dim;
  Lanes<S>* const difference = group.difference.data();
  group.top = detail::spread(-std::numeric_limits<S>::infinity());
  for (Index k = 0; k < count; ++k) {
    Lanes<S>* const gradient = group.gradient.data() + k * dim;
    for (Index j = 0; j < dim; ++j) {
      difference[j] = group.y[static_cast<std::size_t>(j)] - means[k * dim + j];
      gradient[j] = Lanes<S>{};
    }
    Lanes<S> log_term = detail::spread(log_weight[k]);
    for (Index d = 0; d < dim; ++d) {
      const S* const axis = axes + (k * dim + d) * dim;
      Lanes<S> z{};
      for (Index j = 0; j < dim; ++j) z += axis[j] * difference[j];
      const Lanes<S> scaled = z * precision[k * dim + d];
      log_term -= S(.5) * z * scaled;
      for (Index j = 0; j < dim; ++j) gradient[j] -= axis[j] * scaled;
    }
    group.term[static_cast<std::size_t>(k)] = log_term;
    group.top = detail::larger(group.top, log_term);
  }
  group.sum = Lanes<S>{};
  for (Index j = 0; j < dim; ++j) group.score[static_cast<std::size_t>(j)] = Lanes<S>{};
  for (Index k = 0; k < count; ++k) {
    Lanes<S>& term = group.term[static_cast<std::size_t>(k)];
    term = detail::exp_nonpositive(term - group.top);
    group.sum += term;
    for (Index j = 0; j < dim; ++j)
      group.score[static_cast<std::size_t>(j)] += term * group.gradient[static_cast<std::size_t>(k * dim + j)];
  }
  for (Index j = 0; j < dim; ++j) group.score[static_cast<std::size_t>(j)] /= group.sum;
}

constexpr Index kParallelRows = 1024;

}  // namespace

// emit(group, first row of the group) for every group of kLanes rows.
template <class S, class Emit>
void GaussianMixture::evaluate(ConstRows<S> y, std::span<const S> sigma, const Emit& emit) const {
  const Index d = dim(), count = components();
  const Shape<S>& components_shape = shape_of<S>();
  const auto kernel = d == 1 ? evaluate_group<S, 1> : d == 2 ? evaluate_group<S, 2> : evaluate_group<S, 0>;
  // Rows of one sigma share their coefficients.
  for (Index begin = 0, end = 0; begin < y.rows(); begin = end) {
    const S level = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(begin)];
    end = begin + 1;
    if (sigma.size() == 1) end = y.rows();
    while (end < y.rows() && sigma[static_cast<std::size_t>(end)] == level) ++end;
    const Noised<S> noised = noised_at(level);
    const ConstRows<S> rows = y.middle_rows(begin, end - begin);
    parallel_for(rows.rows(), kParallelRows, [&](Index from, Index to) {
      Group<S> group(count, d);
      group.precision = noised.precision.data();
      for (Index first = from; first < to; first += kLanes<S>) {
        for (Index j = 0; j < d; ++j) group.y[static_cast<std::size_t>(j)] = detail::load_column(rows, first, j);
        kernel(count, d, noised.log_weight.data(), noised.precision.data(), components_shape.means.data(),
               components_shape.axes.data(), group);
        emit(group, begin + first, std::min(kLanes<S>, end - begin - first));
      }
    });
  }
}

template <class S>
void GaussianMixture::exact_score(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
  check_arguments(y, sigma, condition, out);
  evaluate(y, sigma, [&](const Group<S>& group, Index first, Index count) {
    const Rows<S> rows = out.middle_rows(first, count);
    for (Index j = 0; j < dim(); ++j) detail::store_column<S>(group.score[static_cast<std::size_t>(j)], 0, j, rows);
  });
}

void GaussianMixture::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition, Rows<float> out) const {
  exact_score(y, sigma, condition, out);
}
void GaussianMixture::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                            Rows<double> out) const {
  exact_score(y, sigma, condition, out);
}

void GaussianMixture::log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                  std::span<double> out) const {
  MatrixD unused(y.rows(), dim());
  check_arguments<double>(y, sigma, condition, unused);
  check(static_cast<Index>(out.size()) == y.rows(), "GaussianMixture::log_density: out has ", out.size(), " entries for ",
        y.rows(), " rows");
  evaluate(y, sigma, [&](const Group<double>& group, Index first, Index count) {
    for (Index i = 0; i < count; ++i) out[static_cast<std::size_t>(first + i)] = group.top[i] + std::log(group.sum[i]);
  });
}

// ---- derivatives of the score: H = sum_k r_k [(g_k - s)(g_k - s)^T - P_k],  P_k = (C_k + sigma^2 I)^-1,  g_k = P_k (m_k - y)
// ---- Written with g_k - s instead of sum_k r_k g_k g_k^T - s s^T, which cancels where |s| is large.

void GaussianMixture::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                          Rows<double> score, Rows<double> out) const {
  check_derivative(y, sigma, condition, v, score, out);
  const Index d = dim();
  const double* const axes = double_shape_.axes.data();
  evaluate(y, sigma, [&](const Group<double>& group, Index first, Index count) {
    std::vector<Lanes<double>> direction(static_cast<std::size_t>(d)), product(static_cast<std::size_t>(d), Lanes<double>{});
    Lanes<double>*const at = direction.data(), *const sum = product.data();
    for (Index j = 0; j < d; ++j) at[j] = detail::load_column(v, first, j);
    for (Index k = 0; k < components(); ++k) {
      const Lanes<double>* const gradient = group.gradient.data() + k * d;
      const Lanes<double> weight = group.term[static_cast<std::size_t>(k)] / group.sum;
      Lanes<double> along{};
      for (Index j = 0; j < d; ++j) along += (gradient[j] - group.score[static_cast<std::size_t>(j)]) * at[j];
      for (Index j = 0; j < d; ++j) sum[j] += weight * along * (gradient[j] - group.score[static_cast<std::size_t>(j)]);
      for (Index a = 0; a < d; ++a) {
        const double* const axis = axes + (k * d + a) * d;
        Lanes<double> z{};
        for (Index j = 0; j < d; ++j) z += axis[j] * at[j];
        z *= weight * group.precision[k * d + a];
        for (Index j = 0; j < d; ++j) sum[j] -= axis[j] * z;
      }
    }
    for (Index j = 0; j < d; ++j) {
      detail::store_column<double>(group.score[static_cast<std::size_t>(j)], 0, j, score.middle_rows(first, count));
      detail::store_column<double>(sum[j], 0, j, out.middle_rows(first, count));
    }
  });
}

void GaussianMixture::vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                          Rows<double> score, Rows<double> out) const {
  jvp(y, sigma, condition, v, score, out);  // H is symmetric
}

void GaussianMixture::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                 Rows<double> score, std::span<double> out) const {
  check_arguments(y, sigma, condition, score);
  check(static_cast<Index>(out.size()) == y.rows(), "GaussianMixture::divergence: out has ", out.size(), " entries for ",
        y.rows(), " rows");
  const Index d = dim();
  evaluate(y, sigma, [&](const Group<double>& group, Index first, Index count) {
    Lanes<double> trace{};
    for (Index k = 0; k < components(); ++k) {
      Lanes<double> part{};
      for (Index j = 0; j < d; ++j) {
        const Lanes<double> apart =
            group.gradient[static_cast<std::size_t>(k * d + j)] - group.score[static_cast<std::size_t>(j)];
        part += apart * apart - group.precision[k * d + j];
      }
      trace += group.term[static_cast<std::size_t>(k)] / group.sum * part;
    }
    for (Index j = 0; j < d; ++j) {
      detail::store_column<double>(group.score[static_cast<std::size_t>(j)], 0, j, score.middle_rows(first, count));
    }
    for (Index i = 0; i < count; ++i) out[static_cast<std::size_t>(first + i)] = trace[i];
  });
}

Matrix GaussianMixture::score(ConstRows<float> y, double sigma) const {
  Matrix out(y.rows(), y.cols());
  const float level = static_cast<float>(sigma);
  score(y, std::span(&level, 1), nullptr, out);
  return out;
}

MatrixD GaussianMixture::score(ConstRows<double> y, double sigma) const {
  MatrixD out(y.rows(), y.cols());
  score(y, std::span<const double>(&sigma, 1), nullptr, out);
  return out;
}

std::vector<double> GaussianMixture::log_density(ConstRows<double> y, double sigma) const {
  std::vector<double> out(static_cast<std::size_t>(y.rows()));
  log_density(y, std::span<const double>(&sigma, 1), nullptr, out);
  return out;
}

MatrixD GaussianMixture::responsibilities(ConstRows<double> y, double sigma) const {
  MatrixD unused(y.rows(), dim()), out(y.rows(), components());
  const std::span<const double> level(&sigma, 1);
  check_arguments<double>(y, level, nullptr, unused);
  evaluate(y, level, [&](const Group<double>& group, Index first, Index count) {
    for (Index k = 0; k < components(); ++k) {
      for (Index i = 0; i < count; ++i) out(first + i, k) = group.term[static_cast<std::size_t>(k)][i] / group.sum[i];
    }
  });
  return out;
}

MatrixD GaussianMixture::tweedie_mean(ConstRows<double> y, double sigma) const {
  MatrixD out = score(y, sigma);
  for (Index r = 0; r < out.rows(); ++r) {
    for (Index j = 0; j < out.cols(); ++j) out(r, j) = y(r, j) + sigma * sigma * out(r, j);
  }
  return out;
}

GaussianMixture GaussianMixture::noised(double alpha, double sigma) const {
  check(std::isfinite(alpha) && std::isfinite(sigma) && sigma >= 0, "GaussianMixture::noised: alpha = ", alpha,
        ", sigma = ", sigma, "; both must be finite and sigma not negative");
  MatrixD means = means_;
  for (double* m = means.data(); m != means.data() + means.size(); ++m) *m *= alpha;
  std::vector<MatrixD> covariances = covariances_;
  for (MatrixD& c : covariances) {
    for (Index i = 0; i < dim(); ++i) {
      for (Index j = 0; j < dim(); ++j) c(i, j) = alpha * alpha * c(i, j) + (i == j ? sigma * sigma : 0);
    }
  }
  return GaussianMixture(weights_, std::move(means), std::move(covariances));
}

GaussianMixture GaussianMixture::marginal(std::span<const Index> columns) const {
  const Index count = static_cast<Index>(columns.size());
  check(count >= 1, "GaussianMixture::marginal: no columns; give at least one");
  for (Index i = 0; i < count; ++i) {
    const Index column = columns[static_cast<std::size_t>(i)];
    check(column >= 0 && column < dim(), "GaussianMixture::marginal: column ", column, " of ", dim());
    for (Index j = 0; j < i; ++j) {
      check(columns[static_cast<std::size_t>(j)] != column, "GaussianMixture::marginal: column ", column, " is named twice");
    }
  }
  MatrixD means(components(), count);
  std::vector<MatrixD> covariances;
  for (Index k = 0; k < components(); ++k) {
    MatrixD& c = covariances.emplace_back(count, count);
    for (Index i = 0; i < count; ++i) {
      const Index from = columns[static_cast<std::size_t>(i)];
      means(k, i) = means_(k, from);
      for (Index j = 0; j < count; ++j) c(i, j) = covariance(k)(from, columns[static_cast<std::size_t>(j)]);
    }
  }
  return GaussianMixture(weights_, std::move(means), std::move(covariances));
}

Matrix GaussianMixture::sample(Index n, const Rng& rng) const {
  check(n >= 0, "GaussianMixture::sample: n = ", n, " is negative");
  const Index d = dim(), last = components() - 1;
  Matrix out(n, d);
  parallel_for(n, kParallelRows, [&](Index begin, Index end) {
    MatrixD u(end - begin, 1), z(end - begin, d);
    rng.uniforms<double>(Purpose::dataset, 0, static_cast<std::uint64_t>(begin), u, 0);
    rng.normals<double>(Purpose::dataset, 0, static_cast<std::uint64_t>(begin), z, 1);
    for (Index r = begin; r < end; ++r) {
      Index k = 0;
      for (double rest = u(r - begin, 0) - weights_[0]; rest > 0 && k < last;) rest -= weights_[static_cast<std::size_t>(++k)];
      for (Index j = 0; j < d; ++j) {
        double x = means_(k, j);
        for (Index axis = 0; axis < d; ++axis) {
          x += double_shape_.axes[static_cast<std::size_t>((k * d + axis) * d + j)] *
               std::sqrt(variances_[static_cast<std::size_t>(k * d + axis)]) * z(r - begin, axis);
        }
        out(r, j) = static_cast<float>(x);
      }
    }
  });
  return out;
}

}  // namespace tweedie
