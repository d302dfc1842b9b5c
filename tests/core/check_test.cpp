// SPDX-License-Identifier: MIT
#include "tweedie/core/check.h"

#include <doctest/doctest.h>

#include "tweedie/core/matrix.h"

using namespace tweedie;

TEST_CASE("a message joins its parts, numbers in their shortest form") {
  CHECK(join("x has ", 3, " columns, step ", 0.1, ' ', 7u) == "x has 3 columns, step 0.1 7");
}

TEST_CASE("each error carries the exit code that the program returns") {
  CHECK_THROWS_AS(check(false, "no"), UsageError);
  CHECK_NOTHROW(check(true, "yes"));
  const auto code = [](auto tag) {
    try {
      fail<decltype(tag)>("x");
    } catch (const Error& e) {
      return e.exit_code();
    }
  };
  CHECK(code(UsageError("")) == 2);
  CHECK(code(DataError("")) == 3);
  CHECK(code(ModelFileError("")) == 4);
  CHECK(code(DivergedError("")) == 5);
  CHECK(code(ResourceError("")) == 6);
  CHECK(code(IoError("")) == 7);
}
