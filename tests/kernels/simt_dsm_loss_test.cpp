// simt_dsm_loss_test.cpp - loss and gradient of denoising score matching, in three thread orders, against the reference in
// double. SPDX-License-Identifier: MIT
#include "simt_accept.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

TEST_CASE("simt dsm_loss matches the reference; its bits do not depend on the order") {
  struct Shape {
    Index batch, dim;
  };
  for (const Shape s : {Shape{1, 1}, {3, 2}, {16, 3}, {17, 1}, {64, 64}, {65, 64}, {1, 4097}, {1366, 3}}) {
    for (const bool weighted : {false, true}) {
      CAPTURE(s.batch);
      CAPTURE(s.dim);
      double first_loss = 0;
      for (const Order order : simt::kAllOrders) {
        double loss;
        CHECK(accept_dsm_loss(host(order), s.batch, s.dim, weighted, &loss) <= 1);
        if (order == Order::forward) first_loss = loss;
        CHECK(loss == first_loss);
      }
    }
  }
}

TEST_CASE("simt dsm_loss: the gradient may overwrite u; NaN reaches the loss") {
  std::vector<float> u = uniform<float>(6, 1), eps = uniform<float>(6, 2), du(6), partial(1);
  double loss = 0, again = 0;
  cuda::dsm_loss(host(Order::forward), {3, 2, u.data(), eps.data(), nullptr, du.data(), partial.data()}, &loss);
  cuda::dsm_loss(host(Order::reverse), {3, 2, u.data(), eps.data(), nullptr, u.data(), partial.data()}, &again);
  CHECK(same_bits(u, du));
  CHECK(loss == again);
  u[4] = kNaN<float>;
  cuda::dsm_loss(host(Order::shuffled), {3, 2, u.data(), eps.data(), nullptr, du.data(), partial.data()}, &loss);
  CHECK(std::isnan(loss));
}

TEST_CASE("simt dsm_loss refuses what it cannot mean") {
  float x[4] = {};
  double loss;
  const auto launch = host(Order::forward);
  CHECK_THROWS_AS(cuda::dsm_loss(launch, {0, 2, x, x, nullptr, x, x}, &loss), UsageError);
  CHECK_THROWS_AS(cuda::dsm_loss(launch, {2, -1, x, x, nullptr, x, x}, &loss), UsageError);
  CHECK_THROWS_AS(cuda::dsm_loss(launch, {Index{1} << 40, 5, x, x, nullptr, x, x}, &loss), UsageError);
  CHECK_THROWS_AS(cuda::dsm_loss(launch, {1, 2, x, nullptr, nullptr, x, x}, &loss), UsageError);
  CHECK_THROWS_AS(cuda::dsm_loss(launch, {1, 2, x, x, nullptr, x, x}, nullptr), UsageError);
}
