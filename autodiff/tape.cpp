// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/tape.h"

#include "tweedie/autodiff/detail/tape_state.h"

namespace tweedie {
namespace detail {

template <class S>
VarX<S> TapeState<S>::push(const Operation<S>* operation, const char* name, S* data, Index rows, Index cols, Pool::Block block,
                           const Attributes& attributes, std::span<const V> x, bool differentiable) {
  check<ResourceError>(nodes.size() < static_cast<std::size_t>(INT32_MAX), "Tape: too many nodes; call reset() between steps");
  const auto first = static_cast<std::int32_t>(inputs.size());
  for (V v : x) inputs.push_back(v.index_);
  nodes.push_back({operation, name, data, rows, cols, attributes, ++serial_, block, first, static_cast<std::int32_t>(x.size()),
                   differentiable, false});
  return var(size() - 1);
}

template <class S>
VarX<S> TapeState<S>::leaf(const char* name, S* data, Index rows, Index cols, Pool::Block block, bool differentiable) {
  return push(nullptr, name, data, rows, cols, block, {}, {}, differentiable);
}

template <class S>
Pool::Block TapeState<S>::take(const char* name, Index rows, Index cols) {
  if (rows < 0 || cols < 0) fail(name, ": shape (", rows, ", ", cols, ") is negative");
  check<ResourceError>(cols == 0 || rows <= PTRDIFF_MAX / cols, name, ": shape (", rows, ", ", cols, ") overflows");
  return pool.take(static_cast<Index>(byte_count(rows * cols, sizeof(S))));
}

template <class S>
VarX<S> TapeState<S>::fresh(const char* name, Index rows, Index cols, bool differentiable) {
  const Pool::Block block = take(name, rows, cols);
  return leaf(name, pool.template data<S>(block), rows, cols, block, differentiable);
}

template <class S>
VarX<S> TapeState<S>::apply(const Operation<S>& operation, std::span<const V> x, Index rows, Index cols,
                            const Attributes& attributes) {
  bool differentiable = false;
  for (V v : x) {
    check_here(operation.name, v);
    differentiable = differentiable || node(v).differentiable;
  }
  const Pool::Block block = take(operation.name, rows, cols);
  const V y = push(&operation, operation.name, pool.template data<S>(block), rows, cols, block, attributes, x,
                   recording && differentiable);
  operation.forward(call(y.index_));
  Node<S>& done = at(y.index_);
  if (!done.differentiable) {  // nobody will ask for its derivatives: forget how it came about
    done.operation = nullptr;
    done.inputs = 0;
    inputs.resize(static_cast<std::size_t>(done.first_input));
  }
  return y;
}

template <class S>
VarX<S> TapeState<S>::alias(const Operation<S>* operation, const char* name, V x, Index rows, Index cols, Index offset,
                            const Attributes& a) {
  const Node<S> from = node(x);
  pool.share(from.block);
  const bool recorded = operation != nullptr && recording && from.differentiable;
  return push(recorded ? operation : nullptr, name, from.data + offset, rows, cols, from.block, a,
              recorded ? std::span<const V>(&x, 1) : std::span<const V>{}, recorded);
}

template <class S>
const std::int32_t* TapeState<S>::keep(std::span<const std::int32_t> list) {
  lists.push_back(pool.take(static_cast<Index>(list.size_bytes())));
  auto* copy = pool.template data<std::int32_t>(lists.back());
  std::copy(list.begin(), list.end(), copy);
  return copy;
}

template <class S>
void TapeState<S>::release(std::int32_t index) {
  Node<S>& n = at(index);
  pool.give(n.block);
  n.block = Pool::kNone;
  n.data = nullptr;
}

template <class S>
void TapeState<S>::shrink(std::int32_t count) {
  for (std::int32_t i = size() - 1; i >= count; --i) release(i);
  if (count < size()) inputs.resize(static_cast<std::size_t>(at(count).first_input));
  nodes.resize(static_cast<std::size_t>(count));
}

template <class S>
void TapeState<S>::reset() {
  shrink(0);
  for (Pool::Block block : lists) pool.give(block);
  lists.clear();
}

}  // namespace detail

using detail::Pool;
using detail::TapeState;

template <class S>
ConstRows<S> VarX<S>::value() const {
  const auto& n = TapeState<S>::node(*this);
  return {n.data, n.rows, n.cols};
}
template <class S>
Index VarX<S>::rows() const {
  return TapeState<S>::node(*this).rows;
}
template <class S>
Index VarX<S>::cols() const {
  return TapeState<S>::node(*this).cols;
}
template <class S>
S VarX<S>::item() const {
  const auto& n = TapeState<S>::node(*this);
  if (n.rows != 1 || n.cols != 1) fail("Var::item: the value has shape ", shape(*this), ", expected (1, 1)");
  return n.data[0];
}
template <class S>
bool VarX<S>::differentiable() const {
  return TapeState<S>::node(*this).differentiable;
}
template <class S>
TapeX<S>& VarX<S>::tape() const {
  TapeState<S>::node(*this);
  return *tape_;
}

template <class S>
TapeX<S>::TapeX() : state_(std::make_unique<TapeState<S>>(this)) {}
template <class S>
TapeX<S>::~TapeX() = default;

namespace {

template <class S>
VarX<S> copied(TapeState<S>& state, const char* name, ConstRows<S> rows, bool differentiable) {
  const VarX<S> v = state.fresh(name, rows.rows(), rows.cols(), differentiable);
  S* to = TapeState<S>::node(v).data;
  for (Index r = 0; r < rows.rows(); ++r) to = std::copy_n(rows.row(r).data(), rows.cols(), to);
  return v;
}

template <class S>
VarX<S> viewed(TapeState<S>& state, const char* name, ConstRows<S> rows, bool differentiable) {
  check(rows.contiguous(), "Tape::", name, ": the rows lie ", rows.stride(), " elements apart and hold ", rows.cols(),
        "; a value by reference has no gaps: use variable() or constant(), which copy");
  return state.leaf(name, const_cast<S*>(rows.data()), rows.rows(), rows.cols(), Pool::kNone, differentiable);
}

}  // namespace

// clang-format off
template <class S> VarX<S> TapeX<S>::variable(ConstRows<S> rows) { return copied(*state_, "variable", rows, true); }
template <class S> VarX<S> TapeX<S>::parameter(ConstRows<S> rows) { return viewed(*state_, "parameter", rows, true); }
template <class S> VarX<S> TapeX<S>::constant(ConstRows<S> rows) { return copied(*state_, "constant", rows, false); }
template <class S> VarX<S> TapeX<S>::constant_view(ConstRows<S> rows) { return viewed(*state_, "constant_view", rows, false); }
template <class S> VarX<S> TapeX<S>::scalar(S value) { return full(1, 1, value); }
// clang-format on
template <class S>
VarX<S> TapeX<S>::full(Index rows, Index cols, S value) {
  const VarX<S> v = state_->fresh("constant", rows, cols);
  std::fill_n(TapeState<S>::node(v).data, rows * cols, value);
  return v;
}

// clang-format off
template <class S> void TapeX<S>::reset() { state_->reset(); }
template <class S> bool TapeX<S>::recording() const { return state_->recording; }
template <class S> void TapeX<S>::set_recording(bool recording) { state_->recording = recording; }
template <class S> Index TapeX<S>::nodes() const { return state_->size(); }
template <class S> Index TapeX<S>::bytes() const { return state_->pool.bytes(); }
// clang-format on

template <class S>
std::string TapeX<S>::to_dot(VarX<S> y) const {
  TapeState<S>& state = *state_;
  state.check_here("Tape::to_dot", y);
  std::vector<bool> ancestor(static_cast<std::size_t>(state.size()));
  ancestor[static_cast<std::size_t>(TapeState<S>::index(y))] = true;
  std::string nodes, edges;
  for (std::int32_t n = TapeState<S>::index(y); n >= 0; --n) {
    if (!ancestor[static_cast<std::size_t>(n)]) continue;
    const auto& node = state.at(n);
    nodes += join("  n", n, " [label=\"", node.name, "\\n(", node.rows, ", ", node.cols, ")\"",
                  node.operation == nullptr ? ", shape=box" : "", node.differentiable ? "" : ", style=dashed", "];\n");
    for (int i = 0; i < node.inputs; ++i) {
      ancestor[static_cast<std::size_t>(state.input(node, i))] = true;
      edges += join("  n", state.input(node, i), " -> n", n, ";\n");
    }
  }
  return "digraph tape {\n" + nodes + edges + "}\n";
}

template <class S>
int Call<S>::inputs() const {
  return tape_->state().at(node_).inputs;
}
template <class S>
VarX<S> Call<S>::x(int i) const {
  TapeState<S>& state = tape_->state();
  return state.var(state.input(state.at(node_), i));
}
template <class S>
VarX<S> Call<S>::y() const {
  return tape_->state().var(node_);
}
template <class S>
ConstRows<S> Call<S>::value(int i) const {
  return x(i).value();
}
template <class S>
Rows<S> Call<S>::out() const {
  const auto& n = tape_->state().at(node_);
  return {n.data, n.rows, n.cols};
}
template <class S>
bool Call<S>::wants(int i) const {
  TapeState<S>& state = tape_->state();
  return wanted_ == nullptr || wanted_[state.input(state.at(node_), i)] != 0;
}

template <class S>
VarX<S> custom_op(const Operation<S>& operation, std::span<const std::type_identity_t<VarX<S>>> inputs, Index rows, Index cols,
                  const Attributes& attributes) {
  check(operation.name != nullptr && operation.forward != nullptr, "custom_op: the operation needs a name and a forward");
  check(!inputs.empty(), "custom_op: ", operation.name, " has no inputs; it needs at least one, to know its tape");
  return inputs[0].tape().state().apply(operation, inputs, rows, cols, attributes);
}

#define TWEEDIE_INSTANTIATE(S)         \
  template class detail::TapeState<S>; \
  template class VarX<S>;              \
  template class TapeX<S>;             \
  template class Call<S>;              \
  template VarX<S> custom_op(const Operation<S>&, std::span<const VarX<S>>, Index, Index, const Attributes&);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
TWEEDIE_INSTANTIATE(std::complex<double>)

}  // namespace tweedie
