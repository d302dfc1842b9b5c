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
  options.title = network == 0   ? "Trained on fresh draws"
                  : network == 1 ? "Trained on 300 points"
                                 : "EDM's network, trained on fresh draws";
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

void draw_panel(Axes& axes, ConstRows<float> x, const Demo& demo) {
  plots::draw_samples(axes, x, {.log_density = plots::density_at(demo.truth, 0), .xlim = kX, .ylim = kY, .radius = .9});
}

// All samplers from the network (MALA from the exact score), and true draws to compare with.
Figure gallery_figure(const Demo& demo) {
  constexpr Index kColumns = 5;
  const Index panels = static_cast<Index>(demo.samplers.size()) + 1, rows = (panels + kColumns - 1) / kColumns;
  Figure figure({.width = 3.1 * kColumns,
                 .height = 2.9 * static_cast<double>(rows) + .4,
                 .dpi = 90,
                 .rows = rows,
                 .columns = kColumns,
                 .title = "Samples of the EDM network by every sampler (MALA: of the exact score)"});
  draw_panel(figure.axes(0, 0, {.title = "True samples", .x_limits = kX, .y_limits = kY}), demo.true_samples, demo);
  for (Index i = 1; i < panels; ++i) {
    const DemoSampler& s = demo.samplers[static_cast<std::size_t>(i) - 1];
    const DemoSamples& set = s.network ? *s.network : s.exact;
    const std::string title = join(s.name.substr(0, s.name.rfind(", ")), s.network ? "" : " (exact)", ", NFE ", set.evaluations);
    draw_panel(figure.axes(i / kColumns, i % kColumns, {.title = title, .x_limits = kX, .y_limits = kY}), set.x, demo);
  }
  return figure;
}

// One sampler from the exact score and from the network.
Figure sampler_figure(const DemoSampler& s, const Demo& demo) {
  const Index columns = s.network ? 2 : 1;
  Figure figure(
      {.width = 4.4 * static_cast<double>(columns), .height = 4.2, .dpi = 110, .rows = 1, .columns = columns, .title = s.name});
  for (Index i = 0; i < columns; ++i) {
    const DemoSamples& set = i == 0 ? s.exact : *s.network;
    const std::string title = join(i == 0 ? "exact score" : "EDM's network", ": energy distance ", number(set.energy, 2));
    draw_panel(figure.axes(0, i, {.title = title, .x_label = "x_{1}", .y_label = "x_{2}", .x_limits = kX, .y_limits = kY}), set.x,
               demo);
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
  save(error_figure(demo, 2), "score_error_edm.png");
  save(gallery_figure(demo), "samplers.png");
  for (const DemoSampler& sampler : demo.samplers) save(sampler_figure(sampler, demo), join("sampler_", sampler.key, ".png"));
  return names;
}

}  // namespace tweedie::cli
#endif
