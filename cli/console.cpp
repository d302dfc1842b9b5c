// SPDX-License-Identifier: MIT
#include "tweedie/cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tweedie/core/check.h"

namespace tweedie::cli {

namespace {

bool terminal() {
  const char* kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && kind != nullptr && std::string_view(kind) != "dumb";
}

bool colours() {
  const char* no_color = std::getenv("NO_COLOR");
  return terminal() && (no_color == nullptr || *no_color == '\0');
}

void say(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::atomic<bool> g_interrupted{false};
const char* g_message = "";
static_assert(std::atomic<bool>::is_always_lock_free);

// Only what is safe in a handler: an atomic, write, _exit.
extern "C" void on_signal(int) {
  if (g_interrupted.exchange(true)) ::_exit(130);
  const int saved = errno;
  (void)!::write(STDERR_FILENO, g_message, std::strlen(g_message));
  errno = saved;
}

}  // namespace

void Console::note(std::string_view text) const {
  if (!quiet) say(join(text, '\n'));
}

void Console::warn(std::string_view text) const { say(join(colours() ? "\x1b[33mwarning:\x1b[0m " : "warning: ", text, '\n')); }

void print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  check<IoError>(written, "cannot write to standard output: ", std::strerror(errno));
}

void print_error(std::string_view text) { say(join(colours() ? "\x1b[1;31merror:\x1b[0m " : "error: ", text, '\n')); }

Progress::Progress(const Console& console, std::string label)
    : visible_(!console.quiet && terminal()), label_(std::move(label)), begin_(std::chrono::steady_clock::now()) {}

Progress::~Progress() { finish(); }

void Progress::update(std::int64_t done, std::int64_t total, std::string_view detail) {
  using namespace std::chrono;
  if (!visible_ || total <= 0) return;
  const auto now = steady_clock::now();
  if (first_done_ < 0) first_done_ = done;
  if (drawn_ && done < total && now - last_ < milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const double part = static_cast<double>(done) / static_cast<double>(total);
  const double elapsed = std::chrono::duration<double>(now - begin_).count();
  const std::int64_t fresh = done - first_done_;
  const std::string left =
      fresh > 0 ? join("  ", cli::duration(elapsed / static_cast<double>(fresh) * static_cast<double>(total - done)), " left")
                : "";
  constexpr int kCells = 24;
  const int full = static_cast<int>(part * kCells);
  const std::string filled(static_cast<std::size_t>(full), '#'), rest(static_cast<std::size_t>(kCells - full), '.');
  std::string line = join(label_, " [", filled, rest, "] ", static_cast<int>(100 * part), " %", left);
  if (!detail.empty()) line += join("  ", detail);
  const std::size_t width = terminal_width();
  if (line.size() >= width) line.resize(width - 1);
  if (colours()) {
    const std::size_t at = line.find(filled);
    if (full > 0 && at != std::string::npos)
      line = join(line.substr(0, at), "\x1b[32m", filled, "\x1b[0m", line.substr(at + filled.size()));
  }
  say(join("\r\x1b[K", line));
}

void Progress::finish() {
  if (drawn_) say("\r\x1b[K");
  drawn_ = false;
}

void catch_signals(const char* message) {
  g_message = message;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

const std::atomic<bool>& interrupted() { return g_interrupted; }

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

std::string duration(double seconds) {
  char text[64];
  if (!(seconds < 1e9)) return "?";
  if (seconds < 9.95) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
    return text;
  }
  const long long whole = std::llround(seconds);
  if (whole < 60) {
    std::snprintf(text, sizeof text, "%lld s", whole);
  } else if (whole < 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return text;
}

std::string pad(std::string_view text, std::size_t width, bool right) {
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; };  // a byte within a character
  const std::size_t length = text.size() - static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues));
  const std::string space(length < width ? width - length : 0, ' ');
  return right ? join(space, text) : join(text, space);
}

}  // namespace tweedie::cli
