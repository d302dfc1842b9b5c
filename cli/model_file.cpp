// SPDX-License-Identifier: MIT
#include "tweedie/cli/model_file.h"

#include "tweedie/cli/sampling.h"
#include "tweedie/cli/tables.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/device_score.h"

namespace tweedie::cli {

namespace {

constexpr Index kContinuousLevels = 30;  // where a network that takes any sigma is looked at, and annealed Langevin's ladder

}  // namespace

ModelFile load_model(const std::string& path, bool raw_weights) {
  ModelFile model{.path = path,
                  .checkpoint = read_checkpoint(path),
                  .network = nullptr,
                  .levels = nullptr,
                  .code = {},
                  .conditions = {},
                  .on_device = nullptr,
                  .weights = {}};
  try {
    model.network = make_network(model.checkpoint, raw_weights ? Weights::raw : Weights::ema_if_stored);
    model.code = TableCode::load(model.checkpoint, model.network->dim());
    model.conditions = ConditionCode::load(model.checkpoint, *model.network);
    model.levels = std::make_unique<NoiseLevels>(
        model.network->levels() != nullptr
            ? *model.network->levels()
            : NoiseLevels::geometric(model.network->sigma_max(), model.network->sigma_min(), kContinuousLevels));
  } catch (const ModelFileError& error) {
    fail<ModelFileError>(path, ": ", error.what());
  }
  const Checkpoint& file = model.checkpoint;
  const auto width = file.metadata.find("ema.sigma_rel");
  if (width != file.metadata.end()) {  // `tweedie ema` wrote these weights alone
    model.weights = join("averaged (sigma_rel ", width->second, ")");
    return model;
  }
  model.weights = raw_weights ? "raw" : file.has_prefix("best.") ? "best" : file.has_prefix("ema.") ? "averaged" : "raw";
  return model;
}

void place(ModelFile& model, const Common& common) {
  const std::string device = find_device(common);
  std::string why;
  if (device != "cpu") {
    try {
      model.on_device = on_device(*model.network, device, kernels::precision_named(common.precision));
    } catch (const UsageError& error) {
      if (common.device != "auto") throw;
      why = error.what();
    }
  }
  if (!model.on_device) use_precision(common, *model.network);
  note_device(common, model.on_device ? device : "cpu", why);
}

namespace {
void need_affine(const TableCode& code, const std::string& what) {
  check(code.affine(), what,
        " needs columns that are only moved and stretched, and this model's are normal scores (--scaling quantile); ",
        "train it with --scaling standardise, or compare samples (tweedie sample, tweedie eval)");
}
}  // namespace

std::unique_ptr<ScoreModel> unscaled_score(const TableCode& code, const ScoreModel& scaled_score) {
  need_affine(code, "the score in the data's units");
  const ScoreModel* score = &scaled_score;
  const std::vector<ColumnCode> columns = code.columns();
  const auto unscaled = [score, columns](ConstRows<double> y, std::span<const double> sigma, Rows<double> out) {
    MatrixD scaled(y);
    for (Index r = 0; r < y.rows(); ++r) {
      for (Index c = 0; c < y.cols(); ++c) scaled(r, c) = columns[static_cast<std::size_t>(c)].scaled(y(r, c));
    }
    score->score(scaled, sigma, nullptr, out);
    for (Index r = 0; r < y.rows(); ++r) {
      for (Index c = 0; c < y.cols(); ++c) out(r, c) /= columns[static_cast<std::size_t>(c)].std;
    }
  };
  return std::make_unique<FunctionScore>(score->dim(), unscaled);
}

std::vector<std::string> oracle_names() {
  std::vector<std::string> names;
  for (const std::string& name : datasets::names()) {
    if (datasets::oracle(name)) names.push_back(name);
  }
  return names;
}

GaussianMixture find_oracle(const std::string& name) {
  const std::vector<std::string> names = oracle_names();
  const std::string plain = builtin_name(name).empty() ? name : builtin_name(name);
  for (const std::string& known : names) {
    if (known == plain) return *datasets::oracle(plain);
  }
  fail(unknown("oracle", plain, names));
}

GaussianMixture scaled_oracle(const std::string& name, const ModelFile& model) {
  const TableCode& code = model.code;
  const GaussianMixture exact = find_oracle(name);
  check(model.conditions.empty(), "--oracle ", name, " is the law of all rows, and ", model.path,
        " has the score of rows under a condition; leave --oracle out, or train without --class and --target");
  need_affine(code, join("--oracle ", name));
  check(exact.dim() == code.dim(), "--oracle ", name, " has ", exact.dim(), " dimensions, the model ", code.dim());
  MatrixD means(exact.means());
  std::vector<MatrixD> covariances;
  for (Index k = 0; k < exact.components(); ++k) {
    MatrixD covariance(exact.covariance(k));
    for (Index i = 0; i < exact.dim(); ++i) {
      const ColumnCode& row = code.columns()[static_cast<std::size_t>(i)];
      means(k, i) = (means(k, i) - row.mean) / row.std;
      for (Index j = 0; j < exact.dim(); ++j) {
        covariance(i, j) /= row.std * code.columns()[static_cast<std::size_t>(j)].std;
      }
    }
    covariances.push_back(std::move(covariance));
  }
  return GaussianMixture({exact.weights().begin(), exact.weights().end()}, std::move(means), std::move(covariances));
}

}  // namespace tweedie::cli
