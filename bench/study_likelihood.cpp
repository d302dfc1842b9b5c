// study_likelihood.cpp - flow, likelihood and information on exact scores: the tables behind their tests, with their cost.
//
//   cmake --preset release && cmake --build --preset release --target study_likelihood
//   build/release/bench/study_likelihood            (about four minutes on one core; names of sections run these alone:
//                                                    orders flow prior likelihood terminal density hutchinson information
//                                                    repeated)
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <string>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/samplers/information.h"
#include "tweedie/samplers/likelihood.h"
#include "tweedie/samplers/probability_flow.h"

using namespace tweedie;

namespace {

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Named {
  const char* name;
  GaussianMixture model;
};

MatrixD normals(Index rows, Index cols, double scale) {
  MatrixD z(rows, cols);
  Rng{11}.normals<double>(Purpose::user, 0, 0, z);
  for (Index i = 0; i < z.size(); ++i) z.data()[i] *= scale;
  return z;
}

GaussianMixture correlated(Index dim) {
  const MatrixD a = normals(dim, dim, 1 / std::sqrt(static_cast<double>(dim)));
  MatrixD c(dim, dim);
  for (Index i = 0; i < dim; ++i) {
    for (Index j = 0; j < dim; ++j) {
      for (Index k = 0; k < dim; ++k) c(i, j) += a(i, k) * a(j, k);
    }
    c(i, i) += .05;
  }
  return GaussianMixture({1}, MatrixD(1, dim), {c});
}

std::vector<Named> mixtures() {
  return {{"three_gaussians", GaussianMixture::three_gaussians()},
          {"three_gaussians_unequal", GaussianMixture::three_gaussians_unequal()}};
}

std::vector<Named> all_models() {
  std::vector<Named> models = mixtures();
  models.push_back({"Gaussian, 3-D", correlated(3)});
  models.push_back({"Gaussian, 10-D", correlated(10)});
  return models;
}

MatrixD draws(const GaussianMixture& m, Index n, double sigma) { return MatrixD(m.noised(1, sigma).sample(n, Rng{5}).view()); }

std::vector<double> row_errors(const MatrixD& a, const MatrixD& b) {
  std::vector<double> e(static_cast<std::size_t>(a.rows()));
  for (Index r = 0; r < a.rows(); ++r) {
    double& worst = e[static_cast<std::size_t>(r)];
    for (Index j = 0; j < a.cols(); ++j) worst = std::max(worst, std::abs(a(r, j) - b(r, j)));
  }
  std::sort(e.begin(), e.end());
  return e;
}

void orders() {
  std::printf(
      "\nOrders: median error at sigma = .01 of 1001 rows from sigma = 50, fixed steps in ln sigma, against rtol 1e-13\n");
  std::printf("%-24s %-15s %6s %10s %7s\n", "model", "method", "steps", "error", "order");
  for (const Named& m : mixtures()) {
    const MatrixD start = normals(1001, 2, 50);
    const MatrixD exact = probability_flow(m.model, ve(), start, {.rtol = 1e-13, .atol = 1e-13}).x;
    for (const FlowMethod method : {FlowMethod::euler, FlowMethod::heun, FlowMethod::dormand_prince}) {
      double before = 0;
      for (Index steps = 20; steps <= 1280; steps *= 2) {
        const double error = row_errors(probability_flow(m.model, ve(), start, {.method = method, .steps = steps}).x, exact)[500];
        std::printf("%-24s %-15s %6td %10.2e %7s\n", m.name, to_string(method), steps, error,
                    before > 0 ? std::to_string(std::log2(before / error)).substr(0, 5).c_str() : "");
        before = error;
      }
    }
  }
}

void flow() {
  std::printf(
      "\nFlow: 10,000 samples, ve(.01, 50): evaluations a row, seconds, energy test against truth, round trip of 1000 data "
      "rows\n");
  std::printf("%-24s %8s %9s %7s %7s %8s %12s %12s\n", "model", "rtol", "mean NFE", "most", "s", "p-value", "trip median",
              "trip worst");
  for (const Named& m : mixtures()) {
    for (const double tolerance : {1e-3, 1e-4, 1e-5, 1e-6}) {
      const Clock clock;
      const FlowSamples s = probability_flow(m.model, ve(), {.samples = 10'000, .rtol = tolerance, .atol = tolerance}, Rng{1});
      const double seconds = clock.seconds();
      const double p = energy_test(s.x, m.model.sample(10'000, Rng{2}), {}, Rng{3}).p_value;
      const MatrixD x = draws(m.model, 1000, .01);
      const ProbabilityFlowOptions options{.rtol = tolerance, .atol = tolerance};
      const std::vector<double> trip =
          row_errors(probability_flow(m.model, ve(), encode(m.model, ve(), x, options).x, options).x, x);
      std::printf("%-24s %8.0e %9.1f %7td %7.2f %8.3f %12.2e %12.2e\n", m.name, tolerance, s.mean_evaluations,
                  static_cast<Index>(s.evaluations), seconds, p, trip[500], trip[999]);
    }
  }
}

void prior() {
  std::printf(
      "\nPrior: mode weights of 10 x 10,000 flow samples (s.e. .0015), from N(0, 50^2 I) and from the oracle's own p_T; energy "
      "tests\n");
  std::printf("%-24s %-8s %8s %8s %8s %11s %9s\n", "model", "start", "w1", "w2", "w3", "p <= .001", "least p");
  for (const Named& m : mixtures()) {
    for (const bool own : {false, true}) {
      double weights[3] = {}, least = 1;
      int rejected = 0;
      for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        const FlowSamples s = own ? probability_flow(m.model, ve(), m.model.noised(1, 50).sample(10'000, Rng{1000 + seed}), {})
                                  : probability_flow(m.model, ve(), {.samples = 10'000}, Rng{seed});
        const MatrixD r = m.model.responsibilities(MatrixD(s.x.view()), 0);
        for (Index i = 0; i < r.rows(); ++i) {
          for (Index k = 0; k < 3; ++k) weights[k] += r(i, k) / 1e5;
        }
        const double p = energy_test(s.x, m.model.sample(10'000, Rng{100 + seed}), {}, Rng{200 + seed}).p_value;
        rejected += p <= 1e-3;
        least = std::min(least, p);
      }
      std::printf("%-24s %-8s %8.4f %8.4f %8.4f %11d %9.4f\n", m.name, own ? "p_T" : "prior", weights[0], weights[1], weights[2],
                  rejected, least);
    }
  }
}

void likelihood() {
  std::printf(
      "\nLikelihood: 1000 draws at sigma_min = .01, sigma_max = 50, exact trace and terminal: |error| / max(1, |log p|)\n");
  std::printf("%-24s %8s %10s %10s %9s %7s %7s\n", "model", "rtol", "median", "worst", "mean NFE", "most", "s");
  for (const Named& m : all_models()) {
    const MatrixD x = draws(m.model, 1000, .01);
    const std::vector<double> exact = m.model.log_density(x, .01);
    for (const double tolerance : {1e-5, 1e-7, 1e-9}) {
      const Clock clock;
      const LogDensity p = log_density(m.model, x, {.terminal = Terminal::exact, .rtol = tolerance, .atol = tolerance});
      const double seconds = clock.seconds();
      std::vector<double> error;
      for (std::size_t i = 0; i < exact.size(); ++i)
        error.push_back(std::abs(p.nats[i] - exact[i]) / std::max(1., std::abs(exact[i])));
      std::sort(error.begin(), error.end());
      std::printf("%-24s %8.0e %10.2e %10.2e %9.1f %7td %7.2f\n", m.name, tolerance, error[500], error[999], p.mean_evaluations,
                  static_cast<Index>(p.evaluations), seconds);
    }
  }
}

void terminal() {
  std::printf("\nTerminal density: log p with the prior minus log p with the exact one, 1000 draws, rtol 1e-7\n");
  std::printf("%-24s %9s %10s %10s\n", "model", "sigma_max", "mean", "worst");
  for (const Named& m : mixtures()) {
    const MatrixD x = draws(m.model, 1000, .01);
    for (const double high : {10., 50., 80., 300.}) {
      LogDensityOptions options{.sigma_max = high, .rtol = 1e-7, .atol = 1e-7};
      const LogDensity prior = log_density(m.model, x, options);
      options.terminal = Terminal::exact;
      const LogDensity exact = log_density(m.model, x, options);
      double mean = 0, worst = 0;
      for (std::size_t i = 0; i < prior.nats.size(); ++i) {
        mean += (prior.nats[i] - exact.nats[i]) / 1000;
        worst = std::max(worst, std::abs(prior.nats[i] - exact.nats[i]));
      }
      std::printf("%-24s %9.0f %10.5f %10.5f\n", m.name, high, mean, worst);
    }
  }
}

void density() {
  std::printf("\nint exp(log_density) over the plane, rtol 1e-6\n%-24s %11s %12s %7s\n", "model", "points", "integral - 1", "s");
  const Box boxes[] = {{-6, 6, -5, 5}, {-7, 7, -5, 9}};
  const Index sides[] = {80, 140};
  const std::vector<Named> models = mixtures();
  for (std::size_t i = 0; i < 2; ++i) {
    const Clock clock;
    const double total =
        integrate_density(models[i].model, boxes[i], sides[i], {.terminal = Terminal::exact, .rtol = 1e-6, .atol = 1e-6});
    std::printf("%-24s %5td x %3td %12.2e %7.2f\n", models[i].name, sides[i], sides[i], total - 1, clock.seconds());
  }
}

void hutchinson() {
  std::printf("\nHutchinson against the exact trace, sigma .1 to 10, rtol 1e-5, 1000 rows: z = error / own standard error\n");
  std::printf("%-24s %-11s %6s %5s %9s %9s %9s %11s %7s\n", "model", "probe", "probes", "rows", "mean z", "var z", "max |z|",
              "mean s.e.", "s");
  for (const Named& m : {Named{"three_gaussians", GaussianMixture::three_gaussians()}, Named{"Gaussian, 10-D", correlated(10)}}) {
    const MatrixD x = draws(m.model, 1000, .1);
    LogDensityOptions options{.terminal = Terminal::exact, .sigma_min = .1, .sigma_max = 10};
    const LogDensity exact = log_density(m.model, x, options);
    options.divergence = Divergence::hutchinson;
    for (const Probe kind : {Probe::rademacher, Probe::gaussian}) {
      for (const Index probes : {8, 64, 128}) {
        options.probe = kind;
        options.probes = probes;
        const Clock clock;
        const LogDensity p = log_density(m.model, x, options, Rng{21});
        double mean = 0, square = 0, largest = 0, error = 0, rows = 0;
        for (std::size_t i = 0; i < 1000; ++i) {
          if (p.standard_error[i] < 1e-12) continue;  // all probes agree by chance
          const double z = (p.nats[i] - exact.nats[i]) / p.standard_error[i];
          ++rows;
          mean += z;
          square += z * z;
          largest = std::max(largest, std::abs(z));
          error += p.standard_error[i];
        }
        mean /= rows;
        square /= rows;
        error /= rows;
        std::printf("%-24s %-11s %6td %5.0f %9.3f %9.3f %9.2f %11.4f %7.2f\n", m.name, to_string(kind), probes, rows, mean,
                    square - mean * mean, largest, error, clock.seconds());
      }
    }
  }
}

// -int p ln p by the midpoint rule.
double quadrature_entropy(const GaussianMixture& m, double reach, Index side) {
  const double step = 2 * reach / static_cast<double>(side);
  MatrixD y(m.dim() == 1 ? side : side * side, m.dim());
  for (Index p = 0; p < y.rows(); ++p) {
    y(p, 0) = -reach + (static_cast<double>(p % side) + .5) * step;
    if (m.dim() == 2) y(p, 1) = -reach + (static_cast<double>(p / side) + .5) * step;
  }
  double h = 0;
  for (const double log_p : m.log_density(y, 0)) h -= std::exp(log_p) * log_p * std::pow(step, static_cast<double>(m.dim()));
  return h;
}

void print(const char* what, const char* name, double exact, const Information& i, double seconds) {
  std::printf("%-8s %-24s %10.5f %10.5f %9.5f %9.5f %6.2f %6td %7.2f\n", what, name, exact, i.nats, i.nats - exact,
              i.standard_error, (i.nats - exact) / i.standard_error, static_cast<Index>(i.evaluations), seconds);
}

void information() {
  std::printf(
      "\nInformation from 50,000 draws, 48 nodes, sigma .01 to 50 or 20 deviations (entropy; mutual information of columns 0 and "
      "1)\n");
  std::printf("%-8s %-24s %10s %10s %9s %9s %6s %6s %7s\n", "", "model", "exact", "estimate", "error", "s.e.", "z", "evals", "s");
  const Index first[] = {0}, second[] = {1};
  for (const Named& m : all_models()) {
    const Index d = m.model.dim();
    const MatrixD x = draws(m.model, 50'000, 0);
    double exact = 0;
    if (d == 2) {
      exact = quadrature_entropy(m.model, 9, 600);
    } else {  // from the density at the mean
      const MatrixD centre(m.model.means());
      exact = -m.model.log_density(centre, 0)[0] + .5 * static_cast<double>(d);
    }
    const Clock clock;
    const Information h = entropy(m.model, x, {}, Rng{8});
    print("h", m.name, exact, h, clock.seconds());
    const Clock second_clock;
    const Information mi = mutual_information(m.model, x, first, second, {}, Rng{8});
    const double seconds = second_clock.seconds();
    double exact_mi = 0;
    if (d == 2) {
      exact_mi =
          quadrature_entropy(m.model.marginal(first), 9, 2000) + quadrature_entropy(m.model.marginal(second), 9, 2000) - exact;
    } else {
      const MatrixD& c = m.model.covariance(0);
      exact_mi = -.5 * std::log(1 - c(0, 1) * c(0, 1) / (c(0, 0) * c(1, 1)));
    }
    print("I", m.name, exact_mi, mi, seconds);
  }
  std::printf("\nFisher information, 50,000 draws, against quadrature\n%-24s %7s %11s %11s %6s\n", "model", "sigma", "quadrature",
              "estimate", "z");
  for (const Named& m : mixtures()) {
    const MatrixD x = draws(m.model, 50'000, 0);
    for (const double sigma : {.01, .1, 1., 10.}) {
      const FisherInformation j = fisher_information(m.model, x, sigma, Rng{4});
      const double exact = m.model.fisher_information(sigma).value;
      std::printf("%-24s %7.2f %11.5f %11.5f %6.2f\n", m.name, sigma, exact, j.value, (j.value - exact) / j.error);
    }
  }
}

void repeated() {
  std::printf("\nInformation repeated: 24 sets of 50,000 draws; z = error / own standard error\n");
  std::printf("%-24s %12s %8s %10s %12s %8s %10s\n", "model", "h: mean err", "mean z", "mean z^2", "I: mean err", "mean z",
              "mean z^2");
  const Index first[] = {0}, second[] = {1};
  for (const Named& m : mixtures()) {
    const double h = quadrature_entropy(m.model, 9, 600);
    const double exact[2] = {
        h, quadrature_entropy(m.model.marginal(first), 9, 2000) + quadrature_entropy(m.model.marginal(second), 9, 2000) - h};
    double error[2] = {}, mean[2] = {}, square[2] = {};
    for (std::uint64_t seed = 1; seed <= 24; ++seed) {
      const MatrixD x(m.model.sample(50'000, Rng{500 + seed}).view());
      const Information found[2] = {entropy(m.model, x, {}, Rng{900 + seed}),
                                    mutual_information(m.model, x, first, second, {}, Rng{900 + seed})};
      for (int k = 0; k < 2; ++k) {
        const double z = (found[k].nats - exact[k]) / found[k].standard_error;
        error[k] += (found[k].nats - exact[k]) / 24;
        mean[k] += z / 24;
        square[k] += z * z / 24;
      }
    }
    std::printf("%-24s %12.5f %8.2f %10.2f %12.5f %8.2f %10.2f\n", m.name, error[0], mean[0], square[0], error[1], mean[1],
                square[1]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  set_threads(1);
  const struct {
    const char* name;
    void (*run)();
  } sections[] = {{"orders", orders},     {"flow", flow},       {"prior", prior},           {"likelihood", likelihood},
                  {"terminal", terminal}, {"density", density}, {"hutchinson", hutchinson}, {"information", information},
                  {"repeated", repeated}};
  for (const auto& section : sections) {
    if (argc == 1 || std::any_of(argv + 1, argv + argc, [&](const char* a) { return std::string(a) == section.name; }))
      section.run();
  }
}
