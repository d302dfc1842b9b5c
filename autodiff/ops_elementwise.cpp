// ops_elementwise.cpp - functions of each element, and arithmetic with broadcasting.
//
// A function of one element is its formula and its derivative, the latter in Var operations; kElementwise makes the operation:
//   y = f(x);  dy = f'(x) dx;  dx += f'(x) dy
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tweedie/autodiff/detail/loops.h"
#include "tweedie/autodiff/detail/tape_state.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/kernels/kernels.h"

namespace tweedie {
namespace detail {

template <class S>
VarX<S> plus(VarX<S> a, VarX<S> b) {
  return !a ? b : !b ? a : a + b;
}

namespace {

template <class S, template <class> class F>
void elementwise_forward(const Call<S>& f) {
  map(f, [a = f.attributes.a, b = f.attributes.b](S x) { return F<S>::value(x, a, b); });
}

template <class S, template <class> class F>
constexpr Operation<S> kElementwise = {
    F<S>::kName, elementwise_forward<S, F>,
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return dx[0] * F<S>::derivative(f.x(), f.y(), f.attributes); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = dy * F<S>::derivative(f.x(), f.y(), f.attributes); }};

template <template <class> class F, class S>
VarX<S> elementwise(VarX<S> x, double a = 0, double b = 0) {
  return apply(kElementwise<S, F>, {x}, x.rows(), x.cols(), {.a = a, .b = b});
}

/// A piecewise constant function, as a constant: its derivative is zero wherever it has one.
template <class S, template <class> class F>
constexpr Operation<S> kIndicator = {F<S>::kName, elementwise_forward<S, F>, nullptr, nullptr};

template <template <class> class F, class S>
VarX<S> indicator(VarX<S> x, double a = 0, double b = 0) {
  const PauseRecording pause(x.tape());
  return apply(kIndicator<S, F>, {x}, x.rows(), x.cols(), {.a = a, .b = b});
}

// y = [a <= x <= b],  y = [x > 0],  y = sign x
template <class S>
struct Inside {
  static constexpr const char* kName = "inside";
  static S value(S x, double a, double b) { return S(real(x) >= a && real(x) <= b ? 1 : 0); }
};
template <class S>
struct Step {
  static constexpr const char* kName = "step";
  static S value(S x, double, double) { return S(real(x) > 0 ? 1 : 0); }
};
template <class S>
struct Sign {
  static constexpr const char* kName = "sign";
  static S value(S x, double, double) { return S(real(x) > 0 ? 1 : real(x) < 0 ? -1 : 0); }
};

// y = a x + b;  y' = a
template <class S>
constexpr Operation<S> kAffine = {
    "affine", [](const Call<S>& f) { map(f, [a = S(f.attributes.a), b = S(f.attributes.b)](S x) { return a * x + b; }); },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return affine(dx[0], f.attributes.a, 0); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = affine(dy, f.attributes.a, 0); }};

// y = e^x;  y' = y
template <class S>
struct Exp {
  static constexpr const char* kName = "exp";
  static S value(S x, double, double) { return std::exp(x); }
  static VarX<S> derivative(VarX<S>, VarX<S> y, const Attributes&) { return y; }
};
// y = log x;  y' = 1 / x
template <class S>
struct Log {
  static constexpr const char* kName = "log";
  static S value(S x, double, double) { return std::log(x); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return reciprocal(x); }
};
// y = sqrt x;  y' = 1 / (2 y)
template <class S>
struct Sqrt {
  static constexpr const char* kName = "sqrt";
  static S value(S x, double, double) { return std::sqrt(x); }
  static VarX<S> derivative(VarX<S>, VarX<S> y, const Attributes&) { return reciprocal(2 * y); }
};
// y = x^2;  y' = 2 x
template <class S>
struct Square {
  static constexpr const char* kName = "square";
  static S value(S x, double, double) { return x * x; }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return 2 * x; }
};
// y = 1 / x;  y' = -y^2
template <class S>
struct Reciprocal {
  static constexpr const char* kName = "reciprocal";
  static S value(S x, double, double) { return S(1) / x; }
  static VarX<S> derivative(VarX<S>, VarX<S> y, const Attributes&) { return -square(y); }
};
// y = |x|;  y' = sign x
template <class S>
struct Abs {
  static constexpr const char* kName = "abs";
  static S value(S x, double, double) { return real(x) < 0 ? -x : real(x) == 0 ? x * x : x; }  // |-0| = 0
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return indicator<Sign>(x); }
};
// y = x^a;  y' = a x^(a-1), 0 for a = 0
template <class S>
struct Pow {
  static constexpr const char* kName = "pow";
  static S value(S x, double a, double) { return std::pow(x, S(a)); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes& f) {
    return f.a == 0 ? x.tape().zeros(x.rows(), x.cols()) : f.a * pow(x, f.a - 1);
  }
};
// y = sin x;  y' = cos x
template <class S>
struct Sin {
  static constexpr const char* kName = "sin";
  static S value(S x, double, double) { return std::sin(x); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return cos(x); }
};
// y = cos x;  y' = -sin x
template <class S>
struct Cos {
  static constexpr const char* kName = "cos";
  static S value(S x, double, double) { return std::cos(x); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return -sin(x); }
};
// y = tanh x;  y' = 1 - y^2
template <class S>
struct Tanh {
  static constexpr const char* kName = "tanh";
  static S value(S x, double, double) { return std::tanh(x); }
  static VarX<S> derivative(VarX<S>, VarX<S> y, const Attributes&) { return 1 - square(y); }
};
// y = 1 / (1 + e^-x);  y' = y (1 - y).  The exponential is taken of -|x|, so that it never overflows.
template <class S>
struct Sigmoid {
  static constexpr const char* kName = "sigmoid";
  static S value(S x, double, double) {
    const S e = std::exp(real(x) < 0 ? x : -x);
    return (real(x) < 0 ? e : S(1)) / (S(1) + e);
  }
  static VarX<S> derivative(VarX<S>, VarX<S> y, const Attributes&) { return y * (1 - y); }
};
// y = max(x, 0);  y' = [x > 0]
template <class S>
struct Relu {
  static constexpr const char* kName = "relu";
  static S value(S x, double, double) { return real(x) < 0 ? S(0) : x; }  // NaN stays NaN
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return indicator<Step>(x); }
};
// y = min(max(x, a), b);  y' = [a <= x <= b]
template <class S>
struct Clamp {
  static constexpr const char* kName = "clamp";
  static S value(S x, double a, double b) { return real(x) < a ? S(a) : real(x) > b ? S(b) : x; }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes& f) { return indicator<Inside>(x, f.a, f.b); }
};
// y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|);  y' = sigmoid(x)
template <class S>
struct Softplus {
  static constexpr const char* kName = "softplus";
  static S value(S x, double, double) {
    const S e = std::exp(real(x) < 0 ? x : -x), positive = Relu<S>::value(x, 0, 0);
    if constexpr (std::is_floating_point_v<S>) {
      return positive + std::log1p(e);
    } else {
      return positive + std::log(S(1) + e);
    }
  }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) { return sigmoid(x); }
};

template <class S>
S normal_cdf(S x) {
  return S(.5) * std::erfc(-x / std::numbers::sqrt2_v<S>);
}
// Phi(z) = 1/2 + phi(z) (z + z^3/3 + z^5/(3 5) + ...) [Abramowitz & Stegun 26.2.11]; beyond |z| = 8 it is 0 or 1 to rounding.
template <>
std::complex<double> normal_cdf(std::complex<double> z) {
  if (std::abs(z.real()) > 8) return z.real() < 0 ? 0 : 1;
  std::complex<double> term = z, sum = 0;
  for (int odd = 3; std::abs(term) > 1e-18 * std::abs(sum); odd += 2) {
    sum += term;
    term *= z * z / static_cast<double>(odd);
  }
  return .5 + sum * std::exp(-.5 * z * z) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
}
// y = x Phi(x);  y' = Phi(x) + x phi(x)  [Hendrycks & Gimpel 2016],  Phi' = phi = e^(-x^2/2) / sqrt(2 pi)
template <class S>
struct NormalCdf {
  static constexpr const char* kName = "normal_cdf";
  static S value(S x, double, double) { return normal_cdf(x); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes&) {
    return std::numbers::inv_sqrtpi / std::numbers::sqrt2 * exp(-.5 * square(x));
  }
};
template <class S>
struct Gelu {
  static constexpr const char* kName = "gelu";
  static S value(S x, double, double) { return x * normal_cdf(x); }
  static VarX<S> derivative(VarX<S> x, VarX<S>, const Attributes& f) {
    return elementwise<NormalCdf>(x) + x * NormalCdf<S>::derivative(x, x, f);
  }
};

// y = x s, s = sigmoid(x);  dy = silu_gradient(x, dx);  dx += silu_gradient(x, dy)
template <class S>
constexpr Operation<S> kSilu = {"silu",
                                [](const Call<S>& f) {
                                  if constexpr (std::is_floating_point_v<S>) {
                                    const S* x = f.value().data();
                                    S* y = f.out().data();
                                    for_range(f.out().size(), 1,
                                              [=](Index begin, Index end) { kernels::silu(end - begin, x + begin, y + begin); });
                                  } else {
                                    map(f, [](S x) { return x * Sigmoid<S>::value(x, 0, 0); });
                                  }
                                },
                                [](const Call<S>& f, std::span<const VarX<S>> dx) { return silu_gradient(f.x(), dx[0]); },
                                [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) { dx[0] = silu_gradient(f.x(), dy); }};

/// silu''(x) = s (1 - s) (2 + x (1 - 2 s))
template <class S>
VarX<S> silu_second(VarX<S> x) {
  const VarX<S> s = sigmoid(x);
  return s * (1 - s) * (2 + x * (1 - 2 * s));
}

// y = g silu'(x), silu' = s + x s (1 - s);  dy = dg silu'(x) + dx g silu''(x)
// dx += dy g silu''(x);  dg += dy silu'(x)
template <class S>
constexpr Operation<S> kSiluGradient = {
    "silu_gradient",
    [](const Call<S>& f) {
      if constexpr (std::is_floating_point_v<S>) {
        const S *x = f.value(0).data(), *g = f.value(1).data();
        S* y = f.out().data();
        for_range(f.out().size(), 1,
                  [=](Index begin, Index end) { kernels::silu_gradient(end - begin, x + begin, g + begin, y + begin); });
      } else {
        zip(f, [](S x, S g) {
          const S s = Sigmoid<S>::value(x, 0, 0);
          return g * (s + x * s * (S(1) - s));
        });
      }
    },
    [](const Call<S>& f, std::span<const VarX<S>> dx) {
      return plus(dx[0] ? dx[0] * f.x(1) * silu_second(f.x(0)) : dx[0], dx[1] ? silu_gradient(f.x(0), dx[1]) : dx[1]);
    },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
      if (f.wants(0)) dx[0] = dy * f.x(1) * silu_second(f.x(0));
      if (f.wants(1)) dx[1] = silu_gradient(f.x(0), dy);
    }};

/// x summed to the shape of `to`, the adjoint of broadcasting.
template <class S>
VarX<S> sum_like(VarX<S> x, VarX<S> to) {
  return sum_to(x, to.rows(), to.cols());
}
template <class S>
VarX<S> broadcast_like(VarX<S> x, VarX<S> to) {
  return x ? broadcast_to(x, to.rows(), to.cols()) : x;
}

// y = a + b;  dy = da + db;  da += dy, db += dy
template <class S>
constexpr Operation<S> kAdd = {
    "operator+", [](const Call<S>& f) { zip(f, [](S a, S b) { return a + b; }); },
    [](const Call<S>& f, std::span<const VarX<S>> dx) { return broadcast_like(plus(dx[0], dx[1]), f.y()); },
    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
      for (int i : {0, 1}) {
        if (f.wants(i)) dx[static_cast<std::size_t>(i)] = sum_like(dy, f.x(i));
      }
    }};

// y = a - b;  dy = da - db;  da += dy, db -= dy
template <class S>
constexpr Operation<S> kSubtract = {"operator-", [](const Call<S>& f) { zip(f, [](S a, S b) { return a - b; }); },
                                    [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                      return broadcast_like(dx[0] && dx[1] ? dx[0] - dx[1] : dx[0] ? dx[0] : -dx[1], f.y());
                                    },
                                    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                      if (f.wants(0)) dx[0] = sum_like(dy, f.x(0));
                                      if (f.wants(1)) dx[1] = -sum_like(dy, f.x(1));
                                    }};

// y = a b;  dy = da b + a db;  da += dy b, db += dy a
template <class S>
constexpr Operation<S> kMultiply = {"operator*", [](const Call<S>& f) { zip(f, [](S a, S b) { return a * b; }); },
                                    [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                      return plus(dx[0] ? dx[0] * f.x(1) : dx[0], dx[1] ? f.x(0) * dx[1] : dx[1]);
                                    },
                                    [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                      if (f.wants(0)) dx[0] = sum_like(dy * f.x(1), f.x(0));
                                      if (f.wants(1)) dx[1] = sum_like(dy * f.x(0), f.x(1));
                                    }};

// y = a / b;  dy = da / b - (y / b) db;  da += dy / b, db -= dy y / b
template <class S>
constexpr Operation<S> kDivide = {"operator/", [](const Call<S>& f) { zip(f, [](S a, S b) { return a / b; }); },
                                  [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                    return plus(dx[0] ? dx[0] / f.x(1) : dx[0], dx[1] ? -(f.y() / f.x(1)) * dx[1] : dx[1]);
                                  },
                                  [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                    const VarX<S> t = dy / f.x(1);
                                    if (f.wants(0)) dx[0] = sum_like(t, f.x(0));
                                    if (f.wants(1)) dx[1] = -sum_like(t * f.y(), f.x(1));
                                  }};

template <class S>
VarX<S> broadcast(const Operation<S>& operation, VarX<S> a, VarX<S> b) {
  const Index rows = a.rows() == 1 ? b.rows() : a.rows(), cols = a.cols() == 1 ? b.cols() : a.cols();
  if ((b.rows() != rows && b.rows() != 1) || (b.cols() != cols && b.cols() != 1)) {
    shape_error(operation.name, a, b, "rows and columns must be equal or 1");
  }
  return apply(operation, {a, b}, rows, cols);
}

// y = c != 0 ? a : b;  dy = c != 0 ? da : db;  da += c != 0 ? dy : 0, db += c != 0 ? 0 : dy
template <class S>
constexpr Operation<S> kWhere = {"where",
                                 [](const Call<S>& f) {
                                   const S *c = f.value(0).data(), *a = f.value(1).data(), *b = f.value(2).data();
                                   S* y = f.out().data();
                                   for_range(f.out().size(), 1, [=](Index begin, Index end) {
                                     for (Index i = begin; i < end; ++i) y[i] = c[i] != S(0) ? a[i] : b[i];
                                   });
                                 },
                                 [](const Call<S>& f, std::span<const VarX<S>> dx) {
                                   if (!dx[1] && !dx[2]) return VarX<S>();
                                   const VarX<S> zero = f.tape().zeros(f.out().rows(), f.out().cols());
                                   return where(f.x(0), dx[1] ? dx[1] : zero, dx[2] ? dx[2] : zero);
                                 },
                                 [](const Call<S>& f, VarX<S> dy, std::span<VarX<S>> dx) {
                                   const VarX<S> zero = f.tape().zeros(dy.rows(), dy.cols());
                                   if (f.wants(1)) dx[1] = where(f.x(0), dy, zero);
                                   if (f.wants(2)) dx[2] = where(f.x(0), zero, dy);
                                 }};

}  // namespace
}  // namespace detail

using detail::elementwise;

// clang-format off
template <class S> VarX<S> operator+(VarX<S> a, VarX<S> b) { return detail::broadcast(detail::kAdd<S>, a, b); }
template <class S> VarX<S> operator-(VarX<S> a, VarX<S> b) { return detail::broadcast(detail::kSubtract<S>, a, b); }
template <class S> VarX<S> operator*(VarX<S> a, VarX<S> b) { return detail::broadcast(detail::kMultiply<S>, a, b); }
template <class S> VarX<S> operator/(VarX<S> a, VarX<S> b) { return detail::broadcast(detail::kDivide<S>, a, b); }
template <class S> VarX<S> exp(VarX<S> x) { return elementwise<detail::Exp>(x); }
template <class S> VarX<S> log(VarX<S> x) { return elementwise<detail::Log>(x); }
template <class S> VarX<S> sqrt(VarX<S> x) { return elementwise<detail::Sqrt>(x); }
template <class S> VarX<S> square(VarX<S> x) { return elementwise<detail::Square>(x); }
template <class S> VarX<S> reciprocal(VarX<S> x) { return elementwise<detail::Reciprocal>(x); }
template <class S> VarX<S> abs(VarX<S> x) { return elementwise<detail::Abs>(x); }
template <class S> VarX<S> pow(VarX<S> x, double p) { return elementwise<detail::Pow>(x, p); }
template <class S> VarX<S> sin(VarX<S> x) { return elementwise<detail::Sin>(x); }
template <class S> VarX<S> cos(VarX<S> x) { return elementwise<detail::Cos>(x); }
template <class S> VarX<S> tanh(VarX<S> x) { return elementwise<detail::Tanh>(x); }
template <class S> VarX<S> sigmoid(VarX<S> x) { return elementwise<detail::Sigmoid>(x); }
template <class S> VarX<S> silu(VarX<S> x) { return detail::apply(detail::kSilu<S>, {x}, x.rows(), x.cols()); }
template <class S> VarX<S> relu(VarX<S> x) { return elementwise<detail::Relu>(x); }
template <class S> VarX<S> gelu(VarX<S> x) { return elementwise<detail::Gelu>(x); }
template <class S> VarX<S> softplus(VarX<S> x) { return elementwise<detail::Softplus>(x); }
// clang-format on

template <class S>
VarX<S> affine(VarX<S> x, double scale, double offset) {
  return detail::apply(detail::kAffine<S>, {x}, x.rows(), x.cols(), {.a = scale, .b = offset});
}
template <class S>
VarX<S> silu_gradient(VarX<S> x, VarX<S> dy) {
  if (x.rows() != dy.rows() || x.cols() != dy.cols()) detail::shape_error("silu_gradient", x, dy, "they must be equal");
  return detail::apply(detail::kSiluGradient<S>, {x, dy}, x.rows(), x.cols());
}
template <class S>
VarX<S> clamp(VarX<S> x, double low, double high) {
  check(low <= high, "clamp: low is ", low, " and high is ", high, "; low must not exceed high");
  return elementwise<detail::Clamp>(x, low, high);
}
template <class S>
VarX<S> where(VarX<S> condition, VarX<S> a, VarX<S> b) {
  for (VarX<S> v : {a, b}) {
    if (v.rows() != condition.rows() || v.cols() != condition.cols()) {
      detail::shape_error("where", condition, v, "condition, a and b must have one shape");
    }
  }
  return detail::apply(detail::kWhere<S>, {condition, a, b}, a.rows(), a.cols());
}

#define TWEEDIE_INSTANTIATE(S)                      \
  template VarX<S> detail::plus(VarX<S>, VarX<S>);  \
  template VarX<S> operator+(VarX<S>, VarX<S>);     \
  template VarX<S> operator-(VarX<S>, VarX<S>);     \
  template VarX<S> operator*(VarX<S>, VarX<S>);     \
  template VarX<S> operator/(VarX<S>, VarX<S>);     \
  template VarX<S> affine(VarX<S>, double, double); \
  template VarX<S> exp(VarX<S>);                    \
  template VarX<S> log(VarX<S>);                    \
  template VarX<S> sqrt(VarX<S>);                   \
  template VarX<S> square(VarX<S>);                 \
  template VarX<S> reciprocal(VarX<S>);             \
  template VarX<S> abs(VarX<S>);                    \
  template VarX<S> pow(VarX<S>, double);            \
  template VarX<S> sin(VarX<S>);                    \
  template VarX<S> cos(VarX<S>);                    \
  template VarX<S> tanh(VarX<S>);                   \
  template VarX<S> sigmoid(VarX<S>);                \
  template VarX<S> silu(VarX<S>);                   \
  template VarX<S> silu_gradient(VarX<S>, VarX<S>); \
  template VarX<S> relu(VarX<S>);                   \
  template VarX<S> gelu(VarX<S>);                   \
  template VarX<S> softplus(VarX<S>);               \
  template VarX<S> clamp(VarX<S>, double, double);  \
  template VarX<S> where(VarX<S>, VarX<S>, VarX<S>);

TWEEDIE_INSTANTIATE(float)
TWEEDIE_INSTANTIATE(double)
TWEEDIE_INSTANTIATE(std::complex<double>)

}  // namespace tweedie
