// math_test.cpp - the scalar functions of kernels/math.h against the C library in long double.
// SPDX-License-Identifier: MIT
#include "tweedie/kernels/math.h"

#include "kernels_testing.h"

using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

/// The largest |f(x) - expected(x)| / allowed(x, expected) over n points of [low, high].
template <class T, class F, class Expected, class Allowed>
double worst_ratio(T low, T high, int n, F f, Expected expected, Allowed allowed) {
  double worst = 0;
  for (int i = 0; i <= n; ++i) {
    const T x = low + (high - low) * (static_cast<T>(i) / static_cast<T>(n));
    const long double y = expected(static_cast<long double>(x));
    const double ratio = static_cast<double>(std::fabs(f(x) - y) / allowed(static_cast<long double>(x), y));
    if (!(ratio <= worst)) worst = ratio;
  }
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("exp: relative error at most 2 u, exact ends", T, float, double) {
  // Below the smallest normal number the result is rounded to its grid instead.
  const T low = sizeof(T) == 4 ? T(-87) : T(-708), high = sizeof(T) == 4 ? T(88.7) : T(709.7);
  const auto f = [](T x) { return math::exp(x); };
  const auto exact = [](long double x) { return std::exp(x); };
  CHECK(worst_ratio<T>(low, high, 1000000, f, exact, [](long double, long double y) { return 2 * kUnit<T> * y; }) <= 1);
  CHECK(worst_ratio<T>(T(-.35), T(.35), 1000000, f, exact, [](long double, long double y) { return 2 * kUnit<T> * y; }) <= 1);
  const long double grid = std::numeric_limits<T>::denorm_min();
  CHECK(worst_ratio<T>(2 * low, low, 10000, f, exact, [&](long double, long double y) { return 2 * kUnit<T> * y + grid; }) <= 1);
  CHECK(math::exp(T(0)) == 1);
  CHECK(math::exp(T(-0.0)) == 1);
  CHECK(math::exp(-kInfinity<T>) == 0);
  CHECK(math::exp(kInfinity<T>) == kInfinity<T>);
  CHECK(math::exp(std::numeric_limits<T>::max()) == kInfinity<T>);
  CHECK(math::exp(std::numeric_limits<T>::lowest()) == 0);
  CHECK(std::isnan(math::exp(kNaN<T>)));
}

TEST_CASE_TEMPLATE("log: error at most 4 u of the result, exact ends", T, float, double) {
  const auto f = [](T x) { return math::log(x); };
  const auto exact = [](long double x) { return std::log(x); };
  const auto allowed = [](long double, long double y) {
    return y == 0 ? std::numeric_limits<T>::denorm_min() : 4 * kUnit<T> * std::fabs(y);
  };
  CHECK(worst_ratio<T>(T(.01), T(3), 1000000, f, exact, allowed) <= 1);
  for (int e = std::numeric_limits<T>::min_exponent - 20; e < std::numeric_limits<T>::max_exponent; ++e) {
    CHECK(worst_ratio<T>(std::ldexp(T(1), e), std::ldexp(T(1.99), e), 100, f, exact, allowed) <= 1);
  }
  CHECK(math::log(T(1)) == 0);
  CHECK(math::log(T(0)) == -kInfinity<T>);
  CHECK(math::log(T(-0.0)) == -kInfinity<T>);
  CHECK(math::log(kInfinity<T>) == kInfinity<T>);
  CHECK(std::isnan(math::log(T(-1))));
  CHECK(std::isnan(math::log(-kInfinity<T>)));
  CHECK(std::isnan(math::log(kNaN<T>)));
}

TEST_CASE_TEMPLATE("sigmoid: error at most 4 ULP, exact ends", T, float, double) {
  const auto f = [](T x) { return math::sigmoid(x); };
  const auto exact = [](long double x) { return 1 / (1 + std::exp(-x)); };
  const T low = sizeof(T) == 4 ? T(-87) : T(-708);
  // 4 ULP are at least 4 u y, at most 8 u y.
  const auto allowed = [](long double, long double y) {
    int exponent = 0;
    std::frexp(y, &exponent);
    return 4 * std::ldexp(2.0L * kUnit<T>, exponent - 1);
  };
  CHECK(worst_ratio<T>(low, T(40), 1000000, f, exact, allowed) <= 1);
  CHECK(math::sigmoid(T(0)) == T(.5));
  CHECK(math::sigmoid(kInfinity<T>) == 1);
  CHECK(math::sigmoid(-kInfinity<T>) == 0);
  CHECK(std::isnan(math::sigmoid(kNaN<T>)));
}
