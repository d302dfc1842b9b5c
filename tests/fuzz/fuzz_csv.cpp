// Any bytes as a table with either of two delimiters: its columns agree in length and hold no infinity.
// SPDX-License-Identifier: MIT
#include <cmath>

#include "fuzz.h"
#include "tweedie/core/files/csv.h"

using namespace tweedie;

namespace {

void check_shape(const Table& table) {
  FUZZ_CHECK(table.rows > 0 && table.cols() > 0);
  for (const Table::Column& column : table.columns) {
    FUZZ_CHECK((column.numeric ? static_cast<Index>(column.numbers.size()) : column.text.size()) == table.rows);
    FUZZ_CHECK(!column.name.empty());
    for (const double number : column.numbers) FUZZ_CHECK(!std::isinf(number));
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const char delimiter : {',', ' '}) {
    try {
      check_shape(parse_csv(fuzz::as_bytes(data, size), "fuzz", {.delimiter = delimiter}));
    } catch (const Error&) {
    }
  }
  return 0;
}
