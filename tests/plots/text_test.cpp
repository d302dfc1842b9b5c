// SPDX-License-Identifier: MIT
#include "tweedie/plots/detail/text.h"

#include <doctest/doctest.h>

#include "tweedie/plots/detail/canvas.h"

using namespace tweedie::plots::detail;

TEST_CASE("markup splits into plain, raised and lowered runs") {
  const auto r = runs("10^{-2} x_{1}");
  REQUIRE(r.size() == 4);
  CHECK(r[0].text == "10");
  CHECK(r[1].text == "-2");
  CHECK(r[1].shift == 1);
  CHECK(r[2].text == " x");
  CHECK(r[3].text == "1");
  CHECK(r[3].shift == -1);
  for (const char* plain : {"fixed_acidity", "a^b", "x_{open", "x_{a{b}", "^", "{}"}) {
    std::string all;
    for (const auto& run : runs(plain)) {
      CHECK(run.shift == 0);
      all += run.text;
    }
    CHECK(all == plain);
  }
  CHECK(runs("").empty());
}

TEST_CASE("what is no UTF-8, and control characters, become U+FFFD") {
  const std::string bad = "\xEF\xBF\xBD";
  CHECK(printable("σ² ok €😀") == "σ² ok €😀");
  CHECK(printable("a\xFFz") == "a" + bad + "z");
  CHECK(printable("\xC3") == bad);
  CHECK(printable("\xC0\x80") == bad + bad);                      // overlong
  CHECK(printable("\xED\xA0\x80") == bad + bad + bad);            // a surrogate
  CHECK(printable("\xF4\x90\x80\x80") == bad + bad + bad + bad);  // past U+10FFFF
  CHECK(printable(std::string_view("a\0b\n", 4)) == "a" + bad + "b" + bad);
}

TEST_CASE("long text is cut to its width at a whole character") {
  Canvas canvas(Format::png, 100, 100, 72);
  CHECK(canvas.fitted("short", 9, 500) == "short");
  const std::string cut = canvas.fitted("ααααααααααααααααααααααααααααααα_{2}", 9, 60);
  CHECK(cut.size() > 3);
  CHECK(cut.substr(cut.size() - 3) == "…");
  CHECK((cut.size() - 3) % 2 == 0);
  CHECK(canvas.text_width(cut, 9) <= 60);
  CHECK(printable(cut) == cut);
}
