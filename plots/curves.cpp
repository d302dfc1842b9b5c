// curves.cpp - loss curves and errors per noise level. SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "tweedie/plots/visualize.h"

namespace tweedie::plots {
namespace {

constexpr Index kBuckets = 1500;

// Mean over the window centred on each value, cut off at the ends. What is not finite is left out.
std::vector<double> moving_mean(std::span<const double> values, Index window) {
  const auto n = static_cast<Index>(values.size());
  std::vector<double> sum(values.size() + 1), count(values.size() + 1), result(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool finite = std::isfinite(values[i]);
    sum[i + 1] = sum[i] + (finite ? values[i] : 0);
    count[i + 1] = count[i] + finite;
  }
  for (Index i = 0; i < n; ++i) {
    const auto from = static_cast<std::size_t>(std::max<Index>(0, i - window / 2));
    const auto to = static_cast<std::size_t>(std::min(n, i + window / 2 + 1));
    result[static_cast<std::size_t>(i)] = (sum[to] - sum[from]) / (count[to] - count[from]);
  }
  return result;
}

// At most `most` evenly spaced values, the last one among them: a smooth curve needs no more, and an SVG stays small.
std::vector<double> thinned(std::span<const double> values, std::size_t most) {
  if (values.size() <= most) return {values.begin(), values.end()};
  std::vector<double> result;
  for (std::size_t i = 0; i < most; ++i) result.push_back(values[i * (values.size() - 1) / (most - 1)]);
  return result;
}

struct Curve {
  std::vector<double> x, y;
};

// The lowest and highest value of each of `buckets` stretches: looks the same as the whole where a stretch is narrower than a
// line.
Curve envelope(std::span<const double> x, std::span<const double> y, std::size_t buckets) {
  Curve result;
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t from = b * y.size() / buckets, to = (b + 1) * y.size() / buckets;
    const auto [low, high] = std::minmax_element(y.begin() + static_cast<Index>(from), y.begin() + static_cast<Index>(to));
    for (const auto at : {std::min(low, high), std::max(low, high)}) {
      result.x.push_back(x[static_cast<std::size_t>(at - y.begin())]);
      result.y.push_back(*at);
    }
  }
  return result;
}

}  // namespace

Figure visualize_loss(std::span<const double> loss, const LossOptions& options) {
  const auto n = static_cast<Index>(loss.size());
  check(options.steps.empty() || static_cast<Index>(options.steps.size()) == n, "visualize_loss: ", options.steps.size(),
        " steps for ", n, " losses; they must be as many");
  check(options.window >= 0, "visualize_loss: window is ", options.window, ", expected 0 or more");
  std::vector<double> steps = options.steps;
  for (Index i = static_cast<Index>(steps.size()); i < n; ++i) steps.push_back(static_cast<double>(i + 1));
  const Index window = options.window > 0 ? options.window : std::max<Index>(1, n / 50);
  Figure figure(options.figure);
  Axes& axes = figure.axes(0, 0,
                           {.title = options.title,
                            .x_label = options.x_label,
                            .y_label = options.y_label,
                            .y_scale = options.log_y ? Scale::log : Scale::linear,
                            .grid_lines = true});
  if (window > 1) {
    const LineStyle thin{.label = "per step", .color = series_color(0).with_alpha(.28), .width = 0.6};
    const bool all_drawn =
        std::all_of(loss.begin(), loss.end(), [&](double v) { return std::isfinite(v) && (v > 0 || !options.log_y); });
    if (n > 4 * kBuckets && all_drawn) {
      const Curve outline = envelope(steps, loss, kBuckets);
      axes.line(outline.x, outline.y, thin);
    } else {
      axes.line(steps, loss, thin);
    }
    const std::vector<double> smooth = moving_mean(loss, window);
    axes.line(thinned(steps, 2000), thinned(smooth, 2000),
              {.label = join("mean of ", window), .color = series_color(0), .width = 1.7});
  } else {
    axes.line(steps, loss, {.label = "training", .color = series_color(0), .width = 1.7});
  }
  if (!options.validation_loss.empty() || !options.validation_steps.empty()) {
    axes.line(options.validation_steps, options.validation_loss, {.label = "validation", .color = series_color(1), .width = 1.7});
  }
  return figure;
}

Figure visualize_sigma_error(std::span<const double> sigma, std::span<const double> error, const SigmaErrorOptions& options) {
  Figure figure(options.figure);
  Axes& axes = figure.axes(0, 0,
                           {.title = options.title,
                            .x_label = options.x_label,
                            .y_label = options.y_label,
                            .x_scale = Scale::log,
                            .y_scale = Scale::log,
                            .grid_lines = true});
  if (!options.zero_network.empty()) {
    axes.line(sigma, options.zero_network, {.label = "zero network", .color = kReference, .width = 1.2, .dashed = true});
  }
  if (!options.oracle.empty()) {
    axes.line(sigma, options.oracle, {.label = "empirical optimum", .color = series_color(2), .width = 1.4});
    axes.scatter(sigma, options.oracle, {.color = series_color(2), .radius = 2.2});
  }
  axes.line(sigma, error, {.label = options.name, .color = series_color(0), .width = 1.8});
  axes.scatter(sigma, error, {.color = series_color(0), .radius = 2.6});
  return figure;
}

}  // namespace tweedie::plots
