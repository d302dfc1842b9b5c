// minimal_sampler.cpp - a model file in, samples out: what a program that embeds generative sampling has to carry.
//   minimal_sampler MODEL.safetensors COUNT
// SPDX-License-Identifier: MIT
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tweedie/models/checkpoint.h"
#include "tweedie/samplers/annealed_langevin.h"

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "minimal_sampler MODEL.safetensors COUNT\n"), 2;
  try {
    const std::unique_ptr<tweedie::Network> net = tweedie::load_network(argv[1]);
    tweedie::check(net->levels() != nullptr, argv[1], ": the network has no noise levels");
    const tweedie::Matrix x =
        tweedie::annealed_langevin(*net, *net->levels(), {.samples = std::atol(argv[2])}, tweedie::Rng{42}).x;
    for (tweedie::Index r = 0; r < x.rows(); ++r) {
      for (tweedie::Index c = 0; c < x.cols(); ++c) std::printf("%s%.9g", c == 0 ? "" : ",", static_cast<double>(x(r, c)));
      std::printf("\n");
    }
    return 0;
  } catch (const tweedie::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.exit_code();
  }
}
