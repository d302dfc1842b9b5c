// console.h - how the program talks: results on stdout, messages and the progress bar on stderr; and its signals.
// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace tweedie::cli {

/// What every command may say.
class Console {
 public:
  bool quiet = false;  // no notes, no progress bar

  /// A message on stderr, unless quiet.
  void note(std::string_view text) const;
  /// A message on stderr that quiet does not silence.
  void warn(std::string_view text) const;
};

/// Writes a result to stdout at once; throws IoError when that fails (a full disk, a closed pipe).
void print(std::string_view text);

/// "error: text" on stderr, red where that is a terminal with colours.
void print_error(std::string_view text);

/// A bar with the time left, drawn on stderr only when that is a terminal, ten times a second at most.
class Progress {
 public:
  explicit Progress(const Console& console, std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(std::int64_t done, std::int64_t total, std::string_view detail = {});
  /// Clears the bar's line.
  void finish();

 private:
  bool visible_;
  bool drawn_ = false;
  std::int64_t first_done_ = -1;  // a resumed run begins in the middle
  std::string label_;
  std::chrono::steady_clock::time_point begin_, last_{};
};

/// SIGINT and SIGTERM set interrupted() and say `message` at once; a second one ends the program with 130 at once.
void catch_signals(const char* message);
const std::atomic<bool>& interrupted();

/// "0.0123", "1.2e-07": n significant digits.
std::string number(double value, int digits = 4);
/// "12 s", "3:07", "1:02:03".
std::string duration(double seconds);
/// UTF-8 text padded to a width in characters, left or right.
std::string pad(std::string_view text, std::size_t width, bool right = false);

}  // namespace tweedie::cli
