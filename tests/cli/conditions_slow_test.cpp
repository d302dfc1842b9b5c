// Class-conditional rows of a real table land in their class: scikit-learn's wine (178 rows, 13 columns, 3 classes).
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "program.h"
#include "tweedie/core/files/csv.h"
#include "tweedie/core/statistics.h"
#include "tweedie/models/table.h"

using namespace tweedie::testing;
using tweedie::Index;
using tweedie::Matrix;
using tweedie::Table;

namespace {

constexpr int kClasses = 3;

// The file's first line counts rows and columns and names the classes; the last column is the class.
bool copy_wine(const std::string& path) {
  std::ifstream file(std::string(TWEEDIE_SHARED_DATA) + "/sklearn/wine_data.csv");
  std::string line, csv;
  if (!std::getline(file, line)) return false;
  for (int i = 0; i < 13; ++i) csv += "f" + std::to_string(i) + ",";
  csv += "cultivar\n";
  while (std::getline(file, line)) csv += line + "\n";
  write(path, csv);
  return true;
}

// A table's scaled rows of each class.
std::vector<Matrix> by_class(const tweedie::TableCode& code, const Table& table) {
  std::vector<Matrix> parts;
  const Matrix x = code.encode(table);
  const std::vector<double>& labels = table.columns[static_cast<std::size_t>(table.index("cultivar"))].numbers;
  for (int k = 0; k < kClasses; ++k) {
    Matrix part(std::count(labels.begin(), labels.end(), static_cast<double>(k)), x.cols());
    Index next = 0;
    for (Index r = 0; r < x.rows(); ++r) {
      if (labels[static_cast<std::size_t>(r)] == k) std::copy_n(x.row(r).data(), x.cols(), part.row(next++).data());
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

std::vector<double> centre(const Matrix& rows) {
  std::vector<double> mean(static_cast<std::size_t>(rows.cols()));
  for (Index r = 0; r < rows.rows(); ++r) {
    for (Index c = 0; c < rows.cols(); ++c)
      mean[static_cast<std::size_t>(c)] += static_cast<double>(rows(r, c)) / static_cast<double>(rows.rows());
  }
  return mean;
}

// The part of the rows whose nearest centre is that of class k.
double share_nearest(const Matrix& rows, const std::vector<std::vector<double>>& centres, int k) {
  Index hits = 0;
  for (Index r = 0; r < rows.rows(); ++r) {
    std::vector<double> squares;
    for (const std::vector<double>& m : centres) {
      double square = 0;
      for (Index c = 0; c < rows.cols(); ++c)
        square += std::pow(static_cast<double>(rows(r, c)) - m[static_cast<std::size_t>(c)], 2);
      squares.push_back(square);
    }
    hits += std::min_element(squares.begin(), squares.end()) - squares.begin() == k ? 1 : 0;
  }
  return static_cast<double>(hits) / static_cast<double>(rows.rows());
}

}  // namespace

TEST_CASE("wine: rows drawn for a class lie in it, more so with guidance, and the density knows the class") {
  const Folder folder;
  if (!copy_wine(folder / "wine.csv")) {
    std::puts("skipped: shared/data/sklearn is not beside this checkout");
    return;
  }
  const auto run = [&](const std::string& arguments) {
    const Outcome r = tweedie::testing::tweedie(folder, arguments);
    REQUIRE_MESSAGE(r.code == 0, r.err);
  };
  run("train wine.csv --class cultivar --net mlp --width 128 --steps 1000 -o m.safetensors");
  run("sample m.safetensors -n 900 -o plain.csv");
  const Table wine = tweedie::read_csv(folder / "wine.csv");
  Table features = wine;
  features.columns.pop_back();
  const tweedie::TableCode code = tweedie::TableCode::fit(features);
  const std::vector<Matrix> real = by_class(code, wine), plain = by_class(code, tweedie::read_csv(folder / "plain.csv"));
  std::vector<std::vector<double>> centres;
  for (const Matrix& rows : real) centres.push_back(centre(rows));
  for (int k = 0; k < kClasses; ++k) {
    CAPTURE(k);
    run("sample m.safetensors --class " + std::to_string(k) + " --guidance 2 -n 300 -o guided.csv");
    const Matrix guided = std::move(by_class(code, tweedie::read_csv(folder / "guided.csv"))[static_cast<std::size_t>(k)]);
    REQUIRE(guided.rows() == 300);
    const Matrix& drawn = plain[static_cast<std::size_t>(k)];
    const double own = tweedie::energy_distance(drawn, real[static_cast<std::size_t>(k)]);
    MESSAGE("nearest to its centre: rows ", share_nearest(real[static_cast<std::size_t>(k)], centres, k), ", drawn ",
            share_nearest(drawn, centres, k), ", guided ", share_nearest(guided, centres, k), "; energy distance ", own);
    CHECK(share_nearest(drawn, centres, k) > .9);
    CHECK(share_nearest(guided, centres, k) > .98);
    for (int other = 0; other < kClasses; ++other) {
      if (other != k) CHECK(own < .1 * tweedie::energy_distance(drawn, real[static_cast<std::size_t>(other)]));
    }
  }
  // log p(row | class) under each class: the largest is nearly always the row's own.
  std::vector<std::vector<double>> densities;
  for (int k = 0; k < kClasses; ++k) {
    Table supposed = wine;
    std::fill(supposed.columns.back().numbers.begin(), supposed.columns.back().numbers.end(), static_cast<double>(k));
    tweedie::write_csv(folder / "supposed.csv", supposed);
    run("logp m.safetensors supposed.csv --divergence hutchinson --probes 2 -o scores.csv");
    densities.push_back(tweedie::read_csv(folder / "scores.csv").columns[0].numbers);
  }
  int right = 0;
  for (std::size_t r = 0; r < static_cast<std::size_t>(wine.rows); ++r) {
    const int own = static_cast<int>(wine.columns.back().numbers[r]);
    int best = 0;
    for (int k = 1; k < kClasses; ++k)
      best = densities[static_cast<std::size_t>(k)][r] > densities[static_cast<std::size_t>(best)][r] ? k : best;
    right += best == own ? 1 : 0;
  }
  MESSAGE("rows likeliest under their own class: ", right, " of ", wine.rows);
  CHECK(right > 160);
}
