// runtime_checks.h - what every Runtime must do, and what the kernels launched by name must give on it: run by
// simt_backend_test.cpp on the host executor and by tests/gpu on a CUDA device. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels_testing.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/dsm_loss.h"
#include "tweedie/kernels/cuda/elementwise.h"
#include "tweedie/kernels/cuda/runtime.h"
#include "tweedie/kernels/reference/adam_ema.h"
#include "tweedie/kernels/reference/dsm_loss.h"
#include "tweedie/kernels/reference/dsm_perturb.h"
#include "tweedie/kernels/reference/langevin_update.h"

namespace tweedie::kernels::testing {

/// A vector on a Runtime or Device.
template <class R, class T>
class OnDevice {
 public:
  OnDevice(R& runtime, const std::vector<T>& values) : OnDevice(runtime, values.size()) {
    runtime_.upload(data_, values.data(), sizeof(T) * size_);
  }
  OnDevice(R& runtime, std::size_t size) : runtime_(runtime), size_(size) {
    data_ = static_cast<T*>(runtime.allocate(sizeof(T) * std::max<std::size_t>(size, 1)));
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { runtime_.release(data_); }
  T* data() { return data_; }
  std::vector<T> get() const {
    std::vector<T> values(size_);
    runtime_.download(values.data(), data_, sizeof(T) * size_);
    return values;
  }

 private:
  R& runtime_;
  std::size_t size_;
  T* data_ = nullptr;
};
template <class R, class T>
OnDevice<R, T> put(R& runtime, const std::vector<T>& values) {
  return {runtime, values};
}

template <class R>
void check_copies(R& runtime) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{257}, std::size_t{100'003}}) {
    const std::vector<float> values = uniform<float>(static_cast<Index>(size), 5);
    OnDevice<R, float> a(runtime, values);
    CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 256 == 0);
    CHECK(same_bits(a.get(), values));
    runtime.zero(a.data(), sizeof(float) * (size / 2));
    const std::vector<float> half = a.get();
    CHECK(std::all_of(half.begin(), half.begin() + static_cast<std::ptrdiff_t>(size / 2), [](float x) { return x == 0; }));
    CHECK(std::equal(half.begin() + static_cast<std::ptrdiff_t>(size / 2), half.end(),
                     values.begin() + static_cast<std::ptrdiff_t>(size / 2)));
  }
}

/// Noise is the same everywhere, bit for bit.
template <class R>
void check_normals(R& runtime, Index most_rows) {
  const std::uint64_t first = (std::uint64_t{1} << 33) + 5;
  for (const Index rows : {Index{1}, Index{65}, most_rows}) {
    for (const Index dim : {1, 2, 5}) {
      Matrix expected(rows, dim);
      Rng(77).normals<float>(Purpose::langevin, 9, first, expected, 3);
      OnDevice<R, float> z(runtime, static_cast<std::size_t>(rows * dim));
      cuda::normals(cuda::launcher(runtime), {77, Purpose::langevin, 9, 3, first, rows, dim, z.data()});
      CHECK(same_bits(z.get(), std::vector<float>(expected.data(), expected.data() + rows * dim)));
    }
  }
}

/// The bounds are kernels.h's.
template <class R>
void check_updates(R& runtime, Index rows) {
  constexpr double u = kUnit<float>;
  const Index dim = 3, n = rows * dim;
  const auto x0 = uniform<float>(n, 1), z = uniform<float>(n, 2), s = uniform<float>(n, 3), sigma = uniform<float>(rows, 4);
  const float drift = .125f, noise = -.7f;
  std::vector<double> moved = converted<double>(x0), noised(x0.size());
  reference::langevin_update<double>(n, drift, noise, converted<double>(s).data(), converted<double>(z).data(), moved.data());
  reference::dsm_perturb<double>(rows, dim, converted<double>(x0).data(), converted<double>(sigma).data(),
                                 converted<double>(z).data(), noised.data());
  auto start = put(runtime, x0), x = put(runtime, x0), eps = put(runtime, z), score = put(runtime, s),
       level = put(runtime, sigma);
  OnDevice<R, float> y(runtime, x0.size());
  cuda::langevin_update(cuda::launcher(runtime), {n, drift, noise, score.data(), eps.data(), x.data()});
  cuda::dsm_perturb(cuda::launcher(runtime), {rows, dim, start.data(), level.data(), eps.data(), y.data()});
  const std::vector<float> got_x = x.get(), got_y = y.get();
  int wrong = 0;
  for (std::size_t i = 0; i < x0.size(); ++i) {
    const double deviation = sigma[i / static_cast<std::size_t>(dim)];
    wrong += !(std::fabs(got_x[i] - moved[i]) <= 4 * u * (std::fabs(x0[i]) + std::fabs(drift * s[i]) + std::fabs(noise * z[i])));
    wrong += !(std::fabs(got_y[i] - noised[i]) <= 2 * u * (std::fabs(x0[i]) + std::fabs(deviation * z[i])));
  }
  CHECK(wrong == 0);
}

/// p within 16 u of the magnitudes of its terms after one step: twice kernels.h's bound, for the shares of m's and v's errors.
template <class R>
void check_adam(R& runtime, Index n) {
  constexpr double u = kUnit<float>;
  AdamStep o;
  o.weight_decay = .1, o.ema_decay = .99, o.gradient_scale = .3, o.step = 3;
  const auto g = uniform<float>(n, 1), p0 = uniform<float>(n, 2), m0 = uniform<float>(n, 3), e0 = uniform<float>(n, 4);
  std::vector<float> v0 = uniform<float>(n, 5);
  for (float& value : v0) value = .01f + value * value;
  std::vector<double> p = converted<double>(p0), m = converted<double>(m0), v = converted<double>(v0), e = converted<double>(e0);
  reference::adam_ema<double>(o, n, converted<double>(g).data(), p.data(), m.data(), v.data(), e.data());
  auto dg = put(runtime, g), dp = put(runtime, p0), dm = put(runtime, m0), dv = put(runtime, v0), de = put(runtime, e0);
  cuda::adam_ema(cuda::launcher(runtime), o, n, dg.data(), dp.data(), dm.data(), dv.data(), de.data());
  const auto got_p = dp.get(), got_m = dm.get(), got_v = dv.get(), got_e = de.get();
  int wrong = 0;
  for (std::size_t i = 0; i < p0.size(); ++i) {
    const double move = std::fabs(p[i] - p0[i]);
    wrong += !(std::fabs(got_m[i] - m[i]) <= 8 * u * (std::fabs(m0[i]) + std::fabs(.3 * g[i])));
    wrong += !(std::fabs(got_v[i] - v[i]) <= 8 * u * (v0[i] + .09 * g[i] * g[i]));
    wrong += !(std::fabs(got_p[i] - p[i]) <= 16 * u * (std::fabs(p0[i]) + move + o.learning_rate));
    wrong += !(std::fabs(got_e[i] - e[i]) <= 16 * u * (std::fabs(e0[i]) + std::fabs(p0[i]) + move));
  }
  CHECK(wrong == 0);
}

template <class R>
void check_dsm_loss(R& runtime, Index batch) {
  constexpr double u = kUnit<float>;
  const Index dim = 3;
  const auto x = uniform<float>(batch * dim, 1), e = uniform<float>(batch * dim, 2);
  std::vector<double> expected(x.size());
  const double expected_loss =
      reference::dsm_loss<double>(batch, dim, converted<double>(x).data(), converted<double>(e).data(), nullptr, expected.data());
  auto out = put(runtime, x), eps = put(runtime, e);
  OnDevice<R, float> du(runtime, x.size()), partial(runtime, static_cast<std::size_t>(cuda::dsm_loss_chunks(batch, dim)));
  OnDevice<R, double> loss(runtime, 1);
  const auto run = [&] {
    cuda::dsm_loss(cuda::launcher(runtime), {batch, dim, out.data(), eps.data(), nullptr, du.data(), partial.data()},
                   loss.data());
    return loss.get()[0];
  };
  const double first = run();
  CHECK(std::fabs(first - expected_loss) <= 32 * u * expected_loss);
  CHECK(run() == first);  // no atomics: the same bits again
  const std::vector<float> got = du.get();
  int wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) wrong += !(std::fabs(got[i] - expected[i]) <= 4.01 * u * std::fabs(expected[i]));
  CHECK(wrong == 0);
}

/// A replayed graph has the bits of its launches made one by one.
template <class R>
void check_graph(R& runtime) {
  const Index n = 1000;
  const auto x0 = uniform<float>(n, 1), s = uniform<float>(n, 2), z = uniform<float>(n, 3);
  auto score = put(runtime, s), noise = put(runtime, z), a = put(runtime, x0), b = put(runtime, x0);
  const auto steps = [&](float* x) {
    cuda::langevin_update(cuda::launcher(runtime), {n, .25f, .5f, score.data(), noise.data(), x});
    cuda::langevin_update(cuda::launcher(runtime), {n, -.5f, 1.5f, score.data(), noise.data(), x});
    runtime.zero(x, sizeof(float));
  };
  const typename R::Graph graph = runtime.capture([&] { steps(b.data()); });
  CHECK(same_bits(b.get(), x0));
  for (int i = 0; i < 3; ++i) {
    steps(a.data());
    runtime.replay(graph);
  }
  CHECK(same_bits(a.get(), b.get()));
  CHECK(!same_bits(a.get(), x0));
  CHECK_THROWS_AS(runtime.capture([&] { runtime.upload(a.data(), x0.data(), sizeof(float)); }), ResourceError);
  CHECK_NOTHROW(runtime.synchronize());  // and the capture is over
  runtime.replay(graph);
  runtime.synchronize();
}

template <class R>
void check_runtime(R& runtime, Index rows) {
  check_copies(runtime);
  check_normals(runtime, rows);
  check_updates(runtime, rows);
  check_adam(runtime, rows);
  check_dsm_loss(runtime, rows);
  check_graph(runtime);
}

}  // namespace tweedie::kernels::testing
