// SPDX-License-Identifier: MIT
#include "tweedie/core/files/json.h"

#include <cmath>
#include <limits>

#include "files_support.h"

using namespace files_test;

TEST_CASE("json: the reader walks objects, lists, strings and integers") {
  JsonReader json(
      " {\"a\" : [1, 18446744073709551615 ,0],\n\"b\":{\"c\":\"x\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u20AC\"} , \"d\":[]}\r\n",
      "j");
  std::string key;
  json.begin_object();
  REQUIRE(json.next_key(key));
  CHECK(key == "a");
  std::vector<std::uint64_t> numbers;
  json.begin_array();
  while (json.next_element()) numbers.push_back(json.integer());
  CHECK(numbers == std::vector<std::uint64_t>{1, ~std::uint64_t{0}, 0});
  REQUIRE(json.next_key(key));
  json.begin_object();
  REQUIRE(json.next_key(key));
  CHECK(json.string() == "x\"\\/\b\f\n\r\tA\xE2\x82\xAC");
  CHECK_FALSE(json.next_key(key));
  REQUIRE(json.next_key(key));
  CHECK(key == "d");
  json.begin_array();
  CHECK_FALSE(json.next_element());
  CHECK_FALSE(json.next_key(key));
  json.finish();
}

TEST_CASE("json: nesting is bounded, and commas are neither missing nor too many") {
  const std::string deep(20, '[');
  CHECK(holds(message_of<ModelFileError>([&] {
                JsonReader json(deep, "j");
                for (int i = 0; i < 20; ++i) {
                  json.begin_array();
                  json.next_element();
                }
              }),
              "nesting deeper than 16"));
  for (const char* text : {"[1 2]", "[1,,2]", "[1,]", "[,1]", "[1"}) {
    CAPTURE(text);
    CHECK(holds(message_of<ModelFileError>([&] {
                  JsonReader json(text, "j");
                  json.begin_array();
                  while (json.next_element()) (void)json.integer();
                  json.finish();
                }),
                "j: "));
  }
}

TEST_CASE("json: UTF-8 to the letter of the standard") {
  for (const char* good : {"", "plain text of more than eight", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xF4\x8F\xBF\xBF", "12345678\xC2\x80"}) {
    CHECK(is_utf8(good));
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "1234567\xFE", "12345678\xC3(", "\xE2(\xA1"}) {
    CHECK_FALSE(is_utf8(bad));
  }
  CHECK(utf8_prefix("abc\xFF") == 3);
  CHECK(utf8_prefix("12345678abc\xFFzz") == 11);
}

TEST_CASE("json: the writer escapes, separates and refuses") {
  JsonWriter json;
  json.begin_object();
  json.key("loss").value(0.1).key("single").value(0.1f).key("n").value(std::size_t{3}).key("i").value(-2).key("on").value(true);
  json.key("text").value("a\"b\\c\n\x01\xC3\xA9").key("nan").value(NAN).key("inf").value(HUGE_VALF).key("none").null();
  json.key("list").begin_array().value(1).begin_array().end_array().begin_object().end_object().value("x").end_array();
  CHECK_THROWS_AS((void)json.text(), UsageError);
  json.end_object();
  CHECK(json.text() ==
        "{\"loss\":0.1,\"single\":0.1,\"n\":3,\"i\":-2,\"on\":true,\"text\":\"a\\\"b\\\\c\\n\\u0001\xC3\xA9\",\"nan\":null,"
        "\"inf\":null,"
        "\"none\":null,\"list\":[1,[],{},\"x\"]}");
  CHECK_THROWS_AS(JsonWriter().value("\xFF"), UsageError);
  CHECK_THROWS_AS(JsonWriter().key("k"), UsageError);
  CHECK_THROWS_AS(JsonWriter().end_array(), UsageError);
  CHECK_THROWS_AS(JsonWriter().value(1).value(2), UsageError);
  CHECK_THROWS_AS(JsonWriter().begin_object().key("a").end_object(), UsageError);
}

TEST_CASE("json: every string that is written reads back") {
  std::string all;
  for (int c = 0; c < 128; ++c) all.push_back(static_cast<char>(c));
  all += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  JsonWriter out;
  out.value(all);
  JsonReader in(out.text(), "j");
  CHECK(in.string() == all);
  in.finish();
}
