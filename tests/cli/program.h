// program.h - runs the real program and looks at what it says.
// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <vector>

namespace tweedie::testing {

struct Outcome {
  int code = -1;  // the exit code; 128 + n after signal n
  std::string out, err;
};

/// How a run differs from an ordinary one.
struct RunOptions {
  double interrupt_after = 0;       // seconds until a SIGINT; 0: none
  std::string interrupt_when = {};  // and only after this text stood on stderr
  double again_after = 0;           // seconds until a second SIGINT
  long file_limit = 0;              // bytes a file may have (RLIMIT_FSIZE); 0: no limit
  bool no_color = false;            // sets NO_COLOR
  bool terminal = false;            // stderr is a pseudo-terminal
  std::string stdout_to = {};       // standard output goes to this file
};

/// TWEEDIE_PROGRAM with these arguments (split at blanks; no quoting), in `folder`.
Outcome tweedie(const std::string& folder, const std::string& arguments, const RunOptions& options = {});

/// A directory of its own, removed at the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  operator const std::string&() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> files() const;  // sorted, hidden ones too

 private:
  std::string path_;
};

std::string read(const std::string& path);  // "" when missing
void write(const std::string& path, const std::string& text);
bool contains(const std::string& text, const std::string& part);

/// One strictly parsed JSON value; numbers as doubles. Throws std::runtime_error for anything else.
struct Json {
  enum class Kind { null, boolean, number, text, array, object } kind = Kind::null;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& key) const;
  static Json parse(const std::string& text);
};

}  // namespace tweedie::testing
