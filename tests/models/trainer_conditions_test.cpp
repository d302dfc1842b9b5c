// Training with labels and covariates, with distributions of sigma, and of networks that have no levels.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tweedie/autodiff/ops.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/score_network.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

constexpr Index kClasses = 3;

// D = 1: u = x w + e[label or, where the condition is dropped, the last] + c covariate, with u_v if asked for. Records its rows.
class Conditional final : public Network {
 public:
  Conditional(double sigma_min, double sigma_max, bool conditional = true, bool with_variance = false)
      : Network(layout_of()), low_(sigma_min), high_(sigma_max), conditional_(conditional), with_variance_(with_variance) {}
  Index dim() const override { return 1; }
  double sigma_min() const override { return low_; }
  double sigma_max() const override { return high_; }
  Index num_classes() const override { return conditional_ ? kClasses : 0; }
  Index covariate_dim() const override { return conditional_ ? 1 : 0; }
  void score(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const override { fail("not used"); }
  void score(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const override { fail("not used"); }
  const char* name() const override { return "conditional"; }
  void parameters_changed() override {}
  void initialise(Rng) override {}
  Var scaled_score(Tape& tape, std::span<const Var> p, Var x, const NoiseInput<float>& noise) const override {
    sigma.assign(noise.sigma.begin(), noise.sigma.end());
    if (!conditional_) return x * p[0];
    REQUIRE(noise.labels.size() == static_cast<std::size_t>(x.rows()));
    REQUIRE(noise.covariates.rows() == x.rows());
    REQUIRE((noise.dropped.empty() || noise.dropped.size() == noise.labels.size()));
    dropped.assign(noise.dropped.begin(), noise.dropped.end());
    rows.clear();
    entries_.clear();
    for (Index b = 0; b < x.rows(); ++b) {
      const auto i = static_cast<std::size_t>(b);
      rows.push_back({x.value()(b, 0), noise.labels[i], noise.covariates(b, 0)});
      entries_.push_back(!noise.dropped.empty() && noise.dropped[i] != 0 ? static_cast<std::int32_t>(kClasses) : noise.labels[i]);
    }
    return x * p[0] + gather_rows(p[1], entries_) + tape.constant_view(noise.covariates) * p[2];
  }
  VarD scaled_score(TapeD&, std::span<const VarD> p, VarD x, const NoiseInput<double>&) const override { return x * p[0]; }
  Var log_variance(Tape&, std::span<const Var> p, const NoiseInput<float>& noise) const override {
    return with_variance_ ? broadcast_to(p[3], static_cast<Index>(noise.sigma.size()), 1) : Var{};
  }
  Strings config() const override { return {{"network", "conditional"}}; }
  std::unique_ptr<Network> clone() const override { return std::make_unique<Conditional>(low_, high_, conditional_); }

  struct Row {
    float x;
    std::int32_t label;
    float covariate;
  };
  mutable std::vector<Row> rows;  // of the last call
  mutable std::vector<std::int32_t> dropped;
  mutable std::vector<float> sigma;

 private:
  static ParameterLayout layout_of() {
    ParameterLayout layout;
    layout.add("w", {1});
    layout.add("e", {kClasses + 1, 1});
    layout.add("c", {1});
    layout.add("log_variance", {1});
    return layout;
  }
  double low_, high_;
  bool conditional_, with_variance_;
  mutable std::vector<std::int32_t> entries_;
};

// Row r: value r, label r mod 3, covariate 2 r.
struct Table {
  explicit Table(Index n) : rows(n, 1), covariates(n, 1) {
    for (Index r = 0; r < n; ++r) {
      rows(r, 0) = static_cast<float>(r);
      covariates(r, 0) = static_cast<float>(2 * r);
      labels.push_back(static_cast<std::int32_t>(r % kClasses));
    }
  }
  TrainingData data() const { return {.rows = rows, .labels = labels, .covariates = covariates}; }
  Matrix rows, covariates;
  std::vector<std::int32_t> labels;
};

bool own_conditions(const std::vector<Conditional::Row>& rows) {
  for (const Conditional::Row& row : rows) {
    const auto r = static_cast<std::int32_t>(std::lround(row.x));
    if (row.label != r % kClasses || row.covariate != static_cast<float>(2 * r)) return false;
  }
  return true;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct File {
  explicit File(const char* name) : path((std::filesystem::temp_directory_path() / name).string()) {
    std::filesystem::remove(path);
  }
  ~File() { std::filesystem::remove(path); }
  std::string path;
};

FreshRows zeros() {
  return [](std::uint64_t, Rows<float> out) { std::fill_n(out.data(), out.size(), 0.F); };
}

}  // namespace

TEST_CASE("labels and covariates go with their rows, in training and in validation") {
  const Table table(50);
  Conditional net(1e-6, 1e-6);
  Trainer trainer(net, table.data(), {.epochs = 3, .batch = 16, .learning_rate = 1e-12, .valid_fraction = .3}, Rng{4});
  while (!trainer.done()) {
    trainer.step();
    REQUIRE(net.rows.size() == 16);
    CHECK(own_conditions(net.rows));
    CHECK(net.dropped.empty());
  }
  REQUIRE(trainer.validation_rows().size() == 15);
  trainer.report();
  REQUIRE(net.rows.size() == 15);
  CHECK(own_conditions(net.rows));
  for (std::size_t i = 0; i < 15; ++i) CHECK(std::lround(net.rows[i].x) == trainer.validation_rows()[i]);
}

TEST_CASE("condition dropout: its rate, by step and row alone, and none in validation") {
  const Table table(64);
  const auto drops = [&](Index batch, int steps) {
    Conditional net(1e-6, 1e-6);
    Trainer trainer(net, table.data(),
                    {.steps = 500, .batch = batch, .learning_rate = 1e-12, .condition_dropout = .2, .valid_fraction = .25},
                    Rng{4});
    std::vector<std::vector<std::int32_t>> all;
    for (int i = 0; i < steps; ++i) {
      trainer.step();
      CHECK(own_conditions(net.rows));
      all.push_back(net.dropped);
    }
    trainer.report();
    CHECK(net.dropped.empty());
    return all;
  };
  const auto wide = drops(32, 500), narrow = drops(8, 20);
  double count = 0;
  for (const auto& step : wide) {
    for (const std::int32_t d : step) count += d;
  }
  const double n = 500 * 32;
  CHECK(std::abs(count - .2 * n) < 5 * std::sqrt(.2 * .8 * n));  // two-sided normal: 6e-7
  for (std::size_t i = 0; i < narrow.size(); ++i) CHECK(std::equal(narrow[i].begin(), narrow[i].end(), wide[i].begin()));
  CHECK(wide[0] != wide[1]);
}

TEST_CASE("a conditional network learns what its conditions say") {
  // x0 is m_label + .5 covariate without spread, so u = -(x - x0) / sigma has loss 0: w = -2, e = 2 m, c = 1 at sigma = .5.
  const float means[] = {-1, .5F, 2};
  Table table(60);
  for (Index r = 0; r < 60; ++r) {
    table.covariates(r, 0) = static_cast<float>(r % 7) / 3 - 1;
    table.rows(r, 0) = means[r % kClasses] + .5F * table.covariates(r, 0);
  }
  Conditional net(.5, .5);
  const TrainingStep last =
      train(net, table.data(),
            {.steps = 2000, .batch = 64, .learning_rate = .05, .schedule = {.kind = LearningRate::cosine}, .ema = .9}, Rng{2});
  CHECK(last.smoothed_loss < 1e-4);
  const auto p = net.parameters();
  CHECK(std::abs(p[0] + 2) < .02F);
  for (std::size_t k = 0; k < 3; ++k) CHECK(std::abs(p[1 + k] - 2 * means[k]) < .02F);
  CHECK(p[4] == 0);  // the entry for dropped rows was never asked for
  CHECK(std::abs(p[5] - 1) < .02F);
}

TEST_CASE("conditional training cut and resumed is the uninterrupted run, bit for bit; another condition is refused") {
  const File file("tweedie_conditions_resume.safetensors");
  Table table(40);
  for (Index r = 0; r < 40; ++r) table.rows(r, 0) /= 40, table.covariates(r, 0) /= 80;
  const TrainOptions options{
      .objective = FlowMatching{}, .steps = 30, .batch = 12, .condition_dropout = .3, .valid_fraction = .2};
  Conditional whole(.01, 5), first(.01, 5), second(.01, 5);
  Trainer uninterrupted(whole, table.data(), options, Rng{8});
  uninterrupted.run();
  Trainer part(first, table.data(), options, Rng{8});
  for (int i = 0; i < 13; ++i) part.step();
  part.save(file.path);
  Trainer rest(second, table.data(), options, Rng{99});
  rest.resume(file.path);
  rest.run();
  CHECK(std::equal(whole.parameters().begin(), whole.parameters().end(), second.parameters().begin()));
  CHECK(uninterrupted.report().valid_loss == rest.report().valid_loss);
  CHECK(read_checkpoint(file.path).metadata.at("train.sigma_sampling") == "flow");

  TrainOptions other = options;
  other.condition_dropout = .1;
  Conditional net(.01, 5);
  CHECK(contains(message_of([&] { Trainer(net, table.data(), other, Rng{8}).resume(file.path); }), "dropout 0.1"));
  table.labels[5] = 0;
  CHECK(contains(message_of([&] { Trainer(net, table.data(), options, Rng{8}).resume(file.path); }), "labels crc32c"));
}

TEST_CASE("conditions that are missing, superfluous or wrong are refused") {
  Table table(10);
  Conditional net(.1, 1), plain(.1, 1, false);
  const auto with = [&](Network& network, const TrainingData& data, const TrainOptions& options = {.steps = 1}) {
    return message_of([&] { Trainer(network, data, options, Rng{1}); });
  };
  CHECK(with(net, table.data()).empty());
  CHECK(contains(with(net, {.rows = table.rows}), "0 labels for 10 rows"));
  CHECK(contains(with(net, {.rows = table.rows, .labels = table.labels}), "the covariates are"));
  CHECK(contains(with(net, {.rows = table.rows, .labels = std::span(table.labels).first(9), .covariates = table.covariates}),
                 "9 labels for 10 rows"));
  const Matrix wide(10, 2);
  CHECK(contains(with(net, {.rows = table.rows, .labels = table.labels, .covariates = wide}), "expected (10, 1)"));
  CHECK(contains(with(plain, {.rows = table.rows, .labels = table.labels}), "the network takes none"));
  CHECK(contains(with(plain, {.rows = table.rows, .covariates = table.covariates}), "the network takes none"));
  CHECK(contains(with(plain, {.rows = table.rows}, {.steps = 1, .condition_dropout = .1}), "takes no condition"));
  CHECK(contains(with(net, table.data(), {.steps = 1, .condition_dropout = 1.5}), "condition_dropout is 1.5"));
  CHECK(contains(message_of([&] { Trainer(net, zeros(), {.steps = 1}, Rng{1}); }), "fresh draws carry no labels"));
  table.labels[4] = 3;
  CHECK(contains(with(net, table.data()), "the label of row 4 is 3"));
  table.labels[4] = -1;
  CHECK(contains(with(net, table.data()), "the label of row 4 is -1"));
  table.labels[4] = 1;
  table.covariates(7, 0) = std::numeric_limits<float>::infinity();
  CHECK(contains(with(net, table.data()), "row 7, column 0 of the covariates"));
}

TEST_CASE("a network without levels trains on what goes with the objective, or on what is asked for") {
  const auto sampling = [](Network& net, const TrainOptions& given) {
    const File file("tweedie_conditions_sampling.safetensors");
    TrainOptions options = given;
    options.steps = 1;
    options.batch = 4;
    Trainer trainer(net, zeros(), options, Rng{3});
    trainer.save(file.path);
    return read_checkpoint(file.path).metadata.at("train.sigma_sampling");
  };
  Conditional net(.01, 20, false);
  CHECK(sampling(net, {}) == "continuous");
  CHECK(sampling(net, {.objective = FlowMatching{}}) == "flow");
  CHECK(sampling(net, {.objective = Denoising{.weighting = Weighting::edm}}) == "lognormal(-1.2, 1.2)");
  CHECK(sampling(net, {.objective = Denoising{.weighting = Weighting::likelihood, .process = vp()}}) == "process(vp, 0.1, 20)");
  CHECK(sampling(net, {.sigma_sampling = SigmaSampling::lognormal(-.4, 1)}) == "lognormal(-0.4, 1)");
  ScoreNetwork chapter({.data_dim = 1, .hidden_dim = 4}, Rng{1});
  CHECK(sampling(chapter, {}) == "levels");
  CHECK_THROWS_AS(Trainer(net, zeros(), {.steps = 1, .sigma_sampling = SigmaSampling::process(ve(30, 40))}, Rng{1}), UsageError);
}

TEST_CASE("reports of networks without levels have eight bins of ln sigma, the largest first") {
  const auto bins = [](const SigmaSampling& sampling) {
    Conditional net(.01, 1, false);
    Trainer trainer(net, zeros(), {.steps = 20, .batch = 64, .sigma_sampling = sampling}, Rng{3});
    while (!trainer.done()) trainer.step();
    std::string seen;
    for (const double loss : trainer.report().level_losses) seen += std::isnan(loss) ? '-' : 'x';
    return seen;
  };
  CHECK(bins(SigmaSampling::continuous) == "xxxxxxxx");
  CHECK(bins(SigmaSampling::lognormal(-.01, .005)) == "x-------");
  CHECK(bins(SigmaSampling::lognormal(std::log(.0101), .005)) == "-------x");
  CHECK(bins(SigmaSampling::lognormal(std::log(.1) + .05, .01)) == "---x----");
  ScoreNetwork chapter({.data_dim = 1, .hidden_dim = 4}, Rng{1});
  Trainer trainer(chapter, zeros(), {.steps = 2, .batch = 8, .sigma_sampling = SigmaSampling::continuous}, Rng{3});
  while (!trainer.done()) trainer.step();
  CHECK(trainer.report().level_losses.empty());
}

TEST_CASE("large weights and negative losses are no divergence, growth is") {
  Conditional wide(.002, 80, false);
  Trainer flow(wide, zeros(), {.objective = FlowMatching{}, .steps = 200, .batch = 4, .max_loss_growth = 5}, Rng{3});
  CHECK_NOTHROW(flow.run());

  // u = -x / sigma is exact on zeros: the error goes to 0, the log-variance and with it the loss below 0.
  Conditional learned(.5, .5, false, true);
  Trainer trainer(learned, zeros(), {.steps = 800, .batch = 64, .learning_rate = .02, .max_loss_growth = 2}, Rng{3});
  CHECK_NOTHROW(trainer.run());
  CHECK(trainer.report().smoothed_loss < -.5);
  CHECK(std::abs(learned.parameters()[0] + 2) < .1F);

  Conditional diverging(.5, 5, false);
  Trainer growth(
      diverging, zeros(),
      {.objective = Denoising{.weighting = Weighting::v}, .steps = 2000, .batch = 64, .learning_rate = 10, .max_loss_growth = 5},
      Rng{3});
  CHECK_THROWS_AS(growth.run(), DivergedError);
}
