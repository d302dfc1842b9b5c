// eigen.h - the only place that includes Eigen; defines the views' `.eigen()`.
//
// Eigen's functions are weak symbols: linking two translation units that were compiled with different -march merges them,
// and the merged copy may use instructions or alignments that one side does not have. So the library's own translation
// units (TWEEDIE_BUILDING is defined there) see Eigen in a namespace of ours, and share no symbol with the consumer's.
// SPDX-License-Identifier: MIT
#pragma once

#ifdef TWEEDIE_BUILDING
#define Eigen tweedie_eigen
#endif
#include <Eigen/Core>

#include "tweedie/core/matrix.h"

namespace tweedie::detail {

template <class S>
using EigenRowMajor = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
struct EigenTraits {
  using Plain = EigenRowMajor<std::remove_const_t<T>>;
  using Map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Plain, Plain>, Eigen::Unaligned, Eigen::OuterStride<>>;
};

}  // namespace tweedie::detail

namespace tweedie {

template <class T>
template <class U>
inline typename detail::EigenTraits<U>::Map RowsView<T>::eigen() const {
  return {data_, rows_, cols_, Eigen::OuterStride<>(stride_)};
}

}  // namespace tweedie
