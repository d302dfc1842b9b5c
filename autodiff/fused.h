// fused.h - hand-written forward and backward kernels as one node of the tape.
//
//   const Fused<float> op{
//       .name = "mlp",
//       .forward = [](std::span<const ConstRows<float>> x, Rows<float> y) { ... },
//       .backward = [](std::span<const ConstRows<float>> x, ConstRows<float> y, ConstRows<float> dy,
//                      std::span<const Rows<float>> dx) { ... },          // dx[i] empty (data() == nullptr): not wanted
//       .recipe = [](std::span<const Var> x) { return silu(linear(x[0], x[1], x[2])); }};
//   Var y = fused(op, {x, w, b}, x.rows(), w.rows());
//
// Plain reverse mode calls `backward`. Under create_graph and in jvp, which need derivatives that are themselves
// differentiable, the node replays its recipe in primitive operations and differentiates that instead.
// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <type_traits>

#include "tweedie/autodiff/tape.h"

namespace tweedie {

template <class S>
struct Fused {
  const char* name = nullptr;
  /// Writes every element of y. Values have no gaps between rows.
  std::function<void(std::span<const ConstRows<S>> x, Rows<S> y)> forward;
  /// Writes every element of each wanted dx[i], of x[i]'s shape; unwanted ones have data() == nullptr.
  std::function<void(std::span<const ConstRows<S>> x, ConstRows<S> y, ConstRows<S> dy, std::span<const Rows<S>> dx)> backward;
  /// The same function in Var operations. Without it, create_graph and jvp throw UsageError.
  std::function<VarX<S>(std::span<const VarX<S>> x)> recipe;
};

/// y (rows, cols) = op.forward(inputs). `op` outlives the tape's next reset(). S is float or double.
template <class S>
TWEEDIE_API VarX<S> fused(const Fused<S>& op, std::span<const std::type_identity_t<VarX<S>>> inputs, Index rows, Index cols);
template <class S>
VarX<S> fused(const Fused<S>& op, std::initializer_list<std::type_identity_t<VarX<S>>> inputs, Index rows, Index cols) {
  return fused(op, std::span<const VarX<S>>(inputs.begin(), inputs.size()), rows, cols);
}

}  // namespace tweedie
