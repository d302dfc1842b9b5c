// precision_test.cpp - --precision: what it changes, where it is refused, what the program says of a machine without a unit for
// it. SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "program.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/kernels/kernels.h"

using namespace tweedie::testing;

namespace {

// Models of a perceptron and of a residual network.
const Folder& trained() {
  static const Folder folder;
  static const bool once = [] {
    const std::string common = "train builtin:moons --width 16 --steps 20 --batch 64 -o ";
    REQUIRE(tweedie::testing::tweedie(folder, common + "mlp.safetensors --net mlp").code == 0);
    REQUIRE(tweedie::testing::tweedie(folder, common + "ncsn.safetensors --levels 5").code == 0);
    REQUIRE(tweedie::testing::tweedie(folder, common + "residual.safetensors --net residual").code == 0);
    return true;
  }();
  static_cast<void>(once);
  return folder;
}

std::string sampled(const std::string& model, const std::string& options) {
  const Outcome r = tweedie::testing::tweedie(trained(), "sample " + model + " -n 40 -q -o s.csv " + options);
  REQUIRE_MESSAGE(r.code == 0, r.err);
  return read(trained() / "s.csv");
}

void refused(const std::string& arguments, const std::string& part) {
  const Outcome r = tweedie::testing::tweedie(trained(), arguments);
  CHECK_MESSAGE(r.code == 2, arguments, ": ", r.err);
  CHECK_MESSAGE(contains(r.err, part), part, " is not in: ", r.err);
}

}  // namespace

TEST_CASE("sample --precision draws in bf16 and bf16x3: other bytes, near ones, the same for any threads; the model stays") {
  for (const char* model : {"mlp.safetensors", "ncsn.safetensors"}) {
    const std::string options = std::string(model) == "mlp.safetensors" ? " --steps 10" : " --steps-per-level 5";
    const std::string before = read(trained() / model);
    const std::string fp32 = sampled(model, options), named = sampled(model, options + " --precision fp32"),
                      bf16x3 = sampled(model, options + " --precision bf16x3"),
                      bf16 = sampled(model, options + " --precision bf16 --threads 1"),
                      threads = sampled(model, options + " --precision bf16 --threads 3");
    CHECK(fp32 == named);
    CHECK(bf16 == threads);
    CHECK(fp32 != bf16);
    CHECK(bf16x3 != bf16);  // from fp32 it may differ below the table's decimals
    CHECK(read(trained() / model) == before);
    // A few steps from the same noise: near each other, not equal.
    const auto numbers = [&](const std::string& text) {
      write(trained() / "numbers.csv", text);
      return tweedie::read_csv(trained() / "numbers.csv");
    };
    const tweedie::Table a = numbers(fp32), b = numbers(bf16), c = numbers(bf16x3);
    double rough = 0, near = 0;
    for (std::size_t column = 0; column < 2; ++column) {
      for (std::size_t r = 0; r < 40; ++r) {
        rough = std::max(rough, std::fabs(a.columns[column].numbers[r] - b.columns[column].numbers[r]));
        near = std::max(near, std::fabs(a.columns[column].numbers[r] - c.columns[column].numbers[r]));
      }
    }
    CHECK(rough < .1);
    CHECK(near < rough / 8 + 2e-6);  // the table has six decimals
  }
}

TEST_CASE("the result says its precision, and the program where it is slower than fp32") {
  const std::string arguments = "sample ncsn.safetensors -n 5 --steps-per-level 1 -o s.csv --precision ";
  CHECK(Json::parse(tweedie::testing::tweedie(trained(), arguments + "bf16 --json").out)["precision"].text == "bf16");
  CHECK(contains(tweedie::testing::tweedie(trained(), arguments + "bf16x3").out, ", bf16x3, "));
  REQUIRE(setenv("TWEEDIE_TARGET", "portable", 1) == 0);
  const Outcome slow = tweedie::testing::tweedie(trained(), arguments + "bf16"),
                plain = tweedie::testing::tweedie(trained(), arguments + "fp32");
  REQUIRE(unsetenv("TWEEDIE_TARGET") == 0);
  CHECK(contains(slow.err, "--precision bf16 is slower than fp32 here: target portable has no unit for bf16"));
  CHECK_FALSE(contains(plain.err, "slower"));
  using tweedie::kernels::Target;
  if (!tweedie::kernels::available(Target::avx512_bf16)) {
    MESSAGE("not tried on this machine: target avx512_bf16");
    return;
  }
  CHECK_FALSE(contains(tweedie::testing::tweedie(trained(), arguments + "bf16").err, "slower"));
}

TEST_CASE("--precision is refused where nothing is sampled in it, with the remedy") {
  refused("sample residual.safetensors -n 5 -o s.csv --device cpu --precision bf16", "--net mlp");
  refused("sample mlp.safetensors -n 5 -o s.csv --precision bf61", "did you mean 'bf16'");
  write(trained() / "t.csv", "x1,x2\n.1,.2\n.3,\n");
  refused("train builtin:moons --steps 1 -o m.safetensors --device cpu --precision bf16", "tweedie train on a CUDA device");
  refused("sample mlp.safetensors -n 5 -o s.csv --device cpu --precision tf32", "choose fp32, bf16x3 or bf16");
  refused("logp mlp.safetensors t.csv --precision bf16", "leave --precision out");
  refused("impute mlp.safetensors t.csv -o full.csv --precision bf16x3", "tweedie sample");
  refused("eval mlp.safetensors t.csv --precision bf16", "leave --precision out");
}
