// SPDX-License-Identifier: MIT
#include "tweedie/autodiff/gradient_check.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "tweedie/autodiff/grad.h"
#include "tweedie/autodiff/ops.h"

namespace tweedie::detail {
namespace {

/// The elements of a list of matrices, counted through.
struct Elements {
  std::vector<MatrixD> matrices;

  Index count() const {
    return std::accumulate(matrices.begin(), matrices.end(), Index{0}, [](Index n, const MatrixD& m) { return n + m.size(); });
  }
  std::pair<std::size_t, Index> locate(Index e) const {
    std::size_t i = 0;
    while (e >= matrices[i].size()) e -= matrices[i++].size();
    return {i, e};
  }
  double& at(Index e) {
    const auto [i, offset] = locate(e);
    return matrices[i].data()[offset];
  }
  std::string name(Index e) const {
    const auto [i, offset] = locate(e);
    return join("x", i, "(", offset / matrices[i].cols(), ", ", offset % matrices[i].cols(), ")");
  }
};

std::vector<VarD> variables(TapeD& tape, const std::vector<MatrixD>& values) {
  std::vector<VarD> result;
  for (const MatrixD& m : values) result.push_back(tape.variable(m));
  return result;
}

/// One-hot matrices of x's shapes, 1 at element e.
std::vector<VarD> one_hot(TapeD& tape, const std::vector<MatrixD>& like, Index e) {
  Elements hot;
  for (const MatrixD& m : like) hot.matrices.emplace_back(m.rows(), m.cols());
  hot.at(e) = 1;
  return variables(tape, hot.matrices);
}

/// A function of the inputs' values as one column of numbers.
using Column = std::function<std::vector<double>(const std::vector<MatrixD>&)>;

/// Column k of the Jacobian by the five-point difference; its error is h^4 f''''' / 30 + 1.5 eps |f| / h.
std::vector<double> difference(const Column& f, Elements x, Index k) {
  const double center = x.at(k), h = std::exp2(std::ceil(std::log2(std::max(1., std::abs(center)))) - 10);
  std::vector<double> sum;
  for (const auto& [steps, weight] : {std::pair{1., 8.}, {-1., -8.}, {2., -1.}, {-2., 1.}}) {
    x.at(k) = center + steps * h;
    const std::vector<double> y = f(x.matrices);
    sum.resize(y.size());
    for (std::size_t e = 0; e < y.size(); ++e) sum[e] += weight / (12 * h) * y[e];
  }
  return sum;
}

std::vector<double> elements(ConstRows<double> v) {
  std::vector<double> result;
  for (Index r = 0; r < v.rows(); ++r) result.insert(result.end(), v.row(r).begin(), v.row(r).end());
  return result;
}

/// (rows, cols): d of element r by element c. Compares the two and keeps the worst.
void compare(GradientReport& report, const MatrixD& jacobian, const MatrixD& reference, double y_max, const Elements& x,
             const std::string& what) {
  double j_max = 0;
  for (Index i = 0; i < reference.size(); ++i) j_max = std::max(j_max, std::abs(reference.data()[i]));
  const double scale = std::max((j_max + y_max) / 100, std::numeric_limits<double>::min());
  for (Index r = 0; r < jacobian.rows(); ++r) {
    for (Index c = 0; c < jacobian.cols(); ++c) {
      const double found = jacobian(r, c), expected = reference(r, c);
      double error = std::abs(found - expected) / std::max(std::abs(expected), scale);
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      ++report.entries;
      if (error > report.error || (error == 0 && report.worst.empty())) {
        report.error = error;
        report.worst = join(what, "[", r, "] by ", x.name(c), ": ", found, ", expected ", expected);
      }
    }
  }
}

double largest(ConstRows<double> y) {
  double most = 0;
  for (double v : elements(y)) most = std::max(most, std::abs(v));
  return most;
}

void set_column(MatrixD& m, Index c, const std::vector<double>& values) {
  for (Index r = 0; r < m.rows(); ++r) m(r, c) = values[static_cast<std::size_t>(r)];
}

/// All elements of several Vars, one after the other.
std::vector<double> elements(const std::vector<VarD>& vars) {
  std::vector<double> result;
  for (VarD v : vars) {
    const std::vector<double> part = elements(v.value());
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

/// Rows `first` and following of a Jacobian: those of y's elements, by all inputs, in reverse mode.
void set_rows(MatrixD& jacobian, Index first, VarD y, std::span<const VarD> x) {
  for (Index e = 0; e < y.rows() * y.cols(); ++e) {
    const VarD seed = one_hot(y.tape(), {MatrixD(y.rows(), y.cols())}, e)[0];
    const std::vector<double> row = elements(grad(y, x, {}, seed));
    std::copy(row.begin(), row.end(), jacobian.row(first + e).begin());
  }
}

}  // namespace

GradientReport check_gradient(const CheckedFunction<double>& f, std::span<const MatrixD> inputs) {
  const Elements x{{inputs.begin(), inputs.end()}};
  TapeD tape;
  const std::vector<VarD> vars = variables(tape, x.matrices);
  const VarD y = f(vars);
  MatrixD reverse(y.rows() * y.cols(), x.count()), forward = reverse, reference = reverse;
  const Column value = [&](const std::vector<MatrixD>& at) {
    TapeD other;
    return elements(f(variables(other, at)).value());
  };
  set_rows(reverse, 0, y, vars);
  for (Index c = 0; c < reverse.cols(); ++c) {
    set_column(forward, c, elements(jvp(y, vars, one_hot(tape, x.matrices, c)).value()));
    set_column(reference, c, difference(value, x, c));
  }
  GradientReport report;
  compare(report, reverse, reference, largest(y.value()), x, "reverse y");
  compare(report, forward, reference, largest(y.value()), x, "forward y");
  return report;
}

GradientReport check_complex_step(const CheckedFunction<double>& f, const CheckedFunction<std::complex<double>>& g,
                                  std::span<const MatrixD> inputs) {
  constexpr double kStep = 1e-100;
  const Elements x{{inputs.begin(), inputs.end()}};
  TapeD tape;
  const std::vector<VarD> vars = variables(tape, x.matrices);
  const VarD y = f(vars);
  MatrixD reverse(y.rows() * y.cols(), x.count()), reference = reverse;
  set_rows(reverse, 0, y, vars);
  for (Index c = 0; c < reverse.cols(); ++c) {
    TapeX<std::complex<double>> other;
    std::vector<VarX<std::complex<double>>> z;
    const auto [which, offset] = x.locate(c);
    for (std::size_t i = 0; i < x.matrices.size(); ++i) {
      MatrixX<std::complex<double>> m(x.matrices[i].view());
      if (i == which) m.data()[offset] += std::complex<double>(0, kStep);
      z.push_back(other.constant(m));
    }
    const auto column = g(z).value();
    for (Index r = 0; r < reference.rows(); ++r) reference(r, c) = column.data()[r].imag() / kStep;
  }
  GradientReport report;
  compare(report, reverse, reference, largest(y.value()), x, "y");
  return report;
}

GradientReport check_second_order(const CheckedFunction<double>& f, std::span<const MatrixD> inputs) {
  const Elements x{{inputs.begin(), inputs.end()}};
  const auto weighted = [&](std::span<const VarD> vars) {
    const VarD y = f(vars);
    MatrixD c(y.rows(), y.cols());
    for (Index i = 0; i < c.size(); ++i) c.data()[i] = 1 + .5 * std::sin(static_cast<double>(i));
    return sum(y * y.tape().constant(c));
  };
  const Column plain_gradient = [&](const std::vector<MatrixD>& at) {
    TapeD other;
    const std::vector<VarD> vars = variables(other, at);
    return elements(grad(weighted(vars), vars));
  };
  TapeD tape;
  const std::vector<VarD> vars = variables(tape, x.matrices);
  const VarD z = weighted(vars);
  const std::vector<VarD> recorded = grad(z, vars, {.create_graph = true});
  const Index n = x.count();
  MatrixD reverse_reverse(n, n), forward_reverse = reverse_reverse, reverse_forward = reverse_reverse,
                                 reference = reverse_reverse;
  double y_max = 0;
  Index row = 0;
  for (VarD g : recorded) {
    y_max = std::max(y_max, largest(g.value()));
    set_rows(reverse_reverse, row, g, vars);
    row += g.rows() * g.cols();
  }
  for (Index c = 0; c < n; ++c) {
    const std::vector<VarD> tangent = one_hot(tape, x.matrices, c);
    std::vector<VarD> column;
    for (VarD g : recorded) column.push_back(jvp(g, vars, tangent));
    set_column(forward_reverse, c, elements(column));
    set_column(reverse_forward, c, elements(grad(jvp(z, vars, tangent), vars)));
    set_column(reference, c, difference(plain_gradient, x, c));
  }
  GradientReport report;
  compare(report, reverse_reverse, reference, y_max, x, "reverse over reverse dz");
  compare(report, forward_reverse, reference, y_max, x, "forward over reverse dz");
  compare(report, reverse_forward, reference, y_max, x, "reverse over forward dz");
  return report;
}

}  // namespace tweedie::detail
