// tweedie eval of conditional models: each row under its own condition, samples for the held-out rows' conditions.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>

#include "program.h"

using namespace tweedie::testing;

namespace {

// Two classes 8 apart in x, a third of the rows "high"; y follows the dose.
std::string rows(int n, double phase, bool shuffled) {
  std::string csv = "x,kind,dose,y\n";
  for (int i = 0; i < n; ++i) {
    const bool high = i % 3 == 0, told = shuffled ? i % 7 < 2 : high;
    const double dose = (i * 7 % 20) / 5.;
    csv += std::to_string((high ? 4 : -4) + std::sin(9. * i + phase)) + (told ? ",high," : ",low,") + std::to_string(dose) + "," +
           std::to_string(2 * dose + std::cos(5. * i + 3 * phase)) + "\n";
  }
  return csv;
}

// A wide sigma_min, so that short runs fit the score there.
const std::string kSmall =
    " --columns x,y --net mlp --width 24 --depth 3 --lr .01 --sigma-min .1 --valid-fraction 0 --steps 300 -o ";

const Folder& trained() {
  static const Folder folder;
  static const bool made = [] {
    write(folder / "train.csv", rows(150, 0, false));
    write(folder / "shuffled.csv", rows(150, 0, true));
    write(folder / "held.csv", rows(60, 1, false));
    for (const char* command : {"train train.csv --class kind", "train train.csv --target dose",
                                "train train.csv --class kind --target dose", "train shuffled.csv --class kind"}) {
      static int count = 0;
      const char* names[] = {"class", "target", "both", "shuffled"};
      const Outcome run = tweedie::testing::tweedie(folder, command + kSmall + names[count++] + ".safetensors");
      REQUIRE_MESSAGE(run.code == 0, run.err);
    }
    return true;
  }();
  (void)made;
  return folder;
}

Outcome run(const std::string& arguments) { return tweedie::testing::tweedie(trained(), arguments); }

Json evaluated(const std::string& arguments) {
  const Outcome r = run("eval " + arguments + " --json");
  REQUIRE_MESSAGE(r.code == 0, arguments, r.err);
  return Json::parse(r.out);
}

void fails(const std::string& arguments, int code, std::initializer_list<const char*> parts) {
  const Outcome r = run(arguments);
  CHECK_MESSAGE(r.code == code, arguments, ": ", r.err);
  for (const char* part : parts) CHECK_MESSAGE(contains(r.err, part), part, " is not in: ", r.err);
}

}  // namespace

TEST_CASE("eval of models with classes, targets and both: every measure, the likelihood that of logp") {
  for (const std::string name : {"class", "target", "both"}) {
    const Json json = evaluated(name + ".safetensors held.csv --train train.csv");
    CHECK(json["left_out"].items.empty());
    CHECK(json["columns"].items.size() == 2);
    CHECK(json["samples"].number == 150);
    CHECK(json["conditions"]["targets"].items.size() == (name == "class" ? 0 : 1));
    CHECK(json["conditions"].members.count("classes") == (name == "target" ? 0 : 1));
    // Samples of a fitted model are as near as training rows are, give or take a short run's errors; unfitted ones lie at 1.
    CHECK(json["model_to_data"]["energy_distance"].number < .1);
    CHECK(json["stein"]["rows"].number == 60);
    const Outcome logp = run("logp " + name + ".safetensors held.csv --json");
    REQUIRE_MESSAGE(logp.code == 0, logp.err);
    // Tolerances 1e-4 against 1e-5 of the flow.
    CHECK(std::abs(json["likelihood"]["mean_log_density"].number - Json::parse(logp.out)["mean_log_density"].number) < 5e-3);
  }
  const Outcome text = run("eval both.safetensors held.csv");
  CHECK(contains(text.out,
                 "conditional on kind (2 classes) and dose: each row under its own condition; samples drawn for the "
                 "held-out rows' conditions\n"));
}

TEST_CASE("eval: a model that learned the classes is better at them than one of shuffled classes") {
  const Json right = evaluated("class.safetensors held.csv --class high"),
             wrong = evaluated("shuffled.safetensors held.csv --class high");
  CHECK(right["rows"].number == 20);
  CHECK(right["samples"].number == 20);
  CHECK(right["conditions"]["only_class"].text == "high");
  // The shuffled model gives "high" rows of both kinds: a third of the density in place, two thirds of the samples 8 away.
  CHECK(right["likelihood"]["mean_log_density"].number > wrong["likelihood"]["mean_log_density"].number + .5);
  CHECK(wrong["model_to_data"]["energy_distance"].number > 4 * right["model_to_data"]["energy_distance"].number);
  CHECK(evaluated("class.safetensors held.csv --metrics loss")["denoising_loss"].number <
        evaluated("shuffled.safetensors held.csv --metrics loss")["denoising_loss"].number);
}

TEST_CASE("eval draws for the held-out rows' conditions, and takes those of a file from the file") {
  // Held-out rows of one class: samples of that class alone.
  std::string csv = "x,y,kind\n";
  for (int i = 0; i < 12; ++i) csv += std::to_string(4 + std::sin(9. * i)) + "," + std::to_string(i / 2.) + ",high\n";
  write(trained() / "high.csv", csv);
  CHECK(evaluated("class.safetensors high.csv -n 60 --metrics distances --guidance 1.5")["model_to_data"]["energy_distance"]
            .number < .3);
  REQUIRE(run("sample class.safetensors -n 40 -o samples.csv").code == 0);
  const Json file = evaluated("class.safetensors held.csv --samples samples.csv");
  CHECK(file["samples"].number == 40);
  CHECK(file["stein"]["rows"].number == 40);
  // The same rows, each said to be of the other class, do not follow the score.
  std::string swapped = read(trained() / "samples.csv");
  for (std::size_t at = 0; (at = swapped.find_first_of("hl", at)) != std::string::npos; at += 4) {
    swapped.replace(at, swapped[at] == 'h' ? 4 : 3, swapped[at] == 'h' ? "low" : "high");
  }
  write(trained() / "swapped.csv", swapped);
  const auto stein = [](const std::string& arguments) {
    return evaluated("class.safetensors held.csv --metrics stein " + arguments)["stein"]["samples"].number;
  };
  const double other = stein("--samples swapped.csv");
  CHECK(other > 5 * std::abs(file["stein"]["samples"].number));
  CHECK(other > 5 * std::abs(stein("-n 40")));
}

TEST_CASE("eval of rows with a target's value, and what it refuses") {
  CHECK(evaluated("target.safetensors held.csv --given dose=1.4 --metrics loss")["rows"].number == 3);
  fails("eval target.safetensors held.csv --given dose=9", 3, {"held.csv has no row", "--given; leave it out"});
  fails("eval class.safetensors held.csv --class middle", 2, {"'middle' is no class of 'kind'", "high, low"});
  fails("eval target.safetensors held.csv --class high", 2, {"knows no classes", "--class COLUMN"});
  fails("eval class.safetensors held.csv --oracle two_mode", 2, {"law of all rows", "leave --oracle out"});
  fails("eval class.safetensors held.csv --guidance 2 --samples held.csv", 2, {"--guidance"});
  if (!contains(run("--help").out, "plot")) return;  // built without figures
  fails("plot class.safetensors --kind sigma-error --oracle two_mode -o f.svg", 2, {"law of all rows", "--class"});
}
