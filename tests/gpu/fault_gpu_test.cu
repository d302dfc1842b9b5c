// fault_gpu_test.cu - a kernel that faults: one message that names it and says that the process is over for the device. It is a
// file of its own because nothing can be run on the device after it. SPDX-License-Identifier: MIT
#include "gpu_testing.h"
#include "tweedie/kernels/cuda/cuda_runtime.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

namespace {

struct WriteNowhere {
  float* x;
  template <class Ctx>
  TWEEDIE_KERNEL void operator()(Ctx&) const {
    *x = 1;
  }
};

}  // namespace

TEST_CASE("gpu fault: a write outside of all memory is a ResourceError with a remedy, then and afterwards") {
  if (!have_gpu()) return;
  cuda::CudaRuntime runtime(0);
  runtime.launch("write_nowhere", 1, 1, 0, WriteNowhere{reinterpret_cast<float*>(std::uintptr_t{0x10})});
  for (int i = 0; i < 2; ++i) {
    std::string message = "no error";
    try {
      runtime.synchronize();
    } catch (const ResourceError& error) {
      message = error.what();
    }
    CHECK_MESSAGE(message.find("write_nowhere") != std::string::npos, message);
    CHECK_MESSAGE(message.find("start it again") != std::string::npos, message);
  }
}
