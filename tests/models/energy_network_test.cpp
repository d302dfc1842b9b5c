// energy_network_test.cpp - the score is the energy's gradient: gradients, symmetry, training, files.
// SPDX-License-Identifier: MIT
#include "tweedie/models/energy_network.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tweedie/autodiff/gradient_check.h"
#include "tweedie/autodiff/ops.h"
#include "tweedie/core/parallel.h"
#include "tweedie/models/checkpoint.h"
#include "tweedie/models/datasets.h"
#include "tweedie/models/fisher_divergence.h"
#include "tweedie/models/trainer.h"

using namespace tweedie;

namespace {

template <class S>
MatrixX<S> normal_matrix(Index rows, Index cols, std::uint64_t seed) {
  MatrixX<S> m(rows, cols);
  Rng(seed).normals(Purpose::user, 0, 0, m.view());
  return m;
}

std::unique_ptr<EnergyNetwork> make(Architecture architecture, Index dim = 3) {
  auto net = std::make_unique<EnergyNetwork>(ContinuousNetworkOptions{.data_dim = dim,
                                                                      .hidden_dim = 6,
                                                                      .num_layers = architecture == Architecture::mlp ? 3 : 1,
                                                                      .architecture = architecture,
                                                                      .num_frequencies = 3,
                                                                      .embedding_dim = 4,
                                                                      .num_classes = 3},
                                             Rng(1));
  for (Index t = 0; t < net->layout().count(); ++t) {
    const Rows<float> rows = view(net->layout()[t], net->parameters().data());
    Rng(7).normals(Purpose::user, 1, 0, rows, static_cast<std::uint32_t>(t));
    for (float& v : std::span(rows.data(), static_cast<std::size_t>(rows.size()))) v *= .5f;
  }
  net->parameters_changed();
  return net;
}

const Architecture kBoth[] = {Architecture::mlp, Architecture::residual};

}  // namespace

TEST_CASE("every gradient of an energy's score, first and second order, against differences") {
  for (const Architecture architecture : kBoth) {
    const auto net = make(architecture, 2);
    const std::vector<double> sigma = {.002, .3, 80};
    const std::vector<std::int32_t> labels = {0, 2, 1}, dropped = {0, 0, 1};
    const NoiseInput<double> noise{sigma, {}, labels, {}, dropped};
    const auto f = [&](std::span<const VarD> v) {
      std::vector<VarD> p;
      for (const ParameterTensor& t : net->layout()) p.push_back(reshape(slice_cols(v[1], t.offset, t.size()), t.rows, t.cols));
      return net->scaled_score(v[0].tape(), p, v[0], noise);
    };
    MatrixD flat(1, net->layout().size());
    std::copy(net->parameters().begin(), net->parameters().end(), flat.data());
    const MatrixD x = normal_matrix<double>(3, 2, 3);
    const GradientReport first = check_gradient(f, {x, flat});
    CAPTURE(first.worst);
    CHECK(first.error < 1e-7);
    CHECK(first.entries == 2 * 6 * (6 + flat.size()));
    if (architecture == Architecture::residual) continue;  // the same code; its many parameters make this one slow
    const GradientReport second = check_second_order(f, {x, flat});
    CAPTURE(second.worst);
    CHECK(second.error < 1e-7);
  }
}

TEST_CASE("the score is the energy's gradient, and free of curl") {
  for (const Architecture architecture : kBoth) {
    const auto net = make(architecture);
    const Index rows = 70, dim = 3;
    const MatrixD y = normal_matrix<double>(rows, dim, 2), v = normal_matrix<double>(rows, dim, 3);
    const std::vector<std::int32_t> labels = {1};
    const Condition condition{labels, {}};
    for (const Condition* c : {static_cast<const Condition*>(nullptr), &condition}) {
      for (const double sigma : {.0625, 1., 20.}) {  // floats too
        MatrixD score(rows, dim), s(rows, dim), jv(rows, dim), vj(rows, dim), moved = y;
        net->score(y, std::span(&sigma, 1), c, score);
        CHECK(net->has_energy());
        CHECK_FALSE(net->has_log_density());
        // Five points: h^4/30 of a fifth derivative, which reaches 1e7 here (h = 1e-3 errs by 4e-7, measured: 3e-9 at this h);
        // rounding u |log p| / h, |log p| within 1e3 / sigma: 4e-10 / sigma.
        const double h = 3e-4;
        std::vector<double> at(static_cast<std::size_t>(rows));
        for (Index d = 0; d < dim; ++d) {
          std::vector<double> slope(static_cast<std::size_t>(rows), 0.);
          for (const double step : {-2., -1., 1., 2.}) {
            for (Index b = 0; b < rows; ++b) moved(b, d) = y(b, d) + step * h;
            net->energy(moved, std::span(&sigma, 1), c, at);
            const double w = (std::abs(step) == 1 ? 8. : -1.) * (step > 0 ? 1 : -1) / (12 * h);
            for (std::size_t b = 0; b < at.size(); ++b) slope[b] += w * at[b];
          }
          double worst = 0;
          for (Index b = 0; b < rows; ++b) {
            moved(b, d) = y(b, d);
            worst = std::max(worst, std::abs(slope[static_cast<std::size_t>(b)] - score(b, d)));
          }
          CHECK(worst * sigma < 2e-8);
        }
        net->jvp(y, std::span(&sigma, 1), c, v, s, jv);
        net->vjp(y, std::span(&sigma, 1), c, v, s, vj);
        double curl = 0, largest = 0;
        for (Index i = 0; i < jv.size(); ++i) {
          curl = std::max(curl, std::abs(jv.data()[i] - vj.data()[i]));
          largest = std::max(largest, std::abs(jv.data()[i]));
        }
        CHECK(curl < 1e-12 * largest);
        const Matrix y_f(y.view());
        Matrix score_f(rows, dim);
        const float sigma_f = static_cast<float>(sigma);
        net->score(y_f, std::span(&sigma_f, 1), c, score_f);
        for (Index i = 0; i < score.size(); ++i) {
          const double u = score.data()[i] * sigma;
          CHECK(std::abs(static_cast<double>(score_f.data()[i]) * sigma - u) < 1e-5 * std::max(1., std::abs(u)));
        }
      }
    }
    const std::vector<double> few(2);
    std::vector<double> out(2);
    const double one = 1, beyond = 81;
    CHECK_THROWS_AS(net->energy(y, std::span(&one, 1), nullptr, out), UsageError);
    std::vector<double> enough(static_cast<std::size_t>(rows));
    CHECK_THROWS_AS(net->energy(y, std::span(&beyond, 1), nullptr, enough), UsageError);
  }
}

TEST_CASE("an energy learns by denoising score matching") {
  const GaussianMixture oracle = GaussianMixture::two_mode();
  const Matrix data = oracle.sample(2000, Rng(3));
  const ContinuousNetworkOptions options{
      .data_dim = 2, .hidden_dim = 32, .num_layers = 3, .sigma_min = .1, .sigma_max = 10, .sigma_data = data_deviation(data)};
  EnergyNetwork net(options, Rng(1));
  const NoiseLevels levels = NoiseLevels::geometric(10, .1, 5);
  const auto error = [&] { return fisher_divergence(net, oracle, levels, {.draws = 500}, Rng(5)).mean_error; };
  const double before = error();
  train(net, data, {.steps = 300, .batch = 128, .learning_rate = 3e-3, .ema = .9, .sigma_sampling = SigmaSampling::continuous},
        Rng(2));
  const double after = error();
  MESSAGE("mean error of the linear score ", before, ", after 300 steps ", after);
  CHECK(after < .25 * before);
}

TEST_CASE("an energy network comes back from its file, and files that are none are refused") {
  for (const Architecture architecture : kBoth) {
    const auto net = make(architecture);
    const std::string path = join("energy_network_test_", getpid(), ".safetensors");
    save(path, *net);
    const std::unique_ptr<Network> loaded = load_network(path), clone = net->clone();
    std::remove(path.c_str());
    const MatrixD y = normal_matrix<double>(5, 3, 2);
    const double sigma = .3;
    std::vector<double> a(5), b(5);
    net->energy(y, std::span(&sigma, 1), nullptr, a);
    for (const Network* other : {loaded.get(), clone.get()}) {
      CHECK(other->config() == net->config());
      CHECK(std::string(other->name()) == "energy_network");
      other->energy(y, std::span(&sigma, 1), nullptr, b);
      CHECK(a == b);
    }
    Checkpoint bad = make_checkpoint(*net);
    bad.config["parametrisation"] = "v";
    CHECK_THROWS_AS(make_network(bad), ModelFileError);
    bad = make_checkpoint(*net);
    bad.tensors.erase("sigma_embedding.frequencies");
    CHECK_THROWS_AS(make_network(bad), ModelFileError);
  }
  CHECK_THROWS_AS(EnergyNetwork({.data_dim = 2, .parametrisation = Parametrisation::x0}, Rng(1)), UsageError);
}
