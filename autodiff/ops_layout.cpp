// ops_layout.cpp - concatenation, slices, gathering, and other moves of elements. Each is linear, so its jvp is itself.
// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/detail/loops.h"
#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"

namespace tweedie {
namespace detail {
namespace {

/// Copies count columns: y(:, to ...) = x(:, from ...).
template <class S>
void copy_cols(ConstRows<S> x, Index from, Rows<S> y, Index to, Index count) {
  for_range(x.rows(), count, [=](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) std::copy_n(x.row(r).data() + from, count, y.row(r).data() + to);
  });
}

// y = (x_1, x_2, ...) side by side;  dx_i += the columns of dy where x_i stood
template <class S>
constexpr Operation<S> kConcatCols = {"concat_cols",
                                      [](const Call<S>& f) {
                                        Index to = 0;
                                        for (int i = 0; i < f.inputs(); ++i) {
                                          copy_cols(f.value(i), 0, f.out(), to, f.value(i).cols());
                                          to += f.value(i).cols();
                                        }
                                      },
                                      [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                        VarX<S> dy;
                                        Index to = 0;
                                        for (int i = 0; i < f.inputs(); ++i) {
                                          const VarX<S> d = dx[static_cast<std::size_t>(i)];
                                          const Index after = f.out().cols() - to - f.value(i).cols();
                                          if (d) dy = plus(dy, pad_cols(d, to, after));
                                          to += f.value(i).cols();
                                        }
                                        return dy;
                                      },
                                      [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                        Index from = 0;
                                        for (int i = 0; i < f.inputs(); ++i) {
                                          const Index count = f.value(i).cols();
                                          if (f.wants(i)) dx[static_cast<std::size_t>(i)] = slice_cols(dy, from, count);
                                          from += count;
                                        }
                                      }};

// y = x(:, i ... i + count);  dx += (0, dy, 0)
template <class S>
constexpr Operation<S> kSliceCols = {
    "slice_cols", [](const Call<S>& f) { copy_cols(f.value(), f.attributes.i, f.out(), 0, f.out().cols()); },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return slice_cols(dx[0], f.attributes.i, f.out().cols()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
      dx[0] = pad_cols(dy, f.attributes.i, f.value().cols() - f.attributes.i - f.out().cols());
    }};

// y = (0, x, 0) with i columns of zeros before and j after;  dx += dy's columns in between
template <class S>
constexpr Operation<S> kPadCols = {
    "pad_cols",
    [](const Call<S>& f) {
      std::fill_n(f.out().data(), f.out().size(), S(0));
      copy_cols(f.value(), 0, f.out(), f.attributes.i, f.value().cols());
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return pad_cols(dx[0], f.attributes.i, f.attributes.j); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = slice_cols(dy, f.attributes.i, f.value().cols()); }};

// y = x(i ... i + count, :), without a copy;  dx += (0; dy; 0)
template <class S>
constexpr Operation<S> kSliceRows = {
    "slice_rows", nullptr,
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return slice_rows(dx[0], f.attributes.i, f.out().rows()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
      dx[0] = pad_rows(dy, f.attributes.i, f.value().rows() - f.attributes.i - f.out().rows());
    }};

// y = (0; x; 0) with i rows of zeros before and j after;  dx += dy's rows in between
template <class S>
constexpr Operation<S> kPadRows = {
    "pad_rows",
    [](const Call<S>& f) {
      const ConstRows<S> x = f.value();
      S* y = std::fill_n(f.out().data(), f.attributes.i * x.cols(), S(0));
      y = std::copy_n(x.data(), x.size(), y);
      std::fill_n(y, f.attributes.j * x.cols(), S(0));
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return pad_rows(dx[0], f.attributes.i, f.attributes.j); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = slice_rows(dy, f.attributes.i, f.value().rows()); }};

// y = x in another shape, without a copy;  dx += dy in x's shape
template <class S>
constexpr Operation<S> kReshape = {
    "reshape", nullptr,
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return reshape(dx[0], f.out().rows(), f.out().cols()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = reshape(dy, f.value().rows(), f.value().cols()); }};

template <class S>
VarX<S> gather(VarX<S> table, const std::int32_t* indices, Index count);
template <class S>
VarX<S> scatter(VarX<S> x, const std::int32_t* indices, Index rows);

const std::int32_t* indices(const Attributes& a) { return static_cast<const std::int32_t*>(a.data); }

// y(b, :) = table(indices[b], :);  dtable(n, :) += sum over b with indices[b] = n of dy(b, :)
template <class S>
constexpr Operation<S> kGatherRows = {
    "gather_rows",
    [](const Call<S>& f) {
      const ConstRows<S> table = f.value();
      const Rows<S> y = f.out();
      const std::int32_t* index = indices(f.attributes);
      for_range(y.rows(), y.cols(), [=](Index begin, Index end) {
        for (Index r = begin; r < end; ++r) std::copy_n(table.row(index[r]).data(), y.cols(), y.row(r).data());
      });
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return gather(dx[0], indices(f.attributes), f.out().rows()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = scatter(dy, indices(f.attributes), f.value().rows()); }};

// y(n, :) = sum over b with indices[b] = n of x(b, :);  dx(b, :) += dy(indices[b], :)
template <class S>
constexpr Operation<S> kScatterAdd = {
    "scatter_add",
    [](const Call<S>& f) {
      const ConstRows<S> x = f.value();
      const Rows<S> y = f.out();
      const std::int32_t* index = indices(f.attributes);
      std::fill_n(y.data(), y.size(), S(0));
      // Tasks share the columns, so that each sum runs over b in order.
      for_range(x.cols(), x.rows(), [=](Index begin, Index end) {
        for (Index r = 0; r < x.rows(); ++r) {
          const S* from = x.row(r).data();
          S* to = y.row(index[r]).data();
          for (Index c = begin; c < end; ++c) to[c] += from[c];
        }
      });
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return scatter(dx[0], indices(f.attributes), f.out().rows()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = gather(dy, indices(f.attributes), f.value().rows()); }};

template <class S>
VarX<S> gather(VarX<S> table, const std::int32_t* indices, Index count) {
  return apply(kGatherRows<S>, {table}, count, table.cols(), {.data = indices});
}
template <class S>
VarX<S> scatter(VarX<S> x, const std::int32_t* indices, Index rows) {
  return apply(kScatterAdd<S>, {x}, rows, x.cols(), {.data = indices});
}

void check_indices(const char* name, std::span<const std::int32_t> indices, Index rows) {
  for (std::size_t b = 0; b < indices.size(); ++b) {
    check(indices[b] >= 0 && indices[b] < rows, name, ": indices[", b, "] is ", indices[b], ", expected 0 to ", rows - 1);
  }
}

}  // namespace
}  // namespace detail

template <class S>
VarX<S> concat_cols(std::span<const VarX<S>> parts) {
  check(!parts.empty(), "concat_cols: no parts were given; it needs at least one");
  Index cols = 0;
  for (VarX<S> part : parts) {
    if (part.rows() != parts[0].rows()) detail::shape_error("concat_cols", parts[0], part, "all must have the same rows");
    cols += part.cols();
  }
  return parts[0].tape().state().apply(detail::kConcatCols<S>, parts, parts[0].rows(), cols, {});
}
template <class S>
VarX<S> slice_cols(VarX<S> x, Index first, Index count) {
  if (first < 0 || count < 0 || first > x.cols() - count) {
    fail("slice_cols: ", count, " columns from ", first, " on, of a value of shape ", shape(x));
  }
  return detail::apply(detail::kSliceCols<S>, {x}, x.rows(), count, {.i = first});
}
template <class S>
VarX<S> pad_cols(VarX<S> x, Index before, Index after) {
  if (before < 0 || after < 0) fail("pad_cols: ", before, " columns before and ", after, " after; neither may be negative");
  return detail::apply(detail::kPadCols<S>, {x}, x.rows(), before + x.cols() + after, {.i = before, .j = after});
}
template <class S>
VarX<S> slice_rows(VarX<S> x, Index first, Index count) {
  if (first < 0 || count < 0 || first > x.rows() - count) {
    fail("slice_rows: ", count, " rows from ", first, " on, of a value of shape ", shape(x));
  }
  return x.tape().state().alias(&detail::kSliceRows<S>, "slice_rows", x, count, x.cols(), first * x.cols(), {.i = first});
}
template <class S>
VarX<S> pad_rows(VarX<S> x, Index before, Index after) {
  if (before < 0 || after < 0) fail("pad_rows: ", before, " rows before and ", after, " after; neither may be negative");
  return detail::apply(detail::kPadRows<S>, {x}, before + x.rows() + after, x.cols(), {.i = before, .j = after});
}
template <class S>
VarX<S> gather_rows(VarX<S> table, std::span<const std::int32_t> indices) {
  detail::check_indices("gather_rows", indices, table.rows());
  return detail::gather(table, table.tape().state().keep(indices), static_cast<Index>(indices.size()));
}
template <class S>
VarX<S> scatter_add(VarX<S> x, std::span<const std::int32_t> indices, Index rows) {
  if (static_cast<Index>(indices.size()) != x.rows()) {
    fail("scatter_add: ", indices.size(), " indices for a value of shape ", shape(x), "; it needs one per row");
  }
  detail::check_indices("scatter_add", indices, rows);
  return detail::scatter(x, x.tape().state().keep(indices), rows);
}
template <class S>
VarX<S> reshape(VarX<S> x, Index rows, Index cols) {
  if (rows < 0 || cols < 0 || rows * cols != x.rows() * x.cols()) {
    fail("reshape: a value of shape ", shape(x), " does not fill (", rows, ", ", cols, ")");
  }
  return x.tape().state().alias(&detail::kReshape<S>, "reshape", x, rows, cols, 0, {});
}
template <class S>
VarX<S> stop_gradient(VarX<S> x) {
  return x.tape().state().alias(nullptr, "stop_gradient", x, x.rows(), x.cols(), 0, {});
}

#define TWEEDIE_INSTANTIATE(S)                                                 \
  template VarX<S> concat_cols(std::span<const VarX<S>>);                      \
  template VarX<S> slice_cols(VarX<S>, Index, Index);                          \
  template VarX<S> pad_cols(VarX<S>, Index, Index);                            \
  template VarX<S> slice_rows(VarX<S>, Index, Index);                          \
  template VarX<S> pad_rows(VarX<S>, Index, Index);                            \
  template VarX<S> gather_rows(VarX<S>, std::span<const std::int32_t>);        \
  template VarX<S> scatter_add(VarX<S>, std::span<const std::int32_t>, Index); \
  template VarX<S> reshape(VarX<S>, Index, Index);                             \
  template VarX<S> stop_gradient(VarX<S>);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
TWEEDIE_INSTANTIATE(std::complex<double>)

}  // namespace tweedie
