// SPDX-License-Identifier: MIT
#include "tweedie/models/empirical_mixture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "tweedie/core/parallel.h"
#include "tweedie/models/detail/lanes.h"

namespace tweedie {

using detail::kLanes;
using detail::Lanes;

namespace {

constexpr Index kBlock = 128;  // points whose exponents wait in L1 for their maximum

// The running soft maximum of one group of rows over the blocks of points.
template <class S>
struct Group {
  explicit Group(Index dim) : y(static_cast<std::size_t>(dim)), sum_offset(y.size()) {}
  std::vector<Lanes<S>> y;           // (D)
  std::vector<Lanes<S>> sum_offset;  // (D) sum_i exp(e_i - top) (x_i - y)
  Lanes<S> sum;                      // sum_i exp(e_i - top)
  Lanes<S> top;                      // max_i e_i, e_i = -|y - x_i|^2 / (2 sigma^2)
};

template <class S>
void start(Group<S>& group) {
  group.sum = Lanes<S>{};
  group.top = detail::spread(-std::numeric_limits<S>::max());  // finite, so that top - top is 0
  std::fill(group.sum_offset.begin(), group.sum_offset.end(), Lanes<S>{});
}

// Differences are formed before they are squared: |y|^2 - 2 y.x + |x|^2 would lose all digits at sigma = .01.
template <class S>
void add_block(ConstRows<S> points, S half_precision, Group<S>& group) {
  std::array<Lanes<S>, kBlock> exponent;
  const Index dim = points.cols();
  Lanes<S> top = group.top;
  for (Index i = 0; i < points.rows(); ++i) {
    const S* const x = points.data() + i * points.stride();
    Lanes<S> square{};
    for (Index j = 0; j < dim; ++j) {
      const Lanes<S> offset = x[j] - group.y[static_cast<std::size_t>(j)];
      square += offset * offset;
    }
    exponent[static_cast<std::size_t>(i)] = -half_precision * square;
    top = detail::larger(exponent[static_cast<std::size_t>(i)], top);
  }
  const Lanes<S> shrink = detail::exp_nonpositive(group.top - top);
  group.top = top;
  group.sum *= shrink;
  for (Lanes<S>& s : group.sum_offset) s *= shrink;
  for (Index i = 0; i < points.rows(); ++i) {
    const S* const x = points.data() + i * points.stride();
    const Lanes<S> weight = detail::exp_nonpositive(exponent[static_cast<std::size_t>(i)] - top);
    group.sum += weight;
    for (Index j = 0; j < dim; ++j) {
      group.sum_offset[static_cast<std::size_t>(j)] += weight * (x[j] - group.y[static_cast<std::size_t>(j)]);
    }
  }
}

}  // namespace

EmpiricalMixture::EmpiricalMixture(ConstRows<double> data) : data_(data), single_(data) {
  check(!data.empty(), "EmpiricalMixture: data is ", shape(data), ", at least one row and one column are needed");
  for (Index r = 0; r < data.rows(); ++r) {
    for (const double x : data.row(r)) check<DataError>(std::isfinite(x), "EmpiricalMixture: row ", r, " has a non-finite entry");
  }
}

EmpiricalMixture::EmpiricalMixture(ConstRows<float> data) : EmpiricalMixture(ConstRows<double>(MatrixD(data).view())) {}

EmpiricalMixture::~EmpiricalMixture() = default;

// emit(group, sigma, first row of the group, rows in it) for every group of kLanes rows of one sigma.
template <class S, class Emit>
void EmpiricalMixture::evaluate(const MatrixX<S>& data, ConstRows<S> y, std::span<const S> sigma, const Emit& emit) const {
  for (const S level : sigma) check(level > 0, "EmpiricalMixture: sigma = 0 has no density; use a positive sigma");
  for (Index begin = 0, end = 0; begin < y.rows(); begin = end) {
    const S level = sigma[sigma.size() == 1 ? 0 : static_cast<std::size_t>(begin)];
    end = begin + 1;
    if (sigma.size() == 1) end = y.rows();
    while (end < y.rows() && sigma[static_cast<std::size_t>(end)] == level) ++end;
    const ConstRows<S> rows = y.middle_rows(begin, end - begin);
    const S half_precision = S(.5) / (level * level);
    parallel_for(rows.rows(), 16, [&](Index from, Index to) {
      Group<S> group(dim());
      for (Index first = from; first < to; first += kLanes<S>) {
        for (Index j = 0; j < dim(); ++j) group.y[static_cast<std::size_t>(j)] = detail::load_column(rows, first, j);
        start(group);
        for (Index i = 0; i < data.rows(); i += kBlock) {
          add_block(data.middle_rows(i, std::min(kBlock, data.rows() - i)), half_precision, group);
        }
        emit(group, level, begin + first, std::min(kLanes<S>, end - begin - first));
      }
    });
  }
}

template <class S>
void EmpiricalMixture::exact_score(const MatrixX<S>& data, ConstRows<S> y, std::span<const S> sigma, const Condition* condition,
                                   Rows<S> out) const {
  check_arguments(y, sigma, condition, out);
  evaluate(data, y, sigma, [&](const Group<S>& group, S level, Index first, Index count) {
    const Rows<S> rows = out.middle_rows(first, count);
    for (Index j = 0; j < dim(); ++j) {
      detail::store_column<S>(group.sum_offset[static_cast<std::size_t>(j)] / group.sum / (level * level), 0, j, rows);
    }
  });
}

void EmpiricalMixture::score(ConstRows<float> y, std::span<const float> sigma, const Condition* condition,
                             Rows<float> out) const {
  exact_score(single_, y, sigma, condition, out);
}
void EmpiricalMixture::score(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                             Rows<double> out) const {
  exact_score(data_, y, sigma, condition, out);
}

// Writes the score, then use(weight function, level, first, count): each_point(f) calls f(w_i, x_i - mean) for every point, the
// weights adding up to 1. The mean comes from a first pass: |x - y|^2 in place of |x - mean|^2 would cancel far from the points.
template <class Use>
void EmpiricalMixture::second_pass(ConstRows<double> y, std::span<const double> sigma, Rows<double> score, const Use& use) const {
  const auto d = static_cast<std::size_t>(dim());
  evaluate(data_, y, sigma, [&](const Group<double>& group, double level, Index first, Index count) {
    std::vector<Lanes<double>> mean(d), apart(d);
    for (std::size_t j = 0; j < d; ++j) {
      mean[j] = group.sum_offset[j] / group.sum;
      detail::store_column<double>(mean[j] / (level * level), 0, static_cast<Index>(j), score.middle_rows(first, count));
    }
    const auto each_point = [&](const auto& f) {
      for (Index i = 0; i < points(); ++i) {
        Lanes<double> square{};
        for (std::size_t j = 0; j < d; ++j) {
          const Lanes<double> offset = data_(i, static_cast<Index>(j)) - group.y[j];
          square += offset * offset;
          apart[j] = offset - mean[j];
        }
        f(detail::exp_nonpositive(-.5 / (level * level) * square - group.top) / group.sum, apart.data());
      }
    };
    use(each_point, level, first, count);
  });
}

void EmpiricalMixture::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                           Rows<double> score, Rows<double> out) const {
  check_derivative(y, sigma, condition, v, score, out);
  second_pass(y, sigma, score, [&](const auto& each_point, double level, Index first, Index count) {
    const Index d = dim();
    std::vector<Lanes<double>> at(static_cast<std::size_t>(d)), sum(static_cast<std::size_t>(d), Lanes<double>{});
    for (Index j = 0; j < d; ++j) at[static_cast<std::size_t>(j)] = detail::load_column(v, first, j);
    each_point([&](Lanes<double> weight, const Lanes<double>* apart) {
      Lanes<double> along{};
      for (std::size_t j = 0; j < at.size(); ++j) along += apart[j] * at[j];
      along *= weight;
      for (std::size_t j = 0; j < at.size(); ++j) sum[j] += along * apart[j];
    });
    const double variance = level * level;
    for (Index j = 0; j < d; ++j) {
      const auto c = static_cast<std::size_t>(j);
      detail::store_column<double>((sum[c] / variance - at[c]) / variance, 0, j, out.middle_rows(first, count));
    }
  });
}

void EmpiricalMixture::vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                           Rows<double> score, Rows<double> out) const {
  jvp(y, sigma, condition, v, score, out);  // the Hessian is symmetric
}

void EmpiricalMixture::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                  Rows<double> score, std::span<double> out) const {
  check_arguments(y, sigma, condition, score);
  check(static_cast<Index>(out.size()) == y.rows(), "EmpiricalMixture::divergence: out has ", out.size(), " entries for ",
        y.rows(), " rows");
  second_pass(y, sigma, score, [&](const auto& each_point, double level, Index first, Index count) {
    Lanes<double> sum{};
    each_point([&](Lanes<double> weight, const Lanes<double>* apart) {
      for (Index j = 0; j < dim(); ++j) sum += weight * apart[j] * apart[j];
    });
    const double variance = level * level;
    for (Index i = 0; i < count; ++i) {
      out[static_cast<std::size_t>(first + i)] = (sum[i] / variance - static_cast<double>(dim())) / variance;
    }
  });
}

void EmpiricalMixture::log_density(ConstRows<double> y, std::span<const double> sigma, const Condition* condition,
                                   std::span<double> out) const {
  MatrixD unused(y.rows(), dim());
  check_arguments<double>(y, sigma, condition, unused);
  check(static_cast<Index>(out.size()) == y.rows(), "EmpiricalMixture::log_density: out has ", out.size(), " entries for ",
        y.rows(), " rows");
  evaluate(data_, y, sigma, [&](const Group<double>& group, double level, Index first, Index count) {
    const double constant = std::log(static_cast<double>(points())) +
                            .5 * static_cast<double>(dim()) * std::log(2 * std::numbers::pi * level * level);
    for (Index i = 0; i < count; ++i) out[static_cast<std::size_t>(first + i)] = group.top[i] + std::log(group.sum[i]) - constant;
  });
}

}  // namespace tweedie
