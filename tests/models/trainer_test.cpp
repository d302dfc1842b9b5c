// SPDX-License-Identifier: MIT
#include "tweedie/models/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/kernels.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

// A folder of its own for every test, removed at the end.
class Folder {
 public:
  explicit Folder(const char* name) : path_(std::filesystem::temp_directory_path() / (std::string("tweedie_trainer_") + name)) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}

ScoreNetwork small_network(std::uint64_t seed = 3) { return ScoreNetwork({.data_dim = 2, .hidden_dim = 16}, Rng{seed}); }

std::vector<float> weights_of(const Network& net) { return {net.parameters().begin(), net.parameters().end()}; }

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// u = sigma s = x w: a network of D parameters that remembers which rows it was given. With tiny noise, x is the data.
class Recorder final : public Network {
 public:
  explicit Recorder(Index dim, double sigma_min = 1e-6, double sigma_max = 1e-6)
      : Network(layout_of(dim)), dim_(dim), low_(sigma_min), high_(sigma_max) {}
  Index dim() const override { return dim_; }
  double sigma_min() const override { return low_; }
  double sigma_max() const override { return high_; }
  void score(ConstRows<float>, std::span<const float>, const Condition*, Rows<float>) const override { fail("not used"); }
  void score(ConstRows<double>, std::span<const double>, const Condition*, Rows<double>) const override { fail("not used"); }
  const char* name() const override { return "recorder"; }
  void parameters_changed() override {}
  void initialise(Rng) override {}
  const NoiseLevels* levels() const override { return low_ == high_ ? &one_level_ : nullptr; }
  Var scaled_score(Tape&, std::span<const Var> parameters, Var x, const NoiseInput<float>&) const override {
    for (Index r = 0; r < x.rows(); ++r) seen.push_back(static_cast<Index>(std::lround(x.value()(r, 0))));
    return x * parameters[0];
  }
  VarD scaled_score(TapeD&, std::span<const VarD> parameters, VarD x, const NoiseInput<double>&) const override {
    return x * parameters[0];
  }
  Strings config() const override { return {{"network", "recorder"}}; }
  std::unique_ptr<Network> clone() const override { return std::make_unique<Recorder>(dim_, low_, high_); }

  mutable std::vector<Index> seen;

 private:
  static ParameterLayout layout_of(Index dim) {
    ParameterLayout layout;
    layout.add("w", {dim});
    return layout;
  }
  Index dim_;
  double low_, high_;
  NoiseLevels one_level_{{low_}};
};

Matrix numbered_rows(Index n) {
  Matrix data(n, 1);
  for (Index i = 0; i < n; ++i) data(i, 0) = static_cast<float>(i);
  return data;
}

FreshRows mixture_draws(Index batch) {
  return [mixture = GaussianMixture::three_gaussians(), batch](std::uint64_t first_row, Rows<float> out) {
    Rng stream(77, first_row / static_cast<std::uint64_t>(batch));
    const Matrix rows = mixture.sample(out.rows(), stream.split());
    for (Index r = 0; r < out.rows(); ++r) std::copy(rows.row(r).begin(), rows.row(r).end(), out.row(r).begin());
  };
}

}  // namespace

// ---- Rows, epochs, validation

TEST_CASE("an epoch holds each row once, batches are full and follow one another across epochs") {
  const Index n = 100;
  const Matrix data = numbered_rows(n);
  Recorder net(1);
  Trainer trainer(net, data, {.epochs = 3, .batch = 32, .learning_rate = 1e-12}, Rng{1});
  CHECK(trainer.total_steps() == 10);  // ceil(300 / 32)
  CHECK(trainer.run());
  REQUIRE(net.seen.size() == 320);
  std::vector<std::vector<Index>> orders;
  for (Index epoch = 0; epoch < 3; ++epoch) {
    const auto begin = net.seen.begin() + epoch * n;
    orders.emplace_back(begin, begin + n);
    CHECK(std::set<Index>(begin, begin + n).size() == static_cast<std::size_t>(n));
  }
  CHECK(orders[0] != orders[1]);
  CHECK(orders[1] != orders[2]);
  CHECK_FALSE(std::is_sorted(orders[0].begin(), orders[0].end()));
}

TEST_CASE("a batch larger than the table goes round it") {
  const Matrix data = numbered_rows(3);
  Recorder net(1);
  Trainer trainer(net, data, {.steps = 2, .batch = 6, .learning_rate = 1e-12}, Rng{1});
  trainer.run();
  for (const Index row : {0, 1, 2}) CHECK(std::count(net.seen.begin(), net.seen.end(), row) == 4);
}

TEST_CASE("steps, epochs and the default") {
  const Matrix data = numbered_rows(300);
  Recorder net(1);
  CHECK(Trainer(net, data, {.steps = 17}, Rng{1}).total_steps() == 17);
  CHECK(Trainer(net, data, {.epochs = 2, .batch = 100}, Rng{1}).total_steps() == 6);
  CHECK(Trainer(net, data, {}, Rng{1}).total_steps() == (100 * 300 + 127) / 128);
  CHECK_THROWS_AS(Trainer(net, data, {.steps = 1, .epochs = 1}, Rng{1}), UsageError);
}

TEST_CASE("validation rows are apart from the training rows, and together they are the table") {
  const Index n = 57;
  const Matrix data = numbered_rows(n);
  Recorder net(1);
  Trainer trainer(net, data, {.epochs = 2, .batch = 8, .learning_rate = 1e-12, .valid_fraction = .2}, Rng{9});
  const auto valid = trainer.validation_rows();
  CHECK(valid.size() == 11);
  CHECK(std::is_sorted(valid.begin(), valid.end()));
  while (!trainer.done()) trainer.step();
  const std::set<Index> trained(net.seen.begin(), net.seen.end());
  CHECK(trained.size() == 46);
  for (const std::int64_t row : valid) CHECK(trained.count(static_cast<Index>(row)) == 0);

  net.seen.clear();
  const TrainingStep report = trainer.report();
  CHECK(report.has_valid_loss);
  std::vector<Index> validated = net.seen;
  std::sort(validated.begin(), validated.end());
  CHECK(std::equal(validated.begin(), validated.end(), valid.begin(), valid.end()));
  CHECK(trainer.report().valid_loss == report.valid_loss);  // fixed noise

  Recorder other(1);
  Trainer elsewhere(other, data, {.epochs = 2, .batch = 8, .valid_fraction = .2}, Rng{10});
  CHECK_FALSE(std::equal(valid.begin(), valid.end(), elsewhere.validation_rows().begin(), elsewhere.validation_rows().end()));
}

TEST_CASE("the validation loss is the objective of the averaged weights on those rows") {
  const Matrix data = datasets::three_gaussians(200, Rng{42});
  ScoreNetwork net = small_network();
  const TrainOptions options{.steps = 50, .batch = 64, .ema = .9, .valid_fraction = .25};
  Trainer trainer(net, data, options, Rng{2});
  trainer.run();
  const double with_average = trainer.report().valid_loss;
  trainer.use_ema();
  ScoreNetwork raw = small_network();
  TrainOptions plain = options;
  plain.ema = 0;
  Trainer raw_trainer(raw, data, plain, Rng{2});
  raw_trainer.run();
  CHECK(with_average != raw_trainer.report().valid_loss);
  // The same numbers by hand, once the average stands in the raw network.
  std::copy(net.parameters().begin(), net.parameters().end(), raw.parameters().begin());
  raw.parameters_changed();
  CHECK(with_average == raw_trainer.report().valid_loss);
}

// ---- Bit for bit

namespace {

struct Case {
  const char* name;
  TrainOptions options;
  bool fresh = false;
};
std::vector<Case> cases() {
  return {
      {"plain", {.steps = 30, .batch = 48, .ema = 0}},
      {"everything",
       {.epochs = 6,
        .batch = 32,
        .schedule = {LearningRate::cosine, 5, .1},
        .adam = {.weight_decay = .01},
        .clip_norm = .5,
        .ema = .99,
        .ema_warmup = true,
        .valid_fraction = .1}},
      {"continuous, sliced", {.objective = Sliced{}, .steps = 25, .batch = 24, .sigma_sampling = SigmaSampling::continuous}},
      {"fresh draws", {.steps = 25, .batch = 32, .ema = .9}, true},
      {"averages for later", {.steps = 25, .batch = 32, .ema_snapshots = 4}},
  };
}
Trainer make_trainer(ScoreNetwork& net, const Case& c, const Matrix& data) {
  return c.fresh ? Trainer(net, mixture_draws(c.options.batch), c.options, Rng{5}) : Trainer(net, data, c.options, Rng{5});
}

}  // namespace

TEST_CASE("a run cut and resumed at random steps is the uninterrupted one, bit for bit") {
  const Folder folder("resume");
  const Matrix data = datasets::three_gaussians(150, Rng{42});
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    ScoreNetwork whole = small_network();
    Trainer uninterrupted = make_trainer(whole, c, data);
    REQUIRE(uninterrupted.run());
    const double valid = uninterrupted.report().valid_loss;
    uninterrupted.save(folder / "whole");

    for (std::uint32_t attempt = 0; attempt < 3; ++attempt) {
      const Rng random{attempt};
      std::int64_t done = 0;
      TrainingStep last;
      // Three pieces, each in a process's place of its own: another network object, another trainer.
      for (std::uint32_t piece = 0; piece < 3; ++piece) {
        // The later ones begin with other weights: the file's replace them.
        ScoreNetwork net = small_network(piece == 0 ? 3 : 1000 + piece);
        Trainer trainer = make_trainer(net, c, data);
        if (piece > 0) trainer.resume(folder / "part");
        CHECK(trainer.steps_done() == done);
        const std::int64_t left = trainer.total_steps() - done;
        const std::int64_t steps =
            piece == 2 ? left
                       : static_cast<std::int64_t>(random.integer(Purpose::user, piece, 0, static_cast<std::uint64_t>(left)));
        for (std::int64_t i = 0; i < steps; ++i) trainer.step();
        done += steps;
        trainer.save(folder / "part");
        last = trainer.report();
      }
      CHECK(bytes_of(folder / "part") == bytes_of(folder / "whole"));
      CHECK(last.smoothed_loss == uninterrupted.report().smoothed_loss);
      CHECK(last.valid_loss == valid);
    }
  }
}

TEST_CASE("1, 2 and 4 threads give the same checkpoint") {
  const Folder folder("threads");
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  for (const Index width : {16, 128}) {
    std::vector<std::string> files;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      ScoreNetwork net({.data_dim = 2, .hidden_dim = width}, Rng{3});
      Trainer trainer(net, data, {.steps = 12, .batch = 200, .clip_norm = 1, .ema = .99, .valid_fraction = .1}, Rng{5});
      trainer.run();
      trainer.save(folder / "net");
      files.push_back(bytes_of(folder / "net") + std::to_string(trainer.report().valid_loss));
    }
    CHECK(files[0] == files[1]);
    CHECK(files[0] == files[2]);
  }
  set_threads(0);
}

// ---- Checkpoints

TEST_CASE("a checkpoint holds raw and averaged weights, the engine and what the caller adds") {
  const Folder folder("checkpoint");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  TrainOptions options{.steps = 20, .batch = 32, .ema = .9, .checkpoint_path = folder / "net", .checkpoint_every = 8};
  options.annotate = [](Checkpoint& c) { c.metadata["columns.names"] = "x,y"; };
  Trainer trainer(net, data, options, Rng{5});
  std::vector<std::string> steps;
  for (int i = 0; i < 7; ++i) trainer.step();
  CHECK_FALSE(std::filesystem::exists(options.checkpoint_path));
  CHECK(trainer.run());
  const Checkpoint last = read_checkpoint(options.checkpoint_path);
  CHECK(last.step == 20);
  CHECK(last.metadata.at("engine") == trainer.engine());
  CHECK(last.metadata.at("columns.names") == "x,y");
  CHECK(last.metadata.at("train.objective") == "denoising");

  const std::vector<float> raw = weights_of(net);
  const std::vector<float> average(trainer.ema_parameters().begin(), trainer.ema_parameters().end());
  CHECK(raw != average);
  CHECK(weights_of(*make_network(last, Weights::raw)) == raw);
  CHECK(weights_of(*make_network(last, Weights::ema)) == average);

  trainer.use_ema();
  CHECK(weights_of(net) == average);
  const std::string before = bytes_of(options.checkpoint_path);
  trainer.save(options.checkpoint_path);  // still both
  CHECK(bytes_of(options.checkpoint_path) == before);
}

TEST_CASE("checkpoints come every so many steps") {
  const Folder folder("every");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  const std::string path = folder / "net";
  const TrainOptions options{.steps = 20, .batch = 32, .log_every = 1, .checkpoint_path = path, .checkpoint_every = 8};
  Trainer trainer(net, data, options, Rng{5});
  std::vector<std::int64_t> found;
  trainer.run([&](const TrainingStep&) { found.push_back(std::filesystem::exists(path) ? read_checkpoint(path).step : 0); });
  REQUIRE(found.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(found[i] == (i + 1 == 20 ? 20 : static_cast<std::int64_t>(i + 1) / 8 * 8));
}

TEST_CASE("train() leaves the averaged weights") {
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  const TrainOptions options{.steps = 20, .batch = 32, .ema = .9};
  ScoreNetwork net = small_network(), other = small_network();
  const TrainingStep last = train(net, data, options, Rng{5});
  CHECK(last.step == 20);
  Trainer trainer(other, data, options, Rng{5});
  trainer.run();
  CHECK(weights_of(net) == std::vector<float>(trainer.ema_parameters().begin(), trainer.ema_parameters().end()));
  CHECK(weights_of(net) != weights_of(other));
}

TEST_CASE("averages for later: copies at even steps, the recursion over the trained weights") {
  const Folder folder("post_hoc");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  Trainer trainer(net, data, {.steps = 30, .batch = 32, .ema_snapshots = 4}, Rng{5});
  PostHocEma expected(net.layout().size());
  for (int i = 0; i < 30; ++i) {
    trainer.step();
    expected.update(net.parameters());
  }
  REQUIRE(trainer.post_hoc_ema() != nullptr);
  const PostHocEma& ema = *trainer.post_hoc_ema();
  CHECK(ema.snapshots() == std::vector<std::int64_t>{8, 15, 23});
  for (std::size_t k = 0; k < 2; ++k)
    CHECK(std::equal(ema.average(k).begin(), ema.average(k).end(), expected.average(k).begin()));
  trainer.save(folder / "net");
  const Checkpoint file = read_checkpoint(folder / "net");
  CHECK(file.metadata.at("post_hoc.steps") == "8 15 23 30");
  CHECK(PostHocEma::load(file, net.layout()).reconstruct(.08).parameters == ema.reconstruct(.08).parameters);
  ScoreNetwork other = small_network();
  CHECK(Trainer(other, data, {.steps = 3}, Rng{5}).post_hoc_ema() == nullptr);
  CHECK_THROWS_AS(Trainer(other, data, {.steps = 3, .ema_snapshots = -1}, Rng{5}), UsageError);
}

TEST_CASE("the average of a short run is one of trained weights, by default") {
  // With decay .999 alone the start would keep .999^200 = 82% of the average.
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  const auto valid_loss = [&](bool warmup) {
    ScoreNetwork net = small_network();
    Trainer trainer(net, data, {.steps = 200, .learning_rate = 1e-2, .ema_warmup = warmup, .valid_fraction = .3}, Rng{5});
    trainer.run();
    return trainer.report().valid_loss;
  };
  CHECK(TrainOptions{}.ema_warmup);
  CHECK(valid_loss(true) < .9 * valid_loss(false));
}

TEST_CASE("resume refuses another run and names the difference") {
  const Folder folder("refuse");
  const Matrix data = datasets::three_gaussians(100, Rng{42}), other_data = datasets::three_gaussians(100, Rng{43});
  ScoreNetwork net = small_network();
  const TrainOptions options{.steps = 20, .batch = 32, .ema = .9};
  Trainer trainer(net, data, options, Rng{5});
  for (int i = 0; i < 10; ++i) trainer.step();
  trainer.save(folder / "net");
  save(folder / "weights", net);

  const auto refusal = [&](const TrainOptions& o, const Matrix& rows, const char* file = "net") {
    ScoreNetwork fresh = small_network(8);
    const std::vector<float> before = weights_of(fresh);
    Trainer t(fresh, rows, o, Rng{5});
    const std::string message = message_of([&] { t.resume(folder / file); });
    CHECK((message.empty() || weights_of(fresh) == before));
    return message;
  };
  CHECK(refusal(options, data).empty());
  TrainOptions changed = options;
  changed.batch = 16;
  CHECK(contains(refusal(changed, data), "batch is '16' here and '32' in"));
  changed = options;
  changed.learning_rate = 2e-3;
  CHECK(contains(refusal(changed, data), "learning_rate"));
  changed = options;
  changed.ema = 0;
  CHECK(contains(refusal(changed, data), "ema"));
  changed = options;
  changed.objective = Explicit{};
  CHECK(contains(refusal(changed, data), "objective is 'explicit' here and 'denoising' in"));
  changed = options;
  changed.steps = 5;
  CHECK(contains(refusal(changed, data), "is at step 10 of a run of 5 steps"));
  changed.steps = 40;  // a longer run is no other run
  CHECK(refusal(changed, data).empty());
  CHECK(contains(refusal(options, other_data), "data is '100 x 2"));
  changed = options;
  changed.ema_snapshots = 3;
  CHECK(contains(refusal(changed, data), "does not keep averages for later (ema_snapshots)"));
  CHECK(contains(refusal(options, data, "weights"), "no checkpoint of a training run"));

  ScoreNetwork wide({.data_dim = 2, .hidden_dim = 24}, Rng{3});
  Trainer t(wide, data, options, Rng{5});
  CHECK(contains(message_of([&] { t.resume(folder / "net"); }), "hidden_dim is '24' here and '16' in"));
  CHECK_THROWS_AS(t.resume(folder / "nothing"), IoError);
}

TEST_CASE("a checkpoint that cannot be written is an I/O error and the run goes on from where it was") {
  const Folder folder("io");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  Trainer trainer(net, data, {.steps = 20, .batch = 32}, Rng{5});
  trainer.step();
  CHECK_THROWS_AS(trainer.save(folder / "no/such/folder/net"), IoError);
  trainer.step();
  CHECK(trainer.steps_done() == 2);
}

// ---- Divergence and cancelling

TEST_CASE("a diverging run says at which step and level, and leaves the last checkpoint") {
  const Folder folder("diverge");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  const std::string path = folder / "net";
  ScoreNetwork net = small_network();
  const TrainOptions options{.steps = 200, .batch = 32, .learning_rate = 1e6, .checkpoint_path = path, .checkpoint_every = 1};
  Trainer trainer(net, data, options, Rng{5});
  std::string message;
  try {
    trainer.run();
  } catch (const DivergedError& e) {
    message = e.what();
    CHECK(e.exit_code() == 5);
  }
  CAPTURE(message);
  CHECK(contains(message, join("diverged at step ", trainer.steps_done(), ", level ")));
  CHECK(contains(message, "sigma "));
  CHECK(contains(message, "loss "));
  CHECK(contains(message, path));
  for (const float p : net.parameters()) CHECK(std::isfinite(p));
  CHECK(read_checkpoint(path).step == trainer.steps_done());
}

TEST_CASE("a loss that only grows is a divergence too, unless the limit is off") {
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  const TrainOptions options{.steps = 60, .batch = 32, .learning_rate = 5};
  ScoreNetwork net = small_network(), unlimited_net = small_network();
  Trainer trainer(net, data, options, Rng{5});
  const std::string message = message_of([&] { trainer.run(); });
  CHECK(contains(message, "max_loss_growth"));
  TrainOptions off = options;
  off.max_loss_growth = 0;
  off.steps = trainer.steps_done() + 1;
  CHECK(Trainer(unlimited_net, data, off, Rng{5}).run());
}

TEST_CASE("weights that are not finite are never written over a good checkpoint") {
  const Folder folder("nan");
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  Trainer trainer(net, data, {.steps = 20, .batch = 32}, Rng{5});
  trainer.step();
  trainer.save(folder / "net");
  const std::string good = bytes_of(folder / "net");
  net.parameters()[3] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(trainer.save(folder / "net"), DivergedError);
  CHECK(bytes_of(folder / "net") == good);
}

TEST_CASE("a callback's false and the cancel flag end the run after a whole step") {
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  std::atomic<bool> cancel{false};
  Trainer trainer(net, data, {.steps = 50, .batch = 32, .ema = 0, .log_every = 10, .cancel = &cancel}, Rng{5});
  std::vector<std::int64_t> reported;
  CHECK_FALSE(trainer.run([&](const TrainingStep& s) {
    reported.push_back(s.step);
    return s.step < 20;
  }));
  CHECK(trainer.steps_done() == 20);
  CHECK(reported == std::vector<std::int64_t>{10, 20});
  CHECK_FALSE(trainer.run([&](const TrainingStep&) { cancel = true; }));
  CHECK(trainer.steps_done() == 30);
  CHECK_FALSE(trainer.run());
  CHECK(trainer.steps_done() == 30);
  cancel = false;
  CHECK(trainer.run());
  CHECK(trainer.done());
  CHECK_THROWS_AS(trainer.step(), UsageError);

  ScoreNetwork whole = small_network();
  train(whole, data, {.steps = 50, .batch = 32, .ema = 0}, Rng{5});
  CHECK(weights_of(net) == weights_of(whole));  // stopping and going on changed nothing
}

// ---- Reports

TEST_CASE("what a report says") {
  const Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  Trainer trainer(net, data, {.steps = 40, .batch = 50, .learning_rate = 1e-2, .schedule = {.warmup_steps = 4}, .log_every = 7},
                  Rng{5});
  std::vector<double> losses;
  for (int i = 0; i < 3; ++i) losses.push_back(trainer.step());
  const TrainingStep r = trainer.report();
  CHECK(r.step == 3);
  CHECK(r.total_steps == 40);
  CHECK(r.epoch == 1.5);
  CHECK(r.loss == losses[2]);
  const double average = (.02 * (losses[2] + .98 * losses[1] + .98 * .98 * losses[0])) / (1 - .98 * .98 * .98);
  CHECK(r.smoothed_loss == doctest::Approx(average).epsilon(1e-12));
  CHECK(r.learning_rate == 1e-2 * .75);
  CHECK(r.gradient_norm > 0);
  CHECK_FALSE(r.has_valid_loss);
  CHECK(r.engine == join("fused, cpu ", kernels::name(kernels::target()), ", fp32"));
  REQUIRE(r.level_losses.size() == 10);
  for (const double loss : r.level_losses) CHECK((std::isnan(loss) || loss > 0));
  for (const double loss : trainer.report().level_losses) CHECK(std::isnan(loss));  // nothing since
  std::vector<std::int64_t> steps;
  trainer.run([&](const TrainingStep& s) { steps.push_back(s.step); });
  CHECK(steps == std::vector<std::int64_t>{7, 14, 21, 28, 35, 40});
}

// ---- What is refused

TEST_CASE("data and options that cannot be used are refused") {
  Matrix data = datasets::three_gaussians(100, Rng{42});
  ScoreNetwork net = small_network();
  const auto with = [&](const TrainOptions& o) { return message_of([&] { Trainer(net, data, o, Rng{1}); }); };
  CHECK(with({.steps = 1}).empty());
  CHECK(contains(with({.batch = 0}), "batch is 0"));
  CHECK(contains(with({.steps = -1}), "steps is -1"));
  CHECK(contains(with({.learning_rate = 0}), "learning_rate is 0"));
  CHECK(contains(with({.clip_norm = -1}), "clip_norm is -1"));
  CHECK(contains(with({.ema = 1}), "decay is 1"));
  CHECK(contains(with({.valid_fraction = 1}), "valid_fraction is 1"));
  CHECK(contains(with({.valid_fraction = 1e-4}), "keeps 0 apart"));
  CHECK(contains(with({.log_every = 0}), "log_every is 0"));
  CHECK(contains(with({.checkpoint_every = 3}), "no checkpoint_path"));
  CHECK(contains(with({.objective = Sliced{.num_projections = 0}}), "num_projections is 0"));
  CHECK(contains(with({.steps = std::int64_t{1} << 32}), "2^32"));
  CHECK(contains(with({.schedule = {.final_fraction = 2}}), "final_fraction is 2"));
  CHECK(contains(with({.adam = {.beta1 = 1}}), "beta is 1"));

  CHECK_THROWS_AS(Trainer(net, Matrix(0, 2), {}, Rng{1}), DataError);
  CHECK_THROWS_AS(Trainer(net, Matrix(5, 3), {}, Rng{1}), DataError);
  data(17, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(with({}), "row 17, column 1"));

  CHECK_THROWS_AS(Trainer(net, FreshRows{}, {.steps = 1}, Rng{1}), UsageError);
  CHECK_THROWS_AS(Trainer(net, mixture_draws(128), {}, Rng{1}), UsageError);
  CHECK_THROWS_AS(Trainer(net, mixture_draws(128), {.epochs = 1}, Rng{1}), UsageError);
  CHECK_THROWS_AS(Trainer(net, mixture_draws(128), {.steps = 1, .valid_fraction = .5}, Rng{1}), UsageError);

  Recorder any_sigma(2, .1, 1);  // no discrete levels
  CHECK_THROWS_AS(Trainer(any_sigma, mixture_draws(8), {.steps = 1, .batch = 8, .sigma_sampling = SigmaSampling::levels}, Rng{1}),
                  UsageError);
  CHECK_NOTHROW(Trainer(any_sigma, mixture_draws(8), {.steps = 1, .batch = 8}, Rng{1}));
  CHECK_NOTHROW(
      Trainer(any_sigma, mixture_draws(8), {.steps = 1, .batch = 8, .sigma_sampling = SigmaSampling::continuous}, Rng{1}));
}

TEST_CASE("the factory names what exists") {
  const ScoreNetwork net = small_network();
  const auto name = [](const Network& model, const Objective& objective, const std::string& engine) {
    const std::string all(make_training_step(model, objective, "cpu", "fp32", engine)->name());
    return all.substr(0, all.find(", cpu "));
  };
  CHECK(name(net, Denoising{}, "auto") == "fused");
  CHECK(name(net, FlowMatching{}, "fused") == "fused");
  CHECK(name(net, Denoising{}, "tape") == "tape");
  CHECK(name(net, Sliced{}, "auto") == "tape");
  CHECK(name(Recorder(2, .1, 1), Denoising{}, "auto") == "tape");
  CHECK_THROWS_AS(make_training_step(net, Denoising{}, "cuda"), UsageError);
  CHECK_THROWS_AS(make_training_step(net, Denoising{}, "cuda:1"), UsageError);
  CHECK(contains(message_of([&] { make_training_step(net, Denoising{}, "gpu"); }), "give auto or cpu"));
  CHECK(contains(message_of([&] { make_training_step(net, Denoising{}, "cpu", "bf16"); }), "fp32"));
  CHECK(contains(message_of([&] { make_training_step(net, Denoising{}, "cpu", "fp32", "fast"); }), "give auto, tape or fused"));
  CHECK(contains(message_of([&] { make_training_step(net, Explicit{}, "cpu", "fp32", "fused"); }), "does not compute explicit"));
  CHECK(contains(message_of([&] { make_training_step(Recorder(2, .1, 1), Denoising{}, "cpu", "fp32", "fused"); }),
                 "give auto or tape"));

  const auto engine = make_training_step(net, Denoising{});
  const Batch batch = perturb(Matrix(4, 2), *net.levels(), Rng{1});
  std::vector<float> gradient(net.parameters().size()), rows(4), few(3);
  CHECK_THROWS_AS(engine->loss_and_gradient(net.parameters(), batch, few, rows), UsageError);
  CHECK_THROWS_AS(engine->loss_and_gradient(few, batch, gradient, rows), UsageError);
  CHECK_THROWS_AS(engine->loss(net.parameters(), batch, few), UsageError);
  CHECK(engine->loss_and_gradient(net.parameters(), batch, gradient, rows) == engine->loss(net.parameters(), batch, rows));
}

// ---- Learning

TEST_CASE("a linear network learns the score of a Gaussian") {
  // x0 ~ N(0, 1), one level sigma: u = sigma s = -sigma x / (1 + sigma^2) = -.4 x at sigma = .5.
  const FreshRows draw = [](std::uint64_t first_row, Rows<float> out) { Rng{6}.normals(Purpose::user, 0, first_row, out); };
  Recorder net(1, .5, .5);
  train(net, draw, {.steps = 2000, .batch = 256, .learning_rate = 1e-2, .schedule = {.kind = LearningRate::cosine}, .ema = .99},
        Rng{1});
  // The optimum's sampling error: Var(x) = 1.25, residual variance E(eps - .4 x)^2 = .8; the last hundred batches weigh
  // most: sqrt(.8 / 1.25 / 25600) = .005, 5 of them.
  CHECK(net.parameters()[0] == doctest::Approx(-.4).epsilon(.025 / .4));
}

TEST_CASE("a short run on the tutorial's mixture comes near the exact score") {
  Rng rng{1};
  ScoreNetwork net({.data_dim = 2, .hidden_dim = 64}, rng.split());
  const GaussianMixture oracle = GaussianMixture::three_gaussians();
  const FisherDivergenceOptions draws{.draws = 2000};
  const double before = fisher_divergence(net, oracle, *net.levels(), draws, Rng{8}).mean_error;
  const TrainingStep last = train(
      net, mixture_draws(256),
      {.steps = 500, .batch = 256, .learning_rate = 1e-2, .schedule = {.kind = LearningRate::cosine}, .ema = .98}, rng.split());
  const FisherDivergence after = fisher_divergence(net, oracle, *net.levels(), draws, Rng{8});
  MESSAGE("mean error before ", before, ", after ", after.mean_error, ", zero network ", after.mean_zero_error, ", loss ",
          last.smoothed_loss);
  CHECK(after.mean_error < .02);  // .0096 here; the zero network has .385
  CHECK(after.mean_error < .1 * before);
}

TEST_CASE("train_ncsn by its name") {
  const Matrix data = datasets::three_gaussians(300, Rng{42});
  ScoreNetwork net = small_network();
  std::vector<std::int64_t> epochs;
  const std::vector<double> losses =
      train_ncsn(net, data, Rng{1}, {.num_epochs = 30, .learning_rate = 1e-2}, [&](std::int64_t epoch, double loss) {
        epochs.push_back(epoch);
        CHECK(loss > 0);
        return epoch < 24;
      });
  REQUIRE(losses.size() == 25);
  CHECK(epochs.front() == 0);
  CHECK(epochs.back() == 24);
  // A mean of five epochs of 300 rows has a standard error of .03; the losses fall from .9 to .7.
  const auto mean_of = [&](auto first) { return std::accumulate(first, first + 5, 0.) / 5; };
  CHECK(mean_of(losses.end() - 5) < mean_of(losses.begin()));
  CHECK_THROWS_AS(train_ncsn(net, data, Rng{1}, {.num_epochs = 0}), UsageError);
}
