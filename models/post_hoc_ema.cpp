// SPDX-License-Identifier: MIT
#include "tweedie/models/post_hoc_ema.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "tweedie/core/eigen_solvers.h"
#include "tweedie/core/parallel.h"

namespace tweedie {

namespace {

constexpr const char* kSteps = "post_hoc.steps";

std::string prefix_of(std::int64_t steps, std::size_t which) { return join("post_hoc.", steps, ".", which, "."); }

// "100 200 300", rising.
std::vector<std::int64_t> parse_steps(const std::string& text) {
  std::vector<std::int64_t> steps;
  const char *at = text.data(), *end = text.data() + text.size();
  while (at != end) {
    std::int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    const bool rising = error == std::errc() && value > (steps.empty() ? 0 : steps.back());
    check<ModelFileError>(rising && (next == end || (*next == ' ' && next + 1 != end)), kSteps, " is '", text,
                          "', expected rising counts; the file is damaged");
    steps.push_back(value);
    at = next == end ? end : next + 1;
  }
  check<ModelFileError>(!steps.empty(), kSteps, " is empty; the file is damaged");
  return steps;
}

}  // namespace

double sigma_rel_of(double gamma) { return std::sqrt(gamma + 1) / ((gamma + 2) * std::sqrt(gamma + 3)); }

double power_of(double sigma_rel) {
  const double widest = sigma_rel_of(0);
  check(sigma_rel > 0 && sigma_rel <= widest * (1 + 1e-12), "power_of: sigma_rel is ", sigma_rel, "; give a width in (0, ",
        widest, "]: .05 to .2 are usual");
  // sigma_rel falls with gamma, and is below 1 / gamma.
  double low = 0, high = 1 / sigma_rel;
  while (true) {
    const double middle = .5 * (low + high);
    if (middle <= low || middle >= high) return low;
    (sigma_rel_of(middle) >= sigma_rel ? low : high) = middle;
  }
}

double inner_product(const PowerProfile& p, const PowerProfile& q) {
  if (p.time > q.time) return inner_product(q, p);
  // int_0^tp (gp + 1)(gq + 1) tau^(gp + gq) / (tp^(gp + 1) tq^(gq + 1)) dtau
  return (p.gamma + 1) * (q.gamma + 1) * std::pow(p.time / q.time, q.gamma) / ((p.gamma + q.gamma + 1) * q.time);
}

ProfileFit fit_profile(std::span<const PowerProfile> stored, const PowerProfile& wanted) {
  check(!stored.empty(), "fit_profile: no profile is stored; take at least one");
  check(wanted.time > 0, "fit_profile: the time wanted is ", wanted.time, "; give a positive one");
  // In units of the time wanted:  A x + m = b,  sum x = 1,  with the multiplier m.
  const auto in_units = [&](const PowerProfile& p) { return PowerProfile{p.gamma, p.time / wanted.time}; };
  const PowerProfile target{wanted.gamma, 1};
  const auto n = static_cast<Index>(stored.size());
  detail::EigenRowMajor<double> system = detail::EigenRowMajor<double>::Zero(n + 1, n + 1);
  Eigen::VectorXd right(n + 1);
  for (Index i = 0; i < n; ++i) {
    const PowerProfile p = in_units(stored[static_cast<std::size_t>(i)]);
    check(p.time > 0, "fit_profile: stored profile ", i, " has the time ", p.time, "; give a positive one");
    for (Index j = 0; j < n; ++j) system(i, j) = inner_product(p, in_units(stored[static_cast<std::size_t>(j)]));
    system(i, n) = system(n, i) = 1;
    right(i) = inner_product(p, target);
  }
  right(n) = 1;
  // Of least norm where copies stand so near that the profiles are nearly dependent.
  Eigen::CompleteOrthogonalDecomposition<detail::EigenRowMajor<double>> solver;
  solver.setThreshold(1e-13);
  const Eigen::VectorXd solution = solver.compute(system).solve(right);

  const auto x = solution.head(n);
  const double norm = inner_product(target, target);
  const double square = norm - 2 * x.dot(right.head(n)) + x.dot(system.topLeftCorner(n, n) * x);
  return {{x.begin(), x.end()}, std::sqrt(std::max(0., square) / norm)};
}

PostHocEma::PostHocEma(Index size)
    : gammas_{power_of(kSigmaRel[0]), power_of(kSigmaRel[1])}, averages_{Buffer<float>(size), Buffer<float>(size)} {}

void PostHocEma::update(std::span<const float> parameters) {
  check(parameters.size() == averages_[0].span().size(), "PostHocEma::update: ", parameters.size(), " parameters, expected ",
        averages_[0].size());
  ++steps_;
  for (std::size_t k = 0; k < averages_.size(); ++k) {
    const auto part = static_cast<float>(1 - std::pow(1 - 1 / static_cast<double>(steps_), gammas_[k] + 1));  // 1 at first
    float* average = averages_[k].data();
    parallel_for(averages_[k].size(), 1 << 14, [&, average, part](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) average[i] += part * (parameters[static_cast<std::size_t>(i)] - average[i]);
    });
  }
}

void PostHocEma::snapshot() {
  check(copies_.empty() || copies_.back().steps < steps_, "PostHocEma::snapshot: step ", steps_, " has been put by already");
  check(steps_ > 0, "PostHocEma::snapshot: there is nothing to put by before the first update");
  copies_.push_back({steps_, averages_});
}

std::vector<std::int64_t> PostHocEma::snapshots() const {
  std::vector<std::int64_t> steps;
  for (const Copy& copy : copies_) steps.push_back(copy.steps);
  return steps;
}

PostHocEma::Reconstruction PostHocEma::reconstruct(double sigma_rel) const {
  check(steps_ > 0, "PostHocEma::reconstruct: no update has been averaged yet");
  std::vector<PowerProfile> profiles;
  std::vector<std::span<const float>> values;
  const auto add = [&](std::int64_t steps, const std::array<Buffer<float>, 2>& averages) {
    for (std::size_t k = 0; k < averages.size(); ++k) {
      profiles.push_back({gammas_[k], static_cast<double>(steps)});
      values.push_back(averages[k].span());
    }
  };
  for (const Copy& copy : copies_) {
    if (copy.steps < steps_) add(copy.steps, copy.averages);
  }
  add(steps_, averages_);
  const ProfileFit fit = fit_profile(profiles, {power_of(sigma_rel), static_cast<double>(steps_)});
  Reconstruction result{std::vector<float>(values.front().size()), fit.error};
  for (std::size_t i = 0; i < result.parameters.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < values.size(); ++j) sum += fit.weights[j] * static_cast<double>(values[j][i]);
    result.parameters[i] = static_cast<float>(sum);
  }
  return result;
}

void PostHocEma::store(Checkpoint& checkpoint, const ParameterLayout& layout) const {
  if (steps_ == 0) return;
  std::string steps;
  const auto add = [&](std::int64_t at, const std::array<Buffer<float>, 2>& averages) {
    steps += join(steps.empty() ? "" : " ", at);
    for (std::size_t k = 0; k < averages.size(); ++k) checkpoint.set_parameters(prefix_of(at, k), layout, averages[k].span());
  };
  for (const Copy& copy : copies_) {
    if (copy.steps < steps_) add(copy.steps, copy.averages);
  }
  add(steps_, averages_);
  checkpoint.metadata[kSteps] = steps;
}

bool PostHocEma::stored_in(const Checkpoint& checkpoint) { return checkpoint.metadata.find(kSteps) != checkpoint.metadata.end(); }

PostHocEma PostHocEma::load(const Checkpoint& checkpoint, const ParameterLayout& layout) {
  const auto found = checkpoint.metadata.find(kSteps);
  check<ModelFileError>(found != checkpoint.metadata.end(),
                        "the file holds no averages for post-hoc reconstruction; train with ema_snapshots");
  PostHocEma ema(layout.size());
  for (const std::int64_t steps : parse_steps(found->second)) {
    if (ema.steps_ > 0) ema.snapshot();  // all but the last, which is the running one
    for (std::size_t k = 0; k < kSigmaRel.size(); ++k) {
      checkpoint.get_parameters(prefix_of(steps, k), layout, ema.averages_[k].span());
    }
    ema.steps_ = steps;
  }
  return ema;
}

}  // namespace tweedie
