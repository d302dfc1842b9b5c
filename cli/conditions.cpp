// SPDX-License-Identifier: MIT
#include "tweedie/cli/conditions.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>

#include "tweedie/core/detail/parse_number.h"

namespace tweedie::cli {

namespace {

constexpr const char* kDropout = "train.condition_dropout";

// How to come to a model that can be conditioned.
constexpr const char* kRemedy = "train one with --class COLUMN or --target COLUMNS";

bool drops_conditions(const ModelFile& model) {
  const auto found = model.checkpoint.metadata.find(kDropout);
  return found != model.checkpoint.metadata.end() && found->second != "0";
}

double parse_number(const std::string& text, const std::string& name) {
  const std::optional<double> value = detail::parse_number<double>(text);
  check(value && std::isfinite(*value), "--given ", name, "='", text, "' is no number");
  return *value;
}

std::vector<std::string> covariate_names(const ModelFile& model) {
  std::vector<std::string> names;
  for (const ColumnCode& column : model.conditions.covariate_code().columns()) names.push_back(column.name);
  return names;
}

// "a=1.5,b=2" as a number for each covariate.
std::vector<double> parse_given(const ModelFile& model, const std::string& text) {
  const std::vector<std::string> names = covariate_names(model);
  std::vector<double> values(names.size(), std::nan(""));
  for (const std::string& part : text.empty() ? std::vector<std::string>() : split_list(text)) {
    const std::size_t equals = part.find('=');
    check(equals != std::string::npos, "--given '", part, "' is not written name=value; the model is conditioned on ",
          listed(names));
    const std::string name = part.substr(0, equals);
    const auto found = std::find(names.begin(), names.end(), name);
    check(found != names.end(), unknown("column of --given", name, names));
    double& value = values[static_cast<std::size_t>(found - names.begin())];
    check(std::isnan(value), "--given names '", name, "' twice");
    value = parse_number(part.substr(equals + 1), name);
  }
  for (std::size_t c = 0; c < names.size(); ++c) {
    check(!std::isnan(values[c]), model.path, " is conditioned on ", listed(names), "; say what '", names[c], "' is: --given ",
          names[c], "=VALUE, separated by commas");
  }
  return values;
}

void check_guidance(const ModelFile& model, double weight) {
  check(weight == 1 || drops_conditions(model), "--guidance ", weight, " needs a model that knows its unconditional score, and ",
        model.path, " was trained with --condition-dropout 0; train it with .1, or leave --guidance at 1");
}

}  // namespace

void add_condition_options(CLI::App& app, ConditionArguments& a) {
  const char* group = "Conditions (models trained with --class or --target)";
  app.add_option("--class", a.value, "Rows of this class (default: each row's class by the training table's frequencies)")
      ->group(group)
      ->default_str("");
  app.add_option("--given", a.given, "Values of the --target columns: name=value[,name=value]")->group(group)->default_str("");
  app.add_option("--guidance", a.guidance,
                 "Classifier-free guidance w, s_null + w (s_cond - s_null): 1 the conditional model, above 1 the condition "
                 "exaggerated, 0 none of it")
      ->check(CLI::Number)
      ->group(group);
}

Asked given_parts(const ModelFile& model, const ConditionArguments& a) {
  const ConditionCode& conditions = model.conditions;
  check(model.network->num_classes() == conditions.num_classes() && model.network->covariate_dim() == conditions.covariate_dim(),
        model.path, " takes conditions and does not say what they are; it was not written by tweedie train: use it in a program");
  check(a.value.empty() || conditions.num_classes() > 0, "--class: ", model.path, " knows no classes; ", kRemedy);
  check(a.given.empty() || conditions.covariate_dim() > 0, "--given: ", model.path, " is conditioned on no columns; ", kRemedy);
  check(a.guidance == 1 || !conditions.empty(), "--guidance: ", model.path, " takes no condition; ", kRemedy);
  Asked asked;
  if (conditions.empty()) return asked;
  check(std::isfinite(a.guidance), "--guidance is ", a.guidance, "; give a finite number");
  check_guidance(model, a.guidance);
  if (!a.value.empty()) asked.label = conditions.label(a.value);
  if (!a.given.empty()) asked.values = parse_given(model, a.given);
  for (std::size_t c = 0; c < asked.values.size(); ++c) {
    asked.covariates.push_back(static_cast<float>(conditions.covariate_code().columns()[c].scaled(asked.values[c])));
  }
  return asked;
}

Asked asked_condition(const ModelFile& model, const ConditionArguments& a) {
  Asked asked = given_parts(model, a);
  if (a.given.empty()) parse_given(model, a.given);  // asks for the values that are needed
  check(
      asked.label || model.conditions.num_classes() == 0 || asked.values.empty(), model.path,
      " is conditioned on classes and columns together, and how often each class goes with which values it does not know; give a "
      "--class too: ",
      listed(model.conditions.classes()));
  return asked;
}

std::unique_ptr<ScoreModel> conditioned(const ModelFile& model, std::optional<std::int32_t> label,
                                        const std::vector<float>& covariates, double guidance) {
  const OwnedCondition condition = !label               ? OwnedCondition(covariates)
                                   : covariates.empty() ? OwnedCondition(*label)
                                                        : OwnedCondition(*label, covariates);
  if (guidance == 1) return std::make_unique<Conditioned>(model.score(), condition);
  return std::make_unique<Guided>(model.score(), guidance, condition);
}

std::unique_ptr<ScoreModel> one_condition(const ModelFile& model, const ConditionArguments& a, std::string_view what) {
  const Asked asked = asked_condition(model, a);
  if (model.conditions.empty()) return nullptr;
  check(asked.label || model.conditions.num_classes() == 0, what,
        " is of one class; choose it with --class: ", listed(model.conditions.classes()));
  return conditioned(model, asked.label, asked.covariates, a.guidance);
}

// ---- Tables

std::vector<std::string> known_columns(const ModelFile& model) {
  if (!model.conditions.empty()) return model.conditions.columns();
  std::vector<std::string> names;
  for (const ColumnCode& column : model.code.columns()) names.push_back(column.name);
  return names;
}

namespace {

// Those of the names that the table has, in the order of the names.
Table columns_of(const Table& table, const std::vector<std::string>& names) {
  Table part;
  part.rows = table.rows;
  part.has_header = table.has_header;
  for (const std::string& name : names) {
    for (const Table::Column& column : table.columns) {
      if (column.name == name) part.columns.push_back(column);
    }
  }
  return part;
}

// Without headers columns go by their places.
void name_by_place(Table& table, const std::vector<std::string>& names) {
  check<DataError>(table.cols() == static_cast<Index>(names.size()), "the table has ", table.cols(), " columns, the model ",
                   names.size(), " with its conditions; without headers on both sides columns go by position (--columns)");
  for (std::size_t c = 0; c < names.size(); ++c) table.columns[c].name = names[c];
}

}  // namespace

Table modelled_columns(const ModelFile& model, const Table& table) {
  if (model.conditions.empty()) return table;
  std::vector<std::string> modelled;
  for (const ColumnCode& column : model.code.columns()) modelled.push_back(column.name);
  return columns_of(table, modelled);
}

ModelRows load_rows(const ModelFile& model, const std::string& path, const TableArguments& arguments, const Console& console) {
  const ConditionCode& conditions = model.conditions;
  const std::vector<std::string> names = known_columns(model);
  Table table = read_table(path, arguments);
  const bool by_name = model.code.has_header() && table.has_header;
  if (by_name && arguments.columns.empty()) table = columns_of(table, names);
  check<DataError>(table.cols() > 0, path, " has none of the model's columns: ", listed(names));
  ModelRows rows;
  rows.table = prepare_table(std::move(table), path, arguments, console, {conditions.label_column()});
  const bool keep_missing = arguments.missing == "keep";
  if (conditions.empty()) {
    rows.x = model.code.encode(rows.table, keep_missing);
    return rows;
  }
  if (!by_name) name_by_place(rows.table, names);
  rows.x = model.code.encode(modelled_columns(model, rows.table), keep_missing);
  rows.labels = conditions.labels(rows.table);
  rows.covariates = conditions.covariates(rows.table);
  return rows;
}

std::vector<RowGroup> group_rows(const ModelFile& model, const ModelRows& rows, double guidance) {
  std::vector<RowGroup> groups;
  if (model.conditions.empty()) {
    groups.emplace_back().model = &model.score();
    for (Index r = 0; r < rows.x.rows(); ++r) groups[0].rows.push_back(r);
    return groups;
  }
  std::map<std::pair<std::int32_t, std::vector<float>>, std::size_t> known;
  for (Index r = 0; r < rows.x.rows(); ++r) {
    const std::int32_t label = rows.labels.empty() ? -1 : rows.labels[static_cast<std::size_t>(r)];
    std::vector<float> covariates;
    if (rows.covariates.rows() > 0) covariates.assign(rows.covariates.row(r).begin(), rows.covariates.row(r).end());
    const auto [at, fresh] = known.try_emplace({label, covariates}, groups.size());
    if (fresh) {
      groups.emplace_back();
      groups.back().owned = conditioned(model, label < 0 ? std::nullopt : std::optional(label), covariates, guidance);
      groups.back().model = groups.back().owned.get();
    }
    groups[at->second].rows.push_back(r);
  }
  return groups;
}

Matrix take_rows(ConstRows<float> x, const std::vector<Index>& rows) {
  Matrix taken(static_cast<Index>(rows.size()), x.cols());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x.row(rows[i]).data(), x.cols(), taken.row(static_cast<Index>(i)).data());
  }
  return taken;
}

ModelRows take_rows(const ModelRows& rows, const std::vector<Index>& places) {
  ModelRows taken;
  taken.x = take_rows(rows.x, places);
  if (!rows.labels.empty()) {
    for (const Index place : places) taken.labels.push_back(rows.labels[static_cast<std::size_t>(place)]);
  }
  if (rows.covariates.rows() > 0) taken.covariates = take_rows(rows.covariates, places);
  return taken;
}

std::vector<Index> rows_of(const ModelRows& rows, const Asked& asked) {
  std::vector<Index> places;
  for (Index r = 0; r < rows.x.rows(); ++r) {
    if (asked.label && rows.labels[static_cast<std::size_t>(r)] != *asked.label) continue;
    const bool same =
        asked.covariates.empty() || std::equal(asked.covariates.begin(), asked.covariates.end(), rows.covariates.row(r).begin());
    if (same) places.push_back(r);
  }
  return places;
}

std::vector<std::string> full_header(const ModelFile& model) {
  return model.code.has_header() ? known_columns(model) : std::vector<std::string>();
}

Index full_width(const ModelFile& model) { return static_cast<Index>(known_columns(model).size()); }

void check_holds_classes(const ModelFile& model, const std::string& path) {
  check(!model.conditions.classes_are_text() || is_stdout(path) || (!ends_with(path, ".npy") && !ends_with(path, ".npz")), path,
        ": column '", model.conditions.label_column(),
        "' of the model's table is text, which only a .csv holds; name the file so");
}

Table full_table(const ModelFile& model, ConstRows<double> values, std::span<const std::int32_t> labels,
                 const std::vector<double>& given) {
  const ConditionCode& conditions = model.conditions;
  const std::vector<ColumnCode>& modelled = model.code.columns();
  const std::vector<std::string> covariates = covariate_names(model);
  Table table;
  table.rows = values.rows();
  table.has_header = model.code.has_header();
  for (const std::string& name : known_columns(model)) {
    Table::Column column;
    column.name = name;
    const auto found = std::find_if(modelled.begin(), modelled.end(), [&](const ColumnCode& code) { return code.name == name; });
    const auto covariate = std::find(covariates.begin(), covariates.end(), name);
    for (Index r = 0; r < values.rows(); ++r) {
      if (found != modelled.end()) {
        column.numbers.push_back(values(r, found - modelled.begin()));
      } else if (covariate != covariates.end()) {
        column.numbers.push_back(given[static_cast<std::size_t>(covariate - covariates.begin())]);
      } else if (conditions.classes_are_text()) {
        column.text.push_back(conditions.classes()[static_cast<std::size_t>(labels[static_cast<std::size_t>(r)])]);
      } else {
        column.numbers.push_back(conditions.class_number(labels[static_cast<std::size_t>(r)]));
      }
    }
    column.numeric = column.text.size() == 0;
    table.columns.push_back(std::move(column));
  }
  return table;
}

}  // namespace tweedie::cli
