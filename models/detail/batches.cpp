// SPDX-License-Identifier: MIT
#include "tweedie/models/detail/batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace tweedie::detail {

namespace {

void check_rows(const char* what, ConstRows<float> data) {
  for (Index r = 0; r < data.rows(); ++r) {
    for (Index c = 0; c < data.cols(); ++c) {
      check<DataError>(std::isfinite(data(r, c)), "train: row ", r, ", column ", c, " of the ", what, " is not finite (",
                       data(r, c), "); drop the row or fill the cell");
    }
  }
}

void check_data(const Network& net, const TrainingData& data) {
  const Index rows = data.rows.rows(), classes = net.num_classes(), width = net.covariate_dim();
  check<DataError>(rows >= 1, "train: the data has no rows");
  check<DataError>(data.rows.cols() == net.dim(), "train: the data is ", shape(data.rows), ", the network expects ", net.dim(),
                   " columns");
  check_rows("data", data.rows);

  const auto labels = static_cast<Index>(data.labels.size());
  check<DataError>(classes > 0 || labels == 0, "train: ", labels, " labels are given and the network takes none; leave them out");
  check<DataError>(classes == 0 || labels == rows, "train: ", labels, " labels for ", rows, " rows; the network has ", classes,
                   " classes: give TrainingData with a label for each row");
  for (Index r = 0; r < labels; ++r) {
    const std::int32_t label = data.labels[static_cast<std::size_t>(r)];
    check<DataError>(label >= 0 && label < classes, "train: the label of row ", r, " is ", label,
                     "; the network's run from 0 to ", classes - 1);
  }
  const bool covariates = data.covariates.rows() > 0 || data.covariates.cols() > 0;
  check<DataError>(width > 0 || !covariates, "train: covariates ", shape(data.covariates),
                   " are given and the network takes none; leave them out");
  check<DataError>(width == 0 || (data.covariates.rows() == rows && data.covariates.cols() == width),
                   "train: the covariates are ", shape(data.covariates), ", expected (", rows, ", ", width,
                   "): give TrainingData with covariates for each row");
  check_rows("covariates", data.covariates);
}

}  // namespace

Batches::Batches(const Network& net, const TrainingData& data, FreshRows draw, const TrainOptions& options,
                 const SigmaSampling& sampling, const NoiseLevels& levels, const Rng& rng)
    : net_(net),
      data_(data),
      draw_(std::move(draw)),
      options_(options),
      sampling_(sampling),
      levels_(levels),
      streams_(rng),
      rows_(draw_ ? 0 : options.batch),
      clean_(options.batch, net.dim()) {
  if (!fresh()) split_table();
  if (options.condition_dropout > 0) batch_.dropped = Buffer<std::int32_t>(options.batch);
}

void Batches::restart(const Rng& rng) {
  streams_ = Streams(rng);
  order_.reset();
  if (fresh()) return;
  valid_rows_.clear();
  split_.reset();
  split_table();
}

void Batches::split_table() {
  check_data(net_, data_);
  const Index rows = data_.rows.rows();
  if (options_.valid_fraction > 0) {
    const auto count = static_cast<Index>(std::llround(options_.valid_fraction * static_cast<double>(rows)));
    check<DataError>(count >= 1 && count < rows, "train: valid_fraction ", options_.valid_fraction, " of ", rows, " rows keeps ",
                     count, " apart; at least one row must stay on either side");
    split_.emplace(streams_.valid, 0, static_cast<std::uint64_t>(rows));
    for (Index i = 0; i < count; ++i) valid_rows_.push_back(static_cast<std::int64_t>((*split_)(static_cast<std::uint64_t>(i))));
    std::sort(valid_rows_.begin(), valid_rows_.end());
  }
}

// rows[b] = the row at place first + b of the endless sequence [epoch 0 | epoch 1 | ...].
void Batches::table_rows(std::uint64_t first, std::span<std::uint64_t> rows) {
  const auto n = static_cast<std::uint64_t>(train_count());
  for (std::size_t b = 0; b < rows.size();) {
    const std::uint64_t epoch = (first + b) / n, place = (first + b) % n;
    if (!order_ || epoch != order_epoch_) {
      check(epoch < std::uint64_t{1} << 32, "train: epoch ", epoch, "; the random streams hold 2^32");
      order_.emplace(streams_.order, static_cast<std::uint32_t>(epoch), n);
      order_epoch_ = epoch;
    }
    const std::span<std::uint64_t> part = rows.subspan(b, std::min<std::size_t>(rows.size() - b, n - place));
    std::iota(part.begin(), part.end(), place);
    order_->apply(part);
    b += part.size();
  }
  if (!split_) return;
  for (std::uint64_t& row : rows) row += valid_rows_.size();
  split_->apply(rows);
}

// A row of the table with its condition into row b of the clean rows and of a batch whose condition buffers have their size.
void Batches::take_row(Index row, Index b, Matrix& rows, Batch& into) const {
  const auto values = data_.rows.row(row);
  std::copy(values.begin(), values.end(), rows.row(b).begin());
  if (!data_.labels.empty()) into.labels[b] = data_.labels[static_cast<std::size_t>(row)];
  if (data_.covariates.rows() > 0) {
    const auto covariates = data_.covariates.row(row);
    std::copy(covariates.begin(), covariates.end(), into.covariates.row(b).begin());
  }
}

void Batches::size_conditions(Index rows, Batch& into) const {
  if (net_.num_classes() > 0 && into.labels.size() != rows) into.labels = Buffer<std::int32_t>(rows);
  if (net_.covariate_dim() > 0 && into.covariates.rows() != rows) into.covariates = Matrix(rows, net_.covariate_dim());
}

const Batch& Batches::draw(std::int64_t step) {
  const std::uint64_t first = static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(options_.batch);
  if (fresh()) {
    draw_(first, clean_.view());
  } else {
    size_conditions(options_.batch, batch_);
    table_rows(first, rows_.span());
    for (Index b = 0; b < options_.batch; ++b) take_row(static_cast<Index>(rows_[b]), b, clean_, batch_);
  }
  const PerturbOptions draws{.sampling = sampling_, .step = static_cast<std::uint32_t>(step)};
  perturb<float>(clean_, levels_, streams_.noise, draws, batch_);
  draw_directions(options_.objective, streams_.noise, draws, batch_);
  for (Index b = 0; b < batch_.dropped.size(); ++b) {
    const double u = streams_.noise.uniform(Purpose::dropout, draws.step, static_cast<std::uint64_t>(b));
    batch_.dropped[b] = u <= options_.condition_dropout ? 1 : 0;
  }
  return batch_;
}

// In blocks: an engine packs the weights for each of them. A row's loss does not depend on them.
double Batches::validation_loss(TrainingEngine& engine, std::span<const float> weights) const {
  const auto count = static_cast<Index>(valid_rows_.size()), size = std::max<Index>(options_.batch, 1024);
  double sum = 0;
  Batch block;
  for (Index first = 0; first < count; first += size) {
    Matrix rows(std::min(size, count - first), data_.rows.cols());
    size_conditions(rows.rows(), block);
    for (Index b = 0; b < rows.rows(); ++b) take_row(valid_rows_[static_cast<std::size_t>(first + b)], b, rows, block);
    const PerturbOptions draws{.sampling = sampling_, .first_row = static_cast<std::uint64_t>(first)};
    perturb<float>(rows, levels_, streams_.valid_noise, draws, block);
    draw_directions(options_.objective, streams_.valid_noise, draws, block);
    Buffer<float> losses(rows.rows());
    engine.loss(weights, block, losses.span());
    for (const float loss : losses) sum += static_cast<double>(loss);
  }
  return sum / static_cast<double>(count);
}

}  // namespace tweedie::detail
