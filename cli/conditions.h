// conditions.h - models that are conditioned on columns of their table: asking for a condition, tables taken apart into modelled
// columns and conditions, and put together again.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tweedie/cli/model_file.h"
#include "tweedie/cli/program.h"
#include "tweedie/cli/tables.h"
#include "tweedie/samplers/guidance.h"

namespace tweedie::cli {

// ---- What a user asks for

struct ConditionArguments {
  std::string value;  // of the class; empty: none
  std::string given;  // a=1.5,b=2: covariates in the data's units
  double guidance = 1;
};

/// --class, --given, --guidance.
void add_condition_options(CLI::App& app, ConditionArguments& arguments);

/// One condition for all rows, or nothing: of a model without conditions, or with classes when none is asked for.
struct Asked {
  std::optional<std::int32_t> label;
  std::vector<double> values;     // of the covariates, (C), in the data's units
  std::vector<float> covariates;  // scaled
};
/// Throws UsageError with the remedy for a condition that the model does not take, has not seen, or is not given in full, and for
/// guidance of a model that has not learned its unconditional score.
Asked asked_condition(const ModelFile& model, const ConditionArguments& arguments);
/// Those parts of a condition that are given, and none need be: what rows are to be of. Errors as above.
Asked given_parts(const ModelFile& model, const ConditionArguments& arguments);
/// The model given a label and/or covariates, guided unless the weight is 1. The model outlives it.
std::unique_ptr<ScoreModel> conditioned(const ModelFile& model, std::optional<std::int32_t> label,
                                        const std::vector<float>& covariates, double guidance = 1);
/// The model under the one condition that is asked for, for what is drawn of one condition alone; nothing for a model without.
/// Throws UsageError where a class is not chosen, and as asked_condition().
std::unique_ptr<ScoreModel> one_condition(const ModelFile& model, const ConditionArguments& arguments, std::string_view what);

// ---- Tables

/// A table's rows as a model takes them.
struct ModelRows {
  Table table;                       // the columns that the model knows, in its training table's order
  Matrix x;                          // (N, D)
  std::vector<std::int32_t> labels;  // (N) or empty
  Matrix covariates;                 // (N, C) or empty
};
/// Reads a table; with headers on both sides the columns that the model knows are taken from among others, unless --columns says.
ModelRows load_rows(const ModelFile& model, const std::string& path, const TableArguments& arguments, const Console& console);

/// Rows that share a condition, with the model given it (the network itself where there is none).
struct RowGroup {
  std::vector<Index> rows;
  const ScoreModel* model = nullptr;
  std::unique_ptr<ScoreModel> owned = nullptr;
};
/// In the order of their first rows. The model outlives them.
std::vector<RowGroup> group_rows(const ModelFile& model, const ModelRows& rows, double guidance = 1);
/// The rows of x at these places.
Matrix take_rows(ConstRows<float> x, const std::vector<Index>& rows);
/// The same with their conditions, without the table.
ModelRows take_rows(const ModelRows& rows, const std::vector<Index>& places);
/// The places of the rows that have the parts of a condition that are asked for.
std::vector<Index> rows_of(const ModelRows& rows, const Asked& asked);
/// The columns that are modelled, of a table that load_rows() gave.
Table modelled_columns(const ModelFile& model, const Table& table);

/// The columns that a table of this model has, modelled ones and conditions, in the training table's order; and the same where
/// that table had a header, else nothing.
std::vector<std::string> known_columns(const ModelFile& model);
std::vector<std::string> full_header(const ModelFile& model);
Index full_width(const ModelFile& model);
/// Refuses a file that cannot hold a class column of texts.
void check_holds_classes(const ModelFile& model, const std::string& path);
/// Rows in the data's own units with their conditions' columns, in the training table's order. labels (N) or empty; given (C):
/// the covariates of all rows.
Table full_table(const ModelFile& model, ConstRows<double> values, std::span<const std::int32_t> labels,
                 const std::vector<double>& given);

}  // namespace tweedie::cli
