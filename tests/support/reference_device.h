// reference_device.h - a device in the host's memory that computes by the definitions of inputs.h: the oracle of what runs on
// one. SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tweedie/core/check.h"
#include "tweedie/core/random.h"
#include "tweedie/kernels/cuda/device.h"
#include "tweedie/kernels/cuda/mlp_forward.h"
#include "tweedie/kernels/reference/mlp_divergence.h"
#include "tweedie/kernels/reference/mlp_forward.h"

namespace tweedie::testing {

class ReferenceDevice final : public kernels::cuda::Device {
 public:
  bool chains = true;                                 // what takes_chain() says
  int forwards = 0, chain_runs = 0, derivatives = 0;  // calls with rows
  int blocks = 0;                                     // of memory that are held

  const std::string& name() const override { return name_; }
  void* allocate(std::size_t bytes) override {
    ++blocks;
    return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  }
  void release(void* memory) noexcept override {
    --blocks;
    std::free(memory);
  }
  void upload(void* to, const void* from, std::size_t bytes) override { copy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { copy(to, from, bytes); }
  void zero(void* to, std::size_t bytes) override { std::memset(to, 0, bytes); }
  void synchronize() override {}

  void mlp_forward(const kernels::cuda::MlpForwardInput& in, kernels::Precision) override {
    kernels::cuda::check_mlp("reference mlp_forward", in.net);
    if (in.batch == 0) return;
    ++forwards;
    std::vector<int> level(static_cast<std::size_t>(in.batch), in.common_level);
    if (in.level != nullptr) level.assign(in.level, in.level + in.batch);
    const std::vector<double> f = forward(in.net, in.batch, in.x, level);
    std::copy(f.begin(), f.end(), in.out);
  }

  std::unique_ptr<kernels::cuda::TrainingRun> make_training(const kernels::cuda::TrainingSetup&, kernels::Precision) override {
    fail("reference device: it trains nothing; the host executor does (device_trainer_test.cpp)");
  }

  bool takes_chain(const kernels::Mlp&, kernels::Precision) const override { return chains; }
  void sample_chain(const kernels::cuda::ChainInput& in, kernels::Precision) override {
    check(chains, "reference sample_chain: this one runs none");
    ++chain_runs;
    const Index dim = in.net.layer[0].in, size = in.batch * dim;
    const auto n = static_cast<std::size_t>(size);
    std::vector<float> memory(n), scaled(n);
    float* const m = in.m == nullptr ? memory.data() : in.m;
    Matrix z(in.batch, dim);
    std::fill_n(in.diverged, in.batch, in.steps);
    for (int t = 0; t < in.steps; ++t) {
      const kernels::cuda::ChainStep& s = in.step[t];
      check(s.level >= 0 && s.level < in.net.levels, "reference sample_chain: level ", s.level, " of ", in.net.levels);
      for (std::size_t i = 0; i < n; ++i) scaled[i] = s.input_scale * in.x[i];
      const std::vector<double> f =
          forward(in.net, in.batch, scaled.data(), std::vector<int>(static_cast<std::size_t>(in.batch), s.level));
      if (s.x_z != 0) Rng(in.key).normals<float>(in.purpose, s.draw, in.first_row, z);
      for (Index i = 0; i < size; ++i) {
        const double x = static_cast<double>(in.x[i]), old = static_cast<double>(m[i]), at = f[static_cast<std::size_t>(i)];
        const double noise = s.x_z != 0 ? wide(s.x_z) * static_cast<double>(z.data()[i]) : 0;
        in.x[i] = static_cast<float>(wide(s.x_x) * x + wide(s.x_f) * at + wide(s.x_m) * old + noise);
        m[i] = static_cast<float>(wide(s.m_x) * x + wide(s.m_f) * at + wide(s.m_m) * old);
        int& diverged = in.diverged[i / dim];
        if (!(std::abs(in.x[i]) <= in.bound)) diverged = std::min(diverged, t);
      }
    }
  }

  void mlp_divergence(const kernels::cuda::MlpDivergenceInput& in) override {
    if (in.batch == 0) return;
    ++derivatives;
    std::vector<int> level;
    for (Index b = 0; b < in.batch; ++b) {
      level.push_back(in.level != nullptr ? in.level[b] : static_cast<int>(std::min<Index>(b, in.net.levels - 1)));
    }
    kernels::reference::mlp_divergence(in.net, in.batch, in.x, level.data(), in.probe, in.out, in.jvp, in.divergence);
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  static double wide(float v) { return static_cast<double>(v); }

  static std::vector<double> forward(const kernels::Mlp& net, Index batch, const float* x, const std::vector<int>& level) {
    const std::vector<double> from(x, x + batch * net.layer[0].in);
    std::vector<double> out(static_cast<std::size_t>(batch * net.layer[net.layers - 1].out));
    kernels::reference::mlp_forward(net, batch, from.data(), level.data(), out.data());
    return out;
  }

  std::string name_ = "reference:0, loops on the host";
};

}  // namespace tweedie::testing
