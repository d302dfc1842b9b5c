// SPDX-License-Identifier: MIT
#include "tweedie/cli/validation.h"

#include <algorithm>
#include <cstdlib>

#include "tweedie/cli/program.h"
#include "tweedie/core/files/csv.h"

namespace tweedie::cli {

void Best::store(Checkpoint& file, const ParameterLayout& layout) const {
  if (weights.empty()) return;
  file.set_parameters("best.", layout, weights);
  file.metadata["best.valid_loss"] = join(valid_loss);
  file.metadata["best.step"] = join(step);
}

void Best::load(const Checkpoint& file, const ParameterLayout& layout) {
  if (!file.has_prefix("best.")) return;
  weights.resize(static_cast<std::size_t>(layout.size()));
  file.get_parameters("best.", layout, weights);
  const auto loss = file.metadata.find("best.valid_loss"), at = file.metadata.find("best.step");
  check<ModelFileError>(loss != file.metadata.end() && at != file.metadata.end(),
                        "the file holds best weights and not their step and loss");
  valid_loss = std::strtod(loss->second.c_str(), nullptr);
  step = std::strtoll(at->second.c_str(), nullptr, 10);
}

// ---- The rows kept apart

namespace {

constexpr Index kChunk = 2048;

// Enough for about 4000 evaluations over 30 levels.
Index draws_for(Index rows) { return std::clamp<Index>(128 / std::max<Index>(rows, 1), 1, 8); }

}  // namespace

Validation::Validation(const Trainer& trainer, const TrainingData& data, const Network& net, const TrainOptions& options,
                       const Rng& rng)
    : trainer_(trainer), data_(data), net_(net), objective_(options.objective), rng_(rng) {
  if (trainer.validation_rows().empty()) return;
  engine_ = make_training_step(net, options.objective, "cpu", "fp32", options.engine);
}

double Validation::loss() {
  const std::span<const std::int64_t> kept = trainer_.validation_rows();
  // A network that takes any sigma is looked at in 20 levels over its range.
  const NoiseLevels levels =
      net_.levels() != nullptr ? *net_.levels() : NoiseLevels::geometric(net_.sigma_max(), net_.sigma_min(), 20);
  const Index rows = static_cast<Index>(kept.size()), total = rows * levels.size() * draws_for(rows);
  double sum = 0;
  for (Index first = 0; first < total; first += kChunk) {
    const Index n = std::min(kChunk, total - first);
    fill(first, n, kept, levels);
    losses_.resize(static_cast<std::size_t>(n));
    sum += engine_->loss(trainer_.ema_parameters(), batch_, losses_) * static_cast<double>(n);
  }
  return sum / static_cast<double>(total);
}

// Entry i is row i mod rows at level (i / rows) mod L.
void Validation::fill(Index first, Index n, std::span<const std::int64_t> kept, const NoiseLevels& levels) {
  const Index dim = data_.rows.cols(), covariates = net_.covariate_dim();
  if (batch_.x.rows() != n) {
    batch_ = Batch();
    batch_.x = Matrix(n, dim);
    batch_.eps = Matrix(n, dim);
    batch_.sigma = Buffer<float>(n);
    if (net_.levels() != nullptr) batch_.level = Buffer<std::int32_t>(n);
    if (net_.num_classes() > 0) batch_.labels = Buffer<std::int32_t>(n);
    if (covariates > 0) batch_.covariates = Matrix(n, covariates);
  }
  rng_.normals<float>(Purpose::perturb, 0, static_cast<std::uint64_t>(first), batch_.eps);
  for (Index b = 0; b < n; ++b) {
    const Index row = kept[static_cast<std::size_t>((first + b) % static_cast<Index>(kept.size()))];
    const Index level = (first + b) / static_cast<Index>(kept.size()) % levels.size();
    batch_.sigma[b] = static_cast<float>(levels[level]);
    if (net_.levels() != nullptr) batch_.level[b] = static_cast<std::int32_t>(level);
    if (net_.num_classes() > 0) batch_.labels[b] = data_.labels[static_cast<std::size_t>(row)];
    if (covariates > 0) std::copy_n(data_.covariates.row(row).data(), covariates, batch_.covariates.row(b).data());
    for (Index c = 0; c < dim; ++c) batch_.x(b, c) = data_.rows(row, c) + batch_.sigma[b] * batch_.eps(b, c);
  }
  draw_directions(objective_, rng_, {.first_row = static_cast<std::uint64_t>(first)}, batch_);
}

// ---- The losses over the run

void History::add(const TrainingStep& s) {
  const double valid = s.has_valid_loss ? s.valid_loss : std::numeric_limits<double>::quiet_NaN();
  for (const double value :
       {static_cast<double>(s.step), s.epoch, s.loss, s.smoothed_loss, valid, s.learning_rate, s.gradient_norm, s.seconds}) {
    values_.push_back(value);
  }
}

void History::write(const std::string& path) const {
  if (path.empty()) return;
  const std::vector<std::string> names = {"step",       "epoch",         "loss",          "smoothed_loss",
                                          "valid_loss", "learning_rate", "gradient_norm", "seconds"};
  const Index cols = static_cast<Index>(names.size());
  write_csv(output_path(path), names, ConstRows<double>(values_.data(), static_cast<Index>(values_.size()) / cols, cols));
}

}  // namespace tweedie::cli
