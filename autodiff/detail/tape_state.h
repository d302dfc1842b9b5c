// tape_state.h - what is inside a tape; seen by autodiff/*.cpp only.
//
// Nodes stand in the order of their computation, so an operation's inputs always stand before it: reading the list forwards
// propagates tangents, reading it backwards propagates adjoints (grad.cpp). A node's value lies in a pool block; nodes that
// show the same memory (reshape, slice_rows) share the block.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "tweedie/autodiff/detail/pool.h"
#include "tweedie/autodiff/operation.h"

namespace tweedie::detail {

template <class S>
struct Node {
  const Operation<S>* operation;  // nullptr: a leaf, or computed while not recording
  const char* name;
  S* data;
  Index rows, cols;
  Attributes attributes;
  std::uint64_t serial;
  Pool::Block block;
  std::int32_t first_input, inputs;  // into TapeState::inputs
  bool differentiable;
  bool kept;  // an unrecorded pullback's result that an adjoint holds on to
};

/// Working memory of one gradient or jvp in progress; they nest (fused.h replays its recipe inside a gradient).
template <class S>
struct Scratch {
  std::vector<unsigned char> path;  // per node: see grad.cpp
  std::vector<VarX<S>> adjoint;     // per node; tangents in forward mode
  std::vector<VarX<S>> terms;       // of one node's inputs
  std::vector<ConstRows<S>> values;
  std::vector<Rows<S>> outputs;
};

template <class S>
class TapeState {
 public:
  using V = VarX<S>;

  explicit TapeState(TapeX<S>* tape) : tape_(tape) {}

  bool recording = true;
  Pool pool;
  std::vector<Node<S>> nodes;
  std::vector<std::int32_t> inputs;
  std::vector<Pool::Block> lists;  // index lists, held until the reset

  std::int32_t size() const { return static_cast<std::int32_t>(nodes.size()); }
  Node<S>& at(std::int32_t index) { return nodes[static_cast<std::size_t>(index)]; }
  std::int32_t input(const Node<S>& node, int i) const { return inputs[static_cast<std::size_t>(node.first_input + i)]; }
  V var(std::int32_t index) { return V(tape_, index, at(index).serial); }
  /// The node of a Var; throws for none and for stale ones.
  static Node<S>& node(V v) {
    if (!v) fail("Var: this Var is none (default-constructed); it has no value");
    TapeState& state = v.tape_->state();
    if (v.index_ >= state.size() || state.at(v.index_).serial != v.serial_) {
      fail("Var: used after its tape's reset(); make it again with the new step's values");
    }
    return state.at(v.index_);
  }
  static std::int32_t index(V v) { return v.index_; }
  /// Throws unless v lives on this tape; `function` and `what` go into the message.
  void check_here(const char* function, V v) const {
    node(v);
    if (v.tape_ != tape_) fail(function, ": its arguments live on different tapes; make them on one");
  }

  /// A leaf over given memory.
  V leaf(const char* name, S* data, Index rows, Index cols, Pool::Block block, bool differentiable);
  /// A leaf with memory of its own, not yet written: the caller fills at(index(v)).data.
  V fresh(const char* name, Index rows, Index cols, bool differentiable = false);
  /// y = operation(x), computed now and recorded if it has to be.
  V apply(const Operation<S>& operation, std::span<const V> x, Index rows, Index cols, const Attributes& attributes);
  /// A node that shows x's memory from element `offset` on; `operation` holds its derivatives (nullptr: a constant).
  V alias(const Operation<S>* operation, const char* name, V x, Index rows, Index cols, Index offset, const Attributes& a);
  /// A copy of an index list that lives until the reset.
  const std::int32_t* keep(std::span<const std::int32_t> list);

  /// Gives a node's memory back; its Var must not be read any more.
  void release(std::int32_t index);
  /// Forgets the nodes from `count` on.
  void shrink(std::int32_t count);
  void reset();

  Call<S> call(std::int32_t index, const unsigned char* wanted = nullptr) {
    return Call<S>(tape_, index, wanted, at(index).attributes);
  }

  /// Sum of gradients: `result[i]` = J_i^T seed, "none" where y does not depend on inputs[i]. Records or recycles.
  void reverse(V y, std::span<const V> x, V seed, bool record, std::span<V> result);
  /// sum_i J_i tangents[i], or "none". Tangents may be none.
  V forward(V y, std::span<const V> x, std::span<const V> tangents);

  /// Scratch memory for the current scope.
  class Borrow {
   public:
    explicit Borrow(TapeState& state) : state_(state) {
      if (state_.depth_ == state_.scratch_.size()) state_.scratch_.push_back(std::make_unique<Scratch<S>>());
      scratch_ = state_.scratch_[state_.depth_++].get();
    }
    ~Borrow() { --state_.depth_; }
    Borrow(const Borrow&) = delete;
    Borrow& operator=(const Borrow&) = delete;
    Scratch<S>* operator->() const { return scratch_; }

   private:
    TapeState& state_;
    Scratch<S>* scratch_;
  };

 private:
  Pool::Block take(const char* name, Index rows, Index cols);
  V push(const Operation<S>* operation, const char* name, S* data, Index rows, Index cols, Pool::Block block,
         const Attributes& attributes, std::span<const V> x, bool differentiable);
  std::int32_t find_path(V y, std::span<const V> x, std::vector<unsigned char>& path);
  bool on_path(const Node<S>& node, const std::vector<unsigned char>& path) const;
  void accumulate(V& sum, V term, std::int32_t first_temporary, bool record);

  TapeX<S>* tape_;
  std::uint64_t serial_ = 0;
  std::vector<std::unique_ptr<Scratch<S>>> scratch_;
  std::size_t depth_ = 0;
};

/// What the operations call.
template <class S>
VarX<S> apply(const Operation<S>& operation, std::initializer_list<VarX<S>> x, Index rows, Index cols,
              const Attributes& attributes = {}) {
  return x.begin()->tape().state().apply(operation, {x.begin(), x.size()}, rows, cols, attributes);
}

/// a + b, where either may be none.
template <class S>
VarX<S> plus(VarX<S> a, VarX<S> b);

template <class S>
[[noreturn]] void shape_error(const char* name, VarX<S> a, VarX<S> b, const char* expected) {
  fail(name, ": shapes ", shape(a), " and ", shape(b), " do not fit: ", expected);
}

}  // namespace tweedie::detail
