// SPDX-License-Identifier: MIT
#include "tweedie/models/detail/device_training.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tweedie/core/detail/parse_number.h"
#include "tweedie/models/score_network.h"

namespace tweedie::detail {

namespace {

// Why a device does not train it; empty where it does.
std::string obstacle(const Network& net, const TrainOptions& o, const SigmaSampling& sampling, bool fresh) {
  const auto* network = dynamic_cast<const NoiseConditionalScoreNetwork*>(&net);
  if (network == nullptr)
    return join("a ", net.name(), " trains on the CPU; CUDA devices train the noise_conditional_score_network");
  if (network->options().num_layers > kernels::Mlp::kMaxLayers) {
    return join(network->options().num_layers, " layers; CUDA devices train at most ", kernels::Mlp::kMaxLayers);
  }
  if (!std::holds_alternative<Denoising>(o.objective) && !std::holds_alternative<FlowMatching>(o.objective)) {
    return join("the objective ", describe(o.objective), "; CUDA devices train denoising and flow matching");
  }
  if (sampling.kind() != SigmaSampling::Kind::levels) {
    return join("sigma_sampling ", describe(sampling), "; CUDA devices train on the network's levels");
  }
  if (fresh) return "fresh draws; CUDA devices train on a table";
  if (o.ema_snapshots > 0) return join("ema_snapshots ", o.ema_snapshots, "; they are put by on the CPU");
  if (o.engine == "tape") return "engine tape; it runs on the CPU";
  return {};
}

}  // namespace

std::shared_ptr<kernels::cuda::Device> training_device(const Network& net, const TrainOptions& options,
                                                       const SigmaSampling& sampling, bool fresh) {
  const std::string why = obstacle(net, options, sampling, fresh);
  const auto named = [&](const std::string& device) {
    check(why.empty(), "train: on ", device, " with ", why, ": give device cpu");
  };
  if (options.on_device) {
    named(options.on_device->name());
    return options.on_device;
  }
  const std::string& device = options.device;
  if (device == "auto") {
    return why.empty() && kernels::cuda::device_count() > 0 ? kernels::cuda::open_device(0) : nullptr;
  }
  if (device != "cuda" && device.rfind("cuda:", 0) != 0) return nullptr;
  const std::optional<int> index = device == "cuda" ? 0 : parse_number<int>(device.substr(5));
  check(index && *index >= 0, "train: device is '", device, "'; give auto, cpu, cuda or cuda:N with N = 0, 1, ...");
  named(device);
  return kernels::cuda::open_device(*index);
}

DeviceRun::DeviceRun(std::shared_ptr<kernels::cuda::Device> device, const Network& net, const TrainOptions& options,
                     const Batches& batches, double smoothing, double zero_loss)
    : device_(std::move(device)) {
  const auto& network = dynamic_cast<const NoiseConditionalScoreNetwork&>(net);
  const ParameterLayout& layout = net.layout();
  const NoiseLevels& levels = *net.levels();
  std::vector<float> sigma, weight;
  for (Index l = 0; l < levels.size(); ++l) {
    sigma.push_back(static_cast<float>(levels[l]));
    weight.push_back(static_cast<float>(loss_weight(options.objective, levels[l])));
  }
  // Rows of the table side by side.
  const ConstRows<float> rows = batches.data().rows;
  Matrix table(rows.contiguous() ? 0 : rows.rows(), rows.cols());
  for (Index r = 0; r < table.rows(); ++r) std::copy_n(rows.row(r).begin(), rows.cols(), table.row(r).begin());

  kernels::cuda::TrainingSetup s;
  s.layers = static_cast<int>(network.options().num_layers);
  s.dim = static_cast<int>(net.dim()), s.hidden = static_cast<int>(network.options().hidden_dim);
  s.levels = static_cast<int>(levels.size());
  s.parameters = layout.size();
  s.embedding = layout[0].offset;
  for (int i = 0; i < s.layers; ++i) s.weight[i] = layout[2 * i + 1].offset, s.bias[i] = layout[2 * i + 2].offset;
  s.table = rows.contiguous() ? rows.data() : table.data();
  s.table_rows = rows.rows();
  s.held_out = static_cast<Index>(batches.validation_rows().size());
  s.batch = options.batch;
  s.sigma = sigma.data(), s.loss_weight = weight.data();
  s.order_key = batches.order_key(), s.split_key = batches.split_key(), s.noise_key = batches.noise_key();
  s.beta1 = options.adam.beta1, s.beta2 = options.adam.beta2;
  s.epsilon = options.adam.epsilon, s.weight_decay = options.adam.weight_decay;
  s.ema = options.ema > 0;
  s.clip_norm = options.clip_norm;
  s.smoothing = smoothing, s.max_loss_growth = options.max_loss_growth, s.zero_loss = zero_loss;
  run_ = device_->make_training(s, kernels::precision_named(options.precision));
}

kernels::cuda::TrainingProgress DeviceRun::advance(Network& net, const Adam& adam, std::span<const float> ema,
                                                   const kernels::cuda::TrainingProgress& start,
                                                   std::span<const kernels::cuda::TrainingRate> rates) {
  if (!begun_) {
    const auto at = [](std::span<const float> values) { return const_cast<float*>(values.data()); };  // upload() only reads
    run_->upload({at(std::as_const(net).parameters()), at(adam.exp_avg()), at(adam.exp_avg_sq()), at(ema)}, start);
    begun_ = true;
  }
  run_->run(rates.data(), static_cast<Index>(rates.size()));
  const kernels::cuda::TrainingProgress now = run_->progress();
  steps_ = now.steps;
  ema_behind_ = moments_behind_ = true;
  run_->download({net.parameters().data(), nullptr, nullptr, nullptr});
  net.parameters_changed();
  return now;
}

void DeviceRun::fetch_ema(std::span<float> ema) {
  if (std::exchange(ema_behind_, false) && !ema.empty()) run_->download({nullptr, nullptr, nullptr, ema.data()});
}

void DeviceRun::fetch_moments(Adam& adam) {
  if (!std::exchange(moments_behind_, false)) return;
  std::vector<float> m(adam.exp_avg().size()), v(m.size());
  run_->download({nullptr, m.data(), v.data(), nullptr});
  adam.restore(steps_, m, v);
}

void DeviceRun::add_level_losses(std::span<double> sums, std::span<std::int64_t> counts) {
  if (!begun_) return;
  std::vector<double> found(2 * sums.size());
  run_->level_losses(found.data());
  for (std::size_t l = 0; l < sums.size(); ++l) {
    sums[l] += found[2 * l];
    counts[l] += static_cast<std::int64_t>(found[2 * l + 1]);
  }
}

}  // namespace tweedie::detail
