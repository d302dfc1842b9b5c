// gemm.cpp - blocking, packing and threads around the targets' register tile (gemm_tile.h).
//
//   C (m, n) is cut into tasks of rows x columns that any thread may take; K is cut at multiples of kDepth, always.
//   An element of C is therefore ((sum of its first kDepth products) + sum of the next) + ..., whatever the shape of the
//   rest, the thread count or the place: the same bits for a row in a batch of 1 or of 4096.
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <utility>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/kernels/cpu/table.h"
#include "tweedie/kernels/cpu/workspace.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie::kernels {

namespace {

using cpu::Kernels;
using cpu::LeftPanels;
using cpu::Output;
using cpu::RightPanels;

constexpr Index kDepth = 256;               // K block: a panel of A (8 KiB) stays in L1. Part of the result's definition.
constexpr Index kTaskRows = 96;             // rows of A that one task packs: a multiple of every target's tile
constexpr Index kTaskCols = 512;            // with kDepth: the block of B that a task streams from L2
constexpr Index kPackedElements = 1 << 20;  // bound of the packed part of B; larger products go in pieces
constexpr Index kFewRows = 16;
constexpr double kSerialFlops = 3e6;  // some 12 us: below it handing out the work and its data costs more than it saves

/// op(X) of a matrix: element (i, k) at data + i * stride + k * depth.
template <class T>
struct Operand {
  const T* data;
  Index stride, depth;
};

// The packing memory's roles: 0 is B, on the calling thread; 1 is a task's block of A, of one size whatever the product, so that
// a thread which joins late allocates at most once.
using cpu::round_up;
using cpu::Workspace;

/// Rows and columns of one task.
struct Grid {
  Index rows, cols;
};

template <class T>
Grid cut(const Kernels<T>& target, Index m, Index n, int workers) {
  Grid grid = {kTaskRows, kTaskCols};
  if (workers > 1) {
    // About two tasks per worker; rows first, since every task packs its own rows of A.
    grid.rows = std::min(kTaskRows, round_up((m + 2 * workers - 1) / (2 * workers), target.tile_rows));
    const Index row_tasks = (m + grid.rows - 1) / grid.rows;
    const Index col_tasks = std::max<Index>(1, 2 * workers / row_tasks);
    grid.cols = std::min(kTaskCols, round_up((n + col_tasks - 1) / col_tasks, target.tile_cols));
  }
  return grid;
}

/// A product of which B's packed part fits the workspace: C (m, n) = A B (+ C where add).
template <class T>
struct Piece {
  const Kernels<T>& target;
  Index m, n, k;
  Operand<T> a, b;
  Output<T> c;
  bool add;

  // A whose rows are contiguous in k is read where it lies: the tile broadcasts its numbers one by one anyway.
  bool left_in_place() const { return a.depth == 1; }
  // B whose rows are contiguous in n too, when there are too few rows of A to repay the copy; but for the last, partial panel.
  Index in_place_cols() const { return b.stride == 1 && m <= kFewRows ? n / target.tile_cols * target.tile_cols : 0; }
  // Packed columns, whole panels.
  Index packed_cols() const { return round_up(n - in_place_cols(), target.tile_cols); }

  /// Packs column panel p of K's block l0. Block l0 starts at l0 * packed_cols().
  void pack_right(Index p, Index l0, T* packed) const {
    const Index depth = std::min(kDepth, k - l0), j = p * target.tile_cols, first = in_place_cols() + j;
    target.pack_right(std::min<Index>(target.tile_cols, n - first), depth, b.data + first * b.stride + l0 * b.depth, b.stride,
                      b.depth, packed + l0 * packed_cols() + j * depth);
  }

  /// C's rows i0.. and columns j0.. for all of K. `left` holds one block of A's rows, unless they are read in place.
  void multiply(Index i0, Index rows, Index j0, Index cols, const T* packed, T* left) const {
    const Index split = std::clamp(in_place_cols() - j0, Index{0}, cols);  // columns before it are read in place
    for (Index l0 = 0; l0 < k; l0 += kDepth) {
      const Index depth = std::min(kDepth, k - l0);
      const T* rows_of_a = a.data + i0 * a.stride + l0 * a.depth;
      LeftPanels<T> lhs = {rows_of_a, target.tile_rows * a.stride, a.stride, 1};
      if (!left_in_place()) {
        target.pack_left(rows, depth, rows_of_a, a.stride, a.depth, left);
        lhs = {left, depth * target.tile_rows, 1, target.tile_rows};
      }
      T* out = c.data + i0 * c.row + j0 * c.column;
      const bool accumulate = add || l0 > 0;
      if (split > 0) {
        target.multiply(rows, split, depth, lhs, {b.data + l0 * b.depth + j0, target.tile_cols, b.depth}, {out, c.row, c.column},
                        accumulate);
      }
      if (split < cols) {
        const Index j = j0 + split - in_place_cols();
        target.multiply(rows, cols - split, depth, lhs,
                        {packed + l0 * packed_cols() + j * depth, depth * target.tile_cols, target.tile_cols},
                        {out + split * c.column, c.row, c.column}, accumulate);
      }
    }
  }

  void run() const {
    const bool worth_it = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) >= kSerialFlops;
    const int workers = worth_it ? threads() : 1;
    const auto share = [&](Index tasks, auto&& body) { workers > 1 ? parallel_for(tasks, 1, body) : body(Index{0}, tasks); };

    Workspace<T, 0> packed(packed_cols() * k);
    const Index panels = packed_cols() / target.tile_cols;
    if (panels > 0) {
      share((k + kDepth - 1) / kDepth * panels, [&](Index begin, Index end) {
        for (Index t = begin; t < end; ++t) pack_right(t % panels, t / panels * kDepth, packed.data());
      });
    }
    const Grid grid = cut(target, m, n, workers);
    const Index col_tasks = (n + grid.cols - 1) / grid.cols;
    share((m + grid.rows - 1) / grid.rows * col_tasks, [&](Index begin, Index end) {
      Workspace<T, 1> left(left_in_place() ? 0 : kTaskRows * kDepth);
      for (Index t = begin; t < end; ++t) {
        const Index i0 = t / col_tasks * grid.rows, j0 = t % col_tasks * grid.cols;
        multiply(i0, std::min(grid.rows, m - i0), j0, std::min(grid.cols, n - j0), packed.data(), left.data());
      }
    });
  }
};

template <class T>
void multiply(const Kernels<T>& target, Index m, Index n, Index k, Operand<T> a, Operand<T> b, Output<T> c, bool add) {
  // The tile is wide in columns: a thin C is computed as its transpose. The products, their order and so the bits are the same.
  if (m * round_up(n, target.tile_cols) > n * round_up(m, target.tile_cols)) {
    std::swap(m, n);
    std::swap(a, b);
    std::swap(c.row, c.column);
  }
  const Index max_cols = kPackedElements / kDepth;
  for (Index j0 = 0; j0 < n; j0 += max_cols) {
    const Index cols = std::min(max_cols, n - j0);
    const Index max_depth = kPackedElements / round_up(cols, target.tile_cols) / kDepth * kDepth;
    for (Index l0 = 0; l0 < k; l0 += max_depth) {
      const Operand<T> left = {a.data + l0 * a.depth, a.stride, a.depth};
      const Operand<T> right = {b.data + j0 * b.stride + l0 * b.depth, b.stride, b.depth};
      const Output<T> out = {c.data + j0 * c.column, c.row, c.column};
      Piece<T>{target, m, cols, std::min(max_depth, k - l0), left, right, out, add || l0 > 0}.run();
    }
  }
}

template <class T>
void checked_gemm(const Kernels<T>& target, const GemmShape& s, const T* a, Index lda, const T* b, Index ldb, T* c, Index ldc) {
  check(s.m >= 0 && s.n >= 0 && s.k >= 0, "gemm: m = ", s.m, ", n = ", s.n, ", k = ", s.k, "; sizes must not be negative");
  check(s.beta == 0 || s.beta == 1, "gemm: beta = ", s.beta, "; it is 0 (C is written) or 1 (C is added to)");
  check(lda >= (s.transpose_a ? s.m : s.k), "gemm: lda = ", lda, " is less than the ", s.transpose_a ? s.m : s.k,
        " columns of A");
  check(ldb >= (s.transpose_b ? s.k : s.n), "gemm: ldb = ", ldb, " is less than the ", s.transpose_b ? s.k : s.n,
        " columns of B");
  check(ldc >= s.n, "gemm: ldc = ", ldc, " is less than the ", s.n, " columns of C");
  if (s.m == 0 || s.n == 0) return;
  const bool add = s.beta == 1;
  if (s.k == 0) {
    for (Index i = 0; i < s.m && !add; ++i) std::fill_n(c + i * ldc, s.n, T(0));
    return;
  }
  const Operand<T> left = s.transpose_a ? Operand<T>{a, 1, lda} : Operand<T>{a, lda, 1};
  const Operand<T> right = s.transpose_b ? Operand<T>{b, ldb, 1} : Operand<T>{b, 1, ldb};
  multiply<T>(target, s.m, s.n, s.k, left, right, {c, ldc, 1}, add);
}

}  // namespace

void gemm(const GemmShape& shape, const float* a, Index lda, const float* b, Index ldb, float* c, Index ldc) {
  checked_gemm(cpu::table().single, shape, a, lda, b, ldb, c, ldc);
}
void gemm(const GemmShape& shape, const double* a, Index lda, const double* b, Index ldb, double* c, Index ldc) {
  checked_gemm(cpu::table().twice, shape, a, lda, b, ldb, c, ldc);
}

}  // namespace tweedie::kernels
