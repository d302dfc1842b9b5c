// SPDX-License-Identifier: MIT
#include "tweedie/models/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "tweedie/models/detail/metadata.h"
#include "tweedie/models/sigma_sampling.h"

namespace tweedie {

namespace {

const char* const kKindNames[] = {"continuous", "integer"};

const Table::Column& numeric(const Table::Column& column) {
  check<DataError>(column.numeric, "column '", column.name, "' holds text", column.text.size() > 0 ? " such as '" : "",
                   column.text.size() > 0 ? column.text[0] : std::string_view(), column.text.size() > 0 ? "'" : "",
                   "; select the numeric columns (--columns a,b,c), or turn it into numbers first");
  return column;
}

double finite(const Table::Column& column, std::size_t row) {
  const double value = column.numbers[row];
  check<DataError>(!std::isnan(value), "column '", column.name, "', row ", row + 1,
                   " has no value; leave such rows out (--missing drop) or fill them in");
  check<DataError>(std::isfinite(value), "column '", column.name, "', row ", row + 1, " is infinite; remove the row");
  return value;
}

constexpr std::size_t kMostKnots = 1000;

double normal_score(double p) { return p <= .5 ? normal_quantile_lower(p) : -normal_quantile_lower(1 - p); }

// Normal scores of the mid-ranks of a column's distinct values, with mean 0 and deviation 1 over all of its values.
void fit_quantiles(std::vector<double> sorted, ColumnCode& code) {
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  std::vector<double> values, scores;
  double mean = 0, squares = 0;
  for (std::size_t begin = 0, end = 0; begin < sorted.size(); begin = end) {
    while (end < sorted.size() && sorted[end] == sorted[begin]) ++end;
    values.push_back(sorted[begin]);
    scores.push_back(normal_score(.5 * static_cast<double>(begin + end) / n));
    const double share = static_cast<double>(end - begin) / n;
    mean += share * scores.back();
    squares += share * scores.back() * scores.back();
  }
  const double deviation = std::max(std::sqrt(squares - mean * mean), (scores.back() - scores.front()) / 10);
  const std::size_t knots = std::min(kMostKnots, values.size());
  for (std::size_t k = 0; k < knots; ++k) {
    const std::size_t i = k * (values.size() - 1) / (knots - 1);
    code.values.push_back(values[i]);
    code.scores.push_back((scores[i] - mean) / deviation);
  }
}

ColumnCode fit_column(const Table::Column& column, Scaling scaling) {
  ColumnCode code{.name = numeric(column).name};
  const std::size_t n = column.numbers.size();
  code.low = code.high = finite(column, 0);
  bool whole = true;
  double mean = 0, squares = 0;  // Welford's running moments: no cancellation however large the mean
  for (std::size_t i = 0; i < n; ++i) {
    const double value = finite(column, i);
    code.low = std::min(code.low, value);
    code.high = std::max(code.high, value);
    whole = whole && value == std::nearbyint(value) && std::abs(value) < 9e15;
    const double step = value - mean;
    mean += step / static_cast<double>(i + 1);
    squares += step * (value - mean);
  }
  code.kind = whole ? ColumnKind::integer : ColumnKind::continuous;
  if (scaling != Scaling::none) {
    const double deviation = std::sqrt(squares / static_cast<double>(n));
    code.mean = code.constant() ? code.low : mean;
    // A column that is nearly always the same but for far outliers would put these tens of deviations away, where no noise level
    // reaches: its unit is a tenth of the range.
    code.std = code.constant() || !(deviation > 0) ? 1 : std::max(deviation, (code.high - code.low) / 10);
    check<DataError>(std::isfinite(code.mean) && std::isfinite(code.std), "column '", column.name,
                     "' has values too large to standardise (", code.low, " to ", code.high, "); rescale it");
  }
  if (scaling == Scaling::quantile && !code.constant()) fit_quantiles(column.numbers, code);
  return code;
}

// Six decimal digits below the standard deviation: more would be rounding noise of the float network.
double rounded(double value, double std) {
  const double scale = std::pow(10., 6 - std::floor(std::log10(std)));
  const double scaled = value * scale;
  if (!std::isfinite(scaled) || std::abs(scaled) > 9e15) return value;
  return std::nearbyint(scaled) / scale;
}

}  // namespace

double ColumnCode::scaled(double value) const {
  if (values.empty()) return (value - mean) / std;
  if (value <= values.front()) return scores.front() + (value - values.front()) / std;
  if (value >= values.back()) return scores.back() + (value - values.back()) / std;
  const auto i = static_cast<std::size_t>(std::upper_bound(values.begin(), values.end(), value) - values.begin());
  return std::lerp(scores[i - 1], scores[i], (value - values[i - 1]) / (values[i] - values[i - 1]));
}

double ColumnCode::unscaled(double z) const {
  if (values.empty()) return mean + std * z;
  if (z <= scores.front()) return values.front() + std * (z - scores.front());
  if (z >= scores.back()) return values.back() + std * (z - scores.back());
  const auto i = static_cast<std::size_t>(std::upper_bound(scores.begin(), scores.end(), z) - scores.begin());
  return std::lerp(values[i - 1], values[i], (z - scores[i - 1]) / (scores[i] - scores[i - 1]));
}

double ColumnCode::slope(double z) const {
  if (values.empty() || z < scores.front() || z >= scores.back()) return 1 / std;
  const auto i = static_cast<std::size_t>(std::upper_bound(scores.begin(), scores.end(), z) - scores.begin());
  return (scores[i] - scores[i - 1]) / (values[i] - values[i - 1]);
}

TableCode TableCode::fit(const Table& table, Scaling scaling) {
  check(table.cols() > 0 && table.rows > 0, "TableCode::fit: the table is ", table.rows, " x ", table.cols(),
        "; it has no cells");
  TableCode code;
  code.has_header_ = table.has_header;
  for (const Table::Column& column : table.columns) code.columns_.push_back(fit_column(column, scaling));
  return code;
}

TableCode TableCode::identity(Index dim) {
  TableCode code;
  for (Index c = 0; c < dim; ++c) {
    const double infinity = HUGE_VAL;
    code.columns_.push_back({.name = join("x", c + 1), .low = -infinity, .high = infinity});
  }
  return code;
}

bool TableCode::affine() const {
  return std::all_of(columns_.begin(), columns_.end(), [](const ColumnCode& column) { return column.values.empty(); });
}

TableCode TableCode::standardised() const {
  TableCode code = *this;
  for (ColumnCode& column : code.columns_) {
    column.values.clear();
    column.scores.clear();
  }
  return code;
}

std::vector<std::string> TableCode::header() const {
  std::vector<std::string> names;
  if (has_header_) {
    for (const ColumnCode& column : columns_) names.push_back(column.name);
  }
  return names;
}

Matrix TableCode::encode(const Table& table, bool keep_missing) const {
  const bool by_name = has_header_ && table.has_header;
  check<DataError>(by_name || table.cols() == dim(), "the table has ", table.cols(), " columns, the model ", dim(),
                   "; without headers on both sides columns go by position (select them with --columns)");
  Matrix scaled(table.rows, dim());
  for (Index c = 0; c < dim(); ++c) {
    const ColumnCode& code = columns_[static_cast<std::size_t>(c)];
    const auto same = [&](const Table::Column& column) { return column.name == code.name; };
    const auto found = by_name ? std::find_if(table.columns.begin(), table.columns.end(), same) : table.columns.begin() + c;
    check<DataError>(found != table.columns.end(), "the table has no column '", code.name, "', which the model was trained on");
    const Table::Column& column = numeric(*found);
    for (Index r = 0; r < table.rows; ++r) {
      if (keep_missing && std::isnan(column.numbers[static_cast<std::size_t>(r)])) {
        scaled(r, c) = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      scaled(r, c) = static_cast<float>(code.scaled(finite(column, static_cast<std::size_t>(r))));
      check<DataError>(std::isfinite(scaled(r, c)), "column '", column.name, "', row ", r + 1, " is too large for a float");
    }
  }
  return scaled;
}

MatrixD TableCode::decode(ConstRows<float> scaled) const {
  check(scaled.cols() == dim(), "TableCode::decode: the rows are ", shape(scaled), ", the table has ", dim(), " columns");
  MatrixD values(scaled.rows(), dim());
  for (Index c = 0; c < dim(); ++c) {
    const ColumnCode& code = columns_[static_cast<std::size_t>(c)];
    for (Index r = 0; r < scaled.rows(); ++r) {
      const double value = code.unscaled(static_cast<double>(scaled(r, c)));
      if (code.constant()) {
        values(r, c) = code.low;
      } else if (code.kind == ColumnKind::integer) {
        values(r, c) = std::clamp(std::nearbyint(value), code.low, code.high) + 0.;  // no -0
      } else {
        values(r, c) = rounded(value, code.std);
      }
    }
  }
  return values;
}

std::vector<double> TableCode::log_jacobian(ConstRows<float> scaled) const {
  check(scaled.cols() == dim(), "TableCode::log_jacobian: the rows are ", shape(scaled), ", the table has ", dim(), " columns");
  std::vector<double> sums(static_cast<std::size_t>(scaled.rows()));
  for (Index r = 0; r < scaled.rows(); ++r) {
    for (Index c = 0; c < dim(); ++c) {
      sums[static_cast<std::size_t>(r)] +=
          std::log(columns_[static_cast<std::size_t>(c)].slope(static_cast<double>(scaled(r, c))));
    }
  }
  return sums;
}

void TableCode::store(Checkpoint& checkpoint, const std::string& prefix) const {
  std::vector<double> mean, std, low, high;
  std::vector<std::string> names, kinds;
  for (const ColumnCode& column : columns_) {
    mean.push_back(column.mean);
    std.push_back(column.std);
    low.push_back(column.low);
    high.push_back(column.high);
    names.push_back(column.name);
    kinds.emplace_back(kKindNames[static_cast<int>(column.kind)]);
  }
  checkpoint.set(prefix + "data.mean", {dim()}, mean);
  checkpoint.set(prefix + "data.std", {dim()}, std);
  checkpoint.set(prefix + "data.low", {dim()}, low);
  checkpoint.set(prefix + "data.high", {dim()}, high);
  if (!affine()) {
    std::vector<double> counts, values, scores;
    for (const ColumnCode& column : columns_) {
      counts.push_back(static_cast<double>(column.values.size()));
      values.insert(values.end(), column.values.begin(), column.values.end());
      scores.insert(scores.end(), column.scores.begin(), column.scores.end());
    }
    const auto total = static_cast<Index>(values.size());
    checkpoint.set(prefix + "data.quantile_counts", {dim()}, counts);
    checkpoint.set(prefix + "data.quantile_values", {total}, values);
    checkpoint.set(prefix + "data.quantile_scores", {total}, scores);
  }
  checkpoint.metadata[prefix + "columns.names"] = detail::json_array(names);
  checkpoint.metadata[prefix + "columns.kinds"] = detail::json_array(kinds);
  checkpoint.metadata[prefix + "columns.header"] = has_header_ ? "true" : "false";
}

void TableCode::load_quantiles(const Checkpoint& checkpoint, const std::string& prefix) {
  const std::vector<double> counts = checkpoint.get(prefix + "data.quantile_counts", {dim()});
  double total = 0;
  for (const double count : counts) {
    check<ModelFileError>(count == 0 || (count >= 2 && count <= static_cast<double>(kMostKnots) && count == std::floor(count)),
                          "data.quantile_counts holds ", count, "; a column has 0 or from 2 to ", kMostKnots, " knots");
    total += count;
  }
  const std::vector<double> values = checkpoint.get(prefix + "data.quantile_values", {static_cast<Index>(total)});
  const std::vector<double> scores = checkpoint.get(prefix + "data.quantile_scores", {static_cast<Index>(total)});
  const auto increasing = [](const std::vector<double>& v) {
    return std::all_of(v.begin(), v.end(), [](double x) { return std::isfinite(x); }) &&
           std::adjacent_find(v.begin(), v.end(), std::greater_equal<>()) == v.end();
  };
  std::ptrdiff_t first = 0;
  for (std::size_t c = 0; c < counts.size(); ++c) {
    const auto last = first + static_cast<std::ptrdiff_t>(counts[c]);
    ColumnCode& column = columns_[c];
    column.values.assign(values.begin() + first, values.begin() + last);
    column.scores.assign(scores.begin() + first, scores.begin() + last);
    check<ModelFileError>(increasing(column.values) && increasing(column.scores), "column '", column.name,
                          "' has quantiles that do not increase; no table gives that");
    first = last;
  }
}

TableCode TableCode::load(const Checkpoint& checkpoint, Index dim, const std::string& prefix) {
  if (!checkpoint.has(prefix + "data.mean")) return identity(dim);
  const std::vector<double> mean = checkpoint.get(prefix + "data.mean", {dim}), std = checkpoint.get(prefix + "data.std", {dim});
  const std::vector<double> low = checkpoint.get(prefix + "data.low", {dim}), high = checkpoint.get(prefix + "data.high", {dim});
  const std::vector<std::string> names = detail::metadata_array(checkpoint, prefix + "columns.names");
  const std::vector<std::string> kinds = detail::metadata_array(checkpoint, prefix + "columns.kinds");
  const auto header = checkpoint.metadata.find(prefix + "columns.header");
  const std::size_t n = static_cast<std::size_t>(dim);
  check<ModelFileError>(names.size() == n && kinds.size() == n, "the metadata names ", names.size(), " columns of ", kinds.size(),
                        " kinds, the network has ", dim);
  check<ModelFileError>(header != checkpoint.metadata.end() && (header->second == "true" || header->second == "false"),
                        "the metadata's columns.header is neither true nor false");
  TableCode code;
  code.has_header_ = header->second == "true";
  for (std::size_t c = 0; c < n; ++c) {
    const auto kind = std::find(std::begin(kKindNames), std::end(kKindNames), kinds[c]);
    check<ModelFileError>(kind != std::end(kKindNames), "column '", names[c], "' is of the unknown kind '", kinds[c],
                          "'; this version knows continuous and integer");
    check<ModelFileError>(std::isfinite(mean[c]) && std::isfinite(std[c]) && std[c] > 0 && std::isfinite(low[c]) &&
                              std::isfinite(high[c]) && low[c] <= high[c],
                          "column '", names[c], "' has the mean ", mean[c], ", deviation ", std[c], " and range ", low[c], " to ",
                          high[c], "; no table gives that");
    code.columns_.push_back({names[c], static_cast<ColumnKind>(kind - std::begin(kKindNames)), mean[c], std[c], low[c], high[c]});
  }
  if (checkpoint.has(prefix + "data.quantile_counts")) code.load_quantiles(checkpoint, prefix);
  return code;
}

}  // namespace tweedie
