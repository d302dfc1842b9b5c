// simt_elementwise_test.cpp - the device kernels' bodies, run on the CPU in three thread orders, against the reference in double.
// SPDX-License-Identifier: MIT
#include <algorithm>

#include "simt_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/reference/adam_ema.h"
#include "tweedie/kernels/reference/dsm_perturb.h"
#include "tweedie/kernels/reference/langevin_update.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

TEST_CASE("simt normals have the library's bits") {
  for (const Index rows : kSizes) {
    for (const Index dim : {1, 2, 3, 4, 5, 17}) {
      const std::uint64_t first = (std::uint64_t{1} << 33) + 5;
      Matrix expected(rows, dim);
      Rng(77).normals<float>(Purpose::langevin, 9, first, expected, 3);
      for (const Order order : simt::kAllOrders) {
        std::vector<float> z(static_cast<std::size_t>(rows * dim), kNaN<float>);
        cuda::normals(host(order), {77, Purpose::langevin, 9, 3, first, rows, dim, z.data()});
        CHECK(same_bits(z, std::vector<float>(expected.data(), expected.data() + rows * dim)));
      }
    }
  }
}

TEST_CASE("simt langevin_update and dsm_perturb match the reference") {
  for (const Index batch : kSizes) {
    for (const Index dim : {1, 3, 17}) {
      const Index n = batch * dim;
      const auto x0 = uniform<float>(n, 1), eps = uniform<float>(n, 2), s = uniform<float>(n, 3),
                 sigma = uniform<float>(batch, 4);
      const float drift = .125f, noise = -.7f;
      std::vector<double> moved = converted<double>(x0), noised(x0.size());
      reference::langevin_update<double>(n, drift, noise, converted<double>(s).data(), converted<double>(eps).data(),
                                         moved.data());
      reference::dsm_perturb<double>(batch, dim, converted<double>(x0).data(), converted<double>(sigma).data(),
                                     converted<double>(eps).data(), noised.data());
      for (const Order order : simt::kAllOrders) {
        std::vector<float> x = x0, y(x0.size(), kNaN<float>);
        cuda::langevin_update(host(order), {n, drift, noise, s.data(), eps.data(), x.data()});
        cuda::dsm_perturb(host(order), {batch, dim, x0.data(), sigma.data(), eps.data(), y.data()});
        bool right = true;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double level = sigma[i / static_cast<std::size_t>(dim)];
          right = right &&
                  std::fabs(x[i] - moved[i]) <= 4 * kU * (std::fabs(x0[i]) + std::fabs(drift * s[i]) + std::fabs(noise * eps[i]));
          right = right && std::fabs(y[i] - noised[i]) <= 2 * kU * (std::fabs(x0[i]) + std::fabs(level * eps[i]));
        }
        CHECK(right);
      }
    }
  }
}

// Each of m, v, p, ema within 8 u of the magnitudes of its equation's terms (kernels.h), p's share of m's and v's errors
// included.
TEST_CASE("simt adam_ema matches the reference") {
  AdamStep o;
  o.weight_decay = .1, o.ema_decay = .99, o.gradient_scale = .3;
  for (const std::int64_t step : {1, 3, 1000}) {
    o.step = step;
    for (const Index n : {0, 1, 65, 1000}) {
      const auto g = uniform<float>(n, 1), p0 = uniform<float>(n, 2), m0 = uniform<float>(n, 3), e0 = uniform<float>(n, 4);
      std::vector<float> v0 = uniform<float>(n, 5);
      for (float& value : v0) value = .01f + value * value;
      std::vector<double> p = converted<double>(p0), m = converted<double>(m0), v = converted<double>(v0),
                          e = converted<double>(e0);
      reference::adam_ema<double>(o, n, converted<double>(g).data(), p.data(), m.data(), v.data(), e.data());
      const double t = static_cast<double>(step), c1 = 1 - std::pow(o.beta1, t), c2 = 1 - std::pow(o.beta2, t);
      for (const Order order : simt::kAllOrders) {
        std::vector<float> fp = p0, fm = m0, fv = v0, fe = e0, without = p0, wm = m0, wv = v0;
        cuda::adam_ema(host(order), o, n, g.data(), fp.data(), fm.data(), fv.data(), fe.data());
        cuda::adam_ema(host(order), o, n, g.data(), without.data(), wm.data(), wv.data(), nullptr);
        CHECK(same_bits(fp, without));
        double worst = 0;
        for (std::size_t i = 0; i < fp.size(); ++i) {
          const double scaled = std::fabs(o.gradient_scale * g[i]), before = std::fabs(p0[i]);
          const double m_terms = std::fabs(m0[i]) + (1 - o.beta1) * (scaled + std::fabs(m0[i]));
          const double v_terms = v0[i] + (1 - o.beta2) * (scaled * scaled + v0[i]);
          const double scale = o.learning_rate / c1 / (std::sqrt(v[i] / c2) + o.epsilon), update = std::fabs(scale * m[i]);
          const double p_terms =
              before + o.learning_rate * o.weight_decay * before + update + scale * m_terms + update * v_terms / v[i] / 2;
          const double ema_terms = std::fabs(e0[i]) + (1 - o.ema_decay) * (std::fabs(e0[i]) + p_terms);
          worst = std::max({worst, std::fabs(fm[i] - m[i]) / m_terms, std::fabs(fv[i] - v[i]) / v_terms,
                            std::fabs(fp[i] - p[i]) / p_terms, std::fabs(fe[i] - e[i]) / ema_terms});
        }
        CHECK(worst <= 8 * kU);
      }
    }
  }
}

TEST_CASE("simt launchers refuse what they cannot mean") {
  float x[4] = {};
  const auto launch = host(Order::forward);
  CHECK_THROWS_AS(cuda::langevin_update(launch, {-1, 1, 1, x, x, x}), UsageError);
  CHECK_THROWS_AS(cuda::dsm_perturb(launch, {2, -1, x, x, x, x}), UsageError);
  CHECK_THROWS_AS(cuda::normals(launch, {0, Purpose::user, 0, 1U << 24, 0, 1, 1, x}), UsageError);
  CHECK_THROWS_AS(cuda::normals(launch, {0, Purpose::user, 0, 0, std::uint64_t{1} << 44, 1, 1, x}), UsageError);
  AdamStep options;
  options.step = 0;
  CHECK_THROWS_AS(cuda::adam_ema(launch, options, 1, x, x, x, x, x), UsageError);
}
