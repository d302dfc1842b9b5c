// SPDX-License-Identifier: MIT
#include "tweedie/models/detail/metadata.h"

#include "tweedie/core/files/json.h"

namespace tweedie::detail {

std::string json_array(const std::vector<std::string>& texts) {
  JsonWriter json;
  json.begin_array();
  for (const std::string& text : texts) json.value(text);
  json.end_array();
  return json.text();
}

std::vector<std::string> metadata_array(const Checkpoint& checkpoint, const std::string& key) {
  const auto found = checkpoint.metadata.find(key);
  check<ModelFileError>(found != checkpoint.metadata.end(), "the metadata has no '", key, "'; the file is damaged");
  JsonReader json(found->second, "metadata '" + key + "'");
  std::vector<std::string> texts;
  json.begin_array();
  while (json.next_element()) texts.push_back(json.string());
  json.finish();
  return texts;
}

}  // namespace tweedie::detail
