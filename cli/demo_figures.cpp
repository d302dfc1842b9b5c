// demo_figures.cpp - the demo's figures.
// SPDX-License-Identifier: MIT
#ifdef TWEEDIE_HAVE_PLOTS
#include "tweedie/cli/console.h"
#include "tweedie/cli/demo.h"
#include "tweedie/plots/visualize.h"

namespace tweedie::cli {

namespace {

using plots::Axes;
using plots::Figure;
using plots::Limits;

constexpr Limits kX{-4.5, 4.5}, kY{-3.2, 4};

plots::VectorFunction field_of(const ScoreModel& model, double sigma) {
  return [&model, sigma](ConstRows<double> x, Rows<double> out) { model.score(x, std::span(&sigma, 1), nullptr, out); };
}

Figure data_figure(const Demo& demo) {
  return plots::visualize_samples(demo.data, {.log_density = plots::density_at(demo.truth, 0),
                                              .name = "300 points",
                                              .xlim = kX,
                                              .ylim = kY,
                                              .title = "The tutorial's data over their density"});
}

Figure field_figure(const Demo& demo) {
  constexpr double sigma = .3;
  Figure figure({.width = 10.4, .height = 4.4, .rows = 1, .columns = 2});
  const ScoreModel* models[] = {demo.networks[0].net.get(), &demo.truth};
  const char* titles[] = {"Learned score, \u03C3 = 0.3", "Exact score, \u03C3 = 0.3"};
  for (Index i = 0; i < 2; ++i) {
    Axes& axes = figure.axes(0, i, {.title = titles[i], .x_label = "x_{1}", .y_label = "x_{2}"});
    plots::draw_score_field(axes, field_of(*models[i], sigma),
                            {.xlim = kX,
                             .ylim = kY,
                             .resolution = 24,
                             .log_density = plots::density_at(demo.truth, sigma),
                             .arrows = {.range = Limits{0, 12}}});
  }
  return figure;
}

Figure error_figure(const Demo& demo, std::size_t network) {
  std::vector<double> sigma, error;
  plots::SigmaErrorOptions options;
  const std::vector<LevelError>& levels = demo.networks[network].to_truth.levels;
  for (std::size_t l = 0; l < levels.size(); ++l) {
    sigma.push_back(levels[l].sigma);
    error.push_back(levels[l].relative);
    options.zero_network.push_back(1);
    if (network == 1) options.oracle.push_back(demo.empirical_to_truth.levels[l].relative);
  }
  options.title = network == 0 ? "Trained on fresh draws" : "Trained on 300 points";
  return plots::visualize_sigma_error(sigma, error, options);
}

Figure samples_figure(const std::vector<const DemoSamples*>& sets, const std::vector<std::string>& titles, const Demo& demo,
                      Index columns) {
  const Index rows = (static_cast<Index>(sets.size()) + columns - 1) / columns;
  Figure figure(
      {.width = 4.4 * static_cast<double>(columns), .height = 4. * static_cast<double>(rows), .rows = rows, .columns = columns});
  for (std::size_t i = 0; i < sets.size(); ++i) {
    Axes& axes = figure.axes(static_cast<Index>(i) / columns, static_cast<Index>(i) % columns,
                             {.title = titles[i], .x_label = "x_{1}", .y_label = "x_{2}", .x_limits = kX, .y_limits = kY});
    plots::draw_samples(axes, sets[i]->x, {.log_density = plots::density_at(demo.truth, 0), .xlim = kX, .ylim = kY});
  }
  return figure;
}

// The first levels, noise as wide as the page, are left out.
Figure trajectories_figure(const Demo& demo) {
  constexpr std::size_t kFirst = 8;  // sigma = 1.7 and below
  std::vector<ConstRows<float>> frames;
  for (std::size_t t = std::min(kFirst, demo.trajectory.size() - 1); t < demo.trajectory.size(); ++t) {
    frames.push_back(demo.trajectory[t]);
  }
  return plots::visualize_trajectories(frames, {.log_density = plots::density_at(demo.truth, 0),
                                                .xlim = kX,
                                                .ylim = kY,
                                                .title = "Annealed Langevin: after each level from \u03C3 = 1.7 down"});
}

Figure two_mode_figure() {
  const GaussianMixture two = GaussianMixture::two_mode();
  return plots::visualize_score_field(
      [](ConstRows<double> x, Rows<double> out) {
        const MatrixD s = two_mode_score(x);
        for (Index r = 0; r < s.rows(); ++r) {
          for (Index c = 0; c < 2; ++c) out(r, c) = s(r, c);
        }
      },
      {.log_density = plots::density_at(two, 0), .title = "The chapter's two-mode score"});
}

}  // namespace

std::vector<std::string> draw_demo_figures(const Demo& demo, const std::string& folder) {
  std::vector<std::string> names;
  const auto save = [&](const Figure& figure, const std::string& name) {
    figure.save(folder + "/" + name);
    names.push_back(name);
  };
  const std::vector<DemoSamples>& s = demo.samples;
  const std::vector<DemoSamples>& t = demo.temperatures;
  save(data_figure(demo), "data.png");
  save(field_figure(demo), "score_field.png");
  save(error_figure(demo, 0), "score_error_fresh.png");
  save(error_figure(demo, 1), "score_error_points.png");
  save(samples_figure({&s[0], &s[1], &s[2], &s[3]},
                      {"Annealed Langevin, exact score", "Annealed Langevin, network (fresh draws)",
                       "Annealed Langevin, network (300 points)", "Langevin at \u03C3 = 0.1 alone, network"},
                      demo, 2),
       "samples.png");
  save(samples_figure({&t[0], &s[1], &t[1]}, {"Temperature 0.5", "Temperature 1", "Temperature 2"}, demo, 3), "temperature.png");
  save(trajectories_figure(demo), "trajectories.png");
  save(plots::visualize_loss(demo.networks[0].losses,
                             {.steps = demo.networks[0].steps, .title = "Training on fresh draws: denoising loss"}),
       "loss.png");
  save(two_mode_figure(), "two_mode_field.png");
  return names;
}

}  // namespace tweedie::cli
#endif
