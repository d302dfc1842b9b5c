// device_score.h - on_device() for a device at hand.
// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "tweedie/kernels/cuda/device.h"
#include "tweedie/models/network.h"

namespace tweedie::detail {

std::unique_ptr<ScoreModel> on_device(const Network& network, std::shared_ptr<kernels::cuda::Device> device,
                                      kernels::Precision precision);

}  // namespace tweedie::detail
