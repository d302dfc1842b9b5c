// SPDX-License-Identifier: MIT
#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace tweedie::testing {

namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> list;
  for (std::string word; stream >> word;) list.push_back(word);
  return list;
}

[[noreturn]] void become_program(const std::string& folder, const std::vector<std::string>& arguments, const RunOptions& options,
                                 int out, int err) {
  if (!options.stdout_to.empty()) out = ::open(options.stdout_to.c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(out, 1);
  ::dup2(err, 2);
  if (options.file_limit > 0) {
    const rlimit limit{static_cast<rlim_t>(options.file_limit), static_cast<rlim_t>(options.file_limit)};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);  // write() then fails with EFBIG, as a full disk does with ENOSPC
  }
  ::unsetenv("NO_COLOR");
  if (options.no_color) ::setenv("NO_COLOR", "1", 1);
  ::setenv("TERM", "xterm", 1);
  std::vector<char*> argv = {const_cast<char*>("tweedie")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  if (::chdir(folder.c_str()) == 0) ::execv(TWEEDIE_PROGRAM, argv.data());
  ::_exit(127);
}

int open_terminal(int& slave) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) throw std::runtime_error("no pseudo-terminal");
  slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  return master;
}

}  // namespace

Outcome tweedie(const std::string& folder, const std::string& arguments, const RunOptions& options) {
  using Clock = std::chrono::steady_clock;
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  if (options.terminal) {
    err[0] = open_terminal(err[1]);
  } else if (::pipe2(err, O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe");
  }
  const std::vector<std::string> list = words(arguments);
  const pid_t child = ::fork();
  if (child == 0) become_program(folder, list, options, out[1], err[1]);
  ::close(out[1]);
  ::close(err[1]);

  Outcome result;
  pollfd ends[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string* texts[2] = {&result.out, &result.err};
  int open = 2, sent = 0;
  auto armed = Clock::now();
  bool waiting_for_text = !options.interrupt_when.empty();
  while (open > 0) {
    ::poll(ends, 2, 5);
    for (int i = 0; i < 2; ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      char buffer[65536];
      const ssize_t n = ::read(ends[i].fd, buffer, sizeof buffer);
      if (n > 0) {
        texts[i]->append(buffer, static_cast<std::size_t>(n));
      } else {
        ends[i].fd = -1;
        --open;
      }
    }
    if (waiting_for_text && contains(result.err, options.interrupt_when)) {
      waiting_for_text = false;
      armed = Clock::now();
    }
    const double elapsed = std::chrono::duration<double>(Clock::now() - armed).count();
    const double due = sent == 0 ? options.interrupt_after : sent == 1 ? options.again_after : 0;
    if (!waiting_for_text && due > 0 && elapsed > due) {
      ::kill(child, SIGINT);
      ++sent;
      armed = Clock::now();
    }
  }
  ::close(out[0]);
  ::close(err[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "tweedie-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> Folder::files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const Json& Json::operator[](const std::string& key) const {
  const auto found = members.find(key);
  if (found == members.end()) throw std::runtime_error("JSON has no key " + key);
  return found->second;
}

namespace {

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}
  Json all() {
    Json json = value();
    space();
    if (at_ != text_.size()) fail("text after the value");
    return json;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("JSON byte " + std::to_string(at_) + ": " + what + " in " + text_);
  }
  void space() { at_ = std::min(text_.find_first_not_of(" \n\t\r", at_), text_.size()); }
  bool take(const std::string& word) {
    space();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }
  Json value() {
    Json json;
    if (take("{")) return object();
    if (take("[")) return array();
    if (take("\"")) {
      json.kind = Json::Kind::text;
      json.text = string();
    } else if (take("true") || take("false")) {
      json.kind = Json::Kind::boolean;
      json.boolean = text_[at_ - 2] == 'u';
    } else if (!take("null")) {
      json.kind = Json::Kind::number;
      char* end = nullptr;
      json.number = std::strtod(text_.c_str() + at_, &end);
      const std::size_t length = static_cast<std::size_t>(end - (text_.c_str() + at_));
      if (length == 0 || text_.find_first_not_of("0123456789+-.eE", at_) < at_ + length) fail("no value");
      at_ += length;
    }
    return json;
  }
  std::string string() {
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\') ++at_;
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a bare control character");
      out += text_[at_++];
    }
    if (!take("\"")) fail("an open string");
    return out;
  }
  Json array() {
    Json json;
    json.kind = Json::Kind::array;
    if (take("]")) return json;
    do json.items.push_back(value());
    while (take(","));
    if (!take("]")) fail("an open array");
    return json;
  }
  Json object() {
    Json json;
    json.kind = Json::Kind::object;
    if (take("}")) return json;
    do {
      if (!take("\"")) fail("no key");
      std::string key = string();
      if (!take(":")) fail("no colon");
      if (!json.members.emplace(key, value()).second) fail("a repeated key");
    } while (take(","));
    if (!take("}")) fail("an open object");
    return json;
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

}  // namespace

Json Json::parse(const std::string& text) { return Parser(text).all(); }

}  // namespace tweedie::testing
