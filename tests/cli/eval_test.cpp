// tweedie eval: every measure against the library's own number for the same rows, choosing them, and what cannot be measured.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "program.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/statistics.h"

using namespace tweedie::testing;
using tweedie::Index;
using tweedie::Matrix;

namespace {

Matrix rows_of(const std::string& path) { return Matrix(tweedie::to_matrix(tweedie::read_csv(path)).view()); }

std::string moved(const std::string& csv, double by) {
  const tweedie::Table table = tweedie::parse_csv(std::as_bytes(std::span(csv)), "moved");
  std::string out = "x1,x2\n";
  for (std::size_t r = 0; r < static_cast<std::size_t>(table.rows); ++r) {
    out += std::to_string(table.columns[0].numbers[r] + by) + "," + std::to_string(table.columns[1].numbers[r]) + "\n";
  }
  return out;
}

// A model of two Gaussian modes in unscaled columns, 200 rows of its law and 200 more, and rows moved far away.
const Folder& fitted() {
  static const Folder folder;
  static const bool made = [] {
    for (const char* command :
         {"data two_mode -n 200 --seed 1 -o train.csv", "data two_mode -n 200 --seed 2 -o held.csv",
          "data two_mode -n 200 --seed 3 -o same.csv",
          "train train.csv -o m.safetensors --net mlp --width 32 --depth 3 --steps 300 --scaling none --valid-fraction 0"}) {
      const Outcome run = tweedie::testing::tweedie(folder, command);
      REQUIRE_MESSAGE(run.code == 0, run.err);
    }
    write(folder / "far.csv", moved(read(folder / "same.csv"), 5));
    return true;
  }();
  (void)made;
  return folder;
}

Json evaluated(const std::string& arguments) {
  const Outcome run = tweedie::testing::tweedie(fitted(), "eval m.safetensors held.csv --json " + arguments);
  REQUIRE_MESSAGE(run.code == 0, arguments, run.err);
  return Json::parse(run.out);
}

}  // namespace

TEST_CASE("eval reports every measure, as a table and as JSON") {
  const Outcome text = tweedie::testing::tweedie(fitted(), "eval m.safetensors held.csv --train train.csv --samples same.csv");
  REQUIRE_MESSAGE(text.code == 0, text.err);
  for (const char* part : {"energy distance", "sliced Wasserstein-1", "MMD^2", "KS of x2", "Wasserstein-2 of 200 rows",
                           "C2ST accuracy", "kernel Stein discrepancy^2", "log-density of held-out rows", "exact trace",
                           "bits/dim", "denoising loss", "nearest training row"}) {
    CHECK_MESSAGE(contains(text.out, part), part, " is not in: ", text.out);
  }
  const Json json = evaluated("--train train.csv --samples same.csv");
  const Matrix same = rows_of(fitted() / "same.csv"), held = rows_of(fitted() / "held.csv"),
               train = rows_of(fitted() / "train.csv");
  CHECK(json["model_to_data"]["energy_distance"].number == doctest::Approx(tweedie::energy_distance(same, held)));
  CHECK(json["wasserstein_2"]["value"].number == doctest::Approx(tweedie::wasserstein(same, held, 2)));
  CHECK(json["wasserstein_2"]["train"].number == doctest::Approx(tweedie::wasserstein(train, held, 2)));
  CHECK(json["wasserstein_2"]["rows"].number == 200);
  // Rows of one law: five standard errors.
  CHECK(std::abs(json["c2st"]["accuracy"].number - .5) < 5 * json["c2st"]["standard_error"].number);
  CHECK(json["c2st"]["columns"].number == 2);
  CHECK(json["left_out"].items.empty());
  const Outcome logp = tweedie::testing::tweedie(fitted(), "logp m.safetensors held.csv --json");
  REQUIRE_MESSAGE(logp.code == 0, logp.err);
  // Tolerances 1e-4 against 1e-5 of the flow.
  CHECK(std::abs(json["likelihood"]["mean_log_density"].number - Json::parse(logp.out)["mean_log_density"].number) < 5e-3);
  CHECK(std::abs(json["likelihood"]["median"].number - json["likelihood"]["mean_log_density"].number) < 1);
  CHECK(json["likelihood"]["bits_per_dim"].number ==
        doctest::Approx(-json["likelihood"]["mean_log_density"].number / (2 * std::log(2.))));
}

TEST_CASE("eval: rows far from the model's law stand out in every measure of samples") {
  const Json same = evaluated("--samples same.csv"), far = evaluated("--samples far.csv");
  CHECK(far["c2st"]["accuracy"].number > .95);
  CHECK(far["wasserstein_2"]["value"].number == doctest::Approx(5).epsilon(.1));
  CHECK(far["stein"]["samples"].number > 10 * std::abs(same["stein"]["samples"].number));
  CHECK(far["stein"]["samples_p_value"].number < .01);
  CHECK(far["stein"]["held_out"].number == same["stein"]["held_out"].number);  // the same rows, the same stream
  CHECK(far["likelihood"]["mean_log_density"].number == same["likelihood"]["mean_log_density"].number);
}

TEST_CASE("eval --metrics measures those alone, with the same numbers") {
  const Json all = evaluated("--samples same.csv"), some = evaluated("--samples same.csv --metrics c2st,loss");
  CHECK(some["c2st"]["accuracy"].number == all["c2st"]["accuracy"].number);
  CHECK(some["denoising_loss"].number == all["denoising_loss"].number);
  for (const char* key : {"wasserstein_2", "model_to_data", "stein", "likelihood"}) {
    CHECK(all.members.count(key) == 1);
    CHECK(some.members.count(key) == 0);
  }
  CHECK(evaluated("--metrics likelihood")["samples"].number == 0);  // none are needed, none are drawn
  const Outcome wrong = tweedie::testing::tweedie(fitted(), "eval m.safetensors held.csv --metrics loss,c2ts");
  CHECK(wrong.code == 2);
  CHECK(contains(wrong.err, "unknown metric 'c2ts'; did you mean 'c2st'"));
  CHECK(contains(wrong.err, "distances, wasserstein, c2st, stein, likelihood, loss"));
}

TEST_CASE("eval says what it leaves out and why") {
  write(fitted() / "few.csv", "x1,x2\n0.5,0\n-1,0.25\n1,0.1\n");
  const Outcome few = tweedie::testing::tweedie(fitted(), "eval m.safetensors few.csv --metrics all");
  REQUIRE_MESSAGE(few.code == 0, few.err);
  CHECK(contains(few.out, "left out: c2st: needs at least 10"));
  write(fitted() / "one.csv", "x1,x2\n0.5,0\n");
  const Outcome one = tweedie::testing::tweedie(fitted(), "eval m.safetensors one.csv --json");
  REQUIRE_MESSAGE(one.code == 0, one.err);
  CHECK(Json::parse(one.out)["left_out"].items.size() == 2);
}

TEST_CASE("eval of a wide table with a column that does not vary: Hutchinson's trace, the classifier without that column") {
  const Folder folder;
  std::string header, csv;
  for (int c = 0; c < 17; ++c) header += (c > 0 ? ",c" : "c") + std::to_string(c);
  for (int r = 0; r < 40; ++r) {
    for (int c = 0; c < 17; ++c) csv += (c > 0 ? "," : "") + std::to_string(c == 4 && r < 20 ? 1. : std::sin(r * 17 + c * c));
    csv += "\n";
  }
  write(folder / "train.csv", header + "\n" + csv);
  std::size_t end = 0;
  for (int line = 0; line < 20; ++line) end = csv.find('\n', end) + 1;
  write(folder / "held.csv", header + "\n" + csv.substr(0, end));
  REQUIRE(tweedie::testing::tweedie(folder, "train train.csv -o m.safetensors --net mlp --width 16 --depth 2 --steps 40").code ==
          0);
  const Outcome run = tweedie::testing::tweedie(folder, "eval m.safetensors held.csv --json --steps 8");
  REQUIRE_MESSAGE(run.code == 0, run.err);
  const Json json = Json::parse(run.out);
  CHECK(json["c2st"]["columns"].number == 16);
  CHECK(json["likelihood"]["divergence"].text == "hutchinson");
  const Outcome logp = tweedie::testing::tweedie(folder, "logp m.safetensors held.csv --json");
  REQUIRE_MESSAGE(logp.code == 0, logp.err);
  const double difference = json["likelihood"]["mean_log_density"].number - Json::parse(logp.out)["mean_log_density"].number;
  CHECK(std::abs(difference) < 5 * json["likelihood"]["standard_error"].number);
}
