// fields.cpp - figures in the plane of two-dimensional data: score fields, densities, samples, trajectories.
// SPDX-License-Identifier: MIT
#include <cmath>
#include <utility>

#include "tweedie/plots/detail/axes_data.h"
#include "tweedie/plots/visualize.h"

namespace tweedie::plots {
namespace {

constexpr double kLevels[] = {.2, .5, .8, .95};
constexpr double kWidestRatio = 3;

struct Columns {
  std::vector<double> x, y;
};

Columns columns_of(ConstRows<float> rows, const char* caller) {
  check(rows.cols() == 2 || rows.rows() == 0, caller, ": points of shape ", shape(rows), ", expected (N, 2)");
  Columns result;
  for (Index r = 0; r < rows.rows(); ++r) {
    result.x.push_back(static_cast<double>(rows(r, 0)));
    result.y.push_back(static_cast<double>(rows(r, 1)));
  }
  return result;
}

double largest_finite(const Grid& grid) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const double v : grid.values) {
    if (std::isfinite(v)) largest = std::max(largest, v);
  }
  return largest;
}

// exp(log p - shift); the shift keeps unnormalised densities within range.
Grid exponentiated(Grid grid, double shift) {
  for (double& v : grid.values) v = std::exp(v - shift);
  return grid;
}

// A muted picture of the density, relative to its largest value, that lets marks on top of it speak.
void draw_background(Axes& axes, const Grid& log_density, Background kind, double log_range) {
  const double largest = largest_finite(log_density);
  if (kind == Background::none || !std::isfinite(largest)) return;
  if (kind == Background::density) {
    axes.image(exponentiated(log_density, largest), {.map = ColorMap::mist, .range = Limits{0, 1}});
  } else {
    axes.image(log_density, {.map = ColorMap::mist, .range = Limits{largest - log_range, largest}});
  }
}

void draw_iso_lines(Axes& axes, const Grid& log_density, std::span<const double> masses, Color color, double width) {
  axes.contours(log_density, mass_levels(log_density, masses), {.color = color, .width = width});
}

// Axes of one unit, unless one side would be a thin strip: columns of a table may have units of their own.
AxesOptions plane(const std::string& title, const std::string& x_label, const std::string& y_label, Limits x, Limits y) {
  const double ratio = (x.hi - x.lo) / (y.hi - y.lo);
  return {.title = title,
          .x_label = x_label,
          .y_label = y_label,
          .x_limits = x,
          .y_limits = y,
          .equal_aspect = ratio > 1 / kWidestRatio && ratio < kWidestRatio};
}

struct PlaneLimits {
  Limits x, y;
};

// The limits wanted, or those of the points; automatic ones are made equally long when they are of like length.
PlaneLimits limits_of(std::initializer_list<const Columns*> sets, const std::optional<Limits>& x,
                      const std::optional<Limits>& y) {
  detail::Hull hx, hy;
  for (const Columns* set : sets) {
    for (std::size_t i = 0; i < set->x.size(); ++i) {
      if (!std::isfinite(set->x[i]) || !std::isfinite(set->y[i])) continue;
      hx.add(set->x[i]);
      hy.add(set->y[i]);
    }
  }
  PlaneLimits result{x.value_or(padded(hx.limits, Scale::linear)), y.value_or(padded(hy.limits, Scale::linear))};
  const double width = result.x.hi - result.x.lo, height = result.y.hi - result.y.lo;
  const auto widen = [](Limits& limits, double by) { limits = {limits.lo - by / 2, limits.hi + by / 2}; };
  if (!y && width > height && width < kWidestRatio * height) widen(result.y, width - height);
  if (!x && height > width && height < kWidestRatio * width) widen(result.x, height - width);
  return result;
}

VectorGrid sample_field(const VectorFunction& score, const ScoreFieldOptions& options) {
  check(static_cast<bool>(score), "visualize_score_field: the score function is empty");
  const Index n = options.resolution;
  check(n >= 2 && n <= 512, "visualize_score_field: resolution is ", n, ", expected 2 to 512 arrows along a side");
  const MatrixD points = grid_points(options.xlim, options.ylim, n, n);
  MatrixD vectors(n * n, 2);
  score(points, vectors);
  VectorGrid field{options.xlim, options.ylim, n, n, {}, {}};
  for (Index i = 0; i < n * n; ++i) {
    field.u.push_back(vectors(i, 0));
    field.v.push_back(vectors(i, 1));
  }
  return field;
}

double largest_magnitude(const VectorGrid& field) {
  double largest = 0;
  for (std::size_t i = 0; i < field.u.size(); ++i) {
    const double magnitude = std::hypot(field.u[i], field.v[i]);
    if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
  }
  return largest > 0 ? largest : 1;
}

// Half an arrow past the outermost nodes.
Limits with_rim(Limits limits, Index nodes) {
  const double half = 0.5 * (limits.hi - limits.lo) / static_cast<double>(nodes - 1);
  return {limits.lo - half, limits.hi + half};
}

double radius_for(Index points) { return std::clamp(14.0 / std::sqrt(std::max(1.0, static_cast<double>(points))), 0.75, 2.0); }

}  // namespace

ScalarFunction density_at(const ScoreModel& model, double sigma) {
  return [&model, sigma](ConstRows<double> x, std::span<double> out) {
    model.log_density(x, std::span<const double>(&sigma, 1), nullptr, out);
  };
}

void draw_score_field(Axes& axes, const VectorFunction& score, const ScoreFieldOptions& options) {
  const VectorGrid field = sample_field(score, options);
  if (options.log_density && options.background != Background::none) {
    const Index n = options.background_resolution;
    const Grid density = evaluate(options.log_density, with_rim(options.xlim, options.resolution),
                                  with_rim(options.ylim, options.resolution), n, n);
    draw_background(axes, density, options.background, options.log_range);
  }
  ArrowStyle style = options.arrows;
  if (!style.range) style.range = Limits{0, largest_magnitude(field)};
  axes.arrows(field, style);
  axes.color_bar({style.map, *style.range, options.magnitude_label});
}

Figure visualize_score_field(const VectorFunction& score, const ScoreFieldOptions& options) {
  Figure figure(options.figure);
  check(options.resolution >= 2, "visualize_score_field: resolution is ", options.resolution,
        ", expected 2 or more arrows along a side");
  const AxesOptions axes = plane(options.title, options.x_label, options.y_label, with_rim(options.xlim, options.resolution),
                                 with_rim(options.ylim, options.resolution));
  draw_score_field(figure.axes(0, 0, axes), score, options);
  return figure;
}

Figure visualize_score_field(const ScoreModel& model, double sigma, const ScoreFieldOptions& options) {
  check(model.dim() == 2, "visualize_score_field: the model '", model.name(), "' has dimension ", model.dim(),
        ", a score field is drawn in 2; draw tables of more columns with visualize_pairs");
  ScoreFieldOptions with_density = options;
  if (!options.log_density && model.has_log_density()) with_density.log_density = density_at(model, sigma);
  const VectorFunction score = [&model, sigma](ConstRows<double> x, Rows<double> out) {
    model.score(x, std::span<const double>(&sigma, 1), nullptr, out);
  };
  return visualize_score_field(score, with_density);
}

void draw_density(Axes& axes, const ScalarFunction& log_density, const DensityOptions& options) {
  const Grid grid = evaluate(log_density, options.xlim, options.ylim, options.resolution, options.resolution);
  const double largest = largest_finite(grid);
  if (!std::isfinite(largest)) {
    axes.image(grid, {.map = options.map, .range = Limits{0, 1}});
    return;
  }
  // A density whose largest value is no normal double is shown relative to it.
  const bool relative = std::abs(largest) > 600;
  const Limits range = options.log ? Limits{largest - options.log_range, largest} : Limits{0, relative ? 1 : std::exp(largest)};
  axes.image(options.log ? grid : exponentiated(grid, relative ? largest : 0), {.map = options.map, .range = range});
  const bool on_dark = options.map == ColorMap::viridis;
  if (!options.contour_masses.empty()) {
    draw_iso_lines(axes, grid, options.contour_masses, on_dark ? Color{1, 1, 1, .55} : kReference.with_alpha(.8), 0.7);
  }
  axes.color_bar({options.map, range, options.log ? "log density (nats)" : relative ? "density / largest density" : "density"});
}

Figure visualize_density(const ScalarFunction& log_density, const DensityOptions& options) {
  Figure figure(options.figure);
  draw_density(figure.axes(0, 0, plane(options.title, options.x_label, options.y_label, options.xlim, options.ylim)), log_density,
               options);
  return figure;
}

namespace {

// The density behind points, over the whole panel.
void draw_truth(Axes& axes, const ScalarFunction& log_density, Limits x, Limits y) {
  if (!log_density) return;
  const Grid grid = evaluate(log_density, x, y, 241, 241);
  draw_background(axes, grid, Background::density, 0);
  draw_iso_lines(axes, grid, kLevels, kReference.with_alpha(.55), 0.7);
}

}  // namespace

void draw_samples(Axes& axes, ConstRows<float> samples, const SamplesOptions& options) {
  const Columns points = columns_of(samples, "visualize_samples"),
                reference = columns_of(options.reference, "visualize_samples: reference");
  const PlaneLimits limits = limits_of({&points, &reference}, options.xlim, options.ylim);
  draw_truth(axes, options.log_density, limits.x, limits.y);
  const auto radius = [&](const Columns& set) {
    return options.radius > 0 ? options.radius : radius_for(static_cast<Index>(set.x.size()));
  };
  const bool two = options.reference.rows() > 0;
  if (two) {
    axes.scatter(reference.x, reference.y,
                 {.label = options.reference_name, .color = series_color(0), .radius = radius(reference), .opacity = .75});
  }
  axes.scatter(points.x, points.y,
               {.label = two ? options.name : "", .color = series_color(1), .radius = radius(points), .opacity = .65});
}

Figure visualize_samples(ConstRows<float> samples, const SamplesOptions& options) {
  Figure figure(options.figure);
  const Columns points = columns_of(samples, "visualize_samples"),
                reference = columns_of(options.reference, "visualize_samples: reference");
  const PlaneLimits limits = limits_of({&points, &reference}, options.xlim, options.ylim);
  draw_samples(figure.axes(0, 0, plane(options.title, options.x_label, options.y_label, limits.x, limits.y)), samples, options);
  return figure;
}

namespace {

Columns all_points(std::span<const ConstRows<float>> frames, Index paths) {
  Columns all;
  for (const ConstRows<float>& frame : frames) {
    const Columns points = columns_of(frame.middle_rows(0, std::min(paths, frame.rows())), "visualize_trajectories");
    all.x.insert(all.x.end(), points.x.begin(), points.x.end());
    all.y.insert(all.y.end(), points.y.begin(), points.y.end());
  }
  return all;
}

Index path_count(std::span<const ConstRows<float>> frames, Index wanted) {
  if (frames.empty()) return 0;
  for (const ConstRows<float>& frame : frames) {
    check(frame.rows() == frames[0].rows() && frame.cols() == 2, "visualize_trajectories: a frame has shape ", shape(frame),
          ", the first ", shape(frames[0]), "; all must be (N, 2) with the same particles");
  }
  return std::min(std::max<Index>(0, wanted), frames[0].rows());
}

}  // namespace

void draw_trajectories(Axes& axes, std::span<const ConstRows<float>> frames, const TrajectoriesOptions& options) {
  const Index paths = path_count(frames, options.max_paths);
  const Columns all = all_points(frames, paths);
  const PlaneLimits limits = limits_of({&all}, options.xlim, options.ylim);
  draw_truth(axes, options.log_density, limits.x, limits.y);
  Columns starts, ends;
  for (Index p = 0; p < paths; ++p) {
    Columns path;
    for (const ConstRows<float>& frame : frames) {
      path.x.push_back(static_cast<double>(frame(p, 0)));
      path.y.push_back(static_cast<double>(frame(p, 1)));
    }
    axes.line(path.x, path.y, {.color = series_color(0).with_alpha(.8), .width = 0.8, .fade_from = 0.2});
    starts.x.push_back(path.x.front()), starts.y.push_back(path.y.front());
    ends.x.push_back(path.x.back()), ends.y.push_back(path.y.back());
  }
  axes.scatter(starts.x, starts.y, {.label = "start", .color = kReference, .radius = 1.9, .hollow = true});
  axes.scatter(ends.x, ends.y, {.label = "end", .color = series_color(1), .radius = 1.9});
}

Figure visualize_trajectories(std::span<const ConstRows<float>> frames, const TrajectoriesOptions& options) {
  Figure figure(options.figure);
  const Columns all = all_points(frames, path_count(frames, options.max_paths));
  const PlaneLimits limits = limits_of({&all}, options.xlim, options.ylim);
  draw_trajectories(figure.axes(0, 0, plane(options.title, options.x_label, options.y_label, limits.x, limits.y)), frames,
                    options);
  return figure;
}

Figure visualize_trajectories(const std::vector<Matrix>& frames, const TrajectoriesOptions& options) {
  std::vector<ConstRows<float>> views;
  for (const Matrix& frame : frames) views.push_back(frame);
  return visualize_trajectories(std::span<const ConstRows<float>>(views), options);
}

}  // namespace tweedie::plots
