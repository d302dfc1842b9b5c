// tweedie demo: its table, figures and summary; every sampler of the program, from the exact score and from a network.
// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "program.h"
#include "tweedie/cli/sampling.h"

using namespace tweedie::testing;

TEST_CASE("the demo leaves its table, figures and summary") {
  const Folder folder;
  const Outcome r = tweedie::testing::tweedie(folder, "demo -o d --steps 4 -n 60");
  REQUIRE_MESSAGE(r.code == 0, r.err);
  for (const char* part : {"Score error", "mode weights", "Memorisation", "energy distance", "zero network", "Every sampler",
                           "needs a density", "KL(truth || network)"}) {
    CHECK_MESSAGE(contains(r.out, part), part);
  }
  const Json json = Json::parse(read(folder / "d/summary.json"));
  CHECK(json["samples"]["network"]["mode_weights"].items.size() == 3);
  for (const Json& file : json["files"].items) CHECK_FALSE(read(folder / "d/" + file.text).empty());

  // Each of the program's samplers, and with the exact score alone its samples are true ones but for chance: a sum of chi-squared
  // variables is beyond four times its 99th percentile with a probability of 3e-7 at most. Single-level Langevin keeps its
  // starts' weights.
  const Json& samplers = json["samplers"];
  CHECK(samplers.members.size() >= tweedie::cli::sampler_names().size() + 2);  // heun with churn, ddim with eta = 1
  for (const std::string& name : tweedie::cli::sampler_names()) {
    REQUIRE_MESSAGE(samplers.members.count(name) == 1, "the demo does not show ", name);
    CHECK((samplers[name].members.count("network") == 1) == (name != "mala"));
#ifdef TWEEDIE_HAVE_PLOTS
    CHECK_FALSE(read(folder / "d/sampler_" + name + ".png").empty());
#endif
  }
  for (const auto& member : samplers.members) {
    const std::string& name = member.first;
    const Json& exact = member.second["exact"];
    CHECK(exact["rows"].number == 60);
    CHECK(exact["evaluations"].number >= 50);
    if (name == "langevin") continue;
    CHECK_MESSAGE(exact["energy_distance"].number < 4 * exact["null_99"].number, name);
  }
  // -E log p of the mixture: the components' mean entropy + ln 3 = 2.308, less .001 for their overlap; log p deviates by 1.02.
  CHECK(std::abs(json["log_density"]["exact"].number + 2.307) < 5 * 1.02 / std::sqrt(500.));
  CHECK(json["log_density"]["kl"].number > 10 * json["log_density"]["standard_error"].number);  // four steps of training
}
