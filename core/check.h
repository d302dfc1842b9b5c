// check.h - errors that say what to do, and the one function that throws them.
//
//   check(x.cols() == dim, "mlp_forward: x has ", x.cols(), " columns, the network expects ", dim);
//
// A message names the function, the argument, what was found, what was expected and the remedy. The hierarchy maps one to
// one to the program's exit codes (see exit_code).
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tweedie/core/export.h"

namespace tweedie {

/// Base of every error the library throws. `exit_code()` is what the command line program returns for it.
class TWEEDIE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Error() override;
  virtual int exit_code() const noexcept = 0;
};

/// A wrong argument, shape or option (exit code 2).
class TWEEDIE_API UsageError : public Error {
 public:
  using Error::Error;
  ~UsageError() override;
  int exit_code() const noexcept override { return 2; }
};

/// Data that cannot be used: a ragged table, a cell that is no number (exit code 3).
class TWEEDIE_API DataError : public Error {
 public:
  using Error::Error;
  ~DataError() override;
  int exit_code() const noexcept override { return 3; }
};

/// A model file that is damaged, truncated or of another kind (exit code 4).
class TWEEDIE_API ModelFileError : public Error {
 public:
  using Error::Error;
  ~ModelFileError() override;
  int exit_code() const noexcept override { return 4; }
};

/// Training or a sampling chain that left the finite numbers (exit code 5).
class TWEEDIE_API DivergedError : public Error {
 public:
  using Error::Error;
  ~DivergedError() override;
  int exit_code() const noexcept override { return 5; }
};

/// No such device, or no memory left (exit code 6).
class TWEEDIE_API ResourceError : public Error {
 public:
  using Error::Error;
  ~ResourceError() override;
  int exit_code() const noexcept override { return 6; }
};

/// A file that cannot be opened, read or written; a full disk (exit code 7).
class TWEEDIE_API IoError : public Error {
 public:
  using Error::Error;
  ~IoError() override;
  int exit_code() const noexcept override { return 7; }
};

namespace detail {
TWEEDIE_API void append(std::string& message, std::string_view part);
TWEEDIE_API void append(std::string& message, long long part);
TWEEDIE_API void append(std::string& message, unsigned long long part);
TWEEDIE_API void append(std::string& message, double part);  // shortest text that reads back as the same number

template <class T>
void append_part(std::string& message, const T& part) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    append(message, std::string_view(part));
  } else if constexpr (std::is_same_v<T, char>) {
    append(message, std::string_view(&part, 1));
  } else if constexpr (std::is_floating_point_v<T>) {
    append(message, static_cast<double>(part));
  } else if constexpr (std::is_unsigned_v<T>) {
    append(message, static_cast<unsigned long long>(part));
  } else {
    append(message, static_cast<long long>(part));
  }
}
}  // namespace detail

/// The parts joined into one text: strings, characters, integers and floating-point numbers (shortest round-trip form).
template <class... Parts>
std::string join(const Parts&... parts) {
  std::string message;
  (detail::append_part(message, parts), ...);
  return message;
}

/// Throws `E` with the joined parts.
template <class E = UsageError, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw E(join(parts...));
}

/// Throws `E` with the joined parts unless `condition` holds. Holds in release builds too.
template <class E = UsageError, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]] {
    fail<E>(parts...);
  }
}

}  // namespace tweedie
