// SPDX-License-Identifier: MIT
#include "tweedie/core/check.h"

#include <charconv>

namespace tweedie {

// Out of line, so that each class has one vtable, in the library, and exceptions match across its boundary.
Error::~Error() = default;
UsageError::~UsageError() = default;
DataError::~DataError() = default;
ModelFileError::~ModelFileError() = default;
DivergedError::~DivergedError() = default;
ResourceError::~ResourceError() = default;
IoError::~IoError() = default;

namespace detail {
namespace {
template <class T>
void append_number(std::string& message, T part) {
  char text[32];
  const auto result = std::to_chars(text, text + sizeof text, part);
  message.append(text, result.ptr);
}
}  // namespace

void append(std::string& message, std::string_view part) { message.append(part); }
void append(std::string& message, long long part) { append_number(message, part); }
void append(std::string& message, unsigned long long part) { append_number(message, part); }
void append(std::string& message, double part) { append_number(message, part); }

}  // namespace detail
}  // namespace tweedie
