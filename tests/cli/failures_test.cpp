// What goes wrong has its exit code, a message that names the place and the remedy, and leaves no half-written file.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <string>

#include "program.h"
#include "tweedie/cli/sampling.h"
#include "tweedie/kernels/cuda/device.h"
#include "tweedie/models/checkpoint.h"

using namespace tweedie::testing;
namespace kernels = tweedie::kernels;

namespace {

const std::string kTrain = " -o m.safetensors --width 8 --levels 5 --batch 32 --steps 40";

void make_table(const Folder& folder) {
  std::string csv = "a,b\n";
  for (int i = 0; i < 50; ++i) csv += std::to_string(i % 13) + ".5," + std::to_string(i * i % 17) + "\n";
  write(folder / "t.csv", csv);
}

// A command that must fail with `code`, saying every part, with nothing on standard output.
void fails(const Folder& folder, const std::string& arguments, int code, std::initializer_list<const char*> parts) {
  const Outcome r = tweedie::testing::tweedie(folder, arguments);
  CHECK_MESSAGE(r.code == code, arguments, ": ", r.err);
  CHECK(r.out.empty());
  CHECK(contains(r.err, "error: "));
  for (const char* part : parts) CHECK_MESSAGE(contains(r.err, part), part, " is not in: ", r.err);
}

}  // namespace

TEST_CASE("2: usage errors list the names there are and the one that was perhaps meant") {
  const Folder folder;
  make_table(folder);
  fails(folder, "trian", 2, {"did you mean 'train'", "sample"});
  fails(folder, "train t.csv -o m.safetensors --witdh 3", 2, {"did you mean --width"});
  fails(folder, "train t.csv", 2, {"--output"});
  fails(folder, "train t.csv -o m.safetensors --steps 3 --epochs 2", 2, {"--epochs"});
  fails(folder, "train t.csv -o m.safetensors --width 0", 2, {"--width"});
  fails(folder, "train t.csv -o m.safetensors --objective sliec", 2, {"did you mean 'sliced'", "denoising, explicit, sliced"});
  fails(folder, "train t.csv -o m.safetensors --num-projections 3", 2, {"--objective sliced"});
  fails(folder, "train builtin:moon -o m.safetensors", 2, {"did you mean 'moons'"});
  fails(folder, "train builtin:moons -o m.safetensors --epochs 3", 2, {"no meaning for fresh draws"});
  fails(folder, "train t.csv -o m.safetensors --columns a,c", 2, {"unknown column 'c'", "a, b"});
  fails(folder, "data nothing", 2, {"three_gaussians"});
  fails(folder, "data moons -o x.xls", 2, {".csv, .npy or .npz"});
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv" + kTrain).code == 0);
  fails(folder, "sample m.safetensors --sampler anealed", 2, {"did you mean 'annealed'", "annealed, mala, langevin, heun"});
  fails(folder, "sample m.safetensors --num-steps 3", 2, {"--num-steps has no meaning for --sampler annealed"});
  fails(folder, "sample m.safetensors --sampler heun --eta .5", 2, {"--eta has no meaning for --sampler heun", "ddim"});
  fails(folder, "sample m.safetensors --sampler mala", 2, {"mala", "annealed_langevin"});
  fails(folder, "sample m.safetensors --sampler heun --sigma-max 99", 2, {"outside the levels' range"});
  fails(folder, "train t.csv -o m.safetensors --net mlpp", 2, {"ncsn, mlp, residual"});
  fails(folder, "train t.csv -o m.safetensors --net mlp --levels 5", 2, {"--levels belongs to --net ncsn"});
  fails(folder, "train t.csv -o m.safetensors --weighting likelihod", 2, {"did you mean 'likelihood'"});
  fails(folder, "impute m.safetensors t.csv --method mmps --resample 3", 2, {"--resample belongs to --method repaint"});
  fails(folder, "logp m.safetensors t.csv --probes 3", 2, {"--divergence hutchinson"});
  fails(folder, "sample m.safetensors --save-every 3", 2, {"--trajectory"});
  fails(folder, "sample m.safetensors --sampler langevin --sigma 99", 2, {"outside the levels' range"});
  fails(folder, "sample m.safetensors -o - --json", 2, {"standard output"});
  fails(folder, "sample m.safetensors --step-size-factor 5", 2, {"unstable"});
  fails(folder, "eval m.safetensors t.csv --oracle moons", 2, {"three_gaussians"});
  const Outcome nothing = tweedie::testing::tweedie(folder, "");
  CHECK(nothing.code == 2);
  CHECK(nothing.out.empty());
  CHECK(contains(nothing.err, "tweedie demo"));
  CHECK(tweedie::testing::tweedie(folder, "train --help").code == 0);
  CHECK(tweedie::testing::tweedie(folder, "--version").code == 0);
}

TEST_CASE("3: bad data names file, line and column") {
  const Folder folder;
  write(folder / "ragged.csv", "a,b\n1,2\n3,4\n5\n6,7\n");
  fails(folder, "train ragged.csv" + kTrain, 3, {"ragged.csv", "line 4"});
  write(folder / "text.csv", "a,colour,b\n1,red,2\n3,blue,4\n");
  fails(folder, "train text.csv" + kTrain, 3, {"column 'colour'", "--columns a, b"});
  write(folder / "missing.csv", "a,b\n1,2\n3,\n5,6\n7,8\n");
  fails(folder, "train missing.csv" + kTrain, 3, {"row 2", "--missing drop"});
  CHECK(tweedie::testing::tweedie(folder, "train missing.csv --missing drop" + kTrain).code == 0);
  write(folder / "empty.csv", "");
  fails(folder, "train empty.csv" + kTrain, 3, {"empty.csv"});
  write(folder / "one.csv", "a,b\n1,2\n");
  fails(folder, "train one.csv" + kTrain, 3, {"one row"});
  write(folder / "other.csv", "a,c\n1,2\n3,4\n");
  fails(folder, "eval m.safetensors other.csv", 3, {"no column 'b'"});
  CHECK(folder.files() ==
        std::vector<std::string>{"empty.csv", "m.safetensors", "missing.csv", "one.csv", "other.csv", "ragged.csv", "text.csv"});
}

TEST_CASE("a constant column is said and repeated") {
  const Folder folder;
  write(folder / "c.csv", "a,b\n1,3.25\n3,3.25\n5,3.25\n2,3.25\n");
  const Outcome r = tweedie::testing::tweedie(folder, "train c.csv" + kTrain);
  REQUIRE_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.err, "column 'b' is constant (3.25)"));
  REQUIRE(tweedie::testing::tweedie(folder, "sample m.safetensors -n 2 --steps-per-level 2 -o s.csv").code == 0);
  CHECK(contains(read(folder / "s.csv"), ",3.25\n"));
}

TEST_CASE("4: a model file that is cut, changed or no model names what is wrong") {
  const Folder folder;
  make_table(folder);
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv" + kTrain).code == 0);
  const std::string whole = read(folder / "m.safetensors");
  write(folder / "cut.safetensors", whole.substr(0, whole.size() - 100));
  fails(folder, "sample cut.safetensors", 4, {"cut.safetensors"});
  write(folder / "header.safetensors", whole.substr(0, 200));
  fails(folder, "info header.safetensors", 4, {"header.safetensors"});
  std::string changed = whole;
  changed[whole.size() - 50] ^= 1;
  write(folder / "changed.safetensors", changed);
  fails(folder, "eval changed.safetensors t.csv", 4, {"changed.safetensors"});
  fails(folder, "sample t.csv", 4, {"t.csv"});
}

TEST_CASE("5: a diverging run says step and level, and keeps the last good checkpoint") {
  const Folder folder;
  make_table(folder);
  const Outcome r = tweedie::testing::tweedie(folder,
                                              "train t.csv -o d.safetensors --width 32 --levels 5 --steps 500 --lr 1e6 "
                                              "--clip-norm 0 --schedule constant --checkpoint-every 1");
  CHECK_MESSAGE(r.code == 5, r.err);
  CHECK(contains(r.err, "step "));
  CHECK(contains(r.err, "level"));
  CHECK(tweedie::testing::tweedie(folder, "info d.safetensors").code == 0);
}

TEST_CASE("5: a chain that blows up is reported with its sampler, step and sigma; nothing is written") {
  const Folder folder;
  make_table(folder);
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv" + kTrain).code == 0);
  fails(folder, "sample m.safetensors -n 5 -o s.csv --sampler langevin --step-size 1e9", 5,
        {"langevin_dynamics: diverged at ", "sigma = 0.05", "step ", "smaller step_size"});
  fails(folder, "sample m.safetensors -n 5 -o s.csv --temperature 1e20", 5,
        {"annealed_langevin: diverged at ", "sigma = ", "smaller step_size_factor or temperature"});
  // The same network with its weights blown up.
  for (const char* net : {"ncsn", "mlp"}) {
    REQUIRE(
        tweedie::testing::tweedie(folder, "train t.csv -o n.safetensors --width 8 --steps 20 --net " + std::string(net)).code ==
        0);
    const auto network = tweedie::make_network(tweedie::read_checkpoint(folder / "n.safetensors"), tweedie::Weights::raw);
    for (float& weight : network->parameters()) weight *= 1e8F;
    network->parameters_changed();
    tweedie::save(folder / "wild.safetensors", *network);
    for (const std::string& sampler : tweedie::cli::sampler_names()) {
      const std::string command = "sample wild.safetensors -n 5 -o s.csv --sampler " + sampler;
      if (sampler == "mala") {
        fails(folder, command, 2, {"mala: ", "no energy", "annealed_langevin"});
      } else {
        fails(folder, command, 5, {"sigma = ", "step "});
      }
    }
    write(folder / "gaps.csv", "x1,x2\n1,\n");
    fails(folder, "impute wild.safetensors gaps.csv -o f.csv", 5, {"repaint: diverged", "sigma = "});
    fails(folder, "impute wild.safetensors gaps.csv -o f.csv --method mmps", 5, {"posterior_sample: ", "sigma = "});
    fails(folder, "logp wild.safetensors t.csv", 5, {"log_density: ", "sigma = "});
    fails(folder, "eval wild.safetensors t.csv", 5, {"sigma = "});
  }
  for (const char* file : {"s.csv", "f.csv"}) CHECK(read(folder / file).empty());
}

TEST_CASE("6: a device that is not there") {
  const Folder folder;
  make_table(folder);
  // Only where there is no GPU is a device surely missing; cuda:99 is missing everywhere.
  if (kernels::cuda::device_count() == 0) fails(folder, "train t.csv --device cuda" + kTrain, 6, {"cuda:0", "--device cpu"});
  fails(folder, "train t.csv --device cuda:99" + kTrain, 6, {"cuda:99"});
  fails(folder, "sample m.safetensors --device cuda:99", 6, {"cuda:99"});
  CHECK(folder.files() == std::vector<std::string>{"t.csv"});
  for (const char* wrong : {"cpuu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999", "cud"}) {
    fails(folder, std::string("data moons --device ") + wrong, 2, {"unknown device", "auto, cpu, cuda, cuda:N"});
  }
}

TEST_CASE("7: files that are missing or cannot be written; the old one stays") {
  const Folder folder;
  make_table(folder);
  fails(folder, "train nothing.csv" + kTrain, 7, {"nothing.csv"});
  fails(folder, "sample nothing.safetensors", 7, {"nothing.safetensors"});
  fails(folder, "train t.csv -o nowhere/m.safetensors", 7, {"nowhere/m.safetensors"});
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv" + kTrain).code == 0);
  const std::string before = read(folder / "m.safetensors");
  const Outcome full = tweedie::testing::tweedie(folder, "train t.csv --seed 2" + kTrain, {.file_limit = 1000});
  CHECK_MESSAGE(full.code == 7, full.err);
  CHECK(contains(full.err, "m.safetensors"));
  CHECK(read(folder / "m.safetensors") == before);
  CHECK(
      tweedie::testing::tweedie(folder, "sample m.safetensors -n 1000 --steps-per-level 1 -o s.csv", {.file_limit = 1000}).code ==
      7);
  CHECK(folder.files() == std::vector<std::string>{"m.safetensors", "t.csv"});
  CHECK(tweedie::testing::tweedie(folder, "sample m.safetensors -n 9 --steps-per-level 1 -o /dev/full").code == 7);
  CHECK(tweedie::testing::tweedie(folder, "info m.safetensors", {.stdout_to = "/dev/full"}).code == 7);
}

TEST_CASE("130: Ctrl-C during training saves a checkpoint that goes on to the same bytes") {
  const Folder folder;
  make_table(folder);
  const std::string options = " --width 8 --levels 5 --batch 16 --steps 60000 --log-every 1000";
  const Outcome cut = tweedie::testing::tweedie(folder, "train t.csv -o cut.safetensors" + options,
                                                {.interrupt_after = .05, .interrupt_when = "steps of"});
  REQUIRE_MESSAGE(cut.code == 130, cut.err);
  CHECK(contains(cut.err, "interrupted: saving the checkpoint"));
  CHECK(contains(cut.err, "--resume cut.safetensors"));
  const Json info = Json::parse(tweedie::testing::tweedie(folder, "info cut.safetensors --json").out);
  CHECK(info["step"].number < 60000);
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv -o whole.safetensors" + options).code == 0);
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv -o resumed.safetensors --resume cut.safetensors" + options).code == 0);
  CHECK(read(folder / "resumed.safetensors") == read(folder / "whole.safetensors"));
}

TEST_CASE("130: Ctrl-C during sampling leaves nothing half-written; a second one quits at once") {
  const Folder folder;
  make_table(folder);
  REQUIRE(tweedie::testing::tweedie(folder, "train t.csv" + kTrain).code == 0);
  const std::string sample = "sample m.safetensors -n 16000 --steps-per-level 100000 --step-size-factor 1e-6 -o s.csv";
  const Outcome cut = tweedie::testing::tweedie(folder, sample, {.interrupt_after = .1, .interrupt_when = "sampling"});
  CHECK_MESSAGE(cut.code == 130, cut.err);
  CHECK(contains(cut.err, "nothing is written"));
  CHECK(folder.files() == std::vector<std::string>{"m.safetensors", "t.csv"});
  const Outcome twice =
      tweedie::testing::tweedie(folder, sample, {.interrupt_after = .1, .interrupt_when = "sampling", .again_after = .001});
  CHECK(twice.code == 130);
  CHECK_FALSE(contains(read(folder / "s.csv"), ","));
}

TEST_CASE("the progress bar is for terminals alone, colours only where they are wanted") {
  const Folder folder;
  make_table(folder);
  const Outcome shown = tweedie::testing::tweedie(folder, "train t.csv" + kTrain, {.terminal = true});
  REQUIRE(shown.code == 0);
  CHECK(contains(shown.err, "training ["));
  CHECK(contains(shown.err, "\x1b[32m"));
  const Outcome plain = tweedie::testing::tweedie(folder, "train t.csv" + kTrain, {.no_color = true, .terminal = true});
  CHECK(contains(plain.err, "training ["));
  CHECK_FALSE(contains(plain.err, "\x1b[32m"));
  const Outcome piped = tweedie::testing::tweedie(folder, "train t.csv" + kTrain);
  CHECK_FALSE(contains(piped.err, "\r"));
  CHECK_FALSE(contains(piped.err, "\x1b"));
}
