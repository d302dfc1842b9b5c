// SPDX-License-Identifier: MIT
#include "tweedie/plots/detail/text.h"

#include <cstdint>
#include <utility>

namespace tweedie::plots::detail {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the valid code point that starts at text[at], or 0. Overlong forms, surrogates and values past U+10FFFF are refused.
std::size_t valid_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7F ? 1 : 0;
  const std::size_t length = code_point_length(static_cast<unsigned char>(lead));
  if (length == 1 || at + length > text.size()) return 0;
  std::uint32_t value = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return 0;
    value = value << 6 | (byte(i) & 0x3Fu);
  }
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  const bool noncharacter = (value & 0xFFFEu) == 0xFFFE || (value >= 0x80 && value < 0xA0);
  return value < kLeast[length] || value > 0x10FFFF || surrogate || noncharacter ? 0 : length;
}

}  // namespace

std::size_t code_point_length(unsigned char lead) {
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  if (lead >= 0xF0 && lead < 0xF5) return 4;
  return 1;
}

std::string printable(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = valid_length(text, at);
    result += length == 0 ? kReplacement : text.substr(at, length);
    at += length == 0 ? 1 : length;
  }
  return result;
}

std::vector<Run> runs(std::string_view text) {
  std::vector<Run> result;
  std::string plain;
  const auto flush = [&] {
    if (!plain.empty()) result.push_back({std::exchange(plain, {}), 0});
  };
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool opens = (text[at] == '^' || text[at] == '_') && at + 1 < text.size() && text[at + 1] == '{';
    const std::size_t close = opens ? text.find_first_of("{}", at + 2) : std::string_view::npos;
    if (close == std::string_view::npos || text[close] == '{') {
      plain += text[at];
      continue;
    }
    flush();
    result.push_back({std::string(text.substr(at + 2, close - at - 2)), text[at] == '^' ? 1 : -1});
    at = close;
  }
  flush();
  return result;
}

}  // namespace tweedie::plots::detail
