// study_scaling.cpp - the cost of sampling is linear in particles and in steps, and its memory is the samples' own.
//
//   study_scaling                       annealed Langevin, the chapter's network at width 64, D = 2, one thread: a minute or two
//
//   study_scaling --largest 10000000    particles of the last row (the default)
//
//   study_scaling --width 256           the network of the reference workloads
//
//   study_scaling --figure scaling.png  also draws both, on logarithmic axes (.png, .svg or .pdf; needs a build with plots)
//
// Two tables: ten steps (one at each of ten levels) of n particles, and 10,000 particles for k steps. The slope is that of least
// squares in log-log coordinates over n >= 10^4, or k >= 100: 1 if the cost is linear. Seconds are processor time, so that other
// programs do not count; the least of three runs. Memory is the process's largest resident size so far, less what it had before
// the first run, beside the samples' own 4 n D bytes.
// SPDX-License-Identifier: MIT
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/parallel.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#ifdef TWEEDIE_HAVE_PLOTS
#include "tweedie/plots/figure.h"
#endif

using namespace tweedie;

namespace {

struct Point {
  double count, seconds;
};

#ifdef TWEEDIE_HAVE_PLOTS
void draw(plots::Axes& axes, const std::vector<Point>& points) {
  std::vector<double> count, seconds, line;
  for (const Point& p : points) {
    count.push_back(p.count), seconds.push_back(p.seconds);
    line.push_back(points.back().seconds * p.count / points.back().count);
  }
  axes.line(count, line, {.label = "linear, through the last", .width = 1.0, .dashed = true});
  axes.scatter(count, seconds, {.label = "measured", .radius = 2.6});
}
void draw(const std::vector<Point>& particles, const std::vector<Point>& steps, const std::string& path) {
  plots::Figure figure({.width = 8, .height = 3.6, .columns = 2});
  const auto panel = [&](Index column, const char* title, const char* x_label) -> plots::Axes& {
    return figure.axes(0, column,
                       {.title = title,
                        .x_label = x_label,
                        .y_label = "seconds of one core",
                        .x_scale = plots::Scale::log,
                        .y_scale = plots::Scale::log,
                        .grid_lines = true});
  };
  draw(panel(0, "ten steps", "particles"), particles);
  draw(panel(1, "10,000 particles", "steps"), steps);
  figure.save(path);
}
#else
void draw(const std::vector<Point>&, const std::vector<Point>&, const std::string& path) {
  fail("--figure ", path, ": this build has no plots; configure with -DTWEEDIE_PLOTS=ON");
}
#endif

double resident_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // KiB on Linux
}

double seconds_of(const ScoreNetwork& net, Index particles, Index steps_per_level) {
  double least = HUGE_VAL;
  for (int run = 0; run < 3; ++run) {
    const std::clock_t begin = std::clock();
    annealed_langevin(net, *net.levels(), {.samples = particles, .steps_per_level = steps_per_level}, Rng{3});
    least = std::min(least, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return least;
}

// The slope of ln seconds over ln count.
double slope(const std::vector<Point>& points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  for (const Point& p : points) mean_x += std::log(p.count) / n, mean_y += std::log(p.seconds) / n;
  for (const Point& p : points) {
    xx += std::pow(std::log(p.count) - mean_x, 2);
    xy += (std::log(p.count) - mean_x) * (std::log(p.seconds) - mean_y);
  }
  return xy / xx;
}

std::vector<Point> particles_table(const ScoreNetwork& net, Index largest) {
  const double before = resident_mib();
  std::printf("ten steps\n%12s %12s %16s %14s %14s\n", "particles", "seconds", "ns a row, step", "memory, MiB", "samples, MiB");
  std::vector<Point> points;
  for (Index n = 1000; n <= largest; n *= 10) {
    const double seconds = seconds_of(net, n, 1);
    std::printf("%12td %12.4f %16.1f %14.1f %14.1f\n", n, seconds, 1e8 * seconds / static_cast<double>(n),
                resident_mib() - before, static_cast<double>(n * net.dim()) * sizeof(float) / (1 << 20));
    std::fflush(stdout);
    points.push_back({static_cast<double>(n), seconds});
  }
  std::printf("slope over n >= 10^4: %.3f\n", slope({points.begin() + 1, points.end()}));
  return points;
}

std::vector<Point> steps_table(const ScoreNetwork& net) {
  const double before = resident_mib();
  std::printf("10,000 particles\n%12s %12s %16s %14s\n", "steps", "seconds", "ns a row, step", "memory, MiB");
  std::vector<Point> points;
  for (const Index steps : {10, 30, 100, 300, 1000, 3000}) {
    const double seconds = seconds_of(net, 10'000, steps / 10);
    std::printf("%12td %12.4f %16.1f %14.1f\n", steps, seconds, 1e5 * seconds / static_cast<double>(steps),
                resident_mib() - before);
    std::fflush(stdout);
    points.push_back({static_cast<double>(steps), seconds});
  }
  std::printf("slope over k >= 100: %.3f\n\n", slope({points.begin() + 2, points.end()}));
  return points;
}

Index number(std::string_view name, std::string_view text) {
  Index value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  check(result.ec == std::errc() && result.ptr == text.data() + text.size() && value >= 1, name, " is '", text,
        "'; give a whole number, at least 1");
  return value;
}

int run(int argc, char** argv) {
  Index largest = 10'000'000, width = 64;
  std::string figure;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    check((name == "--largest" || name == "--width" || name == "--figure") && i + 1 < argc,
          "study_scaling takes --largest N, --width W and --figure FILE, not '", name, "'");
    if (name == "--figure") {
      figure = argv[i + 1];
    } else {
      (name == "--largest" ? largest : width) = number(name, argv[i + 1]);
    }
  }
  check(largest >= 100'000, "--largest is ", largest, "; a slope needs 100000 or more");
  set_threads(1);
  ScoreNetwork net({.data_dim = 2, .hidden_dim = width}, Rng{1});
  train(net, datasets::three_gaussians(10'000, Rng{42}), {.steps = 300, .batch = 256}, Rng{3});
  const std::vector<Point> steps = steps_table(net);  // first: afterwards the largest resident size is that of 10^7 samples
  const std::vector<Point> particles = particles_table(net, largest);
  if (!figure.empty()) draw(particles, steps, figure);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
