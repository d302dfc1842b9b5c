// SPDX-License-Identifier: MIT
#include "tweedie/models/training_engine.h"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/tape.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/detail/fused_engine.h"

namespace tweedie {

TrainingEngine::~TrainingEngine() = default;

namespace {

// ---- The engine on the tape

class TapeEngine final : public TrainingEngine {
 public:
  TapeEngine(const Network& network, const Objective& objective)
      : network_(network),
        objective_(objective),
        name_(join("tape, cpu ", kernels::name(kernels::target()), ", fp32")),
        variables_(static_cast<std::size_t>(network.layout().count())),
        gradients_(variables_.size()) {}

  double loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient,
                           std::span<float> row_losses) override {
    check(gradient.size() == static_cast<std::size_t>(network_.layout().size()), "loss_and_gradient: the gradient has ",
          gradient.size(), " values, the network ", network_.layout().size(), " parameters");
    const Loss loss = forward(parameters, batch, row_losses);
    for (Index i = 0; i < network_.layout().count(); ++i) {
      gradients_[static_cast<std::size_t>(i)] = view(network_.layout()[i], gradient.data());
    }
    tweedie::gradient<float>(loss.mean, variables_, gradients_);
    return static_cast<double>(loss.mean.item());
  }

  double loss(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) override {
    return static_cast<double>(forward(parameters, batch, row_losses).mean.item());
  }

  std::string_view name() const override { return name_; }

 private:
  Loss forward(std::span<const float> parameters, const Batch& batch, std::span<float> row_losses) {
    check(parameters.size() == static_cast<std::size_t>(network_.layout().size()), "training step: ", parameters.size(),
          " parameters, the network has ", network_.layout().size());
    check(row_losses.size() == static_cast<std::size_t>(batch.rows()), "training step: room for ", row_losses.size(),
          " row losses, the batch has ", batch.rows(), " rows");
    tape_.reset();
    for (Index i = 0; i < network_.layout().count(); ++i) {
      variables_[static_cast<std::size_t>(i)] = tape_.parameter(view(network_.layout()[i], parameters.data()));
    }
    const Loss loss = objective_loss<float>(objective_, network_, tape_, variables_, batch);
    const ConstRows<float> rows = loss.rows.value();
    std::copy_n(rows.data(), rows.rows(), row_losses.begin());
    return loss;
  }

  const Network& network_;
  Objective objective_;
  std::string name_;
  Tape tape_;
  std::vector<Var> variables_;          // one per tensor of the layout
  std::vector<Rows<float>> gradients_;  // views into the caller's gradient
};

bool one_of(std::string_view text, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), text) != names.end();
}

}  // namespace

std::unique_ptr<TrainingEngine> make_training_step(const Network& model, const Objective& objective, const std::string& device,
                                                   const std::string& precision, const std::string& engine) {
  check(device != "cuda" && device.rfind("cuda:", 0) != 0, "make_training_step: device is '", device,
        "'; single steps are computed on the CPU, a CUDA device takes whole runs (Trainer): give auto or cpu");
  check(one_of(device, {"auto", "cpu"}), "make_training_step: device is '", device, "'; give auto or cpu");
  check(precision == "fp32", "make_training_step: precision is '", precision,
        "'; training on the CPU runs in fp32: give that (bf16 and bf16x3 are for sampling)");
  check(one_of(engine, {"auto", "tape", "fused"}), "make_training_step: engine is '", engine, "'; give auto, tape or fused");
  if (engine != "tape") {
    if (auto fused = detail::make_fused_engine(model, objective)) return fused;
    check(engine == "auto", "make_training_step: the fused engine does not compute ", describe(objective), " of a ", model.name(),
          "; it does denoising and flow matching of a noise_conditional_score_network or a continuous_score_network that is an "
          "mlp, of at most ",
          kernels::Mlp::kMaxLayers, " layers: give auto or tape");
  }
  return std::make_unique<TapeEngine>(model, objective);
}

}  // namespace tweedie
