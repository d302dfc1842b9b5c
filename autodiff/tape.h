// tape.h - values (B, D) that remember how they were computed.
//
//   Tape tape;
//   Var x = tape.variable(data), w = tape.parameter(weight), b = tape.parameter(bias);   // leaves
//   Var loss = mean(square(linear(x, w, b)));                                            // ops.h
//   std::vector<Var> gradient = grad(loss, {w, b});                                      // grad.h
//   tape.reset();                                                                        // next step, memory kept
//
// A tape is a list of nodes in the order in which they were computed; a Var is a handle to one of them. Every value is a
// row-major matrix without gaps. reset() forgets the nodes and keeps their memory, so that a training step which repeats the
// same shapes allocates nothing. A tape belongs to one thread at a time; its operations use the library's thread pool inside
// and give the same bits for any number of threads. S is float, double or std::complex<double> (forward only: complex-step
// checks of gradients).
// SPDX-License-Identifier: MIT
#pragma once

#include <complex>
#include <cstdint>
#include <memory>
#include <string>

#include "tweedie/core/matrix.h"

namespace tweedie {

template <class S>
class TapeX;

namespace detail {
template <class S>
class TapeState;  // detail/tape_state.h
}  // namespace detail

/// A handle to a value on a tape: trivially copyable, cheap to pass by value. A default-constructed Var is "none".
/// Using a handle after its tape's reset() throws UsageError; after the tape's destruction it must not be used.
template <class S>
class TWEEDIE_API VarX {
 public:
  VarX() = default;

  /// Whether this is a value and not "none".
  explicit operator bool() const { return tape_ != nullptr; }

  ConstRows<S> value() const;  // valid until the tape's reset()
  Index rows() const;
  Index cols() const;
  /// The only element of a (1, 1) value; throws UsageError for another shape.
  S item() const;
  /// Whether gradients flow to it: a variable, a parameter, or what was computed from one while recording.
  bool differentiable() const;
  TapeX<S>& tape() const;

 private:
  friend class TapeX<S>;
  friend class detail::TapeState<S>;
  VarX(TapeX<S>* tape, std::int32_t index, std::uint64_t serial) : tape_(tape), serial_(serial), index_(index) {}

  TapeX<S>* tape_ = nullptr;
  std::uint64_t serial_ = 0;  // of the node: a slot that was recycled has another one
  std::int32_t index_ = -1;
};

template <class S>
class TWEEDIE_API TapeX {
 public:
  TapeX();
  ~TapeX();
  TapeX(const TapeX&) = delete;
  TapeX& operator=(const TapeX&) = delete;

  /// A leaf that gradients flow to; the rows are copied.
  VarX<S> variable(ConstRows<S> rows);
  /// A leaf that gradients flow to, by reference: the rows have no gaps, outlive the next reset() and do not change before it.
  VarX<S> parameter(ConstRows<S> rows);
  /// A leaf that no gradient flows to; the rows are copied.
  VarX<S> constant(ConstRows<S> rows);
  /// The same by reference, under the conditions of parameter().
  VarX<S> constant_view(ConstRows<S> rows);
  /// A (1, 1) constant.
  VarX<S> scalar(S value);
  /// A (rows, cols) constant, every element `value`.
  VarX<S> full(Index rows, Index cols, S value);
  VarX<S> zeros(Index rows, Index cols) { return full(rows, cols, S(0)); }

  /// Forgets all nodes and keeps their memory. Every Var of this tape becomes stale.
  void reset();

  /// Whether operations remember their inputs (the default). While they do not, results are constants.
  bool recording() const;
  void set_recording(bool recording);

  Index nodes() const;  // on the tape now
  Index bytes() const;  // of memory held for values, in use or recycled

  /// The graph that y was computed by, in Graphviz's language: `dot -Tsvg`.
  std::string to_dot(VarX<S> y) const;

  detail::TapeState<S>& state() const { return *state_; }

 private:
  std::unique_ptr<detail::TapeState<S>> state_;
};

/// While it lives, operations on the tape are not recorded.
///   { PauseRecording pause(tape);  Var y = net(x);  ... }
template <class S>
class PauseRecording {
 public:
  explicit PauseRecording(TapeX<S>& tape, bool recording = false) : tape_(tape), before_(tape.recording()) {
    tape.set_recording(recording);
  }
  ~PauseRecording() { tape_.set_recording(before_); }
  PauseRecording(const PauseRecording&) = delete;
  PauseRecording& operator=(const PauseRecording&) = delete;

 private:
  TapeX<S>& tape_;
  bool before_;
};

using Tape = TapeX<float>;
using TapeD = TapeX<double>;
using Var = VarX<float>;
using VarD = VarX<double>;

}  // namespace tweedie
