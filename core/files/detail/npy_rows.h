// npy_rows.h - what write_npy and write_npz share: the header of a matrix, and its elements in pieces.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tweedie/core/matrix.h"

namespace tweedie::detail {

/// The header for `rows` x `cols` elements in the given shape, or (rows, cols) when it is empty.
std::string npy_header(std::string_view descr, Index rows, Index cols, std::span<const Index> shape);

/// Calls `take(bytes)` with the elements in order: at once when they lie together, else packed some rows at a time.
template <class S, class Take>
void for_pieces(ConstRows<S> values, Take&& take) {
  if (values.contiguous()) {
    take(std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.size()))));
    return;
  }
  constexpr std::size_t kPiece = std::size_t{1} << 16;
  std::vector<S> piece;
  for (Index r = 0; r < values.rows(); ++r) {
    const std::span<const S> row = values.row(r);
    piece.insert(piece.end(), row.begin(), row.end());
    if (piece.size() >= kPiece || r + 1 == values.rows()) {
      take(std::as_bytes(std::span<const S>(piece)));
      piece.clear();
    }
  }
}

}  // namespace tweedie::detail
