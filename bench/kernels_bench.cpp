// kernels_bench.cpp - the CPU kernels, verified against the reference and then timed, on every target this machine has.
//
//   kernels_bench                                  everything
//   kernels_bench --benchmark_filter='gemm/avx512/.*threads:1'
//
// GFLOP/s count 2 m n k; `peak` is the share of what this core does in the target's own multiply-adds (bf16's for mlp in bf16 and
// bf16x3) on registers alone, measured here before the first benchmark. Median and spread over the repetitions.
// SPDX-License-Identifier: MIT
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "machine_peak.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/kernels/reference/adam_ema.h"
#include "tweedie/kernels/reference/gemm.h"
#include "tweedie/kernels/reference/mlp_forward.h"
#include "tweedie/kernels/reference/silu.h"

using namespace tweedie;
using namespace tweedie::kernels;
using tweedie::bench::peak;

namespace {

std::vector<float> random_numbers(Index n, unsigned seed) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) * 0x1p-23f - 1;
  }
  return x;
}

bool close(const std::vector<float>& found, const std::vector<double>& expected, double relative) {
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!(std::fabs(found[i] - expected[i]) <= relative * std::max(1.0, std::fabs(expected[i])))) return false;
  }
  return true;
}

// ---- gemm ----

struct Product {
  const char* what;
  Index m, n, k;
  bool transpose_a, transpose_b;
};
constexpr Product kProducts[] = {
    {"square", 256, 256, 512, false, false},           {"forward", 512, 256, 256, false, true},
    {"input gradient", 512, 256, 256, false, false},   {"weight gradient", 256, 256, 512, true, false},
    {"big batch", 4096, 256, 256, false, true},        {"batch 128", 128, 256, 256, false, true},
    {"batch 10", 10, 256, 256, false, true},           {"one row", 1, 256, 256, false, true},
    {"thin output", 512, 2, 256, false, true},         {"thin input", 512, 256, 2, false, true},
    {"thin weight gradient", 2, 256, 512, true, false}};

struct Operands {
  GemmShape shape;
  Index lda, ldb;
  std::vector<float> a, b, c;
  explicit Operands(const Product& p)
      : shape{p.m, p.n, p.k, p.transpose_a, p.transpose_b, 0},
        lda(p.transpose_a ? p.m : p.k),
        ldb(p.transpose_b ? p.k : p.n),
        a(random_numbers(p.m * p.k, 1)),
        b(random_numbers(p.k * p.n, 2)),
        c(static_cast<std::size_t>(p.m * p.n)) {}
  void run() { gemm(shape, a.data(), lda, b.data(), ldb, c.data(), shape.n); }
};

/// |c - reference| <= (k + 2) u sum |a||b| for every element; |a|, |b| <= 1 here.
bool verify(const Product& p) {
  Operands o(p);
  o.run();
  const std::vector<double> a(o.a.begin(), o.a.end()), b(o.b.begin(), o.b.end());
  std::vector<double> expected(o.c.size());
  reference::gemm<double>(o.shape, a.data(), o.lda, b.data(), o.ldb, expected.data(), p.n);
  const double allowed = static_cast<double>((p.k + 2) * p.k) * 0x1p-24;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!(std::fabs(o.c[i] - expected[i]) <= allowed)) return false;
  }
  return true;
}

void time_gemm(benchmark::State& state, Target target, int threads, const Product& p) {
  set_target(target);
  set_threads(threads);
  Operands o(p);
  for (auto _ : state) {
    o.run();
    benchmark::DoNotOptimize(o.c.data());
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(p.m * p.n * p.k);
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  if (peak(target) > 0)
    state.counters["peak"] = Counter(flops * 1e-9 / peak(target) / threads, Counter::kIsIterationInvariantRate);
}

// ---- the perceptron: D = 2, width 256, four layers ----

struct Perceptron {
  static constexpr int kWidth = 256, kLayers = 4, kDim = 2;
  std::vector<float> weights[kLayers], biases[kLayers], x, out, packed;
  Mlp net;
  Precision precision;
  Perceptron(Index batch, Precision arithmetic) : x(random_numbers(batch * kDim, 6)), out(x.size()), precision(arithmetic) {
    net.layers = kLayers;
    for (int i = 0; i < kLayers; ++i) {
      const int in = i == 0 ? kDim : kWidth, width = i + 1 == kLayers ? kDim : kWidth;
      weights[i] = random_numbers(Index{in} * width, 7 + i);
      for (float& w : weights[i]) w *= 2 / std::sqrt(static_cast<float>(in));
      biases[i] = random_numbers(width, 17 + i);
      net.layer[i] = {weights[i].data(), biases[i].data(), in, width};
    }
    packed.resize(static_cast<std::size_t>(packed_mlp_size(net, precision)));
    pack_mlp(net, packed.data(), precision);
  }
  Index batch() const { return static_cast<Index>(x.size()) / kDim; }
  void run() { mlp_forward(net, packed.data(), batch(), x.data(), kDim, nullptr, out.data(), kDim, precision); }
};

/// The root mean square error over the outputs' own.
double perceptron_error(Precision precision) {
  Perceptron p(67, precision);
  p.run();
  const std::vector<double> x(p.x.begin(), p.x.end());
  std::vector<double> expected(x.size());
  const std::vector<int> level(x.size());
  reference::mlp_forward<double>(p.net, p.batch(), x.data(), level.data(), expected.data());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (p.out[i] - expected[i]) * (p.out[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

void time_perceptron(benchmark::State& state, Target target, Precision precision, int threads, Index batch) {
  set_target(target);
  set_threads(threads);
  Perceptron p(batch, precision);
  for (auto _ : state) {
    p.run();
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * 256 * (2 + 256 + 256 + 2) * static_cast<double>(batch);
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  const double best = peak(target, precision);
  if (best > 0) state.counters["peak"] = Counter(flops * 1e-9 / best / threads, Counter::kIsIterationInvariantRate);
}

// ---- element-wise kernels: 16 Ki elements, in L1/L2, so that arithmetic and not memory is measured ----

constexpr Index kElements = 16384;

struct Elements {
  std::vector<float> x = random_numbers(kElements, 3), y = random_numbers(kElements, 4), p = x, m = y,
                     v = random_numbers(kElements, 5), ema = x;
  AdamStep step;
  Elements() {
    for (float& value : x) value *= 6;
    for (float& value : v) value *= value;
    step.ema_decay = .999;
  }
  void run_silu() { silu(kElements, x.data(), p.data()); }
  void run_silu_gradient() { silu_gradient(kElements, x.data(), y.data(), p.data()); }
  void run_adam() { adam_ema(step, kElements, y.data(), p.data(), m.data(), v.data(), ema.data()); }
};

bool verify_elements() {
  Elements e;
  const std::vector<double> x(e.x.begin(), e.x.end()), y(e.y.begin(), e.y.end());
  std::vector<double> expected(x.size());
  e.run_silu();
  reference::silu<double>(kElements, x.data(), expected.data());
  bool good = close(e.p, expected, 1e-6);
  e.run_silu_gradient();
  reference::silu_gradient<double>(kElements, x.data(), y.data(), expected.data());
  good = good && close(e.p, expected, 1e-6);
  std::vector<double> p(e.p.begin(), e.p.end()), m(e.m.begin(), e.m.end()), v(e.v.begin(), e.v.end()),
      ema(e.ema.begin(), e.ema.end());
  e.run_adam();
  reference::adam_ema<double>(e.step, kElements, y.data(), p.data(), m.data(), v.data(), ema.data());
  return good && close(e.m, m, 1e-6) && close(e.v, v, 1e-6) && close(e.ema, ema, 1e-6);
}

void time_elements(benchmark::State& state, Target target, void (Elements::*run)()) {
  set_target(target);
  set_threads(1);
  Elements e;
  for (auto _ : state) {
    (e.*run)();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  state.counters["ns/element"] =
      Counter(static_cast<double>(kElements) * 1e-9, Counter::kIsIterationInvariantRate | Counter::kInvert);
}

/// One thread is timed by its processor time (other programs on the machine do not count), several by the clock on the wall.
void repeated(benchmark::internal::Benchmark* b, int threads) {
  b->MinTime(.05)->Repetitions(7)->ReportAggregatesOnly();
  if (threads > 1) b->UseRealTime();
}

/// Verifies and registers everything for one target; false where a result is wrong.
bool add_target(Target target, int cores) {
  set_target(target);
  const double errors[] = {perceptron_error(Precision::fp32), perceptron_error(Precision::bf16x3),
                           perceptron_error(Precision::bf16)};
  if (!verify_elements() || !(errors[0] < 1e-6 && errors[1] < 1e-5 && errors[2] < 1e-2)) return false;
  std::printf(
      "%-12s peak of one core: %.1f GFLOP/s, for bf16 %.1f; the perceptron's error in fp32 %.1e, bf16x3 %.1e, bf16 %.1e\n",
      name(target), peak(target), peak(target, Precision::bf16), errors[0], errors[1], errors[2]);
  for (const Product& p : kProducts) {
    if (!verify(p)) return false;
    for (int threads = 1; threads <= cores; threads = threads == cores ? cores + 1 : cores) {
      const std::string label = std::string("gemm/") + name(target) + "/" + p.what + "/" + std::to_string(p.m) + "x" +
                                std::to_string(p.n) + "x" + std::to_string(p.k) + "/" + (p.transpose_a ? "T" : "N") +
                                (p.transpose_b ? "T" : "N") + "/threads:" + std::to_string(threads);
      repeated(benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State& s) { time_gemm(s, target, threads, p); }),
               threads);
    }
  }
  for (const Precision precision : {Precision::fp32, Precision::bf16x3, Precision::bf16}) {
    for (const Index batch : {1, 2, 3, 4, 5, 64, 4096}) {
      for (int threads = 1; threads <= (batch > 64 ? cores : 1); threads = threads == cores ? cores + 1 : cores) {
        const std::string label = std::string("mlp/") + name(target) + "/" + name(precision) + "/rows:" + std::to_string(batch) +
                                  "/threads:" + std::to_string(threads);
        repeated(benchmark::RegisterBenchmark(
                     label.c_str(), [=](benchmark::State& s) { time_perceptron(s, target, precision, threads, batch); }),
                 threads);
      }
    }
  }
  const std::pair<const char*, void (Elements::*)()> kernels[] = {
      {"silu/", &Elements::run_silu}, {"silu_gradient/", &Elements::run_silu_gradient}, {"adam_ema/", &Elements::run_adam}};
  for (const auto& [what, run] : kernels) {
    repeated(benchmark::RegisterBenchmark((std::string(what) + name(target)).c_str(),
                                          [=, r = run](benchmark::State& s) { time_elements(s, target, r); }),
             1);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const int cores = threads();
  for (const Target target : {Target::amx, Target::avx512_bf16, Target::avx512, Target::avx2, Target::portable}) {
    if (!available(target)) {
      std::printf("%-12s not on this machine\n", name(target));
    } else if (!add_target(target, cores)) {
      std::fprintf(stderr, "%s: a kernel's result is wrong; nothing is timed\n", name(target));
      return 1;
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
