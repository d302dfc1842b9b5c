// Models that are conditioned on columns of their table: trained, sampled, scored and used for imputation by their conditions.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "program.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/files/npy.h"

using namespace tweedie::testing;
using tweedie::Index;
using tweedie::Table;

namespace {

const std::string kSmall = " --net mlp --width 16 --depth 3 --lr .01 --valid-fraction 0";

// Two kinds of rows far apart, a quarter of them "high"; y follows the dose: y = 10 dose + a little.
const Folder& trained() {
  static const Folder folder;
  static const bool made = [] {
    std::string csv = "x,kind,dose,y\n";
    for (int i = 0; i < 120; ++i) {
      const bool high = i % 4 == 0;
      const double dose = (i * 7 % 40) / 10.;
      csv += std::to_string((high ? 20 : -20) + std::sin(i)) + (high ? ",high," : ",low,") + std::to_string(dose) + "," +
             std::to_string(10 * dose + .5 * std::cos(3 * i)) + "\n";
    }
    write(folder / "t.csv", csv);
    for (const char* options :
         {"--class kind --steps 300 -o class.safetensors", "--target dose --steps 300 -o target.safetensors",
          "--class kind --target dose --steps 300 -o both.safetensors",
          "--class kind --condition-dropout 0 --steps 4 -o sure.safetensors"}) {
      const Outcome run = tweedie::testing::tweedie(folder, std::string("train t.csv --columns x,y ") + options + kSmall);
      REQUIRE_MESSAGE(run.code == 0, run.err);
    }
    return true;
  }();
  (void)made;
  return folder;
}

Outcome run(const std::string& arguments) { return tweedie::testing::tweedie(trained(), arguments); }

Table rows_of(const std::string& arguments) {
  const Outcome r = run("sample " + arguments + " -o out.csv");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  return tweedie::read_csv(trained() / "out.csv");
}

std::map<std::string, int> count(const Table::Column& column) {
  std::map<std::string, int> counts;
  for (Index r = 0; r < column.text.size(); ++r) ++counts[std::string(column.text[r])];
  return counts;
}

void fails(const std::string& arguments, int code, std::initializer_list<const char*> parts) {
  const Outcome r = run(arguments);
  CHECK_MESSAGE(r.code == code, arguments, ": ", r.err);
  for (const char* part : parts) CHECK_MESSAGE(contains(r.err, part), part, " is not in: ", r.err);
}

}  // namespace

TEST_CASE("a table comes back with its class column, classes by their frequency, rows in their class") {
  const Table table = rows_of("class.safetensors -n 400");
  CHECK(table.header() == std::vector<std::string>{"x", "y", "kind"});
  std::map<std::string, int> counts = count(table.columns[2]);
  // 400 draws of probability 1/4: 100 +- 8.7; five deviations.
  CHECK(counts["high"] + counts["low"] == 400);
  CHECK(counts["high"] > 56);
  CHECK(counts["high"] < 144);
  int right = 0;
  for (Index r = 0; r < 400; ++r) {
    right += (table.columns[0].numbers[static_cast<std::size_t>(r)] > 0) == (table.columns[2].text[r] == "high") ? 1 : 0;
  }
  CHECK(right > 390);  // the classes lie 40 apart, with deviation .7 each

  const Table one = rows_of("class.safetensors -n 50 --class high --guidance 2");
  CHECK(count(one.columns[2])["high"] == 50);
  CHECK(std::count_if(one.columns[0].numbers.begin(), one.columns[0].numbers.end(), [](double x) { return x > 0; }) > 47);
}

TEST_CASE("the first rows are the same for every n, whatever their classes") {
  REQUIRE(run("sample class.safetensors -n 60 -o long.csv").code == 0);
  REQUIRE(run("sample class.safetensors -n 20 -o short.csv").code == 0);
  const std::string whole = read(trained() / "long.csv"), part = read(trained() / "short.csv");
  CHECK(whole.compare(0, part.size(), part) == 0);
}

TEST_CASE("covariates are given in the data's units and move what is drawn") {
  const auto mean_y = [](const std::string& given) {
    const Table table = rows_of("target.safetensors -n 100 --given dose=" + given);
    CHECK(table.header() == std::vector<std::string>{"x", "y", "dose"});
    CHECK(table.columns[2].numbers[5] == std::stod(given));
    double sum = 0;
    for (const double y : table.columns[1].numbers) sum += y / 100;
    return sum;
  };
  CHECK(mean_y("0.5") < 15);
  CHECK(mean_y("3.5") > 25);
  const Table both = rows_of("both.safetensors -n 20 --class low --given dose=2 --guidance 1.5");
  CHECK(both.header() == std::vector<std::string>{"x", "y", "dose", "kind"});
  CHECK(count(both.columns[3])["low"] == 20);
}

TEST_CASE("logp takes each row's condition from the table, in any order and among other columns") {
  write(trained() / "two.csv", "note,kind,y,x\nfine,high,20,20\nodd,low,20,20\n");
  const Outcome r = run("logp class.safetensors two.csv -o scores.csv");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  const Table scores = tweedie::read_csv(trained() / "scores.csv");
  CHECK(scores.columns[0].numbers[0] > scores.columns[0].numbers[1] + 5);  // the same point under the wrong class
  // Many conditions at once: covariates differ from row to row.
  CHECK(run("logp target.safetensors t.csv").code == 0);
  CHECK(run("logp both.safetensors t.csv --divergence hutchinson --probes 2").code == 0);
  fails("logp class.safetensors out.npy", 7, {"out.npy"});
  write(trained() / "bad.csv", "x,y,kind\n1,2,middle\n");
  fails("logp class.safetensors bad.csv", 3, {"row 1: 'middle'", "high, low"});
  write(trained() / "none.csv", "x,y\n1,2\n");
  fails("logp class.safetensors none.csv", 3, {"no column 'kind'"});
}

TEST_CASE("impute fills by the row's own condition, keeps every known cell, and needs the condition") {
  write(trained() / "gaps.csv", "x,y,kind\n,20,high\n,20,low\n-20.5,,low\n");
  for (const char* method : {"repaint --resample 2", "mmps"}) {
    const Outcome r = run(std::string("impute class.safetensors gaps.csv --steps 20 -o full.csv --draws 2 --method ") + method);
    REQUIRE_MESSAGE(r.code == 0, r.err);
    const Table table = tweedie::read_csv(trained() / "full.csv");
    CHECK(table.header() == std::vector<std::string>{"draw", "x", "y", "kind"});
    REQUIRE(table.rows == 6);
    CHECK(table.columns[1].numbers[0] > 0);
    CHECK(table.columns[1].numbers[2] < 0);
    CHECK(table.columns[1].numbers[4] == -20.5);
    CHECK(table.columns[2].numbers[0] == 20);
    CHECK(table.columns[3].text[2] == "low");
  }
  write(trained() / "lost.csv", "x,y,kind\n,20,\n");
  fails("impute class.safetensors lost.csv", 3, {"column 'kind', row 1", "conditioned"});
}

TEST_CASE("classes that are numbers, tables without a header") {
  std::string csv;
  for (int i = 0; i < 40; ++i)
    csv += std::to_string(i % 9) + "," + std::to_string(i % 2) + "," + std::to_string(std::sin(i)) + "\n";
  write(trained() / "plain.csv", csv);
  const Outcome r = run("train plain.csv --class 2 -o plain.safetensors --net mlp --width 8 --depth 2 --steps 5");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  REQUIRE(run("sample plain.safetensors -n 30 --class 1.0 -o plain.npy").code == 0);
  const tweedie::MatrixD x = tweedie::read_npy<double>(trained() / "plain.npy");
  REQUIRE(x.cols() == 3);
  CHECK(x(7, 1) == 1);
  CHECK(run("logp plain.safetensors plain.csv").code == 0);
  CHECK(run("logp plain.safetensors plain.npy").code == 0);
}

TEST_CASE("info tells classes and targets") {
  const Json info = Json::parse(run("info both.safetensors --json").out);
  CHECK(info["conditions"]["class"].text == "kind");
  CHECK(info["conditions"]["classes"].items[0]["name"].text == "high");
  CHECK(info["conditions"]["classes"].items[0]["rows"].number == 30);
  CHECK(info["conditions"]["targets"].items[0]["name"].text == "dose");
  const Outcome text = run("info both.safetensors");
  CHECK(contains(text.out, "kind: high (30), low (90)"));
  CHECK(contains(text.out, "dose, from 0 to 3.9"));
}

TEST_CASE("figures of a conditional model: rows of all classes, the field of one") {
  if (!contains(run("--help").out, "plot")) return;  // built without figures
  CHECK(run("plot class.safetensors --kind samples -n 20 -o f.svg").code == 0);
  CHECK(run("plot class.safetensors --class high --guidance 2 -o f.svg").code == 0);
  CHECK(run("plot target.safetensors --given dose=1 --resolution 5 -o g.svg").code == 0);
  fails("plot class.safetensors -o f.svg", 2, {"of one class", "high, low"});
  fails("plot class.safetensors --kind trajectories -o f.svg", 2, {"tweedie sample"});
  fails("plot t.csv --columns x,y --class high -o f.svg", 2, {"no model"});
}

TEST_CASE("conditions that cannot be met say what to do") {
  fails("train t.csv --net ncsn --class kind -o m.safetensors", 2, {"--net mlp, residual or energy"});
  fails("train t.csv --net mlp --target kind -o m.safetensors", 3, {"--class kind"});
  fails("train t.csv --net mlp --class x --columns x,y,dose -o m.safetensors", 3, {"--target"});
  fails("train t.csv --net mlp --class kin -o m.safetensors", 2, {"did you mean 'kind'"});
  fails("train t.csv --net mlp --columns x,y --condition-dropout .2 -o m.safetensors", 2, {"--class or --target"});
  fails("train builtin:moons --net mlp --class 1 -o m.safetensors", 2, {"no meaning for fresh draws"});
  fails("train t.csv --net mlp --columns x --target x -o m.safetensors", 2, {"leave some to be modelled"});
  fails("sample class.safetensors --class middle", 2, {"'middle' is no class of 'kind'", "high, low"});
  fails("sample class.safetensors --given dose=1", 2, {"conditioned on no columns", "--target"});
  fails("sample target.safetensors", 2, {"--given dose=VALUE"});
  fails("sample target.safetensors --given doze=1", 2, {"did you mean 'dose'"});
  fails("sample target.safetensors --given dose=much", 2, {"is no number"});
  fails("sample target.safetensors --class high --given dose=1", 2, {"knows no classes", "--class COLUMN"});
  fails("sample both.safetensors --given dose=1", 2, {"give a --class too"});
  fails("sample sure.safetensors --class high --guidance 2", 2, {"--condition-dropout 0"});
  fails("sample class.safetensors -o x.npy", 2, {"text", ".csv"});
  fails("sample class.safetensors --trajectory p.csv", 2, {"--class"});
  REQUIRE(run("train t.csv --columns x,y --net mlp --width 4 --depth 2 --steps 2 -o none.safetensors").code == 0);
  fails("sample none.safetensors --class high", 2, {"knows no classes", "--class COLUMN"});
  fails("sample none.safetensors --guidance 2", 2, {"takes no condition"});
}
