// Tables as networks see them: scaling, whole numbers, names, and the round trip through a model file.
// SPDX-License-Identifier: MIT
#include "tweedie/models/table.h"

#include <unistd.h>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "tweedie/models/score_network.h"

using namespace tweedie;

namespace {

Table make_table(const std::vector<std::string>& names, const MatrixD& values) { return to_table(names, values); }

// A checkpoint that has been on disk.
Checkpoint through_file(const Checkpoint& checkpoint) {
  const std::string path = "table_test." + std::to_string(::getpid()) + ".safetensors";
  write_checkpoint(path, checkpoint);
  Checkpoint read = read_checkpoint(path);
  std::remove(path.c_str());
  return read;
}

Checkpoint model_with(const TableCode& code) {
  Checkpoint checkpoint =
      make_checkpoint(NoiseConditionalScoreNetwork({.data_dim = code.dim(), .hidden_dim = 2, .num_noise_levels = 2}, Rng{1}));
  code.store(checkpoint);
  return checkpoint;
}

const MatrixD kValues = {{1.5, 10, 7}, {2.5, 20, 7}, {4.25, 60, 7}};

}  // namespace

TEST_CASE("fit: means, deviations (divided by n), kinds and ranges") {
  const TableCode code = TableCode::fit(make_table({"a", "b", "c"}, kValues));
  REQUIRE(code.dim() == 3);
  CHECK(code.columns()[0].mean == doctest::Approx(2.75).epsilon(1e-15));
  CHECK(code.columns()[0].std == doctest::Approx(std::sqrt((1.5625 + .0625 + 2.25) / 3)).epsilon(1e-15));
  CHECK(code.columns()[1].mean == doctest::Approx(30).epsilon(1e-15));
  CHECK(code.columns()[1].low == 10);
  CHECK(code.columns()[1].high == 60);
  CHECK(code.columns()[0].kind == ColumnKind::continuous);
  CHECK(code.columns()[1].kind == ColumnKind::integer);
  CHECK(code.columns()[2].constant());
  CHECK(code.columns()[2].std == 1);
  CHECK(code.header() == std::vector<std::string>{"a", "b", "c"});
  const TableCode plain = TableCode::fit(make_table({"a", "b", "c"}, kValues), Scaling::none);
  CHECK(plain.columns()[1].mean == 0);
  CHECK(plain.columns()[1].std == 1);
}

TEST_CASE("fit: a small spread on a large mean keeps its digits") {
  // 1e9 + {0, 1, 2}: the squares' sum cancels in double (1e18 + 1), Welford's does not.
  const TableCode code = TableCode::fit(make_table({"t"}, MatrixD{{1e9}, {1e9 + 1}, {1e9 + 2}}));
  CHECK(code.columns()[0].mean == 1e9 + 1);
  CHECK(code.columns()[0].std == doctest::Approx(std::sqrt(2. / 3)).epsilon(1e-12));
}

TEST_CASE("fit: a column with far outliers is scaled by a tenth of its range") {
  MatrixD values(1000, 1);
  values(7, 0) = 50;
  const TableCode code = TableCode::fit(make_table({"rare"}, values));  // deviation 50 sqrt(.001 * .999) = 1.58
  CHECK(code.columns()[0].std == 5);
  CHECK(code.columns()[0].mean == doctest::Approx(.05).epsilon(1e-12));
}

TEST_CASE("encode and decode are inverse; whole numbers come back exactly") {
  const Table table = make_table({"a", "b", "c"}, kValues);
  const TableCode code = TableCode::fit(table);
  const Matrix z = code.encode(table);
  for (Index c = 0; c < 2; ++c) {
    double mean = 0, square = 0;
    for (Index r = 0; r < 3; ++r) {
      mean += static_cast<double>(z(r, c)) / 3;
      square += std::pow(static_cast<double>(z(r, c)), 2) / 3;
    }
    CHECK(std::abs(mean) < 1e-6);
    CHECK(square == doctest::Approx(1).epsilon(1e-6));
  }
  const MatrixD back = code.decode(z);
  for (Index r = 0; r < 3; ++r) {
    // Half a unit of float in z, and the sixth digit below the deviation.
    CHECK(std::abs(back(r, 0) - kValues(r, 0)) < 3e-6);
    CHECK(back(r, 1) == kValues(r, 1));
    CHECK(back(r, 2) == 7);
  }
}

TEST_CASE("decode: whole numbers are rounded and kept in the range that was seen; a constant column comes back exactly") {
  const TableCode code = TableCode::fit(make_table({"k", "c"}, MatrixD{{0, 3.25}, {10, 3.25}}));
  const MatrixD out = code.decode(Matrix{{-3, 5}, {3, -5}, {0.1f, 0}, {-.99f, 0}});
  CHECK(out(0, 0) == 0);
  CHECK_FALSE(std::signbit(out(0, 0)));
  CHECK(out(1, 0) == 10);
  CHECK(out(2, 0) == 6);  // 5 + 5 * .1 = 5.5 in float is just above
  CHECK(out(3, 0) == 0);
  for (Index r = 0; r < 4; ++r) CHECK(out(r, 1) == 3.25);
}

TEST_CASE("encode: columns by name in any order and among others, by position without headers") {
  const TableCode code = TableCode::fit(make_table({"a", "b"}, MatrixD{{1, 10}, {3, 20}}));
  const Matrix straight = code.encode(make_table({"a", "b"}, MatrixD{{1, 10}}));
  const Matrix shuffled = code.encode(make_table({"x", "b", "a"}, MatrixD{{9, 10, 1}}));
  CHECK(straight(0, 0) == shuffled(0, 0));
  CHECK(straight(0, 1) == shuffled(0, 1));
  const Matrix bare = code.encode(make_table({}, MatrixD{{1, 10}}));
  CHECK(bare(0, 1) == straight(0, 1));
  CHECK_THROWS_WITH_AS(code.encode(make_table({"a", "c"}, MatrixD{{1, 10}})),
                       "the table has no column 'b', which the model was trained on", DataError);
  CHECK_THROWS_AS(code.encode(make_table({}, MatrixD{{1, 10, 2}})), DataError);
}

TEST_CASE("what cannot be used is refused with the column, the row and the remedy") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(TableCode::fit(make_table({"a"}, MatrixD{{1}, {nan}})),
                       "column 'a', row 2 has no value; leave such rows out (--missing drop) or fill them in", DataError);
  CHECK_THROWS_AS(TableCode::fit(make_table({"a"}, MatrixD{{1}, {infinity}})), DataError);
  CHECK_THROWS_AS(TableCode::fit(Table{}), UsageError);
  Table text = make_table({"a", "b"}, MatrixD{{1, 2}});
  text.columns[1].numeric = false;
  text.columns[1].numbers.clear();
  text.columns[1].text.push_back("red");
  CHECK_THROWS_WITH_AS(TableCode::fit(text),
                       "column 'b' holds text such as 'red'; select the numeric columns (--columns a,b,c), or turn it into "
                       "numbers first",
                       DataError);
  const TableCode code = TableCode::fit(make_table({"a"}, MatrixD{{1}, {2}}));
  CHECK_THROWS_AS(code.encode(make_table({"a"}, MatrixD{{nan}})), DataError);
  CHECK_THROWS_AS(code.encode(make_table({"a"}, MatrixD{{1e300}})), DataError);
  CHECK_THROWS_AS(code.decode(Matrix(1, 2)), UsageError);
}

TEST_CASE("the code survives a model file, whatever the names hold") {
  const std::vector<std::string> names = {"comma, \"quote\"", "line\nbreak", "back\\slash \xC3\xA9\t"};
  const TableCode code = TableCode::fit(make_table(names, kValues));
  const TableCode back = TableCode::load(through_file(model_with(code)), 3);
  REQUIRE(back.dim() == 3);
  CHECK(back.has_header());
  for (std::size_t c = 0; c < 3; ++c) {
    const ColumnCode &a = code.columns()[c], &b = back.columns()[c];
    CHECK(a.name == b.name);
    CHECK(a.kind == b.kind);
    CHECK(a.mean == b.mean);
    CHECK(a.std == b.std);
    CHECK(a.low == b.low);
    CHECK(a.high == b.high);
  }
  const TableCode bare = TableCode::load(through_file(model_with(TableCode::fit(make_table({}, kValues)))), 3);
  CHECK_FALSE(bare.has_header());
  CHECK(bare.header().empty());
  CHECK(bare.columns()[1].name == "x2");
}

TEST_CASE("a model without a table is taken as it is; a damaged code is refused") {
  const TableCode identity = TableCode::load(Checkpoint(), 2);
  const Matrix x{{1.5f, -300}};
  CHECK(identity.encode(to_table({}, MatrixD(x.view())))(0, 1) == -300);
  CHECK(identity.decode(x)(0, 0) == 1.5);

  const Checkpoint good = model_with(TableCode::fit(make_table({"a", "b", "c"}, kValues)));
  const auto broken = [&](const std::function<void(Checkpoint&)>& damage) {
    Checkpoint file = good;
    damage(file);
    CHECK_THROWS_AS(TableCode::load(file, 3), ModelFileError);
  };
  broken([](Checkpoint& f) { f.metadata.erase("columns.names"); });
  broken([](Checkpoint& f) { f.metadata["columns.names"] = "[\"a\",\"b\"]"; });
  broken([](Checkpoint& f) { f.metadata["columns.names"] = "[\"a\",\"b\",\"c\""; });
  broken([](Checkpoint& f) { f.metadata["columns.kinds"] = "[\"integer\",\"integer\",\"colour\"]"; });
  broken([](Checkpoint& f) { f.metadata["columns.header"] = "maybe"; });
  broken([](Checkpoint& f) { f.metadata.erase("columns.header"); });
  broken([](Checkpoint& f) { f.tensors.erase("data.std"); });
  broken([](Checkpoint& f) { f.set("data.std", {3}, std::vector<double>{1, 0, 1}); });
  broken([](Checkpoint& f) { f.set("data.mean", {3}, std::vector<double>{1, std::nan(""), 1}); });
  broken([](Checkpoint& f) { f.set("data.low", {3}, std::vector<double>{1, 1e9, 1}); });
  broken([](Checkpoint& f) { f.set("data.mean", {2}, std::vector<double>{1, 2}); });
}

namespace {

// Skewed, with ties; integers; a column of mostly one value with rare far ones; a constant.
MatrixD skewed_values(Index rows) {
  MatrixD values(rows, 4);
  for (Index r = 0; r < rows; ++r) {
    const double u = (static_cast<double>(r) + .5) / static_cast<double>(rows);
    values(r, 0) = std::exp(3 * u) + (r % 3 == 0 ? 0 : .25);
    values(r, 1) = std::floor(7 * u * u);
    values(r, 2) = r % 300 == 50 ? 16 : 0;
    values(r, 3) = 4;
  }
  return values;
}

}  // namespace

TEST_CASE("quantile scaling: scores of mean 0 and deviation 1, increasing with the value, and the way back") {
  const Table table = make_table({"skewed", "count", "rare", "same"}, skewed_values(600));
  const TableCode code = TableCode::fit(table, Scaling::quantile);
  CHECK_FALSE(code.affine());
  CHECK(TableCode::fit(table).affine());
  const Matrix scaled = code.encode(table);
  for (Index c = 0; c < 2; ++c) {
    double mean = 0, square = 0;
    for (Index r = 0; r < 600; ++r) {
      mean += static_cast<double>(scaled(r, c)) / 600;
      square += static_cast<double>(scaled(r, c)) * static_cast<double>(scaled(r, c)) / 600;
    }
    CHECK(std::abs(mean) < 1e-6);
    CHECK(square == doctest::Approx(1).epsilon(1e-6));
  }
  CHECK(scaled(50, 2) - scaled(1, 2) == doctest::Approx(10).epsilon(1e-6));  // rare: the range is ten units
  CHECK(scaled(0, 3) == 0);
  const MatrixD back = code.decode(scaled);
  for (Index r = 0; r < 600; ++r) {
    CHECK(back(r, 0) == doctest::Approx(skewed_values(600)(r, 0)).epsilon(1e-5));
    for (Index c = 1; c < 4; ++c) CHECK(back(r, c) == skewed_values(600)(r, c));
  }
  // Every second of 2,000 distinct values is a knot, and what lies between is as near as that.
  MatrixD many(2000, 1);
  for (Index r = 0; r < 2000; ++r) many(r, 0) = std::exp(static_cast<double>(r) / 200);
  const TableCode dense = TableCode::fit(make_table({"x"}, many), Scaling::quantile);
  CHECK(dense.columns()[0].values.size() == 1000);
  CHECK(dense.columns()[0].values.front() == 1);
  CHECK(dense.columns()[0].values.back() == many(1999, 0));
}

TEST_CASE("quantile scaling: a normal column is left as standardising leaves it") {
  MatrixD values(4000, 1);
  for (Index r = 0; r < 4000; ++r) {  // its quantiles
    double low = -8, high = 8;
    const double p = (static_cast<double>(r) + .5) / 4000;
    for (int i = 0; i < 60; ++i) (.5 * std::erfc(-.5 * (low + high) / std::sqrt(2.)) < p ? low : high) = .5 * (low + high);
    values(r, 0) = 5 + 2 * low;
  }
  const Table table = make_table({"x"}, values);
  const Matrix scores = TableCode::fit(table, Scaling::quantile).encode(table), plain = TableCode::fit(table).encode(table);
  for (Index r = 0; r < 4000; ++r) CHECK(std::abs(scores(r, 0) - plain(r, 0)) < 2e-3);
}

TEST_CASE("quantile scaling: inverse, slope and log-Jacobian agree with differences, inside and beyond the table") {
  const TableCode code = TableCode::fit(make_table({"skewed", "count", "rare", "same"}, skewed_values(600)), Scaling::quantile);
  for (const ColumnCode& column : code.columns()) {
    for (double value = column.low - 3; value <= column.high + 3; value += .0371) {
      const double z = column.scaled(value), h = 1e-7;
      CHECK(column.unscaled(z) == doctest::Approx(value).epsilon(1e-9));
      const double forward = (column.scaled(value + h) - z) / h, backward = (z - column.scaled(value - h)) / h;
      if (std::abs(forward - backward) < 1e-5 * forward) CHECK(column.slope(z) == doctest::Approx(forward).epsilon(1e-4));
    }
  }
  Matrix row(1, 4);
  for (Index c = 0; c < 4; ++c) row(0, c) = .3f;
  double sum = 0;
  for (const ColumnCode& column : code.columns()) sum += std::log(column.slope(static_cast<double>(.3f)));
  CHECK(code.log_jacobian(row)[0] == doctest::Approx(sum).epsilon(1e-14));
  CHECK(code.standardised().log_jacobian(row)[0] ==
        doctest::Approx(-std::log(code.columns()[0].std * code.columns()[1].std * code.columns()[2].std)).epsilon(1e-12));
}

TEST_CASE("quantile scaling: a model file keeps the knots, and damaged ones are refused") {
  const Table table = make_table({"skewed", "count", "rare", "same"}, skewed_values(600));
  const TableCode code = TableCode::fit(table, Scaling::quantile);
  const TableCode read = TableCode::load(through_file(model_with(code)), 4);
  for (std::size_t c = 0; c < 4; ++c) {
    CHECK(read.columns()[c].values == code.columns()[c].values);
    CHECK(read.columns()[c].scores == code.columns()[c].scores);
  }
  const Checkpoint good = model_with(code);
  const std::vector<double> counts = good.get("data.quantile_counts", {4});
  const auto total = static_cast<Index>(counts[0] + counts[1] + counts[2] + counts[3]);
  for (const char* name : {"data.quantile_values", "data.quantile_scores"}) {
    Checkpoint damaged = model_with(code);
    std::vector<double> knots = damaged.get(name, {total});
    std::swap(knots[3], knots[4]);
    damaged.set(name, {total}, knots);
    CHECK_THROWS_WITH_AS(TableCode::load(damaged, 4), doctest::Contains("do not increase"), ModelFileError);
    knots[3] = std::numeric_limits<double>::quiet_NaN();
    damaged.set(name, {total}, knots);
    CHECK_THROWS_AS(TableCode::load(damaged, 4), ModelFileError);
    damaged.set(name, {total - 1}, std::vector<double>(knots.begin(), knots.end() - 1));
    CHECK_THROWS_AS(TableCode::load(damaged, 4), ModelFileError);
  }
  for (const double count : {1., 2.5, -2., 1001., std::numeric_limits<double>::infinity()}) {
    Checkpoint damaged = model_with(code);
    damaged.set("data.quantile_counts", {4}, std::vector<double>{count, counts[1], counts[2], counts[3]});
    CHECK_THROWS_WITH_AS(TableCode::load(damaged, 4), doctest::Contains("quantile_counts"), ModelFileError);
  }
}
