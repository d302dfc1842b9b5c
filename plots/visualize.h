// visualize.h - the figures of score-based models, one call each. Every function returns a Figure: save() it as .png, .svg or
// .pdf.
//
//   visualize_score_field(model, 0.5, {.xlim = {-3, 3}, .ylim = {-3, 3}, .resolution = 20}).save("score.png");
//   visualize_samples(samples, {.log_density = density_at(mixture, 0.0)}).save("samples.pdf");
//
// Points that are not finite are left out and counted by Figure::skipped(). Errors: UsageError for wrong shapes and empty limits.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "tweedie/models/score_model.h"
#include "tweedie/plots/figure.h"

namespace tweedie::plots {

/// f(x, out): out(b, :) = the vector at row b; x, out (B, 2).
using VectorFunction = std::function<void(ConstRows<double> x, Rows<double> out)>;

/// log p_sigma of a model that has a log_density. The model must outlive the function.
TWEEDIE_API ScalarFunction density_at(const ScoreModel& model, double sigma);

/// What lies behind arrows and samples. log_density is clipped `log_range` nats below its largest value on the grid.
enum class Background { none, density, log_density };

struct ScoreFieldOptions {
  Limits xlim{-3, 3}, ylim{-3, 3};
  Index resolution = 20;            // arrows along each side
  ScalarFunction log_density = {};  // behind the arrows; empty: the model's own where it has one
  Background background = Background::log_density;
  double log_range = 12;  // nats
  Index background_resolution = 241;
  ArrowStyle arrows = {};
  std::string title = "Score field", x_label = "x_{1}", y_label = "x_{2}", magnitude_label = "Score magnitude";
  FigureOptions figure = {.width = 5.4, .height = 4.6};
};

/// The score of a two-dimensional model at noise `sigma` as arrows coloured by magnitude over the density [the chapter's
/// visualize_score_field, with its xlim, ylim and resolution]. Throws UsageError unless model.dim() = 2.
TWEEDIE_API Figure visualize_score_field(const ScoreModel& model, double sigma, const ScoreFieldOptions& options = {});
/// The same for any field of vectors.
TWEEDIE_API Figure visualize_score_field(const VectorFunction& score, const ScoreFieldOptions& options = {});
/// The same into a panel of a larger figure.
TWEEDIE_API void draw_score_field(Axes& axes, const VectorFunction& score, const ScoreFieldOptions& options = {});

struct DensityOptions {
  Limits xlim{-3, 3}, ylim{-3, 3};
  Index resolution = 241;
  bool log = false;                                        // colour shows log p (nats) instead of p
  double log_range = 12;                                   // nats below the largest value where the colours end
  std::vector<double> contour_masses = {.2, .5, .8, .95};  // iso-lines that enclose these shares of the mass on the grid
  ColorMap map = ColorMap::viridis;
  std::string title = {}, x_label = "x_{1}", y_label = "x_{2}";
  FigureOptions figure = {.width = 5.4, .height = 4.6};
};

/// A heat map of exp(log_density), or of log_density itself, with iso-lines.
TWEEDIE_API Figure visualize_density(const ScalarFunction& log_density, const DensityOptions& options = {});
TWEEDIE_API void draw_density(Axes& axes, const ScalarFunction& log_density, const DensityOptions& options = {});

struct SamplesOptions {
  ScalarFunction log_density = {};  // the true density, drawn behind with iso-lines; empty: none
  ConstRows<float> reference = {};  // a second set (N', 2), such as the training data
  std::string name = "samples", reference_name = "data";
  std::optional<Limits> xlim = {}, ylim = {};  // absent: from the points
  std::string title = {}, x_label = "x_{1}", y_label = "x_{2}";
  double radius = 0;  // points; 0: from the number of samples
  FigureOptions figure = {.width = 4.8, .height = 4.6};
};

/// Samples (N, 2) over the true density.
TWEEDIE_API Figure visualize_samples(ConstRows<float> samples, const SamplesOptions& options = {});
TWEEDIE_API void draw_samples(Axes& axes, ConstRows<float> samples, const SamplesOptions& options = {});

struct TrajectoriesOptions {
  ScalarFunction log_density = {};
  Index max_paths = 60;  // the first so many particles are drawn
  std::optional<Limits> xlim = {}, ylim = {};
  std::string title = {}, x_label = "x_{1}", y_label = "x_{2}";
  FigureOptions figure = {.width = 4.8, .height = 4.6};
};

/// Paths of particles: frames[t] (N, 2) holds all particles at one time. Lines fade in from start to end.
TWEEDIE_API Figure visualize_trajectories(std::span<const ConstRows<float>> frames, const TrajectoriesOptions& options = {});
TWEEDIE_API Figure visualize_trajectories(const std::vector<Matrix>& frames, const TrajectoriesOptions& options = {});
TWEEDIE_API void draw_trajectories(Axes& axes, std::span<const ConstRows<float>> frames, const TrajectoriesOptions& options = {});

struct LossOptions {
  std::vector<double> steps = {};  // of the losses; empty: 1, 2, ...
  std::vector<double> validation_steps = {}, validation_loss = {};
  Index window = 0;  // of the centred moving mean; 0: a fiftieth of the losses
  bool log_y = false;
  std::string title = "Training loss", x_label = "step", y_label = "loss";
  FigureOptions figure = {.width = 5.4, .height = 3.6};
};

/// A loss curve: the raw values thin, their moving mean thick, the validation loss beside them.
TWEEDIE_API Figure visualize_loss(std::span<const double> loss, const LossOptions& options = {});

struct SigmaErrorOptions {
  std::vector<double> zero_network = {};  // the same error for the zero network, per sigma; empty: not drawn
  std::vector<double> oracle = {};        // for the best that the data allow (the empirical mixture's score); empty: not drawn
  std::string name = "network";
  std::string title = {}, x_label = "noise level \u03C3", y_label = "score error  E|s \u2212 s*|^{2} / E|s*|^{2}";
  FigureOptions figure = {.width = 5.2, .height = 3.8};
};

/// Error of a learned score per noise level, on logarithmic axes. `error` has one value per sigma.
TWEEDIE_API Figure visualize_sigma_error(std::span<const double> sigma, std::span<const double> error,
                                         const SigmaErrorOptions& options = {});

struct TableOptions {
  std::vector<std::string> columns = {};  // names; empty: x_{1}, x_{2}, ...
  ConstRows<float> samples = {};          // a second table (N', D), laid over the first
  std::string name = "data", samples_name = "samples";
  Index max_columns = 6;    // of the pair plot: the first so many are drawn
  Index max_points = 1500;  // per set and panel: evenly spaced rows
  Index bins = 0;           // 0: by Freedman and Diaconis' rule
  std::string title = {};
  std::optional<FigureOptions> figure = {};  // absent: sized by the number of panels; rows and columns are always set here
};

/// Histograms of every column of `data` (N, D), D <= 64, as densities.
TWEEDIE_API Figure visualize_histograms(ConstRows<float> data, const TableOptions& options = {});
/// A scatter matrix: histograms on the diagonal, pairs of columns below it.
TWEEDIE_API Figure visualize_pairs(ConstRows<float> data, const TableOptions& options = {});

}  // namespace tweedie::plots
