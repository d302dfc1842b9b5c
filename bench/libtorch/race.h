// race.h - what both programs of the comparison with LibTorch share: the workloads, the inputs, the fp64 answers, the clock.
//
//   compare_tweedie  models | info | time | error | q1 | kl       ours
//
//   compare_libtorch info | agree | time | error | q1    theirs: --style eager (as users write it) or best (torch_best.h)
//
// Each call runs one workload of one side and prints one JSON object; race.py calls them in alternation and keeps the record.
// Both load the same model files and rows, and both are held against the same numbers in double.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/continuous_network.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/objectives.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"
#include "tweedie/samplers/likelihood.h"
#include "tweedie/samplers/schedule.h"

namespace tweedie::race {

enum class Kind { training, langevin, heun, likelihood, normals };

/// One run of a workload is `steps` updates (training), steps at each of the ten levels (langevin), intervals (heun: 2 steps - 1
/// evaluations) or fills of the buffer (normals); times are reported per `unit`.
struct Workload {
  std::string_view name;
  Kind kind;
  const char* unit;
  const char* model;  // file under --models
  Index dim, width, rows, steps;
  bool bf16 = false;  // the networks' products, on both sides; of chains alone
};

inline constexpr Workload kWorkloads[] = {
    {"T1", Kind::training, "step", "chapter_256", 2, 256, 128, 50},
    {"T2", Kind::training, "step", "chapter_256", 2, 256, 4096, 3},
    {"T3/128", Kind::training, "step", "chapter_128", 2, 128, 512, 40},
    {"T3/64", Kind::training, "step", "chapter_64", 2, 64, 512, 80},
    {"S1", Kind::langevin, "step", "chapter_256", 2, 256, 16384, 1},
    {"S1/bf16", Kind::langevin, "step", "chapter_256", 2, 256, 16384, 1, true},
    {"S2", Kind::langevin, "step", "chapter_256", 2, 256, 256, 10},
    {"S3", Kind::langevin, "step", "chapter_256", 2, 256, 1, 100},
    {"S4/64", Kind::heun, "evaluation", "edm_64", 64, 512, 256, 18},
    {"S4/784", Kind::heun, "evaluation", "edm_784", 784, 512, 256, 18},
    {"L1", Kind::likelihood, "row", "edm_2", 2, 256, 256, 1},
    {"N/2", Kind::normals, "number", "", 2, 0, 32768, 16},  // rows of a plane; N/64 has the same count in long rows
    {"N/64", Kind::normals, "number", "", 64, 0, 1024, 16},
};
inline constexpr double kLikelihoodTolerance = 1e-5;
inline constexpr Index kErrorRows = 512;

// The run to quality: an EDM network of the plane from nothing, on rows of one table of true draws; Adam with cosine decay.
inline constexpr Index kTableRows = 65536, kQualityWidth = 128, kQualityBatch = 512;
inline constexpr double kQualityRate = 3e-3, kQualityEma = .999;

/// --name value pairs after the command.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    check(argc >= 2, argv[0], ": a command is missing; race.h lists them");
    command_ = argv[1];
    for (int i = 2; i < argc; i += 2) {
      const std::string_view name = argv[i];
      check(name.starts_with("--") && i + 1 < argc, "'", name, "': options are --name value pairs");
      values_[std::string(name.substr(2))] = argv[i + 1];
    }
  }
  const std::string& command() const { return command_; }
  std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    check(found != values_.end(), command_, ": --", name, " is missing");
    return found->second;
  }
  long number(const std::string& name) const {
    const std::string value = text(name);
    long n = 0;
    const auto result = std::from_chars(value.data(), value.data() + value.size(), n);
    check(result.ec == std::errc() && result.ptr == value.data() + value.size() && n >= 0, "--", name, " is '", value,
          "'; give a whole number, not negative");
    return n;
  }
  const Workload& workload() const {
    const std::string name = text("workload");
    for (const Workload& w : kWorkloads) {
      if (w.name == name) return w;
    }
    fail("--workload ", name, " is unknown; race.h lists them");
  }
  std::string model(const Workload& w) const { return text("models") + "/" + w.model + ".safetensors"; }

 private:
  std::string command_;
  std::map<std::string, std::string> values_;
};

inline const ScoreNetwork& chapter(const Network& net) { return dynamic_cast<const ScoreNetwork&>(net); }
inline const ContinuousScoreNetwork& edm(const Network& net) { return dynamic_cast<const ContinuousScoreNetwork&>(net); }

/// Rows for training and for errors.
inline Matrix standard_rows(Index rows, Index dim) {
  Matrix x(rows, dim);
  Rng{2}.normals<float>(Purpose::prior, 0, 0, x);
  return x;
}
/// Rows whose log-density is asked for: true draws, in double.
inline MatrixD likelihood_rows(Index rows) { return MatrixD(GaussianMixture::tutorial().sample(rows, Rng{11}).view()); }

inline std::vector<double> heun_schedule(const Workload& w) { return karras(w.steps, .002, 80); }

// ---- The answers in double

/// Noise levels at which scores are compared.
inline std::vector<double> error_sigmas(const Workload& w, const Network& net) {
  if (w.kind == Kind::langevin) return {net.levels()->values().begin(), net.levels()->values().end()};
  std::vector<double> sigmas = heun_schedule(w);
  sigmas.pop_back();  // the 0
  return sigmas;
}

inline MatrixD exact_scores(const Network& net, const Matrix& x, double sigma) {
  const double level = static_cast<double>(static_cast<float>(sigma));  // what a float model is asked for
  MatrixD out(x.rows(), x.cols());
  net.score(MatrixD(x.view()), {&level, 1}, nullptr, out);
  return out;
}

/// The batch whose gradient is compared.
inline Batch training_batch(const Network& net, Index rows) {
  return perturb(standard_rows(rows, net.dim()), *net.levels(), Rng{5});
}

/// Gradient of the denoising loss in double, in the layout's order.
inline std::vector<double> exact_gradient(const Network& net, const Batch& batch) {
  const Index size = net.layout().size();
  std::vector<double> flat(net.parameters().begin(), net.parameters().end()), gradient(static_cast<std::size_t>(size));
  BatchD wide;
  wide.x = MatrixD(batch.x.view());
  wide.eps = MatrixD(batch.eps.view());
  wide.sigma = Buffer<double>(batch.rows());
  std::copy(batch.sigma.begin(), batch.sigma.end(), wide.sigma.begin());
  wide.level = Buffer<std::int32_t>(batch.rows());
  std::copy(batch.level.begin(), batch.level.end(), wide.level.begin());
  TapeD tape;
  const std::vector<VarD> parameters = parameter_vars<double>(tape, net.layout(), flat.data());
  const LossD loss = objective_loss<double>(Denoising{}, net, tape, parameters, wide);
  std::vector<Rows<double>> views;
  for (const ParameterTensor& t : net.layout()) views.push_back(view(t, gradient.data()));
  tweedie::gradient<double>(loss.mean, parameters, views);
  return gradient;
}

/// |a - b| / |b|, Euclidean.
template <class A, class B>
double relative_error(const A& a, const B& b) {
  double difference = 0, norm = 0;
  check(std::size(a) == std::size(b), "relative_error: ", std::size(a), " and ", std::size(b), " numbers");
  for (std::size_t i = 0; i < std::size(a); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / norm);
}
template <class S>
std::span<const S> flat(const MatrixX<S>& m) {
  return {m.data(), static_cast<std::size_t>(m.size())};
}

/// Log-densities at a tolerance of 1e-9, (rows).
inline std::vector<double> exact_log_density(const Network& net, Index rows) {
  return log_density(net, likelihood_rows(rows), {.rtol = 1e-9, .atol = 1e-9}).nats;
}
inline constexpr Index kLikelihoodErrorRows = 64;

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size(), "largest_difference: ", a.size(), " and ", b.size(), " numbers");
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= largest)) largest = std::abs(a[i] - b[i]);
  }
  return largest;
}

// ---- The clock

inline double wall_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
/// Of all threads of this process.
inline double cpu_now() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline void print_list(const char* name, const std::vector<double>& values) {
  std::printf(", \"%s\": [", name);
  for (std::size_t i = 0; i < values.size(); ++i) std::printf("%s%.6g", i == 0 ? "" : ", ", values[i]);
  std::printf("]");
}

/// One run to warm up, then `repeats` timed ones. run() returns how many units it did. `nfe`: network evaluations a sample or
/// row.
template <class Run>
void time_and_print(const Workload& w, long repeats, double nfe, const std::string& how, const Run& run) {
  run();
  std::vector<double> wall, cpu;
  for (long i = 0; i < repeats; ++i) {
    const double wall_begin = wall_now(), cpu_begin = cpu_now();
    const double units = static_cast<double>(run());
    cpu.push_back((cpu_now() - cpu_begin) / units);
    wall.push_back((wall_now() - wall_begin) / units);
  }
  std::printf("{\"workload\": \"%s\", \"unit\": \"%s\", \"nfe\": %g, \"how\": \"%s\"", std::string(w.name).c_str(), w.unit, nfe,
              how.c_str());
  print_list("wall", wall);
  print_list("cpu", cpu);
  std::printf("}\n");
}

inline void print_error(const Workload& w, double error) {
  std::printf("{\"workload\": \"%s\", \"error\": %.3g}\n", std::string(w.name).c_str(), error);
}

/// The program's body with errors as messages and exit codes.
template <class Body>
int main_with(int argc, char** argv, const Body& body) {
  try {
    return body(Arguments(argc, argv));
  } catch (const Error& e) {
    std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
    return e.exit_code();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
    return 1;
  }
}

}  // namespace tweedie::race
