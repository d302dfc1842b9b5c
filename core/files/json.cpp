// SPDX-License-Identifier: MIT
#include "tweedie/core/files/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "tweedie/core/check.h"

namespace tweedie {

namespace {

constexpr std::size_t kMaxDepth = 16;
constexpr std::size_t kMaxKey = 512;  // keys are kept to find repetitions: many long ones would outweigh the file

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, unsigned code) {
  const auto put = [&out](unsigned byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// The length of the well-formed sequence at the start of `text`, or 0.  [Unicode 15, table 3-7]
std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  if (length == 0) return 0;
  // The second byte's range shuts out overlong forms (E0, F0), surrogates (ED) and what lies above U+10FFFF (F4).
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

}  // namespace

bool is_utf8(std::string_view text) { return utf8_prefix(text) == text.size(); }

std::size_t utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight = 0;
    if (text.size() - at >= 8) std::memcpy(&eight, text.data() + at, 8);
    if (text.size() - at >= 8 && (eight & 0x8080808080808080u) == 0) {  // eight plain characters at once
      at += 8;
      continue;
    }
    const std::size_t length = utf8_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

JsonReader::JsonReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

void JsonReader::fail_here(std::string_view what) const {
  fail<ModelFileError>(name_, ": ", what, " at byte ", at_, " of the JSON header; the file is damaged");
}

void JsonReader::skip_space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
}

char JsonReader::peek() {
  skip_space();
  if (at_ == text_.size()) fail_here("unexpected end");
  return text_[at_];
}

void JsonReader::expect(char c, std::string_view what) {
  if (peek() != c) fail_here(what);
  ++at_;
}

void JsonReader::begin(bool object) {
  if (levels_.size() == kMaxDepth) fail_here("nesting deeper than 16 levels");
  levels_.push_back({.object = object, .first = true, .keys = {}});
}

void JsonReader::begin_object() {
  expect('{', "expected an object");
  begin(true);
}

void JsonReader::begin_array() {
  expect('[', "expected an array");
  begin(false);
}

// Consumes the comma before the next member, or the closing bracket.
bool JsonReader::more(char closing) {
  Level& level = levels_.back();
  if (peek() == closing) {
    ++at_;
    levels_.pop_back();
    return false;
  }
  if (!level.first) expect(',', "expected a comma or the end of the list");
  level.first = false;
  return true;
}

bool JsonReader::next_key(std::string& key) {
  check(!levels_.empty() && levels_.back().object, "JsonReader::next_key: not in an object");
  if (!more('}')) return false;
  key = string();
  if (key.size() > kMaxKey) fail_here("a key of more than 512 bytes");
  if (!levels_.back().keys.insert(key).second) fail_here(join("the key \"", key, "\" stands twice"));
  expect(':', "expected a colon after the key");
  return true;
}

bool JsonReader::next_element() {
  check(!levels_.empty() && !levels_.back().object, "JsonReader::next_element: not in an array");
  return more(']');
}

unsigned JsonReader::hex4() {
  unsigned code = 0;
  const char* begin = text_.data() + at_;
  if (text_.size() - at_ < 4) fail_here("unexpected end in an escape");
  const auto [end, error] = std::from_chars(begin, begin + 4, code, 16);
  if (error != std::errc() || end != begin + 4) fail_here("expected four hexadecimal digits");
  at_ += 4;
  return code;
}

void JsonReader::unicode_escape(std::string& out) {
  unsigned code = hex4();
  if (code >= 0xDC00 && code <= 0xDFFF) fail_here("half a surrogate pair");
  if (code >= 0xD800 && code <= 0xDBFF) {
    if (text_.substr(at_, 2) != "\\u") fail_here("half a surrogate pair");
    at_ += 2;
    const unsigned low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail_here("half a surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

std::string JsonReader::string() {
  expect('"', "expected a string");
  std::string out;
  out.reserve(std::min(text_.find('"', at_), text_.size()) - at_);  // growing by doubling would hold a long text twice
  for (;;) {
    if (at_ == text_.size()) fail_here("unexpected end in a string");
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) < 0x20) fail_here("a control character in a string");
    if (c != '\\' && c != '"') {
      const std::size_t length = utf8_length(text_.substr(at_));
      if (length == 0) fail_here("text that is not UTF-8");
      out.append(text_, at_, length);
      at_ += length;
      continue;
    }
    ++at_;
    if (c == '"') return out;
    if (at_ == text_.size()) fail_here("unexpected end in a string");
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const char escape = text_[at_];
    const std::size_t which = kEscapes.find(escape);
    if (which == std::string_view::npos && escape != 'u') fail_here("an unknown escape");
    ++at_;
    if (escape == 'u') {
      unicode_escape(out);
    } else {
      out.push_back(kMeanings[which]);
    }
  }
}

std::uint64_t JsonReader::integer() {
  if (!is_digit(peek())) fail_here("expected a non-negative integer");
  const char* begin = text_.data() + at_;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
  if (error != std::errc()) fail_here("an integer of 2^64 or more");
  if (*begin == '0' && end - begin > 1) fail_here("an integer with a leading zero");
  at_ += static_cast<std::size_t>(end - begin);
  if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E')) fail_here("expected a whole number");
  return value;
}

void JsonReader::finish() {
  check(levels_.empty(), "JsonReader::finish: ", levels_.size(), " objects or arrays are still open");
  skip_space();
  if (at_ != text_.size()) fail_here("unexpected text after the end");
}

void JsonWriter::separate() {
  if (std::exchange(after_key_, false)) return;
  if (first_.empty()) {
    check(text_.empty(), "JsonWriter: a second value at the top");
    return;
  }
  if (!first_.back()) text_.push_back(',');
  first_.back() = false;
}

JsonWriter& JsonWriter::begin_object() {
  separate();
  text_.push_back('{');
  first_.push_back(true);
  return *this;
}

JsonWriter& JsonWriter::begin_array() {
  separate();
  text_.push_back('[');
  first_.push_back(true);
  return *this;
}

JsonWriter& JsonWriter::end_object() {
  check(!first_.empty() && !after_key_, "JsonWriter::end_object: no object is open, or a key has no value");
  first_.pop_back();
  text_.push_back('}');
  return *this;
}

JsonWriter& JsonWriter::end_array() {
  check(!first_.empty() && !after_key_, "JsonWriter::end_array: no array is open, or a key has no value");
  first_.pop_back();
  text_.push_back(']');
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  check(!first_.empty() && !after_key_, "JsonWriter::key: \"", name, "\" outside an object or after another key");
  separate();
  quote(name);
  text_.push_back(':');
  after_key_ = true;
  return *this;
}

void JsonWriter::quote(std::string_view text) {
  check(is_utf8(text), "JsonWriter: text that is not UTF-8: '", text, "'; convert it first");
  constexpr std::string_view kHex = "0123456789abcdef";
  text_.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const std::size_t short_form = std::string_view("\"\\\b\f\n\r\t").find(c);
    if (short_form != std::string_view::npos) {
      text_.push_back('\\');
      text_.push_back(std::string_view("\"\\bfnrt")[short_form]);
    } else if (byte < 0x20) {
      text_.append("\\u00");
      text_.push_back(kHex[byte >> 4]);
      text_.push_back(kHex[byte & 15]);
    } else {
      text_.push_back(c);
    }
  }
  text_.push_back('"');
}

JsonWriter& JsonWriter::value(std::string_view text) {
  separate();
  quote(text);
  return *this;
}

JsonWriter& JsonWriter::value(bool truth) {
  separate();
  text_.append(truth ? "true" : "false");
  return *this;
}

JsonWriter& JsonWriter::null() {
  separate();
  text_.append("null");
  return *this;
}

namespace {
template <class T>
void append_shortest(std::string& out, T number) {
  char text[40];
  const auto result = std::to_chars(text, text + sizeof text, number);
  out.append(text, result.ptr);
}
}  // namespace

JsonWriter& JsonWriter::value(float number) {
  if (!std::isfinite(number)) return null();
  separate();
  append_shortest(text_, number);
  return *this;
}

JsonWriter& JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  separate();
  append_shortest(text_, number);
  return *this;
}

JsonWriter& JsonWriter::integer(long long number) {
  separate();
  append_shortest(text_, number);
  return *this;
}

JsonWriter& JsonWriter::integer(unsigned long long number) {
  separate();
  append_shortest(text_, number);
  return *this;
}

const std::string& JsonWriter::text() const {
  check(first_.empty() && !after_key_, "JsonWriter::text: an object or array is still open");
  return text_;
}

}  // namespace tweedie
