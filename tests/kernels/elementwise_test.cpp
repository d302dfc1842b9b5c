// elementwise_test.cpp - silu, DSM, Langevin and AdamW kernels on every target against the reference in a wider type.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "kernels_testing.h"
#include "tweedie/core/check.h"
#include "tweedie/kernels/reference/adam_ema.h"
#include "tweedie/kernels/reference/dsm_perturb.h"
#include "tweedie/kernels/reference/langevin_update.h"
#include "tweedie/kernels/reference/silu.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

/// Numbers of every exponent and sign, the special ones, and a fine grid where silu bends.
template <class T>
std::vector<T> number_range() {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  std::vector<T> x;
  const Bits count = 1 << 18, stride = static_cast<Bits>(-1) / count;  // odd: mantissas vary
  for (Bits i = 0; i < count; ++i) {
    const Bits bits = i * stride + i % 5;
    T value;
    std::memcpy(&value, &bits, sizeof value);
    x.push_back(value);
  }
  const T edge = sizeof(T) == 4 ? T(110) : T(760);  // exp underflows on the way
  for (int i = -200000; i <= 200000; ++i) x.push_back(edge * T(i) / T(200000));
  for (const T special : {T(0), T(-0.0), std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(), kNaN<T>,
                          std::numeric_limits<T>::denorm_min(), -std::numeric_limits<T>::denorm_min(),
                          std::numeric_limits<T>::max(), std::numeric_limits<T>::lowest(), std::numeric_limits<T>::min()}) {
    x.push_back(special);
  }
  return x;
}

/// The distance of the neighbours of |y| in T (normal range).
template <class T>
long double ulp(long double y) {
  int exponent = 0;
  std::frexp(y, &exponent);
  return std::ldexp(1.0L, exponent - (sizeof(T) == 4 ? 24 : 53));
}

/// How far beyond `allowed` y is, as a multiple (0: within). NaN and infinities must agree exactly.
template <class T>
double beyond(T y, long double expected, long double allowed) {
  if (std::isnan(expected) || std::isnan(y)) return std::isnan(expected) && std::isnan(y) ? 0 : HUGE_VAL;
  if (std::isinf(expected) || std::isinf(y)) return y == static_cast<T>(expected) ? 0 : HUGE_VAL;
  const long double error = std::fabs(y - expected);
  return error <= allowed ? 0 : static_cast<double>(error / allowed);
}

/// Calls check(n, skew) over the sizes of the table and misalignments, for code that then compares bits or values.
template <class Check>
void over_sizes(Check check) {
  for (const Index n : kSizes) {
    for (const Index skew : {0, 1, 3}) {
      CAPTURE(n);
      CAPTURE(skew);
      check(n, skew);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("silu over the whole number range", T, float, double) {
  const std::vector<T> x = number_range<T>();
  const auto n = static_cast<Index>(x.size());
  std::vector<long double> expected(x.size());
  reference::silu<long double>(n, converted<long double>(x).data(), expected.data());
  on_every_target([&] {
    std::vector<T> y(x.size());
    silu(n, x.data(), y.data());
    double worst = 0;
    T at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double miss = beyond(y[i], expected[i], std::max<long double>(4 * ulp<T>(expected[i]), kTiny<T>));
      if (miss > worst) worst = miss, at = x[i];
    }
    CHECK_MESSAGE(worst == 0, "at x = ", at, " the error is ", worst, " times the bound");
    std::vector<T> in_place = x;
    silu(n, in_place.data(), in_place.data());
    CHECK(same_bits(in_place, y));
    T ends[] = {T(-0.0), -std::numeric_limits<T>::infinity()};
    silu(2, ends, ends);
    CHECK((std::signbit(ends[0]) && std::signbit(ends[1])));
  });
}

TEST_CASE_TEMPLATE("silu_gradient over the whole number range", T, float, double) {
  const std::vector<T> x = number_range<T>();
  const auto n = static_cast<Index>(x.size());
  std::vector<T> dy = uniform<T>(n, 10);
  for (std::size_t i = 0; i < dy.size(); i += 7) dy[i] *= T(1000);
  std::vector<long double> expected(x.size());
  reference::silu_gradient<long double>(n, converted<long double>(x).data(), converted<long double>(dy).data(), expected.data());
  on_every_target([&] {
    std::vector<T> dx(x.size());
    silu_gradient(n, x.data(), dy.data(), dx.data());
    double worst = 0;
    T at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const long double wide = x[i], s = reference::sigmoid(wide), t = reference::sigmoid(-wide), slope = std::fabs(dy[i]);
      const long double terms = (s + (std::isinf(x[i]) ? 0 : std::fabs(wide * s * t))) * slope;
      const long double allowed = std::max(8 * kUnit<T> * terms, kTiny<T> * std::max(1.0L, slope));
      const double miss = beyond(dx[i], expected[i], allowed);
      if (miss > worst) worst = miss, at = x[i];
    }
    CHECK_MESSAGE(worst == 0, "at x = ", at, " the error is ", worst, " times the bound");
    std::vector<T> in_place = dy;
    silu_gradient(n, x.data(), in_place.data(), in_place.data());
    CHECK(same_bits(in_place, dx));
  });
}

TEST_CASE_TEMPLATE("silu and its gradient: an element's bits depend neither on the size, the place nor the threads", T, float,
                   double) {
  const Index n = 50000;
  std::vector<T> x = uniform<T>(n, 11), dy = uniform<T>(n, 12);
  for (T& value : x) value *= T(20);
  on_every_target([&] {
    std::vector<T> y(x.size()), dx(x.size());
    set_threads(1);
    silu(n, x.data(), y.data());
    silu_gradient(n, x.data(), dy.data(), dx.data());
    for (const int count : {2, 4}) {
      set_threads(count);
      std::vector<T> y2(x.size()), dx2(x.size());
      silu(n, x.data(), y2.data());
      silu_gradient(n, x.data(), dy.data(), dx2.data());
      CHECK(same_bits(y2, y));
      CHECK(same_bits(dx2, dx));
    }
    over_sizes([&](Index size, Index skew) {
      std::vector<T> part(static_cast<std::size_t>(size + skew + 1), T(7)), slope = part;
      silu(size, x.data() + skew, part.data() + skew);
      silu_gradient(size, x.data() + skew, dy.data() + skew, slope.data() + skew);
      CHECK(std::equal(part.begin() + skew, part.end() - 1, y.begin() + skew));
      CHECK(std::equal(slope.begin() + skew, slope.end() - 1, dx.begin() + skew));
      CHECK((part.back() == T(7) && slope.back() == T(7)));  // nothing written past the end
    });
  });
  set_threads(0);
}

TEST_CASE_TEMPLATE("dsm_perturb matches the reference", T, float, double) {
  const auto compare = [](Index batch, Index dim) {
    CAPTURE(batch);
    CAPTURE(dim);
    const std::vector<T> x0 = uniform<T>(batch * dim, 13), sigma = uniform<T>(batch, 14), eps = uniform<T>(batch * dim, 15);
    std::vector<long double> expected(x0.size());
    reference::dsm_perturb<long double>(batch, dim, converted<long double>(x0).data(), converted<long double>(sigma).data(),
                                        converted<long double>(eps).data(), expected.data());
    on_every_target([&] {
      std::vector<T> x(x0.size(), kNaN<T>), over_x0 = x0, over_eps = eps;
      dsm_perturb(batch, dim, x0.data(), sigma.data(), eps.data(), x.data());
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const T s = sigma[i / static_cast<std::size_t>(dim)];
        worst = std::max(worst, beyond(x[i], expected[i],
                                       2 * kUnit<T> * (std::fabs(x0[i]) + std::fabs(static_cast<long double>(s) * eps[i]))));
      }
      CHECK(worst == 0);
      dsm_perturb(batch, dim, over_x0.data(), sigma.data(), eps.data(), over_x0.data());
      dsm_perturb(batch, dim, x0.data(), sigma.data(), over_eps.data(), over_eps.data());
      CHECK(same_bits(over_x0, x));
      CHECK(same_bits(over_eps, x));
    });
  };
  for (const Index batch : kSizes) {
    for (const Index dim : kSizes) compare(batch, dim);
  }
  compare(20000, 2);  // several tasks
  compare(3, 40000);  // a row longer than a task
}

TEST_CASE_TEMPLATE("langevin_update matches the reference", T, float, double) {
  const T drift = T(.125), noise = T(-.7);
  for (const Index n : {0, 1, 3, 16, 17, 64, 65, 50001}) {
    CAPTURE(n);
    const std::vector<T> score = uniform<T>(n, 16), z = uniform<T>(n, 17), x0 = uniform<T>(n, 18);
    std::vector<long double> expected = converted<long double>(x0);
    reference::langevin_update<long double>(n, drift, noise, converted<long double>(score).data(),
                                            converted<long double>(z).data(), expected.data());
    on_every_target([&] {
      std::vector<T> x = x0;
      langevin_update(n, drift, noise, score.data(), z.data(), x.data());
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const long double terms = std::fabs(x0[i]) + std::fabs(static_cast<long double>(drift) * score[i]) +
                                  std::fabs(static_cast<long double>(noise) * z[i]);
        worst = std::max(worst, beyond(x[i], expected[i], 4 * kUnit<T> * terms));
      }
      CHECK(worst == 0);
      // One by one: the same bits.
      std::vector<T> single = x0;
      for (std::size_t i = 0; i < std::min<std::size_t>(x.size(), 100); ++i) {
        langevin_update(1, drift, noise, &score[i], &z[i], &single[i]);
        CHECK(single[i] == x[i]);
      }
    });
  }
}

namespace {

/// The state that AdamW moves.
template <class T>
struct AdamState {
  std::vector<T> p, m, v, ema;

  AdamState(Index n, bool fresh) : p(uniform<T>(n, 20)), m(uniform<T>(n, 21)), v(uniform<T>(n, 22)), ema(uniform<T>(n, 23)) {
    for (T& value : v) value = value * value;
    if (fresh) {
      std::fill(m.begin(), m.end(), T(0));
      std::fill(v.begin(), v.end(), T(0));
    }
  }
  template <class From>
  explicit AdamState(const AdamState<From>& s)
      : p(converted<T>(s.p)), m(converted<T>(s.m)), v(converted<T>(s.v)), ema(converted<T>(s.ema)) {}
};

/// One step against the reference in long double. m and v within 8 u of their terms; p within 8 u of its own, plus what m's and
/// v's allowance makes of the update (to first order: update is linear in m and goes with v^-1/2); ema likewise.
template <class T>
void compare_adam(const AdamStep& options, Index n, bool fresh) {
  CAPTURE(n);
  CAPTURE(options.step);
  std::vector<T> gradient = uniform<T>(n, 24);
  for (std::size_t i = 0; i < gradient.size(); i += 5) gradient[i] = 0;
  const AdamState<T> before(n, fresh);
  AdamState<long double> expected(before);
  reference::adam_ema<long double>(options, n, converted<long double>(gradient).data(), expected.p.data(), expected.m.data(),
                                   expected.v.data(), expected.ema.data());
  on_every_target([&] {
    AdamState<T> s = before;
    adam_ema(options, n, gradient.data(), s.p.data(), s.m.data(), s.v.data(), s.ema.data());
    const long double allowance = 8 * kUnit<T>, t = options.step;
    const long double c1 = 1 - std::pow(options.beta1, t), c2 = 1 - std::pow(options.beta2, t);
    double worst = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const long double g = options.gradient_scale * static_cast<long double>(gradient[i]), p = before.p[i], m = before.m[i],
                        v = before.v[i];
      const long double m_terms = std::fabs(m) + (1 - options.beta1) * (std::fabs(g) + std::fabs(m));
      const long double v_terms = v + (1 - options.beta2) * (g * g + v);
      const long double scale = options.learning_rate / c1 / (std::sqrt(expected.v[i] / c2) + options.epsilon);
      const long double update = std::fabs(scale * expected.m[i]);
      const long double decay = options.learning_rate * options.weight_decay * std::fabs(p);
      const long double v_share = expected.v[i] > 0 ? update * v_terms / expected.v[i] / 2 : 0;
      const long double p_terms = std::fabs(p) + decay + update + scale * m_terms + v_share;
      const long double ema_terms = std::fabs(before.ema[i]) + (1 - options.ema_decay) * (std::fabs(before.ema[i]) + p_terms);
      worst = std::max({worst, beyond(s.m[i], expected.m[i], allowance * m_terms),
                        beyond(s.v[i], expected.v[i], allowance * v_terms), beyond(s.p[i], expected.p[i], allowance * p_terms),
                        beyond(s.ema[i], expected.ema[i], allowance * ema_terms)});
    }
    CHECK(worst == 0);

    AdamState<T> without = before;  // no average asked for: the rest has the same bits
    adam_ema(options, n, gradient.data(), without.p.data(), without.m.data(), without.v.data(), static_cast<T*>(nullptr));
    CHECK(same_bits(without.p, s.p));
    CHECK(same_bits(without.m, s.m));
    CHECK(same_bits(without.v, s.v));
    CHECK(same_bits(without.ema, before.ema));
    AdamState<T> halves = before;  // cut at an odd place: the same bits
    const Index cut = std::min(n, n / 2 | 1);
    for (const Index first : {Index{0}, cut}) {
      const Index count = first == 0 ? cut : n - cut;
      adam_ema(options, count, gradient.data() + first, halves.p.data() + first, halves.m.data() + first, halves.v.data() + first,
               halves.ema.data() + first);
    }
    CHECK(same_bits(halves.p, s.p));
    CHECK(same_bits(halves.ema, s.ema));
  });
}

}  // namespace

TEST_CASE_TEMPLATE("adam_ema matches the reference", T, float, double) {
  AdamStep options;
  options.weight_decay = .1;
  options.ema_decay = .99;
  options.gradient_scale = .3;
  for (const std::int64_t step : {1, 2, 1000}) {
    options.step = step;
    for (const Index n : {0, 1, 3, 16, 17, 64, 65, 50001}) compare_adam<T>(options, n, step == 1);
  }
  options.beta1 = 0;  // RMSProp's form
  options.learning_rate = 0;
  compare_adam<T>(options, 65, false);
}

TEST_CASE("element-wise kernels refuse what they cannot mean") {
  float x[4] = {};
  CHECK_THROWS_AS(silu(-1, x, x), UsageError);
  CHECK_THROWS_AS(silu_gradient(-1, x, x, x), UsageError);
  CHECK_THROWS_AS(dsm_perturb(-1, 2, x, x, x, x), UsageError);
  CHECK_THROWS_AS(dsm_perturb(2, -1, x, x, x, x), UsageError);
  CHECK_THROWS_AS(langevin_update(-1, 1.f, 1.f, x, x, x), UsageError);
  AdamStep options;
  CHECK_THROWS_AS(adam_ema(options, -1, x, x, x, x, x), UsageError);
  options.step = 0;
  CHECK_THROWS_AS(adam_ema(options, 1, x, x, x, x, x), UsageError);
  options.step = 1;
  for (const double beta : {-.1, 1., 2., static_cast<double>(kNaN<float>)}) {
    AdamStep first = options, second = options;
    first.beta1 = second.beta2 = beta;
    CHECK_THROWS_AS(adam_ema(first, 1, x, x, x, x, x), UsageError);
    CHECK_THROWS_AS(adam_ema(second, 1, x, x, x, x, x), UsageError);
  }
}

TEST_CASE("fourier_features: every quadrant, huge phases, tails of the vectors; what is not finite") {
  for (const Index n : kSizes) {
    const Index batch = 50;
    std::vector<double> t, w;
    Uniform next(3);
    for (Index b = 0; b < batch; ++b) t.push_back(b < 40 ? 10 * next() : 1e9 * next());  // phases up to 2^21 and far beyond
    for (Index i = 0; i < n; ++i) w.push_back(i % 4 == 0 ? 2e5 * next() : 5 * next());
    if (n > 1) w[0] = 0;
    t[0] = 0, t[1] = 1.5707963267948966;
    on_every_target([&] {
      std::vector<float> out(static_cast<std::size_t>(batch * 2 * n), kNaN<float>);
      fourier_features(batch, n, t.data(), w.data(), out.data());
      double worst = 0;
      for (Index b = 0; b < batch; ++b) {
        for (Index i = 0; i < n; ++i) {
          const double p = w[static_cast<std::size_t>(i)] * t[static_cast<std::size_t>(b)];
          const double allowed = 1.01 * kUnit<float> * (1 + 0x1p-28 * std::fabs(p));
          const auto at = static_cast<std::size_t>(2 * n * b + i);
          for (const double miss : {out[at] - std::cos(p), out[at + static_cast<std::size_t>(n)] - std::sin(p)}) {
            worst = std::max(worst, std::isnan(miss) ? HUGE_VAL : std::fabs(miss) / allowed);
          }
        }
      }
      CHECK(worst <= 1);
    });
  }
  const double bad = kNaN<double>, one = 1;
  float out[2] = {0, 0};
  fourier_features(1, 1, &bad, &one, out);
  CHECK(std::isnan(out[0]));
  CHECK(std::isnan(out[1]));
  CHECK_THROWS_AS(fourier_features(-1, 1, &one, &one, out), UsageError);
}

TEST_CASE_TEMPLATE("sum_squares: within its bound, the same bits on every target, what is not finite shows", T, float, double) {
  for (const Index n : {0, 1, 31, 32, 33, 4096, 5000}) {
    std::vector<T> x = uniform<T>(n, 12);
    for (Index i = 0; i < n; i += 7) x[static_cast<std::size_t>(i)] *= static_cast<T>(1e-20);
    long double expected = 0;
    for (const T v : x) expected += static_cast<long double>(v) * static_cast<long double>(v);
    const double wide = static_cast<double>(expected);
    std::vector<double> sums;
    on_every_target([&] {
      sums.push_back(sum_squares(n, x.data()));
      CHECK(std::fabs(sums.back() - wide) <= (static_cast<double>(n) / 32 + 6) * 0x1p-53 * wide);
      CHECK(sums.back() == sums.front());
      if (n > 32) {
        for (const Index at : {Index{0}, n - 1}) {
          std::vector<T> bad = x;
          bad[static_cast<std::size_t>(at)] = kNaN<T>;
          CHECK(std::isnan(sum_squares(n, bad.data())));
        }
      }
    });
  }
  const T one = 1;
  CHECK_THROWS_AS(sum_squares(-1, &one), UsageError);
}
