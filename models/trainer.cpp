// SPDX-License-Identifier: MIT
#include "tweedie/models/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "tweedie/core/detail/parse_number.h"
#include "tweedie/core/files/checksum.h"
#include "tweedie/models/detail/batches.h"
#include "tweedie/models/detail/device_training.h"

namespace tweedie {

namespace {

constexpr double kSmoothing = .98;
constexpr std::int64_t kChapterEpochs = 100;
constexpr std::int64_t kDeviceSteps = 256;  // at most between two looks at a device
constexpr Index kLossBins = 8;              // of ln sigma, in reports of networks without levels

SigmaSampling sampling_of(const Network& net, const TrainOptions& options) {
  if (options.sigma_sampling.kind() != SigmaSampling::Kind::automatic) return options.sigma_sampling;
  if (net.levels() != nullptr) return SigmaSampling::levels;
  if (std::holds_alternative<FlowMatching>(options.objective)) return SigmaSampling::flow();
  const auto* denoising = std::get_if<Denoising>(&options.objective);
  if (denoising == nullptr) return SigmaSampling::continuous;
  if (denoising->process) return SigmaSampling::process(*denoising->process);
  return denoising->weighting == Weighting::edm ? SigmaSampling::lognormal() : SigmaSampling::continuous;
}

NoiseLevels levels_of(const Network& net, const SigmaSampling& sampling) {
  if (net.levels() != nullptr) return *net.levels();
  check(sampling.kind() != SigmaSampling::Kind::levels,
        "train: the network has no discrete levels; leave sigma_sampling at automatic or give SigmaSampling::continuous");
  const double low = net.sigma_min(), high = net.sigma_max();
  check(std::isfinite(high) && low > 0, "train: the network's sigma range [", low, ", ", high, "] is not positive and finite");
  return low < high ? NoiseLevels({high, low}) : NoiseLevels({high});
}

std::uint32_t fingerprint(ConstRows<float> data) {
  std::uint32_t sum = 0;
  for (Index r = 0; r < data.rows(); ++r) sum = crc32c(std::as_bytes(data.row(r)), sum);
  return sum;
}

constexpr const char* kLossNotFinite = "the loss is not finite";
constexpr const char* kGradientNotFinite = "the gradient is not finite";
constexpr const char* kGrown = "the loss has grown beyond max_loss_growth times its start";

double stored_number(const Checkpoint& checkpoint, const std::string& key, const std::string& path) {
  const auto found = checkpoint.metadata.find(key);
  check<ModelFileError>(found != checkpoint.metadata.end(), path, ": the metadata has no '", key,
                        "': this is no checkpoint of a training run; load the network and start a new run");
  const std::string& text = found->second;
  const std::optional<double> value = detail::parse_number<double>(text);
  check<ModelFileError>(value && std::isfinite(*value), path, ": ", key, " is '", text, "', not a finite number");
  return *value;
}

void check_finite(std::span<const float> values, const ParameterLayout& layout, std::int64_t step, const std::string& path) {
  for (const ParameterTensor& tensor : layout) {
    for (Index i = 0; i < tensor.size(); ++i) {
      check<DivergedError>(std::isfinite(values[static_cast<std::size_t>(tensor.offset + i)]), "train: diverged: at step ", step,
                           " ", tensor.name, " holds a number that is not finite; nothing was written to ", path);
    }
  }
}

}  // namespace

struct Trainer::State {
  State(Network& network, const TrainingData& table, FreshRows generator, TrainOptions run, const Rng& stream)
      : net(network),
        options(std::move(run)),
        rng(stream),
        sampling(sampling_of(network, options)),
        levels(levels_of(network, sampling)),
        device(detail::training_device(network, options, sampling, static_cast<bool>(generator))),
        engine(make_engine()),
        engine_name(device ? join("fused, ", device->name(), ", ", options.precision) : std::string(engine->name())),
        adam(network.layout().size(), options.adam),
        gradient(network.layout().size()) {
    check_options(static_cast<bool>(generator));
    batches.emplace(net, table, std::move(generator), options, sampling, levels, rng);
    if (!batches->validation_rows().empty()) {
      valid_engine = make_engine();
    }
    set_length();
    if (options.ema > 0) ema = copy_of(net.parameters());
    if (options.ema_snapshots > 0) post_hoc.emplace(net.layout().size());
    row_losses = Buffer<float>(options.batch);
    const Index counted = net.levels() == nullptr ? kLossBins : on_levels() ? levels.size() : 0;
    level_sums = Buffer<double>(counted);
    level_counts = Buffer<std::int64_t>(counted);
    if (device) start_device_run();
  }

  Network& net;
  TrainOptions options;
  Rng rng;                                        // as given: what a checkpoint stores
  SigmaSampling sampling;                         // never automatic
  NoiseLevels levels;                             // of a network without: the ends of its range
  std::shared_ptr<kernels::cuda::Device> device;  // nullptr: the host computes
  std::unique_ptr<TrainingEngine> engine;         // where the device trains, idle
  std::string engine_name;                        // what trains
  std::unique_ptr<TrainingEngine> valid_engine;   // with memory of its own: the training engine's stays as it is
  Adam adam;
  Buffer<float> gradient;  // (P)
  Buffer<float> ema;       // (P), or empty
  Buffer<float> raw;       // (P) the raw weights after use_ema(), empty before
  std::optional<PostHocEma> post_hoc;

  std::optional<detail::Batches> batches;  // after the options were checked

  std::int64_t total_steps = 0, steps = 0;
  Buffer<float> row_losses;  // (B)
  double last_loss = 0, last_norm = 0, last_rate = 0;
  double loss_average = 0;    // sum over steps of (1 - .98) .98^age loss
  double loss_limit = 0;      // the smoothed loss beyond which the run has diverged; 0: none yet
  Buffer<double> level_sums;  // (L), or (kLossBins) without levels, of the row losses since the last report; empty between levels
  Buffer<std::int64_t> level_counts;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();

  bool on_levels() const { return sampling.kind() == SigmaSampling::Kind::levels; }
  bool conditional() const { return net.num_classes() > 0 || net.covariate_dim() > 0; }
  double smoothed() const { return steps == 0 ? 0 : loss_average / (1 - std::pow(kSmoothing, static_cast<double>(steps))); }
  std::span<const float> raw_parameters() const { return raw.size() > 0 ? raw.span() : std::as_const(net).parameters(); }

  // Between its levels a network with levels is two evaluations, which only the tape knows.
  std::unique_ptr<TrainingEngine> make_engine() const {
    const bool between = net.levels() != nullptr && !on_levels();
    check(!between || options.engine != "fused", "train: engine is fused and sigma_sampling ", describe(sampling),
          "; the fused engine trains on the network's levels: give SigmaSampling::levels, or engine auto or tape");
    if (device) return make_training_step(net, options.objective, "cpu", "fp32", "fused");  // validates
    return make_training_step(net, options.objective, options.device, options.precision, between ? "tape" : options.engine);
  }

  static Buffer<float> copy_of(std::span<const float> values) {
    Buffer<float> copy(static_cast<Index>(values.size()));
    std::copy(values.begin(), values.end(), copy.begin());
    return copy;
  }

  void check_options(bool fresh) const {
    const TrainOptions& o = options;
    check(o.batch >= 1, "train: batch is ", o.batch, "; give at least 1");
    check(o.steps >= 0 && o.epochs >= 0, "train: steps is ", o.steps, " and epochs ", o.epochs, "; neither may be negative");
    check(o.steps == 0 || o.epochs == 0, "train: both steps (", o.steps, ") and epochs (", o.epochs, ") are given; give one");
    check(std::isfinite(o.learning_rate) && o.learning_rate > 0, "train: learning_rate is ", o.learning_rate,
          "; give a positive number");
    check(o.clip_norm >= 0, "train: clip_norm is ", o.clip_norm, "; give 0 (no clipping) or more");
    check(o.valid_fraction >= 0 && o.valid_fraction < 1, "train: valid_fraction is ", o.valid_fraction,
          "; give a part of the rows in [0, 1)");
    check(o.log_every >= 1, "train: log_every is ", o.log_every, "; give at least 1");
    check(o.max_loss_growth >= 0, "train: max_loss_growth is ", o.max_loss_growth, "; give 0 (no limit) or more");
    check(o.ema_snapshots >= 0, "train: ema_snapshots is ", o.ema_snapshots, "; give 0 (none) or more");
    check(o.checkpoint_every >= 0, "train: checkpoint_every is ", o.checkpoint_every, "; give 0 (only at the end) or more");
    check(o.checkpoint_every == 0 || !o.checkpoint_path.empty(), "train: checkpoint_every is ", o.checkpoint_every,
          " and there is no checkpoint_path");
    check_objective(o.objective);
    if (!on_levels()) sampling.truncated(levels.min(), levels.max());
    check(o.condition_dropout >= 0 && o.condition_dropout <= 1, "train: condition_dropout is ", o.condition_dropout,
          "; give a part of the rows in [0, 1]");
    check(o.condition_dropout == 0 || conditional(), "train: condition_dropout is ", o.condition_dropout,
          " and the network takes no condition; leave it at 0");
    ema_decay(o.ema, o.ema_warmup, 0);
    schedule_factor(o.schedule, 0, 1);
    if (!fresh) return;
    check(o.steps > 0, "train: fresh draws have no epochs; give steps");
    check(!conditional(), "train: fresh draws carry no labels or covariates, which the network needs; give TrainingData");
    check(o.valid_fraction == 0, "train: fresh draws have no rows to keep apart; leave valid_fraction at 0");
  }

  // An epoch is train_count rows; see the file's head.
  void set_length() {
    const Index train_count = batches->train_count();
    total_steps = options.steps;
    if (total_steps == 0) {
      const std::int64_t epochs = options.epochs > 0 ? options.epochs : kChapterEpochs;
      check(train_count <= std::numeric_limits<std::int64_t>::max() / epochs - options.batch, "train: ", epochs, " epochs of ",
            train_count, " rows are too many");
      total_steps = (epochs * train_count + options.batch - 1) / options.batch;
    }
    check(total_steps < std::int64_t{1} << 32, "train: ", total_steps, " steps; the random streams hold 2^32");
  }

  // Where a row's loss is counted: its level, or its eighth of the network's ln sigma, the largest first.
  Index loss_bin(Index b) const {
    const Batch& batch = batches->batch();
    if (on_levels()) return batch.level[b];
    if (levels.size() == 1) return 0;
    const double place = std::log(levels.max() / static_cast<double>(batch.sigma[b])) / std::log(levels.max() / levels.min());
    return std::clamp(static_cast<Index>(place * static_cast<double>(kLossBins)), Index{0}, kLossBins - 1);
  }

  // Steps that may go by before run() must look: 1 on the host.
  std::int64_t steps_at_once() const {
    if (!device) return 1;
    std::int64_t most = std::min(total_steps - steps, kDeviceSteps);
    for (const std::int64_t every : {options.log_every, options.checkpoint_every}) {
      if (every > 0) most = std::min(most, every - steps % every);
    }
    return most;
  }

  double advance(std::int64_t count) {
    check(raw.size() == 0, "Trainer::step: use_ema() has ended this run");
    check(steps < total_steps, "Trainer::step: all ", total_steps, " steps are done");
    return device ? device_steps(count) : step();
  }

  double step() {
    const Batch& batch = batches->draw(steps);
    const double loss = engine->loss_and_gradient(std::as_const(net).parameters(), batch, gradient.span(), row_losses.span());
    const double norm = adam.norm(gradient.span());
    const double average = kSmoothing * loss_average + (1 - kSmoothing) * loss;
    check_progress(loss, norm, average / (1 - std::pow(kSmoothing, static_cast<double>(steps + 1))));
    loss_average = average;

    last_rate = options.learning_rate * schedule_factor(options.schedule, steps, total_steps);
    adam.update({.learning_rate = last_rate,
                 .gradient_scale = clip_scale(norm, options.clip_norm),
                 .ema_decay = options.ema > 0 ? ema_decay(options.ema, options.ema_warmup, steps) : 0},
                gradient.span(), net.parameters(), ema.span());
    net.parameters_changed();
    ++steps;
    if (post_hoc) {
      post_hoc->update(std::as_const(net).parameters());
      // The last of the ema_snapshots is the running average at the end.
      const auto parts = [this](std::int64_t step) { return step * options.ema_snapshots / total_steps; };
      if (steps < total_steps && parts(steps) > parts(steps - 1)) post_hoc->snapshot();
    }
    last_loss = loss;
    last_norm = norm;
    for (Index b = 0; level_sums.size() > 0 && b < options.batch; ++b) {
      const Index bin = loss_bin(b);
      level_sums[bin] += static_cast<double>(row_losses[b]);
      ++level_counts[bin];
    }
    return loss;
  }

  void check_progress(double loss, double norm, double smoothed_loss) {
    if (!std::isfinite(loss)) diverged(loss, norm, kLossNotFinite);
    if (!std::isfinite(norm)) diverged(loss, norm, kGradientNotFinite);
    if (options.max_loss_growth == 0) return;
    if (loss_limit == 0) loss_limit = options.max_loss_growth * std::max(std::abs(loss), zero_loss());
    if (smoothed_loss > loss_limit) {
      diverged(loss, norm, kGrown);
    }
  }
  // A network that answers 0 has the denoising loss D/2 w(sigma); the weights are largest at one of the ends. A start below
  // that (a trained network, a lucky batch, a learned log-variance whose losses are negative) is no measure.
  double zero_loss() const {
    const double weight = std::max(loss_weight(options.objective, levels.min()), loss_weight(options.objective, levels.max()));
    return .5 * static_cast<double>(net.dim()) * weight;
  }

  // ---- On a device

  std::optional<detail::DeviceRun> device_run;

  void start_device_run() { device_run.emplace(device, net, options, *batches, kSmoothing, zero_loss()); }

  double device_steps(std::int64_t count) {
    using kernels::cuda::Divergence;
    std::vector<kernels::cuda::TrainingRate> rates;
    for (std::int64_t t = steps; t < steps + count; ++t) {
      rates.push_back({options.learning_rate * schedule_factor(options.schedule, t, total_steps),
                       options.ema > 0 ? ema_decay(options.ema, options.ema_warmup, t) : 0});
    }
    const kernels::cuda::TrainingProgress start{.steps = steps, .loss_average = loss_average, .loss_limit = loss_limit};
    const kernels::cuda::TrainingProgress now = device_run->advance(net, adam, std::as_const(ema).span(), start, rates);
    if (now.steps > steps) last_rate = rates[static_cast<std::size_t>(now.steps - steps - 1)].learning_rate;
    steps = now.steps;
    loss_average = now.loss_average;
    loss_limit = now.loss_limit;
    if (now.diverged != Divergence::none) {
      batches->draw(steps);
      device_run->row_losses(row_losses.span());
      const bool bad_loss = now.diverged == Divergence::loss, bad_norm = now.diverged == Divergence::gradient;
      diverged(now.loss, now.gradient_norm, bad_loss ? kLossNotFinite : bad_norm ? kGradientNotFinite : kGrown);
    }
    last_loss = now.loss;
    last_norm = now.gradient_norm;
    return last_loss;
  }

  [[noreturn]] void diverged(double loss, double norm, const char* what) const {
    const Batch& batch = batches->batch();
    // The worst row's noise: the first that is not finite, else the largest loss.
    Index worst = 0;
    for (Index b = 0; b < options.batch; ++b) {
      if (!std::isfinite(row_losses[b])) {
        worst = b;
        break;
      }
      if (row_losses[b] > row_losses[worst]) worst = b;
    }
    const std::string where = batch.level.size() > 0 ? join("level ", batch.level[worst], " (sigma ", batch.sigma[worst], ")")
                                                     : join("sigma ", batch.sigma[worst]);
    const std::string kept = options.checkpoint_path.empty()
                                 ? std::string("there is no checkpoint_path to go back to")
                                 : join("the last checkpoint stays at ", options.checkpoint_path, " if one was written");
    fail<DivergedError>("train: diverged at step ", steps, ", ", where, ", loss ", loss, ", gradient norm ", norm, ": ", what,
                        "; ", kept, ". Lower the learning rate (", options.learning_rate,
                        "), clip gradients (clip_norm) or standardise the data");
  }

  // The options that fix a run's numbers, as a checkpoint stores them.
  Strings settings() const {
    const TrainOptions& o = options;
    const TrainingData& data = batches->data();
    Strings all = {
        {"train.objective", describe(o.objective)},
        {"train.batch", join(o.batch)},
        {"train.learning_rate", join(o.learning_rate)},
        {"train.schedule", join(o.schedule.kind == LearningRate::cosine ? "cosine" : "constant", ", warm-up ",
                                o.schedule.warmup_steps, ", floor ", o.schedule.final_fraction)},
        {"train.adam",
         join("betas ", o.adam.beta1, " ", o.adam.beta2, ", epsilon ", o.adam.epsilon, ", weight decay ", o.adam.weight_decay)},
        {"train.clip_norm", join(o.clip_norm)},
        {"train.ema", join(o.ema, o.ema_warmup ? ", warm-up" : "")},
        {"train.sigma_sampling", describe(sampling)},
        {"train.valid_fraction", join(o.valid_fraction)},
        {"train.data", batches->fresh() ? std::string("fresh draws")
                                        : join(data.rows.rows(), " x ", data.rows.cols(), ", crc32c ", fingerprint(data.rows))},
    };
    if (post_hoc) all["train.ema_snapshots"] = join(o.ema_snapshots);
    if (conditional()) {
      all["train.conditions"] = join("labels crc32c ", crc32c(std::as_bytes(data.labels)), ", covariates crc32c ",
                                     fingerprint(data.covariates), ", dropout ", o.condition_dropout);
    }
    return all;
  }
};

Trainer::Trainer(Network& net, ConstRows<float> data, TrainOptions options, const Rng& rng)
    : Trainer(net, TrainingData{.rows = data}, std::move(options), rng) {}

Trainer::Trainer(Network& net, const TrainingData& data, TrainOptions options, const Rng& rng)
    : state_(std::make_unique<State>(net, data, nullptr, std::move(options), rng)) {}

Trainer::Trainer(Network& net, FreshRows draw, TrainOptions options, const Rng& rng) {
  check(static_cast<bool>(draw), "Trainer: the function that draws rows is empty");
  state_ = std::make_unique<State>(net, TrainingData{}, std::move(draw), std::move(options), rng);
}

Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

double Trainer::step() { return state_->advance(1); }

bool Trainer::run(const TrainingCallback& callback) {
  State& s = *state_;
  while (!done()) {
    if (s.options.cancel != nullptr && s.options.cancel->load(std::memory_order_relaxed)) return false;
    s.advance(s.steps_at_once());
    const bool save_now = s.options.checkpoint_every > 0 && s.steps % s.options.checkpoint_every == 0;
    if (!s.options.checkpoint_path.empty() && (save_now || done())) save(s.options.checkpoint_path);
    const bool log_now = s.steps % s.options.log_every == 0 || done();
    if (log_now && !callback(report())) return done();
  }
  return true;
}

std::int64_t Trainer::steps_done() const { return state_->steps; }
std::int64_t Trainer::total_steps() const { return state_->total_steps; }
std::string_view Trainer::engine() const { return state_->engine_name; }
std::span<const std::int64_t> Trainer::validation_rows() const { return state_->batches->validation_rows(); }

TrainingStep Trainer::report() {
  State& s = *state_;
  TrainingStep r;
  r.step = s.steps;
  r.total_steps = s.total_steps;
  if (s.batches->train_count() > 0) {
    r.epoch = static_cast<double>(s.steps) * static_cast<double>(s.options.batch) / static_cast<double>(s.batches->train_count());
  }
  r.loss = s.last_loss;
  r.smoothed_loss = s.smoothed();
  r.learning_rate = s.last_rate;
  r.gradient_norm = s.last_norm;
  r.has_valid_loss = !validation_rows().empty();
  if (r.has_valid_loss) r.valid_loss = s.batches->validation_loss(*s.valid_engine, ema_parameters());
  if (s.device_run) s.device_run->add_level_losses(s.level_sums.span(), s.level_counts.span());
  for (Index l = 0; l < s.level_sums.size(); ++l) {
    r.level_losses.push_back(s.level_counts[l] > 0 ? s.level_sums[l] / static_cast<double>(s.level_counts[l])
                                                   : std::numeric_limits<double>::quiet_NaN());
    s.level_sums[l] = 0;
    s.level_counts[l] = 0;
  }
  r.engine = s.engine_name;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - s.begin).count();
  return r;
}

std::span<const float> Trainer::ema_parameters() const {
  if (state_->device_run) state_->device_run->fetch_ema(state_->ema.span());
  return state_->ema.size() > 0 ? std::as_const(state_->ema).span() : state_->raw_parameters();
}

void Trainer::use_ema() {
  State& s = *state_;
  if (s.ema.size() == 0 || s.raw.size() > 0) return;
  ema_parameters();
  s.raw = State::copy_of(s.net.parameters());
  std::copy(s.ema.begin(), s.ema.end(), s.net.parameters().begin());
  s.net.parameters_changed();
}

const PostHocEma* Trainer::post_hoc_ema() const { return state_->post_hoc ? &*state_->post_hoc : nullptr; }

// ---- Checkpoints

namespace {

// The averages of a run go on with it or not at all: of a part of its steps they would be no averages of the run.
void check_post_hoc(const Checkpoint& checkpoint, bool wanted, const std::string& path) {
  const bool kept = checkpoint.metadata.find("train.ema_snapshots") != checkpoint.metadata.end();
  check(kept == wanted, "Trainer::resume: the run of ", path, kept ? " keeps" : " does not keep",
        " averages for later (ema_snapshots) and this one ", kept ? "does not" : "does", "; resume with what it began with");
}

std::optional<PostHocEma> load_post_hoc(const Checkpoint& checkpoint, const ParameterLayout& layout, bool wanted,
                                        const std::string& path) {
  if (!wanted) return std::nullopt;
  if (checkpoint.step == 0) return PostHocEma(layout.size());
  PostHocEma ema = PostHocEma::load(checkpoint, layout);
  check<ModelFileError>(ema.steps() == checkpoint.step, path, ": the averages of ema_snapshots are at step ", ema.steps(),
                        ", the run at ", checkpoint.step, "; the file is damaged");
  return ema;
}

}  // namespace

void Trainer::save(const std::string& path) const {
  State& s = *state_;
  ema_parameters();  // from the device, where one trains
  if (s.device_run) s.device_run->fetch_moments(s.adam);
  const ParameterLayout& layout = s.net.layout();
  Checkpoint checkpoint = make_checkpoint(s.net);
  checkpoint.set_parameters("", layout, s.raw_parameters());
  checkpoint.set_parameters("optim.exp_avg.", layout, s.adam.exp_avg());
  checkpoint.set_parameters("optim.exp_avg_sq.", layout, s.adam.exp_avg_sq());
  if (s.ema.size() > 0) checkpoint.set_parameters("ema.", layout, s.ema.span());
  check_finite(s.raw_parameters(), layout, s.steps, path);
  check_finite(ema_parameters(), layout, s.steps, path);
  checkpoint.step = s.steps;
  checkpoint.rng = s.rng;
  checkpoint.metadata = s.settings();
  checkpoint.metadata["engine"] = s.engine_name;
  checkpoint.metadata["train.total_steps"] = join(s.total_steps);
  checkpoint.metadata["train.loss_average"] = join(s.loss_average);
  checkpoint.metadata["train.loss_limit"] = join(s.loss_limit);
  if (s.post_hoc) s.post_hoc->store(checkpoint, layout);
  if (s.options.annotate) s.options.annotate(checkpoint);
  write_checkpoint(path, checkpoint);
}

void Trainer::resume(const std::string& path) {
  State& s = *state_;
  const Checkpoint checkpoint = read_checkpoint(path);
  for (const auto& [key, value] : make_checkpoint(s.net).config) {
    const auto found = checkpoint.config.find(key);
    check(found != checkpoint.config.end() && found->second == value, "Trainer::resume: the network's ", key, " is '", value,
          "' here and '", found == checkpoint.config.end() ? std::string("missing") : found->second, "' in ", path,
          "; build the network that the file describes (make_network)");
  }
  const double average = stored_number(checkpoint, "train.loss_average", path);
  const double limit = stored_number(checkpoint, "train.loss_limit", path);
  check_post_hoc(checkpoint, s.post_hoc.has_value(), path);
  for (const auto& [key, value] : s.settings()) {
    const auto found = checkpoint.metadata.find(key);
    check<ModelFileError>(found != checkpoint.metadata.end(), path, ": the metadata has no '", key, "'");
    check(found->second == value, "Trainer::resume: ", key.substr(6), " is '", value, "' here and '", found->second, "' in ",
          path, "; resume with what the run began with, or load the network and start a new run");
  }
  check<ModelFileError>(checkpoint.rng.has_value(), path, ": the random stream is missing");
  check(checkpoint.step <= s.total_steps, "Trainer::resume: ", path, " is at step ", checkpoint.step, " of a run of ",
        s.total_steps, " steps");

  // Everything is read before anything is changed.
  const ParameterLayout& layout = s.net.layout();
  Buffer<float> parameters(layout.size()), exp_avg(layout.size()), exp_avg_sq(layout.size()), ema(s.ema.size());
  checkpoint.get_parameters("", layout, parameters.span());
  checkpoint.get_parameters("optim.exp_avg.", layout, exp_avg.span());
  checkpoint.get_parameters("optim.exp_avg_sq.", layout, exp_avg_sq.span());
  if (ema.size() > 0) checkpoint.get_parameters("ema.", layout, ema.span());
  std::optional<PostHocEma> post_hoc = load_post_hoc(checkpoint, layout, s.post_hoc.has_value(), path);

  s.rng = *checkpoint.rng;
  s.batches->restart(s.rng);
  s.adam.restore(checkpoint.step, exp_avg.span(), exp_avg_sq.span());
  std::copy(parameters.begin(), parameters.end(), s.net.parameters().begin());
  s.net.parameters_changed();
  s.ema = std::move(ema);
  s.post_hoc = std::move(post_hoc);
  s.raw = Buffer<float>();
  s.steps = checkpoint.step;
  s.loss_average = average;
  s.loss_limit = limit;
  if (s.device) s.start_device_run();
  s.begin = std::chrono::steady_clock::now();
}

// ---- In one call

namespace {

TrainingStep train_with(Trainer trainer, const TrainingCallback& callback) {
  TrainingStep last;
  trainer.run([&](const TrainingStep& s) {
    last = s;
    return callback(s);
  });
  trainer.use_ema();
  return last.step == trainer.steps_done() ? last : trainer.report();
}

}  // namespace

TrainingStep train(Network& net, ConstRows<float> data, const TrainOptions& options, const Rng& rng,
                   const TrainingCallback& callback) {
  return train_with(Trainer(net, data, options, rng), callback);
}

TrainingStep train(Network& net, const TrainingData& data, const TrainOptions& options, const Rng& rng,
                   const TrainingCallback& callback) {
  return train_with(Trainer(net, data, options, rng), callback);
}

TrainingStep train(Network& net, const FreshRows& draw, const TrainOptions& options, const Rng& rng,
                   const TrainingCallback& callback) {
  return train_with(Trainer(net, draw, options, rng), callback);
}

std::vector<double> train_ncsn(Network& model, ConstRows<float> data, const Rng& rng, const TrainNcsnOptions& options,
                               const EpochCallback& callback) {
  check(options.num_epochs >= 1, "train_ncsn: num_epochs is ", options.num_epochs, "; give at least 1");
  check<DataError>(data.rows() >= 1, "train_ncsn: the data has no rows");
  const Index batch = std::min(options.batch, data.rows());
  Trainer trainer(model, data, {.epochs = options.num_epochs, .batch = batch, .learning_rate = options.learning_rate, .ema = 0},
                  rng);
  std::vector<double> averages;
  for (std::int64_t epoch = 1; epoch <= options.num_epochs; ++epoch) {
    const std::int64_t first = trainer.steps_done(), end = (epoch * data.rows() + batch - 1) / batch;
    double sum = 0;
    while (trainer.steps_done() < end) sum += trainer.step();
    averages.push_back(sum / static_cast<double>(end - first));
    if (callback && !callback(epoch - 1, averages.back())) break;
  }
  return averages;
}

}  // namespace tweedie
