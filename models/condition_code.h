// condition_code.h - the columns of a table that a model is conditioned on: one of classes, others of numbers, or both.
//
//   ConditionCode conditions = ConditionCode::fit(table, {.label = "species", .covariates = {"age"}});
//   TrainingData data{.rows = x, .labels = conditions.labels(table), .covariates = conditions.covariates(table)};
//
// Classes are the distinct values of the label column, sorted: numbers by size, else texts; class k is the k-th. Covariates are
// scaled as table.h scales what is modelled.
// A model file carries the tensor conditions.counts (K), the metadata conditions.label, conditions.classes, conditions.kind (text
// or numbers), conditions.columns (the whole table's names, in order), and the covariates' code under "covariates.".
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/models/table.h"

namespace tweedie {

class TWEEDIE_API ConditionCode {
 public:
  struct Choice {
    std::string label = {};                    // the column of classes; empty: none
    std::vector<std::string> covariates = {};  // columns of numbers
    bool standardise = true;                   // the covariates
  };

  /// Nothing to be conditioned on.
  ConditionCode() = default;
  /// Throws UsageError for a column that is not there or chosen twice, DataError naming column and row for a missing cell, for
  /// covariates as TableCode::fit(), and for a label column with one class, or with more than half as many as it has rows.
  static ConditionCode fit(const Table& table, const Choice& choice);

  bool empty() const { return num_classes() == 0 && covariate_dim() == 0; }
  Index num_classes() const { return static_cast<Index>(classes_.size()); }
  Index covariate_dim() const { return covariates_.dim(); }
  const std::string& label_column() const { return label_; }
  const std::vector<std::string>& classes() const { return classes_; }
  /// How many rows of the training table each class had, (K).
  const std::vector<double>& counts() const { return counts_; }
  bool classes_are_text() const { return text_; }
  const TableCode& covariate_code() const { return covariates_; }
  /// Names of the training table's columns, modelled ones and conditions, in its order.
  const std::vector<std::string>& columns() const { return columns_; }

  /// The class of a value: its exact text, or for numbers the same number. Throws UsageError listing the classes.
  std::int32_t label(std::string_view value) const;
  /// The number of a class whose values are numbers.
  double class_number(std::int32_t label) const;
  /// The rows' classes (N), empty for a model without. Throws DataError naming column and row for one that is missing or that the
  /// model has not seen.
  std::vector<std::int32_t> labels(const Table& table) const;
  /// The rows' scaled covariates (N, C). Errors as TableCode::encode(); columns go by name.
  Matrix covariates(const Table& table) const;

  void store(Checkpoint& checkpoint) const;
  /// An empty one when the file holds none. Throws ModelFileError for one that is damaged, or of other sizes than the network's.
  static ConditionCode load(const Checkpoint& checkpoint, const Network& network);

 private:
  std::string label_;
  bool text_ = false;
  std::vector<std::string> classes_;
  std::vector<double> counts_;  // as many as classes
  TableCode covariates_;
  std::vector<std::string> columns_;
};

}  // namespace tweedie
