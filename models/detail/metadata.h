// metadata.h - lists of texts in a checkpoint's flat metadata, as JSON arrays.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "tweedie/models/checkpoint.h"

namespace tweedie::detail {

std::string json_array(const std::vector<std::string>& texts);
/// Throws ModelFileError if the metadata has no such key, or no array of texts under it.
std::vector<std::string> metadata_array(const Checkpoint& checkpoint, const std::string& key);

}  // namespace tweedie::detail
