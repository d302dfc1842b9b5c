// cuda_bench.cu - the reference workloads on a CUDA device: S1 to S3, each a chain of 10 levels x 100 steps in one launch, and T1
// and T2, training steps replayed as one graph each.
//
//   cuda_bench model FILE                         the chapter's network (D = 2, width 256, 4 layers), trained for 500 steps
//
//   cuda_bench answers FILE ANSWERS               512 rows and their scores at each level in double
//
//   cuda_bench time FILE [--quick] [--repeats N]  one JSON object on standard output
//
// bench/compare_torch_cuda.py times PyTorch on the same FILE and holds it against the same ANSWERS.
// Each row: median and spread of 20 runs after a warm-up, by CUDA events around the whole chain and by the host's clock around
// call and wait; the error of the scores in that precision, |s - s64| / |s64| over ANSWERS' rows and levels; TFLOP/s by the
// products of the folded network, 264,192 flop an evaluation, three times that an update. Particles start as normals at the first
// level's scale. SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/files/json.h"
#include "tweedie/core/files/safetensors.h"
#include "tweedie/kernels/cuda/cuda_backend.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/gaussian_mixture.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;
using kernels::Precision;
using kernels::cuda::ChainStep;
using kernels::cuda::CudaRuntime;
using kernels::cuda::DeviceBuffer;
using Gpu = kernels::cuda::Backend<CudaRuntime>;

namespace {

constexpr Index kWidth = 256, kErrorRows = 512, kStepsPerLevel = 100;
constexpr double kStepSizeFactor = .2;
constexpr Precision kPrecisions[] = {Precision::bf16, Precision::tf32, Precision::bf16x3, Precision::fp32};

Matrix normals(Index rows, std::uint64_t seed) {
  Matrix x(rows, 2);
  Rng{seed}.normals<float>(Purpose::prior, 0, 0, x);
  return x;
}

/// Scores in double, (levels x rows, 2).
std::vector<double> exact_scores(const Network& net, const Matrix& x) {
  std::vector<double> all;
  for (const double level : net.levels()->values()) {
    const double sigma = static_cast<double>(static_cast<float>(level));
    MatrixD out(x.rows(), 2);
    net.score(MatrixD(x.view()), {&sigma, 1}, nullptr, out);
    all.insert(all.end(), out.data(), out.data() + out.size());
  }
  return all;
}

double relative_error(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(difference / norm);
}

/// Where a tensor begins in the network's parameters.
Index offset_of(const Network& network, const std::string& name) {
  for (const ParameterTensor& t : network.layout()) {
    if (t.name == name) return t.offset;
  }
  fail("cuda_bench: the model has no tensor ", name);
}

/// The chapter's network on the device, its embedding folded into a bias for each level.
struct DeviceNetwork {
  DeviceNetwork(const std::shared_ptr<Gpu>& gpu, const ScoreNetwork& network) {
    const float* const values = network.parameters().data();
    const Index levels = network.levels()->size(), dim = network.dim(), width = network.options().hidden_dim;
    const auto tensor = [&](const std::string& name) { return values + offset_of(network, name); };
    std::vector<float> flat;
    std::vector<std::size_t> at;
    const auto keep = [&](const std::vector<float>& part) {
      at.push_back(flat.size());
      flat.insert(flat.end(), part.begin(), part.end());
      flat.resize((flat.size() + 63) / 64 * 64);
    };
    const float *first = tensor("network.0.weight"), *embedding = tensor("noise_embedding.weight");
    std::vector<float> weight, bias;
    for (Index n = 0; n < width; ++n) weight.insert(weight.end(), first + n * (dim + width), first + n * (dim + width) + dim);
    for (Index l = 0; l < levels; ++l) {
      for (Index n = 0; n < width; ++n) {
        double sum = tensor("network.0.bias")[n];
        for (Index k = 0; k < width; ++k) {
          sum += static_cast<double>(embedding[l * width + k]) * static_cast<double>(first[n * (dim + width) + dim + k]);
        }
        bias.push_back(static_cast<float>(sum));
      }
    }
    keep(weight), keep(bias);
    const int layers = static_cast<int>(network.options().num_layers);
    for (int i = 1; i < layers; ++i) {
      const Index in = width, out = i + 1 == layers ? dim : width;
      const float *w = tensor(join("network.", 2 * i, ".weight")), *b = tensor(join("network.", 2 * i, ".bias"));
      keep({w, w + in * out}), keep({b, b + out});
    }
    memory = DeviceBuffer<float>(gpu, static_cast<Index>(flat.size()));
    memory.upload(flat.data(), memory.size());
    net.layers = layers, net.levels = static_cast<int>(levels);
    for (int i = 0; i < layers; ++i) {
      const auto k = static_cast<std::size_t>(2 * i);
      net.layer[i] = {memory.data() + at[k], memory.data() + at[k + 1], static_cast<int>(i == 0 ? dim : width),
                      static_cast<int>(i + 1 == layers ? dim : width)};
    }
  }
  DeviceBuffer<float> memory;
  kernels::Mlp net;
};

/// Annealed Langevin as a list: x += a/2 s + sqrt(a) z with s = F / sigma_l and a = factor sigma_l^2.
std::vector<ChainStep> langevin_steps(const NoiseLevels& levels) {
  std::vector<ChainStep> steps;
  for (Index l = 0; l < levels.size(); ++l) {
    const double sigma = levels.values()[static_cast<std::size_t>(l)], a = kStepSizeFactor * sigma * sigma;
    for (Index i = 0; i < kStepsPerLevel; ++i) {
      steps.push_back({static_cast<int>(l), 1, 1, static_cast<float>(a / 2 / sigma), 0, static_cast<float>(std::sqrt(a)), 0, 0, 0,
                       static_cast<std::uint32_t>(steps.size())});
    }
  }
  return steps;
}

/// A training run of the network on a table of normals.
std::unique_ptr<kernels::cuda::TrainingRun> training_run(Gpu& gpu, const ScoreNetwork& net, const Matrix& table, Index batch,
                                                         Precision precision) {
  const std::vector<float> sigma(net.levels()->values().begin(), net.levels()->values().end()), ones(sigma.size(), 1);
  kernels::cuda::TrainingSetup s;
  s.layers = static_cast<int>(net.options().num_layers), s.dim = 2;
  s.hidden = static_cast<int>(net.options().hidden_dim), s.levels = static_cast<int>(sigma.size());
  s.parameters = net.layout().size();
  s.embedding = offset_of(net, "noise_embedding.weight");
  for (int i = 0; i < s.layers; ++i) {
    s.weight[i] = offset_of(net, join("network.", 2 * i, ".weight"));
    s.bias[i] = offset_of(net, join("network.", 2 * i, ".bias"));
  }
  s.table = table.data(), s.table_rows = table.rows(), s.batch = batch;
  s.sigma = sigma.data(), s.loss_weight = ones.data();
  s.order_key = 1, s.split_key = 2, s.noise_key = 3;
  std::unique_ptr<kernels::cuda::TrainingRun> run = gpu.make_training(s, precision);
  std::vector<float> p(net.parameters().begin(), net.parameters().end()), m(p.size()), v(p.size());
  run->upload({p.data(), m.data(), v.data(), nullptr}, {});
  return run;
}

/// The device's scores at the rows and levels of exact_scores().
std::vector<float> device_scores(const std::shared_ptr<Gpu>& gpu, const DeviceNetwork& on, const NoiseLevels& levels,
                                 const Matrix& rows, Precision precision) {
  DeviceBuffer<float> x(gpu, rows.size()), out(gpu, rows.size());
  x.upload(rows.data(), rows.size());
  std::vector<float> all, part(static_cast<std::size_t>(rows.size()));
  for (Index l = 0; l < levels.size(); ++l) {
    gpu->mlp_forward({on.net, rows.rows(), x.data(), nullptr, static_cast<int>(l), out.data()}, precision);
    out.download(part.data(), rows.size());
    const float sigma = static_cast<float>(levels.values()[static_cast<std::size_t>(l)]);
    for (const float f : part) all.push_back(f / sigma);
  }
  return all;
}

struct Times {
  std::vector<double> device, host;  // milliseconds
};

Times time_runs(Gpu& gpu, int repeats, const std::function<void()>& run) {
  cudaEvent_t begin, end;
  check<ResourceError>(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess,
                       "cuda_bench: no CUDA events");
  run();
  gpu.synchronize();
  Times times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    cudaEventRecord(begin, gpu.runtime().stream());
    run();
    cudaEventRecord(end, gpu.runtime().stream());
    gpu.synchronize();
    times.host.push_back(1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    float milliseconds = 0;
    check<ResourceError>(cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess,
                         "cuda_bench: the events were not recorded");
    times.device.push_back(milliseconds);
  }
  cudaEventDestroy(begin), cudaEventDestroy(end);
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
void write_times(JsonWriter& json, const Times& times, double flop) {
  const auto write = [&](const char* name, const std::vector<double>& values) {
    json.key(join(name, "_ms")).value(median(values));
    json.key(join(name, "_ms_min")).value(*std::min_element(values.begin(), values.end()));
    json.key(join(name, "_ms_max")).value(*std::max_element(values.begin(), values.end()));
  };
  write("device", times.device), write("host", times.host);
  json.key("tflops").value(flop / median(times.device) * 1e-9);
}

const ScoreNetwork& chapter(const Network& net) {
  const auto* const network = dynamic_cast<const ScoreNetwork*>(&net);
  check(network != nullptr && net.dim() == 2,
        "cuda_bench: the model is not the chapter's network of the plane; write one with `model`");
  return *network;
}

int time_all(const std::string& path, int repeats, bool quick) {
  const std::unique_ptr<Network> loaded = load_network(path);
  const ScoreNetwork& net = chapter(*loaded);
  const NoiseLevels& levels = *net.levels();
  const auto gpu = std::make_shared<Gpu>(0);
  const DeviceNetwork on(gpu, net);
  const Matrix error_rows = normals(kErrorRows, 2);
  const std::vector<double> exact = exact_scores(net, error_rows);
  const std::vector<ChainStep> steps = langevin_steps(levels);
  DeviceBuffer<ChainStep> list(gpu, static_cast<Index>(steps.size()));
  list.upload(steps.data(), list.size());
  const bool has_wgmma = gpu->sm90;
  const double width = static_cast<double>(net.options().hidden_dim), depth = static_cast<double>(net.options().num_layers - 2);
  const double flop = 2 * (2 * 2 * width + depth * width * width);

  JsonWriter json;
  json.begin_object().key("side").value("tweedie").key("device").value(gpu->name()).key("model").value(path);
  json.key("repeats").value(repeats).key("rows").begin_array();
  const auto sample = [&](Precision precision, bool wgmma) {
    gpu->sm90 = wgmma;
    const double error = relative_error(device_scores(gpu, on, levels, error_rows, precision), exact);
    for (const Index particles : {Index{1}, Index{256}, Index{1024}, Index{65536}, Index{1} << 20}) {
      if (quick && particles > 65536) continue;
      Matrix start = normals(particles, 3);
      for (Index i = 0; i < start.size(); ++i) start.data()[i] *= static_cast<float>(levels.max());
      DeviceBuffer<float> x(gpu, start.size());
      DeviceBuffer<int> diverged(gpu, particles);
      x.upload(start.data(), start.size());
      std::uint64_t key = 1;
      const Times times = time_runs(*gpu, repeats, [&] {
        gpu->sample_chain({on.net, particles, static_cast<int>(steps.size()), list.data(), Purpose::langevin, key++, 0, x.data(),
                           nullptr, 1e6f, diverged.data()},
                          precision);
      });
      std::vector<int> where(static_cast<std::size_t>(particles));
      diverged.download(where.data(), particles);
      const bool stayed =
          std::all_of(where.begin(), where.end(), [&](int step) { return step == static_cast<int>(steps.size()); });
      check<DivergedError>(stayed, "cuda_bench: a particle left the bound in ", kernels::name(precision));
      json.begin_object().key("workload").value(particles > 1024 ? "S1" : particles == 1 ? "S3" : "S2");
      json.key("particles").value(particles).key("precision").value(kernels::name(precision));
      json.key("how").value(wgmma ? "one launch, wgmma" : "one launch, mma.sync").key("steps").value(steps.size());
      write_times(json, times, flop * static_cast<double>(particles) * static_cast<double>(steps.size()));
      json.key("error").value(error).end_object();
    }
  };
  if (has_wgmma) sample(Precision::bf16, true);
  for (const Precision precision : kPrecisions) sample(precision, false);

  const Matrix table = normals(65536, 4);
  for (const Precision precision : {Precision::bf16, Precision::tf32, Precision::fp32}) {
    for (const Index batch : {Index{128}, Index{65536}, Index{1} << 20}) {
      if (quick && batch > 65536) continue;
      const auto training = training_run(*gpu, net, table, batch, precision);
      const std::vector<kernels::cuda::TrainingRate> rates(batch == 128 ? 100 : 5, {1e-3, 0});
      const Index updates = static_cast<Index>(rates.size());
      const Times times = time_runs(*gpu, repeats, [&] { training->run(rates.data(), updates); });
      check<DivergedError>(training->progress().diverged == kernels::cuda::Divergence::none, "cuda_bench: training diverged in ",
                           kernels::name(precision));
      json.begin_object().key("workload").value(batch == 128 ? "T1" : "T2").key("particles").value(batch);
      json.key("precision").value(kernels::name(precision)).key("how").value("a graph a step").key("steps").value(updates);
      write_times(json, times, 3 * flop * static_cast<double>(batch) * static_cast<double>(updates));
      json.end_object();
    }
  }
  json.end_array().end_object();
  std::printf("%s\n", json.text().c_str());
  return 0;
}

void write_model(const std::string& path) {
  ScoreNetwork net({.data_dim = 2, .hidden_dim = kWidth}, Rng{1});
  train(net, GaussianMixture::tutorial().sample(65536, Rng{42}), {.steps = 500, .batch = 512}, Rng{3});
  save(path, net);
}

void write_answers(const std::string& model, const std::string& path) {
  const std::unique_ptr<Network> net = load_network(model);
  const Matrix x = normals(kErrorRows, 2);
  const std::vector<double> scores = exact_scores(chapter(*net), x);
  const std::vector<double> sigmas(net->levels()->values().begin(), net->levels()->values().end());
  const Index levels = static_cast<Index>(sigmas.size());
  const NamedTensor tensors[] = {
      named_tensor<float>("x", {kErrorRows, 2}, {x.data(), static_cast<std::size_t>(x.size())}),
      named_tensor<double>("score", {levels, kErrorRows, 2}, scores),
      named_tensor<double>("sigmas", {levels}, sigmas),
  };
  write_safetensors(path, tensors);
}

int run(const std::vector<std::string>& arguments) {
  const auto is = [&](const char* command, std::size_t count) { return arguments.size() >= count && arguments[0] == command; };
  if (is("model", 2)) {
    write_model(arguments[1]);
    return 0;
  }
  if (is("answers", 3)) {
    write_answers(arguments[1], arguments[2]);
    return 0;
  }
  check(is("time", 2), "cuda_bench: say model FILE, answers FILE ANSWERS or time FILE [--quick] [--repeats N]");
  int repeats = 20;
  bool quick = false;
  for (std::size_t i = 2; i < arguments.size(); ++i) {
    if (arguments[i] == "--quick") {
      quick = true;
    } else if (arguments[i] == "--repeats" && i + 1 < arguments.size() && std::atoi(arguments[i + 1].c_str()) > 0) {
      repeats = std::atoi(arguments[++i].c_str());
    } else {
      fail("cuda_bench: '", arguments[i], "' is none of --quick, --repeats N (N >= 1)");
    }
  }
  return time_all(arguments[1], repeats, quick);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  }
}
