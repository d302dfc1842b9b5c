// SPDX-License-Identifier: MIT
#include "tweedie/models/datasets.h"

#include <array>
#include <cmath>
#include <numbers>

#include "tweedie/core/parallel.h"

namespace tweedie::datasets {

namespace {

using std::numbers::pi;

struct Point {
  double x, y;
};

// Row i = f(u, z) with u three uniforms and z two normals of its own.
template <class F>
Matrix generate(const char* name, Index n, const Rng& rng, const F& f) {
  check(n >= 0, "datasets::", name, ": n = ", n, " is negative");
  Matrix out(n, 2);
  parallel_for(n, 1024, [&](Index begin, Index end) {
    MatrixD u(end - begin, 3), z(end - begin, 2);
    rng.uniforms<double>(Purpose::dataset, 0, static_cast<std::uint64_t>(begin), u, 0);
    rng.normals<double>(Purpose::dataset, 0, static_cast<std::uint64_t>(begin), z, 1);
    for (Index r = begin; r < end; ++r) {
      const Point p = f(&u(r - begin, 0), &z(r - begin, 0));
      out(r, 0) = static_cast<float>(p.x);
      out(r, 1) = static_cast<float>(p.y);
    }
  });
  return out;
}

struct Entry {
  const char* name;
  Matrix (*draw)(Index, const Rng&);
  GaussianMixture (*oracle)();  // nullptr where the distribution is no mixture of Gaussians
};

constexpr std::array<Entry, 8> kEntries{{
    {"three_gaussians", three_gaussians, GaussianMixture::three_gaussians},
    {"three_gaussians_unequal", three_gaussians_unequal, GaussianMixture::three_gaussians_unequal},
    {"two_mode", two_mode, GaussianMixture::two_mode},
    {"eight_gaussians", eight_gaussians, GaussianMixture::eight_gaussians},
    {"moons", two_moons, nullptr},
    {"checkerboard", checkerboard, nullptr},
    {"swiss_roll", swiss_roll, nullptr},
    {"rings", rings, nullptr},
}};

const Entry& find(std::string_view name) {
  if (name == "tutorial") name = "three_gaussians";
  if (name == "two_moons") name = "moons";
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return entry;
  }
  std::string known;
  for (const Entry& entry : kEntries) known += join(known.empty() ? "" : ", ", entry.name);
  fail("datasets: no distribution is called '", name, "'; choose one of ", known);
}

}  // namespace

Matrix three_gaussians(Index n, const Rng& rng) { return GaussianMixture::three_gaussians().sample(n, rng); }
Matrix three_gaussians_unequal(Index n, const Rng& rng) { return GaussianMixture::three_gaussians_unequal().sample(n, rng); }
Matrix two_mode(Index n, const Rng& rng) { return GaussianMixture::two_mode().sample(n, rng); }
Matrix eight_gaussians(Index n, const Rng& rng) { return GaussianMixture::eight_gaussians().sample(n, rng); }

Matrix two_moons(Index n, const Rng& rng) {
  return generate("two_moons", n, rng, [](const double* u, const double* z) -> Point {
    const double a = pi * u[0];
    if (u[1] > .5) return {1 - std::cos(a) + .1 * z[0], .5 - std::sin(a) + .1 * z[1]};
    return {std::cos(a) + .1 * z[0], std::sin(a) + .1 * z[1]};
  });
}

Matrix checkerboard(Index n, const Rng& rng) {
  return generate("checkerboard", n, rng, [](const double* u, const double*) -> Point {
    // u in (0, 1]: 1 - u keeps the fields half open to the right. Column c takes its dark rows c % 2 and c % 2 + 2.
    const double x = 4 * (1 - u[0]), y = 1 - u[1];
    const double row = std::fmod(std::floor(x), 2) + (u[2] > .5 ? 2 : 0);
    return {2 * x - 4, 2 * (row + y) - 4};
  });
}

Matrix swiss_roll(Index n, const Rng& rng) {
  return generate("swiss_roll", n, rng, [](const double* u, const double* z) -> Point {
    const double a = 1.5 * pi * (1 + 2 * u[0]);
    return {(a * std::cos(a) + z[0]) / 5, (a * std::sin(a) + z[1]) / 5};
  });
}

Matrix rings(Index n, const Rng& rng) {
  return generate("rings", n, rng, [](const double* u, const double* z) -> Point {
    const double radius = .75 * std::ceil(4 * u[1]), a = 2 * pi * u[0];
    return {radius * std::cos(a) + .08 * z[0], radius * std::sin(a) + .08 * z[1]};
  });
}

const std::vector<std::string>& names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> list;
    for (const Entry& entry : kEntries) list.emplace_back(entry.name);
    return list;
  }();
  return all;
}

Matrix make(std::string_view name, Index n, const Rng& rng) {
  check(n >= 0, "datasets::make: n = ", n, " is negative");
  return find(name).draw(n, rng);
}

std::optional<GaussianMixture> oracle(std::string_view name) {
  const Entry& entry = find(name);
  if (entry.oracle == nullptr) return std::nullopt;
  return entry.oracle();
}

}  // namespace tweedie::datasets
