// own_operation.cpp - a user's own operation on the tape, differentiated, differentiated again, and checked.
// SPDX-License-Identifier: MIT
#include <tweedie/tweedie.h>

#include <cmath>
#include <cstdio>

using namespace tweedie;

namespace {

// y = atan(x);  dy = dx / (1 + x^2);  dx += dy / (1 + x^2)
template <class S>
const Operation<S> kAtan = {
    .name = "atan",
    .forward =
        [](const Call<S>& f) {
          for (Index i = 0; i < f.out().size(); ++i) f.out().data()[i] = std::atan(f.value().data()[i]);
        },
    .jvp = [](const Call<S>& f, std::span<const VarX<S>> dx) { return dx[0] / (1.0 + square(f.x())); },
    .pullback = [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = dy / (1.0 + square(f.x())); },
};

VarD atan(VarD x) { return custom_op(kAtan<double>, {x}, x.rows(), x.cols()); }

}  // namespace

int main() {
  TapeD tape;
  const VarD x = tape.variable(MatrixD{{.5, -1, 2}});
  const VarD y = atan(x);
  const VarD first = grad(sum(y), {x}, {.create_graph = true})[0];  // 1 / (1 + x^2)
  const VarD second = grad(sum(first), {x})[0];                     // -2 x / (1 + x^2)^2
  std::puts("    x      atan(x)  first    second derivative");
  double error = 0;
  for (Index i = 0; i < 3; ++i) {
    const double v = x.value()(0, i);
    std::printf("%7.3f  %8.5f %8.5f %8.5f\n", v, y.value()(0, i), first.value()(0, i), second.value()(0, i));
    error = std::max(error, std::abs(second.value()(0, i) + 2 * v / ((1 + v * v) * (1 + v * v))));
  }
  return error < 1e-14 ? 0 : 1;
}
