// simt_faults_slow_test.cpp - simt_faults_test.cpp's faults in the larger kernels: packed weights, the chain, training, sm_90a.
// SPDX-License-Identifier: MIT
#include "simt_accept.h"
#include "simt_faulty.h"
#include "simt_gradient_testing.h"
#include "tweedie/kernels/cuda/device_training.h"
#include "tweedie/kernels/cuda/mlp_forward_sm90.h"
#include "tweedie/kernels/cuda/sample_chain.h"
#include "tweedie/kernels/simt/runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using simt::Order;

namespace {

/// A chain has the bits of its steps taken one by one, with the host's normals (chain_update's arithmetic).
template <class Launch, class Chain>
double accept_chain(Launch launch, Index batch, const std::vector<int>& sizes, Precision precision, Chain chain) {
  const TestNet t(sizes, 3);
  Mlp net = t.net;
  net.scale = nullptr;
  const std::vector<cuda::ChainStep> steps = {{0, .7f, .9f, .1f, 0, .5f, 1, .5f, 0, 3},
                                              {1, .8f, .8f, .3f, -.1f, .2f, 1, .4f, 0, 9},
                                              {2, .9f, .7f, .5f, -.2f, 0, 1, .3f, .05f, 0}};
  constexpr float kBound = 50;
  constexpr std::uint64_t kKey = 77, kFirstRow = (std::uint64_t{1} << 33) + 5;
  const Index dim = sizes[0];
  std::vector<float> x = uniform<float>(batch * dim, 3), m = uniform<float>(batch * dim, 4), input(x.size()), f(x.size());
  x[x.size() - 1] = 80;  // leaves the bound at once
  std::vector<int> first(static_cast<std::size_t>(batch), static_cast<int>(steps.size()));
  Fenced<float> found_x(x), found_m(m);
  Fenced<int> diverged(batch);
  Scratch scratch(cuda::mlp_forward_scratch_bytes(t.net, precision)), own(cuda::sample_chain_scratch_bytes(t.net, precision));
  Matrix z(batch, dim);
  for (const cuda::ChainStep& step : steps) {
    for (std::size_t i = 0; i < x.size(); ++i) input[i] = step.input_scale * x[i];
    cuda::mlp_forward(host(Order::forward), {net, batch, input.data(), nullptr, step.level, f.data()}, precision,
                      scratch.resources);
    Rng(kKey).normals<float>(Purpose::langevin, step.draw, kFirstRow, z);
    for (std::size_t i = 0; i < x.size(); ++i) {
      cuda::chain_update_one(step, f[i], step.x_z != 0 ? z.data()[i] : 0, x[i], m[i]);
      int& at = first[i / static_cast<std::size_t>(dim)];
      if (!(std::fabs(x[i]) <= kBound)) at = std::min(at, static_cast<int>(&step - steps.data()));
    }
  }
  chain(launch,
        cuda::ChainInput{t.net, batch, static_cast<int>(steps.size()), steps.data(), Purpose::langevin, kKey, kFirstRow,
                         found_x.data(), found_m.data(), kBound, diverged.data()},
        own.resources);
  const bool right = same_bits(found_x.values(), x) && same_bits(found_m.values(), m) && diverged.values() == first;
  return right && found_x.intact() && found_m.intact() && diverged.intact() ? 0 : HUGE_VAL;
}

/// Launches fail as planned.
class FaultyRuntime : public simt::SimtRuntime {
 public:
  explicit FaultyRuntime(const FaultyLaunch& launch) : SimtRuntime(launch.order), planted_(launch.planted) {}
  template <class Body>
  void launch(const char* kernel, int grid, int block, int shared_bytes, const Body& body) {
    const auto to = [this](const char* k, int g, int b, int bytes, const auto& faulty) {
      this->SimtRuntime::launch(k, g, b, bytes, faulty);
    };
    launch_faulty(to, planted_, kernel, grid, block, shared_bytes, body);
  }

 private:
  Planted* planted_;
};

/// mlp_forward with packed weights, and the chain over the same tile: what averages out in the one shows in the other's bits.
template <Precision One, Precision Split>
void plant_in_packed() {
  const auto forward = [](Index batch, const std::vector<int>& sizes, bool by_row, auto precision) -> Trial {
    return [=](const FaultyLaunch& launch) {
      return accept_mlp_forward(launch, batch, sizes, by_row, accuracy_in(precision.value), [&](auto l, const auto& k) {
        Scratch scratch(cuda::mlp_forward_scratch_bytes(k.net, precision.value));
        cuda::mlp_forward(l, k, precision.value, scratch.resources);
      });
    };
  };
  const auto blocks = [](const FaultyLaunch& launch) {
    return accept_chain(launch, 67, {5, 72, 50, 5}, Split, [](auto l, const auto& k, const auto& resources) {
      const cuda::PackedMlp packed = cuda::pack_mlp<Split>("test", l, k.net, resources);
      CHECK(cuda::sample_chain_blocks<cuda::BlockTileNarrow, Split>(l, k, packed, resources));
    });
  };
  const auto warps = [](const FaultyLaunch& launch) {  // every warp has a piece of the first layer
    return accept_chain(launch, 11, {5, 136, 40, 5}, Split, [](auto l, const auto& k, const auto& resources) {
      const cuda::PackedMlp packed = cuda::pack_mlp<Split>("test", l, k.net, resources);
      cuda::launch_chain(l, k, cuda::WarpForward<1, Split>{k.net, packed, cuda::MlpUnit<Split>::ld(136), 4});
    });
  };
  using std::integral_constant;
  const integral_constant<Precision, One> one;
  const integral_constant<Precision, Split> split;
  // The next lane belongs to the same row.
  plant_everywhere({forward(35, {1, 64}, true, one), forward(35, {1, 64}, true, split), forward(67, {4, 40, 20, 5}, true, split),
                    forward(35, {3, 72, 80, 5}, false, split), blocks},
                   {{"sample_chain.h", "lane index off by one"}});
  // One warp, the last, draws ahead.
  plant_everywhere({warps},
                   {{"sample_chain.h", "lane index off by one"}, {"sample_chain.h", "thread index off by a warp and a lane"}});
}

}  // namespace

TEST_CASE("planted faults: mlp_forward and sample_chain in fp32") { plant_in_packed<Precision::tf32, Precision::fp32>(); }
TEST_CASE("planted faults: mlp_forward and sample_chain in bf16x3") { plant_in_packed<Precision::bf16, Precision::bf16x3>(); }

TEST_CASE("planted faults: mlp_gradient") {
  const auto trial = [](Index batch, const std::vector<int>& sizes, Precision precision) -> Trial {
    return [=](const FaultyLaunch& launch) {
      const Problem p(batch, sizes, 4, true);
      bool right = true;
      const std::vector<float> found = gradient_of(
          p, launch, [&](auto l, const auto& k) { cuda::mlp_gradient(l, k, precision); },
          cuda::mlp_gradient_workspace_floats(p.t.net, p.rows(false)), right);
      return right ? worst(found, expected(p, precision == Precision::tf32 ? device_gradient::kTf32 : device_gradient::kTf32x3))
                   : HUGE_VAL;
    };
  };
  plant_everywhere({trial(70, {1, 1}, Precision::tf32), trial(70, {1, 1}, Precision::fp32),
                    trial(75, {3, 40, 24, 5}, Precision::fp32), trial(20, {2, 72, 72, 2}, Precision::fp32)},
                   // Half a bit of rounding is within these bounds, which carry the worst of every layer (mlp_forward's trials
                   // see it in split_tf32); the rows are not split.
                   {{"mlp_input.h", "operand truncated"},
                    {"mlp_input.h", "operand of too few bits"},
                    {"mlp_products.h", "operand truncated"},
                    {"mlp_gradient.h", "block index off by one"}});
}

TEST_CASE("planted faults: a training step") {
  // Clean, it is right by simt_training_test.cpp; so its bits are asked for.
  const auto run = [](const FaultyLaunch& launch) {
    cuda::TrainingSetup s;
    s.layers = 3, s.dim = 3, s.hidden = 16, s.levels = 4, s.batch = 70, s.table_rows = 40, s.held_out = 5, s.ema = true;
    s.clip_norm = .5, s.order_key = 11, s.split_key = 22, s.noise_key = 33;
    Index at = 0;
    const auto tensor = [&](Index size) { return std::exchange(at, at + size); };
    s.embedding = tensor(Index{s.levels} * s.hidden);
    for (int i = 0; i < s.layers; ++i) {
      s.weight[i] = tensor(Index{i + 1 == s.layers ? s.dim : s.hidden} * (i == 0 ? s.dim + s.hidden : s.hidden));
      s.bias[i] = tensor(i + 1 == s.layers ? s.dim : s.hidden);
    }
    s.parameters = at;
    const auto table = uniform<float>(s.table_rows * s.dim, 1);
    const std::vector<float> sigma = {2, 1, .5f, .25f}, loss_weight = {1, 2, 3, 4};
    s.table = table.data(), s.sigma = sigma.data(), s.loss_weight = loss_weight.data();
    std::vector<float> p = uniform<float>(at, 2), m(p.size()), v = m, ema = p;
    FaultyRuntime runtime(launch);
    cuda::DeviceTraining<FaultyRuntime> training(runtime, s, Precision::fp32);
    training.upload({p.data(), m.data(), v.data(), ema.data()}, {});
    const std::vector<cuda::TrainingRate> rates(2, {1e-2, .9});
    training.run(rates.data(), 2);
    training.download({p.data(), m.data(), v.data(), ema.data()});
    for (const auto* more : {&m, &v, &ema}) p.insert(p.end(), more->begin(), more->end());
    p.push_back(static_cast<float>(training.progress().loss));
    return p;
  };
  Planted none;
  const std::vector<float> clean = run({Order::forward, &none});
  // A step does not read the losses by row; the rows are not split.
  plant_everywhere({[&](const FaultyLaunch& launch) { return same_bits(run(launch), clean) ? 0 : HUGE_VAL; }},
                   {{"mlp_gradient.h", "lane index off by one"}, {"mlp_gradient.h", "block index off by one"}});
}

TEST_CASE("planted faults: mlp_forward_sm90") {
  // Clean, it has the bits of its arithmetic written plainly (simt_mlp_sm90_test.cpp); so those are asked for.
  const TestNet t({3, 200, 250, 129, 5}, 3);
  const Index batch = 140;
  const auto x = uniform<float>(batch * 3, 7);
  const auto run = [&](const FaultyLaunch& launch) {
    std::vector<unsigned char> packed(static_cast<std::size_t>(cuda::mlp_sm90_packed_bytes(t.net)), 0xFF);
    Fenced<float> out(batch * 5);
    cuda::pack_mlp_sm90(launch, t.net, packed.data());
    cuda::mlp_forward_sm90(launch, {t.net, batch, x.data(), nullptr, 1, out.data()}, packed.data());
    return out.intact() ? out.values() : std::vector<float>();
  };
  Planted none;
  const std::vector<float> clean = run({Order::forward, &none});
  // A turn of the consumers and the producer's warp kept together are for speed; one cluster takes all tiles; two of the
  // mbarriers that it makes are the chain's.
  const std::string file = "mlp_forward_sm90.h";
  plant_everywhere({[&](const FaultyLaunch& launch) { return same_bits(run(launch), clean) ? 0 : HUGE_VAL; }},
                   {{file, "missing wait"},
                    {file, "wait for the other phase"},
                    {file, "missing barrier of a warp"},
                    {file, "an arrival more expected"},
                    {file, "block index off by one"},
                    {file, "stride off by one"}});
}
