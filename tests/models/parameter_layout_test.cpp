// parameter_layout_test.cpp - names, shapes, offsets and views of a network's flat buffer.
// SPDX-License-Identifier: MIT
#include "tweedie/models/parameter_layout.h"

#include <doctest/doctest.h>

#include <cstdint>

using namespace tweedie;

TEST_CASE("tensors follow one another without gaps, rank 1 is one row") {
  ParameterLayout layout;
  CHECK(layout.size() == 0);
  CHECK(layout.add("w", {3, 4}) == 0);
  CHECK(layout.add("b", {5}) == 1);
  CHECK(layout.add("v", {1, 2}) == 2);
  CHECK(layout.count() == 3);
  CHECK(layout.size() == 12 + 5 + 2);
  CHECK(layout[1].offset == 12);
  CHECK(layout[1].rows == 1);
  CHECK(layout[1].cols == 5);
  CHECK(layout[1].shape == std::vector<Index>{5});
  CHECK(layout[2].offset == 17);
  CHECK(layout.index("v") == 2);

  Buffer<double> flat(layout.size());
  for (Index i = 0; i < flat.size(); ++i) flat[i] = static_cast<double>(i);
  const Rows<double> w = view(layout[0], flat.data());
  CHECK(w(2, 3) == 11);
  const Buffer<double>& constant = flat;
  const ConstRows<double> v = view(layout[2], constant.data());
  CHECK(v(0, 1) == 18);
}

TEST_CASE("what cannot be a tensor is refused") {
  ParameterLayout layout;
  layout.add("w", {3, 4});
  CHECK_THROWS_AS(layout.add("w", {1}), UsageError);
  CHECK_THROWS_AS(layout.add("", {1}), UsageError);
  CHECK_THROWS_AS(layout.add("a", {}), UsageError);
  CHECK_THROWS_AS(layout.add("a", {1, 2, 3}), UsageError);
  CHECK_THROWS_AS(layout.add("a", {0}), UsageError);
  CHECK_THROWS_AS(layout.add("a", {-1, 2}), UsageError);
  CHECK_THROWS_AS(layout.add("a", {PTRDIFF_MAX / 2, 3}), ResourceError);
  CHECK_THROWS_WITH_AS(layout.index("u"), "ParameterLayout: no tensor is named \"u\"; there are: w", UsageError);
  CHECK(layout.count() == 1);
  CHECK(layout.size() == 12);
}
