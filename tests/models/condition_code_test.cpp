// Columns that a model is conditioned on: classes and covariates found, asked for, and carried through a model file.
// SPDX-License-Identifier: MIT
#include "tweedie/models/condition_code.h"

#include <unistd.h>

#include <doctest/doctest.h>

#include <cstdio>

#include "tweedie/models/continuous_network.h"

using namespace tweedie;

namespace {

Table parse(const std::string& csv) { return parse_csv(std::as_bytes(std::span(csv)), "test"); }

const char* const kTable = "a,kind,b,grade\n1,oak,10,2\n2,ash,20,10\n3,oak,30,2\n4,elm,40,10\n5,oak,60,2\n6,elm,80,2\n";

Checkpoint checkpoint_of(const ConditionCode& code) {
  Checkpoint checkpoint = make_checkpoint(ContinuousScoreNetwork(
      {.data_dim = 1, .hidden_dim = 3, .num_classes = code.num_classes(), .covariate_dim = code.covariate_dim()}, Rng{1}));
  code.store(checkpoint);
  const std::string path = "condition_code_test." + std::to_string(::getpid()) + ".safetensors";
  write_checkpoint(path, checkpoint);
  Checkpoint read = read_checkpoint(path);
  std::remove(path.c_str());
  return read;
}

}  // namespace

TEST_CASE("classes are the sorted distinct values: texts by spelling, numbers by size") {
  const Table table = parse(kTable);
  const ConditionCode text = ConditionCode::fit(table, {.label = "kind"});
  CHECK(text.classes() == std::vector<std::string>{"ash", "elm", "oak"});
  CHECK(text.counts() == std::vector<double>{1, 2, 3});
  CHECK(text.classes_are_text());
  CHECK(text.labels(table) == std::vector<std::int32_t>{2, 0, 2, 1, 2, 1});
  CHECK(text.columns() == std::vector<std::string>{"a", "kind", "b", "grade"});
  CHECK(text.covariate_dim() == 0);
  CHECK(text.covariates(table).rows() == 0);

  const ConditionCode numbers = ConditionCode::fit(table, {.label = "grade"});
  CHECK(numbers.classes() == std::vector<std::string>{"2", "10"});
  CHECK_FALSE(numbers.classes_are_text());
  CHECK(numbers.label("10") == 1);
  CHECK(numbers.label("2.0") == 0);
  CHECK(numbers.class_number(1) == 10);
  CHECK(ConditionCode().empty());
}

TEST_CASE("covariates are scaled as the data is and found by name") {
  const Table table = parse(kTable);
  const ConditionCode code = ConditionCode::fit(table, {.label = "kind", .covariates = {"b", "a"}});
  CHECK(code.covariate_code().columns()[0].mean == doctest::Approx(40));
  const Matrix x = code.covariates(table);
  REQUIRE(x.rows() == 6);
  CHECK(x(3, 0) == 0);
  CHECK(x(0, 1) == doctest::Approx(-2.5 / std::sqrt(35. / 12)).epsilon(1e-6));
  const Table other = parse("b,z,a\n40,1,3.5\n");
  CHECK(code.covariates(other)(0, 0) == 0);
  CHECK(code.covariates(other)(0, 1) == 0);
  const ConditionCode plain = ConditionCode::fit(table, {.covariates = {"b"}, .standardise = false});
  CHECK(plain.covariates(table)(5, 0) == 80);
  CHECK(plain.num_classes() == 0);
}

TEST_CASE("what cannot be a condition says why") {
  const Table table = parse(kTable);
  CHECK_THROWS_AS(ConditionCode::fit(table, {.label = "colour"}), UsageError);
  CHECK_THROWS_AS(ConditionCode::fit(table, {.label = "b", .covariates = {"b"}}), UsageError);
  CHECK_THROWS_WITH_AS(ConditionCode::fit(table, {.label = "a"}), doctest::Contains("--target"), DataError);
  CHECK_THROWS_AS(ConditionCode::fit(table, {.covariates = {"kind"}}), DataError);
  CHECK_THROWS_WITH_AS(ConditionCode::fit(parse("a,c\n1,x\n2,x\n3,x\n4,x\n"), {.label = "c"}), doctest::Contains("same value"),
                       DataError);
  CHECK_THROWS_WITH_AS(ConditionCode::fit(parse("a,c\n1,x\n2,\n3,y\n4,y\n"), {.label = "c"}), doctest::Contains("row 2"),
                       DataError);
  const ConditionCode code = ConditionCode::fit(table, {.label = "kind"});
  CHECK_THROWS_WITH_AS(code.label("pine"), doctest::Contains("ash, elm, oak"), UsageError);
  CHECK_THROWS_WITH_AS(code.labels(parse("kind\noak\npine\n")), doctest::Contains("row 2: 'pine'"), DataError);
  CHECK_THROWS_AS(code.labels(parse("a\n1\n")), DataError);
}

TEST_CASE("a model file carries the conditions, and a damaged one is refused") {
  const Table table = parse(kTable);
  const ConditionCode code = ConditionCode::fit(table, {.label = "grade", .covariates = {"b"}});
  const Checkpoint file = checkpoint_of(code);
  const std::unique_ptr<Network> network = make_network(file);
  const ConditionCode read = ConditionCode::load(file, *network);
  CHECK(read.classes() == code.classes());
  CHECK(read.counts() == code.counts());
  CHECK(read.columns() == code.columns());
  CHECK(read.label_column() == "grade");
  CHECK_FALSE(read.classes_are_text());
  CHECK(read.labels(table) == code.labels(table));
  CHECK(read.covariates(table)(4, 0) == code.covariates(table)(4, 0));

  CHECK(ConditionCode::load(make_checkpoint(*network), *network).empty());
  const auto damaged = [&](const auto& change) {
    Checkpoint bad = file;
    change(bad);
    CHECK_THROWS_AS(ConditionCode::load(bad, *network), ModelFileError);
  };
  damaged([](Checkpoint& c) { c.metadata.erase("conditions.label"); });
  damaged([](Checkpoint& c) { c.metadata["conditions.kind"] = "colours"; });
  damaged([](Checkpoint& c) { c.metadata["conditions.classes"] = "[\"2\"]"; });
  damaged([](Checkpoint& c) { c.metadata["conditions.classes"] = "[\"2\",\"ten\"]"; });
  damaged([](Checkpoint& c) { c.metadata["conditions.classes"] = "[2,3"; });
  damaged([](Checkpoint& c) { c.tensors.erase("conditions.counts"); });
  damaged([](Checkpoint& c) { c.set("conditions.counts", {2}, std::vector<double>{0, 0}); });
  damaged([](Checkpoint& c) { c.set("conditions.counts", {2}, std::vector<double>{-1, 2}); });
  damaged([](Checkpoint& c) { c.tensors.erase("covariates.data.mean"); });
}
