// golden_test.cpp - the chapter's network against PyTorch: outputs, gradients and the first ten Adam losses.
//
// The files come from scripts/make_golden.py, which says what they hold. An error is max |ours - PyTorch's| / max |PyTorch's|
// over a tensor (over the stored part of it for the large network), for losses |ours - PyTorch's| / |PyTorch's|.
// Marks: outputs and gradients 1e-5 (fp32) and 1e-12 (fp64), losses 1e-5 and 1e-10.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/files/safetensors.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/training_engine.h"

using namespace tweedie;

namespace {

const std::string kFolder = std::string(TWEEDIE_TEST_DATA) + "/golden/";

template <class T>
std::vector<T> read(const SafetensorsFile& file, const std::string& name) {
  const TensorView& tensor = file.at(name);
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  file.read<T>(name, tensor.shape, values);
  return values;
}

template <class S>
std::vector<S> convert(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

template <class S>
double relative_error(const std::vector<S>& found, const std::vector<S>& expected) {
  REQUIRE(found.size() == expected.size());
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double e = std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
    error = std::isnan(e) ? INFINITY : std::max(error, e);
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  REQUIRE(largest > 0);
  return error / largest;
}

// One precision of one golden file.
template <class S>
class Golden {
 public:
  Golden(const std::string& name, const NoiseConditionalScoreNetwork& net)
      : file_(kFolder + name + "_expected.safetensors"),
        prefix_(sizeof(S) == 4 ? "f32." : "f64."),
        net_(net),
        batch_(file_.at("x0").shape[1]),
        parameters_(net.layout().size()),
        gradient_(net.layout().size()),
        x0_(convert<S>(read<float>(file_, "x0"))),
        eps_(convert<S>(read<float>(file_, "eps"))),
        sigmas_(convert<S>(read<float>(file_, "sigmas"))),
        level_(read<std::int32_t>(file_, "level")) {
    std::copy(net.parameters().begin(), net.parameters().end(), parameters_.begin());
  }

  void check_outputs() {
    const Batch batch = take(0);
    MatrixX<S> score(batch_, net_.dim());
    net_.score(batch.x, batch.sigma, nullptr, score);
    const std::vector<S> expected = read<S>(file_, prefix_ + "output");
    const double by_inference = relative_error(std::vector<S>(score.data(), score.data() + score.size()), expected);

    tape_.reset();
    const VarX<S> on_tape = tape_score<S>(net_, tape_, parameter_vars(tape_, net_.layout(), parameters_.data()),
                                          tape_.constant(batch.x), NoiseInput<S>{batch.sigma, batch.level});
    const S* values = on_tape.value().data();
    const double by_tape = relative_error(std::vector<S>(values, values + on_tape.value().size()), expected);
    report("output", std::max(by_inference, by_tape), tolerance());
  }

  void check_gradients() {
    const double loss = loss_and_gradient(0), expected_loss = read<double>(file_, prefix_ + "loss")[0];
    report("loss", std::abs(loss - expected_loss) / expected_loss, loss_tolerance());
    double worst = 0;
    for (const ParameterTensor& tensor : net_.layout()) {
      const std::vector<S> expected = read<S>(file_, prefix_ + "grad." + tensor.name);
      const Index stride = (tensor.size() + static_cast<Index>(expected.size()) - 1) / static_cast<Index>(expected.size());
      std::vector<S> found;
      double squares = 0;
      for (Index i = 0; i < tensor.size(); ++i) {
        const S g = gradient_[tensor.offset + i];
        if (i % stride == 0) found.push_back(g);
        squares += static_cast<double>(g) * static_cast<double>(g);
      }
      const double norm = read<double>(file_, prefix_ + "grad_norm." + tensor.name)[0];
      CAPTURE(tensor.name);
      CHECK(norm > 0);
      worst = std::max({worst, relative_error(found, expected), std::abs(std::sqrt(squares) - norm) / norm});
    }
    report("gradients", worst, tolerance());
  }

  void use(std::unique_ptr<TrainingEngine> engine) { engine_ = std::move(engine); }

  void check_adam() {
    const std::vector<double> expected = read<double>(file_, prefix_ + "adam_losses");
    Buffer<S> m(gradient_.size()), v(gradient_.size());
    double worst = 0;
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const double loss = loss_and_gradient(static_cast<Index>(k));
      worst = std::max(worst, std::abs(loss - expected[k]) / expected[k]);
      kernels::AdamStep step;
      step.step = static_cast<std::int64_t>(k) + 1;
      kernels::adam_ema(step, gradient_.size(), gradient_.data(), parameters_.data(), m.data(), v.data(),
                        static_cast<S*>(nullptr));
    }
    CHECK(expected.size() == 10);
    CHECK(loss_and_gradient(0) < expected.front());  // it does learn: the steps count in the losses compared
    report("ten Adam losses", worst, loss_tolerance());
  }

 private:
  struct Batch {
    MatrixX<S> x, eps;  // (B, D)
    std::vector<S> sigma;
    std::vector<std::int32_t> level;
  };

  Batch take(Index k) const {
    Batch batch{MatrixX<S>(batch_, net_.dim()), MatrixX<S>(batch_, net_.dim()), {}, {}};
    const Index size = batch.x.size();
    std::copy_n(eps_.data() + k * size, size, batch.eps.data());
    batch.level.assign(level_.data() + k * batch_, level_.data() + (k + 1) * batch_);
    for (const std::int32_t l : batch.level) batch.sigma.push_back(sigmas_[static_cast<std::size_t>(l)]);
    kernels::dsm_perturb(batch_, net_.dim(), x0_.data() + k * size, batch.sigma.data(), batch.eps.data(), batch.x.data());
    return batch;
  }

  // 1/2 mean_b |sigma s + eps|^2 at parameters_, and its gradient.
  double loss_and_gradient(Index k) {
    Batch batch = take(k);
    if constexpr (sizeof(S) == 4) {
      if (engine_ != nullptr) {
        tweedie::Batch whole;
        whole.x = std::move(batch.x), whole.eps = std::move(batch.eps);
        whole.sigma = Buffer<float>(batch_), whole.level = Buffer<std::int32_t>(batch_);
        std::copy(batch.sigma.begin(), batch.sigma.end(), whole.sigma.begin());
        std::copy(batch.level.begin(), batch.level.end(), whole.level.begin());
        std::vector<float> rows(static_cast<std::size_t>(batch_));
        return engine_->loss_and_gradient(std::as_const(parameters_).span(), whole, gradient_.span(), rows);
      }
    }
    tape_.reset();
    const std::vector<VarX<S>> p = parameter_vars(tape_, net_.layout(), parameters_.data());
    const VarX<S> residual =
        net_.scaled_score(tape_, p, tape_.constant(batch.x), NoiseInput<S>{batch.sigma, batch.level}) + tape_.constant(batch.eps);
    const VarX<S> loss = .5 * mean(sum_cols(square(residual)));
    std::vector<Rows<S>> out;
    for (const ParameterTensor& tensor : net_.layout()) out.push_back(view(tensor, gradient_.data()));
    gradient(loss, std::span<const VarX<S>>(p), std::span<const Rows<S>>(out));
    return static_cast<double>(loss.item());
  }

  static double tolerance() { return sizeof(S) == 4 ? 1e-5 : 1e-12; }
  static double loss_tolerance() { return sizeof(S) == 4 ? 1e-5 : 1e-10; }

  void report(const std::string& what, double error, double allowed) const {
    MESSAGE(file_.name().substr(kFolder.size()), " ", prefix_, what, ": ", error, " (at most ", allowed, ")");
    CHECK(error <= allowed);
  }

  SafetensorsFile file_;
  std::string prefix_;
  const NoiseConditionalScoreNetwork& net_;
  Index batch_;
  Buffer<S> parameters_, gradient_;
  std::vector<S> x0_, eps_, sigmas_;
  std::vector<std::int32_t> level_;
  TapeX<S> tape_;
  std::unique_ptr<TrainingEngine> engine_;  // the tape where there is none
};

void check_fused(const std::string& name, const NoiseConditionalScoreNetwork& net) {
  Golden<float> golden(name, net);
  golden.use(make_training_step(net, Denoising{}, "cpu", "fp32", "fused"));
  golden.check_gradients();
  golden.check_adam();
}

template <class S>
void check_all(const std::string& name, const NoiseConditionalScoreNetwork& net) {
  Golden<S> golden(name, net);
  golden.check_outputs();
  golden.check_gradients();
  golden.check_adam();
}

// The chapter's default network with the script's hashed weights.
std::unique_ptr<NoiseConditionalScoreNetwork> hashed_network() {
  const SafetensorsFile file(kFolder + "default_expected.safetensors");
  const std::vector<float> sigmas = read<float>(file, "sigmas");
  auto net = std::make_unique<NoiseConditionalScoreNetwork>(ScoreNetworkOptions{.data_dim = 2},
                                                            NoiseLevels({sigmas.begin(), sigmas.end()}), Rng(0));
  for (Index t = 0; t < net->layout().count(); ++t) {
    const ParameterTensor& tensor = net->layout()[t];
    const double scale = t == 0 ? 2 : 0x1p-4;
    for (Index i = 0; i < tensor.size(); ++i) {
      std::uint32_t h = static_cast<std::uint32_t>(i) + static_cast<std::uint32_t>(t) * 0x9E3779B9u;
      h = (h ^ h >> 16) * 0x7FEB352Du;
      h = (h ^ h >> 15) * 0x846CA68Bu;
      h ^= h >> 16;
      const double u = static_cast<double>(h >> 8) * 0x1p-23 - 1;
      net->parameters()[static_cast<std::size_t>(tensor.offset + i)] = static_cast<float>(u * scale);
    }
  }
  net->parameters_changed();
  return net;
}

}  // namespace

TEST_CASE("width 64 with PyTorch's own weights, from its state dict") {
  const std::unique_ptr<Network> loaded = load_network(kFolder + "width64.safetensors");
  const auto& net = dynamic_cast<const NoiseConditionalScoreNetwork&>(*loaded);
  CHECK(net.options().hidden_dim == 64);
  SUBCASE("fp32") { check_all<float>("width64", net); }
  SUBCASE("fp64") { check_all<double>("width64", net); }
  SUBCASE("fp32, fused") { check_fused("width64", net); }
}

TEST_CASE("the chapter's defaults with hashed weights") {
  const std::unique_ptr<NoiseConditionalScoreNetwork> net = hashed_network();
  SUBCASE("fp32") { check_all<float>("default", *net); }
  SUBCASE("fp64") { check_all<double>("default", *net); }
  SUBCASE("fp32, fused") { check_fused("default", *net); }
}
