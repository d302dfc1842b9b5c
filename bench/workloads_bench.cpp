// workloads_bench.cpp - whole samplers and training steps of the chapter's network, verified and then timed.
//
//   workloads_bench                                          everything, on the target in use (TWEEDIE_TARGET names another)
//   workloads_bench --benchmark_filter='S.*threads:1'        sampling on one thread
//
//   S1, S2, S3   annealed Langevin, 10 levels, D = 2, width 256, 4 layers, with 16384, 256 and 1 particles. The levels have 1, 20
//                and 100 steps each: a step costs the same whatever their number, the chapter's 100 included.
//   S4           EDM's Heun, 18 steps (35 evaluations), an mlp for any sigma with D = 64 and 784, width 512, 6 layers, 1024 rows.
//
//   L1           log-densities of 4096 rows, D = 2, exact trace, tolerances 1e-5, in double: seconds, and evaluations of a row.
//
//   T1, T2, T3   training steps, denoising score matching and Adam, batch 128 and 4096; width 64 and 128 at batch 512.
//   Q1           a training step of Q1's network for any noise level: EDM's loss and sampling of sigma, width 128, batch 512, a
//                moving average; 65,536 rows.
//
// GFLOP/s count the products of the folded network, 2 (D W + (L - 2) W W + W D) a row, three times that in training; `peak` is
// their share of what the threads' cores do in multiply-adds on registers, measured before the first benchmark. Samplers run in
// fp32, and in bf16x3 and bf16 as S1/16384/bf16, with the share of bf16's multiply-adds (bf16x3 has three for one that counts).
// SPDX-License-Identifier: MIT
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "machine_peak.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/annealed_langevin.h"
#include "tweedie/samplers/heun.h"
#include "tweedie/samplers/likelihood.h"

using namespace tweedie;
using kernels::Precision;

namespace {

constexpr Index kDim = 2, kLayers = 4;
constexpr Precision kPrecisions[] = {Precision::fp32, Precision::bf16x3, Precision::bf16};

ScoreNetwork network(Index width) { return ScoreNetwork({.data_dim = kDim, .hidden_dim = width, .num_layers = kLayers}, Rng{1}); }

double flops_per_row(Index width) { return 2.0 * static_cast<double>(2 * kDim * width + (kLayers - 2) * width * width); }

Matrix normals(Index rows) {
  Matrix x(rows, kDim);
  Rng{2}.normals<float>(Purpose::prior, 0, 0, x);
  return x;
}

/// Scores in float against scores in double: 1e-4 of the largest is some hundred times the rounding errors of four layers in
/// fp32, twenty times those in bf16x3; bf16 gets 2%.
bool verify(Index width, Precision precision) {
  ScoreNetwork net = network(width);
  net.set_precision(precision);
  const Matrix x = normals(130);
  MatrixD wide(x.rows(), kDim), expected(x.rows(), kDim);
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index d = 0; d < kDim; ++d) wide(r, d) = static_cast<double>(x(r, d));
  }
  for (const double level : net.levels()->values()) {
    const float sigma = static_cast<float>(level);
    const double sigma_wide = static_cast<double>(sigma);
    Matrix found(x.rows(), kDim);
    net.score(x, {&sigma, 1}, nullptr, found);
    net.score(wide, {&sigma_wide, 1}, nullptr, expected);
    double largest = 0, worst = 0;
    for (Index r = 0; r < x.rows(); ++r) {
      for (Index d = 0; d < kDim; ++d) {
        const double error = std::fabs(static_cast<double>(found(r, d)) - expected(r, d));
        if (!(error <= worst)) worst = error;
        largest = std::max(largest, std::fabs(expected(r, d)));
      }
    }
    if (!(worst <= (precision == Precision::bf16 ? 2e-2 : 1e-4) * largest)) return false;
  }
  return true;
}

void count(benchmark::State& state, double flops, int threads, Precision precision = Precision::fp32) {
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  const double peak = bench::peak(kernels::target(), precision);
  if (peak > 0) state.counters["peak"] = Counter(flops * 1e-9 / peak / threads, Counter::kIsIterationInvariantRate);
}

void time_sampling(benchmark::State& state, Index particles, Index steps_per_level, int threads, Precision precision) {
  set_threads(threads);
  const Index width = 256;
  ScoreNetwork net = network(width);
  net.set_precision(precision);
  AnnealedLangevinOptions options;
  options.samples = particles;
  options.steps_per_level = steps_per_level;
  for (auto _ : state) {
    Samples samples = annealed_langevin(net, *net.levels(), options, Rng{3});
    benchmark::DoNotOptimize(samples.x.data());
  }
  const double steps = static_cast<double>(net.levels()->size() * steps_per_level);
  count(state, steps * static_cast<double>(particles) * flops_per_row(width), threads, precision);
  state.counters["s/step"] =
      benchmark::Counter(steps, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void time_heun(benchmark::State& state, Index dim, int threads, Precision precision) {
  set_threads(threads);
  const Index width = 512, layers = 6, particles = 1024;
  ContinuousScoreNetwork net({.data_dim = dim, .hidden_dim = width, .num_layers = layers}, Rng{1});
  const Index last = net.layout().count() - 2;  // it starts as zero
  for (Index i = net.layout()[last].offset; i < net.layout().size(); ++i) {
    net.parameters()[static_cast<std::size_t>(i)] = i % 2 == 0 ? .01f : -.02f;
  }
  net.parameters_changed();
  net.set_precision(precision);
  HeunOptions options;
  options.samples = particles;
  for (auto _ : state) {
    Samples samples = heun(net, karras(18, .002, 80), options, Rng{3});
    benchmark::DoNotOptimize(samples.x.data());
  }
  count(state, 35.0 * particles * 2.0 * static_cast<double>(2 * dim * width + (layers - 2) * width * width), threads, precision);
}

void time_likelihood(benchmark::State& state, int threads) {
  set_threads(threads);
  const ScoreNetwork net = network(256);
  const Matrix x = normals(4096);
  double evaluations = 0;
  for (auto _ : state) {
    const LogDensity p = log_density(net, x, {});
    benchmark::DoNotOptimize(p.nats.data());
    evaluations = p.mean_evaluations;
  }
  state.counters["evaluations"] = evaluations;
}

void time_training(benchmark::State& state, Index width, Index batch, int threads) {
  set_threads(threads);
  ScoreNetwork net = network(width);
  const Matrix data = normals(4 * batch);
  TrainOptions options;
  options.steps = std::int64_t{1} << 31;
  options.batch = batch;
  Trainer trainer(net, data, options, Rng{4});
  for (int i = 0; i < 3; ++i) trainer.step();
  for (auto _ : state) benchmark::DoNotOptimize(trainer.step());
  state.SetLabel(std::string(trainer.engine()));
  count(state, 3 * static_cast<double>(batch) * flops_per_row(width), threads);
}

void time_quality(benchmark::State& state, int threads) {
  set_threads(threads);
  const Index width = 128, batch = 512, embedding = 64, features = 32;  // the network's defaults
  ContinuousScoreNetwork net({.data_dim = kDim, .hidden_dim = width, .embedding_dim = embedding}, Rng{1});
  const Matrix data = normals(65'536);
  Trainer trainer(
      net, data,
      {.objective = Denoising{.weighting = Weighting::edm}, .steps = std::int64_t{1} << 31, .batch = batch, .ema = .999}, Rng{4});
  for (int i = 0; i < 3; ++i) trainer.step();
  for (auto _ : state) benchmark::DoNotOptimize(trainer.step());
  state.SetLabel(std::string(trainer.engine()));
  count(state,
        3 * static_cast<double>(batch) * (flops_per_row(width) + 2.0 * static_cast<double>(embedding * (width + features))),
        threads);
}

/// One thread is timed by its processor time (other programs on the machine do not count), several by the clock on the wall.
template <class Run>
void add(const std::string& label, int threads, Run run) {
  auto* b = benchmark::RegisterBenchmark((label + "/threads:" + std::to_string(threads)).c_str(), run);
  b->MinTime(.05)->Repetitions(9)->ReportAggregatesOnly()->Unit(benchmark::kMicrosecond);
  if (threads > 1) b->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const Index width : {64, 128, 256}) {
    for (const Precision precision : kPrecisions) {
      if (!verify(width, precision)) {
        std::fprintf(stderr, "width %td: the network's scores in %s are wrong; nothing is timed\n", width, name(precision));
        return 1;
      }
    }
  }
  const kernels::Target target = kernels::target();
  std::printf("%s, peak of one core: %.1f GFLOP/s, for bf16 %.1f\n", kernels::name(target), bench::peak(target),
              bench::peak(target, Precision::bf16));
  const int cores = threads();
  for (int count = 1; count <= cores; count = count == cores ? cores + 1 : cores) {
    for (const Precision precision : kPrecisions) {
      const std::string in = precision == Precision::fp32 ? "" : std::string("/") + name(precision);
      add("S1/16384" + in, count, [=](benchmark::State& s) { time_sampling(s, 16384, 1, count, precision); });
      add("S2/256" + in, count, [=](benchmark::State& s) { time_sampling(s, 256, 20, count, precision); });
      add("S3/1" + in, count, [=](benchmark::State& s) { time_sampling(s, 1, 100, count, precision); });
      for (const Index dim : {64, 784}) {
        add("S4/" + std::to_string(dim) + in, count, [=](benchmark::State& s) { time_heun(s, dim, count, precision); });
      }
    }
    add("L1/4096", count, [=](benchmark::State& s) { time_likelihood(s, count); });
    add("T1/256x128", count, [=](benchmark::State& s) { time_training(s, 256, 128, count); });
    add("T2/256x4096", count, [=](benchmark::State& s) { time_training(s, 256, 4096, count); });
    add("T3/64x512", count, [=](benchmark::State& s) { time_training(s, 64, 512, count); });
    add("T3/128x512", count, [=](benchmark::State& s) { time_training(s, 128, 512, count); });
    add("Q1/128x512", count, [=](benchmark::State& s) { time_quality(s, count); });
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
