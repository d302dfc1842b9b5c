// SPDX-License-Identifier: MIT
#include "tweedie/samplers/schedule.h"

#include <cmath>
#include <numbers>

namespace tweedie {

namespace {

/// Equidistant in w between w(sigma_max) and w(sigma_min); the ends pinned.
template <class Warp, class Inverse>
std::vector<double> equidistant(const char* name, Index points, double sigma_min, double sigma_max, bool end_at_zero,
                                const Warp& w, const Inverse& inverse) {
  check(points >= 2, name, ": points = ", points, " must be at least 2, the two ends");
  check(sigma_min > 0 && sigma_min < sigma_max && std::isfinite(sigma_max), name, ": sigma_min = ", sigma_min,
        " and sigma_max = ", sigma_max, " must be positive, finite and rising");
  const double first = w(sigma_max), last = w(sigma_min);
  std::vector<double> sigmas{sigma_max};
  for (Index i = 1; i < points; ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(points - 1);
    const double sigma = i == points - 1 ? sigma_min : inverse(first + part * (last - first));
    check(sigma < sigmas.back() && sigma >= sigma_min, name, ": level ", i, " of ", points, ", ", sigma,
          ", does not fall between its neighbours; use fewer points or a wider range");
    sigmas.push_back(sigma);
  }
  if (end_at_zero) sigmas.push_back(0);
  return sigmas;
}

}  // namespace

std::vector<double> geometric_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero) {
  return equidistant(
      "geometric_schedule", points, sigma_min, sigma_max, end_at_zero, [](double s) { return std::log(s); },
      [](double w) { return std::exp(w); });
}

std::vector<double> karras(Index points, double sigma_min, double sigma_max, double rho, bool end_at_zero) {
  check(rho > 0 && std::isfinite(rho), "karras: rho = ", rho, " must be positive and finite; the paper's is 7");
  return equidistant(
      "karras", points, sigma_min, sigma_max, end_at_zero, [rho](double s) { return std::pow(s, 1 / rho); },
      [rho](double w) { return std::pow(w, rho); });
}

std::vector<double> linear_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero) {
  return equidistant(
      "linear_schedule", points, sigma_min, sigma_max, end_at_zero, [](double s) { return s; }, [](double w) { return w; });
}

std::vector<double> cosine_schedule(Index points, double sigma_min, double sigma_max, bool end_at_zero) {
  // u = (t + .008) / 1.008 pi/2 is linear in t. alpha_bar = cos^2 u / cos^2 u0 = 1 / (1 + sigma^2), so
  // sin^2 u = sin^2 u0 + cos^2 u0 sigma^2 / (1 + sigma^2) and sigma^2 = sin(u - u0) sin(u + u0) / cos^2 u, both without
  // cancellation.
  constexpr double kOffset = .008;
  const double u0 = kOffset / (1 + kOffset) * std::numbers::pi / 2;
  return equidistant(
      "cosine_schedule", points, sigma_min, sigma_max, end_at_zero,
      [u0](double s) { return std::atan2(std::hypot(s, std::sin(u0)), std::cos(u0)); },
      [u0](double u) { return std::sqrt(std::sin(u - u0) * std::sin(u + u0)) / std::cos(u); });
}

std::vector<double> time_schedule(const Process& process, Index points, bool end_at_zero) {
  return equidistant(
      "time_schedule", points, process.ratio(process.t_min_sampling()), process.ratio(process.t_max()), end_at_zero,
      [&](double s) { return process.time_of(s); }, [&](double t) { return process.ratio(t); });
}

std::vector<double> schedule(std::string_view name, Index points, double sigma_min, double sigma_max, bool end_at_zero) {
  if (name == "geometric") return geometric_schedule(points, sigma_min, sigma_max, end_at_zero);
  if (name == "karras") return karras(points, sigma_min, sigma_max, 7, end_at_zero);
  if (name == "linear") return linear_schedule(points, sigma_min, sigma_max, end_at_zero);
  if (name == "cosine") return cosine_schedule(points, sigma_min, sigma_max, end_at_zero);
  fail("schedule '", name, "' is unknown; choose one of: geometric, karras, linear, cosine");
}

}  // namespace tweedie
