// Every command's ordinary run, its result on stdout and nothing else there, and the same bytes for the same seed.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "program.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/files/npy.h"
#include "tweedie/core/files/npz.h"
#include "tweedie/models/datasets.h"

using namespace tweedie::testing;
using tweedie::Index;
using tweedie::Matrix;
using tweedie::Rng;

namespace {

const std::string kTiny = " --width 8 --depth 3 --levels 5 --batch 32 --steps 40";

// A trained model of a table with a real and a whole-number column, made once.
const Folder& trained() {
  static const Folder folder;
  static const bool made = [] {
    std::string csv = "real,whole\n";
    for (int i = 0; i < 60; ++i) csv += std::to_string(std::sin(i) * 2) + "," + std::to_string(40 + i % 7) + "\n";
    write(folder / "train.csv", csv);
    const Outcome run = tweedie::testing::tweedie(folder, "train train.csv -o m.safetensors --history h.csv" + kTiny);
    REQUIRE_MESSAGE(run.code == 0, run.err);
    return true;
  }();
  (void)made;
  return folder;
}

Outcome run(const std::string& arguments, const RunOptions& options = {}) {
  return tweedie::testing::tweedie(trained(), arguments, options);
}

}  // namespace

TEST_CASE("data writes the library's own rows as csv, npy and npz") {
  const Folder folder;
  for (const char* file : {"x.csv", "x.npy", "x.npz"}) {
    const Outcome r = tweedie::testing::tweedie(folder, std::string("data three_gaussians -n 300 --seed 42 -o ") + file);
    REQUIRE_MESSAGE(r.code == 0, r.err);
    CHECK(contains(r.out, "300 rows x 2 columns"));
  }
  const Matrix expected = tweedie::datasets::three_gaussians(300, Rng{42});
  const tweedie::MatrixD csv = tweedie::to_matrix(tweedie::read_csv(folder / "x.csv"));
  const Matrix npy = tweedie::read_npy<float>(folder / "x.npy"), npz = tweedie::NpzFile(folder / "x.npz").read<float>("x");
  for (Index i = 0; i < expected.size(); ++i) {
    CHECK(static_cast<float>(csv.data()[i]) == expected.data()[i]);
    CHECK(npy.data()[i] == expected.data()[i]);
    CHECK(npz.data()[i] == expected.data()[i]);
  }
  const Outcome piped = tweedie::testing::tweedie(folder, "data moons -n 3 -o -");
  CHECK(tweedie::parse_csv(std::as_bytes(std::span(piped.out)), "stdout").rows == 3);
}

TEST_CASE("train, with its history and its line of results") {
  const Outcome r = run("train train.csv -o again.safetensors" + kTiny);
  REQUIRE_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.out, "again.safetensors: step 40, loss "));
  CHECK(contains(r.out, "fused, cpu "));
  CHECK(contains(r.out, "seed 42"));
  CHECK(contains(r.err, "60 rows x 2 columns (6 kept apart)"));
  const tweedie::Table history = tweedie::read_csv(trained() / "h.csv");
  CHECK(history.columns[0].numbers.back() == 40);
  CHECK(history.columns[static_cast<std::size_t>(history.index("valid_loss"))].numbers.back() > 0);
  CHECK(read(trained() / "again.safetensors") == read(trained() / "m.safetensors"));
}

TEST_CASE("train: every objective, schedule and way to draw sigma") {
  for (const char* options :
       {"--objective explicit", "--objective sliced --projection rademacher --num-projections 2",
        "--objective sliced --variance-reduced --projection gaussian --weighting plain",
        "--sigma-sampling continuous --schedule constant --ema 0 --clip-norm 0 --weight-decay .1",
        "--weighting edm --sigma-sampling lognormal --p-mean -1", "--weighting v --sigma-sampling process --process vp",
        "--objective flow_matching --sigma-sampling flow", "--weighting likelihood --sigma-sampling process",
        "--valid-fraction 0 --warmup 5", "--scaling none --keep last", "--columns whole"}) {
    const Outcome r = run(std::string("train train.csv -o other.safetensors --width 8 --levels 4 --steps 4 ") + options);
    CHECK_MESSAGE(r.code == 0, options, r.err);
  }
  const Outcome fresh = run("train builtin:moons -o fresh.safetensors --width 8 --levels 4 --steps 4");
  CHECK_MESSAGE(fresh.code == 0, fresh.err);
  const Outcome epochs = run(
      "train train.csv -o other.safetensors --hidden_dim 8 --num_layers 3 --num_noise_levels 4 --num_epochs 2 --batch_size 27");
  CHECK_MESSAGE(epochs.code == 0, epochs.err);
  CHECK(contains(epochs.out, "step 4,"));  // 2 epochs of 54 rows in batches of 27
}

TEST_CASE("sample repeats names, order and whole numbers, and the first rows for every n") {
  const Outcome r = run("sample m.safetensors -n 50 --steps-per-level 5 -o s.csv");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.out, "25 evaluations a row"));
  const tweedie::Table table = tweedie::read_csv(trained() / "s.csv");
  CHECK(table.header() == std::vector<std::string>{"real", "whole"});
  REQUIRE(table.rows == 50);
  for (const double value : table.columns[1].numbers) {
    CHECK(value == std::floor(value));
    CHECK(value >= 40);
    CHECK(value <= 46);
  }
  REQUIRE(run("sample m.safetensors -n 20 --steps-per-level 5 -o short.csv").code == 0);
  const std::string whole = read(trained() / "s.csv"), part = read(trained() / "short.csv");
  CHECK(whole.compare(0, part.size(), part) == 0);
}

TEST_CASE("sample: samplers and their options") {
  for (const char* options : {"--sampler langevin --num-steps 20 --step-size .001 --noise-scale .5 --sigma .1",
                              "--denoise --levels 9", "--temperature .5 --temperature-mode chapter",
                              "--step-convention full --step-size-factor .1", "--epsilon 2e-5", "--raw-weights"}) {
    const Outcome r = run(std::string("sample m.safetensors -n 5 -o o.npy ") + options);
    CHECK_MESSAGE(r.code == 0, options, r.err);
  }
  const Outcome paths =
      run("sample m.safetensors -n 5 --steps-per-level 10 --trajectory t.npy --save-every 10 --trajectory-rows 3 -o o.csv");
  REQUIRE_MESSAGE(paths.code == 0, paths.err);
  CHECK(tweedie::read_npy_array<float>(trained() / "t.npy").shape == std::vector<Index>{6, 3, 2});
  REQUIRE(run("sample m.safetensors -n 5 --steps-per-level 10 --trajectory t.csv -o o.csv").code == 0);
  CHECK(tweedie::read_csv(trained() / "t.csv").header() == std::vector<std::string>{"step", "row", "real", "whole"});
}

TEST_CASE("sample: every sampler down a schedule, of a network with levels and of one for any sigma") {
  REQUIRE(run("train train.csv -o any.safetensors --net mlp --width 8 --depth 3 --batch 32 --steps 40").code == 0);
  for (const char* model : {"m.safetensors", "any.safetensors"}) {
    for (const char* options :
         {"heun --steps 6", "heun --steps 6 --s-churn 2 --s-tmax .5", "ddim --steps 6 --eta 1 --schedule geometric",
          "dpmpp_2m --steps 6", "dpmpp_2m_sde --steps 6 --eta .5 --schedule cosine", "reverse_sde --steps 6",
          "predictor_corrector --steps 6 --snr .1", "predictor_corrector --steps 6 --corrector-norms batch --corrector-steps 2",
          "probability_flow --rtol 1e-3 --atol 1e-3"}) {
      const Outcome r = run(std::string("sample ") + model + " -n 5 -o o.npy --sampler " + options);
      CHECK_MESSAGE(r.code == 0, model, " ", options, r.err);
      CHECK(contains(r.out, std::string(options).substr(0, std::string(options).find(' ')) + " sampler"));
    }
  }
  CHECK(contains(run("sample any.safetensors -n 3 --steps 5 -o o.npy").out, "heun sampler, 9 evaluations"));
  CHECK(contains(run("info any.safetensors").out, "any from 20 to 0.01"));
}

TEST_CASE("logp: nats in the data's own units, whatever the scaling") {
  // Columns 10 times as wide have a density 10 times smaller for each.
  std::string narrow = "a,b\n", wide = "a,b\n";
  for (int i = 0; i < 40; ++i) {
    const double a = std::sin(3. * i), b = std::cos(5. * i);
    narrow += std::to_string(a) + "," + std::to_string(b) + "\n";
    wide += std::to_string(10 * a) + "," + std::to_string(10 * b) + "\n";
  }
  write(trained() / "narrow.csv", narrow);
  write(trained() / "wide.csv", wide);
  double mean[2];
  for (int i = 0; i < 2; ++i) {
    const std::string name = i == 0 ? "narrow" : "wide";
    REQUIRE(run("train " + name + ".csv -o " + name + ".safetensors --net mlp --width 16 --depth 3 --steps 60").code == 0);
    const Outcome r = run("logp " + name + ".safetensors " + name + ".csv --json -o " + name + "_p.csv --rtol 1e-4 --atol 1e-4");
    REQUIRE_MESSAGE(r.code == 0, r.err);
    mean[i] = Json::parse(r.out)["mean_log_density"].number;
  }
  CHECK(mean[0] - mean[1] == doctest::Approx(2 * std::log(10.)).epsilon(1e-3));
  const tweedie::Table rows = tweedie::read_csv(trained() / "narrow_p.csv");
  CHECK(rows.header() == std::vector<std::string>{"log_density", "standard_error", "bits_per_dim", "percentile"});
  CHECK(rows.rows == 40);
  const Outcome probes = run("logp narrow.safetensors narrow.csv --divergence hutchinson --probes 4 --json");
  REQUIRE_MESSAGE(probes.code == 0, probes.err);
  CHECK(std::abs(Json::parse(probes.out)["mean_log_density"].number - mean[0]) < .5);
}

TEST_CASE("impute: known cells as they are, missing ones filled, several draws beside one another") {
  write(trained() / "gaps.csv", "whole,real\n41,\n,0.25\n42,-1.5\n");
  for (const char* options : {"--steps 10 --resample 2", "--method mmps --steps 10 --draws 2"}) {
    const Outcome r = run(std::string("impute m.safetensors gaps.csv -o full.csv ") + options);
    REQUIRE_MESSAGE(r.code == 0, options, r.err);
    CHECK(contains(r.out, "2 cells of 3 rows filled"));
    const tweedie::Table full = tweedie::read_csv(trained() / "full.csv");
    const bool several = contains(options, "--draws 2");
    REQUIRE(full.rows == (several ? 6 : 3));
    const auto column = [&](const char* name) { return full.columns[static_cast<std::size_t>(full.index(name))].numbers; };
    CHECK(column("whole").front() == 41);
    CHECK(column("real").back() == -1.5);
    CHECK(column("real")[several ? 2 : 1] == .25);
    for (const double value : column("real")) CHECK(std::isfinite(value));
    for (const double value : column("whole")) CHECK(value == std::round(value));
  }
}

TEST_CASE("the same seed gives the same bytes, another seed others; so do 1 and 2 threads") {
  const std::string sample = "sample m.safetensors -n 600 --steps-per-level 3 -o ";
  REQUIRE(run(sample + "a.csv --threads 1").code == 0);
  REQUIRE(run(sample + "b.csv --threads 2").code == 0);
  REQUIRE(run(sample + "c.csv --seed 7").code == 0);
  CHECK(read(trained() / "a.csv") == read(trained() / "b.csv"));
  CHECK(read(trained() / "a.csv") != read(trained() / "c.csv"));
  const std::string train = "train train.csv --width 16 --steps 12 --levels 5 -o ";
  REQUIRE(run(train + "a.safetensors --threads 1").code == 0);
  REQUIRE(run(train + "b.safetensors --threads 2").code == 0);
  CHECK(read(trained() / "a.safetensors") == read(trained() / "b.safetensors"));
}

TEST_CASE("eval: distances, copies and the exact score's errors") {
  REQUIRE(run("sample m.safetensors -n 40 --seed 3 --steps-per-level 5 -o held.csv").code == 0);
  const Outcome r = run("eval m.safetensors held.csv --train train.csv --steps-per-level 5");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  for (const char* part : {"energy distance", "sliced Wasserstein-1", "MMD^2", "KS of whole", "denoising loss", "scaled units"}) {
    CHECK(contains(r.out, part));
  }
  // The training rows as samples: every one is a copy, and the program says so.
  const Outcome copied = run("eval m.safetensors held.csv --train train.csv --samples train.csv --json");
  REQUIRE_MESSAGE(copied.code == 0, copied.err);
  const Json json = Json::parse(copied.out);
  CHECK(json["energy_ratio"].number == 1);
  CHECK(json["copies"]["identical"].number == 1);
  CHECK(json["copies"]["warning"].boolean);
  CHECK(contains(copied.err, "copies its training data"));

  REQUIRE(run("train builtin:two_mode -o two.safetensors --width 8 --levels 4 --steps 4").code == 0);
  REQUIRE(run("data two_mode -n 30 -o two.csv").code == 0);
  const Outcome exact = run("eval two.safetensors two.csv --oracle two_mode --steps-per-level 3 --json");
  REQUIRE_MESSAGE(exact.code == 0, exact.err);
  CHECK(Json::parse(exact.out)["score_error"]["levels"].items.size() == 4);
}

TEST_CASE("every command's --json is one object on stdout and nothing else") {
  const char* commands[] = {"data moons -n 5 -o j.csv", "train train.csv -o j.safetensors --width 8 --levels 4 --steps 4",
                            "sample m.safetensors -n 5 --steps-per-level 2 -o j.csv",
                            "eval m.safetensors train.csv --steps-per-level 2", "info m.safetensors"};
  for (const char* command : commands) {
    const Outcome r = run(std::string(command) + " --json");
    REQUIRE_MESSAGE(r.code == 0, command, r.err);
    const Json json = Json::parse(r.out);
    CHECK(json.kind == Json::Kind::object);
    if (std::string(command).compare(0, 4, "info") != 0) CHECK(json["seed"].number == 42);
  }
}

TEST_CASE("info tells columns, scaling and the checksum") {
  const Outcome r = run("info m.safetensors");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  for (const char* part : {"noise_conditional_score_network", "5 from 4 to 0.05", "real", "whole", "integer", "checksum", "ok"}) {
    CHECK(contains(r.out, part));
  }
  const Json json = Json::parse(run("info m.safetensors --json").out);
  CHECK(json["columns"].items.size() == 2);
  CHECK(json["columns"].items[1]["kind"].text == "integer");
  CHECK(json["step"].number == 40);
}

TEST_CASE("samples on standard output: the rows alone, the messages beside them") {
  const Outcome r = run("sample m.safetensors -n 7 --steps-per-level 2 -o -");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  CHECK(tweedie::parse_csv(std::as_bytes(std::span(r.out)), "stdout").rows == 7);
  CHECK(contains(r.err, "seed 42"));
  const Outcome quiet = run("sample m.safetensors -n 7 --steps-per-level 2 -o - --quiet");
  CHECK(quiet.out == r.out);
  CHECK(quiet.err.empty());
}

TEST_CASE("options come from a file; the command line wins") {
  write(trained() / "options.toml", "steps = 6\nwidth = 8\nlevels = 4\n\n[sample]\nnum-samples = 3\n");
  const Outcome r = run("train train.csv -o c.safetensors --config options.toml");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.out, "step 6,"));
  CHECK(contains(run("train train.csv -o c.safetensors --config options.toml --steps 3").out, "step 3,"));
  write(trained() / "wrong.toml", "stepz = 6\n");
  CHECK(run("train train.csv -o c.safetensors --config wrong.toml").code == 2);
}

#ifdef TWEEDIE_HAVE_PLOTS
TEST_CASE("plot draws every kind") {
  const char* commands[] = {"plot m.safetensors -o p.png",
                            "plot m.safetensors -o p.svg --kind samples -n 20 --data train.csv",
                            "plot train.csv -o p.pdf",
                            "plot train.csv -o p.png --kind pairs --xlim=-3,3",
                            "plot h.csv -o p.png",
                            "plot train.csv -o p.png --kind density --sigma .3",
                            "plot m.safetensors -o p.png --kind trajectories"};
  for (const char* command : commands) {
    const Outcome r = run(command);
    CHECK_MESSAGE(r.code == 0, command, r.err);
    const std::string file = contains(command, "p.svg") ? "p.svg" : contains(command, "p.pdf") ? "p.pdf" : "p.png";
    CHECK(contains(r.out, file));
    CHECK_FALSE(read(trained() / file).empty());
  }
  // 100 steps of the chain, of which 40 states are shown: 20 paths with their starts and ends marked.
  const Outcome paths = run("plot m.safetensors -o p.png --kind trajectories --json");
  REQUIRE_MESSAGE(paths.code == 0, paths.err);
  CHECK(Json::parse(paths.out)["drawn"].number == 20 * (40 + 2));
}
#endif

TEST_CASE("train --scaling quantile: a skewed table, its density in its own units, and what needs an affine scaling") {
  const Folder& folder = trained();
  std::string skewed = "x\n";
  for (int i = 0; i < 60; ++i) skewed += std::to_string(std::exp(.05 * i)) + "\n";
  write(folder / "skewed.csv", skewed);
  std::string grid = "x\n";
  constexpr double kStep = .05;
  for (int i = 0; i < 2000; ++i) grid += std::to_string(-35 + kStep * i) + "\n";
  write(folder / "grid.csv", grid);
  REQUIRE(run("train skewed.csv -o q.safetensors --scaling quantile --width 16 --depth 3 --sigma-min .05 --steps 200").code == 0);
  const Outcome logp = run("logp q.safetensors grid.csv -o p.csv");
  REQUIRE_MESSAGE(logp.code == 0, logp.err);
  double mass = 0;
  const tweedie::Table density = tweedie::read_csv(folder / "p.csv");
  for (const double nats : density.columns[0].numbers) mass += std::exp(nats) * kStep;
  CHECK(mass == doctest::Approx(1).epsilon(.01));  // the Jacobian of the knots is in it
  const Outcome samples = run("sample q.safetensors -n 200 -o qs.csv");
  REQUIRE_MESSAGE(samples.code == 0, samples.err);
  CHECK(run("eval q.safetensors skewed.csv --train skewed.csv --metrics distances,likelihood").code == 0);
  const Outcome oracle = run("eval q.safetensors skewed.csv --oracle two_mode");
  CHECK(oracle.code == 2);
  CHECK(contains(oracle.err, "--scaling standardise"));
}
