// network.cpp - parameters as leaves of a tape, and the score's derivatives by it.
// SPDX-License-Identifier: MIT
#include "tweedie/models/network.h"

#include <algorithm>
#include <utility>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/detail/noise_rows.h"
#include "tweedie/models/detail/perceptron.h"

namespace tweedie {

namespace {

constexpr Index kTapeRows = 128;  // few enough for the caches, enough to repay packing the weights for every product

void check_like(const char* name, const char* function, const char* what, ConstRows<double> rows, ConstRows<double> y) {
  check(rows.rows() == y.rows() && rows.cols() == y.cols(), name, ": ", function, " with ", what, " ", shape(rows), ", y is ",
        shape(y), "; give them the same shape");
}

template <class S>
void copy_rows(ConstRows<S> from, Rows<S> to) {
  for (Index r = 0; r < from.rows(); ++r) std::copy_n(from.row(r).data(), from.cols(), to.row(r).data());
}

}  // namespace

Network::Network(ParameterLayout layout) : layout_(std::move(layout)), parameters_(layout_.size()) {}

Network::~Network() = default;

void Network::set_precision(kernels::Precision precision) {
  using kernels::Precision;
  check(precision != Precision::tf32, name(), ": no CPU computes in tf32; choose fp32, bf16x3 or bf16");
  check(precision == Precision::fp32 || has_fused_perceptron(), name(), ": this network computes in fp32 alone; ",
        kernels::name(precision), " is for perceptrons of at most ", kernels::Mlp::kMaxLayers,
        " layers (train with --net mlp or ncsn), or choose fp32");
  precision_ = precision;
}

void Network::parameters_changed() {
  copy_float_.reset();
  copy_double_.reset();
}

Var Network::log_variance(Tape&, std::span<const Var>, const NoiseInput<float>&) const { return {}; }
VarD Network::log_variance(TapeD&, std::span<const VarD>, const NoiseInput<double>&) const { return {}; }

detail::Perceptron Network::perceptron() const { return {}; }
detail::PerceptronRows Network::perceptron_rows(std::span<const double>, const Condition*, Index) const {
  fail(name(),
       ": this network is no perceptron, and a device computes those alone; train one with --net mlp, or use --device cpu");
}

template <class S>
std::shared_ptr<const Buffer<S>> Network::parameters_in() const {
  const auto build = [this] {
    Buffer<S> copy(layout_.size());
    std::copy(parameters_.begin(), parameters_.end(), copy.begin());
    return copy;
  };
  if constexpr (std::is_same_v<S, float>) {
    return copy_float_.get(build);
  } else {
    return copy_double_.get(build);
  }
}

// body(tape, x, s, first row) for each block of rows, x (rows, D) a variable and s its score on the thread's tape.
template <class S, class Body>
void Network::for_tape_blocks(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Body&& body) const {
  const std::shared_ptr<const Buffer<S>> flat = parameters_in<S>();
  parallel_for(y.rows(), kTapeRows, [&](Index begin, Index end) {
    static thread_local TapeX<S> tape;
    static thread_local std::vector<VarX<S>> parameters;
    static thread_local detail::NoiseRows<S> noise;
    for (Index first = begin; first < end; first += kTapeRows) {
      const Index rows = std::min(kTapeRows, end - first);
      tape.reset();
      parameters.clear();
      for (const ParameterTensor& tensor : layout_) parameters.push_back(tape.constant_view(view(tensor, flat->data())));
      const VarX<S> x = tape.variable(y.middle_rows(first, rows));
      body(tape, x, tape_score<S>(*this, tape, parameters, x, noise.take(sigma, condition, first, rows)), first);
    }
    tape.reset();
  });
}

template <class S>
void Network::score_on_tape(ConstRows<S> y, std::span<const S> sigma, const Condition* condition, Rows<S> out) const {
  check_rows(y, sigma, condition, out);
  for_tape_blocks<S>(y, sigma, condition,
                     [&](TapeX<S>&, VarX<S>, VarX<S> s, Index first) { copy_rows(s.value(), out.middle_rows(first, s.rows())); });
}

void Network::jvp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                  Rows<double> score, Rows<double> out) const {
  check_rows(y, sigma, condition, score);
  check_like(name(), "jvp", "v", v, y);
  check_like(name(), "jvp", "out", out, y);
  for_tape_blocks<double>(y, sigma, condition, [&](TapeD& tape, VarD x, VarD s, Index first) {
    const VarD tangent = tape.constant(v.middle_rows(first, x.rows()));
    copy_rows(s.value(), score.middle_rows(first, x.rows()));
    copy_rows(tweedie::jvp(s, {x}, {tangent}).value(), out.middle_rows(first, x.rows()));
  });
}

void Network::vjp(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, ConstRows<double> v,
                  Rows<double> score, Rows<double> out) const {
  check_rows(y, sigma, condition, score);
  check_like(name(), "vjp", "v", v, y);
  check_like(name(), "vjp", "out", out, y);
  for_tape_blocks<double>(y, sigma, condition, [&](TapeD& tape, VarD x, VarD s, Index first) {
    const VarD seed = tape.constant(v.middle_rows(first, x.rows()));
    copy_rows(s.value(), score.middle_rows(first, x.rows()));
    const Rows<double> to = out.middle_rows(first, x.rows());
    gradient(s, std::span<const VarD>(&x, 1), std::span<const Rows<double>>(&to, 1), seed);
  });
}

void Network::divergence(ConstRows<double> y, std::span<const double> sigma, const Condition* condition, Rows<double> score,
                         std::span<double> out) const {
  check_rows(y, sigma, condition, score);
  check_traces(y, out);
  for_tape_blocks<double>(y, sigma, condition, [&](TapeD& tape, VarD x, VarD s, Index first) {
    const Index rows = x.rows(), dim = x.cols();
    static thread_local MatrixD row;
    if (row.rows() != rows || row.cols() != dim) row = MatrixD(rows, dim);
    const Rows<double> to = row.view();
    const VarD ones = tape.full(rows, 1, 1);
    const std::span<double> trace = out.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    copy_rows(s.value(), score.middle_rows(first, rows));
    std::fill(trace.begin(), trace.end(), 0.);
    for (Index d = 0; d < dim; ++d) {  // row d of each Jacobian; its element d counts
      gradient(s, std::span<const VarD>(&x, 1), std::span<const Rows<double>>(&to, 1), pad_cols(ones, d, dim - d - 1));
      for (Index b = 0; b < rows; ++b) trace[static_cast<std::size_t>(b)] += row(b, d);
    }
  });
}

template <class S>
std::vector<VarX<S>> parameter_vars(TapeX<S>& tape, const ParameterLayout& layout, const S* flat) {
  std::vector<VarX<S>> vars;
  vars.reserve(static_cast<std::size_t>(layout.count()));
  for (const ParameterTensor& tensor : layout) vars.push_back(tape.parameter(view(tensor, flat)));
  return vars;
}

template <class S>
VarX<S> tape_score(const Network& network, TapeX<S>& tape, std::span<const VarX<S>> parameters, VarX<S> x,
                   const NoiseInput<S>& noise) {
  const VarX<S> scaled = network.scaled_score(tape, parameters, x, noise);
  return scaled / tape.constant({noise.sigma.data(), static_cast<Index>(noise.sigma.size()), 1});
}

#define TWEEDIE_INSTANTIATE(S)                                                                             \
  template std::shared_ptr<const Buffer<S>> Network::parameters_in() const;                                \
  template void Network::score_on_tape(ConstRows<S>, std::span<const S>, const Condition*, Rows<S>) const; \
  template std::vector<VarX<S>> parameter_vars(TapeX<S>&, const ParameterLayout&, const S*);               \
  template VarX<S> tape_score(const Network&, TapeX<S>&, std::span<const VarX<S>>, VarX<S>, const NoiseInput<S>&);
TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
#undef TWEEDIE_INSTANTIATE

}  // namespace tweedie
