// Every operation, over a table of shapes, in float and double: full Jacobians by differences and by complex steps, second
// derivatives, forward against reverse mode, and float against double.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/ops.h"

using namespace tweedie;

namespace {

using Shape = std::pair<Index, Index>;
template <class S>
using Function = std::function<VarX<S>(std::span<const VarX<S>>)>;

double plain(double u) { return 4 * u - 2; }                                                     // (-2, 2)
double positive(double u) { return .5 + 2 * u; }                                                 // (.5, 2.5)
double off_zero(double u) { return u < .5 ? -.2 - 3 * u : .2 + 3 * (u - .5); }                   // away from 0
double off_half(double u) { return u < .5 ? -.5 - 2 * u : 2 * u - .5; }                          // at least .5 away from 0
double off_one(double u) { return u < .25 ? -2 + 3 * u : u < .75 ? 2.4 * u - 1.2 : 3 * u - 1; }  // away from -1 and 1

struct Op {
  std::string name;
  Function<float> in_float;
  Function<double> in_double;
  Function<std::complex<double>> in_complex;
  std::function<std::vector<Shape>(Index B, Index D)> shapes;
  double (*domain)(double);
};

std::vector<Shape> one(Index B, Index D) { return {{B, D}}; }
std::vector<Shape> same(Index B, Index D) { return {{B, D}, {B, D}}; }
std::vector<Shape> row(Index B, Index D) { return {{B, D}, {1, D}}; }
std::vector<Shape> row_left(Index B, Index D) { return {{1, D}, {B, D}}; }
std::vector<Shape> column(Index B, Index D) { return {{B, D}, {B, 1}}; }
std::vector<Shape> outer(Index B, Index D) { return {{B, 1}, {1, D}}; }
std::vector<Shape> single(Index B, Index D) { return {{B, D}, {1, 1}}; }
std::vector<Shape> single_left(Index B, Index D) { return {{1, 1}, {B, D}}; }

template <class F>
Op op(const char* name, F f, std::function<std::vector<Shape>(Index, Index)> shapes = one, double (*domain)(double) = plain) {
  return {name, f, f, f, std::move(shapes), domain};
}

/// Indices into n rows, with repetitions, in no order.
std::vector<std::int32_t> some_indices(Index count, Index n) {
  std::vector<std::int32_t> result;
  for (Index i = 0; i < count; ++i) result.push_back(static_cast<std::int32_t>((i * 7 + 3) % n));
  return result;
}

/// A (B, D) constant of 0s and 1s.
template <class S>
VarX<S> mask(VarX<S> x) {
  MatrixX<S> m(x.rows(), x.cols());
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = S(i % 3 == 0 ? 1 : 0);
  return x.tape().constant(m);
}

// NOLINTNEXTLINE: one list of everything
std::vector<Op> operations() {
  return {op(
              "a + b", [](auto x) { return x[0] + x[1]; }, same),
          op(
              "a + b, row", [](auto x) { return x[0] + x[1]; }, row),
          op(
              "a + b, column", [](auto x) { return x[0] + x[1]; }, column),
          op(
              "a + b, outer", [](auto x) { return x[0] + x[1]; }, outer),
          op(
              "a - b", [](auto x) { return x[0] - x[1]; }, same),
          op(
              "a - b, row left", [](auto x) { return x[0] - x[1]; }, row_left),
          op(
              "a - b, single", [](auto x) { return x[0] - x[1]; }, single),
          op(
              "a * b", [](auto x) { return x[0] * x[1]; }, same),
          op(
              "a * b, row", [](auto x) { return x[0] * x[1]; }, row),
          op(
              "a * b, column", [](auto x) { return x[0] * x[1]; }, column),
          op(
              "a * b, outer", [](auto x) { return x[0] * x[1]; }, outer),
          op(
              "a * b, single left", [](auto x) { return x[0] * x[1]; }, single_left),
          op("a * a", [](auto x) { return x[0] * x[0]; }),
          op(
              "a / b", [](auto x) { return x[0] / x[1]; }, same, off_zero),
          op(
              "a / b, row left", [](auto x) { return x[0] / x[1]; }, row_left, off_zero),
          op(
              "a / b, column", [](auto x) { return x[0] / x[1]; }, column, off_zero),
          op(
              "a / b, outer", [](auto x) { return x[0] / x[1]; }, outer, off_zero),
          op("affine", [](auto x) { return affine(x[0], -1.5, .25); }),
          op("scalars", [](auto x) { return 3 - (2 * x[0] + 1) * .5 / 4 + (x[0] - 1) + (1 + x[0]) - -x[0]; }),
          op(
              "s / x", [](auto x) { return 2 / x[0]; }, one, off_zero),
          op("exp", [](auto x) { return exp(x[0]); }),
          op(
              "log", [](auto x) { return log(x[0]); }, one, positive),
          op(
              "sqrt", [](auto x) { return sqrt(x[0]); }, one, positive),
          op("square", [](auto x) { return square(x[0]); }),
          op(
              "reciprocal", [](auto x) { return reciprocal(x[0]); }, one, off_zero),
          op(
              "abs", [](auto x) { return abs(x[0]); }, one, off_zero),
          op(
              "pow 2.5", [](auto x) { return pow(x[0], 2.5); }, one, positive),
          op(
              "pow -1", [](auto x) { return pow(x[0], -1); }, one, positive),
          op(
              "pow 1", [](auto x) { return pow(x[0], 1); }, one, positive),
          op(
              "pow 0", [](auto x) { return pow(x[0], 0); }, one, positive),
          op("sin", [](auto x) { return sin(x[0]); }),
          op("cos", [](auto x) { return cos(x[0]); }),
          op("tanh", [](auto x) { return tanh(x[0]); }),
          op("sigmoid", [](auto x) { return sigmoid(x[0]); }),
          op("silu", [](auto x) { return silu(x[0]); }),
          op(
              "silu_gradient", [](auto x) { return silu_gradient(x[0], x[1]); }, same),
          op(
              "relu", [](auto x) { return relu(x[0]); }, one, off_zero),
          op("gelu", [](auto x) { return gelu(x[0]); }),
          op("softplus", [](auto x) { return softplus(x[0]); }),
          op(
              "clamp", [](auto x) { return clamp(x[0], -1, 1); }, one, off_one),
          op(
              "where", [](auto x) { return where(mask(x[0]), x[0], x[1]); }, same),
          op(
              "matmul", [](auto x) { return matmul(x[0], x[1]); },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {D, 3}};
              }),
          op(
              "matmul_nt", [](auto x) { return matmul_nt(x[0], x[1]); },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {3, D}};
              }),
          op(
              "matmul_tn", [](auto x) { return matmul_tn(x[0], x[1]); },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {B, 3}};
              }),
          op(
              "linear", [](auto x) { return linear(x[0], x[1], x[2]); },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {3, D}, {1, 3}};
              }),
          op("sum", [](auto x) { return sum(x[0]); }),
          op("mean", [](auto x) { return x[0].rows() * x[0].cols() == 0 ? sum(x[0]) : mean(x[0]); }),
          op("sum_rows", [](auto x) { return sum_rows(x[0]); }),
          op("sum_cols", [](auto x) { return sum_cols(x[0]); }),
          op(
              "dot_cols", [](auto x) { return dot_cols(x[0], x[1]); }, same),
          op("softmax_rows", [](auto x) { return softmax_rows(x[0]); }),
          op(
              "log_sum_exp_rows", [](auto x) { return log_sum_exp_rows(x[0]); },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, std::max<Index>(D, 1)}};
              }),
          op(
              "concat_cols",
              [](auto x) {
                return concat_cols({x[0], x[1], x[0]});
              },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {B, 2}};
              }),
          op("slice_cols", [](auto x) { return slice_cols(x[0], x[0].cols() / 3, x[0].cols() / 2); }),
          op("pad_cols", [](auto x) { return pad_cols(x[0], 1, 2); }),
          op("slice_rows", [](auto x) { return slice_rows(x[0], x[0].rows() / 3, x[0].rows() / 2); }),
          op("pad_rows", [](auto x) { return pad_rows(x[0], 2, 1); }),
          op("gather_rows", [](auto x) { return gather_rows(x[0], some_indices(x[0].rows() == 0 ? 0 : 5, x[0].rows())); }),
          op("scatter_add", [](auto x) { return scatter_add(x[0], some_indices(x[0].rows(), 4), 4); }),
          op(
              "broadcast_to, row", [](auto x) { return broadcast_to(x[0], 3, x[0].cols()); },
              [](Index, Index D) {
                return std::vector<Shape>{{1, D}};
              }),
          op(
              "broadcast_to, column", [](auto x) { return broadcast_to(x[0], x[0].rows(), 3); },
              [](Index B, Index) {
                return std::vector<Shape>{{B, 1}};
              }),
          op("sum_to and broadcast_to, both", [](auto x) { return broadcast_to(sum_to(x[0], 1, 1), 2, 3); }),
          op("transpose", [](auto x) { return transpose(x[0]); }),
          op("reshape", [](auto x) { return reshape(x[0], x[0].cols(), x[0].rows()); }),
          op("used twice", [](auto x) { return exp(x[0]) * x[0] + sin(x[0]); }),
          op(
              "a network in small",
              [](auto x) {  // .1 x[2]: tanh not saturated
                return silu(linear(tanh(linear(concat_cols({x[0], x[0] / x[1]}), .1 * x[2], x[3])), x[4], x[5])) * x[1];
              },
              [](Index B, Index D) {
                return std::vector<Shape>{{B, D}, {B, 1}, {3, 2 * D}, {1, 3}, {2, 3}, {1, 2}};
              },
              off_half)};
}

MatrixD random_matrix(Shape shape, double (*domain)(double), std::mt19937_64& random) {
  MatrixD m(shape.first, shape.second);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = domain(static_cast<double>(random() >> 11) * 0x1p-53);
  return m;
}

std::vector<MatrixD> inputs_of(const Op& op, Index B, Index D, std::mt19937_64& random) {
  std::vector<MatrixD> inputs;
  for (const Shape& shape : op.shapes(B, D)) inputs.push_back(random_matrix(shape, op.domain, random));
  return inputs;
}

const std::vector<Shape> kSmall = {{0, 3}, {1, 1}, {1, 2}, {2, 1}, {1, 5},  {5, 1},
                                   {2, 2}, {3, 2}, {2, 3}, {4, 3}, {1, 17}, {3, 0}};
const std::vector<Shape> kLarge = {{17, 9}, {64, 3}, {65, 16}, {129, 8}, {200, 33}, {1, 300}, {300, 1}, {400, 65}};

template <class S>
std::vector<VarX<S>> variables(TapeX<S>& tape, const std::vector<MatrixD>& values) {
  std::vector<VarX<S>> result;
  for (const MatrixD& m : values) result.push_back(tape.variable(MatrixX<S>(m.view())));
  return result;
}

double dot(ConstRows<double> a, ConstRows<double> b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
  return sum;
}

}  // namespace

TEST_CASE("full Jacobians: central differences to 1e-7, complex steps to 1e-13, second derivatives to 1e-7") {
  std::mt19937_64 random(1);
  Index cases = 0, entries = 0;
  double worst_difference = 0, worst_complex = 0, worst_second = 0;
  for (const Op& op : operations()) {
    for (const Shape& size : kSmall) {
      const Index B = size.first, D = size.second;
      CAPTURE(op.name);
      CAPTURE(B);
      CAPTURE(D);
      const std::vector<MatrixD> inputs = inputs_of(op, B, D, random);
      const GradientReport first = detail::check_gradient(op.in_double, inputs);
      CHECK_MESSAGE(first.error <= 1e-7, first.worst);
      const GradientReport complex = detail::check_complex_step(op.in_double, op.in_complex, inputs);
      CHECK_MESSAGE(complex.error <= 1e-13, complex.worst);
      const GradientReport second = detail::check_second_order(op.in_double, inputs);
      CHECK_MESSAGE(second.error <= 1e-7, second.worst);
      worst_difference = std::max(worst_difference, first.error);
      worst_complex = std::max(worst_complex, complex.error);
      worst_second = std::max(worst_second, second.error);
      cases += 3;
      entries += first.entries + complex.entries + second.entries;
    }
  }
  std::printf(
      "gradient cases checked: %td (%td derivatives); largest errors: differences %.1e, complex steps %.1e, second %.1e\n", cases,
      entries, worst_difference, worst_complex, worst_second);
}

// <v, J u> by forward mode, by reverse mode and by the five-point difference along u.
TEST_CASE("large shapes: forward and reverse mode agree along random directions, and with the difference") {
  std::mt19937_64 random(2);
  Index cases = 0;
  for (const Op& op : operations()) {
    for (const Shape& size : kLarge) {
      const Index B = size.first, D = size.second;
      CAPTURE(op.name);
      CAPTURE(B);
      CAPTURE(D);
      const std::vector<MatrixD> inputs = inputs_of(op, B, D, random);
      std::vector<MatrixD> direction;
      for (const MatrixD& m : inputs) direction.push_back(random_matrix({m.rows(), m.cols()}, plain, random));
      TapeD tape;
      const std::vector<VarD> x = variables(tape, inputs), u = variables(tape, direction);
      const VarD y = op.in_double(x);
      const MatrixD v = random_matrix({y.rows(), y.cols()}, plain, random);
      const VarD forward = jvp(y, x, u);
      const std::vector<VarD> reverse = grad(y, x, {}, tape.constant(v));
      const double by_forward = dot(v, forward.value());
      double by_reverse = 0, magnitude = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        by_reverse += dot(reverse[i].value(), u[i].value());
        for (Index e = 0; e < direction[i].size(); ++e) {
          magnitude += std::abs(reverse[i].value().data()[e] * direction[i].data()[e]);
        }
      }
      for (Index e = 0; e < v.size(); ++e) magnitude += std::abs(v.data()[e] * forward.value().data()[e]);
      // Sums of at most n products in two orders: each within n eps of the sum of magnitudes, a random walk in practice.
      CHECK(std::abs(by_forward - by_reverse) <= 1e-13 * magnitude);

      const double h = 0x1p-10;
      double by_difference = 0, y_magnitude = 0;
      for (const auto& [step, weight] : {std::pair{1., 8.}, {-1., -8.}, {2., -1.}, {-2., 1.}}) {
        TapeD other;
        std::vector<MatrixD> moved = inputs;
        for (std::size_t i = 0; i < moved.size(); ++i) {
          for (Index e = 0; e < moved[i].size(); ++e) moved[i].data()[e] += step * h * direction[i].data()[e];
        }
        const VarD value = op.in_double(variables(other, moved));
        by_difference += weight / (12 * h) * dot(v, value.value());
        for (Index e = 0; e < v.size(); ++e) y_magnitude += std::abs(v.data()[e] * value.value().data()[e]);
      }
      CHECK(std::abs(by_forward - by_difference) <= 1e-7 * (magnitude + y_magnitude / 100));
      ++cases;
    }
  }
  std::printf("directional cases checked: %td\n", cases);
}

// Each operation's relative error in float is a few u = 2^-24 of the magnitudes it sums; K terms of a product or sum add K u.
TEST_CASE("float gives double's values and gradients to rounding") {
  std::mt19937_64 random(3);
  Index cases = 0;
  std::vector<Shape> shapes = kSmall;
  shapes.insert(shapes.end(), kLarge.begin(), kLarge.end());
  for (const Op& op : operations()) {
    for (const Shape& size : shapes) {
      const Index B = size.first, D = size.second;
      CAPTURE(op.name);
      CAPTURE(B);
      CAPTURE(D);
      std::vector<MatrixD> inputs = inputs_of(op, B, D, random);
      for (MatrixD& m : inputs) {
        for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(m.data()[i]);
      }
      Tape tape;
      TapeD exact_tape;
      const std::vector<Var> x = variables(tape, inputs);
      const std::vector<VarD> exact_x = variables(exact_tape, inputs);
      const Var y = op.in_float(x);
      const VarD exact_y = op.in_double(exact_x);
      REQUIRE(shape(y) == shape(exact_y));
      Matrix seed(y.rows(), y.cols());
      for (Index i = 0; i < seed.size(); ++i) seed.data()[i] = static_cast<float>(1 + i % 5);
      const std::vector<Var> g = grad(y, x, {}, tape.constant(seed));
      const std::vector<VarD> exact_g = grad(exact_y, exact_x, {}, exact_tape.constant(MatrixD(seed.view())));
      const auto close = [&](ConstRows<float> found, ConstRows<double> expected, double terms) {
        double most = 1;
        for (Index i = 0; i < expected.size(); ++i) most = std::max(most, std::abs(expected.data()[i]));
        for (Index i = 0; i < found.size(); ++i) {
          if (!(std::abs(found.data()[i] - expected.data()[i]) <= 0x1p-24 * terms * most)) return false;
        }
        return true;
      };
      CHECK(close(y.value(), exact_y.value(), 40 + 2 * static_cast<double>(B + D)));
      for (std::size_t i = 0; i < g.size(); ++i) {
        CHECK(close(g[i].value(), exact_g[i].value(), 80 + 4 * static_cast<double>(B + D)));
      }
      ++cases;
    }
  }
  std::printf("float cases checked: %td\n", cases);
}

// The trace of ds/dx through the chapter's network in small, differentiated by the parameters: third derivatives of the inputs.
TEST_CASE("explicit score matching: the gradient of |s|^2 / 2 + tr ds/dx, and its sliced form by jvp") {
  std::mt19937_64 random(4);
  const std::vector<MatrixD> inputs = {random_matrix({4, 2}, plain, random),   random_matrix({3, 3}, plain, random),
                                       random_matrix({5, 5}, plain, random),   random_matrix({1, 5}, plain, random),
                                       random_matrix({2, 5}, plain, random),   random_matrix({1, 2}, plain, random),
                                       random_matrix({4, 1}, positive, random)};
  const std::vector<std::int32_t> level = {0, 2, 1, 2};
  const auto score = [&](VarD x, std::span<const VarD> p) {
    const VarD h = silu(linear(concat_cols({x, gather_rows(p[0], level)}), p[1], p[2]));
    return linear(tanh(h) * h, p[3], p[4]) / p[5];
  };
  const auto trace_by_grad = [&](std::span<const VarD> v) {
    const VarD x = v[0], s = score(x, v.subspan(1));
    VarD trace;
    for (Index d = 0; d < 2; ++d) {
      const VarD row = slice_cols(grad(sum(slice_cols(s, d, 1)), {x}, {.create_graph = true})[0], d, 1);
      trace = trace ? trace + row : row;
    }
    return mean(.5 * dot_cols(s, s) + trace);
  };
  const auto trace_by_jvp = [&](std::span<const VarD> v) {
    const VarD x = v[0], s = score(x, v.subspan(1));
    VarD trace;
    for (Index d = 0; d < 2; ++d) {
      MatrixD unit(4, 2);
      for (Index r = 0; r < 4; ++r) unit(r, d) = 1;
      const VarD column = slice_cols(jvp(s, {x}, {x.tape().constant(unit)}), d, 1);
      trace = trace ? trace + column : column;
    }
    return mean(.5 * dot_cols(s, s) + trace);
  };
  for (const auto& f : {detail::CheckedFunction<double>(trace_by_grad), detail::CheckedFunction<double>(trace_by_jvp)}) {
    const GradientReport first = detail::check_gradient(f, inputs);
    CHECK_MESSAGE(first.error <= 1e-7, first.worst);
    const GradientReport second = detail::check_second_order(f, inputs);
    CHECK_MESSAGE(second.error <= 1e-7, second.worst);
  }
  TapeD tape;
  const std::vector<VarD> v = variables(tape, inputs);
  CHECK(trace_by_grad(v).item() == doctest::Approx(trace_by_jvp(v).item()).epsilon(1e-14));
}

TEST_CASE("the check finds planted errors") {
  const auto right = [](auto x) { return square(x[0]); };
  CHECK(check_gradient(right, {MatrixD{{.3, -1.2}}}).error < 1e-10);
  CHECK(check_gradient(right, {MatrixD{{.3, -1.2}}}).entries == 8);
  const auto wrong = [](auto x) { return x[0] * stop_gradient(x[0]); };  // the value of x^2, half its derivative
  CHECK(check_gradient(wrong, {MatrixD{{.3, -1.2}}}).error == doctest::Approx(.5).epsilon(1e-6));
  CHECK(check_complex_step(wrong, {MatrixD{{.3, -1.2}}}).error == doctest::Approx(.5).epsilon(1e-6));
  const auto wrong_second = [](auto x) {
    return stop_gradient(square(x[0])) * x[0] * 3 - 2 * stop_gradient(square(x[0]) * x[0]);
  };
  CHECK(check_gradient(wrong_second, {MatrixD{{.3, -1.2}}}).error < 1e-7);
  CHECK(check_second_order(wrong_second, {MatrixD{{.3, -1.2}}}).error > .9);
}
