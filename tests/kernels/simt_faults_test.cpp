// simt_faults_test.cpp - faults planted in the device kernels, one at each place where it can stand, and each caught: by the
// executor (KernelFault) or by the comparison that the kernel's own test makes, in one of the three thread orders.
//
// `kernels_tests --source-file=*simt_faults* -s` lists them with how each was caught. SPDX-License-Identifier: MIT
#include <functional>

#include "simt_accept.h"
#include "simt_faulty.h"

using namespace tweedie;
using namespace tweedie::kernels;
using namespace tweedie::kernels::testing;
using cuda::Products;
using simt::Order;

namespace {

/// A kernel's acceptance at one shape: its error as a share of the bound, above 1 where it is wrong.
using Trial = std::function<double(const FaultyLaunch&)>;

/// How the fault shows, "" where it does not.
std::string caught(Planted& planted, const std::vector<Trial>& trials) {
  for (const Trial& trial : trials) {
    for (const Order order : simt::kAllOrders) {
      try {
        const double share = trial({order, &planted});
        if (!(share <= 1)) return join("comparison: ", share, " of the bound, order ", static_cast<int>(order));
      } catch (const simt::KernelFault& fault) {
        return join("executor: ", fault.what());
      }
    }
  }
  return "";
}

/// Plants every fault at every site of the kernels that the trials run.
void plant_everywhere(const std::vector<Trial>& trials) {
  Planted clean;
  CHECK(caught(clean, trials) == "");
  int count = 0;
  for (const Site& site : clean.seen) {
    for (const auto& each : all_faults()) {
      if (each.first != site.operation) continue;
#ifdef TWEEDIE_SIMT_ASAN  // a wrong index may leave its array: AddressSanitizer ends the process at the access
      if (site.operation >= Operation::thread && site.operation <= Operation::stride) continue;
#endif
      Planted planted{each.second, site};
      const std::string how = caught(planted, trials);
      if (!planted.applied) continue;  // such a launch has no rows, such a copy no predicate
      ++count;
      const std::string place = site.file.substr(site.file.find_last_of('/') + 1);
      INFO(place, ":", site.line, ": ", each.second, ": ", how);
      CHECK(how != "");
    }
  }
  CHECK(count >= 1);
}

}  // namespace

/// Of a kernel that strides over its elements: by two blocks, so that the stride matters.
template <class Accept>
Trial strided(Accept accept) {
  return [accept](FaultyLaunch launch) {
    launch.most_blocks = 2;
    return accept(launch);
  };
}

TEST_CASE("planted faults: element-wise kernels") {
  plant_everywhere({strided([](auto launch) { return accept_normals(launch, 167, 17); })});
  plant_everywhere({strided([](auto launch) { return accept_langevin(launch, 1100); })});
  plant_everywhere({strided([](auto launch) { return accept_chain_update(launch, 2503, true, true); }),
                    strided([](auto launch) { return accept_chain_update(launch, 1100, true, true, 1); })});
  plant_everywhere({strided([](auto launch) { return accept_perturb(launch, 401, 3); })});
  plant_everywhere({strided([](auto launch) { return accept_adam(launch, 3, 1100); })});
}

TEST_CASE("planted faults: dsm_loss") {
  plant_everywhere({[](const FaultyLaunch& launch) { return accept_dsm_loss(launch, 1367, 3, true); }});
}

TEST_CASE("planted faults: mlp_forward") {
  plant_everywhere({[](const FaultyLaunch& launch) {
    return accept_mlp_forward(launch, 3, {3, 140, 5}, true, kFp32, [](auto l, const auto& k) { cuda::mlp_forward_naive(l, k); });
  }});
  // Single products: nothing averages a wrong rounding out.
  std::vector<Trial> tiled;
  for (const Precision products : {Precision::tf32, Precision::fp32}) {
    tiled.push_back([products](const FaultyLaunch& launch) {
      return accept_mlp_forward(launch, 35, {1, 64}, true, products == Precision::tf32 ? kTf32 : kTf32x3,
                                [products](auto l, const auto& k) { cuda::mlp_forward(l, k, products); });
    });
  }
  for (const bool by_row : {true, false}) {
    tiled.push_back([by_row](const FaultyLaunch& launch) {
      return accept_mlp_forward(launch, 35, {4, 40, 20, 5}, by_row, kTf32x3,
                                [](auto l, const auto& k) { cuda::mlp_forward(l, k, Precision::fp32); });
    });
  }
  plant_everywhere(tiled);
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
