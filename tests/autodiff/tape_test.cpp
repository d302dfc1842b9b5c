// The tape itself: handles, errors, memory, graphs, one's own operations, fused nodes, threads.
// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/tape.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tweedie/autodiff/fused.h"
#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/operation.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"

using namespace tweedie;

namespace {

Matrix sequence(Index rows, Index cols) {
  Matrix m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = std::sin(static_cast<float>(i) * .7F);
  return m;
}

template <class V>
bool same_bits(V a, V b) {
  return std::memcmp(a.data(), b.data(), sizeof(*a.data()) * static_cast<std::size_t>(a.size())) == 0;
}

/// The message of the UsageError that f throws; empty when it throws none.
template <class F>
std::string usage_error(F&& f) {
  try {
    f();
  } catch (const UsageError& e) {
    return e.what();
  }
  return {};
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("leaves: copied or by reference") {
  Tape tape;
  Matrix m = sequence(3, 2);
  const Var copied = tape.variable(m), parameter = tape.parameter(m), constant = tape.constant(m), view = tape.constant_view(m);
  m(0, 0) = 9;
  CHECK(copied.value()(0, 0) == 0);
  CHECK(constant.value()(0, 0) == 0);
  CHECK(parameter.value()(0, 0) == 9);
  CHECK(parameter.value().data() == m.data());
  CHECK(view.value().data() == m.data());
  CHECK(copied.differentiable());
  CHECK(parameter.differentiable());
  CHECK_FALSE(constant.differentiable());
  CHECK_FALSE(view.differentiable());
  CHECK(tape.scalar(2).item() == 2);
  CHECK(contains(usage_error([&] { tape.parameter(ConstRows<float>(m.view().middle_cols(0, 1))); }), "gaps"));
  CHECK(tape.variable(ConstRows<float>(m.view().middle_cols(1, 1))).value()(2, 0) == m(2, 1));
}

TEST_CASE("a Var that is none, stale, or of another tape throws") {
  Tape tape, other;
  const Var x = tape.variable(sequence(2, 2)), y = other.variable(sequence(2, 2));
  CHECK(contains(usage_error([] { Var().value(); }), "none"));
  CHECK(contains(usage_error([&] { x + Var(); }), "none"));
  CHECK(contains(usage_error([&] { x + y; }), "operator+: its arguments live on different tapes"));
  CHECK(contains(usage_error([&] { grad(sum(x), {y}); }), "different tapes"));
  tape.reset();
  CHECK(contains(usage_error([&] { x.value(); }), "reset()"));
  const Var again = tape.variable(sequence(2, 2));  // takes the same place on the tape
  CHECK(again.rows() == 2);
  CHECK(contains(usage_error([&] { exp(x); }), "reset()"));
}

// Recorded, constant and complex values go through one check, so they throw alike.
TEST_CASE("shapes that do not fit throw, whatever the arguments are") {
  const auto throws = [](auto f) {
    const auto on = [&](auto& tape, bool variable) {
      using S = std::remove_cvref_t<decltype(tape.scalar(0).item())>;
      const auto make = [&](Index r, Index c) {
        return variable ? tape.variable(MatrixX<S>(r, c)) : tape.constant(MatrixX<S>(r, c));
      };
      return usage_error([&] { f(make); });
    };
    Tape a;
    TapeD b;
    TapeX<std::complex<double>> c;
    const std::string message = on(a, true);
    CHECK(message == on(a, false));
    CHECK(message == on(b, true));
    CHECK(message == on(c, false));
    return message;
  };
  CHECK(throws([](auto v) { v(2, 3) + v(3, 2); }) ==
        "operator+: shapes (2, 3) and (3, 2) do not fit: rows and columns must be equal or 1");
  CHECK(contains(throws([](auto v) { v(2, 3) - v(2, 2); }), "operator-: shapes (2, 3) and (2, 2)"));
  CHECK(contains(throws([](auto v) { v(2, 3) * v(0, 3); }), "operator*"));
  CHECK(contains(throws([](auto v) { v(2, 3) / v(4, 1); }), "operator/"));
  CHECK(contains(throws([](auto v) { matmul(v(2, 3), v(2, 3)); }), "matmul: shapes (2, 3) and (2, 3)"));
  CHECK(contains(throws([](auto v) { matmul_nt(v(2, 3), v(2, 2)); }), "matmul_nt"));
  CHECK(contains(throws([](auto v) { matmul_tn(v(2, 3), v(3, 2)); }), "matmul_tn"));
  CHECK(contains(throws([](auto v) { linear(v(2, 3), v(4, 2), v(1, 4)); }), "linear: shapes (2, 3) and (4, 2)"));
  CHECK(contains(throws([](auto v) { linear(v(2, 3), v(4, 3), v(4, 1)); }), "linear: shapes (4, 3) and (4, 1)"));
  CHECK(contains(throws([](auto v) { silu_gradient(v(2, 3), v(1, 3)); }), "silu_gradient"));
  CHECK(contains(throws([](auto v) { where(v(2, 3), v(2, 3), v(1, 3)); }), "where"));
  CHECK(contains(throws([](auto v) { clamp(v(2, 3), 1, 0); }), "clamp: low is 1 and high is 0"));
  CHECK(contains(throws([](auto v) { clamp(v(2, 3), 0, std::nan("")); }), "clamp"));
  CHECK(contains(throws([](auto v) { mean(v(0, 3)); }), "mean: a value of shape (0, 3)"));
  CHECK(contains(throws([](auto v) { sum_to(v(2, 3), 1, 2); }), "sum_to"));
  CHECK(contains(throws([](auto v) { broadcast_to(v(2, 3), 4, 3); }), "broadcast_to"));
  CHECK(contains(throws([](auto v) { concat_cols({v(2, 3), v(3, 3)}); }), "concat_cols"));
  CHECK(
      contains(throws([](auto v) { slice_cols(v(2, 3), 2, 2); }), "slice_cols: 2 columns from 2 on, of a value of shape (2, 3)"));
  CHECK(contains(throws([](auto v) { slice_cols(v(2, 3), -1, 2); }), "slice_cols"));
  CHECK(contains(throws([](auto v) { slice_cols(v(2, 3), 1, PTRDIFF_MAX); }), "slice_cols"));
  CHECK(contains(throws([](auto v) { slice_rows(v(2, 3), 1, 2); }), "slice_rows"));
  CHECK(contains(throws([](auto v) { slice_rows(v(2, 3), 0, -1); }), "slice_rows"));
  CHECK(contains(throws([](auto v) { pad_cols(v(2, 3), -1, 2); }), "pad_cols"));
  CHECK(contains(throws([](auto v) { pad_rows(v(2, 3), 0, -2); }), "pad_rows"));
  CHECK(contains(throws([](auto v) { reshape(v(2, 3), 4, 2); }), "reshape"));
  CHECK(contains(throws([](auto v) { reshape(v(2, 3), -2, -3); }), "reshape"));
  const std::vector<std::int32_t> outside = {0, 2}, negative = {-1};
  CHECK(throws([&](auto v) { gather_rows(v(2, 3), outside); }) == "gather_rows: indices[1] is 2, expected 0 to 1");
  CHECK(contains(throws([&](auto v) { gather_rows(v(2, 3), negative); }), "gather_rows"));
  CHECK(contains(throws([&](auto v) { scatter_add(v(2, 3), outside, 2); }), "scatter_add"));
  CHECK(contains(throws([&](auto v) { scatter_add(v(3, 3), outside, 3); }), "scatter_add: 2 indices"));
  CHECK(contains(throws([](auto v) { v(2, 3).item(); }), "item"));
}

TEST_CASE("far arguments give the limits, not overflow") {
  Tape tape;
  const float inf = std::numeric_limits<float>::infinity();
  const Var x = tape.variable(Matrix{{-1000, 1000, -90, 0}});
  const auto row = [](Var v) { return std::vector<float>(v.value().data(), v.value().data() + v.cols()); };
  const auto slope = [&](Var y) { return row(grad(sum(y), {x})[0]); };
  CHECK(row(sigmoid(x)) == std::vector<float>{0, 1, std::exp(-90.F), .5F});
  CHECK(slope(sigmoid(x)) == std::vector<float>{0, 0, std::exp(-90.F), .25F});
  CHECK(row(softplus(x)) == std::vector<float>{0, 1000, std::exp(-90.F), std::log(2.F)});
  CHECK(slope(softplus(x)) == std::vector<float>{0, 1, std::exp(-90.F), .5F});
  CHECK(row(silu(x))[1] == 1000);
  CHECK(std::abs(row(silu(x))[0]) == 0);
  CHECK(slope(silu(x))[1] == 1);
  CHECK(std::abs(slope(silu(x))[0]) == 0);
  CHECK(row(gelu(x))[1] == 1000);
  CHECK(slope(gelu(x))[1] == 1);
  CHECK(slope(tanh(x)) == std::vector<float>{0, 0, 0, 1});
  CHECK(row(relu(x)) == std::vector<float>{0, 1000, 0, 0});
  CHECK(slope(relu(x)) == std::vector<float>{0, 1, 0, 0});
  CHECK(slope(abs(x)) == std::vector<float>{-1, 1, -1, 0});
  CHECK(slope(clamp(x, 0, 1000)) == std::vector<float>{0, 1, 0, 1});
  CHECK(log_sum_exp_rows(x).item() == 1000);
  CHECK(row(softmax_rows(x)) == std::vector<float>{0, 1, 0, 0});
  CHECK(slope(log_sum_exp_rows(x)) == std::vector<float>{0, 1, 0, 0});
  CHECK(log_sum_exp_rows(tape.constant(Matrix{{-inf, -inf}})).item() == -inf);
  CHECK(log_sum_exp_rows(tape.constant(Matrix{{inf, 1}})).item() == inf);
  CHECK(log_sum_exp_rows(tape.constant(Matrix(1, 0))).item() == -inf);
  const float nan = std::nanf("");
  for (Var y : {tape.constant(Matrix{{nan, 1, 2}}), tape.constant(Matrix{{1, nan, 2}})}) {
    CHECK(std::isnan(log_sum_exp_rows(y).item()));
    CHECK(std::isnan(softmax_rows(y).value()(0, 2)));
    CHECK(std::isnan(sum(relu(y)).item()));
    CHECK(std::isnan(sum(clamp(y, 0, 1)).item()));
    CHECK(std::isnan(sum(abs(y)).item()));
  }
  CHECK(log_sum_exp_rows(tape.constant(Matrix{{-1000, -1000}})).item() == doctest::Approx(-1000 + std::log(2.)));
}

TEST_CASE("grad: seeds, zeros for what is not used, inputs that are computed, constants refused") {
  TapeD tape;
  const VarD x = tape.variable(MatrixD{{1, 2}}), unused = tape.variable(MatrixD{{3}}), c = tape.constant(MatrixD{{4, 5}});
  const VarD h = x * c, y = square(h);
  const auto g = grad(sum(y), {x, unused, h});
  CHECK(g[0].value()(0, 1) == 2 * 10 * 5);
  CHECK(g[1].value()(0, 0) == 0);
  CHECK(g[2].value()(0, 1) == 20);
  CHECK(grad(y, {x}, {}, tape.constant(MatrixD{{0, 1}}))[0].value()(0, 0) == 0);
  CHECK(contains(usage_error([&] { grad(y, {x}); }), "y has shape (1, 2)"));
  CHECK(contains(usage_error([&] { grad(y, {x}, {}, x * unused + tape.zeros(2, 2)); }), "grad: shapes (1, 2) and (2, 2)"));
  CHECK(contains(usage_error([&] { grad(sum(y), {x, c}); }), "input 1 is a constant"));
  CHECK(contains(usage_error([&] { grad(sum(y), {stop_gradient(x)}); }), "input 0 is a constant"));
  CHECK(grad(sum(stop_gradient(y) * x), {x})[0].value()(0, 1) == 100);
  CHECK(grad(unused, {y}, {}, unused)[0].value()(0, 1) == 0);  // y was computed after it
  CHECK_FALSE(g[0].differentiable());
  CHECK(grad(sum(y), {x}, {.create_graph = true})[0].differentiable());
  CHECK(contains(usage_error([&] { jvp(y, {x}, {unused}); }), "jvp: shapes (1, 2) and (1, 1)"));
  CHECK(jvp(y, {unused}, {unused}).value()(0, 1) == 0);
  // An input that depends on another: total derivatives, the same in both modes.
  const VarD both = jvp(y, {x, h}, {tape.constant(MatrixD{{1, 1}}), tape.constant(MatrixD{{0, 1}})});
  CHECK(both.value()(0, 1) == 20 * (5 + 1));
}

TEST_CASE("gradient() writes the same numbers into given memory and leaves the tape as it was") {
  Tape tape;
  const Var x = tape.variable(sequence(70, 5)), w = tape.variable(sequence(6, 5)), b = tape.variable(sequence(1, 6));
  const Var loss = mean(square(silu(linear(x, w, b)) + sum_cols(x)));
  const auto expected = grad(loss, {x, w, b});
  const Index nodes = tape.nodes();
  Matrix gx(70, 7), gw(6, 5), gb(1, 6);  // gx with gaps between its rows
  gradient(loss, std::vector<Var>{x, w, b}, std::vector<Rows<float>>{gx.view().middle_cols(1, 5), gw, gb});
  CHECK(tape.nodes() == nodes);
  CHECK(same_bits(ConstRows<float>(gw), expected[1].value()));
  CHECK(same_bits(ConstRows<float>(gb), expected[2].value()));
  CHECK(gx(69, 1) == expected[0].value()(69, 0));
  CHECK(gx(69, 0) == 0);
  CHECK(contains(usage_error([&] { gradient(loss, std::vector<Var>{x}, std::vector<Rows<float>>{gw}); }), "output 0"));
  CHECK(contains(usage_error([&] { gradient(loss, std::vector<Var>{x}, std::vector<Rows<float>>{}); }), "0 outputs"));
  // The tape is whole: the gradient can be taken again.
  CHECK(same_bits(grad(loss, {w})[0].value(), expected[1].value()));
}

TEST_CASE("recycled memory does not leak into later gradients") {
  // A graph whose adjoints are views of dy and of one another: each must own its memory.
  MatrixD m(4, 3);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = std::cos(static_cast<double>(i));
  const auto h = [](auto x) {
    const auto a = x[0] + x[0], b = reshape(a, 6, 2), c = slice_rows(b, 1, 3);
    const auto d = a + reshape(b, 4, 3) - transpose(reshape(b, 3, 4));
    return d * x[0] + sum(c * c) + broadcast_to(sum_to(d, 1, 3), 4, 3);
  };
  CHECK(check_gradient(h, {m}).error < 1e-9);
  CHECK(check_second_order(h, {m}).error < 1e-9);
}

TEST_CASE("while recording is paused, results are constants") {
  Tape tape;
  const Var x = tape.variable(sequence(2, 2));
  {
    const PauseRecording pause(tape);
    CHECK_FALSE(exp(x).differentiable());
    CHECK_FALSE(reshape(x, 1, 4).differentiable());
  }
  CHECK(exp(x).differentiable());
  CHECK_FALSE(exp(tape.constant(sequence(2, 2))).differentiable());
}

TEST_CASE("to_dot draws the graph, one edge per use") {
  Tape tape;
  const Var x = tape.variable(sequence(2, 3)), c = tape.constant(sequence(1, 3));
  exp(x);  // no ancestor of y
  const Var y = sum(x * c + x);
  CHECK(tape.to_dot(y) ==
        "digraph tape {\n"
        "  n5 [label=\"sum_to\\n(1, 1)\"];\n"
        "  n4 [label=\"operator+\\n(2, 3)\"];\n"
        "  n3 [label=\"operator*\\n(2, 3)\"];\n"
        "  n1 [label=\"constant\\n(1, 3)\", shape=box, style=dashed];\n"
        "  n0 [label=\"variable\\n(2, 3)\", shape=box];\n"
        "  n4 -> n5;\n  n3 -> n4;\n  n0 -> n4;\n  n0 -> n3;\n  n1 -> n3;\n"
        "}\n");
}

namespace {

// y = x^3;  dy = 3 x^2 dx;  dx += 3 x^2 dy
template <class S>
const Operation<S> kCube = {
    .name = "cube",
    .forward =
        [](const Call<S>& f) {
          for (Index i = 0; i < f.out().size(); ++i)
            f.out().data()[i] = f.value().data()[i] * f.value().data()[i] * f.value().data()[i];
        },
    .jvp = [](const Call<S>& f, std::span<const VarX<S>> dx) { return 3 * square(f.x()) * dx[0]; },
    .pullback = [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = 3 * square(f.x()) * dy; }};

const Operation<double> kOpaque = {
    .name = "opaque", .forward = [](const Call<double>& f) { *f.out().data() = 1; }, .jvp = nullptr, .pullback = nullptr};
const Operation<double> kWrongShape = {
    .name = "wrong",
    .forward = [](const Call<double>& f) { *f.out().data() = 1; },
    .jvp = [](const Call<double>& f, std::span<const VarD>) { return f.tape().zeros(2, 2); },
    .pullback = [](const Call<double>& f, VarD, std::span<VarD> dx) { dx[0] = f.tape().zeros(2, 2); }};

}  // namespace

TEST_CASE("a user's own operation") {
  const auto cube = [](auto x) {
    using S = std::remove_cvref_t<decltype(x[0].value()(0, 0))>;
    return custom_op(kCube<S>, {x[0]}, x[0].rows(), x[0].cols());
  };
  MatrixD m{{.5, -1.5}, {2, .1}};
  CHECK(check_gradient(cube, {m}).error < 1e-9);
  CHECK(check_complex_step(cube, {m}).error < 1e-13);
  CHECK(check_second_order(cube, {m}).error < 1e-9);

  TapeD tape;
  const VarD x = tape.variable(MatrixD{{2}});
  const VarD y = custom_op(kOpaque, {x}, 1, 1), z = custom_op(kWrongShape, {x}, 1, 1);
  CHECK(contains(usage_error([&] { grad(y, {x}); }), "opaque has no pullback"));
  CHECK(contains(usage_error([&] { jvp(y, {x}, {x}); }), "opaque has no jvp"));
  CHECK(contains(usage_error([&] { grad(z, {x}); }), "wrong: its pullback has shape (2, 2), expected (1, 1)"));
  CHECK(contains(usage_error([&] { jvp(z, {x}, {x}); }), "wrong: its jvp"));
  CHECK(contains(usage_error([&] { custom_op(Operation<double>{}, {x}, 1, 1); }), "custom_op"));
  CHECK(contains(usage_error([&] { custom_op(kOpaque, std::span<const VarD>(), 1, 1); }), "no inputs"));
  CHECK(contains(usage_error([&] { custom_op(kOpaque, {x}, -1, 1); }), "negative"));
  CHECK(grad(square(x), {x})[0].item() == 4);  // the tape survives all of it
}

namespace {

// y = a tanh(b), by hand
int forward_calls = 0, backward_calls = 0, recipe_calls = 0;
const Fused<double> kScaledTanh = {
    .name = "scaled_tanh",
    .forward =
        [](std::span<const ConstRows<double>> x, Rows<double> y) {
          ++forward_calls;
          for (Index i = 0; i < y.size(); ++i) y.data()[i] = x[0].data()[i] * std::tanh(x[1].data()[i]);
        },
    .backward =
        [](std::span<const ConstRows<double>> x, ConstRows<double>, ConstRows<double> dy, std::span<const Rows<double>> dx) {
          ++backward_calls;
          for (Index i = 0; i < dy.size(); ++i) {
            const double t = std::tanh(x[1].data()[i]);
            if (dx[0].data() != nullptr) dx[0].data()[i] = dy.data()[i] * t;
            if (dx[1].data() != nullptr) dx[1].data()[i] = dy.data()[i] * x[0].data()[i] * (1 - t * t);
          }
        },
    .recipe =
        [](std::span<const VarD> x) {
          ++recipe_calls;
          return x[0] * tanh(x[1]);
        }};

}  // namespace

TEST_CASE("a fused node runs its own backward, and replays its recipe for derivatives of derivatives") {
  const detail::CheckedFunction<double> f = [](std::span<const VarD> x) {
    return fused(kScaledTanh, {x[0], sin(x[1])}, x[0].rows(), x[0].cols());
  };
  // The same Var twice, and one input computed from the other.
  const detail::CheckedFunction<double> g = [](std::span<const VarD> x) {
    const VarD y = fused(kScaledTanh, {x[0], x[0]}, x[0].rows(), x[0].cols());
    return fused(kScaledTanh, {y, x[0]}, y.rows(), y.cols());
  };
  const std::vector<MatrixD> two = {MatrixD{{.5, -1, 2}}, MatrixD{{1, .3, -.7}}}, one = {MatrixD{{.5, -1, 2}}};
  CHECK(detail::check_gradient(f, two).error < 1e-9);
  CHECK(detail::check_second_order(f, two).error < 1e-9);
  CHECK(detail::check_gradient(g, one).error < 1e-9);
  CHECK(detail::check_second_order(g, one).error < 1e-9);

  TapeD tape;
  const VarD a = tape.variable(two[0]), b = tape.variable(two[1]), c = tape.constant(two[1]);
  forward_calls = backward_calls = recipe_calls = 0;
  grad(sum(fused(kScaledTanh, {a, c}, 1, 3)), {a});
  CHECK(forward_calls == 1);
  CHECK(backward_calls == 1);
  CHECK(recipe_calls == 0);
  grad(sum(fused(kScaledTanh, {a, b}, 1, 3)), {a}, {.create_graph = true});
  CHECK(backward_calls == 1);
  CHECK(recipe_calls == 1);
  CHECK(contains(tape.to_dot(fused(kScaledTanh, {a, b}, 1, 3)), "scaled_tanh"));
  {
    const VarD y = fused(kScaledTanh, {a, b}, 1, 3);
    const VarD recorded = jvp(y, {a}, {b});
    const PauseRecording pause(tape);
    const VarD paused = jvp(y, {a}, {b});
    CHECK(recorded.differentiable());
    CHECK_FALSE(paused.differentiable());
    CHECK(same_bits(recorded.value(), paused.value()));
  }
  const Fused<double> plain = {.name = "plain", .forward = kScaledTanh.forward, .backward = kScaledTanh.backward, .recipe = {}};
  const VarD y = fused(plain, {a, b}, 1, 3);
  CHECK_NOTHROW(grad(sum(y), {a}));
  CHECK(contains(usage_error([&] { grad(sum(y), {a}, {.create_graph = true}); }), "plain has no recipe"));
  CHECK(contains(usage_error([&] { jvp(y, {a}, {b}); }), "plain has no recipe"));
  CHECK(contains(usage_error([&] { fused(Fused<double>{}, {a}, 1, 3); }), "fused"));
}

TEST_CASE("values and gradients have the same bits for any number of threads") {
  const Matrix x = sequence(1000, 40), w = sequence(300, 40), bias = sequence(1, 300), table = sequence(7, 300);
  std::vector<std::int32_t> level;
  for (int i = 0; i < 1000; ++i) level.push_back((i * 5) % 7);
  std::vector<Matrix> first;
  for (int count : {1, 2, 4, 16}) {
    set_threads(count);
    Tape tape;
    const Var vx = tape.parameter(x), vw = tape.parameter(w), vb = tape.parameter(bias), vt = tape.parameter(table);
    const Var h = silu(linear(vx, vw, vb)) * gather_rows(vt, level);
    const Var y = mean(log_sum_exp_rows(h + softmax_rows(h))) + sum(square(sum_rows(tanh(h)) / 1000));
    std::vector<Matrix> results;
    for (Var v : grad(y, {vx, vw, vb, vt})) results.emplace_back(v.value());
    results.emplace_back(y.value());
    results.emplace_back(h.value());
    if (first.empty()) first = std::move(results);
    for (std::size_t i = 0; i < results.size(); ++i) {
      CHECK(same_bits(ConstRows<float>(results[i]), ConstRows<float>(first[i])));
    }
  }
  set_threads(0);
}
