// tweedie information: entropy and mutual information of Gaussian columns against their closed forms, and what is refused.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "program.h"
#include "tweedie/core/random.h"

using namespace tweedie::testing;
using tweedie::Index;

namespace {

constexpr double kScale = 3, kCorrelation = .8;

// Two normal columns of deviation kScale and 1, correlated; and models of both, of the first and of the second.
const Folder& trained() {
  static const Folder folder;
  static const bool made = [] {
    tweedie::Matrix z(4000, 2);
    tweedie::Rng{5}.normals<float>(tweedie::Purpose::dataset, 0, 0, z);
    std::string table = "a,b\n";
    for (Index r = 0; r < z.rows(); ++r) {
      const double a = static_cast<double>(z(r, 0)), b = static_cast<double>(z(r, 1));
      table += std::to_string(kScale * a) + "," +
               std::to_string(kCorrelation * a + std::sqrt(1 - kCorrelation * kCorrelation) * b) + "\n";
    }
    write(folder / "t.csv", table);
    const std::string options = " --width 32 --depth 3 --steps 1500 --batch 256 --valid-fraction 0 --sigma-min .02";
    for (const char* model : {"-o both.safetensors", "--columns a -o a.safetensors", "--columns b -o b.safetensors"}) {
      const Outcome run = tweedie::testing::tweedie(folder, std::string("train t.csv ") + model + options);
      REQUIRE_MESSAGE(run.code == 0, run.err);
    }
    return true;
  }();
  (void)made;
  return folder;
}

}  // namespace

TEST_CASE("information: entropy in the data's units and mutual information of correlated normals") {
  const Outcome run =
      tweedie::testing::tweedie(trained(), "information both.safetensors t.csv --between a.safetensors b.safetensors --json");
  REQUIRE_MESSAGE(run.code == 0, run.err);
  const Json json = Json::parse(run.out);
  const double conditional = .5 * std::log(1 - kCorrelation * kCorrelation);
  const double entropy = std::log(2 * std::numbers::pi * std::numbers::e * kScale) + conditional;
  // 4,000 rows tell a log-determinant to sqrt(D / (2 n)) = .016 (one deviation) and the correlation's part to 1 / sqrt(n) times
  // rho = .013; the networks' own errors are of the same size. Four deviations of their sum in squares:
  CHECK(std::abs(json["entropy"]["nats"].number - entropy) < .09);
  CHECK(std::abs(json["mutual_information"]["nats"].number + conditional) < .07);
  CHECK(json["levels"].items.size() == 8);
  const Outcome swapped =
      tweedie::testing::tweedie(trained(), "information both.safetensors t.csv --between b.safetensors a.safetensors --json");
  REQUIRE_MESSAGE(swapped.code == 0, swapped.err);
  CHECK(Json::parse(swapped.out)["mutual_information"]["nats"].number == json["mutual_information"]["nats"].number);
  const Outcome text =
      tweedie::testing::tweedie(trained(), "information both.safetensors t.csv --between a.safetensors b.safetensors");
  CHECK(contains(text.out, "mutual information of the two parts"));
}

TEST_CASE("information: parts that are not the model's, and conditional models, are refused with a remedy") {
  const Outcome parts =
      tweedie::testing::tweedie(trained(), "information both.safetensors t.csv --between a.safetensors a.safetensors");
  CHECK(parts.code == 2);
  CHECK(contains(parts.err, "train all three on the same rows"));
  REQUIRE(tweedie::testing::tweedie(trained(), "train t.csv --target b -o given.safetensors --width 8 --steps 4").code == 0);
  const Outcome conditional = tweedie::testing::tweedie(trained(), "information given.safetensors t.csv");
  CHECK(conditional.code == 2);
  CHECK(contains(conditional.err, "without --class and --target"));
}
