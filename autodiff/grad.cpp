// grad.cpp - reverse and forward mode over the tape.
//
// Both walk the nodes between the inputs and y. Reverse mode keeps one adjoint per node: when the walk reaches a node, all
// that uses it has been visited, so its adjoint is complete; its pullback then adds to the adjoints of its inputs. The
// pullbacks are Var operations: recorded under create_graph; otherwise each one's temporaries go back to the pool at once, and
// so does an adjoint that has been used up.
// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/grad.h"

#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"

namespace tweedie {
namespace detail {
namespace {

// What path[n] says about node n.
constexpr unsigned char kInput = 1;    // is one of the inputs
constexpr unsigned char kDepends = 2;  // is computed from one
constexpr unsigned char kUsed = 4;     // y is computed from it (forward mode only)

template <class S>
void check_shape(const char* what, const char* name, VarX<S> derivative, const Node<S>& of) {
  if (derivative.rows() != of.rows || derivative.cols() != of.cols) {
    fail(name, ": its ", what, " has shape ", shape(derivative), ", expected (", of.rows, ", ", of.cols, ")");
  }
}

}  // namespace

/// Marks the nodes up to y that are inputs or depend on one; returns where to start.
template <class S>
std::int32_t TapeState<S>::find_path(V y, std::span<const V> x, std::vector<unsigned char>& path) {
  path.assign(static_cast<std::size_t>(y.index_) + 1, 0);
  std::int32_t first = y.index_ + 1;
  for (V v : x) {
    if (v.index_ > y.index_) continue;  // computed after y
    path[static_cast<std::size_t>(v.index_)] = kInput;
    first = std::min(first, v.index_);
  }
  for (std::int32_t n = first; n <= y.index_; ++n) {
    if (on_path(at(n), path)) path[static_cast<std::size_t>(n)] |= kDepends;
  }
  return first;
}

template <class S>
bool TapeState<S>::on_path(const Node<S>& node, const std::vector<unsigned char>& path) const {
  for (int i = 0; i < node.inputs; ++i) {
    if (path[static_cast<std::size_t>(input(node, i))] != 0) return true;
  }
  return false;
}

/// sum += term. Unrecorded, `sum` holds memory of its own: a fresh temporary is adopted, anything else is shared.
template <class S>
void TapeState<S>::accumulate(V& sum, V term, std::int32_t first_temporary, bool record) {
  if (record) {
    sum = plus(sum, term);
    return;
  }
  const V before = sum;
  const bool adopt = !before && term.index_ >= first_temporary && !node(term).kept;
  sum = before ? before + term : adopt ? term : alias(nullptr, "adjoint", term, term.rows(), term.cols(), 0, {});
  node(sum).kept = true;
  if (before) release(before.index_);
}

template <class S>
void TapeState<S>::reverse(V y, std::span<const V> x, V seed, bool record, std::span<V> result) {
  const PauseRecording mode(*tape_, record);
  const Borrow scratch(*this);
  const std::int32_t first = find_path(y, x, scratch->path);
  std::vector<V>& adjoint = scratch->adjoint;
  adjoint.assign(static_cast<std::size_t>(y.index_) + 1, V());
  accumulate(adjoint.back(), seed, size(), record);
  for (std::int32_t n = y.index_; n >= first; --n) {
    const V dy = adjoint[static_cast<std::size_t>(n)];
    const unsigned char path = scratch->path[static_cast<std::size_t>(n)];
    if (!dy || (path & kDepends) == 0) continue;
    const Operation<S>& operation = *at(n).operation;
    if (operation.pullback == nullptr) fail("grad: the operation ", at(n).name, " has no pullback");
    const std::int32_t first_temporary = size();
    scratch->terms.assign(static_cast<std::size_t>(at(n).inputs), V());
    operation.pullback(call(n, scratch->path.data()), dy, scratch->terms);
    for (int i = 0; i < at(n).inputs; ++i) {
      const std::int32_t to = input(at(n), i);
      const V term = scratch->terms[static_cast<std::size_t>(i)];
      if (!term || scratch->path[static_cast<std::size_t>(to)] == 0) continue;
      check_shape("pullback", at(n).name, term, at(to));
      accumulate(adjoint[static_cast<std::size_t>(to)], term, first_temporary, record);
    }
    if (!record) {
      for (std::int32_t t = first_temporary; t < size(); ++t) {
        if (!at(t).kept) release(t);
      }
      if ((path & kInput) == 0) release(dy.index_);
    }
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    result[i] = x[i].index_ <= y.index_ ? adjoint[static_cast<std::size_t>(x[i].index_)] : V();
  }
}

template <class S>
VarX<S> TapeState<S>::forward(V y, std::span<const V> x, std::span<const V> tangents) {
  const Borrow scratch(*this);
  std::vector<unsigned char>& path = scratch->path;
  const std::int32_t first = find_path(y, x, path);
  path.back() |= kUsed;
  for (std::int32_t n = y.index_; n >= first; --n) {
    if ((path[static_cast<std::size_t>(n)] & kUsed) == 0) continue;
    for (int i = 0; i < at(n).inputs; ++i) path[static_cast<std::size_t>(input(at(n), i))] |= kUsed;
  }
  std::vector<V>& tangent = scratch->adjoint;
  tangent.assign(static_cast<std::size_t>(y.index_) + 1, V());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i].index_ > y.index_) continue;
    V& t = tangent[static_cast<std::size_t>(x[i].index_)];
    t = plus(t, tangents[i]);
  }
  for (std::int32_t n = first; n <= y.index_; ++n) {
    if ((path[static_cast<std::size_t>(n)] & kDepends) == 0 || (path[static_cast<std::size_t>(n)] & kUsed) == 0) continue;
    scratch->terms.clear();
    bool any = false;
    for (int i = 0; i < at(n).inputs; ++i) {
      scratch->terms.push_back(tangent[static_cast<std::size_t>(input(at(n), i))]);
      any = any || scratch->terms.back();
    }
    if (!any) continue;
    const Operation<S>& operation = *at(n).operation;
    if (operation.jvp == nullptr) fail("jvp: the operation ", at(n).name, " has no jvp");
    const V dy = operation.jvp(call(n), scratch->terms);
    if (!dy) continue;
    check_shape("jvp", at(n).name, dy, at(n));
    V& t = tangent[static_cast<std::size_t>(n)];
    t = plus(t, dy);
  }
  return tangent.back();
}

namespace {

/// The checks of every derivative; the seed, where none was given.
template <class S>
void check_inputs(const char* function, VarX<S> y, std::span<const VarX<S>> inputs) {
  TapeState<S>& state = y.tape().state();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    state.check_here(function, inputs[i]);
    if (!inputs[i].differentiable()) {
      fail(function, ": input ", i, " is a constant; make it with tape.variable() or tape.parameter(), or compute it from one",
           " while the tape records");
    }
  }
}

template <class S>
VarX<S> checked_seed(const char* function, VarX<S> y, VarX<S> seed) {
  if (!seed) {
    if (y.rows() != 1 || y.cols() != 1) {
      fail(function, ": y has shape ", shape(y), "; give a seed of that shape, or reduce y to (1, 1), by sum() say");
    }
    return y.tape().scalar(S(1));
  }
  y.tape().state().check_here(function, seed);
  if (seed.rows() != y.rows() || seed.cols() != y.cols()) shape_error(function, y, seed, "the seed has the shape of y");
  return seed;
}

}  // namespace
}  // namespace detail

template <class S>
void grad_into(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs, std::span<std::type_identity_t<VarX<S>>> result,
               GradOptions options, std::type_identity_t<VarX<S>> seed) {
  detail::check_inputs("grad", y, inputs);
  check(inputs.size() == result.size(), "grad: room for ", result.size(), " gradients of ", inputs.size(), " inputs; one each");
  y.tape().state().reverse(y, inputs, detail::checked_seed("grad", y, seed), options.create_graph, result);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!result[i]) result[i] = y.tape().zeros(inputs[i].rows(), inputs[i].cols());
  }
}

template <class S>
std::vector<VarX<S>> grad(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs, GradOptions options,
                          std::type_identity_t<VarX<S>> seed) {
  std::vector<VarX<S>> result(inputs.size());
  grad_into<S>(y, inputs, result, options, seed);
  return result;
}

template <class S>
void gradient(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs,
              std::span<const std::type_identity_t<Rows<S>>> out, std::type_identity_t<VarX<S>> seed) {
  detail::check_inputs("gradient", y, inputs);
  check(inputs.size() == out.size(), "gradient: ", out.size(), " outputs for ", inputs.size(), " inputs; it needs one each");
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i].rows() != inputs[i].rows() || out[i].cols() != inputs[i].cols()) {
      fail("gradient: output ", i, " has shape ", shape(out[i]), " and its input ", shape(inputs[i]));
    }
  }
  detail::TapeState<S>& state = y.tape().state();
  const std::int32_t before = state.size();
  {
    const typename detail::TapeState<S>::Borrow scratch(state);
    scratch->terms.assign(inputs.size(), VarX<S>());
    state.reverse(y, inputs, detail::checked_seed("gradient", y, seed), false, scratch->terms);
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (Index r = 0; r < out[i].rows(); ++r) {
        if (scratch->terms[i]) {
          std::copy_n(scratch->terms[i].value().row(r).data(), out[i].cols(), out[i].row(r).data());
        } else {
          std::fill_n(out[i].row(r).data(), out[i].cols(), S(0));
        }
      }
    }
  }
  state.shrink(before);
}

template <class S>
VarX<S> jvp(VarX<S> y, std::span<const std::type_identity_t<VarX<S>>> inputs,
            std::span<const std::type_identity_t<VarX<S>>> tangents) {
  detail::check_inputs("jvp", y, inputs);
  check(inputs.size() == tangents.size(), "jvp: ", tangents.size(), " tangents for ", inputs.size(), " inputs; one each");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    y.tape().state().check_here("jvp", tangents[i]);
    if (inputs[i].rows() != tangents[i].rows() || inputs[i].cols() != tangents[i].cols()) {
      detail::shape_error("jvp", inputs[i], tangents[i], "a tangent has the shape of its input");
    }
  }
  const VarX<S> dy = y.tape().state().forward(y, inputs, tangents);
  return dy ? dy : y.tape().zeros(y.rows(), y.cols());
}

#define TWEEDIE_INSTANTIATE(S)                                                                               \
  template std::int32_t detail::TapeState<S>::find_path(V, std::span<const V>, std::vector<unsigned char>&); \
  template bool detail::TapeState<S>::on_path(const Node<S>&, const std::vector<unsigned char>&) const;      \
  template void detail::TapeState<S>::accumulate(V&, V, std::int32_t, bool);                                 \
  template void detail::TapeState<S>::reverse(V, std::span<const V>, V, bool, std::span<V>);                 \
  template VarX<S> detail::TapeState<S>::forward(V, std::span<const V>, std::span<const V>);                 \
  template void grad_into(VarX<S>, std::span<const VarX<S>>, std::span<VarX<S>>, GradOptions, VarX<S>);      \
  template std::vector<VarX<S>> grad(VarX<S>, std::span<const VarX<S>>, GradOptions, VarX<S>);               \
  template void gradient(VarX<S>, std::span<const VarX<S>>, std::span<const Rows<S>>, VarX<S>);              \
  template VarX<S> jvp(VarX<S>, std::span<const VarX<S>>, std::span<const VarX<S>>);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)

}  // namespace tweedie
