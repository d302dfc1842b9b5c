// Buffers, owning matrices and views: zeroed, aligned, deep copies, cuts, and sizes that do not fit.
// SPDX-License-Identifier: MIT
#include "tweedie/core/matrix.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

using namespace tweedie;

TEST_CASE("a buffer is zeroed and starts at a 64-byte boundary") {
  for (const Index n : {1, 3, 16, 17, 1000}) {
    const Buffer<float> b(n);
    CHECK(b.size() == n);
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
    bool zero = true;
    for (const float v : b) zero = zero && v == 0.0F;
    CHECK(zero);
  }
  const Buffer<double> none(0);
  CHECK(none.data() == nullptr);
  CHECK(none.begin() == none.end());
  CHECK(none.span().empty());
}

TEST_CASE("buffers copy deeply and move without copying") {
  Buffer<int> a(3);
  a[0] = 7;
  Buffer<int> b = a;
  b[0] = 8;
  CHECK(a[0] == 7);
  const int* const memory = b.data();
  Buffer<int> c = std::move(b);
  CHECK(c.data() == memory);
  CHECK(c[0] == 8);
  CHECK(b.size() == 0);  // NOLINT(bugprone-use-after-move): a moved-from buffer is empty
  a = c;
  a[0] = 9;
  CHECK(c[0] == 8);
  a = Buffer<int>(5);
  CHECK(a.size() == 5);
  CHECK(a[0] == 0);
}

TEST_CASE("sizes that are negative or do not fit are refused before anything is allocated") {
  // volatile: a compiler that sees these sizes warns of them at compile time.
  const volatile Index largest = std::numeric_limits<Index>::max(), minus_one = -1, two_to_30 = Index{1} << 30;
  const Index big = largest, negative = minus_one, large = two_to_30;
  CHECK_THROWS_AS(Buffer<float>{negative}, UsageError);
  CHECK_THROWS_AS(Buffer<float>{big}, ResourceError);
  CHECK_THROWS_AS(Buffer<double>{big / 4}, ResourceError);
  CHECK_THROWS_AS(Matrix(negative, 2), UsageError);
  CHECK_THROWS_AS(Matrix(2, negative), UsageError);
  CHECK_THROWS_AS(Matrix(big, 2), ResourceError);
  CHECK_THROWS_AS(Matrix(big / 2, 3), ResourceError);
  CHECK_THROWS_AS(Matrix(4 * large, 2 * large), ResourceError);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their allocators end the process instead
  CHECK_THROWS_AS(Matrix(large, large), ResourceError);              // fits an Index, not the memory
#endif
  CHECK_NOTHROW(Matrix(0, big));
  CHECK_NOTHROW(Matrix(big, 0));
  try {
    Matrix(3, 4 * negative);
  } catch (const UsageError& e) {
    CHECK(std::string(e.what()).find("(3, -4)") != std::string::npos);
  }
}

TEST_CASE("a matrix from values, element by element and row by row") {
  Matrix m{{1, 2, 3}, {4, 5, 6}};
  CHECK(m.rows() == 2);
  CHECK(m.cols() == 3);
  CHECK(m.size() == 6);
  CHECK(m(1, 0) == 4);
  CHECK(m.row(1)[2] == 6);
  m.row(0)[1] = 20;
  CHECK(m(0, 1) == 20);
  CHECK(m.data()[1] == 20);
  CHECK(shape(m) == "(2, 3)");
  CHECK_THROWS_AS((Matrix{{1, 2}, {3}}), UsageError);
  CHECK(Matrix{}.empty());
  CHECK(Matrix(0, 3).empty());
  CHECK(Matrix(3, 0).empty());
}

TEST_CASE("copies are deep; a view is not; a matrix converts from a view of another scalar") {
  Matrix a{{1, 2}, {3, 4}};
  Matrix b = a;
  const Rows<float> view = a;
  view(0, 0) = 10;
  CHECK(a(0, 0) == 10);
  CHECK(b(0, 0) == 1);
  const MatrixD wide(a.view().middle_cols(1, 1));
  CHECK(wide.rows() == 2);
  CHECK(wide.cols() == 1);
  CHECK(wide(1, 0) == 4.0);
  const Matrix narrow{ConstRows<double>(wide)};
  CHECK(narrow(0, 0) == 2.0F);
  b = std::move(a);
  CHECK(b(0, 0) == 10);
  CHECK(b.rows() == 2);
}

TEST_CASE("views cut rows and columns and keep the stride") {
  Matrix m(5, 4);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(i);
  const ConstRows<float> middle = m.middle_rows(1, 3).middle_cols(2, 2);
  CHECK(middle.rows() == 3);
  CHECK(middle.cols() == 2);
  CHECK(middle.stride() == 4);
  CHECK(middle.size() == 6);
  CHECK_FALSE(middle.contiguous());
  CHECK(m.view().contiguous());
  CHECK(middle.middle_rows(0, 1).contiguous());
  CHECK(middle(0, 0) == 6);
  CHECK(middle(2, 1) == 15);
  CHECK(middle.row(1)[0] == 10);
  CHECK(middle.row(1).size() == 2);
  CHECK(m.middle_rows(5, 0).empty());
  CHECK(m.view().middle_cols(4, 0).empty());
  CHECK_THROWS_AS(m.middle_rows(3, 3), UsageError);
  CHECK_THROWS_AS(m.middle_rows(-1, 2), UsageError);
  CHECK_THROWS_AS(m.middle_rows(1, -1), UsageError);
  CHECK_THROWS_AS(m.view().middle_cols(3, 2), UsageError);
  CHECK_THROWS_AS(middle.middle_cols(2, 1), UsageError);
}

TEST_CASE("mutable views become constant ones, never the other way") {
  static_assert(std::is_convertible_v<Rows<float>, ConstRows<float>>);
  static_assert(!std::is_convertible_v<ConstRows<float>, Rows<float>>);
  static_assert(!std::is_convertible_v<Rows<double>, ConstRows<float>>);
  static_assert(std::is_convertible_v<Matrix&, Rows<float>>);
  static_assert(std::is_convertible_v<const Matrix&, ConstRows<float>>);
  static_assert(!std::is_convertible_v<const Matrix&, Rows<float>>);
  const ConstRows<float> nothing;
  CHECK(nothing.empty());
  CHECK(nothing.data() == nullptr);
}
