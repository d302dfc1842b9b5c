// matrix.h - row-major matrices, one sample per row, and the views that cross the library's boundary.
//
//   Matrix x(300, 2);            // (B, D), float, zeroed
//   ConstRows<float> batch = x.middle_rows(0, 128);
//   x.eigen().col(0).mean();     // after #include <tweedie/core/eigen.h>
//
// A view is pointer + rows + cols + stride and owns nothing. Eigen's types never cross the boundary of the compiled
// library, since their alignment changes with -march; `.eigen()` is an inline, unaligned map.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "tweedie/core/buffer.h"
#include "tweedie/core/check.h"

namespace tweedie {

namespace detail {
template <class T>
struct EigenTraits;  // defined in eigen.h
}  // namespace detail

/// A view of `rows` rows of `cols` elements; row r starts at data + r * stride. T is `S` or `const S`.
template <class T>
class RowsView {
 public:
  using Scalar = std::remove_const_t<T>;

  RowsView() = default;
  RowsView(T* data, Index rows, Index cols, Index stride) : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  RowsView(T* data, Index rows, Index cols) : RowsView(data, rows, cols, cols) {}
  // A view of mutable rows is a view of constant rows.
  template <class U>
  requires(std::is_const_v<T>&& std::is_same_v<const U, T>) RowsView(RowsView<U> other)
      : RowsView(other.data(), other.rows(), other.cols(), other.stride()) {}

  T* data() const { return data_; }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index stride() const { return stride_; }
  Index size() const { return rows_ * cols_; }
  bool empty() const { return rows_ == 0 || cols_ == 0; }
  /// Rows follow one another without gaps.
  bool contiguous() const { return stride_ == cols_ || rows_ <= 1; }

  T& operator()(Index row, Index col) const { return data_[row * stride_ + col]; }
  std::span<T> row(Index r) const { return {data_ + r * stride_, static_cast<std::size_t>(cols_)}; }
  RowsView middle_rows(Index first, Index count) const {
    check(first >= 0 && count >= 0 && first + count <= rows_, "middle_rows: rows ", first, " to ", first + count,
          " of a matrix with ", rows_, " rows");
    return {data_ + first * stride_, count, cols_, stride_};
  }
  RowsView middle_cols(Index first, Index count) const {
    check(first >= 0 && count >= 0 && first + count <= cols_, "middle_cols: columns ", first, " to ", first + count,
          " of a matrix with ", cols_, " columns");
    return {data_ + first, rows_, count, stride_};
  }

  /// An unaligned Eigen::Map of the rows. Needs <tweedie/core/eigen.h> (tweedie.h includes it).
  template <class U = T>
  [[gnu::always_inline]] inline typename detail::EigenTraits<U>::Map eigen() const;

 private:
  T* data_ = nullptr;
  Index rows_ = 0;
  Index cols_ = 0;
  Index stride_ = 0;
};

template <class S>
using Rows = RowsView<S>;
template <class S>
using ConstRows = RowsView<const S>;

/// An owning row-major matrix, zeroed on construction. Copies are deep. Converts to its views.
template <class S>
class MatrixX {
 public:
  MatrixX() = default;
  MatrixX(Index rows, Index cols) : buffer_(checked_size(rows, cols)), rows_(rows), cols_(cols) {}
  MatrixX(std::initializer_list<std::initializer_list<S>> values)
      : MatrixX(static_cast<Index>(values.size()), values.size() == 0 ? 0 : static_cast<Index>(values.begin()->size())) {
    Index r = 0;
    for (const auto& row : values) {
      check(static_cast<Index>(row.size()) == cols_, "Matrix: row ", r, " has ", row.size(), " values, the first has ", cols_);
      std::copy(row.begin(), row.end(), data() + r++ * cols_);
    }
  }
  /// A deep copy of a view, converted to S.
  template <class T>
  explicit MatrixX(RowsView<T> rows) : MatrixX(rows.rows(), rows.cols()) {
    for (Index r = 0; r < rows_; ++r) {
      for (Index c = 0; c < cols_; ++c) (*this)(r, c) = static_cast<S>(rows(r, c));
    }
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  bool empty() const { return size() == 0; }
  S* data() { return buffer_.data(); }
  const S* data() const { return buffer_.data(); }
  S& operator()(Index row, Index col) { return buffer_[row * cols_ + col]; }
  const S& operator()(Index row, Index col) const { return buffer_[row * cols_ + col]; }
  std::span<S> row(Index r) { return view().row(r); }
  std::span<const S> row(Index r) const { return view().row(r); }

  Rows<S> view() { return {data(), rows_, cols_}; }
  ConstRows<S> view() const { return {data(), rows_, cols_}; }
  operator Rows<S>() { return view(); }
  operator ConstRows<S>() const { return view(); }
  Rows<S> middle_rows(Index first, Index count) { return view().middle_rows(first, count); }
  ConstRows<S> middle_rows(Index first, Index count) const { return view().middle_rows(first, count); }

  [[gnu::always_inline]] inline auto eigen() { return view().eigen(); }
  [[gnu::always_inline]] inline auto eigen() const { return view().eigen(); }

 private:
  static Index checked_size(Index rows, Index cols) {
    check(rows >= 0 && cols >= 0, "Matrix: shape (", rows, ", ", cols, ") is negative");
    check<ResourceError>(cols == 0 || rows <= PTRDIFF_MAX / cols, "Matrix: shape (", rows, ", ", cols, ") overflows");
    return rows * cols;
  }

  Buffer<S> buffer_;
  Index rows_ = 0;
  Index cols_ = 0;
};

using Matrix = MatrixX<float>;
using MatrixD = MatrixX<double>;

/// "(3, 2)": a shape as messages print it.
template <class M>
std::string shape(const M& m) {
  return join("(", m.rows(), ", ", m.cols(), ")");
}

}  // namespace tweedie
