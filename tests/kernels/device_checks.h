// device_checks.h - what every Device must do: run by simt_backend_test.cpp on the host executor and by tests/gpu on a CUDA
// device. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "divergence_testing.h"
#include "mlp_testing.h"
#include "runtime_checks.h"
#include "tweedie/kernels/cuda/device.h"
#include "tweedie/kernels/cuda/mlp_forward.h"

namespace tweedie::kernels::testing {

using cuda::Device;

inline void check_buffers(const std::shared_ptr<Device>& device) {
  const std::vector<float> values = uniform<float>(1001, 3);
  cuda::DeviceBuffer<float> a(device, 1001), none;
  CHECK(a.size() == 1001);
  a.upload(values.data(), 1001);
  cuda::DeviceBuffer<float> b = std::move(a);
  CHECK(a.data() == nullptr);
  std::vector<float> back(1000);
  b.download(back.data(), 1000);
  CHECK(same_bits(back, std::vector<float>(values.begin(), values.end() - 1)));
  none = std::move(b);
  none.download(back.data(), 3);
  CHECK(back[2] == values[2]);
}

/// A network's weights on a device.
class DeviceNet {
 public:
  DeviceNet(Device& device, const TestNet& t) : net(t.net), scale_(device, t.scale) {
    net.scale = scale_.data();
    for (int i = 0; i < net.layers; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const std::size_t skew =
          t.weights[at].size() - static_cast<std::size_t>(net.layer[i].in) * static_cast<std::size_t>(net.layer[i].out);
      weights_.push_back(std::make_unique<OnDevice<Device, float>>(device, t.weights[at]));
      biases_.push_back(std::make_unique<OnDevice<Device, float>>(device, t.biases[at]));
      net.layer[i].weight = weights_.back()->data() + skew;
      net.layer[i].bias = biases_.back()->data();
    }
  }
  Mlp net;

 private:
  OnDevice<Device, float> scale_;
  std::vector<std::unique_ptr<OnDevice<Device, float>>> weights_, biases_;
};

inline constexpr Precision kAllPrecisions[] = {Precision::fp32, Precision::tf32, Precision::bf16x3, Precision::bf16};

/// What a device's kernels promise (cuda/mlp_forward.h): the unit truncates 9 terms for 8 products, with split operands three
/// times; bf16's SiLU is by tanh.approx.
inline Accuracy device_accuracy(Precision precision) {
  switch (precision) {
    case Precision::tf32:
      return {0x1p-10 + 0x1p-22, 2.25};
    case Precision::bf16x3:
      return {0x3.04p-16, 6.75};
    case Precision::bf16:
      return {0x1p-7 + 0x1p-16, 2.25, .5, 0x1p-120, 0x1.01p-12};
    case Precision::fp32:
      break;
  }
  return {0x3.01p-22, 6.75};
}

struct NetCase {
  Index batch;
  std::vector<int> sizes;
};

/// mlp_forward in one precision against the reference in double.
inline void check_forward(Device& device, Precision precision, Accuracy accuracy, const std::vector<NetCase>& cases) {
  for (const NetCase& c : cases) {
    CAPTURE(name(precision));
    CAPTURE(c.batch);
    CAPTURE(c.sizes[1]);
    const TestNet t(c.sizes, 3);
    const DeviceNet net(device, t);
    const auto x = uniform<float>(c.batch * c.sizes[0], 7);
    std::vector<int> level(static_cast<std::size_t>(c.batch));
    for (std::size_t b = 0; b < level.size(); ++b) level[b] = static_cast<int>(b % 3);
    auto dx = put(device, x);
    auto dlevel = put(device, level);
    OnDevice<Device, float> out(device, static_cast<std::size_t>(c.batch * c.sizes.back()));
    device.mlp_forward({net.net, c.batch, dx.data(), dlevel.data(), 0, out.data()}, precision);
    CHECK(beyond_bound(t, c.batch, x.data(), level, out.get(), accuracy) == 0);
  }
}

/// mlp_divergence against the reference in long double, both forms.
inline void check_divergence(Device& device, const std::vector<NetCase>& cases) {
  for (const NetCase& c : cases) {
    for (const bool with_probe : {false, true}) {
      CAPTURE(c.batch);
      CAPTURE(c.sizes[1]);
      const TestNetD t(c.sizes, 3);
      const auto x = uniform<double>(c.batch * c.sizes[0], 7), probe = uniform<double>(c.batch * c.sizes[0], 8);
      cuda::MlpD net = t.net;
      std::vector<std::unique_ptr<OnDevice<Device, double>>> memory;
      const auto keep = [&](const std::vector<double>& values) {
        memory.push_back(std::make_unique<OnDevice<Device, double>>(device, values));
        return memory.back()->data();
      };
      for (int i = 0; i < net.layers; ++i) {
        net.layer[i].weight = keep(t.weights[static_cast<std::size_t>(i)]);
        net.layer[i].bias = keep(t.biases[static_cast<std::size_t>(i)]);
      }
      OnDevice<Device, double> out(device, x.size()), second(device, with_probe ? x.size() : static_cast<std::size_t>(c.batch));
      device.mlp_divergence({net, c.batch, keep(x), nullptr, with_probe ? keep(probe) : nullptr, out.data(),
                             with_probe ? second.data() : nullptr, with_probe ? nullptr : second.data()});
      const DivergenceReference expected(
          {t.net, c.batch, x.data(), nullptr, with_probe ? probe.data() : nullptr, nullptr, nullptr, nullptr});
      CHECK(expected.worst(out.get(), second.get()) <= 1);
    }
  }
}

/// A list of steps that uses every term; z only, where `network` is false.
inline std::vector<cuda::ChainStep> chain_steps(int count, bool network) {
  std::vector<cuda::ChainStep> steps;
  for (int i = 0; i < count; ++i) {
    const float a = 1.f / static_cast<float>(i + 2), f = network ? a : 0;
    steps.push_back(
        {i % 3, 1 - a, 1 - .5f * a, f, .25f * a, i % 3 == 2 ? 0 : .7f * a, .5f, -f, .5f, static_cast<std::uint32_t>(7 + i)});
  }
  return steps;
}

struct ChainResult {
  std::vector<float> x, m;
  std::vector<int> diverged;
};

/// The steps [first, last) of `steps` on x and m.
inline ChainResult run_chain(Device& device, const TestNet& t, Precision precision, const std::vector<cuda::ChainStep>& steps,
                             const std::vector<float>& x0, const std::vector<float>& m0) {
  const DeviceNet net(device, t);
  const Index dim = t.net.layer[0].in, batch = static_cast<Index>(x0.size()) / dim;
  auto x = put(device, x0), m = put(device, m0);
  auto list = put(device, steps);
  OnDevice<Device, int> diverged(device, static_cast<std::size_t>(batch));
  device.sample_chain({net.net, batch, static_cast<int>(steps.size()), list.data(), Purpose::langevin, 77,
                       (std::uint64_t{1} << 33) + 5, x.data(), m.data(), 1e6f, diverged.data()},
                      precision);
  return {x.get(), m.get(), diverged.get()};
}

/// Without the network's part a chain is noise and fixed arithmetic: the executor's bits. With it: all steps at once have the
/// bits of the steps one by one, and one step that is F alone is F.
inline void check_chain(Device& device, Device& executor, Precision precision, Accuracy accuracy,
                        const std::vector<NetCase>& cases) {
  for (const NetCase& c : cases) {
    CAPTURE(name(precision));
    CAPTURE(c.batch);
    CAPTURE(c.sizes[1]);
    const TestNet t(c.sizes, 3);
    const auto x0 = uniform<float>(c.batch * c.sizes[0], 3), m0 = uniform<float>(c.batch * c.sizes[0], 4);

    const auto noise = chain_steps(5, false);
    const ChainResult ours = run_chain(device, t, precision, noise, x0, m0);
    const ChainResult theirs = run_chain(executor, t, precision, noise, x0, m0);
    CHECK(same_bits(ours.x, theirs.x));
    CHECK(same_bits(ours.m, theirs.m));

    const auto steps = chain_steps(4, true);
    const ChainResult whole = run_chain(device, t, precision, steps, x0, m0);
    ChainResult pieces{x0, m0, {}};
    for (const cuda::ChainStep& step : steps) pieces = run_chain(device, t, precision, {step}, pieces.x, pieces.m);
    CHECK(same_bits(whole.x, pieces.x));
    CHECK(same_bits(whole.m, pieces.m));
    CHECK(!same_bits(whole.x, x0));
    CHECK(std::all_of(whole.diverged.begin(), whole.diverged.end(), [](int step) { return step == 4; }));

    const ChainResult once = run_chain(device, t, precision, {{1, 1, 0, 1, 0, 0, 0, 0, 0, 0}}, x0, m0);
    TestNet unscaled(c.sizes, 3);
    unscaled.net.scale = nullptr;  // a chain does not read it
    CHECK(beyond_bound(unscaled, c.batch, x0.data(), std::vector<int>(static_cast<std::size_t>(c.batch), 1), once.x, accuracy) ==
          0);
  }
}

/// Rows that leave the bound are named by the first step after which they had.
inline void check_diverged(Device& device, Precision precision) {
  const TestNet t({2, 16, 2}, 3);
  std::vector<cuda::ChainStep> steps(4, {0, 1, 1000, 0, 0, 0, 0, 0, 0, 0});
  const std::vector<float> x0 = {1, 1, 1e-9f, 0, 1e4f, 0, kNaN<float>, 0}, m0(8);
  const ChainResult r = run_chain(device, t, precision, steps, x0, m0);
  CHECK(r.diverged == std::vector<int>{2, 4, 0, 0});
}

}  // namespace tweedie::kernels::testing
