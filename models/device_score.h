// device_score.h - a network's score computed on a device.
//
//   const std::unique_ptr<ScoreModel> score = on_device(net, "cuda");
//   const Samples a = annealed_langevin(*score, *net.levels(), {.samples = 1 << 20}, rng.split());
//
// The networks that are one perceptron: NoiseConditionalScoreNetwork and ContinuousScoreNetwork with Architecture::mlp, with or
// without conditions. What depends on the noise and the condition alone (embeddings, the first bias, the preconditioning) is
// computed on the host in double; the device has the products. score() in float is kernels::cuda::Device::mlp_forward in the
// precision asked for; in double score(), jvp() and divergence() are Device::mlp_divergence, always in fp64. run_chain() is
// Device::sample_chain: the samplers whose steps are linear (Langevin, annealed Langevin, DDIM, DDPM, reverse SDE, Heun,
// DPM-Solver++; float) run there with one launch for all their steps, or for those between two states of a trajectory. The
// chapter's network does so at its own levels alone, since between them one evaluation is two of the perceptron. Everything
// else, the likelihood among it, evaluates call by call.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string>

#include "tweedie/kernels/kernels.h"
#include "tweedie/models/network.h"

namespace tweedie {

/// A copy of the network as it is now, on device "cuda" (the first) or "cuda:N". Noise is the host's bit for bit; scores agree
/// with the network's own within the precision's rounding. Safe to call from many threads, which take turns. Throws UsageError
/// for a residual or an energy network, for sizes that the kernels do not take and for another device's name; ResourceError where
/// there is no such device or not enough memory. The model has no vjp() (posterior samplers): those calls throw UsageError.
TWEEDIE_API std::unique_ptr<ScoreModel> on_device(const Network& network, const std::string& device,
                                                  kernels::Precision precision = kernels::Precision::fp32);

}  // namespace tweedie
