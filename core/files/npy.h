// npy.h - numpy's array files, versions 1, 2 and 3.
//
//   Matrix x = read_npy<float>("x.npy");          // (N, D), or (N, 1) for a one-dimensional array
//   write_npy("samples.npy", samples);
//   write_npy("paths.npy", frames, {T, N, D});    // frames is (T * N, D) or any other (rows, cols) with as many elements
//
// Layout: "\x93NUMPY", version, header length, a Python dict {'descr', 'fortran_order', 'shape'}, then the elements.
// Read: <f4 <f8, signed and unsigned integers of 1 to 8 bytes, bool, C or Fortran order. Refused: big-endian, object (pickled),
// structured and every other type. Reference: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie {

struct NpyOptions {
  bool allow_infinite = false;  // NaN stands for a missing value and always passes
};

/// An array of any rank, flattened to rows: values is (shape[0], product of the other dimensions).
template <class S>
struct NpyArray {
  std::vector<Index> shape;
  MatrixX<S> values;
};

/// An array of rank 1, as (N, 1), or 2. S is float or double. Throws DataError for anything damaged or unsupported, for
/// infinite values, integers that S cannot hold exactly and doubles beyond a float's range; IoError when it cannot be read.
template <class S>
TWEEDIE_API MatrixX<S> read_npy(const std::string& path, const NpyOptions& options = {});
template <class S>
TWEEDIE_API MatrixX<S> parse_npy(std::span<const std::byte> bytes, std::string_view name, const NpyOptions& options = {});

/// An array of rank 1 to 8, in C order.
template <class S>
TWEEDIE_API NpyArray<S> read_npy_array(const std::string& path, const NpyOptions& options = {});
template <class S>
TWEEDIE_API NpyArray<S> parse_npy_array(std::span<const std::byte> bytes, std::string_view name, const NpyOptions& options = {});

/// Writes <f4 or <f8 in C order, version 1, atomically. `shape` is (rows, cols) unless given; its product must be rows * cols.
TWEEDIE_API void write_npy(const std::string& path, ConstRows<float> values, std::span<const Index> shape = {});
TWEEDIE_API void write_npy(const std::string& path, ConstRows<double> values, std::span<const Index> shape = {});

namespace detail {
/// The header that stands before the elements, padded so that they start at a multiple of 64.
TWEEDIE_API std::string npy_header(std::string_view descr, std::span<const Index> shape);
}  // namespace detail

}  // namespace tweedie
