// Views as Eigen maps: no alignment assumed, strides kept, and nothing copied.
// SPDX-License-Identifier: MIT
#include "tweedie/core/eigen.h"

#include <doctest/doctest.h>

#include "tweedie/core/eigen_solvers.h"

using namespace tweedie;

TEST_CASE("a map of a strided view at an odd address reads and writes in place") {
  for (Index offset = 0; offset < 5; ++offset) {
    Buffer<float> memory(offset + 7 * 9);
    for (Index i = 0; i < memory.size(); ++i) memory[i] = -1;
    const Rows<float> view(memory.data() + offset, 6, 5, 9);  // element-aligned only
    for (Index r = 0; r < 6; ++r) {
      for (Index c = 0; c < 5; ++c) view(r, c) = static_cast<float>(10 * r + c);
    }
    auto map = view.eigen();
    CHECK(map.rows() == 6);
    CHECK(map.cols() == 5);
    CHECK(map(3, 4) == 34);
    CHECK(map.col(1).sum() == 10 * 15 + 6);
    map *= 2;
    map.row(2).setConstant(7);
    CHECK(view(5, 4) == 108);
    CHECK(view(2, 0) == 7);
    bool gaps_untouched = true;
    for (Index i = 0; i < memory.size(); ++i) {
      const Index at = i - offset;
      if (at < 0 || at % 9 >= 5 || at / 9 >= 6) gaps_untouched = gaps_untouched && memory[i] == -1;
    }
    CHECK(gaps_untouched);
  }
}

TEST_CASE("matrices, constant views and empty shapes map too") {
  Matrix a{{1, 2}, {3, 4}};
  const Matrix& constant = a;
  CHECK((a.eigen() * constant.eigen())(1, 1) == 22);
  CHECK(constant.view().eigen().sum() == 10);
  CHECK(constant.middle_rows(1, 1).middle_cols(1, 1).eigen()(0, 0) == 4);
  static_assert(std::is_const_v<std::remove_pointer_t<decltype(constant.eigen().data())>>);
  MatrixD d{{4, 1}, {1, 3}};
  CHECK(Eigen::LLT<Eigen::MatrixXd>(Eigen::MatrixXd(d.eigen())).matrixL()(0, 0) == 2);
  CHECK(Matrix(0, 3).eigen().rows() == 0);
  CHECK(Matrix(3, 0).eigen().size() == 0);
  CHECK(Matrix(0, 3).eigen().sum() == 0);
}

TEST_CASE("products of odd-sized, unaligned maps are the plain sums") {
  Matrix wide(13, 23), other(23, 19);
  for (Index i = 0; i < wide.size(); ++i) wide.data()[i] = static_cast<float>(i % 7 - 3);
  for (Index i = 0; i < other.size(); ++i) other.data()[i] = static_cast<float>(i % 5 - 2);
  const ConstRows<float> a = wide.view().middle_cols(1, 17), b = other.view().middle_rows(3, 17).middle_cols(2, 11);
  Matrix product(13, 11);
  product.eigen().noalias() = a.eigen() * b.eigen();
  for (Index i = 0; i < 13; ++i) {
    for (Index j = 0; j < 11; ++j) {
      float sum = 0;  // whole numbers: exact in any order
      for (Index k = 0; k < 17; ++k) sum += a(i, k) * b(k, j);
      CHECK(product(i, j) == sum);
    }
  }
}
