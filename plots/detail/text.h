// text.h - text made fit to be drawn: valid UTF-8, and the simple markup for raised and lowered parts.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tweedie::plots::detail {

struct Run {
  std::string text;
  int shift = 0;  // +1 raised, -1 lowered
};

/// `text` with every byte that is not part of valid UTF-8, and every control character, replaced by U+FFFD.
std::string printable(std::string_view text);

/// "10^{-2} m" as {"10", 0}, {"-2", +1}, {" m", 0}. A brace that does not close, or one inside another, is plain text.
std::vector<Run> runs(std::string_view text);

/// Lengths in bytes of the code points of valid UTF-8, one by one.
std::size_t code_point_length(unsigned char lead);

}  // namespace tweedie::plots::detail
