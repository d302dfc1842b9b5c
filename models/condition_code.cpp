// SPDX-License-Identifier: MIT
#include "tweedie/models/condition_code.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "tweedie/core/detail/parse_number.h"
#include "tweedie/models/detail/metadata.h"

namespace tweedie {

namespace {

std::optional<double> to_number(std::string_view text) {
  std::optional<double> value = detail::parse_number<double>(text);
  if (value) *value += 0.;  // no -0
  return value;
}

// A cell as the name of its class; numbers in the shortest form that reads back.
std::string cell_text(const Table::Column& column, Index row) {
  const auto i = static_cast<std::size_t>(row);
  const bool missing = column.numeric ? std::isnan(column.numbers[i]) : column.text[row].empty();
  check<DataError>(!missing, "column '", column.name, "', row ", row + 1,
                   " has no value, and the model is conditioned on it; fill it in or leave the row out (--missing drop)");
  return column.numeric ? join(column.numbers[i] + 0.) : std::string(column.text[row]);
}

const Table::Column& column_of(const Table& table, const std::string& name) {
  const auto found =
      std::find_if(table.columns.begin(), table.columns.end(), [&](const Table::Column& column) { return column.name == name; });
  check<DataError>(found != table.columns.end(), "the table has no column '", name, "', which the model is conditioned on");
  return *found;
}

Table part_of(const Table& table, const std::vector<std::string>& names) {
  Table part;
  part.rows = table.rows;
  part.has_header = true;  // chosen by name
  for (const std::string& name : names) part.columns.push_back(column_of(table, name));
  return part;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 50;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kShown ? join(text, ", ... (", names.size(), " in all)") : text;
}

}  // namespace

ConditionCode ConditionCode::fit(const Table& table, const Choice& choice) {
  ConditionCode code;
  code.columns_ = table.names();
  std::vector<std::string> chosen = choice.covariates;
  if (!choice.label.empty()) chosen.push_back(choice.label);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    table.index(chosen[i]);
    check(std::count(chosen.begin(), chosen.end(), chosen[i]) == 1, "ConditionCode::fit: column '", chosen[i],
          "' is chosen twice; it is either the classes or a covariate");
  }
  if (!choice.covariates.empty())
    code.covariates_ =
        TableCode::fit(part_of(table, choice.covariates), choice.standardise ? Scaling::standardise : Scaling::none);
  if (choice.label.empty()) return code;

  const Table::Column& column = column_of(table, choice.label);
  code.label_ = choice.label;
  code.text_ = !column.numeric;
  std::map<std::string, double> counts;
  for (Index r = 0; r < table.rows; ++r) ++counts[cell_text(column, r)];
  const auto found = static_cast<Index>(counts.size());
  check<DataError>(found > 1, "column '", choice.label, "' has the same value in every row; a model needs no such condition");
  check<DataError>(found <= table.rows / 2, "column '", choice.label, "' has ", found, " different values in ", table.rows,
                   " rows, too few rows of each to learn from; condition on a number as a covariate (--target)");
  for (const auto& [name, count] : counts) code.classes_.push_back(name);
  if (!code.text_) {
    std::sort(code.classes_.begin(), code.classes_.end(),
              [](const std::string& a, const std::string& b) { return *to_number(a) < *to_number(b); });
  }
  for (const std::string& name : code.classes_) code.counts_.push_back(counts[name]);
  return code;
}

std::int32_t ConditionCode::label(std::string_view value) const {
  const std::optional<double> number = text_ ? std::nullopt : to_number(value);
  for (std::size_t k = 0; k < classes_.size(); ++k) {
    if (classes_[k] == value || (number && to_number(classes_[k]) == number)) return static_cast<std::int32_t>(k);
  }
  fail("'", value, "' is no class of '", label_, "'; the model knows ", listed(classes_));
}

double ConditionCode::class_number(std::int32_t label) const { return *to_number(classes_[static_cast<std::size_t>(label)]); }

std::vector<std::int32_t> ConditionCode::labels(const Table& table) const {
  std::vector<std::int32_t> labels;
  if (num_classes() == 0) return labels;
  std::map<std::string, std::int32_t> known;
  for (Index k = 0; k < num_classes(); ++k) known[classes_[static_cast<std::size_t>(k)]] = static_cast<std::int32_t>(k);
  const Table::Column& column = column_of(table, label_);
  for (Index r = 0; r < table.rows; ++r) {
    const std::string text = cell_text(column, r);
    const auto found = known.find(text);
    check<DataError>(found != known.end(), "column '", label_, "', row ", r + 1, ": '", text,
                     "' is no class that the model has seen; it knows ", listed(classes_));
    labels.push_back(found->second);
  }
  return labels;
}

Matrix ConditionCode::covariates(const Table& table) const {
  if (covariate_dim() == 0) return {};
  std::vector<std::string> names;
  for (const ColumnCode& column : covariates_.columns()) names.push_back(column.name);
  return covariates_.encode(part_of(table, names));
}

void ConditionCode::store(Checkpoint& checkpoint) const {
  if (empty()) return;
  checkpoint.metadata["conditions.columns"] = detail::json_array(columns_);
  if (covariate_dim() > 0) covariates_.store(checkpoint, "covariates.");
  if (num_classes() == 0) return;
  checkpoint.metadata["conditions.label"] = label_;
  checkpoint.metadata["conditions.kind"] = text_ ? "text" : "numbers";
  checkpoint.metadata["conditions.classes"] = detail::json_array(classes_);
  checkpoint.set("conditions.counts", {num_classes()}, counts_);
}

ConditionCode ConditionCode::load(const Checkpoint& checkpoint, const Network& network) {
  ConditionCode code;
  if (checkpoint.metadata.find("conditions.columns") == checkpoint.metadata.end()) return code;
  code.columns_ = detail::metadata_array(checkpoint, "conditions.columns");
  check<ModelFileError>(network.covariate_dim() == 0 || checkpoint.has("covariates.data.mean"), "the network has ",
                        network.covariate_dim(), " covariates and the file does not say what they are; the file is damaged");
  if (network.covariate_dim() > 0) code.covariates_ = TableCode::load(checkpoint, network.covariate_dim(), "covariates.");
  if (network.num_classes() == 0) return code;

  const auto label = checkpoint.metadata.find("conditions.label"), kind = checkpoint.metadata.find("conditions.kind");
  check<ModelFileError>(label != checkpoint.metadata.end() && kind != checkpoint.metadata.end(),
                        "the metadata has no conditions.label or no conditions.kind, and the network has ", network.num_classes(),
                        " classes; the file is damaged");
  check<ModelFileError>(kind->second == "text" || kind->second == "numbers", "conditions.kind is '", kind->second,
                        "', expected text or numbers");
  code.label_ = label->second;
  code.text_ = kind->second == "text";
  code.classes_ = detail::metadata_array(checkpoint, "conditions.classes");
  code.counts_ = checkpoint.get("conditions.counts", {network.num_classes()});
  check<ModelFileError>(code.num_classes() == network.num_classes(), "the metadata names ", code.num_classes(),
                        " classes, the network has ", network.num_classes());
  double total = 0;
  for (const double count : code.counts_) {
    check<ModelFileError>(std::isfinite(count) && count >= 0, "conditions.counts holds ", count, ", which counts nothing");
    total += count;
  }
  check<ModelFileError>(total > 0 && std::isfinite(total), "conditions.counts holds no rows");
  for (const std::string& name : code.classes_) {
    check<ModelFileError>(code.text_ || to_number(name), "class '", name, "' of '", code.label_, "' is no number");
  }
  return code;
}

}  // namespace tweedie
