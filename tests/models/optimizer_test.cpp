// SPDX-License-Identifier: MIT
#include "tweedie/models/optimizer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/core/parallel.h"
#include "tweedie/core/random.h"

using namespace tweedie;

namespace {

template <class S>
std::vector<S> normals(const Rng& rng, std::uint32_t step, Index n) {
  MatrixX<S> z(n, 1);
  rng.normals(Purpose::user, step, 0, z.view());
  return {z.data(), z.data() + n};
}

// AdamW as torch.optim.AdamW documents it, in double, one parameter at a time.
struct ReferenceAdam {
  AdamOptions o;
  std::vector<double> m, v;
  int t = 0;
  void update(double lr, double scale, double decay, const std::vector<double>& gradient, std::vector<double>& p,
              std::vector<double>& ema) {
    m.resize(p.size());
    v.resize(p.size());
    ++t;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double g = scale * gradient[i];
      p[i] *= 1 - lr * o.weight_decay;
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      const double step = lr / (1 - std::pow(o.beta1, t));
      p[i] -= step * m[i] / (std::sqrt(v[i]) / std::sqrt(1 - std::pow(o.beta2, t)) + o.epsilon);
      ema[i] = decay * ema[i] + (1 - decay) * p[i];
    }
  }
};

template <class S>
void compare_with_reference(Index n, double tolerance) {
  const Rng rng{7};
  for (const double weight_decay : {0.0, .1}) {
    CAPTURE(n);
    const AdamOptions options{.weight_decay = weight_decay};
    AdamX<S> adam(n, options);
    ReferenceAdam reference{options, {}, {}};
    std::vector<S> p = normals<S>(rng, 1000, n), ema = p;
    std::vector<double> p_reference(p.begin(), p.end()), ema_reference = p_reference;
    for (std::uint32_t t = 0; t < 40; ++t) {
      const std::vector<S> g = normals<S>(rng, t, n);
      adam.update({.learning_rate = 1e-2, .gradient_scale = .5, .ema_decay = .9}, g, p, ema);
      reference.update(1e-2, .5, .9, {g.begin(), g.end()}, p_reference, ema_reference);
    }
    CHECK(adam.steps() == 40);
    double worst = 0, worst_ema = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      worst = std::max(worst, std::abs(p[i] - p_reference[i]));
      worst_ema = std::max(worst_ema, std::abs(ema[i] - ema_reference[i]));
    }
    CHECK(worst < tolerance);
    CHECK(worst_ema < tolerance);
  }
}

}  // namespace

TEST_CASE("Adam and the average follow PyTorch's formula") {
  // 40 steps, each adds at most 8 u of terms of magnitude |p| <= 5 and lr-sized quotients whose relative error is that of
  // m and v, some 40 * 8 u: 40 * (8 u * 5 + 1e-2 * 640 u) is below 2000 u.
  for (const Index n : {1, 3, 16, 17, 4095, 4097}) {
    compare_with_reference<double>(n, 2000 * 0x1p-53);
    compare_with_reference<float>(n, 2000 * 0x1p-24);
  }
}

TEST_CASE("without an average only the parameters move, by the learning rate in the first step") {
  AdamX<double> adam(3);
  std::vector<double> p = {1, 2, 3};
  const std::vector<double> g = {.5, -100, 1e-3};
  adam.update({.learning_rate = .1}, g, p);
  // m / c1 = g and v / c2 = g^2, so the step is lr g / (|g| + eps).
  CHECK(p[0] == doctest::Approx(1 - .1 * .5 / (.5 + 1e-8)).epsilon(1e-14));
  CHECK(p[1] == doctest::Approx(2 + .1).epsilon(1e-9));
  CHECK(p[2] == doctest::Approx(3 - .1 * 1e-3 / (1e-3 + 1e-8)).epsilon(1e-14));
}

TEST_CASE("a stored state goes on bit for bit") {
  const Rng rng{3};
  const Index n = 777;
  Adam whole(n), first(n);
  std::vector<float> p = normals<float>(rng, 99, n), q = p, ema = p, ema_q = p;
  for (std::uint32_t t = 0; t < 5; ++t) {
    const std::vector<float> g = normals<float>(rng, t, n);
    whole.update({.ema_decay = .9}, g, p, ema);
    first.update({.ema_decay = .9}, g, q, ema_q);
  }
  Adam second(n);
  second.restore(first.steps(), first.exp_avg(), first.exp_avg_sq());
  for (std::uint32_t t = 5; t < 10; ++t) {
    const std::vector<float> g = normals<float>(rng, t, n);
    whole.update({.ema_decay = .9}, g, p, ema);
    second.update({.ema_decay = .9}, g, q, ema_q);
  }
  CHECK(p == q);
  CHECK(ema == ema_q);
}

TEST_CASE("norms and updates have the same bits for any number of threads") {
  const Rng rng{11};
  const Index n = 3 * 4096 + 77;
  const std::vector<float> g = normals<float>(rng, 0, n);
  std::vector<double> norms;
  std::vector<std::vector<float>> results;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    Adam adam(n);
    norms.push_back(adam.norm(g));
    std::vector<float> p = g, ema = g;
    adam.update({.ema_decay = .5}, g, p, ema);
    adam.update({.ema_decay = .5}, g, p, ema);
    p.insert(p.end(), ema.begin(), ema.end());
    results.push_back(p);
  }
  set_threads(0);
  CHECK(norms[0] == norms[1]);
  CHECK(norms[0] == norms[2]);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
  double exact = 0;
  for (const float x : g) exact += double(x) * x;
  CHECK(norms[0] == doctest::Approx(std::sqrt(exact)).epsilon(1e-12));
}

TEST_CASE("clipping brings the norm down to the limit and leaves smaller gradients alone") {
  CHECK(clip_scale(5, 0) == 1);
  CHECK(clip_scale(.5, 1) == 1);
  CHECK(clip_scale(4, 1) == 1 / (4 + 1e-6));
  CHECK_THROWS_AS(clip_scale(1, -1), UsageError);
  CHECK(Adam(0).norm({}) == 0);
}

TEST_CASE("a gradient that is not finite has a norm that is not finite") {
  std::vector<float> g(5000, 1.0f);
  Adam adam(5000);
  g[4321] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(adam.norm(g)));
  g[4321] = -std::numeric_limits<float>::infinity();
  CHECK(std::isinf(adam.norm(g)));
}

TEST_CASE("learning-rate schedules") {
  CHECK(schedule_factor({}, 0, 1) == 1);
  const ScheduleOptions warm{.warmup_steps = 4};
  CHECK(schedule_factor(warm, 0, 10) == .25);
  CHECK(schedule_factor(warm, 3, 10) == 1);
  CHECK(schedule_factor(warm, 9, 10) == 1);

  const ScheduleOptions cosine{.kind = LearningRate::cosine, .warmup_steps = 2, .final_fraction = .1};
  CHECK(schedule_factor(cosine, 1, 10) == 1);
  CHECK(schedule_factor(cosine, 2, 10) == 1);  // the top of the cosine
  CHECK(schedule_factor(cosine, 6, 10) == doctest::Approx(.55).epsilon(1e-14));
  CHECK(schedule_factor(cosine, 9, 10) ==
        doctest::Approx(.1 + .9 * .5 * (1 + std::cos(std::numbers::pi * 7 / 8))).epsilon(1e-14));
  double last = 2;
  for (int t = 2; t < 10; ++t) {
    const double factor = schedule_factor(cosine, t, 10);
    CHECK(factor < last);
    CHECK(factor > .1);
    last = factor;
  }
  CHECK_THROWS_AS(schedule_factor({}, 3, 3), UsageError);
  CHECK_THROWS_AS(schedule_factor({}, -1, 3), UsageError);
  CHECK_THROWS_AS(schedule_factor({.warmup_steps = -1}, 0, 3), UsageError);
  CHECK_THROWS_AS(schedule_factor({.final_fraction = 1.5}, 0, 3), UsageError);
}

TEST_CASE("the average's decay, with and without warm-up") {
  CHECK(ema_decay(.999, false, 0) == .999);
  CHECK(ema_decay(.999, true, 0) == .1);
  CHECK(ema_decay(.999, true, 90) == .91);
  CHECK(ema_decay(.999, true, 1'000'000) == .999);
  CHECK_THROWS_AS(ema_decay(1, false, 0), UsageError);
  CHECK_THROWS_AS(ema_decay(-.1, false, 0), UsageError);
}

TEST_CASE("wrong sizes and options are refused") {
  CHECK_THROWS_AS(Adam(3, {.beta1 = 1}), UsageError);
  CHECK_THROWS_AS(Adam(3, {.epsilon = 0}), UsageError);
  CHECK_THROWS_AS(Adam(3, {.weight_decay = -1}), UsageError);
  Adam adam(3);
  std::vector<float> two(2), three(3);
  CHECK_THROWS_AS(adam.update({}, two, three), UsageError);
  CHECK_THROWS_AS(adam.update({}, three, two), UsageError);
  CHECK_THROWS_AS(adam.update({}, three, three, two), UsageError);
  CHECK_THROWS_AS(adam.norm(two), UsageError);
  CHECK_THROWS_AS(adam.restore(1, two, three), UsageError);
  CHECK_THROWS_AS(adam.restore(-1, three, three), UsageError);
}
