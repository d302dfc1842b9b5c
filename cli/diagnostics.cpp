// SPDX-License-Identifier: MIT
#include "tweedie/cli/diagnostics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "tweedie/cli/evaluation.h"
#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/samplers/c2st.h"
#include "tweedie/samplers/stein.h"

namespace tweedie::cli {

namespace {

constexpr double kFlowTolerance = 1e-4;

// The columns whose values differ.
std::vector<Index> varying(ConstRows<float> rows) {
  std::vector<Index> columns;
  for (Index c = 0; c < rows.cols(); ++c) {
    Index r = 1;
    while (r < rows.rows() && rows(r, c) == rows(0, c)) ++r;
    if (r < rows.rows()) columns.push_back(c);
  }
  return columns;
}

Matrix select(ConstRows<float> rows, const std::vector<Index>& columns) {
  Matrix out(rows.rows(), static_cast<Index>(columns.size()));
  for (Index r = 0; r < rows.rows(); ++r) {
    for (Index c = 0; c < out.cols(); ++c) out(r, c) = rows(r, columns[static_cast<std::size_t>(c)]);
  }
  return out;
}

}  // namespace

Transport exact_transport(ConstRows<float> rows, ConstRows<float> held_out) {
  const Index n = std::min({rows.rows(), held_out.rows(), kTransportRows});
  return {wasserstein(spread(rows, n), spread(held_out, n), 2), n};
}

std::optional<ClassifierTest> classifier_test(ConstRows<float> samples, ConstRows<float> held_out, const Rng& rng) {
  const Index n = std::min({samples.rows(), held_out.rows(), kClassifierRows});
  const Matrix reference = spread(held_out, n);
  const std::vector<Index> columns = varying(reference);
  if (columns.empty()) return std::nullopt;
  const C2st test = c2st(select(reference, columns), select(spread(samples, n), columns), {}, rng);
  return ClassifierTest{test.accuracy, test.standard_error, n, static_cast<Index>(columns.size())};
}

SteinFit stein_fit(const ScoreModel& model, const ModelRows& rows, Index count, const Rng& rng) {
  const ModelRows chosen = take_rows(rows, spread_places(rows.x.rows(), count));
  const Condition conditions{chosen.labels, chosen.covariates.view()};
  const bool any = !chosen.labels.empty() || chosen.covariates.rows() > 0;
  Matrix y(chosen.x.view()), noise(count, y.cols());
  const float sigma = static_cast<float>(model.sigma_min());
  rng.normals<float>(Purpose::perturb, 0, 0, noise);
  for (Index i = 0; i < y.size(); ++i) y.data()[i] += sigma * noise.data()[i];
  const Condition* const given = any ? &conditions : nullptr;
  return {stein_discrepancy(model, model.sigma_min(), y, {}, given).u_statistic,
          stein_test(model, model.sigma_min(), y, {}, rng, given).p_value, count};
}

namespace {

// One set of rows under one condition.
LogDensity density_of_group(const ModelFile& model, const ModelRows& rows, const RowGroup& group,
                            const LogDensityOptions& options, const Rng& rng) {
  const bool whole = model.conditions.empty();
  return log_density(*group.model, take_rows(rows.x, group.rows), options,
                     whole ? rng : Rng(rng.key(), static_cast<std::uint64_t>(group.rows.front())).split());
}

// Few conditions: each one's rows on all threads; many: the conditions themselves.
std::vector<LogDensity> density_of_groups(const ModelFile& model, const ModelRows& rows, const std::vector<RowGroup>& groups,
                                          LogDensityOptions options, const Rng& rng, const Console& console) {
  constexpr Index kFew = 64;
  const auto count = static_cast<Index>(groups.size());
  std::vector<LogDensity> found(groups.size());
  Progress bar(console, "log-density");
  Index arrived = 0;
  if (count <= kFew) {
    options.progress = [&](const SamplingProgress& p) {
      bar.update(arrived + p.done, rows.x.rows());
      return !interrupted();
    };
    for (std::size_t g = 0; g < groups.size(); ++g) {
      found[g] = density_of_group(model, rows, groups[g], options, rng);
      arrived += static_cast<Index>(groups[g].rows.size());
    }
    return found;
  }
  options.progress = [](const SamplingProgress&) { return !interrupted(); };
  std::mutex mutex;
  parallel_for(count, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const auto g = static_cast<std::size_t>(i);
      found[g] = density_of_group(model, rows, groups[g], options, rng);
      const std::lock_guard lock(mutex);
      arrived += static_cast<Index>(groups[g].rows.size());
      bar.update(arrived, rows.x.rows());
    }
  });
  return found;
}

}  // namespace

LogDensity density_of_rows(const ModelFile& model, const ModelRows& rows, LogDensityOptions options, const Rng& rng,
                           const Console& console) {
  const auto n = static_cast<std::size_t>(rows.x.rows());
  const std::vector<RowGroup> groups = group_rows(model, rows);
  const std::vector<LogDensity> found = density_of_groups(model, rows, groups, std::move(options), rng, console);
  const std::vector<double> jacobian = model.code.log_jacobian(rows.x);
  LogDensity all;
  all.nats.resize(n);
  all.standard_error.resize(n);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::vector<Index>& members = groups[g].rows;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const auto row = static_cast<std::size_t>(members[i]);
      all.nats[row] = found[g].nats[i] + jacobian[row];
      all.standard_error[row] = found[g].standard_error[i];
    }
    all.evaluations = std::max(all.evaluations, found[g].evaluations);
    all.mean_evaluations += found[g].mean_evaluations * static_cast<double>(members.size()) / static_cast<double>(n);
  }
  return all;
}

MeanLogDensity mean_log_density(const std::vector<double>& nats, Index dim) {
  const double n = static_cast<double>(nats.size());
  MeanLogDensity s;
  s.mean = std::accumulate(nats.begin(), nats.end(), 0.) / n;
  double square = 0;
  for (const double v : nats) square += (v - s.mean) * (v - s.mean);
  s.standard_error = nats.size() > 1 ? std::sqrt(square / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN();
  s.bits_per_dim = -s.mean / (static_cast<double>(dim) * std::log(2.));
  return s;
}

void warn_of_whole_numbers(const Console& console, const TableCode& code, double sigma_min) {
  std::string names;
  Index count = 0;
  for (const ColumnCode& column : code.columns()) {
    if (column.kind != ColumnKind::integer) continue;
    if (++count <= 3) names += join(count > 1 ? ", '" : "'", column.name, "'");
  }
  if (count == 0) return;
  console.warn(join(count > 1 ? "columns " : "column ", names, count > 3 ? join(" and ", count - 3, " more") : std::string(),
                    " held whole numbers only: ", count > 1 ? "their" : "its",
                    " density is that of the number line, at sigma = ", number(sigma_min), " deviations"));
}

Likelihood likelihood(const ModelFile& model, const ModelRows& held_out, const Console& console, const Rng& rng) {
  const Index dim = held_out.x.cols();
  Likelihood l;
  l.rows = std::min(held_out.x.rows(), kLikelihoodRows);
  l.divergence = dim <= kExactTraceDim ? Divergence::exact : Divergence::hutchinson;
  const ModelRows rows = take_rows(held_out, spread_places(held_out.x.rows(), l.rows));
  LogDensity p = density_of_rows(
      model, rows, {.divergence = l.divergence, .probes = 4, .rtol = kFlowTolerance, .atol = kFlowTolerance}, rng, console);
  l.density = mean_log_density(p.nats, dim);
  const auto middle = p.nats.begin() + static_cast<std::ptrdiff_t>(p.nats.size() / 2);
  std::nth_element(p.nats.begin(), middle, p.nats.end());
  l.median = *middle;
  l.evaluations = p.evaluations;
  return l;
}

}  // namespace tweedie::cli
