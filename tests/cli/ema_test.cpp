// Averages whose length is chosen after training: train --ema-snapshots, tweedie ema, and what info says.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "program.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/post_hoc_ema.h"

using namespace tweedie::testing;

namespace {

void make_table(const Folder& folder) {
  std::string csv = "a,b\n";
  for (int i = 0; i < 60; ++i) csv += std::to_string(std::sin(i)) + "," + std::to_string(i % 7) + "\n";
  write(folder / "t.csv", csv);
}

}  // namespace

TEST_CASE("tweedie ema writes the model with an average of the length asked for") {
  const Folder folder;
  make_table(folder);
  const auto run = [&](const std::string& arguments) { return tweedie::testing::tweedie(folder, arguments); };
  const std::string options = " --net mlp --width 8 --depth 2 --batch 32 --steps 64 --ema-snapshots 8";
  REQUIRE(run("train t.csv -o m.safetensors" + options).code == 0);
  CHECK(contains(run("info m.safetensors").out, "2 at 8 steps"));
  const Outcome made = run("ema m.safetensors --sigma-rel .13 -o e.safetensors");
  REQUIRE_MESSAGE(made.code == 0, made.err);
  CHECK(contains(made.out, "sigma_rel 0.13 over 64 steps"));
  CHECK(made.err.empty());

  const tweedie::Checkpoint trained = tweedie::read_checkpoint(folder / "m.safetensors");
  const std::unique_ptr<tweedie::Network> net = tweedie::load_network(folder / "e.safetensors");
  const auto average = tweedie::PostHocEma::load(trained, net->layout()).reconstruct(.13);
  CHECK(std::vector<float>(net->parameters().begin(), net->parameters().end()) == average.parameters);
  CHECK(Json::parse(run("ema m.safetensors --sigma-rel .13 -o e.safetensors --json").out)["profile_error"].number ==
        doctest::Approx(average.error));

  const Outcome drawn = run("sample e.safetensors -n 5 --steps 4 -o s.csv");
  CHECK_MESSAGE(drawn.code == 0, drawn.err);
  CHECK(contains(drawn.out, "averaged (sigma_rel 0.13) weights"));
  CHECK(contains(read(folder / "s.csv"), "a,b\n"));
  CHECK_FALSE(tweedie::read_checkpoint(folder / "e.safetensors").has_prefix("post_hoc."));

  const Outcome far = run("ema m.safetensors --sigma-rel .28 -o f.safetensors");
  CHECK(far.code == 0);
  CHECK(contains(far.err, "more --ema-snapshots"));
  CHECK(contains(run("ema m.safetensors --sigma-rel .5 -o f.safetensors").err, "sigma_rel is 0.5"));
  CHECK(run("ema m.safetensors --sigma-rel .5 -o f.safetensors").code == 2);
  // Neither averages nor their optimiser: it cannot be gone on with, nor averaged again.
  CHECK(run("train t.csv -o m.safetensors --resume e.safetensors" + options).code == 4);
  const Outcome again = run("ema e.safetensors -o f.safetensors");
  CHECK(again.code == 2);
  CHECK(contains(again.err, "--ema-snapshots 16"));
}
