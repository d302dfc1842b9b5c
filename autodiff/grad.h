// grad.h - derivatives of what is on a tape: reverse mode, forward mode, and their compositions.
//
//   g = grad(loss, {w, b});                              // dloss/dw, dloss/db
//   g = grad(sum(s), {x}, {.create_graph = true});       // differentiable again: explicit score matching
//   d = jvp(s, {x}, {v});  grad(mean(dot_cols(v, d)), params);   // (ds/dx) v, then reverse: sliced score matching
//
// With y a function of the inputs x_1 ... x_n (all else constant), J_i = dy/dx_i:
//   grad:  g_i = J_i^T seed        jvp:  sum_i J_i t_i
// An input that y does not depend on gets zeros. An input may be any recorded Var, computed ones too; a constant throws.
// Contributions to one Var are added in the order of the tape read backwards, whatever the number of threads.
// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <span>
#include <type_traits>
#include <vector>

#include "tweedie/autodiff/tape.h"

namespace tweedie {

struct GradOptions {
  bool create_graph = false;  // record the gradient's own computation, so that it can be differentiated again
};

/// One gradient per input, of its shape. `seed` has y's shape; without it y must be (1, 1) and the seed is 1.
/// Throws UsageError for a constant input, a wrong seed, or (create_graph) an operation that has no differentiable pullback.
template <class S>
TWEEDIE_API std::vector<VarX<S>> grad(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs, GradOptions options = {},
                                      std::type_identity_t<VarX<S>> seed = {});
template <class S>
std::vector<VarX<S>> grad(VarX<S> y, std::initializer_list<std::type_identity_t<VarX<S>>> inputs, GradOptions options = {},
                          std::type_identity_t<VarX<S>> seed = {}) {
  return grad(y, std::span<const VarX<S>>(inputs.begin(), inputs.size()), options, seed);
}

/// The same into `result` (one per input): for networks whose output is itself a gradient, recorded in every training step.
template <class S>
TWEEDIE_API void grad_into(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs,
                           std::span<std::type_identity_t<VarX<S>>> result, GradOptions options = {},
                           std::type_identity_t<VarX<S>> seed = {});

/// The same, written over out[i] (of inputs[i]'s shape) and leaving nothing on the tape: for training. Allocates nothing once
/// the tape's memory has grown to the step's needs.
template <class S>
TWEEDIE_API void gradient(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs,
                          std::span<const std::type_identity_t<Rows<S>>> out, std::type_identity_t<VarX<S>> seed = {});

/// sum_i J_i tangents[i], of y's shape; tangents[i] has the shape of inputs[i]. Recorded like any other computation, so it can
/// be differentiated (and given to jvp) again.
template <class S>
TWEEDIE_API VarX<S> jvp(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs,
                        std::span<const std::type_identity_t<VarX<S>>> tangents);
template <class S>
VarX<S> jvp(VarX<S> y, std::initializer_list<std::type_identity_t<VarX<S>>> inputs,
            std::initializer_list<std::type_identity_t<VarX<S>>> tangents) {
  return jvp(y, std::span<const VarX<S>>(inputs.begin(), inputs.size()),
             std::span<const VarX<S>>(tangents.begin(), tangents.size()));
}

}  // namespace tweedie
