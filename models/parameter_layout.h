// parameter_layout.h - where each tensor of a network lives in one contiguous buffer.
//
//   ParameterLayout layout;
//   layout.add("network.0.weight", {256, 258});     // (out, in), PyTorch's order
//   layout.add("network.0.bias", {256});
//   Buffer<double> flat(layout.size());              // the same network in float or double
//   Rows<double> w = view(layout[0], flat.data());   // (256, 258)
//
// The layout is apart from the numbers: parameters, gradients, Adam's moments, the moving average and a file all use it.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie {

/// One tensor of the buffer: elements [offset, offset + size), row-major.
struct ParameterTensor {
  std::string name;          // PyTorch's name
  std::vector<Index> shape;  // as a file stores it: rank 1 or 2
  Index offset = 0;          // in elements
  Index rows = 0;            // as a matrix: rank 1 is one row
  Index cols = 0;

  Index size() const { return rows * cols; }
};

/// Names, shapes and offsets, in the order of adding, without gaps.
class TWEEDIE_API ParameterLayout {
 public:
  /// Appends a tensor and returns its index. Throws UsageError for a name that is empty or taken, or a shape that is not of
  /// rank 1 or 2 with positive sizes.
  Index add(std::string name, std::vector<Index> shape);

  /// Number of tensors.
  Index count() const { return static_cast<Index>(tensors_.size()); }
  /// Number of elements of all tensors together.
  Index size() const { return size_; }
  const ParameterTensor& operator[](Index tensor) const { return tensors_[static_cast<std::size_t>(tensor)]; }
  std::vector<ParameterTensor>::const_iterator begin() const { return tensors_.begin(); }
  std::vector<ParameterTensor>::const_iterator end() const { return tensors_.end(); }
  /// Index of the tensor of that name; throws UsageError that lists the names if there is none.
  Index index(std::string_view name) const;

 private:
  std::vector<ParameterTensor> tensors_;
  Index size_ = 0;
};

/// The tensor as (rows, cols) within a buffer of the layout.
template <class S>
RowsView<S> view(const ParameterTensor& tensor, S* flat) {
  return {flat + tensor.offset, tensor.rows, tensor.cols};
}

/// "(256, 258)": a tensor's shape as messages print it.
TWEEDIE_API std::string shape_text(const std::vector<Index>& shape);

}  // namespace tweedie
