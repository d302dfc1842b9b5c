// host_device.h - the mark of functions that CUDA compiles for both sides; nothing for other compilers.
// SPDX-License-Identifier: MIT
#pragma once

#ifdef __CUDACC__
#define TWEEDIE_HOST_DEVICE __host__ __device__
#else
#define TWEEDIE_HOST_DEVICE
#endif
