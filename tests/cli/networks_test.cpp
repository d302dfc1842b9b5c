// Every network, embedding and rule for the noise levels that the program offers, and what it refuses.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "program.h"
#include "tweedie/models/checkpoint.h"

using namespace tweedie::testing;
using tweedie::Index;

namespace {

const Folder& with_table() {
  static const Folder folder;
  if (folder.files().empty()) {
    std::string csv = "a,b\n";
    for (int i = 0; i < 60; ++i) csv += std::to_string(std::sin(i)) + "," + std::to_string(std::cos(5 * i) + i % 3) + "\n";
    write(folder / "t.csv", csv);
  }
  return folder;
}

Outcome run(const std::string& arguments) { return tweedie::testing::tweedie(with_table(), arguments); }

Outcome train(const std::string& options) { return run("train t.csv -o m.safetensors --width 8 --depth 2 --steps 4 " + options); }

}  // namespace

TEST_CASE("an energy network is trained and sampled by MALA") {
  const Outcome made = train("--net energy");
  REQUIRE_MESSAGE(made.code == 0, made.err);
  const Outcome drawn = run("sample m.safetensors --sampler mala --levels 3 --steps-per-level 2 -n 5 -o s.csv");
  CHECK_MESSAGE(drawn.code == 0, drawn.err);
  CHECK(contains(drawn.out, "mala sampler"));
  CHECK(contains(run("info m.safetensors").out, "energy_network"));
}

TEST_CASE("embeddings, learned variance, and every objective for every network") {
  for (const char* net : {"ncsn", "mlp", "residual", "energy"}) {
    for (const char* objective : {"denoising", "explicit", "sliced", "flow_matching"}) {
      const Outcome made = train(std::string("--net ") + net + " --objective " + objective);
      CHECK_MESSAGE(made.code == 0, net, " ", objective, ": ", made.err);
    }
  }
  for (const char* net : {"mlp", "residual", "energy"}) {
    const Outcome made = train(std::string("--embedding log_sigma --learned-variance --net ") + net);
    REQUIRE_MESSAGE(made.code == 0, made.err);
    const Json info = Json::parse(run("info m.safetensors --json").out);
    CHECK(info["config"]["embedding"].text == "log_sigma");
    CHECK(info["config"]["learned_variance"].text == "true");
  }
}

TEST_CASE("NCSNv2's levels come from the data, and the sampler's step from them") {
  const Outcome made = train("--levels ncsnv2");
  REQUIRE_MESSAGE(made.code == 0, made.err);
  const std::unique_ptr<tweedie::Network> network = tweedie::load_network(with_table() / "m.safetensors");
  const tweedie::NoiseLevels& levels = *network->levels();
  CHECK(levels.max() > 2);  // two scaled columns: the largest distance is above one column's own range of two deviations
  CHECK(levels.max() < 10);
  CHECK(levels.size() == tweedie::ncsnv2_levels(2, levels.max(), .05).size());
  // x += a s + sqrt(2 a) z at its epsilon, however the step is written.
  const double epsilon = tweedie::ncsnv2_epsilon(levels, 7);
  const std::string sample = "sample m.safetensors -n 20 --steps-per-level 7 -o ";
  REQUIRE(run(sample + "rule.csv").code == 0);
  REQUIRE(run(sample + "full.csv --step-convention full").code == 0);
  REQUIRE(run(sample + "said.csv --step-convention full --epsilon " + tweedie::join(epsilon)).code == 0);
  REQUIRE(run(sample + "other.csv --step-size-factor .2").code == 0);
  const std::string rule = read(with_table() / "rule.csv");
  CHECK(read(with_table() / "full.csv") == read(with_table() / "said.csv"));
  CHECK(rule == read(with_table() / "full.csv"));
  CHECK(rule != read(with_table() / "other.csv"));
  // Given ends are kept.
  REQUIRE(train("--levels ncsnv2 --sigma-max 30 --sigma-min .1").code == 0);
  CHECK(tweedie::load_network(with_table() / "m.safetensors")->levels()->max() == 30);
}

TEST_CASE("contradictions are refused with a remedy") {
  const auto fails = [](const std::string& options, std::initializer_list<const char*> parts) {
    const Outcome r = train(options);
    CHECK_MESSAGE(r.code == 2, options, ": ", r.err);
    for (const char* part : parts) CHECK_MESSAGE(contains(r.err, part), part, " is not in: ", r.err);
  };
  fails("--net mlp --learned-variance --objective sliced", {"--objective denoising or flow_matching"});
  fails("--net ncsn --learned-variance", {"--learned-variance belongs to --net mlp, residual and energy"});
  fails("--net ncsn --embedding log_sigma", {"--embedding belongs to"});
  fails("--net energy --prediction v", {"--prediction belongs to --net mlp and residual"});
  fails("--net mlp --levels ncsnv2", {"--levels belongs to --net ncsn"});
  fails("--levels many", {"neither a count of levels (1 to 100000) nor ncsnv2"});
  fails("--objective flow_matching --weighting edm", {"a weight of its own"});
  fails("--process vp", {"--weighting likelihood", "--sigma-sampling process"});
  fails("--p-mean 1", {"--sigma-sampling lognormal"});
  fails("--net mlp --embedding fourrier", {"did you mean 'fourier'"});
}
