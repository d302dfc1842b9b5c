// mixture.cpp - the README's program: train the chapter's network on the tutorial's mixture, sample it, compare with the truth.
// SPDX-License-Identifier: MIT
#include <tweedie/tweedie.h>

#include <cstdio>

using namespace tweedie;

int main() {
  Rng rng{42};
  const GaussianMixture truth = GaussianMixture::tutorial();        // three anisotropic Gaussians in the plane
  const Matrix data = datasets::three_gaussians(300, rng.split());  // (300, 2)

  const NoiseLevels levels = NoiseLevels::geometric(10, .01, 10);  // sigma_max, sigma_min, L
  ScoreNetwork net({.data_dim = 2, .hidden_dim = 128, .num_layers = 4}, levels, rng.split());
  train(net, data, {.steps = 2000, .batch = 128, .ema = .999, .log_every = 500}, rng.split(),
        [](const TrainingStep& s) { std::printf("step %4lld  loss %.3f\n", static_cast<long long>(s.step), s.smoothed_loss); });

  // A sampler knows only a score: a network, an exact mixture, your lambda.
  const Samples learned = annealed_langevin(net, levels, {.samples = 1000, .step_size_factor = .5}, rng.split());
  const Samples exact = annealed_langevin(truth, levels, {.samples = 1000, .step_size_factor = .5}, rng.split());
  const Matrix fresh = truth.sample(1000, rng.split());
  std::printf("energy distance to fresh draws: network %.4f, exact score %.4f\n", energy_distance(learned.x, fresh),
              energy_distance(exact.x, fresh));
  save("mixture.safetensors", net);
}
