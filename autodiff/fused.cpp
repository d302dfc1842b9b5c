// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/fused.h"

#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"

namespace tweedie {
namespace detail {
namespace {

template <class S>
const Fused<S>& fused_of(const Call<S>& f) {
  return *static_cast<const Fused<S>*>(f.attributes.data);
}

template <class S>
void collect_values(const Call<S>& f, Scratch<S>& scratch) {
  scratch.values.clear();
  for (int i = 0; i < f.inputs(); ++i) scratch.values.push_back(f.value(i));
}

/// y, computed again in primitive operations from stand-ins for the inputs. The stand-ins are nodes of their own: inputs that
/// are one Var, or computed from one another, must not share their gradients.
template <class S>
VarX<S> replay(const Call<S>& f, std::vector<VarX<S>>& stand_ins) {
  const Fused<S>& op = fused_of(f);
  if (!op.recipe) {
    fail("fused: ", op.name, " has no recipe, which create_graph and jvp need; give it one in Var operations");
  }
  stand_ins.clear();
  for (int i = 0; i < f.inputs(); ++i) stand_ins.push_back(reshape(f.x(i), f.value(i).rows(), f.value(i).cols()));
  const VarX<S> y = op.recipe(stand_ins);
  if (y.rows() != f.out().rows() || y.cols() != f.out().cols()) {
    shape_error(op.name, f.y(), y, "the fused value and its recipe's must have one shape");
  }
  return y;
}

template <class S>
constexpr Operation<S> kFused = {"fused",
                                 [](const Call<S>& f) {
                                   const typename TapeState<S>::Borrow scratch(f.tape().state());
                                   collect_values(f, *scratch.operator->());
                                   fused_of(f).forward(scratch->values, f.out());
                                 },
                                 [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                   TapeState<S>& state = f.tape().state();
                                   const typename TapeState<S>::Borrow scratch(state);
                                   VarX<S> dy;
                                   {
                                     const PauseRecording record(f.tape(), true);  // forward mode needs the recipe's nodes
                                     const VarX<S> y = replay(f, scratch->terms);
                                     dy = state.forward(y, scratch->terms, dx);
                                   }
                                   return state.recording || !dy ? dy : stop_gradient(dy);
                                 },
                                 [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                   TapeState<S>& state = f.tape().state();
                                   const typename TapeState<S>::Borrow scratch(state);
                                   if (state.recording) {
                                     const VarX<S> y = replay(f, scratch->terms);
                                     state.reverse(y, scratch->terms, dy, true, dx);
                                     return;
                                   }
                                   scratch->outputs.clear();
                                   for (int i = 0; i < f.inputs(); ++i) {
                                     Rows<S> out;
                                     if (f.wants(i)) {
                                       VarX<S>& d = dx[static_cast<std::size_t>(i)];
                                       d = state.fresh("gradient", f.value(i).rows(), f.value(i).cols());
                                       out = {TapeState<S>::node(d).data, d.rows(), d.cols()};
                                     }
                                     scratch->outputs.push_back(out);
                                   }
                                   collect_values(f, *scratch.operator->());
                                   fused_of(f).backward(scratch->values, f.y().value(), dy.value(), scratch->outputs);
                                 }};

}  // namespace
}  // namespace detail

template <class S>
VarX<S> fused(const Fused<S>& op, std::span<const std::type_identity_t<VarX<S>>> inputs, Index rows, Index cols) {
  check(op.name != nullptr && op.forward && op.backward, "fused: the operation needs a name, a forward and a backward");
  check(!inputs.empty(), "fused: ", op.name, " has no inputs; it needs at least one, to know its tape");
  const VarX<S> y = inputs[0].tape().state().apply(detail::kFused<S>, inputs, rows, cols, {.data = &op});
  detail::TapeState<S>::node(y).name = op.name;
  return y;
}

#define TWEEDIE_INSTANTIATE(S) template VarX<S> fused(const Fused<S>&, std::span<const VarX<S>>, Index, Index);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)

}  // namespace tweedie
