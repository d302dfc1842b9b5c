// json.h - a strict reader for the flat JSON of model files, and a small writer.
//
// The reader walks the text and keeps nothing of it: the caller asks for what must come next and gets it or an error that names
// the byte. Strict: RFC 8259 to the letter, valid UTF-8, no repeated keys, at most 16 levels deep, keys of at most 512 bytes;
// numbers are unsigned integers
// below 2^64. The writer's text is what such a reader accepts.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tweedie/core/export.h"

namespace tweedie {

/// Reads one JSON text by descent. Every error is a ModelFileError that begins with `name`.
///
///   JsonReader json(text, "model.safetensors");
///   json.begin_object();
///   while (json.next_key(key)) { if (key == "shape") { json.begin_array(); while (json.next_element()) json.integer(); } ... }
///   json.finish();
class TWEEDIE_API JsonReader {
 public:
  JsonReader(std::string_view text, std::string name);

  void begin_object();
  /// The next key of the innermost object; false at its end, which is consumed.
  bool next_key(std::string& key);
  void begin_array();
  /// Whether the innermost array has another element; false at its end, which is consumed.
  bool next_element();
  std::string string();
  std::uint64_t integer();
  /// Nothing but white space may follow.
  void finish();
  [[noreturn]] void fail_here(std::string_view what) const;

 private:
  struct Level {
    bool object;
    bool first;
    std::set<std::string, std::less<>> keys;
  };
  void skip_space();
  char peek();
  void expect(char c, std::string_view what);
  void begin(bool object);
  bool more(char closing);
  void unicode_escape(std::string& out);
  unsigned hex4();

  std::string_view text_;
  std::string name_;
  std::size_t at_ = 0;
  std::vector<Level> levels_;
};

/// Whether `text` is well-formed UTF-8 (no surrogates, nothing overlong, nothing above U+10FFFF).
TWEEDIE_API bool is_utf8(std::string_view text);
/// The number of bytes before the first that breaks UTF-8; text.size() when none does.
TWEEDIE_API std::size_t utf8_prefix(std::string_view text);

/// Writes compact JSON: commas and escapes are its business, the nesting the caller's.
///
///   JsonWriter json;
///   json.begin_object().key("loss").value(0.25).key("shape").begin_array().value(2).value(3).end_array().end_object();
///   json.text();   // {"loss":0.25,"shape":[2,3]}
///
/// Numbers are the shortest that read back as the same bits; NaN and infinities, which JSON does not have, become null.
class TWEEDIE_API JsonWriter {
 public:
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool truth);
  JsonWriter& value(float number);
  JsonWriter& value(double number);
  template <class T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>) JsonWriter& value(T number) {
    if constexpr (std::is_signed_v<T>) {
      return integer(static_cast<long long>(number));
    } else {
      return integer(static_cast<unsigned long long>(number));
    }
  }
  JsonWriter& null();
  /// The text so far; throws UsageError while an object or array is open. Text that is not UTF-8 throws at value() and key().
  const std::string& text() const;

 private:
  JsonWriter& integer(long long number);
  JsonWriter& integer(unsigned long long number);
  void separate();
  void quote(std::string_view text);

  std::string text_;
  std::vector<bool> first_;  // of each open level: nothing written in it yet
  bool after_key_ = false;
};

}  // namespace tweedie
