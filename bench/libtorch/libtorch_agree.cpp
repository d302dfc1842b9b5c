// libtorch_agree.cpp - the same network on both sides: checked before anything is timed.
//
// Bounds. An output passes L layers of at most n = 514 products each; its rounding error relative to the largest output is about
// L sqrt(n) u ~ 4 * 23 * 6e-8 = 5e-6 in fp32, 1e-14 in fp64 (u = 2^-53), and a gradient passes twice as many. fp32: 1e-5 for
// both. fp64: 1e-12, which leaves room for 1/sigma and the features' phases. Adam's losses: 1e-5 over ten steps, as in the golden
// file (longer runs part by the signs of tiny gradients). Log-densities at 1e-9 on both sides: 1e-6.
// SPDX-License-Identifier: MIT
#include "libtorch_agree.h"

#include <cstdio>
#include <filesystem>

#include "torch_best.h"
#include "torch_likelihood.h"
#include "torch_training.h"
#include "tweedie/models/optimizer.h"

namespace tweedie::race {

namespace {

class Report {
 public:
  void line(const std::string& what, double error, double bound) {
    const bool good = error <= bound;  // false for NaN
    failed_ += !good;
    std::printf("  %-78s %9.2e  (at most %.0e)%s\n", what.c_str(), error, bound, good ? "" : "  FAILED");
  }
  int failed() const { return failed_; }

 private:
  int failed_ = 0;
};

constexpr double kFloat = 1e-5, kDouble = 1e-12;

double error_of(const torch::Tensor& found, const std::vector<double>& expected) {
  return relative_error(to_vector(found), expected);
}
std::vector<double> wide(const Matrix& m) { return {m.data(), m.data() + m.size()}; }
std::vector<double> wide(const MatrixD& m) { return {m.data(), m.data() + m.size()}; }

template <class Module>
torch::Tensor scores(Module& module, const torch::Tensor& x, double sigma, Index level, torch::Dtype type) {
  const torch::NoGradGuard no_grad;
  if constexpr (std::is_same_v<Module, ChapterNet>) {
    return module->forward(x.to(type), torch::full({x.size(0)}, level, torch::kInt64));
  } else {
    return module->forward(x.to(type), torch::full({x.size(0)}, static_cast<double>(static_cast<float>(sigma)), type));
  }
}

// Scores of a module and of our network that should be the same, worst over the noise levels, in one precision.
template <class Module>
double score_difference(Module& module, const Network& net, const std::vector<double>& sigmas, torch::Dtype type) {
  const Matrix x = standard_rows(kErrorRows, net.dim());
  double worst = 0;
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    const torch::Tensor found = scores(module, tensor(x), sigmas[i], static_cast<Index>(i), type);
    if (type == torch::kFloat64) {
      worst = std::max(worst, error_of(found, wide(exact_scores(net, x, sigmas[i]))));
    } else {
      Matrix ours(x.rows(), x.cols());
      const auto sigma = static_cast<float>(sigmas[i]);
      net.score(x, {&sigma, 1}, nullptr, ours);
      worst = std::max(worst, error_of(found, wide(ours)));
    }
  }
  return worst;
}

std::vector<double> sigmas_of(const Network& net) {
  if (net.levels() != nullptr) return {net.levels()->values().begin(), net.levels()->values().end()};
  return karras(18, .002, 80, 7, false);
}

template <class Module>
void check_scores(Report& report, const std::string& name, Module module, const Network& net) {
  const std::vector<double> sigmas = sigmas_of(net);
  report.line(name + ": our weights in LibTorch, scores in fp32", score_difference(module, net, sigmas, torch::kFloat32), kFloat);
  module->to(torch::kFloat64);
  report.line(name + ": the same in fp64", score_difference(module, net, sigmas, torch::kFloat64), kDouble);
}

// A module initialised by LibTorch, through a file into our network.
template <class Module>
void check_way_back(Report& report, const std::string& name, Module module, const Network& like, const std::string& folder) {
  torch::nn::init::normal_(module->named_parameters()["network.6.weight"], 0, .1);
  const std::string path = folder + "/from_libtorch.safetensors";
  write_checkpoint(path, checkpoint_of(*module, like));
  const std::unique_ptr<Network> net = load_network(path);
  report.line(name + ": LibTorch's weights here, through a file, scores in fp32",
              score_difference(module, *net, sigmas_of(*net), torch::kFloat32), kFloat);
  std::filesystem::remove(path);
}

void check_gradients(Report& report, const std::string& name, const Network& net) {
  const Batch batch = training_batch(net, 512);
  const std::vector<double> exact = exact_gradient(net, batch);
  const torch::Tensor x = tensor(batch.x), eps = tensor(batch.eps), level = levels_tensor(batch);
  ChapterNet module = chapter_module(net);
  chapter_loss(module, x, level, sigma_of(module, level), eps).backward();
  report.line(name + ": gradient of the denoising loss, LibTorch fp32 against ours fp64",
              relative_error(gradient_of(*module, net.layout()), exact), kFloat);
  std::vector<float> ours(exact.size()), rows(512);
  make_training_step(net, Denoising{})->loss_and_gradient(net.parameters(), batch, ours, rows);
  report.line(name + ": ours in fp32 against ours in fp64", relative_error(ours, exact), kFloat);
  const c10::InferenceMode guard;
  ChapterTrainer hand(chapter(net), 512);
  hand.loss_and_gradient(x, level, eps);
  report.line(name + ": LibTorch's by hand (best) against ours in fp64", relative_error(to_vector(hand.p.d), exact), kFloat);
}

// Ten steps of Adam at 1e-3 from equal weights on equal batches; the largest relative difference of the losses.
void check_adam(Report& report, const std::string& name, const Network& start) {
  constexpr int kSteps = 10;
  constexpr Index kRows = 128;
  std::vector<Batch> batches;
  for (std::uint32_t i = 0; i < kSteps; ++i) {
    batches.push_back(perturb(GaussianMixture::tutorial().sample(kRows, Rng{20 + i}), *start.levels(), Rng{5}, {.step = i}));
  }
  std::vector<double> ours, eager, best;
  const std::unique_ptr<Network> net = start.clone();
  Adam adam(net->layout().size());
  const auto engine = make_training_step(*net, Denoising{});
  std::vector<float> gradient(static_cast<std::size_t>(net->layout().size())), rows(kRows);
  for (const Batch& batch : batches) {
    ours.push_back(engine->loss_and_gradient(net->parameters(), batch, gradient, rows));
    adam.update({.learning_rate = 1e-3}, gradient, net->parameters());
    net->parameters_changed();
  }
  ChapterNet module = chapter_module(start);
  torch::optim::Adam optimizer(module->parameters(), torch::optim::AdamOptions(1e-3));
  for (const Batch& batch : batches) {
    const torch::Tensor level = levels_tensor(batch);
    const torch::Tensor loss = chapter_loss(module, tensor(batch.x), level, sigma_of(module, level), tensor(batch.eps));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    eager.push_back(loss.item<double>());
  }
  const c10::InferenceMode guard;
  ChapterTrainer hand(chapter(start), kRows);
  for (const Batch& batch : batches) {
    best.push_back(hand.loss_and_gradient(tensor(batch.x), levels_tensor(batch), tensor(batch.eps)).item<double>());
    hand.p.adam(1e-3);
  }
  const auto worst = [&](const std::vector<double>& theirs) {
    double error = 0;
    for (int i = 0; i < kSteps; ++i) {
      const auto at = static_cast<std::size_t>(i);
      error = std::max(error, std::abs(theirs[at] - ours[at]) / std::abs(ours[at]));
    }
    return error;
  };
  report.line(name + ": ten losses of Adam, LibTorch's optimiser", worst(eager), kFloat);
  report.line(name + ": ten losses of Adam, by hand with the fused kernel (best)", worst(best), kFloat);
}

// EDM's weighted loss: our gradient, that of the module's graph and the one by hand against the graph in fp64.
void check_edm_gradient(Report& report, const Network& net) {
  const Index rows = 512;
  const Objective objective = Denoising{.weighting = Weighting::edm, .sigma_data = edm(net).options().sigma_data};
  const NoiseLevels range({net.sigma_max(), net.sigma_min()});
  const Batch batch =
      perturb(GaussianMixture::tutorial().sample(rows, Rng{12}), range, Rng{5}, {.sampling = SigmaSampling::lognormal()});
  const torch::Tensor sigma = tensor(batch.sigma.data(), {rows}), eps = tensor(batch.eps), x = tensor(batch.x);
  const auto gradient = [&](torch::Dtype type) {
    EdmNet module = edm_module(net);
    if (type == torch::kFloat64) module->to(type);
    const torch::Tensor s = sigma.to(type), sd2 = torch::full_like(s, module->sigma_data * module->sigma_data);
    const torch::Tensor error = (module->scaled_score(x.to(type), s) + eps.to(type)).pow(2).sum(-1);
    (.5 * error * (s * s + sd2) / sd2).mean().backward();
    return gradient_of(*module, net.layout());
  };
  const std::vector<double> exact = gradient(torch::kFloat64);
  report.line("edm_2: gradient of EDM's loss, LibTorch fp32 against its fp64", relative_error(gradient(torch::kFloat32), exact),
              kFloat);
  std::vector<float> ours(exact.size()), losses(static_cast<std::size_t>(rows));
  make_training_step(net, objective)->loss_and_gradient(net.parameters(), batch, ours, losses);
  report.line("edm_2: ours in fp32 against LibTorch's fp64", relative_error(ours, exact), kFloat);
  const c10::InferenceMode guard;
  EdmTrainer hand(edm(net), edm_module(net), rows);
  hand.loss_and_gradient(x, sigma, eps);
  report.line("edm_2: LibTorch's by hand (best) against its fp64", relative_error(to_vector(hand.p.d), exact), kFloat);
}

void check_likelihood(Report& report, const Network& net) {
  const Index rows = 32;
  const std::vector<double> ours = exact_log_density(net, rows);
  EdmNet module = edm_module(net);
  module->to(torch::kFloat64);
  const torch::Tensor x = tensor(likelihood_rows(rows));
  report.line("edm_2: log-densities in nats, tolerance 1e-9, LibTorch eager",
              largest_difference(to_vector(likelihood_eager(module, edm(net), x, 1e-9).nats), ours), 1e-6);
  report.line("edm_2: log-densities in nats, tolerance 1e-9, LibTorch best",
              largest_difference(to_vector(likelihood_best(module, edm(net), x, 1e-9).nats), ours), 1e-6);
}

}  // namespace

int agree(const std::string& models) {
  Report report;
  std::printf("Both sides compute the same? Relative errors; log-densities in nats.\n");
  const auto load = [&](const std::string& name) { return load_network(models + "/" + name + ".safetensors"); };
  for (const std::string name : {"chapter_256", "chapter_64"}) {
    const std::unique_ptr<Network> net = load(name);
    check_scores(report, name, chapter_module(*net), *net);
    check_way_back(report, name, ChapterNet(chapter(*net)), *net, models);
    check_gradients(report, name, *net);
    check_adam(report, name, *net);
  }
  for (const std::string name : {"edm_2", "edm_64", "edm_784"}) {
    const std::unique_ptr<Network> net = load(name);
    check_scores(report, name, edm_module(*net), *net);
  }
  const std::unique_ptr<Network> plane = load("edm_2");
  check_way_back(report, "edm_2", EdmNet(edm(*plane)), *plane, models);
  check_edm_gradient(report, *plane);
  check_likelihood(report, *plane);
  std::printf(report.failed() == 0 ? "agreed\n" : "%d comparisons FAILED\n", report.failed());
  return report.failed() == 0 ? 0 : 1;
}

}  // namespace tweedie::race
