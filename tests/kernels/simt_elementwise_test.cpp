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

TEST_CASE("simt adam_ema matches the reference") {
  AdamStep options;
  options.weight_decay = .1, options.ema_decay = .99, options.gradient_scale = .3, options.step = 3;
  for (const Index n : {0, 1, 65, 1000}) {
    const auto g = uniform<float>(n, 1), p0 = uniform<float>(n, 2), m0 = uniform<float>(n, 3), e0 = uniform<float>(n, 4);
    std::vector<float> v0 = uniform<float>(n, 5);
    for (float& value : v0) value = .01f + value * value;
    std::vector<double> p = converted<double>(p0), m = converted<double>(m0), v = converted<double>(v0),
                        e = converted<double>(e0);
    reference::adam_ema<double>(options, n, converted<double>(g).data(), p.data(), m.data(), v.data(), e.data());
    for (const Order order : simt::kAllOrders) {
      std::vector<float> fp = p0, fm = m0, fv = v0, fe = e0, without = p0, wm = m0, wv = v0;
      cuda::adam_ema(host(order), options, n, g.data(), fp.data(), fm.data(), fv.data(), fe.data());
      cuda::adam_ema(host(order), options, n, g.data(), without.data(), wm.data(), wv.data(), nullptr);
      CHECK(same_bits(fp, without));
      bool right = true;
      for (std::size_t i = 0; i < fp.size(); ++i) {  // every magnitude is at most 2, the update below 1e-2 / .1
        right = right && std::fabs(fm[i] - m[i]) <= 16 * kU && std::fabs(fv[i] - v[i]) <= 16 * kU;
        right = right && std::fabs(fp[i] - p[i]) <= 16 * kU && std::fabs(fe[i] - e[i]) <= 16 * kU;
      }
      CHECK(right);
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
