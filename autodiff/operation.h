// operation.h - what an operation is, and how to add one's own.
//
//   // y = x^3;  dy = 3 x^2 dx;  dx += 3 x^2 dy
//   const Operation<float> kCube = {
//       .name = "cube",
//       .forward = [](const Call<float>& f) { for (Index i = 0; i < f.out().size(); ++i) f.out().data()[i] = ...; },
//       .jvp = [](const Call<float>& f, std::span<const Var> dx) { return 3 * square(f.x()) * dx[0]; },
//       .pullback = [](const Call<float>& f, Var dy, std::span<Var> dx) { dx[0] = 3 * square(f.x()) * dy; }};
//   Var cube(Var x) { return custom_op(kCube, {x}, x.rows(), x.cols()); }
//
// forward works on plain values; jvp and pullback are written in Var operations, and are therefore themselves differentiable.
// The library's own operations are made the same way. For an operation with a hand-written backward pass see fused.h.
// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <span>
#include <type_traits>

#include "tweedie/autodiff/tape.h"

namespace tweedie {

/// The constants of one application of an operation; each operation says what it keeps in them.
struct Attributes {
  Index i = 0, j = 0;
  double a = 0, b = 0;
  const void* data = nullptr;  // must outlive the tape's next reset()
};

/// One application of an operation, as its three functions see it.
template <class S>
class TWEEDIE_API Call {
 public:
  const Attributes attributes;

  int inputs() const;
  VarX<S> x(int i = 0) const;
  VarX<S> y() const;
  ConstRows<S> value(int i = 0) const;  // of input i; rows have no gaps
  Rows<S> out() const;                  // where forward writes y; rows have no gaps
  /// In a pullback: whether the gradient of input i is wanted. Others may be left out.
  bool wants(int i) const;
  TapeX<S>& tape() const { return *tape_; }

 private:
  friend class detail::TapeState<S>;
  Call(TapeX<S>* tape, std::int32_t node, const unsigned char* wanted, const Attributes& a)
      : attributes(a), tape_(tape), wanted_(wanted), node_(node) {}
  TapeX<S>* tape_;
  const unsigned char* wanted_;  // per node of the tape; nullptr: all
  std::int32_t node_;
};

template <class S>
struct Operation {
  const char* name = nullptr;
  /// Writes every element of f.out().
  void (*forward)(const Call<S>& f) = nullptr;
  /// dy from the inputs' tangents; a tangent that is zero is "none" (false), and so may be the result.
  VarX<S> (*jvp)(const Call<S>& f, std::span<const VarX<S>> dx) = nullptr;
  /// Sets dx[i], of input i's shape, from dy; "none" stands for zero.
  void (*pullback)(const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) = nullptr;
};

/// y (rows, cols) = operation(inputs). The operation outlives the tape's next reset(). Without jvp or pullback, that mode of
/// differentiation throws UsageError. Throws UsageError for no inputs, stale ones, or ones of different tapes.
template <class S>
TWEEDIE_API VarX<S> custom_op(const Operation<S>& operation, std::span<const std::type_identity_t<VarX<S>>> inputs, Index rows,
                              Index cols, const Attributes& attributes = {});
template <class S>
VarX<S> custom_op(const Operation<S>& operation, std::initializer_list<std::type_identity_t<VarX<S>>> inputs, Index rows,
                  Index cols, const Attributes& attributes = {}) {
  return custom_op(operation, std::span<const VarX<S>>(inputs.begin(), inputs.size()), rows, cols, attributes);
}

}  // namespace tweedie
