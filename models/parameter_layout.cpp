// parameter_layout.cpp - names, shapes and offsets of a network's tensors.
// SPDX-License-Identifier: MIT
#include "tweedie/models/parameter_layout.h"

namespace tweedie {

std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += join(i == 0 ? "" : ", ", shape[i]);
  return text + ")";
}

Index ParameterLayout::add(std::string name, std::vector<Index> shape) {
  check(!name.empty(), "ParameterLayout: a tensor needs a name");
  for (const ParameterTensor& other : tensors_) {
    check(other.name != name, "ParameterLayout: the name \"", name, "\" is taken; give each tensor its own");
  }
  check(shape.size() == 1 || shape.size() == 2, "ParameterLayout: ", name, " has rank ", shape.size(), ", expected 1 or 2");
  for (const Index n : shape)
    check(n > 0, "ParameterLayout: ", name, " has shape ", shape_text(shape), ", sizes must be positive");
  ParameterTensor tensor;
  tensor.offset = size_;
  tensor.rows = shape.size() == 1 ? 1 : shape[0];
  tensor.cols = shape.back();
  check<ResourceError>(tensor.cols <= (PTRDIFF_MAX - size_) / tensor.rows, "ParameterLayout: ", name, " of shape ",
                       shape_text(shape), " overflows");
  tensor.name = std::move(name);
  tensor.shape = std::move(shape);
  size_ += tensor.size();
  tensors_.push_back(std::move(tensor));
  return count() - 1;
}

Index ParameterLayout::index(std::string_view name) const {
  std::string known;
  for (Index i = 0; i < count(); ++i) {
    if ((*this)[i].name == name) return i;
    known += join(i == 0 ? "" : ", ", (*this)[i].name);
  }
  fail("ParameterLayout: no tensor is named \"", name, "\"; there are: ", known);
}

}  // namespace tweedie
