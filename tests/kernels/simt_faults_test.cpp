// simt_faults_test.cpp - faults planted in the device kernels, one at each place where it can stand, and each caught: by the
// executor (KernelFault) or by the comparison that the kernel's own test makes, in one of the three thread orders.
//
// `kernels_tests --source-file=*simt_faults* -s` lists them with how each was caught. SPDX-License-Identifier: MIT
#include "simt_accept.h"
#include "simt_faulty.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;

TEST_CASE("planted faults: element-wise kernels") {
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_normals(launch, 167, 17); }});
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_langevin(launch, 1100); }});
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_chain_update(launch, 2503, true, true); },
                    [](const FaultyLaunch& launch) { return accept_chain_update(launch, 1100, true, true, 1); }});
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_perturb(launch, 401, 3); }});
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_adam(launch, 3, 1100); }});
}

TEST_CASE("planted faults: dsm_loss") {
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_dsm_loss(launch, 1367, 3, true); }});
}

TEST_CASE("planted faults: mlp_forward_naive") {
  plant_everywhere({[](const FaultyLaunch& launch) {
    return accept_mlp_forward(launch, 3, {3, 140, 5}, true, kFp32, [](auto l, const auto& k) { cuda::mlp_forward_naive(l, k); });
  }});
}

TEST_CASE("planted faults: mlp_divergence") {
  const auto trial = [](Index batch, const std::vector<int>& sizes, bool with_probe, int skew, auto kernel) -> Trial {
    return [=](const FaultyLaunch& launch) {
      const TestNetD t(sizes, 3, skew);
      DivergenceRows rows(t, batch, with_probe, with_probe);
      kernel(launch, rows.input);
      return rows.share(DivergenceReference(rows.input));
    };
  };
  const auto naive = [](const FaultyLaunch& l, const auto& k) { cuda::mlp_divergence_naive(l, k); };
  const auto fast = [](const FaultyLaunch& l, const auto& k) { cuda::mlp_divergence(l, k); };
  plant_everywhere({trial(3, {3, 140, 3}, false, 0, naive), trial(2, {3, 9, 3}, true, 0, naive)});
  plant_everywhere({trial(3, {30, 22, 70, 30}, false, 0, fast), trial(30, {3, 12, 9, 3}, true, 1, fast)});
}
