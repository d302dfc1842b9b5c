// device_training.h - a TrainingRun over a Runtime: the data and all state in the device's memory, a step as one graph.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "tweedie/kernels/cuda/mlp_gradient.h"
#include "tweedie/kernels/cuda/runtime.h"
#include "tweedie/kernels/cuda/training.h"

namespace tweedie::kernels::cuda {

/// `runtime` outlives it.
template <Runtime R>
class DeviceTraining final : public TrainingRun {
 public:
  /// Throws UsageError for a setup that means nothing or a precision that it does not take.
  DeviceTraining(R& runtime, const TrainingSetup& setup, Precision precision)
      : memory_(runtime), runtime_(runtime), setup_(setup), precision_(precision) {
    check_setup();
    const TrainingSetup& s = setup_;
    const Index levels = s.levels, hidden = s.hidden, dim = s.dim;
    at_.p = memory_.template make<float>(s.parameters);
    at_.gradient = memory_.template make<float>(s.parameters);
    at_.m = memory_.template make<float>(s.parameters);
    at_.v = memory_.template make<float>(s.parameters);
    at_.ema = s.ema ? memory_.template make<float>(s.parameters) : nullptr;
    at_.from_x = memory_.template make<float>(hidden * dim);
    at_.level_bias = memory_.template make<float>(levels * hidden);
    at_.level_bias_gradient = memory_.template make<float>(levels * hidden);
    at_.table = memory_.template make<float>(s.table_rows * dim);
    at_.sigma = memory_.template make<float>(levels);
    const bool weighted = std::any_of(s.loss_weight, s.loss_weight + levels, [](float w) { return w != 1; });
    at_.loss_weight = weighted ? memory_.template make<float>(levels) : nullptr;
    at_.weight = weighted ? memory_.template make<float>(s.batch) : nullptr;
    at_.x = memory_.template make<float>(s.batch * dim);
    at_.eps = memory_.template make<float>(s.batch * dim);
    at_.level = memory_.template make<int>(s.batch);
    at_.level_losses = memory_.template make<double>(2 * levels);
    at_.level_totals = memory_.template make<double>(2 * levels);
    at_.squares = memory_.template make<double>(norm_blocks());
    at_.numbers = memory_.template make<StepNumbers>(kStepTable);
    at_.state = memory_.template make<StepState>(1);
    gradient_input_ = gradient_input();
    gradient_input_.losses = memory_.template make<float>(s.batch);
    gradient_input_.workspace =
        memory_.template make<float>(mlp_gradient_workspace_floats(gradient_input_.net, gradient_input_.batch, shared_bytes()));

    copy_to(at_.table, s.table, s.table_rows * dim);
    copy_to(at_.sigma, s.sigma, levels);
    if (weighted) copy_to(at_.loss_weight, s.loss_weight, levels);
    setup_.table = setup_.sigma = setup_.loss_weight = nullptr;
    runtime_.zero(at_.level_totals, sizeof(double) * static_cast<std::size_t>(2 * levels));
    graph_.emplace(runtime_.capture([this] { record_step(); }));
  }
  ~DeviceTraining() override {
    try {
      runtime_.synchronize();  // nothing may still write to what is released
    } catch (...) {            // the error was, or will be, some other call's
    }
  }

  void run(const TrainingRate* rates, Index steps) override {
    check(ready_, "cuda training: run() before upload(): there are no weights to train");
    for (Index first = 0; first < steps; first += kStepTable) {
      const TrainingProgress now = progress();
      if (first > 0 && now.diverged != Divergence::none) return;
      const Index count = std::min<Index>(kStepTable, steps - first);
      StepNumbers numbers[kStepTable];
      for (Index i = 0; i < count; ++i) numbers[i] = numbers_of(rates[first + i], now.steps + i);
      copy_to(at_.numbers, numbers, count);
      copy_to(&at_.state->table_first, &now.steps, 1);
      for (Index i = 0; i < count; ++i) runtime_.replay(*graph_);
    }
  }

  TrainingProgress progress() override {
    TrainingProgress now;
    runtime_.download(&now, &at_.state->progress, sizeof now);
    return now;
  }
  void download(const TrainingState& to) override {
    if (to.parameters != nullptr) copy_from(to.parameters, at_.p, setup_.parameters);
    if (to.exp_avg != nullptr) copy_from(to.exp_avg, at_.m, setup_.parameters);
    if (to.exp_avg_sq != nullptr) copy_from(to.exp_avg_sq, at_.v, setup_.parameters);
    if (setup_.ema && to.ema != nullptr) copy_from(to.ema, at_.ema, setup_.parameters);
  }
  void row_losses(float* to) override { copy_from(to, gradient_input_.losses, setup_.batch); }
  void level_losses(double* to) override {
    copy_from(to, at_.level_totals, 2 * Index{setup_.levels});
    runtime_.zero(at_.level_totals, sizeof(double) * static_cast<std::size_t>(2 * setup_.levels));
  }
  void upload(const TrainingState& from, const TrainingProgress& progress) override {
    copy_to(at_.p, from.parameters, setup_.parameters);
    copy_to(at_.m, from.exp_avg, setup_.parameters);
    copy_to(at_.v, from.exp_avg_sq, setup_.parameters);
    if (setup_.ema) copy_to(at_.ema, from.ema, setup_.parameters);
    StepState state{};
    state.progress = progress;
    copy_to(at_.state, &state, 1);
    ready_ = true;
  }

 private:
  /// Device memory, released with it.
  class Memory {
   public:
    explicit Memory(R& runtime) : runtime_(runtime) {}
    ~Memory() {
      for (void* const part : parts_) runtime_.release(part);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    template <class T>
    T* make(Index count) {
      parts_.reserve(parts_.size() + 1);
      parts_.push_back(runtime_.allocate(sizeof(T) * static_cast<std::size_t>(count)));
      return static_cast<T*>(parts_.back());
    }

   private:
    R& runtime_;
    std::vector<void*> parts_;
  };

  void check_setup() const {
    const TrainingSetup& s = setup_;
    check(precision_ != Precision::bf16x3, "cuda training: precision is ", kernels::name(precision_),
          "; training on a GPU runs in fp32, tf32 or bf16");
    check(s.layers >= 2 && s.layers <= Mlp::kMaxLayers, "cuda training: ", s.layers, " layers; it takes 2 to ", Mlp::kMaxLayers);
    check(s.dim >= 1 && s.hidden >= 1 && s.levels >= 1 && s.batch >= 1, "cuda training: dim ", s.dim, ", hidden ", s.hidden,
          ", levels ", s.levels, ", batch ", s.batch, "; give at least 1 of each");
    check(s.held_out >= 0 && s.held_out < s.table_rows, "cuda training: ", s.held_out, " of ", s.table_rows,
          " rows are kept apart; at least one must be left");
    const int width = std::max(s.dim, s.hidden);
    check(width <= 64 || mlp_gradient_shared_bytes<MlpTile16>(width) <= shared_bytes(), "cuda training: width ", width,
          " does not fit a block's ", shared_bytes(), " bytes of shared memory; train on the CPU (--device cpu)");
  }
  /// Of one block.
  int shared_bytes() const { return runtime_.max_shared_bytes(); }
  Index norm_blocks() const { return (setup_.parameters + kThreads - 1) / kThreads; }

  MlpGradientInput gradient_input() const {
    const TrainingSetup& s = setup_;
    MlpGradientInput k = {};
    k.net.layers = s.layers, k.net.levels = s.levels;
    for (int i = 0; i < s.layers; ++i) {
      const int in = i == 0 ? s.dim : s.hidden, out = i + 1 == s.layers ? s.dim : s.hidden;
      k.net.layer[i] = {i == 0 ? at_.from_x : at_.p + s.weight[i], i == 0 ? at_.level_bias : at_.p + s.bias[i], in, out};
      k.gradient.weight[i] = at_.gradient + s.weight[i];
      k.gradient.stride[i] = i == 0 ? s.dim + s.hidden : in;
      k.gradient.bias[i] = i == 0 ? at_.level_bias_gradient : at_.gradient + s.bias[i];
    }
    k.batch = {.rows = s.batch, .x = at_.x, .eps = at_.eps, .level = at_.level, .scale = nullptr, .weight = at_.weight};
    k.level_losses = at_.level_losses;
    return k;
  }

  void record_step() {
    const TrainingSetup& s = setup_;
    const auto launch = launcher(runtime_);
    const TrainingBegin begin = {at_,
                                 s.dim,
                                 s.hidden,
                                 s.levels,
                                 s.embedding,
                                 s.weight[0],
                                 s.bias[0],
                                 s.batch,
                                 s.table_rows - s.held_out,
                                 s.held_out,
                                 s.order_key,
                                 s.noise_key,
                                 tweedie::detail::Feistel::of(s.split_key, 0, static_cast<std::uint64_t>(s.table_rows))};
    const Index work = std::max(s.batch * ((s.dim + 3) / 4), Index{32} * s.levels * s.hidden);
    launch("training_begin", blocks_for(work), kThreads, 0, begin);
    mlp_gradient(launch, gradient_input_, precision_, shared_bytes());
    launch("training_norm", static_cast<int>(norm_blocks()), kThreads, 0,
           TrainingNorm{at_, s.dim, s.hidden, s.levels, s.embedding, s.weight[0], s.bias[0], s.parameters});
    launch("training_finish", 1, kThreads, 0,
           TrainingFinish{at_, s.levels, s.batch, norm_blocks(), s.clip_norm, s.smoothing, s.max_loss_growth, s.zero_loss});
    launch("training_adam", blocks_for(s.parameters), kThreads, 0,
           TrainingAdam{at_, s.parameters, static_cast<float>(1 - s.beta1), static_cast<float>(1 - s.beta2),
                        static_cast<float>(s.epsilon)});
  }

  StepNumbers numbers_of(const TrainingRate& rate, std::int64_t step) const {
    const double t = static_cast<double>(step + 1);
    return {static_cast<float>(rate.learning_rate),
            static_cast<float>(rate.learning_rate * setup_.weight_decay),
            static_cast<float>(1 - std::pow(setup_.beta1, t)),
            static_cast<float>(1 - std::pow(setup_.beta2, t)),
            static_cast<float>(1 - rate.ema_decay),
            1 - std::pow(setup_.smoothing, t)};
  }
  template <class T>
  void copy_to(T* to, const T* from, Index count) {
    runtime_.upload(to, from, sizeof(T) * static_cast<std::size_t>(count));
  }
  template <class T>
  void copy_from(T* to, const T* from, Index count) {
    runtime_.download(to, from, sizeof(T) * static_cast<std::size_t>(count));
  }

  Memory memory_;
  R& runtime_;
  TrainingSetup setup_;
  Precision precision_;
  StepMemory at_ = {};
  MlpGradientInput gradient_input_ = {};
  std::optional<typename R::Graph> graph_;
  bool ready_ = false;
};

}  // namespace tweedie::kernels::cuda
