// demo.h - what the demo computes, how it is told, and the figures it makes of it.
//
//   demo.cpp the story, demo_samplers.cpp the samplers side by side, demo_report.cpp table and JSON, demo_figures.cpp the
//   figures.
// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tweedie/cli/evaluation.h"
#include "tweedie/cli/program.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/network.h"
#include "tweedie/samplers/samples.h"

namespace tweedie::cli {

struct DemoArguments {
  Common common;
  std::string folder = "demo";
  std::int64_t steps = 3000;
  Index samples = 1000;
};

/// Samples of one method beside the truth.
struct DemoSamples {
  std::string name, key;
  Matrix x;                          // (N, 2)
  std::vector<double> weights = {};  // of the modes, by the most probable component
  double mean[2] = {0, 0};
  double energy = 0;             // energy distance to a true sample of equal size
  double null_99 = 0;            // its 99th percentile between two true samples of that size
  std::int64_t evaluations = 0;  // of the score, per sample
  double seconds = 0;
};

/// A trained network, its losses and its errors per noise level.
struct DemoNetwork {
  std::unique_ptr<Network> net;
  std::vector<double> steps = {}, losses = {};
  FisherDivergence to_truth = {};
  double seconds = 0;
};

/// One sampler with its settings: from the exact score, where its own error shows alone, and from the EDM network.
struct DemoSampler {
  std::string name, key;
  DemoSamples exact;
  std::optional<DemoSamples> network;  // absent: it needs a density, which the network has not
};

/// KL(truth || network) at the network's smallest sigma, by log-densities of true draws.
struct DensityGap {
  Index rows = 0;
  double exact = 0, network = 0;  // mean log-densities, nats
  double kl = 0, standard_error = 0;
};

struct Demo {
  GaussianMixture truth = GaussianMixture::three_gaussians();
  Matrix data;                           // (300, 2), the tutorial's points
  std::vector<DemoNetwork> networks;     // the chapter's on fresh draws and on the 300 points; EDM's on fresh draws
  FisherDivergence points_to_empirical;  // the second network against its data's own score
  FisherDivergence empirical_to_truth;   // the best that fitting the 300 points exactly would give
  std::vector<DemoSamples> samples;
  std::vector<DemoSamples> temperatures;  // T = .5, 1, 2
  std::vector<Matrix> trajectory;         // of the first samples of the network
  CopyCheck fresh_copies, point_copies;
  std::vector<DemoSampler> samplers;
  Matrix true_samples;  // as many as each sampler gave
  DensityGap density;
};

/// A stage's line on the console, with the time it took when it is over.
class Stage {
 public:
  Stage(const Console& console, std::string name) : console_(console), name_(std::move(name)), bar_(console, name_) {}
  ~Stage() {
    bar_.finish();
    console_.note(join("  ", pad(name_, 46), duration(seconds())));
  }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  Progress& bar() { return bar_; }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  SamplingCallback progress() {
    return [this](const SamplingProgress& p) {
      bar_.update(p.done, p.total);
      return !interrupted();
    };
  }

 private:
  const Console& console_;
  std::string name_;
  Progress bar_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Throws CancelledError after Ctrl-C.
void stop_if_interrupted();

/// Mode weights, mean and energy distance of samples; the null distribution comes from pairs of true samples.
class Judge {
 public:
  Judge(const GaussianMixture& truth, Rng rng) : truth_(truth), rng_(rng) {}
  void operator()(DemoSamples& s);

 private:
  double null_99(Index n);

  const GaussianMixture& truth_;
  Rng rng_;
  Index null_rows_ = 0;
  double null_99_ = 0;
};

/// Every sampler of `tweedie sample`, from the exact score and from `network` over the same range of noise.
std::vector<DemoSampler> run_demo_samplers(const DemoArguments& a, const GaussianMixture& truth, const Network& network, Rng rng);
DensityGap measure_density(const DemoArguments& a, const GaussianMixture& truth, const Network& network, const Rng& rng);

/// The summary on standard output, and summary.json.
std::string demo_summary(const Demo& demo, double seconds);
std::string demo_json(const DemoArguments& a, const Demo& demo, const std::vector<std::string>& files, double seconds);

/// Draws all figures into `folder`; returns their names.
std::vector<std::string> draw_demo_figures(const Demo& demo, const std::string& folder);

}  // namespace tweedie::cli
